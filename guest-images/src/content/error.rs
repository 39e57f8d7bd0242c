//! What can go wrong with images in the store.

use std::io;
use std::path::{Path, PathBuf};

use super::{Digest, Platform};
use crate::layer::LayerError;

/// The store cannot do what was asked, or an image is not what it says.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// A file of the store cannot be read or written.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// `read`, `write` and so on.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was to be stored cannot be read.
    #[error("cannot read what is to be stored")]
    Source(#[source] io::Error),
    /// A blob is not there.
    #[error("blob {0} is not in the store: pull or load its image again")]
    Absent(Digest),
    /// The bytes are others than their name says.
    #[error("the bytes that should be {expected} are {found}: the source or the disk is damaged, or lies")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// There are fewer or more bytes than was said.
    #[error("blob {digest} should have {expected} bytes, but {}", match found {
        Some(found) => format!("has {found}"),
        None => "has more".into(),
    })]
    Size {
        /// Which.
        digest: Digest,
        /// What was said.
        expected: u64,
        /// What came; None: more than expected, and the rest was not read.
        found: Option<u64>,
    },
    /// A document is larger than any honest one.
    #[error("{what} is larger than {limit} bytes: hv does not read it")]
    TooLarge {
        /// Which.
        what: String,
        /// The most.
        limit: u64,
    },
    /// A document is not the JSON that it should be.
    #[error("{what} makes no sense")]
    Json {
        /// Which.
        what: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A document contradicts itself or the specification.
    #[error("{what}: {why}")]
    Refused {
        /// Which document or image.
        what: String,
        /// Why, and where possible what to do.
        why: String,
    },
    /// The image is not made for this machine.
    #[error("the image has nothing for {wanted}; it has {}", if has.is_empty() { "no platform at all" } else { has })]
    NoPlatform {
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        has: String,
    },
    /// A name that cannot be in the store.
    #[error("`{0}` cannot name an image in the store")]
    BadName(String),
    /// The store is not to be changed now.
    #[error("images in {} are being added or used by another hv command: wait until it has ended", .0.display())]
    Busy(PathBuf),
    /// The layers cannot be merged.
    #[error(transparent)]
    Layer(#[from] LayerError),
}

impl ContentError {
    /// A refusal.
    pub(super) fn refused(what: impl ToString, why: impl Into<String>) -> ContentError {
        ContentError::Refused { what: what.to_string(), why: why.into() }
    }
}

/// Names the operation and the file of an error.
pub(super) fn at(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> ContentError {
    move |source| ContentError::Io { doing, path: path.into(), source }
}
