//! From an image in the store to a name in a registry.

use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use ureq::http::Method;

use super::client::{Client, location};
use super::http::{Answer, Call, Payload};
use super::patience::{self, Patience};
use super::pull::Progress;
use super::url::Url;
use super::{Registries, RegistryError, to_pull};
use crate::content::spec::MAX_JSON;
use crate::content::{ContentError, Descriptor, Digest, Document, Store, media};
use crate::reference::Reference;

/// How deep indexes may lie in each other.
const MAX_DEPTH: usize = 4;

/// How to push.
#[derive(Debug, Clone, Default)]
pub struct How {
    /// Bytes of one request; None: a blob is sent as a whole, as all registries take it.
    pub chunk: Option<u64>,
    /// Repositories of the same registry that may have the blobs already.
    pub mount_from: Vec<String>,
}

/// Sends an image, with everything that it is made of, and gives it the name there; its digest.
///
/// # Errors
/// Something of it is not in the store, or the registry does not take it.
pub fn push(
    registries: &Registries,
    store: &Store,
    image: &Descriptor,
    name: &Reference,
    how: &How,
    progress: &dyn Progress,
) -> Result<Digest, RegistryError> {
    let client = registries.client(name.registry());
    let pushing = Pushing { store, client: &client, name, how, scope: scope(name.repository(), how) };
    let mut documents = Vec::new();
    pushing.collect(image, 0, &mut documents)?;
    let mut seen = BTreeSet::new();
    let manifests = documents.iter().filter_map(|(_, document, _)| match document {
        Document::Manifest(manifest) => Some(manifest.layers.iter().chain([&manifest.config])),
        Document::Index(_) => None,
    });
    let blobs: Vec<&Descriptor> = manifests.flatten().filter(|blob| seen.insert(blob.digest)).collect();
    if let Some(absent) = blobs.iter().find(|blob| !store.has(&blob.digest)) {
        return Err(ContentError::Absent(absent.digest).into());
    }
    progress.plan(&blobs);
    pushing.blobs(&blobs, registries.settings().parallel, progress)?;
    // What is named must be there first: the outermost last.
    for (descriptor, _, bytes) in documents.iter().rev() {
        let last = descriptor.digest == image.digest;
        let word = match name.tag().filter(|_| last) {
            Some(tag) => tag.to_owned(),
            None => descriptor.digest.to_string(),
        };
        pushing.document(descriptor, bytes, &word)?;
    }
    Ok(image.digest)
}

/// Pushing may read what it has pushed, and what it mounts.
fn scope(repository: &str, how: &How) -> String {
    let own = format!("repository:{repository}:pull,push");
    how.mount_from.iter().fold(own, |all, from| format!("{all} {}", to_pull(from)))
}

struct Pushing<'a> {
    store: &'a Store,
    client: &'a Client,
    name: &'a Reference,
    how: &'a How,
    scope: String,
}

impl Pushing<'_> {
    /// The documents from the outermost inwards.
    fn collect(
        &self,
        image: &Descriptor,
        depth: usize,
        all: &mut Vec<(Descriptor, Document, Vec<u8>)>,
    ) -> Result<(), RegistryError> {
        if depth > MAX_DEPTH {
            let why = format!("indexes lie in each other more than {MAX_DEPTH} deep");
            return Err(ContentError::Refused { what: self.name.to_string(), why }.into());
        }
        let bytes = self.store.read(&image.digest, MAX_JSON)?;
        let document = Document::from_slice_as(&bytes, &image.media_type)?;
        let children = match &document {
            Document::Index(index) => index.manifests.clone(),
            Document::Manifest(_) => Vec::new(),
        };
        all.push((image.clone(), document, bytes));
        children.iter().try_for_each(|child| self.collect(child, depth + 1, all))
    }

    fn blobs(
        &self,
        blobs: &[&Descriptor],
        parallel: usize,
        progress: &dyn Progress,
    ) -> Result<(), RegistryError> {
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let failed: Mutex<Option<RegistryError>> = Mutex::new(None);
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(blob) = blobs.get(number) else { return };
                match self.blob(blob, &|bytes| progress.at(number, bytes)) {
                    Ok(sent) => progress.done(number, sent),
                    Err(error) => {
                        stop.store(true, Ordering::Relaxed);
                        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
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

    /// Whether it had to be sent.
    fn blob(&self, blob: &Descriptor, progress: &(dyn Fn(u64) + Sync)) -> Result<bool, RegistryError> {
        if self.is_there(blob)? {
            return Ok(false);
        }
        let mut patience = Patience::new(self.client.settings().retries);
        loop {
            match self.send(blob, progress) {
                Ok(sent) => return Ok(sent),
                Err(error) => patience.after(error)?,
            }
        }
    }

    fn is_there(&self, blob: &Descriptor) -> Result<bool, RegistryError> {
        let doing = format!("look for {} at {}", blob.digest, self.name.registry());
        let call = Call::new(&doing, Method::HEAD, self.at(&format!("blobs/{}", blob.digest)));
        // Some registries answer 403 for what is not there; sending it says more.
        let found = patience::insist(self.client.settings().retries, || {
            let answer = self.client.ask(&call, &self.scope)?;
            match answer.status {
                500.. | 408 | 429 => Err(answer.into_error(&doing)),
                status => Ok((status, answer.number("content-length"))),
            }
        })?;
        Ok(matches!(found, (200, length) if length.is_none_or(|length| length == blob.size)))
    }

    /// One attempt, by mounting or by sending; whether it was sent.
    fn send(&self, blob: &Descriptor, progress: &(dyn Fn(u64) + Sync)) -> Result<bool, RegistryError> {
        let doing = format!("push {} to {}/{}", blob.digest, self.name.registry(), self.name.repository());
        let mut url = self.at("blobs/uploads/");
        if let Some(from) = self.how.mount_from.first() {
            url = url.with("mount", &blob.digest.to_string()).with("from", from);
        }
        let call = Call::new(&doing, Method::POST, url);
        let answer = self.client.expect(&call, &self.scope, &[201, 202])?;
        if answer.status == 201 {
            return Ok(false);
        }
        let upload = self.next(&doing, &answer)?;
        let upload = match self.how.chunk {
            Some(chunk) if blob.size > chunk => self.chunks(&doing, blob, upload, chunk, progress)?,
            _ => return self.whole(&doing, blob, &upload, progress).map(|()| true),
        };
        let url = upload.with("digest", &blob.digest.to_string());
        let call = Call::new(&doing, Method::PUT, url);
        self.client.expect(&call, &self.scope, &[201, 204])?;
        Ok(true)
    }

    fn whole(
        &self,
        doing: &str,
        blob: &Descriptor,
        upload: &Url,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), RegistryError> {
        let open = || self.open(blob, 0, blob.size, progress);
        let url = upload.with("digest", &blob.digest.to_string());
        let call = Call::new(doing, Method::PUT, url).payload(Payload::Stream(&open, blob.size));
        self.client.expect(&call, &self.scope, &[201, 204]).map(drop)
    }

    /// Piece by piece; where a piece breaks off, the registry is asked how far it is.
    fn chunks(
        &self,
        doing: &str,
        blob: &Descriptor,
        mut upload: Url,
        chunk: u64,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Url, RegistryError> {
        let mut patience = Patience::new(self.client.settings().retries);
        let mut start = 0;
        while start < blob.size {
            let length = chunk.max(1).min(blob.size - start);
            let open = || self.open(blob, start, length, progress);
            let call = Call::new(doing, Method::PATCH, upload.clone())
                .header("content-range", format!("{start}-{}", start + length - 1))
                .payload(Payload::Stream(&open, length));
            let answer = match self.client.expect(&call, &self.scope, &[202]) {
                Ok(answer) => {
                    start += length;
                    patience.renew();
                    answer
                }
                Err(error) => {
                    patience.after(error)?;
                    let call = Call::get(doing, upload.clone());
                    let answer = self.client.expect(&call, &self.scope, &[204])?;
                    start = answer.header("range").and_then(after).unwrap_or(0).min(blob.size);
                    answer
                }
            };
            upload = self.next(doing, &answer)?;
        }
        Ok(upload)
    }

    /// Part of a blob, and tells how much of it has been read.
    fn open<'a>(
        &self,
        blob: &Descriptor,
        start: u64,
        length: u64,
        progress: &'a (dyn Fn(u64) + Sync),
    ) -> Result<Box<dyn Read + 'a>, RegistryError> {
        let mut file = self.store.blob(&blob.digest)?;
        let path = self.store.dir().to_owned();
        file.seek(SeekFrom::Start(start)).map_err(|source| ContentError::Io {
            doing: "read",
            path,
            source,
        })?;
        Ok(Box::new(Counted { inner: file.take(length), count: start, progress }))
    }

    fn document(&self, descriptor: &Descriptor, bytes: &[u8], word: &str) -> Result<(), RegistryError> {
        let doing = format!("push {}/{} as {word}", self.name.registry(), self.name.repository());
        let kind = if media::is_index(&descriptor.media_type) || media::is_manifest(&descriptor.media_type) {
            descriptor.media_type.as_str()
        } else {
            media::MANIFEST
        };
        let call = Call::new(&doing, Method::PUT, self.at(&format!("manifests/{word}")))
            .payload(Payload::Bytes(bytes, kind));
        let answer = self.client.insist(&call, &self.scope, &[200, 201, 202])?;
        let said = answer.header("docker-content-digest").and_then(|text| text.parse::<Digest>().ok());
        match said.filter(|said| *said != descriptor.digest) {
            None => Ok(()),
            Some(said) => Err(RegistryError::Nonsense {
                doing,
                at: answer.url.authority().into(),
                why: format!("says that it got {said}"),
            }),
        }
    }

    fn at(&self, below: &str) -> Url {
        self.client.url().at(&format!("/v2/{}/{below}", self.name.repository()))
    }

    /// Where an upload goes on: perhaps on another host, within the rules of redirects.
    fn next(&self, doing: &str, answer: &Answer) -> Result<Url, RegistryError> {
        let next = location(doing, answer)?;
        self.client.check(&answer.url, &next)?;
        Ok(next)
    }
}

/// The byte after `0-99`.
fn after(range: &str) -> Option<u64> {
    range.trim().trim_start_matches("bytes=").split_once('-')?.1.parse::<u64>().ok()?.checked_add(1)
}

/// A stream that tells how much of it has been read.
struct Counted<'a, R> {
    inner: R,
    count: u64,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        (self.progress)(self.count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_an_upload_goes_on() {
        assert_eq!(after("0-99"), Some(100));
        assert_eq!(after("bytes=0-0"), Some(1));
        assert_eq!(after("0"), None);
        assert_eq!(after("0-18446744073709551615"), None);
    }

    #[test]
    fn scopes() {
        let how = How { mount_from: vec!["b".into()], ..How::default() };
        assert_eq!(scope("a", &how), "repository:a:pull,push repository:b:pull");
    }
}
