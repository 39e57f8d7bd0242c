//! Images: a store of blobs named by what they hold, and names for some of them.
//!
//! # Layout
//! [`Digest`]; [`spec`]: the documents of an image; [`Store`]: blobs on disk, with [`Partial`] for those that
//! come in pieces and `names` for `index.json`; `choose`: which image of an index; `startable`: an image becomes
//! the one file that both kinds start; `find`: what a user types for an image; [`archive`]: images in and out;
//! `collect`: what is removed, and what is damaged.
//!
//! The directory is an OCI image layout (OCI image specification, "Image Layout"), which skopeo and umoci read
//! as it is. Blobs and `index.json` appear whole or not at all, on disk before they have their names, so neither
//! a crash nor a second command at the same time leaves a name without its bytes.

pub mod archive;
mod choose;
mod collect;
mod digest;
mod error;
mod find;
mod names;
mod partial;
pub mod spec;
mod startable;
mod store;

pub use archive::Loaded;
pub use choose::Chosen;
pub(crate) use choose::pick;
pub use collect::{Checked, Pruned};
pub use digest::{BadDigest, Digest};
pub use error::ContentError;
pub use find::Found;
pub use partial::Partial;
pub use spec::{Config, Descriptor, Document, Index, Manifest, Platform, ProcessConfig, media};
pub use startable::Startable;
pub use store::{Session, Store};

#[cfg(test)]
mod tests;
