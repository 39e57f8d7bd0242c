//! The documents of an image, as the OCI image specification 1.1 and docker's schema 2 have them.
//!
//! Anyone may have written them: they are bounded in size before they are parsed, a document that could be
//! read as two kinds is refused (CVE-2021-41190), and nothing in them is used as a path of the host.

mod config;
mod document;
mod platform;

pub use config::{Config, Healthcheck, History, ProcessConfig, RootFs};
pub use document::{Descriptor, Document, Index, Manifest};
pub use platform::{BadPlatform, Platform};

use serde::{Deserialize, Deserializer};

/// The largest document that is read: what registries take too.
pub const MAX_JSON: u64 = 4 << 20;

/// Media types, those of docker beside those of OCI.
pub mod media {
    /// An index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// docker's index.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// A manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// An image's configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// docker's configuration: the same JSON.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// A layer that is not compressed.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// A layer compressed by gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// A layer compressed by zstd.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// docker's layer, with gzip or without.
    const DOCKER_LAYERS: [&str; 5] = [
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    const OCI_LAYERS: [&str; 6] = [
        LAYER,
        LAYER_GZIP,
        LAYER_ZSTD,
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    ];

    /// Whether it is an index's.
    pub fn is_index(kind: &str) -> bool {
        kind == INDEX || kind == DOCKER_LIST
    }

    /// Whether it is a manifest's.
    pub fn is_manifest(kind: &str) -> bool {
        kind == MANIFEST || kind == DOCKER_MANIFEST
    }

    /// Whether it is an image configuration's.
    pub fn is_config(kind: &str) -> bool {
        kind == CONFIG || kind == DOCKER_CONFIG
    }

    /// Whether it is a layer's that hv can merge. How it is packed, its first bytes say.
    pub fn is_layer(kind: &str) -> bool {
        OCI_LAYERS.contains(&kind) || DOCKER_LAYERS.contains(&kind)
    }
}

/// `null` is what Go writes for nothing.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}
