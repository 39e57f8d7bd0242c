//! Reads tar streams as they come out of a pipe: ustar, pax and GNU, with sparse files.
//!
//! A stream is hostile: every number is checked before it is used, and what is kept of an entry is bounded
//! by [`MAX_HEADER`].

use std::io::{self, Read};

use super::header::{BLOCK, Header, until_zero};
use super::pax::{Pax, decimal};
use crate::erofs::Metadata;

/// The most bytes of one extended header (a long name, a set of attributes), and of one sparse map.
pub const MAX_HEADER: u64 = 1 << 20;
/// The largest file: ext4's, and what an EROFS image can hold.
pub const MAX_FILE: u64 = 16 << 40;

/// A stream cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// It stops in the middle of an entry.
    #[error("it ends in the middle of an entry")]
    Short,
    /// A header's checksum is wrong.
    #[error("a header at byte {0} is damaged, or it is no tar file")]
    Header(u64),
    /// A number in a header is wrong.
    #[error("a header has an impossible {0}")]
    Field(&'static str),
    /// An extended header is damaged.
    #[error("an extended (pax) header is damaged")]
    Pax,
    /// An extended header is too long.
    #[error("a name or a set of attributes has more than 1 MiB")]
    Long,
    /// A sparse file's map is wrong.
    #[error("the map of a sparse file is damaged")]
    Sparse,
    /// An entry of a kind that nothing is known about.
    #[error("it has an entry of the unknown type {0}")]
    Kind(u8),
}

/// Bytes of a sparse file that are in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A regular file.
    File(Contents),
    /// A hard link to this name.
    HardLink(Vec<u8>),
    /// A symbolic link.
    Link(Vec<u8>),
    /// A character device: major, minor.
    Character(u32, u32),
    /// A block device: major, minor.
    Block(u32, u32),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// Where a file's data are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Bytes of the file.
    pub size: u64,
    /// Where its data begin in the stream.
    pub at: u64,
    /// Sorted, without overlaps; None for a file without holes.
    pub sparse: Option<Vec<Segment>>,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, as it is in the stream.
    pub path: Vec<u8>,
    /// Owner and so on.
    pub metadata: Metadata,
    /// What it is.
    pub what: What,
}

/// A stream of entries.
#[derive(Debug)]
pub struct Archive<R> {
    source: R,
    /// Bytes read.
    at: u64,
    /// Where the next header is.
    next: u64,
    /// What global headers say of all entries.
    global: Pax,
}

impl<R: Read> Archive<R> {
    /// A stream from its start.
    pub fn new(source: R) -> Archive<R> {
        Archive { source, at: 0, next: 0, global: Pax::default() }
    }

    /// What is behind the last entry that was read.
    pub fn into_inner(self) -> R {
        self.source
    }

    /// The next entry. None at the end; what follows the end is not read.
    ///
    /// # Errors
    /// [`TarError`]
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut pax = self.global.clone();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.number(124..136, "size")?;
            match header.0[156] {
                b'x' | b'X' => pax.read(&self.extension(size)?)?,
                b'g' => {
                    let records = self.extension(size)?;
                    self.global.read(&records)?;
                    pax.read(&records)?;
                }
                b'L' => long_name = Some(until_zero(&self.extension(size)?).to_vec()),
                b'K' => long_link = Some(until_zero(&self.extension(size)?).to_vec()),
                // A volume's label, or a list of names that an incremental archive begins with.
                b'V' | b'M' | b'N' => self.skip_data(size)?,
                _ => {
                    pax.path = pax.path.or(long_name);
                    pax.link = pax.link.or(long_link);
                    return self.entry(&header, pax).map(Some);
                }
            }
        }
    }

    /// `length` bytes from byte `at` of the stream, which must not be behind what was read.
    ///
    /// # Errors
    /// The stream ends before that.
    pub fn data_at(&mut self, at: u64, length: u64) -> Result<impl Read + '_, TarError> {
        self.forward(at)?;
        Ok(Data { archive: self, left: length })
    }

    fn entry(&mut self, header: &Header, pax: Pax) -> Result<Entry, TarError> {
        let stored = match pax.size {
            Some(size) => size,
            None => header.number(124..136, "size")?,
        };
        if stored > MAX_FILE || pax.sparse.size.is_some_and(|size| size > MAX_FILE) {
            return Err(TarError::Field("size"));
        }
        let path = pax.sparse.name.clone().or(pax.path.clone()).unwrap_or_else(|| header.path());
        let link = || pax.link.clone().unwrap_or_else(|| until_zero(&header.0[157..257]).to_vec());
        let metadata = header.metadata(&pax)?;
        let device = || Ok::<_, TarError>((header.id(329..337, "device")?, header.id(337..345, "device")?));
        let mut data = 0;
        let what = match header.0[156] {
            // Before ustar a directory was a file whose name ends in a slash.
            0 | b'0' | b'7' if path.ends_with(b"/") => What::Directory,
            0 | b'0' | b'7' if pax.sparse.is_any() => {
                data = stored;
                What::File(self.pax_sparse(stored, pax)?)
            }
            0 | b'0' | b'7' => {
                data = stored;
                What::File(Contents { size: stored, at: self.at, sparse: None })
            }
            b'S' => {
                data = stored;
                What::File(self.gnu_sparse(header, stored)?)
            }
            b'1' => What::HardLink(link()),
            b'2' => What::Link(link()),
            b'3' => device().map(|(major, minor)| What::Character(major, minor))?,
            b'4' => device().map(|(major, minor)| What::Block(major, minor))?,
            b'5' | b'D' => What::Directory,
            b'6' => What::Fifo,
            other => return Err(TarError::Kind(other)),
        };
        // A header of anything but a file may have a size; hard links of old archives do, without data.
        let start = match &what {
            What::File(contents) => contents.at,
            _ => self.at,
        };
        let data = if header.0[156] == b'D' { stored } else { data };
        self.next = match &what {
            // A 1.0 map is part of the stored bytes, and has been read.
            What::File(contents) if contents.sparse.is_some() => {
                start + contents.sparse.iter().flatten().map(|segment| segment.length).sum::<u64>()
            }
            _ => start + data,
        };
        Ok(Entry { path, metadata, what })
    }

    /// The next header with something in it.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        self.forward(self.next.next_multiple_of(BLOCK as u64))?;
        let start = self.at;
        let mut header = Header([0; BLOCK]);
        // Some writers leave the two blocks of zeros at the end out.
        if !self.fill(&mut header.0)? || header.0.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        self.next = self.at;
        if header.is_sound() { Ok(Some(header)) } else { Err(TarError::Header(start)) }
    }

    /// Whether there was a whole block; not a single byte is the end.
    fn fill(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(TarError::Short),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.at += BLOCK as u64;
        Ok(true)
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_HEADER {
            return Err(TarError::Long);
        }
        let mut bytes = vec![0; size as usize];
        self.exactly(&mut bytes)?;
        self.next = self.at;
        Ok(bytes)
    }

    fn skip_data(&mut self, size: u64) -> Result<(), TarError> {
        self.next = self.at.checked_add(size).ok_or(TarError::Field("size"))?;
        Ok(())
    }

    fn exactly(&mut self, into: &mut [u8]) -> Result<(), TarError> {
        self.source.read_exact(into).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Short,
            _ => TarError::Read(error),
        })?;
        self.at += into.len() as u64;
        Ok(())
    }

    /// Reads on to a byte of the stream.
    fn forward(&mut self, to: u64) -> Result<(), TarError> {
        let wanted = to.saturating_sub(self.at);
        let skipped = io::copy(&mut self.source.by_ref().take(wanted), &mut io::sink())?;
        self.at += skipped;
        if skipped == wanted { Ok(()) } else { Err(TarError::Short) }
    }

    /// GNU's own sparse files: four segments in the header, 21 in each block behind it.
    fn gnu_sparse(&mut self, header: &Header, stored: u64) -> Result<Contents, TarError> {
        let size = header.number(483..495, "size")?;
        let mut map = Vec::new();
        let read = |block: &Header, from: usize, count: usize, map: &mut Vec<Segment>| {
            for at in (from..from + 24 * count).step_by(24) {
                let length = block.number(at + 12..at + 24, "size")?;
                if block.0[at] != 0 {
                    map.push(Segment { offset: block.number(at..at + 12, "offset")?, length });
                }
            }
            Ok::<(), TarError>(())
        };
        read(header, 386, 4, &mut map)?;
        let mut more = header.0[482] != 0;
        while more {
            if map.len() as u64 * 16 > MAX_HEADER {
                return Err(TarError::Long);
            }
            let mut block = Header([0; BLOCK]);
            self.exactly(&mut block.0)?;
            read(&block, 0, 21, &mut map)?;
            more = block.0[504] != 0;
        }
        contents(size, self.at, map, stored)
    }

    fn pax_sparse(&mut self, stored: u64, pax: Pax) -> Result<Contents, TarError> {
        let size = pax.sparse.size.ok_or(TarError::Sparse)?;
        if !pax.sparse.map_in_data {
            return contents(size, self.at, pax.sparse.map, stored);
        }
        let start = self.at;
        let mut numbers = Numbers { archive: self, block: [0; BLOCK], used: BLOCK };
        let count = numbers.next(stored)?;
        if count > MAX_HEADER / 16 {
            return Err(TarError::Long);
        }
        let mut map = Vec::new();
        for _ in 0..count {
            map.push(Segment { offset: numbers.next(stored)?, length: numbers.next(stored)? });
        }
        let left = stored.checked_sub(self.at - start).ok_or(TarError::Sparse)?;
        contents(size, self.at, map, left)
    }
}

/// Checks a map: in order, within the file, and as long as what is stored.
fn contents(size: u64, at: u64, mut map: Vec<Segment>, stored: u64) -> Result<Contents, TarError> {
    map.retain(|segment| segment.length > 0);
    let (mut end, mut total) = (0, 0u64);
    for segment in &map {
        if segment.offset < end {
            return Err(TarError::Sparse);
        }
        end = segment.offset.checked_add(segment.length).ok_or(TarError::Sparse)?;
        total += segment.length;
    }
    if end > size || total != stored || size > MAX_FILE {
        return Err(TarError::Sparse);
    }
    Ok(Contents { size, at, sparse: Some(map) })
}

/// Decimal numbers, a line each, in blocks: the map of version 1.0.
struct Numbers<'a, R> {
    archive: &'a mut Archive<R>,
    block: [u8; BLOCK],
    used: usize,
}

impl<R: Read> Numbers<'_, R> {
    fn next(&mut self, stored: u64) -> Result<u64, TarError> {
        let mut digits = Vec::new();
        loop {
            if self.used == BLOCK {
                if stored < BLOCK as u64 {
                    return Err(TarError::Sparse);
                }
                self.archive.exactly(&mut self.block)?;
                self.used = 0;
            }
            let byte = self.block[self.used];
            self.used += 1;
            match byte {
                b'\n' => return decimal(&digits).map_err(|_| TarError::Sparse),
                _ if digits.len() < 20 => digits.push(byte),
                _ => return Err(TarError::Sparse),
            }
        }
    }
}

struct Data<'a, R> {
    archive: &'a mut Archive<R>,
    left: u64,
}

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let wanted = self.left.min(into.len() as u64) as usize;
        let count = self.archive.source.read(&mut into[..wanted])?;
        self.archive.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
