//! Images: a store of blobs named by what they hold, and names for some of them.
//!
//! # Layout
//! [`Digest`]; [`spec`]: the documents of an image; [`Store`]: blobs on disk, with [`Partial`] for those that
//! come in pieces and `names` for `index.json`; `choose`: which image of an index; `startable`: an image becomes
//! the one file that both kinds start.
//!
//! The directory is an OCI image layout (OCI image specification, "Image Layout"), which skopeo and umoci read
//! as it is. Blobs and `index.json` appear whole or not at all, on disk before they have their names, so neither
//! a crash nor a second command at the same time leaves a name without its bytes.

mod choose;
mod digest;
mod error;
mod names;
mod partial;
pub mod spec;
mod startable;
mod store;

pub use choose::Chosen;
pub(crate) use choose::pick;
pub use digest::{BadDigest, Digest};
pub use error::ContentError;
pub use partial::Partial;
pub use spec::{Config, Descriptor, Document, Index, Manifest, Platform, ProcessConfig, media};
pub use startable::Startable;
pub use store::{Session, Store};

#[cfg(test)]
mod tests;
