//! The unsafe code of this crate: each block states the precondition it relies on.

pub mod attempt;
pub mod bpf;
pub mod denied;
pub mod disk;
pub mod exec;
pub mod fork;
pub mod interface;
pub mod landlock;
pub mod loopback;
pub mod mark;
pub mod schedule;
pub mod shared;
pub mod signal;
pub mod spawn;
pub mod tun;
