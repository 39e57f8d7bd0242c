//! Unpacks a bzImage's payload into the cache.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::fs::MemfdFlags;
use sha2::{Digest, Sha256};

use super::bzimage::{self, SetupHeader};
use super::cache::{self, Cache};
use super::error::Failed;
use super::{MAX_SIZE, elf};
use crate::compression::Compression;
use crate::draft::Draft;
use crate::holes;

/// An unpacked kernel.
pub(super) struct Unpacked {
    /// Opened for reading only, except where it is in memory.
    pub elf: File,
    /// Its bytes.
    pub length: u64,
    /// SHA-256, hexadecimal.
    pub digest: String,
}

/// Unpacks the kernel that `setup` describes in `file`, and publishes it under `digest`.
pub(super) fn unpack(
    file: &File,
    setup: &SetupHeader,
    cache: &Cache<'_>,
    digest: &str,
) -> Result<Unpacked, Failed> {
    if let Ok(draft) = Draft::new(cache.0) {
        match pour(file, setup, draft.file()) {
            Ok((length, elf_digest)) => {
                if let Some(elf) = publish(draft, cache, digest) {
                    return Ok(Unpacked { elf, length, digest: elf_digest });
                }
            }
            // A full disk: there may still be memory.
            Err(Failed::Cache(_)) => {}
            Err(other) => return Err(other),
        }
    }
    let memory = rustix::fs::memfd_create("kernel", MemfdFlags::CLOEXEC)
        .map_err(|error| Failed::Cache(error.into()))?
        .into();
    let (length, digest) = pour(file, setup, &memory)?;
    Ok(Unpacked { elf: memory, length, digest })
}

/// Publishes the draft and opens it again for reading only.
fn publish(draft: Draft, cache: &Cache<'_>, digest: &str) -> Option<File> {
    draft.publish(&cache::elf_name(digest)).ok()?;
    File::open(cache.elf(digest)).ok()
}

/// Unpacks into `into` and checks the result; gives its length and digest.
fn pour(file: &File, setup: &SetupHeader, mut into: &File) -> Result<(u64, String), Failed> {
    let mut start = [0; 6];
    let read = bzimage::stream(file, setup.payload.clone()).read(&mut start).map_err(Failed::read)?;
    let compression = Compression::of(&start[..read]).ok_or(Failed::UnknownCompression)?;
    if compression == Compression::Lzo {
        return Err(Failed::UnknownCompression);
    }
    let damaged = |source| Failed::Unpack(compression, source);
    let mut reader = compression.reader(bzimage::stream(file, setup.payload.clone())).map_err(damaged)?;
    // init_size is memory for the unpacked kernel and more; a payload that yields more is not a kernel.
    let limit = setup.init_size.min(MAX_SIZE);
    let mut hash = Sha256::new();
    let mut length = 0;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(damaged(error)),
        };
        length += count as u64;
        if length > limit {
            return Err(Failed::Bomb(limit));
        }
        hash.update(&buffer[..count]);
        into.write_all(&buffer[..count]).map_err(Failed::Cache)?;
    }
    elf::check(into, length).map_err(Failed::read)??;
    holes::dig(into, length).map_err(Failed::Cache)?;
    Ok((length, crate::hex(&hash.finalize())))
}
