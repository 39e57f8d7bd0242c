//! A tar of a root file system becomes an image of one layer.

use std::io::Read;

use crate::content::{
    Config, ContentError, Descriptor, Digest, Platform, ProcessConfig, Store, media, spec::History,
};
use crate::layer::Layer;
use crate::reference::Reference;

/// When such an image was made: the same tar gives the same image, and umoci wants a time.
const EPOCH: &str = "1970-01-01T00:00:00Z";

impl Store {
    /// Makes an image of a tar (packed by gzip or zstd, or not) of a root file system, made for `platform`, and gives
    /// it a name if there is one. It can be started: that has been tried.
    ///
    /// # Errors
    /// The tar cannot be read or merged, or the store cannot be written.
    pub fn import(
        &self,
        tar: impl Read,
        process: ProcessConfig,
        platform: &Platform,
        name: Option<&Reference>,
    ) -> Result<Descriptor, ContentError> {
        let _session = self.session()?;
        let (digest, size) = self.put(tar, None)?;
        let layer = Descriptor::new(self.layer_type(&digest)?, digest, size);
        let blob = Layer { name: digest.to_string(), blob: self.blob(&digest)?, diff_id: None };
        let diff_id = Digest::of_stream(blob.open().map_err(ContentError::Source)?);
        let mut config = Config {
            created: Some(EPOCH.into()),
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            config: process,
            ..Config::default()
        };
        config.rootfs.diff_ids = vec![diff_id.map_err(ContentError::Source)?];
        config.history = vec![History {
            created: Some(EPOCH.into()),
            created_by: Some("hv image import".into()),
            ..History::default()
        }];
        let bytes = serde_json::to_vec(&config)
            .map_err(|source| ContentError::Json { what: "a configuration".into(), source })?;
        let (digest, size) = self.put(&bytes[..], None)?;
        let image = self.put_manifest(Descriptor::new(media::CONFIG, digest, size), vec![layer])?;
        self.startable(&image, None)?;
        match name {
            Some(name) => self.tag(&name.to_string(), &image)?,
            None => self.keep_unnamed(&image)?,
        }
        Ok(image)
    }
}
