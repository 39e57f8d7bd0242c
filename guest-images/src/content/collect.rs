//! Removes what no name leads to, and finds what is damaged.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::error::at;
use super::spec::Index;
use super::{ContentError, Descriptor, Digest, Document, Store, media};

/// What was removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// Entries of `index.json` without a name.
    pub unnamed: usize,
    /// Blobs, and downloads that were not finished.
    pub blobs: usize,
    /// Files that sandboxes started.
    pub files: usize,
    /// Bytes of both.
    pub bytes: u64,
}

/// What `fsck` found, and mended where it could be.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Checked {
    /// How many blobs were read.
    pub blobs: usize,
    /// How many bytes they have.
    pub bytes: u64,
    /// What a crash had left, and is removed: not yet files, so no harm was done.
    pub leftovers: usize,
    /// What was wrong, in words.
    pub problems: Vec<String>,
}

/// What names lead to.
#[derive(Debug, Default)]
struct Reached {
    blobs: HashSet<Digest>,
    /// Files in the cache.
    files: HashSet<PathBuf>,
    /// Images that lack something: name, and what.
    broken: Vec<(Descriptor, String)>,
}

impl Store {
    /// Removes the images without a name, and every blob and file that no name leads to.
    ///
    /// # Errors
    /// Somebody adds an image just now, or something cannot be read or removed. An image of whose parts one cannot be
    /// read keeps nothing else from being removed, and loses nothing that was found.
    pub fn prune(&self) -> Result<Pruned, ContentError> {
        let _alone = self.alone()?;
        let mut pruned = Pruned::default();
        let before = self.index()?.manifests.len();
        self.forget(|entry| entry.ref_name().is_none())?;
        let index = self.index()?;
        pruned.unnamed = before - index.manifests.len();
        let reached = self.reach(&index);
        for (path, _) in files_of(&self.blobs())? {
            let kept = digest_of(&path).is_some_and(|digest| reached.blobs.contains(&digest));
            if !kept {
                remove(&path, &mut pruned.blobs, &mut pruned.bytes)?;
            }
        }
        for (path, _) in files_of(&self.partials())? {
            remove(&path, &mut pruned.blobs, &mut pruned.bytes)?;
        }
        for (path, _) in files_of(self.cache())? {
            if !reached.files.contains(&path) {
                remove(&path, &mut pruned.files, &mut pruned.bytes)?;
            }
        }
        Ok(pruned)
    }

    /// Reads every blob, and removes those that are not what their name says; an image that lacks something is named.
    /// With `mend`, the names of such images are taken away too, so that a second check finds nothing.
    ///
    /// # Errors
    /// Somebody adds an image just now, or the store cannot be read or written.
    pub fn fsck(&self, mend: bool) -> Result<Checked, ContentError> {
        let _alone = self.alone()?;
        let mut checked = Checked::default();
        for (path, size) in files_of(&self.blobs())? {
            let Some(digest) = digest_of(&path) else {
                let leftover =
                    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".new-"));
                match leftover {
                    true => checked.leftovers += 1,
                    false => checked.problems.push(format!("{} is no blob; removed", path.display())),
                }
                fs::remove_file(&path).map_err(at("remove", &path))?;
                continue;
            };
            (checked.blobs, checked.bytes) = (checked.blobs + 1, checked.bytes + size);
            let found = File::open(&path).and_then(Digest::of_stream).map_err(at("read", &path))?;
            if found != digest {
                checked.problems.push(format!("blob {digest} is damaged: its bytes are {found}; removed"));
                fs::remove_file(&path).map_err(at("remove", &path))?;
            }
        }
        let index = self.mended_index(&mut checked)?;
        let broken = self.reach(&index).broken;
        for (image, why) in &broken {
            let name = image.ref_name().map_or_else(|| image.digest.to_string(), str::to_owned);
            let done = if mend { "; its name is taken away: pull or load it again" } else { "" };
            checked.problems.push(format!("image {name} is not whole: {why}{done}"));
        }
        if mend && !broken.is_empty() {
            self.forget(|entry| broken.iter().any(|(image, _)| image == entry))?;
        }
        Ok(checked)
    }

    /// `index.json`; one that cannot be read is put aside, and the images that are there get entries without names.
    fn mended_index(&self, checked: &mut Checked) -> Result<Index, ContentError> {
        let source = match self.index() {
            Err(ContentError::Json { source, .. }) => source,
            read => return read,
        };
        let path = self.dir().join("index.json");
        let aside = self.dir().join("index.json.damaged");
        fs::rename(&path, &aside).map_err(at("rename", &path))?;
        let mut tops: Vec<Descriptor> = Vec::new();
        let mut below = HashSet::new();
        for (path, size) in files_of(&self.blobs())? {
            let Some(digest) = digest_of(&path).filter(|_| size <= super::spec::MAX_JSON) else { continue };
            let bytes = self.read(&digest, super::spec::MAX_JSON)?;
            let Ok(document) = Document::from_slice(&bytes) else { continue };
            below.extend(document.children().map(|child| child.digest));
            tops.push(Descriptor::new(document.media_type(), digest, size));
        }
        tops.retain(|top| !below.contains(&top.digest));
        let (count, aside) = (tops.len(), aside.display());
        checked.problems.push(format!(
            "index.json cannot be read ({source}); it is now {aside}, and {count} images are without names: \
             `hv image tag` names them"
        ));
        let index = Index::new(tops);
        self.write_index(&index)?;
        Ok(index)
    }

    fn reach(&self, index: &Index) -> Reached {
        let mut reached = Reached::default();
        for image in &index.manifests {
            if let Err(why) = self.reach_image(image, 0, &mut reached) {
                reached.broken.push((image.clone(), why));
            }
        }
        reached
    }

    /// Notes what an image needs; in words, what it lacks.
    fn reach_image(&self, image: &Descriptor, depth: usize, reached: &mut Reached) -> Result<(), String> {
        reached.blobs.insert(image.digest);
        let document = self.document(image).map_err(|error| error.to_string())?;
        let children: Vec<Descriptor> = document.children().cloned().collect();
        match document {
            Document::Manifest(manifest) => {
                reached.files.insert(self.startable_path(&manifest));
                reached.blobs.extend(children.iter().map(|child| child.digest));
                match children.iter().find(|child| self.size(&child.digest).ok() != Some(child.size)) {
                    Some(child) => Err(format!("blob {} is missing or too short", child.digest)),
                    None => Ok(()),
                }
            }
            // Only some of the platforms need be here, but one must be.
            Document::Index(_) if depth < 8 => {
                let mut problem = Some("none of its platforms is here".to_owned());
                for child in children.iter().filter(|child| self.has(&child.digest)) {
                    let of_image = !child.is_attestation()
                        && (media::is_manifest(&child.media_type) || media::is_index(&child.media_type));
                    match self.reach_image(child, depth + 1, reached) {
                        Ok(()) if of_image => problem = None,
                        Ok(()) => {}
                        Err(why) => return Err(why),
                    }
                }
                problem.map_or(Ok(()), Err)
            }
            Document::Index(_) => Err("indexes lie in each other too deep".into()),
        }
    }

    /// The blobs of an image that are here, each once, with their sizes: the image's size on disk.
    pub fn blobs_of(&self, image: &Descriptor) -> Vec<(Digest, u64)> {
        let mut reached = Reached::default();
        // What lacks something has a size all the same.
        let _ = self.reach_image(image, 0, &mut reached);
        let mut blobs: Vec<_> = reached.blobs.into_iter().collect();
        blobs.sort_unstable();
        blobs.into_iter().filter_map(|digest| Some((digest, self.size(&digest).ok()?))).collect()
    }
}

fn digest_of(path: &Path) -> Option<Digest> {
    Digest::from_hex(path.file_name()?.to_str()?)
}

fn remove(path: &Path, count: &mut usize, bytes: &mut u64) -> Result<(), ContentError> {
    let size = fs::symlink_metadata(path).map_or(0, |metadata| metadata.len());
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", path)(error)),
        _ => {
            *count += 1;
            *bytes += size;
            Ok(())
        }
    }
}

/// The files of a directory and their sizes, by name; none if there is no directory.
fn files_of(dir: &Path) -> Result<Vec<(PathBuf, u64)>, ContentError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at("read", dir)(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(at("read", dir))?;
        // One that is gone meanwhile is none.
        if let Ok(metadata) = entry.metadata()
            && !metadata.is_dir()
        {
            files.push((entry.path(), metadata.len()));
        }
    }
    files.sort_unstable();
    Ok(files)
}
