//! Turns a name into bootable bytes: images, kernels, modules, initramfs.
//!
//! # Layout
//! - [`open()`]: a path becomes a [`Root`](hv_common::Root); [`superblock`] is how it is recognised.
//!   [`root_tar`]: so does a tar of a root file system.
//!   [`keep`]: the file of either, where the user wants it; [`verity`]: the hash tree behind it.
//! - [`erofs`]: a directory becomes one read-only image file.
//! - [`layer`]: tar streams, one over the other, become such a file.
//! - [`kernel`]: a kernel file becomes an ELF that a monitor can load.
//! - [`modules`]: which kernel modules a guest needs; [`initramfs`]: what a guest starts from.
//! - [`content`]: the store of images; [`store`]: kernels that are kept for a user.
//! - [`dirs`]: where hv keeps things for this user.
//!
//! Every file read here may have been made by somebody hostile: lengths and offsets are checked
//! before they are used, and memory is bounded by constants, not by what a file claims.
#![forbid(unsafe_code)]

mod compression;
pub mod content;
pub mod dirs;
mod draft;
pub mod erofs;
mod holes;
pub mod initramfs;
pub mod keep;
pub mod kernel;
pub mod layer;
pub mod modules;
pub mod open;
pub mod root_tar;
pub mod store;
pub mod superblock;
pub mod verity;

pub use open::{OpenError, open};

/// Bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;

    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
