//! The store of images: with skopeo and umoci on the other side, through crashes and full disks, and both kinds that
//! start from it; registries on this machine's loopback.
//!
//! Each test has a store of its own. Users' is below XDG_DATA_HOME; root's is at its fixed place, so root's tests run
//! with an empty file system over that, in a mount namespace.

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod crash;
mod registry;
mod start;
mod verbs;
mod world;
