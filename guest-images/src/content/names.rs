//! `index.json`: the names.

use std::fs;
use std::io;

use super::error::at;
use super::spec::Index;
use super::{ContentError, Descriptor, Digest, Store};
use crate::draft;

const INDEX: &str = "index.json";
/// The largest `index.json` that is read: 100,000 names.
const MAX_INDEX: u64 = 64 << 20;
/// The longest name: a registry's host (255), a repository (255) and a tag or digest (136) fit.
const MAX_NAME: usize = 1024;

impl Store {
    /// Gives an image a name; another image of that name loses it.
    ///
    /// # Errors
    /// The name cannot be one, the image is not in the store, or the store cannot be written.
    pub fn tag(&self, name: &str, image: &Descriptor) -> Result<(), ContentError> {
        if !is_name(name) {
            return Err(ContentError::BadName(name.chars().take(200).flat_map(char::escape_debug).collect()));
        }
        if !self.has(&image.digest) {
            return Err(ContentError::Absent(image.digest));
        }
        let _lock = self.lock_names()?;
        let mut index = self.index()?;
        let named = image.named(Some(name));
        index.manifests.retain(|other| {
            other.ref_name() != Some(name) && (other.ref_name().is_some() || other.digest != image.digest)
        });
        index.manifests.push(named);
        self.write_index(&index)
    }

    /// Keeps an image that has no name, until it is pruned.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn keep_unnamed(&self, image: &Descriptor) -> Result<(), ContentError> {
        let _lock = self.lock_names()?;
        let mut index = self.index()?;
        if index.manifests.iter().any(|other| other.digest == image.digest) {
            return Ok(());
        }
        index.manifests.push(image.named(None));
        self.write_index(&index)
    }

    /// Takes a name away; whether there was one. The image stays until it is pruned.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn untag(&self, name: &str) -> Result<bool, ContentError> {
        self.forget(|other| other.ref_name() == Some(name))
    }

    /// Takes the entries away for which `gone` holds; whether there were any.
    pub(super) fn forget(&self, gone: impl Fn(&Descriptor) -> bool) -> Result<bool, ContentError> {
        let _lock = self.lock_names()?;
        let mut index = self.index()?;
        let before = index.manifests.len();
        index.manifests.retain(|other| !gone(other));
        if index.manifests.len() == before {
            return Ok(false);
        }
        self.write_index(&index).map(|()| true)
    }

    /// The image of this name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn resolve(&self, name: &str) -> Result<Option<Descriptor>, ContentError> {
        let found = self.index()?.manifests.into_iter().find(|image| image.ref_name() == Some(name));
        Ok(found.map(|image| image.named(None)))
    }

    /// The image whose manifest has this digest, among those that have a name or an entry.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn resolve_digest(&self, digest: &Digest) -> Result<Option<Descriptor>, ContentError> {
        let found = self.index()?.manifests.into_iter().find(|image| image.digest == *digest);
        Ok(found.map(|image| image.named(None)))
    }

    /// All names and their images, by name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn names(&self) -> Result<Vec<(String, Descriptor)>, ContentError> {
        let entries = self.index()?.manifests.into_iter();
        let named = entries.filter_map(|image| Some((image.ref_name()?.to_owned(), image.named(None))));
        let mut named: Vec<_> = named.collect();
        named.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(named)
    }

    /// All that `index.json` says, entries without a name too.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn index(&self) -> Result<Index, ContentError> {
        let path = self.dir().join(INDEX);
        let size = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Index::new(Vec::new())),
            Err(error) => return Err(at("read", &path)(error)),
        };
        if size > MAX_INDEX {
            return Err(ContentError::TooLarge { what: path.display().to_string(), limit: MAX_INDEX });
        }
        let bytes = fs::read(&path).map_err(at("read", &path))?;
        serde_json::from_slice(&bytes)
            .map_err(|source| ContentError::Json { what: path.display().to_string(), source })
    }

    pub(super) fn write_index(&self, index: &Index) -> Result<(), ContentError> {
        let path = self.dir().join(INDEX);
        let bytes = serde_json::to_vec(index)
            .map_err(|source| ContentError::Json { what: path.display().to_string(), source })?;
        draft::write(self.dir(), INDEX, &bytes).map_err(at("write", &path))
    }
}

/// Printable and without spaces; what it means, those decide who give it.
fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}
