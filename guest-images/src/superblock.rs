//! Recognises a file system image by its superblock, and names what is not one.
//!
//! A container format (qcow2 and its kin) is never opened as one, and never guessed from what a guest
//! may have written: a file system's superblock is looked for first, so a guest that writes a foreign
//! header into sector 0 of its disk changes nothing (compare GHSA-jmr4-g2hv-mjj6).

use hv_common::Format;

/// Bytes from the start of a file that [`recognise`] looks at.
pub const HEAD: usize = 64 * 1024 + 4096;

/// A recognised file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// Which.
    pub format: Format,
    /// Bytes that the file system claims.
    pub size: u64,
    /// ext4 only: the journal has to be replayed before the file system is consistent.
    pub needs_recovery: bool,
}

/// Why a file is not an image that hv starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// Another kind of file: its name, and what to do with it.
    Known {
        /// With article: `a qcow2 image`.
        what: &'static str,
        /// What the user can do, as a sentence without a full stop.
        mend: &'static str,
    },
    /// An archive that may have a root file system in it, with article.
    Archive(&'static str),
    /// One of hv's file systems, in a form that cannot be used: which, and why.
    Unusable(Format, &'static str),
    /// Nothing that is known.
    Unknown,
}

/// Looks at `head`, the first [`HEAD`] bytes of a file (or all of a shorter one).
///
/// # Errors
/// It is not a file system that hv starts; the error says what it is instead.
pub fn recognise(head: &[u8]) -> Result<Superblock, Foreign> {
    for known in [squashfs, erofs, ext4] {
        if let Some(found) = known(head) {
            return found;
        }
    }
    if let Some((.., what)) = ARCHIVES.iter().find(|(offset, magic, _)| has(head, *offset, magic)) {
        return Err(Foreign::Archive(what));
    }
    let foreign = FOREIGN.iter().find(|(offset, magic, ..)| has(head, *offset, magic));
    if let Some((_, _, what, mend)) = foreign {
        return Err(Foreign::Known { what, mend });
    }
    Err(if has_partitions(head) {
        Foreign::Known { what: "a disk with an MBR partition table", mend: ONE_PARTITION }
    } else {
        Foreign::Unknown
    })
}

type Found = Option<Result<Superblock, Foreign>>;

/// `struct squashfs_super_block`, fs/squashfs/squashfs_fs.h.
fn squashfs(head: &[u8]) -> Found {
    if !has(head, 0, b"hsqs") {
        return None;
    }
    if u16_at(head, 28)? != 4 {
        return Some(Err(Foreign::Unusable(Format::Squashfs, "it is not version 4, the one Linux reads")));
    }
    // The file is padded to a multiple of 4 KiB by mksquashfs, but only these bytes are the file system.
    Some(Ok(Superblock { format: Format::Squashfs, size: u64_at(head, 40)?, needs_recovery: false }))
}

/// `struct erofs_super_block`, fs/erofs/erofs_fs.h; it starts at byte 1024.
fn erofs(head: &[u8]) -> Found {
    const DEVICE_TABLE: u32 = 0x8;
    if u32_at(head, 1024)? != 0xe0f5_e1e2 {
        return None;
    }
    let block_bits = *head.get(1024 + 12)?;
    let blocks = u64::from(u32_at(head, 1024 + 36)?);
    let unusable = |why| Some(Err(Foreign::Unusable(Format::Erofs, why)));
    if !(9..=16).contains(&block_bits) {
        return unusable("its superblock has an impossible block size");
    }
    if u32_at(head, 1024 + 80)? & DEVICE_TABLE != 0 {
        return unusable("its data are in further files");
    }
    Some(Ok(Superblock { format: Format::Erofs, size: blocks << block_bits, needs_recovery: false }))
}

/// `struct ext4_super_block`, fs/ext4/ext4.h; it starts at byte 1024.
fn ext4(head: &[u8]) -> Found {
    const RECOVER: u32 = 0x4;
    const JOURNAL_DEVICE: u32 = 0x8;
    const WIDE: u32 = 0x80;
    if u16_at(head, 1024 + 56)? != 0xef53 {
        return None;
    }
    let features = u32_at(head, 1024 + 96)?;
    let log_block_size = u32_at(head, 1024 + 24)?;
    let mut blocks = u64::from(u32_at(head, 1024 + 4)?);
    if features & WIDE != 0 {
        blocks |= u64::from(u32_at(head, 1024 + 0x150)?) << 32;
    }
    let unusable = |why| Some(Err(Foreign::Unusable(Format::Ext4, why)));
    if log_block_size > 6 || blocks == 0 {
        return unusable("its superblock has an impossible size");
    }
    if features & JOURNAL_DEVICE != 0 {
        return unusable("it is only the journal of another one");
    }
    let Some(size) = blocks.checked_mul(1024 << log_block_size) else {
        return unusable("its superblock has an impossible size");
    };
    Some(Ok(Superblock { format: Format::Ext4, size, needs_recovery: features & RECOVER != 0 }))
}

const TO_RAW: &str = "convert it first: `qemu-img convert -O raw OLD NEW`";
const UNPACK: &str = "unpack it first";
const OTHER_FS: &str =
    "hv starts ext4, EROFS and squashfs: copy the files into one of these, or give hv a directory";
const ONE_PARTITION: &str = "copy the root partition out of it first (`sfdisk -d FILE` shows where it is, in \
    sectors: `dd if=FILE of=NEW bs=512 skip=START count=SIZE`)";
const NOT_AN_IMAGE: &str = "give hv a raw ext4, EROFS or squashfs image, or a directory";

/// Offset, magic, what it is.
const ARCHIVES: &[(usize, &[u8], &str)] = &[
    (257, b"ustar", "a tar archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file"),
];

/// Offset, magic, what it is, what to do.
const FOREIGN: &[(usize, &[u8], &str, &str)] = &[
    (0, b"QFI\xfb", "a qcow2 image", TO_RAW),
    (0, b"QED\0", "a QED image", TO_RAW),
    (0, b"KDMV", "a VMDK image", TO_RAW),
    (0, b"COWD", "a VMDK image", TO_RAW),
    (0, b"# Disk DescriptorFile", "a VMDK description", TO_RAW),
    (0, b"conectix", "a VHD image", TO_RAW),
    (0, b"vhdxfile", "a VHDX image", TO_RAW),
    (64, b"\x7f\x10\xda\xbe", "a VDI image", TO_RAW),
    (0, b"WithoutFreeSpace", "a Parallels image", TO_RAW),
    (0, b"WithouFreSpacExt", "a Parallels image", TO_RAW),
    (0, b"\xfd7zXZ\0", "an xz file", UNPACK),
    (0, b"\x04\x22\x4d\x18", "an LZ4 file", UNPACK),
    (0, b"BZh", "a bzip2 file", UNPACK),
    (0, b"PK\x03\x04", "a ZIP file", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z file", UNPACK),
    (0, b"070701", "a cpio archive", UNPACK),
    (0, b"!<arch>\n", "an ar archive or Debian package", UNPACK),
    (0, b"\x7fELF", "an ELF program", NOT_AN_IMAGE),
    (0, b"sqsh", "a big-endian squashfs, which Linux no longer reads", OTHER_FS),
    (32769, b"CD001", "an ISO 9660 image", OTHER_FS),
    (0, b"XFSB", "an XFS image", OTHER_FS),
    (65600, b"_BHRfS_M", "a btrfs image", OTHER_FS),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS image", OTHER_FS),
    (0, b"LUKS\xba\xbe", "an encrypted LUKS image", OTHER_FS),
    (512, b"LABELONE", "an LVM physical volume", OTHER_FS),
    (54, b"FAT1", "a FAT image", OTHER_FS),
    (82, b"FAT32", "a FAT image", OTHER_FS),
    (512, b"EFI PART", "a disk with a GPT partition table", ONE_PARTITION),
    (4096, b"EFI PART", "a disk with a GPT partition table", ONE_PARTITION),
    (0x202, b"HdrS", "a Linux kernel", "pass it with `--kernel`, and an image beside it"),
];

/// An MBR with at least one partition, whose status byte is one of the two that exist.
fn has_partitions(head: &[u8]) -> bool {
    let partition = |number: usize| {
        let entry = head.get(446 + 16 * number..462 + 16 * number);
        entry.is_some_and(|entry| entry[4] != 0 && entry[0] & 0x7f == 0)
    };
    has(head, 510, b"\x55\xaa") && (0..4).any(partition)
}

fn has(bytes: &[u8], offset: usize, magic: &[u8]) -> bool {
    bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic))
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        for (offset, part) in parts {
            bytes[*offset..offset + part.len()].copy_from_slice(part);
        }
        bytes
    }

    fn small_ext4() -> Vec<u8> {
        with(&[(1024 + 4, &100u32.to_le_bytes()), (1024 + 56, &[0x53, 0xef])])
    }

    #[test]
    fn file_systems_and_their_sizes() {
        let ext4 = recognise(&small_ext4()).unwrap();
        assert_eq!((ext4.format, ext4.size), (Format::Ext4, 100 * 1024));
        let erofs = with(&[(1024, &[0xe2, 0xe1, 0xf5, 0xe0]), (1036, &[12]), (1060, &[7])]);
        assert_eq!(recognise(&erofs).unwrap().size, 7 * 4096);
        let squashfs = with(&[(0, b"hsqs"), (28, &[4]), (40, &[0, 2])]);
        assert_eq!(recognise(&squashfs).unwrap().size, 512);
    }

    #[test]
    fn a_foreign_header_in_sector_0_does_not_turn_an_image_into_something_else() {
        let mut disk = small_ext4();
        disk[..4].copy_from_slice(b"QFI\xfb");
        assert_eq!(recognise(&disk).unwrap().format, Format::Ext4);
    }

    #[test]
    fn foreign_files_are_named() {
        for (offset, magic, what, _) in FOREIGN {
            let named = recognise(&with(&[(*offset, magic)]));
            assert!(matches!(named, Err(Foreign::Known { what: w, .. }) if w == *what), "{what}: {named:?}");
        }
        for (offset, magic, what) in ARCHIVES {
            assert_eq!(recognise(&with(&[(*offset, magic)])), Err(Foreign::Archive(what)));
        }
        let mbr = with(&[(446, &[0x80, 0, 0, 0, 0x83]), (510, &[0x55, 0xaa])]);
        assert!(matches!(recognise(&mbr), Err(Foreign::Known { what, .. }) if what.contains("MBR")));
        assert_eq!(recognise(&with(&[(510, &[0x55, 0xaa])])), Err(Foreign::Unknown));
        assert_eq!(recognise(b"hello"), Err(Foreign::Unknown));
    }

    #[test]
    fn impossible_superblocks_are_refused() {
        let huge = with(&[
            (1024 + 4, &[0xff; 4]),
            (1024 + 0x150, &[0xff; 4]),
            (1024 + 24, &[6]),
            (1024 + 56, &[0x53, 0xef]),
            (1024 + 96, &[0x80]),
        ]);
        assert!(matches!(recognise(&huge), Err(Foreign::Unusable(Format::Ext4, _))));
        let bits = with(&[(1024, &[0xe2, 0xe1, 0xf5, 0xe0]), (1036, &[200])]);
        assert!(matches!(recognise(&bits), Err(Foreign::Unusable(Format::Erofs, _))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            start in proptest::collection::vec(any::<u8>(), 0..2048),
            magic in 0usize..4,
        ) {
            let mut bytes = start;
            let (offset, magic): (usize, &[u8]) =
                [(0, &b""[..]), (0, b"hsqs"), (1024, b"\xe2\xe1\xf5\xe0"), (1080, b"\x53\xef")][magic];
            if let Some(place) = bytes.get_mut(offset..offset + magic.len()) {
                place.copy_from_slice(magic);
            }
            let _ = recognise(&bytes);
        }
    }
}
