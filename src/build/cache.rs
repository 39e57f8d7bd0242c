//! What a step has made, under a digest of all that it depends on.

use std::path::PathBuf;

use hv_image::content::{Descriptor, Digest, Store};
use serde::{Deserialize, Serialize};

/// A layer that a step made; None: it changed nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Made {
    pub(crate) layer: Option<(Descriptor, Digest)>,
}

fn path(dir: &std::path::Path, key: &Digest) -> PathBuf {
    dir.join(format!("{}.json", key.hex()))
}

/// What is known under `key`, if the store still has it.
pub(crate) fn get(dir: &std::path::Path, store: &Store, key: &Digest) -> Option<Made> {
    let made: Made = serde_json::from_slice(&std::fs::read(path(dir, key)).ok()?).ok()?;
    made.layer.as_ref().is_none_or(|(layer, _)| store.has(&layer.digest)).then_some(made)
}

/// Remembers; what cannot be remembered is done again.
pub(crate) fn put(dir: &std::path::Path, key: &Digest, made: &Made) {
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let mut new = tempfile::NamedTempFile::new_in(dir)?;
        std::io::Write::write_all(&mut new, &serde_json::to_vec(made)?)?;
        new.persist(path(dir, key)).map(drop).map_err(|error| error.error)
    };
    let _ = write();
}
