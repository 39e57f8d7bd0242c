//! Images of an OCI layout or of docker's archive come into the store.

use std::collections::HashSet;

use serde::Deserialize;

use super::Source;
use crate::content::spec::MAX_JSON;
use crate::content::{Config, ContentError, Descriptor, Document, Index, Manifest, Store, media};
use crate::layer::Packing;
use crate::reference::Reference;

/// How deep indexes may lie in each other.
const MAX_DEPTH: usize = 4;
/// The most blobs of one load, children of all indexes together.
const MAX_BLOBS: usize = 100_000;

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The names that it got.
    pub names: Vec<String>,
    /// Its manifest or index.
    pub image: Descriptor,
}

/// An entry of docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Store {
    /// Stores all images that `source` has, under the names it gives them; those of `default_registry` may be short.
    /// `name`: what to call the only one, whatever it is called there.
    ///
    /// # Errors
    /// It is neither an OCI layout nor docker's archive, or something in it is missing or not what it says. Images
    /// that were stored before that stay.
    pub fn load(
        &self,
        source: &Source,
        name: Option<&Reference>,
        default_registry: &str,
    ) -> Result<Vec<Loaded>, ContentError> {
        let _session = self.session()?;
        let parse = |what: &str, source| ContentError::Json { what: what.into(), source };
        let images: Vec<(Vec<String>, Descriptor)> = match source.small("index.json", MAX_JSON)? {
            Some(bytes) => {
                let index: Index = serde_json::from_slice(&bytes)
                    .map_err(|error| parse(&format!("index.json in {}", source.what), error))?;
                self.load_layout(source, index)?
            }
            None => match source.small("manifest.json", MAX_JSON)? {
                Some(bytes) => {
                    let listed: Vec<Listed> = serde_json::from_slice(&bytes)
                        .map_err(|error| parse(&format!("manifest.json in {}", source.what), error))?;
                    self.load_dockers(source, listed)?
                }
                None => {
                    let why = "it is neither an OCI layout nor an archive of docker's; \
                               `hv image import` takes a tar of a root file system";
                    return Err(ContentError::refused(&source.what, why));
                }
            },
        };
        if name.is_some() && images.len() != 1 {
            let why = format!("it has {} images, so --name cannot name it; leave it out", images.len());
            return Err(ContentError::refused(&source.what, why));
        }
        let mut loaded = Vec::new();
        for (names, image) in images {
            let names: Vec<String> = match name {
                Some(name) => vec![name.to_string()],
                None => names.iter().filter_map(|name| full(name, &source.what, default_registry)).collect(),
            };
            for name in &names {
                self.tag(name, &image)?;
            }
            if names.is_empty() {
                self.keep_unnamed(&image)?;
            }
            loaded.push(Loaded { names, image });
        }
        Ok(loaded)
    }

    fn load_layout(
        &self,
        source: &Source,
        index: Index,
    ) -> Result<Vec<(Vec<String>, Descriptor)>, ContentError> {
        let mut images: Vec<(Vec<String>, Descriptor)> = Vec::new();
        let mut seen = HashSet::new();
        for entry in index.manifests.iter().filter(|entry| !entry.is_attestation()) {
            let name = entry.full_name().map(str::to_owned);
            if let Some((names, _)) = images.iter_mut().find(|(_, image)| image.digest == entry.digest) {
                names.extend(name);
                continue;
            }
            self.load_document(source, entry, 0, &mut seen)?;
            let mut image = entry.named(None);
            // What the store chooses by is in the documents; annotations of a stranger's index.json mean nothing here.
            image.annotations.clear();
            images.push((name.into_iter().collect(), image));
        }
        if images.is_empty() {
            return Err(ContentError::refused(&source.what, "it has no image in it"));
        }
        Ok(images)
    }

    fn load_document(
        &self,
        source: &Source,
        image: &Descriptor,
        depth: usize,
        seen: &mut HashSet<crate::content::Digest>,
    ) -> Result<(), ContentError> {
        if image.size > MAX_JSON {
            return Err(ContentError::TooLarge { what: image.digest.to_string(), limit: MAX_JSON });
        }
        if !seen.insert(image.digest) {
            return Ok(());
        }
        self.load_blob(source, image)?;
        match self.document(image)? {
            Document::Manifest(manifest) => {
                for blob in [&manifest.config].into_iter().chain(&manifest.layers) {
                    if seen.insert(blob.digest) {
                        self.load_blob(source, blob)?;
                    }
                }
                // What cannot be an image's configuration is refused here, not at the first start.
                if media::is_config(&manifest.config.media_type) {
                    Config::from_slice(&self.read(&manifest.config.digest, MAX_JSON)?)?;
                }
            }
            Document::Index(_) if depth >= MAX_DEPTH => {
                let why = format!("indexes lie in each other more than {MAX_DEPTH} deep");
                return Err(ContentError::refused(image.digest, why));
            }
            Document::Index(index) => {
                let mut found = false;
                for child in &index.manifests {
                    // Who saves an image of several platforms may leave some out.
                    if self.has(&child.digest) || source.file(&path_of(child))?.is_some() {
                        self.load_document(source, child, depth + 1, seen)?;
                        found |= !child.is_attestation();
                    }
                }
                if !found {
                    return Err(ContentError::refused(&source.what, "it has an index, but no image of it"));
                }
            }
        }
        match seen.len() > MAX_BLOBS {
            true => Err(ContentError::refused(&source.what, format!("it has more than {MAX_BLOBS} blobs"))),
            false => Ok(()),
        }
    }

    fn load_blob(&self, source: &Source, blob: &Descriptor) -> Result<(), ContentError> {
        if self.size(&blob.digest).is_ok_and(|size| size == blob.size) {
            return Ok(());
        }
        let Some((file, size)) = source.file(&path_of(blob))? else {
            return Err(ContentError::refused(
                &source.what,
                format!("blob {} is missing in it", blob.digest),
            ));
        };
        if size != blob.size {
            return Err(ContentError::Size { digest: blob.digest, expected: blob.size, found: Some(size) });
        }
        self.put(file, Some((&blob.digest, blob.size))).map(drop)
    }

    fn load_dockers(
        &self,
        source: &Source,
        listed: Vec<Listed>,
    ) -> Result<Vec<(Vec<String>, Descriptor)>, ContentError> {
        let missing = |name: &str| {
            let name: String = name.chars().take(200).flat_map(char::escape_debug).collect();
            ContentError::refused(&source.what, format!("`{name}` is missing in it"))
        };
        let mut images = Vec::new();
        for Listed { config: config_name, repo_tags, layers } in listed {
            let bytes = source.small(&config_name, MAX_JSON)?.ok_or_else(|| missing(&config_name))?;
            let config = Config::from_slice(&bytes)?;
            if config.rootfs.diff_ids.len() != layers.len() {
                let (files, ids) = (layers.len(), config.rootfs.diff_ids.len());
                let why = format!("it lists {files} layers of an image whose configuration has {ids}");
                return Err(ContentError::refused(&source.what, why));
            }
            let mut descriptors = Vec::new();
            for name in &layers {
                let (file, _) = source.file(name)?.ok_or_else(|| missing(name))?;
                let (digest, size) = self.put(file, None)?;
                descriptors.push(Descriptor::new(self.layer_type(&digest)?, digest, size));
            }
            let (digest, size) = self.put(&bytes[..], None)?;
            let config = Descriptor::new(media::CONFIG, digest, size);
            images.push((repo_tags.unwrap_or_default(), self.put_manifest(config, descriptors)?));
        }
        match images.is_empty() {
            true => Err(ContentError::refused(&source.what, "it has no image in it")),
            false => Ok(images),
        }
    }

    /// Stores a manifest of these blobs.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn put_manifest(
        &self,
        config: Descriptor,
        layers: Vec<Descriptor>,
    ) -> Result<Descriptor, ContentError> {
        let bytes = serde_json::to_vec(&Manifest::new(config, layers))
            .map_err(|source| ContentError::Json { what: "a manifest".into(), source })?;
        let (digest, size) = self.put(&bytes[..], None)?;
        Ok(Descriptor::new(media::MANIFEST, digest, size))
    }

    /// OCI's word for a layer's blob, by its first bytes.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn layer_type(&self, digest: &crate::content::Digest) -> Result<&'static str, ContentError> {
        let mut start = [0; 4];
        let blob = self.blob(digest)?;
        let count =
            std::os::unix::fs::FileExt::read_at(&blob, &mut start, 0).map_err(ContentError::Source)?;
        Ok(match Packing::of(&start[..count]) {
            Packing::Plain => media::LAYER,
            Packing::Gzip => media::LAYER_GZIP,
            Packing::Zstd => media::LAYER_ZSTD,
        })
    }
}

fn path_of(blob: &Descriptor) -> String {
    format!("blobs/sha256/{}", blob.digest.hex())
}

/// The full form of a name in an archive. A layout may give a bare tag: then the archive's own name goes before it.
fn full(name: &str, archive: &str, default_registry: &str) -> Option<String> {
    let is_whole = name.contains([':', '/']);
    let name = match is_whole {
        true => name.to_owned(),
        false => {
            let file = archive.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            let stem = file.split('.').next().unwrap_or_default();
            format!("{stem}:{name}")
        }
    };
    Reference::parse(&name, default_registry).ok().map(|name| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_archives_become_whole() {
        let of = |name| full(name, "/tmp/alpine.oci.tar", "docker.io");
        assert_eq!(of("ghcr.io/a/b:1").as_deref(), Some("ghcr.io/a/b:1"));
        assert_eq!(of("debian:12").as_deref(), Some("docker.io/library/debian:12"));
        assert_eq!(of("3.20").as_deref(), Some("docker.io/library/alpine:3.20"));
        assert_eq!(full("latest", "standard input", "docker.io"), None);
        assert_eq!(of("../../x:y"), None);
    }
}
