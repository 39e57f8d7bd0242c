//! dm-verity hash trees behind an image, as `veritysetup` writes them.
//!
//! Source: Documentation/admin-guide/device-mapper/verity.rst of Linux (the tree), and the superblock of cryptsetup's
//! docs/on-disk-format-verity. Version 1, SHA-256, blocks of 4096 bytes for data and hashes, no salt: equal images have
//! equal root hashes. Behind the file system a block with the superblock, then the tree, its top level first.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use crate::superblock;

/// Bytes a block, of data and of hashes.
const BLOCK: u64 = 4096;
/// Hashes in a block.
const HASHES: u64 = BLOCK / 32;
/// Bytes that are read at once.
const STEP: usize = 1 << 20;
const SIGNATURE: &[u8; 8] = b"verity\0\0";

/// The hash that stands for a whole image.
pub type RootHash = [u8; 32];

/// An image is not what its root hash says.
#[derive(Debug, thiserror::Error)]
pub enum VerityError {
    /// It cannot be read or written.
    #[error("it cannot be read or written")]
    Io(#[from] io::Error),
    /// There is no file system in it, or one whose size is no number of blocks.
    #[error("it is no file system image of whole blocks of 4 KiB")]
    NoImage,
    /// There is no hash tree behind it.
    #[error("there is no hash tree behind its file system: make one with `hv pack --verity`")]
    NoTree,
    /// The hash tree is of another kind.
    #[error("its hash tree has another hash, block size, size or salt than hv's")]
    OtherTree,
    /// Data or hashes were changed.
    #[error("it was changed: at byte {at} it is not what its hash tree says")]
    Changed {
        /// Where the first block is that differs.
        at: u64,
    },
    /// It is a sound image, but another one.
    #[error("it is another image: its root hash is {found}")]
    OtherRoot {
        /// Its own.
        found: String,
    },
}

/// Appends the hash tree to an image that has none.
///
/// # Errors
/// [`VerityError`]
pub fn append(image: &File) -> Result<RootHash, VerityError> {
    let blocks = blocks(image)?;
    image.set_len(blocks * BLOCK)?;
    image.write_all_at(&superblock_of(blocks), blocks * BLOCK)?;
    walk(image, blocks, &mut |at, hashes| Ok(image.write_all_at(hashes, at)?))
}

/// Compares the whole image with its hash tree, and that with `root`. Nothing is believed that was not hashed.
///
/// # Errors
/// [`VerityError`] says what differs.
pub fn check(image: &File, root: &RootHash) -> Result<(), VerityError> {
    let blocks = blocks(image)?;
    let mut head = [0; BLOCK as usize];
    match image.read_exact_at(&mut head, blocks * BLOCK) {
        Ok(()) if head.starts_with(SIGNATURE) => {}
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error.into()),
        _ => return Err(VerityError::NoTree),
    }
    if head != superblock_of(blocks) {
        return Err(VerityError::OtherTree);
    }
    let mut there = vec![0; STEP];
    let found = walk(image, blocks, &mut |at, hashes| {
        let there = &mut there[..hashes.len()];
        image.read_exact_at(there, at)?;
        match there.iter().zip(hashes).position(|(there, hash)| there != hash) {
            None => Ok(()),
            // A hash stands for a block of the level below; which level that is does not matter to who reads this.
            Some(differs) => Err(VerityError::Changed { at: at + differs as u64 }),
        }
    })?;
    if found == *root { Ok(()) } else { Err(VerityError::OtherRoot { found: crate::hex(&found) }) }
}

/// Blocks of the file system.
fn blocks(image: &File) -> Result<u64, VerityError> {
    let mut head = vec![0; superblock::HEAD.min(image.metadata()?.len() as usize)];
    image.read_exact_at(&mut head, 0)?;
    let size = superblock::recognise(&head).map_err(|_| VerityError::NoImage)?.size;
    // One block alone would have no tree.
    (size % BLOCK == 0 && size > BLOCK).then_some(size / BLOCK).ok_or(VerityError::NoImage)
}

/// `struct verity_sb`. Its UUID is made of the size alone: it tells nothing apart that the root hash does not.
fn superblock_of(blocks: u64) -> [u8; BLOCK as usize] {
    let mut to = [0; BLOCK as usize];
    let mut put = |at: usize, bytes: &[u8]| to[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, SIGNATURE);
    put(8, &1u32.to_le_bytes());
    put(12, &1u32.to_le_bytes());
    put(16, &uuid(blocks));
    put(32, b"sha256");
    put(64, &(BLOCK as u32).to_le_bytes());
    put(68, &(BLOCK as u32).to_le_bytes());
    put(72, &blocks.to_le_bytes());
    to
}

fn uuid(blocks: u64) -> [u8; 16] {
    let digest = Sha256::digest([&b"hv verity "[..], &blocks.to_le_bytes()].concat());
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest[..16]);
    // RFC 9562, version 8.
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// Blocks of each level of the tree, the lowest first.
fn levels(mut blocks: u64) -> Vec<u64> {
    let mut levels = Vec::new();
    while blocks > 1 {
        blocks = blocks.div_ceil(HASHES);
        levels.push(blocks);
    }
    levels
}

/// What is done with hashes and their place in the file.
type Each<'a> = dyn FnMut(u64, &[u8]) -> Result<(), VerityError> + 'a;

/// Hashes the image and then each level; `each` gets the hashes with their place, a few blocks at a time. Each level
/// is read back from the file, so that memory does not grow with the image.
fn walk(image: &File, blocks: u64, each: &mut Each<'_>) -> Result<RootHash, VerityError> {
    let levels = levels(blocks);
    let (mut from, mut count) = (0, blocks);
    // The lowest level is the last in the file.
    let mut to = (blocks + 1 + levels.iter().sum::<u64>()) * BLOCK;
    for level in levels {
        to -= level * BLOCK;
        let mut hashes = Vec::with_capacity(STEP);
        let mut place = to;
        let mut left = count;
        let mut data = vec![0; STEP];
        while left > 0 {
            let step = left.min(STEP as u64 / BLOCK);
            let data = &mut data[..(step * BLOCK) as usize];
            image.read_exact_at(data, from + (count - left) * BLOCK)?;
            for block in data.chunks_exact(BLOCK as usize) {
                hashes.extend_from_slice(&Sha256::digest(block));
            }
            left -= step;
            if hashes.len() == STEP || left == 0 {
                hashes.resize(hashes.len().next_multiple_of(BLOCK as usize), 0);
                each(place, &hashes)?;
                place += hashes.len() as u64;
                hashes.clear();
            }
        }
        (from, count) = (to, level);
    }
    let mut top = [0; BLOCK as usize];
    image.read_exact_at(&mut top, from)?;
    Ok(Sha256::digest(top).into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::Command;

    use super::*;
    use crate::layer::tests::{Tar, flat};

    fn image(bytes: usize) -> File {
        let text: Vec<u8> =
            (0..bytes as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
        flat(&[Tar::new().entry(b'0', b"x", "", &text).end()]).unwrap().file
    }

    #[test]
    fn the_tree_says_what_was_changed_and_veritysetup_agrees() {
        // One block of hashes, more than one, and three levels.
        for size in [10_000, 3 << 20, 70 << 20] {
            let image = image(size);
            let length = image.metadata().unwrap().len();
            let root = append(&image).unwrap();
            check(&image, &root).unwrap();
            assert!(matches!(check(&image, &[0; 32]), Err(VerityError::OtherRoot { .. })));
            assert_eq!(append(&image).unwrap(), root, "made anew, it is the same");
            let path = format!("/proc/{}/fd/{}", std::process::id(), image.as_raw_fd());
            let mut veritysetup = Command::new("veritysetup");
            veritysetup.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(["verify", &path, &path]);
            veritysetup.args([&crate::hex(&root), "--hash-offset", &length.to_string()]);
            match veritysetup.output() {
                Err(_) => eprintln!("not compared: veritysetup is not installed"),
                Ok(done) => assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr)),
            }
            // A byte of the data, of the tree's lowest level, and of its top.
            for at in [5000, image.metadata().unwrap().len() - 4096, length + BLOCK] {
                let mut byte = [0];
                image.read_exact_at(&mut byte, at).unwrap();
                image.write_all_at(&[byte[0] ^ 1], at).unwrap();
                let found = check(&image, &root);
                assert!(matches!(found, Err(VerityError::Changed { .. })), "{at}: {found:?}");
                image.write_all_at(&byte, at).unwrap();
            }
            check(&image, &root).unwrap();
        }
    }

    #[test]
    fn what_has_no_tree_is_refused() {
        let plain = image(10_000);
        assert!(matches!(check(&plain, &[0; 32]), Err(VerityError::NoTree)));
        let root = append(&plain).unwrap();
        let length = plain.metadata().unwrap().len();
        plain.set_len(length - 1).unwrap();
        assert!(check(&plain, &root).is_err());
        let none = tempfile::tempfile().unwrap();
        assert!(matches!(append(&none), Err(VerityError::NoImage)));
    }
}
