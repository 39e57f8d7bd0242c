//! Writes a tar stream: ustar, with pax headers for what does not fit. Equal entries give equal bytes.

use std::io::{self, Read, Write};

use super::header::BLOCK;
use crate::erofs::Metadata;

/// What an entry is.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// A regular file of so many bytes; they are written next, by [`Writer::data`].
    File(u64),
    /// A hard link to an earlier entry.
    HardLink(&'a [u8]),
    /// A symbolic link.
    Link(&'a [u8]),
    /// A character device: major, minor.
    Character(u32, u32),
    /// A block device: major, minor.
    Block(u32, u32),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// A tar stream being written.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Begins.
    pub fn new(out: W) -> Writer<W> {
        Writer { out }
    }

    /// Writes an entry's header.
    ///
    /// # Errors
    /// As the stream.
    pub fn entry(&mut self, path: &[u8], metadata: &Metadata, body: Body<'_>) -> io::Result<()> {
        let (kind, size, link) = match body {
            Body::File(size) => (b'0', size, &b""[..]),
            Body::HardLink(to) => (b'1', 0, to),
            Body::Link(to) => (b'2', 0, to),
            Body::Character(..) => (b'3', 0, &b""[..]),
            Body::Block(..) => (b'4', 0, &b""[..]),
            Body::Directory => (b'5', 0, &b""[..]),
            Body::Fifo => (b'6', 0, &b""[..]),
        };
        let mut name = path.to_vec();
        if kind == b'5' && !name.ends_with(b"/") {
            name.push(b'/');
        }
        let mut pax = Vec::new();
        let mut header = [0u8; BLOCK];
        text(&mut header[..100], &name, b"path", &mut pax);
        text(&mut header[157..257], link, b"linkpath", &mut pax);
        number(&mut header[100..108], u64::from(metadata.permissions));
        limited(&mut header[108..116], u64::from(metadata.uid), b"uid", &mut pax);
        limited(&mut header[116..124], u64::from(metadata.gid), b"gid", &mut pax);
        limited(&mut header[124..136], size, b"size", &mut pax);
        match (u64::try_from(metadata.seconds), metadata.nanoseconds) {
            (Ok(seconds), 0) => limited(&mut header[136..148], seconds, b"mtime", &mut pax),
            (seconds, _) => {
                limited(&mut header[136..148], seconds.unwrap_or(0), b"", &mut Vec::new());
                record(&mut pax, b"mtime", time(metadata).as_bytes());
            }
        }
        if let Body::Character(major, minor) | Body::Block(major, minor) = body {
            number(&mut header[329..337], u64::from(major));
            number(&mut header[337..345], u64::from(minor));
        }
        for (name, value) in &metadata.xattrs {
            record(&mut pax, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        if !pax.is_empty() {
            let mut extension = [0u8; BLOCK];
            extension[..15].copy_from_slice(b"PaxHeaders.0/hv");
            number(&mut extension[100..108], 0o644);
            number(&mut extension[108..116], 0);
            number(&mut extension[116..124], 0);
            number(&mut extension[124..136], pax.len() as u64);
            number(&mut extension[136..148], 0);
            self.header(extension, b'x')?;
            self.out.write_all(&pax)?;
            self.pad(pax.len() as u64)?;
        }
        self.header(header, kind)
    }

    /// Writes the bytes of the file whose entry was written last.
    ///
    /// # Errors
    /// As the stream; or there are fewer than was said. More are not read.
    pub fn data(&mut self, size: u64, from: impl Read) -> io::Result<()> {
        self.part(size, from)?;
        self.pad(size)
    }

    /// As [`Writer::data`], for a part of a file's bytes; [`Writer::pad`] comes after the last.
    pub(super) fn part(&mut self, size: u64, from: impl Read) -> io::Result<()> {
        if io::copy(&mut from.take(size), &mut self.out)? < size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "a file became shorter while it was read",
            ));
        }
        Ok(())
    }

    /// Fills the last block of a file of so many bytes.
    pub(super) fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = (size % BLOCK as u64) as usize;
        if over == 0 { Ok(()) } else { self.out.write_all(&[0; BLOCK][over..]) }
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// As the stream.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn header(&mut self, mut header: [u8; BLOCK], kind: u8) -> io::Result<()> {
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        number(&mut header[148..155], sum);
        self.out.write_all(&header)
    }
}

fn text(field: &mut [u8], value: &[u8], key: &[u8], pax: &mut Vec<u8>) {
    let fits = value.len().min(field.len());
    field[..fits].copy_from_slice(&value[..fits]);
    if value.len() > field.len() {
        record(pax, key, value);
    }
}

/// A number that pax says if the field has too few digits for it.
fn limited(field: &mut [u8], value: u64, key: &[u8], pax: &mut Vec<u8>) {
    if value >> (3 * (field.len() - 1)) == 0 {
        number(field, value);
    } else {
        number(field, 0);
        record(pax, key, value.to_string().as_bytes());
    }
}

/// Seconds with nine decimals: nanoseconds count upwards from the second before.
fn time(metadata: &Metadata) -> String {
    match (metadata.seconds, metadata.nanoseconds) {
        (seconds, 0) => seconds.to_string(),
        (seconds @ 0.., nanoseconds) => format!("{seconds}.{nanoseconds:09}"),
        (seconds, nanoseconds) => {
            let (whole, part) = (-(seconds + 1), 1_000_000_000 - nanoseconds);
            format!("-{whole}.{part:09}")
        }
    }
}

/// Octal digits, the last byte zero. What does not fit loses its upper digits: callers see to it that it does.
fn number(field: &mut [u8], mut value: u64) {
    let digits = field.len() - 1;
    for place in field[..digits].iter_mut().rev() {
        *place = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

/// `LENGTH KEY=VALUE\n`, the length with its own digits.
fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let bare = key.len() + value.len() + 3;
    let mut length = bare + 1;
    while bare + length.to_string().len() != length {
        length = bare + length.to_string().len();
    }
    pax.extend(length.to_string().bytes());
    pax.push(b' ');
    pax.extend(key);
    pax.push(b'=');
    pax.extend(value);
    pax.push(b'\n');
}
