//! The unsafe code of this crate: each block states the precondition it relies on.

pub mod exec;
pub mod shared;
pub mod spawn;
pub mod tun;
