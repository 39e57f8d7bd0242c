//! Layers: tar streams that, one over the other, are an image's file tree.
//!
//! # Layout
//! `stream`: a blob becomes the bytes of its tar; [`tar`]: those become entries, with `pax` for their
//! extended headers; `scan`: all layers are read once; [`merge`]: entries of all layers become one tree (pure);
//! [`flatten()`]: the tree becomes one EROFS file, with the data straight from the streams; [`export()`]: or one tar.
//!
//! The way back: [`changes()`] makes a layer of an overlay's upper directory, with [`Writer`].
//!
//! Nothing is unpacked to disk and no name of an image ever reaches the host's file system, so no name can
//! lead out of the image. Every layer is read for its entries and its digest, then for the data of those
//! files that are left after the merge; what a packed one unpacks to waits for that in a nameless file.

mod archive;
mod changes;
mod export;
mod flatten;
mod header;
pub mod merge;
mod pax;
mod scan;
mod stream;
pub mod tar;
mod write;

use std::io;

pub use archive::unpacked;
pub use changes::{ChangesError, changes};
pub use export::export;
pub use flatten::{Flattened, flatten};
pub use scan::Scanned;
pub use stream::{Layer, Packing};
pub use write::{Body, Writer};

/// The most layers of one image. Engines stop far earlier: overlayfs takes 500, docker 127.
pub const MAX_LAYERS: usize = 1024;
/// The most entries of all layers together, names that later layers hide included.
pub const MAX_ENTRIES: u64 = 4 << 20;
/// The most bytes of names, link targets and attributes of all layers together.
pub const MAX_NAMES: u64 = 1 << 30;
/// The most bytes of all layers together, unpacked: what stops a layer that is a bomb.
pub const MAX_UNPACKED: u64 = 256 << 30;

/// Layers cannot become a file tree.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The blob cannot be read or decompressed.
    #[error("cannot read layer {layer}")]
    Read {
        /// Which.
        layer: String,
        /// Why.
        source: io::Error,
    },
    /// The stream is not a tar that can be understood.
    #[error("layer {layer} is damaged")]
    Tar {
        /// Which.
        layer: String,
        /// Why.
        source: tar::TarError,
    },
    /// An entry cannot be in an image.
    #[error("layer {layer}: cannot have `{name}` in an image")]
    Entry {
        /// Which.
        layer: String,
        /// The entry's name, printable.
        name: String,
        /// Why.
        source: merge::MergeError,
    },
    /// The unpacked bytes are others than the image's configuration says.
    #[error(
        "layer {layer} unpacks to sha256:{found}, but the image says sha256:{expected}: pull or load it again"
    )]
    Digest {
        /// Which.
        layer: String,
        /// What the configuration says.
        expected: String,
        /// What is there.
        found: String,
    },
    /// More than is ever needed.
    #[error("the image has more than {limit}: hv does not unpack it")]
    TooMuch {
        /// Of what, with the number.
        limit: &'static str,
    },
    /// The tar cannot be written.
    #[error("cannot write the tar")]
    Output(#[source] io::Error),
    /// The EROFS file cannot be written.
    #[error("cannot write the image's file")]
    Write(#[source] crate::erofs::WriteError),
}

#[cfg(test)]
pub(crate) mod tests;
