//! Checks that a file is a whole 64-bit x86 ELF, as far as can be told without loading it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Why a file is not an ELF kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotElf {
    /// It does not begin like one.
    NoMagic,
    /// It is for another machine: its name.
    Machine(&'static str),
    /// It is not a program: an object file or a core, say.
    NotAProgram,
    /// Its headers contradict themselves.
    Damaged,
    /// A segment ends behind the file's end.
    Truncated,
}

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// A kernel has four or five.
const MAX_PROGRAM_HEADERS: u16 = 64;

/// Checks the ELF in `file`, of `length` bytes.
pub(crate) fn check(file: &File, length: u64) -> io::Result<Result<(), NotElf>> {
    let mut header = [0; HEADER];
    let got = super::read_start(file, &mut header)?;
    let (offset, count) = match program_headers(&header[..got]) {
        Ok(found) => found,
        Err(not) => return Ok(Err(not)),
    };
    let size = count * PROGRAM_HEADER;
    if offset.checked_add(size as u64).is_none_or(|end| end > length) {
        return Ok(Err(NotElf::Truncated));
    }
    let mut table = vec![0; size];
    file.read_exact_at(&mut table, offset)?;
    Ok(segments(&table, length))
}

/// Where the program headers are, and how many.
fn program_headers(header: &[u8]) -> Result<(u64, usize), NotElf> {
    if !header.starts_with(b"\x7fELF") {
        return Err(NotElf::NoMagic);
    }
    if header.get(4) == Some(&1) {
        return Err(NotElf::Machine("32-bit processors"));
    }
    if header.len() < HEADER {
        return Err(NotElf::Truncated);
    }
    let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    if header[4] != 2 || header[5] != 1 {
        return Err(NotElf::Machine("a big-endian or unknown processor"));
    }
    match u16_at(18) {
        62 => {}
        3 => return Err(NotElf::Machine("32-bit x86")),
        183 => return Err(NotElf::Machine("ARM64")),
        243 => return Err(NotElf::Machine("RISC-V")),
        _ => return Err(NotElf::Machine("another processor")),
    }
    // ET_EXEC or, relocatable, ET_DYN.
    if !matches!(u16_at(16), 2 | 3) {
        return Err(NotElf::NotAProgram);
    }
    let offset = header[32..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).ok_or(NotElf::Damaged)?;
    let count = u16_at(56);
    if usize::from(u16_at(54)) != PROGRAM_HEADER || !(1..=MAX_PROGRAM_HEADERS).contains(&count) {
        return Err(NotElf::Damaged);
    }
    Ok((offset, count.into()))
}

fn segments(table: &[u8], length: u64) -> Result<(), NotElf> {
    const LOAD: u32 = 1;
    let mut loads = 0;
    for header in table.chunks_exact(PROGRAM_HEADER) {
        let u64_at = |at: usize| header[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let (offset, in_file, in_memory) = (u64_at(8), u64_at(32), u64_at(40));
        if header.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)) != Some(LOAD) {
            continue;
        }
        loads += 1;
        if in_file > in_memory {
            return Err(NotElf::Damaged);
        }
        if offset.checked_add(in_file).is_none_or(|end| end > length) {
            return Err(NotElf::Truncated);
        }
    }
    if loads == 0 { Err(NotElf::NotAProgram) } else { Ok(()) }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// A small ELF with one segment that holds `contents`.
    pub(crate) fn elf(contents: &[u8]) -> Vec<u8> {
        let mut image = vec![0; HEADER + PROGRAM_HEADER];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"\x7fELF\x02\x01\x01");
        put(16, &[2, 0, 62, 0, 1]);
        put(32, &64u64.to_le_bytes());
        put(54, &[56, 0, 1]);
        put(64, &[1, 0, 0, 0, 5]);
        put(72, &120u64.to_le_bytes());
        put(96, &(contents.len() as u64).to_le_bytes());
        put(104, &(contents.len() as u64).to_le_bytes());
        image.extend_from_slice(contents);
        image
    }

    fn checked(bytes: &[u8]) -> Result<(), NotElf> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        check(&file, bytes.len() as u64).unwrap()
    }

    #[test]
    fn whole_kernels_pass_and_others_are_named() {
        let image = elf(b"code");
        assert_eq!(checked(&image), Ok(()));
        assert_eq!(checked(&image[..image.len() - 1]), Err(NotElf::Truncated));
        assert_eq!(checked(&image[..80]), Err(NotElf::Truncated));
        assert_eq!(checked(b"MZ"), Err(NotElf::NoMagic));
        let with = |at: usize, byte: u8| {
            let mut image = image.clone();
            image[at] = byte;
            checked(&image)
        };
        assert_eq!(with(4, 1), Err(NotElf::Machine("32-bit processors")));
        assert_eq!(with(18, 183), Err(NotElf::Machine("ARM64")));
        assert_eq!(with(16, 1), Err(NotElf::NotAProgram));
        assert_eq!(with(57, 0xff), Err(NotElf::Damaged), "endless program headers");
        assert_eq!(with(103, 0xff), Err(NotElf::Damaged), "a segment larger in the file than in memory");
        assert_eq!(with(79, 0xff), Err(NotElf::Truncated), "an offset that wraps");
    }

    proptest! {
        #[test]
        fn bug_20_any_header_is_survived(hits in proptest::collection::vec((0usize..120, any::<u8>()), 0..20)) {
            let mut image = elf(b"code");
            for (at, byte) in hits {
                image[at] = byte;
            }
            let _ = checked(&image);
        }
    }
}
