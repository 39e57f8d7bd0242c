//! The bytes of an EROFS image (fs/erofs/erofs_fs.h, Documentation/filesystems/erofs.rst).
//!
//! Everything is little-endian. Only what hv writes is here: blocks of 4 KiB, nothing compressed,
//! nothing shared between extended attributes.

/// Bytes a block.
pub(super) const BLOCK: usize = 4096;
/// Inodes start at multiples of this; their number counts in it.
pub(super) const SLOT: usize = 32;
/// Where the superblock is.
pub(super) const SUPERBLOCK: usize = 1024;
/// A hole in a chunk map.
pub(super) const HOLE: u32 = u32::MAX;

/// How an inode's data are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Layout {
    /// All in consecutive blocks.
    FlatPlain = 0,
    /// The last, partial block follows the inode.
    FlatInline = 2,
    /// A table of block addresses, one a chunk, follows the inode.
    Chunked = 4,
}

/// One inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inode {
    /// 64 bytes instead of 32.
    pub extended: bool,
    pub layout: Layout,
    /// Bytes of the extended attributes, header included; 0 without any.
    pub xattr_size: usize,
    /// Type and permissions, as st_mode.
    pub mode: u16,
    pub links: u32,
    pub size: u64,
    /// First block, device number or chunk format.
    pub place: u32,
    /// For stat(2) on 32-bit machines.
    pub number: u32,
    pub uid: u32,
    pub gid: u32,
    pub seconds: i64,
    pub nanoseconds: u32,
}

impl Inode {
    /// Bytes that it takes.
    pub(super) fn length(extended: bool) -> usize {
        if extended { 64 } else { 32 }
    }

    /// `struct erofs_inode_extended` or `struct erofs_inode_compact`.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut to = Vec::with_capacity(64);
        let format = (self.layout as u16) << 1 | u16::from(self.extended);
        let xattrs = if self.xattr_size == 0 { 0 } else { (self.xattr_size - XATTR_HEADER) / 4 + 1 };
        put(&mut to, &format.to_le_bytes());
        put(&mut to, &(xattrs as u16).to_le_bytes());
        put(&mut to, &self.mode.to_le_bytes());
        if self.extended {
            put(&mut to, &[0; 2]);
            put(&mut to, &self.size.to_le_bytes());
            put(&mut to, &self.place.to_le_bytes());
            put(&mut to, &self.number.to_le_bytes());
            put(&mut to, &self.uid.to_le_bytes());
            put(&mut to, &self.gid.to_le_bytes());
            put(&mut to, &self.seconds.to_le_bytes());
            put(&mut to, &self.nanoseconds.to_le_bytes());
            put(&mut to, &self.links.to_le_bytes());
            put(&mut to, &[0; 16]);
        } else {
            put(&mut to, &(self.links as u16).to_le_bytes());
            put(&mut to, &(self.size as u32).to_le_bytes());
            put(&mut to, &[0; 4]);
            put(&mut to, &self.place.to_le_bytes());
            put(&mut to, &self.number.to_le_bytes());
            put(&mut to, &(self.uid as u16).to_le_bytes());
            put(&mut to, &(self.gid as u16).to_le_bytes());
            put(&mut to, &[0; 4]);
        }
        to
    }
}

/// `struct erofs_xattr_ibody_header` without shared attributes.
pub(super) const XATTR_HEADER: usize = 12;
/// `i_xattr_icount` has 16 bits and counts in words.
pub(super) const MAX_XATTR_SIZE: usize = XATTR_HEADER + 4 * (u16::MAX as usize - 1);

/// Name prefixes that the format knows (`EROFS_XATTR_INDEX_*`), and whether they are whole names.
const PREFIXES: [(u8, &[u8], bool); 5] = [
    (1, b"user.", false),
    (2, b"system.posix_acl_access", true),
    (3, b"system.posix_acl_default", true),
    (4, b"trusted.", false),
    (6, b"security.", false),
];

/// The number of a name's prefix, and the rest of the name. None: the format cannot hold it.
pub(super) fn xattr_prefix(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(number, prefix, whole)| {
        let rest = name.strip_prefix(*prefix)?;
        (rest.is_empty() == *whole && rest.len() <= 255).then_some((*number, rest))
    })
}

/// The extended attributes behind an inode; empty without any. Names that the format cannot hold are
/// left out.
pub(super) fn xattrs<'a>(all: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    let mut to = vec![0; XATTR_HEADER];
    for (name, value) in all {
        let Some((number, rest)) = xattr_prefix(name) else { continue };
        put(&mut to, &[rest.len() as u8, number]);
        put(&mut to, &(value.len() as u16).to_le_bytes());
        put(&mut to, rest);
        put(&mut to, value);
        to.resize(to.len().next_multiple_of(4), 0);
    }
    if to.len() == XATTR_HEADER { Vec::new() } else { to }
}

/// One name in a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'a> {
    pub name: &'a [u8],
    pub nid: u64,
    /// `EROFS_FT_*`, the same numbers as `FT_*` everywhere.
    pub kind: u8,
}

const DIRENT: usize = 12;

/// Cuts sorted names into blocks: the number of names in each, and the bytes of the last.
pub(super) fn directory_shape<'a>(names: impl Iterator<Item = &'a [u8]>) -> (Vec<usize>, usize) {
    let (mut counts, mut used) = (vec![0], 0);
    for name in names {
        let length = DIRENT + name.len();
        if used + length > BLOCK {
            counts.push(0);
            used = 0;
        }
        used += length;
        if let Some(count) = counts.last_mut() {
            *count += 1;
        }
    }
    (counts, used)
}

/// The bytes of one block of a directory: entries, then names. Not padded.
pub(super) fn directory_block(names: &[Name<'_>]) -> Vec<u8> {
    let mut to = Vec::with_capacity(BLOCK);
    let mut offset = names.len() * DIRENT;
    for name in names {
        put(&mut to, &name.nid.to_le_bytes());
        put(&mut to, &(offset as u16).to_le_bytes());
        put(&mut to, &[name.kind, 0]);
        offset += name.name.len();
    }
    names.iter().for_each(|name| put(&mut to, name.name));
    to
}

/// What the superblock says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Superblock {
    pub root: u16,
    pub inodes: u64,
    /// The time of all inodes that have none of their own.
    pub seconds: i64,
    pub nanoseconds: u32,
    pub blocks: u32,
    /// Inode numbers count from the start of this block.
    pub meta_block: u32,
    pub uuid: [u8; 16],
    /// Some inodes have a chunk map: Linux 5.15 or newer is needed.
    pub chunked: bool,
}

impl Superblock {
    /// The image's first block, with `struct erofs_super_block` in it.
    pub(super) fn block(&self) -> Vec<u8> {
        const CHECKSUM: u32 = 1;
        const OWN_TIMES: u32 = 2;
        const CHUNKED: u32 = 4;
        let mut to = vec![0; SUPERBLOCK];
        put(&mut to, &0xe0f5_e1e2_u32.to_le_bytes());
        put(&mut to, &[0; 4]);
        put(&mut to, &(CHECKSUM | OWN_TIMES).to_le_bytes());
        put(&mut to, &[BLOCK.trailing_zeros() as u8, 0]);
        put(&mut to, &self.root.to_le_bytes());
        put(&mut to, &self.inodes.to_le_bytes());
        put(&mut to, &self.seconds.to_le_bytes());
        put(&mut to, &self.nanoseconds.to_le_bytes());
        put(&mut to, &self.blocks.to_le_bytes());
        put(&mut to, &self.meta_block.to_le_bytes());
        put(&mut to, &[0; 4]);
        put(&mut to, &self.uuid);
        put(&mut to, &[0; 16]);
        put(&mut to, &if self.chunked { CHUNKED } else { 0 }.to_le_bytes());
        to.resize(BLOCK, 0);
        // As the kernel computes it: seeded with ones, not inverted at the end, over the rest of the block.
        let checksum = crc32c(!0, &to[SUPERBLOCK..]);
        to[SUPERBLOCK + 4..SUPERBLOCK + 8].copy_from_slice(&checksum.to_le_bytes());
        to
    }
}

/// CRC-32C (Castagnoli), continued from `crc`, without the final inversion.
fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

/// A device number as the kernel's `new_encode_dev` has it.
pub(super) fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | major << 8 | (minor & !0xff) << 12
}

fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn structures_have_their_sizes() {
        let inode = Inode {
            extended: false,
            layout: Layout::FlatInline,
            xattr_size: 0,
            mode: 0o100_644,
            links: 1,
            size: 3,
            place: 0,
            number: 1,
            uid: 0,
            gid: 0,
            seconds: 0,
            nanoseconds: 0,
        };
        assert_eq!(inode.bytes().len(), 32);
        assert_eq!(Inode { extended: true, ..inode }.bytes().len(), 64);
    }

    #[test]
    fn attributes_are_aligned_and_foreign_ones_left_out() {
        assert!(xattrs([(&b"system.nfs4_acl"[..], &b"x"[..])]).is_empty());
        let body = xattrs([(&b"user.a"[..], &b"bc"[..])]);
        assert_eq!(body[XATTR_HEADER..], *b"\x01\x01\x02\0abc\0");
        assert_eq!(xattr_prefix(b"user."), None);
        assert_eq!(xattr_prefix(b"system.posix_acl_access"), Some((2, &b""[..])));
        assert_eq!(xattr_prefix(&[b"user.".as_slice(), &[b'x'; 256]].concat()), None);
    }

    #[test]
    fn directories_fill_blocks() {
        let names: Vec<Vec<u8>> = (0..40).map(|i| vec![b'a' + i; 255]).collect();
        let (counts, last) = directory_shape(names.iter().map(Vec::as_slice));
        assert_eq!(counts, [15, 15, 10]);
        assert_eq!(last, 10 * 267);
    }
}
