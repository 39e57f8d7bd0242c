//! What a user types for an image: a name, a digest, or the start of one.

use super::{ContentError, Descriptor, Digest, Document, Store};
use crate::reference::Reference;

/// The shortest start of a digest that is looked for: shorter ones are names.
const SHORTEST: usize = 6;

/// An image that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name in the store; None: it was found by its digest.
    pub name: Option<String>,
    /// The manifest or index.
    pub image: Descriptor,
}

impl Store {
    /// The image that `text` means: a name, short as people write it (of `default_registry`, if it names none) or
    /// whole, or the (start of the) digest of a manifest or of a configuration. A name goes before a digest.
    ///
    /// # Errors
    /// Several images' digests start so, or the store cannot be read.
    pub fn find(&self, text: &str, default_registry: &str) -> Result<Option<Found>, ContentError> {
        if let Ok(name) = Reference::parse(text, default_registry) {
            let full = name.to_string();
            if let Some(image) = self.resolve(&full)? {
                return Ok(Some(Found { name: Some(full), image }));
            }
            if let Some(digest) = name.digest() {
                let found = self
                    .names()?
                    .into_iter()
                    .find(|(other, image)| image.digest == *digest && is_of(other, &name, default_registry));
                return Ok(found.map(|(name, image)| Found { name: Some(name), image }));
            }
        }
        self.find_digest(text)
    }

    fn find_digest(&self, text: &str) -> Result<Option<Found>, ContentError> {
        let start = text.strip_prefix("sha256:").unwrap_or(text);
        if !(SHORTEST..=64).contains(&start.len()) || !start.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let fits = |digest: &Digest| digest.hex().starts_with(start);
        let mut found: Option<Descriptor> = None;
        for entry in self.index()?.manifests {
            let by_config = || match self.document(&entry) {
                Ok(Document::Manifest(manifest)) => fits(&manifest.config.digest),
                _ => false,
            };
            if !fits(&entry.digest) && !by_config() {
                continue;
            }
            let image = entry.named(None);
            if found.as_ref().is_some_and(|other| other.digest != image.digest) {
                return Err(ContentError::refused(
                    text,
                    "several images' digests start so; write more of it",
                ));
            }
            found = Some(image);
        }
        Ok(found.map(|image| Found { name: None, image }))
    }
}

/// Whether a name in the store is of the same repository.
fn is_of(name: &str, wanted: &Reference, default_registry: &str) -> bool {
    Reference::parse(name, default_registry)
        .is_ok_and(|name| (name.registry(), name.repository()) == (wanted.registry(), wanted.repository()))
}
