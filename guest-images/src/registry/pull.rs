//! From a name in a registry to an image in the store.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::blob::Download;
use super::client::Client;
use super::manifest::{self, Fetched, Wanted};
use super::{Registries, RegistryError};
use crate::content::spec::MAX_JSON;
use crate::content::{ContentError, Descriptor, Document, Manifest, Platform, Store, media, pick};
use crate::reference::Reference;

/// The most bytes of one image: its layers as they come, one of which alone can be as large as a disk.
const MAX_IMAGE: u64 = 1 << 40;
/// The most layers: docker's own limit is 127, others' images have a few hundred at most.
const MAX_LAYERS: usize = 1024;
/// How deep indexes may lie in each other.
const MAX_DEPTH: usize = 4;

/// Is told how far it is; from several threads.
pub trait Progress: Sync {
    /// These blobs make the image: first its layers, then its configuration.
    fn plan(&self, blobs: &[&Descriptor]);
    /// Of the blob of this number in the plan, so many bytes are there.
    fn at(&self, number: usize, bytes: u64);
    /// The blob of this number is in the store; `fetched`: it was not before.
    fn done(&self, number: usize, fetched: bool);
}

/// Tells nobody.
#[derive(Debug)]
pub struct Silent;

impl Progress for Silent {
    fn plan(&self, _: &[&Descriptor]) {}
    fn at(&self, _: usize, _: u64) {}
    fn done(&self, _: usize, _: bool) {}
}

/// What to pull.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The name.
    pub name: Reference,
    /// Which image of an index; None: this machine's, and of a name without index whatever there is.
    pub platform: Option<Platform>,
}

/// What was pulled.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The image, as it is in the store under its name: the manifest for one platform.
    pub image: Descriptor,
    /// What the name means at the registry: the same, or the index that it was chosen from.
    pub named: Descriptor,
}

/// Gets an image, and gives it its name in the store.
///
/// # Errors
/// It is not there, not for the platform, or not what it says; or the store cannot be written. What was got
/// meanwhile stays for the next try until the store is pruned.
pub fn pull(
    registries: &Registries,
    store: &Store,
    wish: &Wish,
    progress: &dyn Progress,
) -> Result<Pulled, RegistryError> {
    let _session = store.session()?;
    let sources = registries.sources(wish.name.registry())?;
    let (from, named) = resolve(&sources, &wish.name)?;
    // Who had the manifest has the blobs; the others may help.
    let others = sources.iter().enumerate().filter(|(at, _)| *at != from).map(|(_, client)| client);
    let clients: Vec<&Client> = [&sources[from]].into_iter().chain(others).collect();
    let pulling = Pulling { store, repository: wish.name.repository(), clients };
    store.put(&named.bytes[..], Some((&named.descriptor.digest, named.descriptor.size)))?;
    let image = pulling.choose(&named, wish.platform.as_ref())?;
    let Document::Manifest(manifest) = store.document(&image)? else {
        return Err(
            ContentError::Refused { what: image.digest.to_string(), why: "it is an index".into() }.into()
        );
    };
    check(&wish.name, &manifest)?;
    pulling.blobs(&manifest, registries.settings().parallel, progress)?;
    // The configuration is there now: it says the platform too.
    store.choose(&image, wish.platform.as_ref())?;
    store.tag(&wish.name.to_string(), &image)?;
    Ok(Pulled { image, named: named.descriptor })
}

/// What the name means now, and which source said so.
///
/// # Errors
/// No source has it.
pub fn resolve(sources: &[Client], name: &Reference) -> Result<(usize, Fetched), RegistryError> {
    let wanted = match (name.digest(), name.tag()) {
        (Some(digest), _) => Wanted::Digest(digest),
        (None, tag) => Wanted::Tag(tag.unwrap_or(crate::reference::DEFAULT_TAG)),
    };
    let mut errors = Vec::new();
    for (at, client) in sources.iter().enumerate() {
        match manifest::fetch(client, name.repository(), &wanted) {
            Ok(fetched) => return Ok((at, fetched)),
            Err(error) => errors.push(error),
        }
    }
    match errors.pop() {
        Some(only) if errors.is_empty() => Err(only),
        last => Err(RegistryError::Everywhere(errors.into_iter().chain(last).collect())),
    }
}

struct Pulling<'a> {
    store: &'a Store,
    repository: &'a str,
    clients: Vec<&'a Client>,
}

impl Pulling<'_> {
    /// The manifest for the platform, through indexes, each of which is put into the store.
    fn choose(&self, named: &Fetched, platform: Option<&Platform>) -> Result<Descriptor, RegistryError> {
        let mut image = named.descriptor.clone();
        for _ in 0..MAX_DEPTH {
            if !media::is_index(&image.media_type) {
                return Ok(image);
            }
            let Document::Index(index) = self.store.document(&image)? else {
                let (what, why) = (image.digest.to_string(), "it is no index".into());
                return Err(ContentError::Refused { what, why }.into());
            };
            let child = pick(&index.manifests, platform)?.clone();
            if child.size > MAX_JSON {
                let what = child.digest.to_string();
                return Err(ContentError::TooLarge { what, limit: MAX_JSON }.into());
            }
            if !self.store.has(&child.digest) {
                let fetched = self.fetch(&child)?;
                self.store.put(&fetched.bytes[..], Some((&child.digest, child.size)))?;
            }
            image = Descriptor::new(child.media_type, child.digest, child.size);
        }
        let what = named.descriptor.digest.to_string();
        let why = format!("indexes lie in each other more than {MAX_DEPTH} deep");
        Err(ContentError::Refused { what, why }.into())
    }

    fn fetch(&self, child: &Descriptor) -> Result<Fetched, RegistryError> {
        let mut errors = Vec::new();
        for client in &self.clients {
            match manifest::fetch(client, self.repository, &Wanted::Child(child)) {
                Ok(fetched) => return Ok(fetched),
                Err(error) => errors.push(error),
            }
        }
        Err(if errors.len() == 1 { errors.remove(0) } else { RegistryError::Everywhere(errors) })
    }

    /// Gets the blobs that are not there, several at once.
    fn blobs(
        &self,
        manifest: &Manifest,
        parallel: usize,
        progress: &dyn Progress,
    ) -> Result<(), RegistryError> {
        let mut seen = BTreeSet::new();
        let all = manifest.layers.iter().chain([&manifest.config]);
        let blobs: Vec<&Descriptor> = all.filter(|blob| seen.insert(blob.digest)).collect();
        progress.plan(&blobs);
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let failed: Mutex<Option<RegistryError>> = Mutex::new(None);
        let work = || {
            while let Some((number, blob)) = take(&next, &blobs).filter(|_| !stop.load(Ordering::Relaxed)) {
                if let Err(error) = self.blob(number, blob, &stop, progress) {
                    stop.store(true, Ordering::Relaxed);
                    // The first failure is the reason; those after it may be its consequences.
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..parallel.min(blobs.len()) {
                scope.spawn(work);
            }
            work();
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn blob(
        &self,
        number: usize,
        blob: &Descriptor,
        stop: &AtomicBool,
        progress: &dyn Progress,
    ) -> Result<(), RegistryError> {
        let there = self.store.has(&blob.digest);
        if !there {
            let tell = |bytes| progress.at(number, bytes);
            let (store, repository) = (self.store, self.repository);
            Download { store, repository, blob, stop, progress: &tell }.get(&self.clients)?;
        }
        let size = self.store.size(&blob.digest)?;
        if size != blob.size {
            let (digest, expected, found) = (blob.digest, blob.size, Some(size));
            return Err(ContentError::Size { digest, expected, found }.into());
        }
        progress.done(number, !there);
        Ok(())
    }
}

fn take<'a>(next: &AtomicUsize, blobs: &[&'a Descriptor]) -> Option<(usize, &'a Descriptor)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    blobs.get(number).map(|blob| (number, *blob))
}

/// Whether it is an image of a file system, and no larger than any honest one.
fn check(name: &Reference, manifest: &Manifest) -> Result<(), RegistryError> {
    let refused = |why: String| Err(ContentError::Refused { what: name.to_string(), why }.into());
    let shown = |kind: &str| kind.chars().take(100).flat_map(char::escape_debug).collect::<String>();
    if !media::is_config(&manifest.config.media_type) {
        let kind = shown(&manifest.config.media_type);
        return refused(format!("it is no image of a file system: its configuration is `{kind}`"));
    }
    if let Some(layer) = manifest.layers.iter().find(|layer| !media::is_layer(&layer.media_type)) {
        return refused(format!("hv cannot read a layer of it, which is `{}`", shown(&layer.media_type)));
    }
    if manifest.layers.len() > MAX_LAYERS {
        return refused(format!("it has {} layers; hv takes {MAX_LAYERS}", manifest.layers.len()));
    }
    if manifest.config.size > MAX_JSON {
        return refused(format!("its configuration has {} bytes; hv reads {MAX_JSON}", manifest.config.size));
    }
    let size = manifest.layers.iter().try_fold(0u64, |sum, layer| sum.checked_add(layer.size));
    match size {
        Some(size) if size <= MAX_IMAGE => Ok(()),
        _ => refused(format!("its layers have more than {MAX_IMAGE} bytes")),
    }
}
