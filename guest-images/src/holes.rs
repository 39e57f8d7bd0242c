//! Holes in files: what is zero in a kernel, between its sections above all, takes no disk, no page cache
//! and, when the kernel is loaded, no memory of the guest.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// The shortest run of zeros that becomes a hole: shorter ones only cut the file into pieces.
const SHORTEST: u64 = 64 << 10;
/// Holes begin and end at multiples of this.
const BLOCK: u64 = 4096;

/// Gives back every long run of zeros in the first `len` bytes of a file that is open for reading and
/// writing. Its contents stay the same. Does nothing where the file system knows no holes.
///
/// # Errors
/// As `pread(2)` and `fallocate(2)`.
pub(crate) fn dig(file: &File, len: u64) -> io::Result<()> {
    let mut block = [0; BLOCK as usize];
    let mut zeros = 0..0;
    for start in (0..len & !(BLOCK - 1)).step_by(BLOCK as usize) {
        file.read_exact_at(&mut block, start)?;
        if block.iter().any(|byte| *byte != 0) {
            punch(file, &zeros)?;
            zeros = start + BLOCK..start + BLOCK;
        } else {
            zeros.end = start + BLOCK;
        }
    }
    punch(file, &zeros)
}

fn punch(file: &File, zeros: &Range<u64>) -> io::Result<()> {
    if zeros.end - zeros.start < SHORTEST {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(file, flags, zeros.start, zeros.end - zeros.start) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn zeros_take_no_room_and_all_bytes_stay() {
        let file = tempfile::tempfile().unwrap();
        let mut bytes = vec![0; 1 << 20];
        for at in [0, 300_000, 300_100, 500_000, (1 << 20) - 1] {
            bytes[at] = 7;
        }
        file.write_all_at(&bytes, 0).unwrap();
        file.sync_all().unwrap();
        let before = file.metadata().unwrap().blocks();
        dig(&file, bytes.len() as u64).unwrap();
        let mut read = vec![1; bytes.len()];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == bytes);
        let after = file.metadata().unwrap().blocks();
        assert!(after < before / 4, "{before} blocks, then {after}");
    }
}
