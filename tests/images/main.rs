//! Images: registries, the store, archives. No test speaks to anything but this machine, at ports of its own.

#[path = "../support/mod.rs"]
mod support;

mod registry;
