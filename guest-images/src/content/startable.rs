//! An image becomes the one read-only EROFS file that both kinds start.

use std::fs::{self, File};
use std::path::PathBuf;

use rustix::fs::FlockOperation;

use super::error::at;
use super::{Chosen, Config, ContentError, Descriptor, Digest, Manifest, Platform, Store, media};
use crate::draft;
use crate::erofs::WRITER;
use crate::layer::{self, Layer};

/// An image, ready to be started.
#[derive(Debug)]
pub struct Startable {
    /// The EROFS file, open for reading.
    pub file: File,
    /// Where it is. Nobody ever writes to it; it is only ever replaced by the same bytes.
    pub path: PathBuf,
    /// The digest of the image's manifest.
    pub digest: Digest,
    /// The image's configuration.
    pub config: Config,
}

impl Store {
    /// The image as a file to start: made from its layers the first time, opened afterwards. Two who ask for the
    /// same image at once share the work.
    ///
    /// # Errors
    /// Part of the image is not there, or is not what the image says.
    pub fn startable(
        &self,
        image: &Descriptor,
        platform: Option<&Platform>,
    ) -> Result<Startable, ContentError> {
        let Chosen { descriptor, manifest, config } = self.choose(image, platform)?;
        let path = self.startable_path(&manifest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(_) => self.flatten(&descriptor, &manifest, &config)?,
        };
        Ok(Startable { file, path, digest: descriptor.digest, config })
    }

    /// Where the image's file is, or would be: the layers decide alone.
    pub fn startable_path(&self, manifest: &Manifest) -> PathBuf {
        let mut key = format!("hv erofs {WRITER}\n");
        for layer in &manifest.layers {
            key.push_str(&layer.digest.to_string());
            key.push('\n');
        }
        self.cache().join(format!("{}.erofs", Digest::of(key.as_bytes()).hex()))
    }

    fn flatten(
        &self,
        image: &Descriptor,
        manifest: &Manifest,
        config: &Config,
    ) -> Result<File, ContentError> {
        let layers = self.layers(image, manifest, config)?;
        let path = self.startable_path(manifest);
        let dir = self.cache();
        fs::create_dir_all(dir).map_err(at("make", dir))?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let _lock = lock(&path.with_extension("lock"))?;
        // Whoever had the lock has made it, most likely.
        if let Ok(file) = File::open(&path) {
            return Ok(file);
        }
        let made = layer::flatten(&layers, dir)?;
        draft::adopt(&made.file, dir, name).map_err(at("write", &path))?;
        let _ = fs::remove_file(path.with_extension("lock"));
        File::open(&path).map_err(at("open", &path))
    }

    /// The layers, with what each must unpack to.
    ///
    /// # Errors
    /// One is not there or of a kind that hv does not know, there are none, or the configuration has others.
    pub fn layers(
        &self,
        image: &Descriptor,
        manifest: &Manifest,
        config: &Config,
    ) -> Result<Vec<Layer>, ContentError> {
        let refused = |why: String| ContentError::refused(format!("image {}", image.digest), why);
        let diff_ids = &config.rootfs.diff_ids;
        if manifest.layers.is_empty() {
            // An empty root must never become "no root, so the host's" (CVE-2026-24054).
            return Err(refused("it has no layers, so there is nothing to start".into()));
        }
        if diff_ids.len() != manifest.layers.len() {
            let (layers, ids) = (manifest.layers.len(), diff_ids.len());
            return Err(refused(format!("its manifest has {layers} layers, its configuration {ids}")));
        }
        let layer = |(layer, diff_id): (&Descriptor, &Digest)| {
            if !media::is_layer(&layer.media_type) {
                let kind = layer.media_type.escape_debug();
                return Err(refused(format!("hv cannot unpack its layer of the kind `{kind}`")));
            }
            if self.size(&layer.digest)? != layer.size {
                let (digest, expected) = (layer.digest, layer.size);
                let found = Some(self.size(&layer.digest)?);
                return Err(ContentError::Size { digest, expected, found });
            }
            let blob = self.blob(&layer.digest)?;
            Ok(Layer { name: layer.digest.to_string(), blob, diff_id: Some(diff_id.hex()) })
        };
        manifest.layers.iter().zip(diff_ids).map(layer).collect()
    }
}

/// Held by who makes the file beside it. Removed afterwards; a late waiter then holds a file without a name,
/// which is no harm: it finds the image made.
fn lock(path: &std::path::Path) -> Result<File, ContentError> {
    let file = File::options().create(true).append(true).open(path).map_err(at("open", path))?;
    loop {
        match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
            Err(rustix::io::Errno::INTR) => {}
            done => return done.map(|()| file).map_err(|error| at("lock", path)(error.into())),
        }
    }
}
