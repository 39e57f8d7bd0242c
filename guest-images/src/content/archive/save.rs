//! Images leave the store: as an archive that is an OCI layout and docker's archive at once, or as a layout.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::Path;

use serde_json::json;

use super::write;
use crate::content::{ContentError, Descriptor, Digest, Index, Store};

/// containerd and docker look here for the whole name.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

impl Store {
    /// Writes the images, under these names, as one tar: an OCI layout, with the `manifest.json` that docker's older
    /// versions read. The same images give the same bytes.
    ///
    /// # Errors
    /// Part of an image is not here, or `to` cannot be written.
    pub fn save(
        &self,
        images: &[(Option<String>, Descriptor)],
        mut to: impl Write,
    ) -> Result<(), ContentError> {
        let out = |source| ContentError::Io { doing: "write", path: "the archive".into(), source };
        let index = index_of(images);
        let mut blobs: BTreeSet<Digest> = BTreeSet::new();
        let mut listed = Vec::new();
        for (name, image) in images {
            // Whole, or not at all.
            let chosen = self.choose(image, None)?;
            blobs.extend(self.blobs_of(image).into_iter().map(|(digest, _)| digest));
            let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
            let layers: Vec<String> =
                chosen.manifest.layers.iter().map(|layer| path(&layer.digest)).collect();
            let names: Vec<&String> = name.iter().collect();
            listed.push(json!({
                "Config": path(&chosen.manifest.config.digest), "RepoTags": names, "Layers": layers,
            }));
        }
        let json = |source| ContentError::Json { what: "the archive's index".into(), source };
        let small = [
            ("index.json", serde_json::to_vec(&index).map_err(json)?),
            ("manifest.json", serde_json::to_vec(&listed).map_err(json)?),
            ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ];
        for dir in ["blobs/", "blobs/sha256/"] {
            write::header(&mut to, dir, None).map_err(out)?;
        }
        for digest in &blobs {
            let size = self.size(digest)?;
            write::header(&mut to, &format!("blobs/sha256/{}", digest.hex()), Some(size)).map_err(out)?;
            copy(self.blob(digest)?, &mut to, size).map_err(out)?;
            write::pad(&mut to, size).map_err(out)?;
        }
        for (name, bytes) in &small {
            write::header(&mut to, name, Some(bytes.len() as u64)).map_err(out)?;
            to.write_all(bytes).map_err(out)?;
            write::pad(&mut to, bytes.len() as u64).map_err(out)?;
        }
        write::end(&mut to).map_err(out)?;
        to.flush().map_err(out)
    }

    /// Adds the images to the OCI layout in the directory `dir`, which is made if need be.
    ///
    /// # Errors
    /// Part of an image is not here, or the directory cannot be written.
    pub fn save_layout(
        &self,
        images: &[(Option<String>, Descriptor)],
        dir: &Path,
    ) -> Result<(), ContentError> {
        let other = Store::open(dir);
        let _session = other.session()?;
        for (name, image) in images {
            self.choose(image, None)?;
            for (digest, size) in self.blobs_of(image) {
                other.put(self.blob(&digest)?, Some((&digest, size)))?;
            }
            match name {
                Some(name) => other.tag(name, image)?,
                None => other.keep_unnamed(image)?,
            }
        }
        Ok(())
    }
}

fn index_of(images: &[(Option<String>, Descriptor)]) -> Index {
    let entry = |(name, image): &(Option<String>, Descriptor)| {
        let mut entry = image.named(name.as_deref());
        if let Some(name) = name {
            entry.annotations.insert(CONTAINERD_NAME.into(), name.clone());
        }
        entry
    };
    Index::new(images.iter().map(entry).collect())
}

fn copy(blob: impl Read, to: &mut impl Write, size: u64) -> io::Result<()> {
    match io::copy(&mut blob.take(size), to)? {
        copied if copied == size => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
