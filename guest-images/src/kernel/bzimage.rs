//! The x86 boot protocol's setup header (Documentation/arch/x86/boot.rst) and the payload behind it.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

/// Bytes from the start of a file that [`SetupHeader::parse`] looks at: the largest setup there is.
pub(crate) const HEAD: usize = 64 * 512 + 512;

/// What is needed of the setup header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SetupHeader {
    /// Where the compressed kernel is in the file.
    pub payload: std::ops::Range<u64>,
    /// Memory that the kernel needs while it unpacks itself: more than the ELF inside has bytes.
    pub init_size: u64,
    /// The kernel's release, as `uname -r` prints it.
    pub version: Option<String>,
}

/// Why a file is not a bzImage that can be unpacked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotBzImage {
    /// It has no setup header at all.
    NoHeader,
    /// Its boot protocol is too old to say where the payload is.
    Old,
    /// It is a kernel for 32-bit processors.
    Bits32,
    /// The payload ends behind the file's end.
    Truncated,
}

impl SetupHeader {
    /// Reads the header from `head`, the first [`HEAD`] bytes of a file of `length` bytes.
    pub(crate) fn parse(head: &[u8], length: u64) -> Result<SetupHeader, NotBzImage> {
        const KERNEL_64: u16 = 1;
        if head.get(0x202..0x206) != Some(b"HdrS") || head.get(0x1fe..0x200) != Some(b"\x55\xaa") {
            return Err(NotBzImage::NoHeader);
        }
        let u16_at = |at: usize| head.get(at..).and_then(<[u8]>::first_chunk).map(|b| u16::from_le_bytes(*b));
        let u32_at = |at: usize| head.get(at..).and_then(<[u8]>::first_chunk).map(|b| u32::from_le_bytes(*b));
        let short = || NotBzImage::Truncated;
        let version = u16_at(0x206).ok_or_else(short)?;
        // payload_offset came with 2.08, init_size with 2.10, xloadflags with 2.12 (Linux 3.8).
        if version < 0x20c {
            return Err(NotBzImage::Old);
        }
        if u16_at(0x236).ok_or_else(short)? & KERNEL_64 == 0 {
            return Err(NotBzImage::Bits32);
        }
        let sectors = match head[0x1f1] {
            0 => 4,
            sectors => u64::from(sectors),
        };
        let start = (sectors + 1) * 512 + u64::from(u32_at(0x248).ok_or_else(short)?);
        let end = start + u64::from(u32_at(0x24c).ok_or_else(short)?);
        if start >= end || end > length {
            return Err(NotBzImage::Truncated);
        }
        let version =
            u16_at(0x20e).filter(|at| *at != 0).and_then(|at| release(head, usize::from(at) + 0x200));
        Ok(SetupHeader { payload: start..end, init_size: u32_at(0x260).ok_or_else(short)?.into(), version })
    }
}

/// The first word of the version string: at most 64 printable bytes (the kernel's `__NEW_UTS_LEN`).
fn release(head: &[u8], at: usize) -> Option<String> {
    let text = head.get(at..)?;
    let end = text.iter().take(65).position(|byte| !byte.is_ascii_graphic())?;
    (end > 0).then(|| text[..end].iter().map(|byte| char::from(*byte)).collect())
}

/// A part of a file as a stream.
pub(crate) fn stream(file: &File, range: std::ops::Range<u64>) -> BufReader<impl Read + '_> {
    BufReader::with_capacity(128 << 10, Window { file, at: range.start, end: range.end })
}

struct Window<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = left.min(into.len());
        let count = self.file.read_at(&mut into[..wanted], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A bzImage with this payload and release.
    pub(crate) fn bzimage(payload: &[u8], release: &str) -> Vec<u8> {
        let mut image = vec![0; 5 * 512];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x1f1, &[4]);
        put(0x1fe, b"\x55\xaa");
        put(0x202, b"HdrS");
        put(0x206, &0x20fu16.to_le_bytes());
        put(0x20e, &0x300u16.to_le_bytes());
        put(0x236, &1u16.to_le_bytes());
        put(0x248, &16u32.to_le_bytes());
        put(0x24c, &(payload.len() as u32).to_le_bytes());
        put(0x260, &(64u32 << 20).to_le_bytes());
        put(0x500, format!("{release} (builder@host) #1 SMP\0").as_bytes());
        image.extend_from_slice(&[0; 16]);
        image.extend_from_slice(payload);
        image
    }

    #[test]
    fn payload_and_release_are_found() {
        let image = bzimage(b"payload", "6.1.0-test");
        let header = SetupHeader::parse(&image, image.len() as u64).unwrap();
        assert_eq!(header.version.as_deref(), Some("6.1.0-test"));
        assert_eq!(&image[header.payload.start as usize..header.payload.end as usize], b"payload");
        assert_eq!(header.init_size, 64 << 20);
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        let image = bzimage(b"payload", "6.1.0");
        let length = image.len() as u64;
        assert_eq!(SetupHeader::parse(&image, length - 1), Err(NotBzImage::Truncated));
        assert_eq!(SetupHeader::parse(&image[..0x210], 0x210), Err(NotBzImage::Truncated));
        assert_eq!(SetupHeader::parse(b"no", 2), Err(NotBzImage::NoHeader));
        let with = |at: usize, byte: u8| {
            let mut image = image.clone();
            image[at] = byte;
            SetupHeader::parse(&image, length)
        };
        assert_eq!(with(0x236, 0), Err(NotBzImage::Bits32));
        assert_eq!(with(0x206, 1), Err(NotBzImage::Old));
        assert_eq!(with(0x20f, 0xff).unwrap().version, None, "a version outside the setup");
    }

    proptest! {
        #[test]
        fn bug_20_any_header_is_survived(hits in proptest::collection::vec((0usize..0x600, any::<u8>()), 0..40)) {
            let mut image = bzimage(b"payload", "6.1.0");
            for (at, byte) in hits {
                image[at] = byte;
            }
            let length = image.len() as u64;
            if let Ok(header) = SetupHeader::parse(&image, length) {
                prop_assert!(header.payload.start < header.payload.end && header.payload.end <= length);
            }
        }
    }
}
