//! Reads an EROFS image as plainly as can be: what hv's writer writes, and nothing else (fs/erofs/erofs_fs.h).

use std::collections::BTreeMap;

/// Bytes a block.
const BLOCK: usize = 4096;

/// A file as the image has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Type and permissions.
    pub mode: u16,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Seconds and nanoseconds.
    pub time: (i64, u32),
    /// What it holds, or where it leads to; of devices the number.
    pub contents: Vec<u8>,
    /// Extended attributes, by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The inode's number: names that share it are hard links.
    pub number: u64,
    /// Names that it says it has.
    pub links: u32,
}

/// An image.
pub struct Image<'a> {
    bytes: &'a [u8],
    meta: usize,
    time: (i64, u32),
}

struct Inode {
    found: Found,
    layout: u16,
    size: usize,
    place: u32,
    /// Where what follows the attributes is.
    behind: usize,
}

impl<'a> Image<'a> {
    /// Everything in it, by path; the root is the empty one.
    ///
    /// # Panics
    /// It is not an image, or not a sound one.
    pub fn list(bytes: &'a [u8]) -> BTreeMap<Vec<u8>, Found> {
        let mut image = Image { bytes, meta: 0, time: (0, 0) };
        assert_eq!(image.u32(1024), 0xe0f5_e1e2);
        assert_eq!(bytes.len(), image.u32(1024 + 36) as usize * BLOCK);
        image.time = (image.u64(1024 + 24) as i64, image.u32(1024 + 32));
        image.meta = image.u32(1024 + 40) as usize * BLOCK;
        let (mut all, mut todo) = (BTreeMap::new(), vec![(Vec::new(), u64::from(image.u16(1024 + 14)))]);
        while let Some((path, number)) = todo.pop() {
            let mut inode = image.inode(number);
            let contents = image.contents(&inode);
            if inode.found.mode >> 12 == 4 {
                for (name, below) in image.names(&contents) {
                    let path = if path.is_empty() { name } else { [&path[..], b"/", &name].concat() };
                    todo.push((path, below));
                }
            } else {
                inode.found.contents = contents;
            }
            assert!(all.insert(path, inode.found).is_none(), "one name twice");
        }
        assert_eq!(
            all.values().map(|found| found.number).collect::<std::collections::BTreeSet<_>>().len() as u64,
            image.u64(1024 + 16)
        );
        all
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes[at..at + 2].try_into().expect("two bytes"))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("four bytes"))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().expect("eight bytes"))
    }

    fn inode(&self, number: u64) -> Inode {
        let at = self.meta + number as usize * 32;
        let (format, attributes) = (self.u16(at), usize::from(self.u16(at + 2)));
        let (size, owner, time, links, length) = match format & 1 {
            0 => {
                let owner = (u32::from(self.u16(at + 24)), u32::from(self.u16(at + 26)));
                (u64::from(self.u32(at + 8)), owner, self.time, u32::from(self.u16(at + 6)), 32)
            }
            _ => {
                let time = (self.u64(at + 32) as i64, self.u32(at + 40));
                (self.u64(at + 8), (self.u32(at + 24), self.u32(at + 28)), time, self.u32(at + 44), 64)
            }
        };
        let xattrs = if attributes == 0 { 0 } else { 12 + 4 * (attributes - 1) };
        let found = Found {
            mode: self.u16(at + 4),
            owner,
            time,
            contents: Vec::new(),
            xattrs: self.xattrs(at + length, xattrs),
            number,
            links,
        };
        let size = usize::try_from(size).expect("a file of this target is small");
        Inode { found, layout: format >> 1 & 7, size, place: self.u32(at + 16), behind: at + length + xattrs }
    }

    fn xattrs(&self, at: usize, length: usize) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut all = BTreeMap::new();
        let (mut place, end) = (at + 12, at + length);
        while place < end {
            let (name, prefix) = (usize::from(self.bytes[place]), self.bytes[place + 1]);
            let value = usize::from(self.u16(place + 2));
            let prefix: &[u8] = match prefix {
                1 => b"user.",
                2 => b"system.posix_acl_access",
                3 => b"system.posix_acl_default",
                4 => b"trusted.",
                6 => b"security.",
                other => panic!("no prefix has the number {other}"),
            };
            let text = &self.bytes[place + 4..place + 4 + name + value];
            all.insert([prefix, &text[..name]].concat(), text[name..].to_vec());
            place += (4 + name + value).next_multiple_of(4);
        }
        all
    }

    fn contents(&self, inode: &Inode) -> Vec<u8> {
        if !matches!(inode.found.mode >> 12, 4 | 8 | 10) {
            return inode.place.to_le_bytes().to_vec();
        }
        let start = inode.place as usize * BLOCK;
        match inode.layout {
            0 => self.bytes[..start + inode.size][start..].to_vec(),
            2 => {
                let whole = inode.size / BLOCK * BLOCK;
                let tail = inode.size - whole;
                assert!(inode.behind % BLOCK + tail <= BLOCK, "a tail crosses into another block");
                [&self.bytes[start..start + whole], &self.bytes[inode.behind..inode.behind + tail]].concat()
            }
            4 => {
                let chunk = BLOCK << (inode.place & 31);
                let mut all = Vec::with_capacity(inode.size);
                for number in 0..inode.size.div_ceil(chunk) {
                    let length = chunk.min(inode.size - number * chunk);
                    match self.u32(inode.behind.next_multiple_of(4) + 4 * number) {
                        u32::MAX => all.resize(all.len() + length, 0),
                        block => all.extend_from_slice(&self.bytes[block as usize * BLOCK..][..length]),
                    }
                }
                all
            }
            other => panic!("no file has the layout {other}"),
        }
    }

    /// The names in a directory but `.` and `..`, which have to be there, all of them sorted.
    fn names(&self, directory: &[u8]) -> Vec<(Vec<u8>, u64)> {
        let mut all: Vec<(Vec<u8>, u64)> = Vec::new();
        for block in directory.chunks(BLOCK) {
            let offset =
                |at: usize| usize::from(u16::from_le_bytes([block[12 * at + 8], block[12 * at + 9]]));
            let count = offset(0) / 12;
            for at in 0..count {
                let end = if at + 1 < count { offset(at + 1) } else { block.len() };
                let name = &block[offset(at)..end];
                // The last name of a block ends at a zero.
                let name = &name[..name.iter().position(|byte| *byte == 0).unwrap_or(name.len())];
                let number = u64::from_le_bytes(block[12 * at..12 * at + 8].try_into().expect("eight bytes"));
                all.push((name.to_vec(), number));
            }
        }
        assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0), "names are not sorted");
        let before = all.len();
        all.retain(|(name, _)| name != b"." && name != b"..");
        assert_eq!(all.len() + 2, before);
        all
    }
}
