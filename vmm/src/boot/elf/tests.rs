use std::io::Write;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;

const MIB: u64 = 1 << 20;

/// offset, address, length in the file, length in memory
type Load = (u64, u64, u64, u64);

fn header(entry: u64, count: u16) -> Vec<u8> {
    let mut header = vec![0; HEADER];
    header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    header[16..18].copy_from_slice(&2u16.to_le_bytes());
    header[18..20].copy_from_slice(&EM_X86_64.to_le_bytes());
    header[24..32].copy_from_slice(&entry.to_le_bytes());
    header[32..40].copy_from_slice(&(HEADER as u64).to_le_bytes());
    header[54..56].copy_from_slice(&(PROGRAM_HEADER as u16).to_le_bytes());
    header[56..58].copy_from_slice(&count.to_le_bytes());
    header
}

fn elf(entry: u64, loads: &[Load]) -> Vec<u8> {
    let mut bytes = header(entry, loads.len() as u16);
    for (offset, address, file_len, memory_len) in loads {
        let mut load = vec![0; PROGRAM_HEADER];
        load[..4].copy_from_slice(&PT_LOAD.to_le_bytes());
        load[8..16].copy_from_slice(&offset.to_le_bytes());
        load[24..32].copy_from_slice(&address.to_le_bytes());
        load[32..40].copy_from_slice(&file_len.to_le_bytes());
        load[40..48].copy_from_slice(&memory_len.to_le_bytes());
        bytes.extend(load);
    }
    bytes
}

/// The headers, then up to `len` bytes of a pattern that differs from page to page.
fn file(mut bytes: Vec<u8>, len: u64) -> File {
    let start = bytes.len() as u64;
    bytes.extend((start..len).map(pattern));
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    file
}

fn pattern(at: u64) -> u8 {
    (at / layout::PAGE + at % 251) as u8 | 1
}

fn read_kernel(bytes: Vec<u8>, len: u64) -> Result<Kernel, Error> {
    Kernel::read(&file(bytes, len), 64 * MIB)
}

/// Section headers at the end of what [`file`] makes, which say that these ranges are code.
fn with_code(mut bytes: Vec<u8>, len: u64, code: &[Range<u64>]) -> File {
    bytes[40..48].copy_from_slice(&len.to_le_bytes());
    bytes[58..60].copy_from_slice(&(SECTION_HEADER as u16).to_le_bytes());
    bytes[60..62].copy_from_slice(&(code.len() as u16).to_le_bytes());
    let mut file = file(bytes, len);
    for range in code {
        let mut section = [0; SECTION_HEADER];
        section[8..16].copy_from_slice(&SHF_EXECINSTR.to_le_bytes());
        section[24..32].copy_from_slice(&range.start.to_le_bytes());
        section[32..40].copy_from_slice(&range.end.wrapping_sub(range.start).to_le_bytes());
        file.write_all(&section).unwrap();
    }
    file
}

#[test]
fn what_the_kernel_writes_is_copied_and_the_rest_mapped() {
    let loads = [(0x1000, 16 * MIB, 0x4345, 0x8000), (0x6010, 17 * MIB + 0x10, 0x20, 0x40)];
    let file = with_code(elf(16 * MIB, &loads), 0x7000, &[0x1000..0x2080, 0x6010..0x6020]);
    let kernel = Kernel::read(&file, 64 * MIB).unwrap();
    assert_eq!(kernel.end(), 17 * MIB + 0x50);
    assert_eq!(kernel.segments[0].mappable(), 0x2000..0x4000, "not the code's, nor the page with the end");
    assert!(kernel.segments[1].mappable().is_empty(), "not at a page of the file");
    let memory = memory::map(64 * MIB).unwrap();
    kernel.load(&file, &memory).unwrap();
    let byte = |at: u64| memory.read_obj::<u8>(GuestAddress(at)).unwrap();
    for (offset, address, file_len, memory_len) in loads {
        for at in [0, 1, file_len / 2, file_len - 1] {
            assert_eq!(byte(address + at), pattern(offset + at), "{at:#x} of {address:#x}");
        }
        for at in [file_len, memory_len - 1] {
            assert_eq!(byte(address + at), 0, "{at:#x} of {address:#x}");
        }
    }
}

#[test]
fn without_sections_everything_is_copied() {
    let good = elf(16 * MIB, &[(0x1000, 16 * MIB, 0x3000, 0x3000)]);
    assert!(read_kernel(good, 0x4000).unwrap().segments[0].mappable().is_empty());
}

#[test]
fn holes_of_the_file_are_zero_in_memory_and_take_none() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(8 * MIB).unwrap();
    file.write_all_at(&elf(16 * MIB, &[(0x1000, 16 * MIB, 7 * MIB, 7 * MIB)]), 0).unwrap();
    file.write_all_at(b"start", 0x1000).unwrap();
    file.write_all_at(b"far", 5 * MIB).unwrap();
    let memory = memory::map(64 * MIB).unwrap();
    Kernel::read(&file, 64 * MIB).unwrap().load(&file, &memory).unwrap();
    let byte = |at: u64| memory.read_obj::<u8>(GuestAddress(16 * MIB + at - 0x1000)).unwrap();
    assert_eq!([byte(0x1000), byte(3 * MIB), byte(5 * MIB), byte(5 * MIB + 3)], [b's', 0, b'f', 0]);
}

#[test]
fn guest_writes_do_not_reach_the_file() {
    let file = file(elf(16 * MIB, &[(0x1000, 16 * MIB, 0x1000, 0x1000)]), 0x2000);
    let memory = memory::map(64 * MIB).unwrap();
    Kernel::read(&file, 64 * MIB).unwrap().load(&file, &memory).unwrap();
    memory.write_obj(0u8, GuestAddress(16 * MIB)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0x1000).unwrap();
    assert_eq!(byte[0], pattern(0x1000));
}

#[test]
fn what_is_no_kernel_is_refused_by_name() {
    let good: &[Load] = &[(0x1000, 16 * MIB, 0x1000, 0x1000)];
    let patched = |at: usize, byte: u8| {
        let mut bytes = elf(16 * MIB, good);
        bytes[at] = byte;
        read_kernel(bytes, 0x2000)
    };
    assert!(matches!(read_kernel(b"MZ".to_vec(), 0x2000), Err(Error::NotElf)));
    assert!(matches!(read_kernel(Vec::new(), 0), Err(Error::Truncated { what: "header", .. })));
    assert!(matches!(patched(4, 1), Err(Error::NotX86_64)), "32-bit");
    assert!(matches!(patched(5, 2), Err(Error::NotX86_64)), "big-endian");
    assert!(matches!(patched(18, 0xb7), Err(Error::NotX86_64)), "ARM");
    assert!(matches!(patched(16, 3), Err(Error::NotExecutable)));
    assert!(matches!(patched(54, 32), Err(Error::Table(1, 32))));
    assert!(matches!(patched(57, 0xff), Err(Error::Table(0xff01, _))));
}

#[test]
fn bug_20_bad_segments_are_refused_by_name() {
    let kernel = |entry, loads: &[Load]| read_kernel(elf(entry, loads), 0x4000);
    let at = 16 * MIB;
    assert!(matches!(kernel(at, &[]), Err(Error::Empty)));
    assert!(matches!(kernel(at, &[(0x1000, at, 0x4000, 0x4000)]), Err(Error::Truncated { end: 0x5000, .. })));
    assert!(matches!(kernel(at, &[(0x1000, at, 0x1000, 1 << 40)]), Err(Error::Outside { .. })), "endless");
    assert!(matches!(kernel(at, &[(0x1000, at, 0x1000, u64::MAX)]), Err(Error::Segment(0))), "wraps");
    assert!(matches!(kernel(at, &[(u64::MAX, at, 0x1000, 0x1000)]), Err(Error::Segment(0))), "wraps");
    assert!(matches!(kernel(at, &[(0x1000, at, 0x2000, 0x1000)]), Err(Error::Segment(0))));
    assert!(matches!(kernel(0, &[(0x1000, 0, 0x1000, 0x1000)]), Err(Error::Outside { .. })), "low memory");
    let overlap = [(0x1000, at, 0x1000, 0x3000), (0x2000, at + 0x2000, 0x1000, 0x1000)];
    assert!(matches!(kernel(at, &overlap), Err(Error::Overlap(0, 1))));
    assert!(matches!(kernel(at + 0x1000, &[(0x1000, at, 0x1000, 0x2000)]), Err(Error::Entry(_))), "in zeros");
}

#[test]
fn bug_20_a_full_table_of_endless_segments_is_refused_at_once() {
    let loads = vec![(0, 16 * MIB, 0, u64::MAX / 2); usize::from(MAX_PROGRAM_HEADERS)];
    assert!(matches!(read_kernel(elf(16 * MIB, &loads), 0x4000), Err(Error::Outside { .. })));
}

proptest! {
    /// Whatever the numbers, the answer is a kernel within bounds or an error, never a panic.
    #[test]
    fn any_segments_are_survived(entry: u64, loads in prop::collection::vec(load(), 0..5)) {
        if let Ok(kernel) = read_kernel(elf(entry, &loads), 0x4000) {
            prop_assert!(kernel.end() <= 64 * MIB);
            let memory = memory::map(64 * MIB).unwrap();
            kernel.load(&file(elf(entry, &loads), 0x4000), &memory).unwrap();
        }
    }

    #[test]
    fn any_damage_to_a_good_header_is_survived(at in 0usize..HEADER + PROGRAM_HEADER, byte: u8) {
        let mut bytes = elf(16 * MIB, &[(0x1000, 16 * MIB, 0x1000, 0x3000)]);
        bytes[at] = byte;
        let _ = read_kernel(bytes, 0x4000);
    }

    #[test]
    fn any_sections_are_survived(code in prop::collection::vec((any::<u64>(), any::<u64>()), 0..4), at in 40usize..62, byte: u8) {
        let ranges: Vec<Range<u64>> = code.iter().map(|(start, len)| *start..start.wrapping_add(*len)).collect();
        let mut bytes = elf(16 * MIB, &[(0x1000, 16 * MIB, 0x2000, 0x3000)]);
        bytes[at] = byte;
        let file = with_code(bytes, 0x4000, &ranges);
        if let Ok(kernel) = Kernel::read(&file, 64 * MIB) {
            kernel.load(&file, &memory::map(64 * MIB).unwrap()).unwrap();
        }
    }

    #[test]
    fn any_truncation_is_survived(len in 0u64..0x2000) {
        let mut bytes = elf(16 * MIB, &[(0x1000, 16 * MIB, 0x1000, 0x3000)]);
        bytes.truncate(len as usize);
        let is_truncated = matches!(read_kernel(bytes, len), Err(Error::Truncated { .. }));
        prop_assert!(is_truncated);
    }
}

/// Segments near every bound that matters, so that many of them pass some checks.
fn load() -> impl Strategy<Value = Load> {
    let near = |values: Vec<u64>| {
        (prop::sample::select(values), -2i64..3).prop_map(|(value, off)| value.wrapping_add_signed(off))
    };
    (
        near(vec![0, 0x1000, 0x3000, 0x4000, u64::MAX]),
        near(vec![0, MIB, 16 * MIB, 64 * MIB, u64::MAX]),
        near(vec![0, 0x1000, 0x3000, u64::MAX]),
        near(vec![0, 0x1000, 0x3000, 48 * MIB, u64::MAX]),
    )
}
