//! Decompresses kernels and kernel modules, recognised by their magic number.
//!
//! The kernel's build appends four bytes (the unpacked size) to whatever the compressor wrote, so every
//! reader here stops at the end of the first stream and ignores what follows.

use std::io::{self, BufRead, Read};

/// The most memory that a dictionary or window may take: what the kernel's own build uses (`xz` with a
/// dictionary of 128 MiB, `zstd --ultra -22`), and no more.
const MAX_WINDOW: u64 = 128 << 20;
/// What a decoder may need beside its window, in KiB.
const DECODER_KIB: u32 = 1024;

/// A compression that the kernel's build or its module installation uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// The .xz format, with the x86 branch filter that kernels use.
    Xz,
    /// The older .lzma format.
    Lzma,
    /// LZ4's legacy frames, as `lz4 -l` writes them.
    Lz4,
    /// RFC 8878.
    Zstd,
    /// bzip2.
    Bzip2,
    /// LZO in lzop's container: recognised, not read.
    Lzo,
}

impl Compression {
    /// Recognises the compression of data that start like this (six bytes are enough).
    pub fn of(start: &[u8]) -> Option<Compression> {
        const MAGICS: [(&[u8], Compression); 7] = [
            (b"\x1f\x8b\x08", Compression::Gzip),
            (b"\xfd7zXZ\0", Compression::Xz),
            (b"\x5d\0\0", Compression::Lzma),
            (b"\x02\x21\x4c\x18", Compression::Lz4),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
            (b"BZh", Compression::Bzip2),
            (b"\x89LZO\0", Compression::Lzo),
        ];
        MAGICS.into_iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, compression)| compression)
    }

    /// The name that users know it by.
    pub fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Xz => "xz",
            Compression::Lzma => "lzma",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
            Compression::Bzip2 => "bzip2",
            Compression::Lzo => "lzo",
        }
    }

    /// A reader of what `source` holds in this compression. Its memory is bounded by constants; how much
    /// comes out of it is for the caller to bound.
    ///
    /// # Errors
    /// The stream's header is damaged or asks for too much memory, or it is [`Compression::Lzo`].
    pub fn reader<'a>(self, source: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        let kib = (MAX_WINDOW >> 10) as u32 + DECODER_KIB;
        Ok(match self {
            Compression::Gzip => Box::new(flate2::bufread::GzDecoder::new(source)),
            Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(source, false, kib)),
            Compression::Lzma => Box::new(lzma_rust2::LzmaReader::new_mem_limit(source, kib, None)?),
            Compression::Lz4 => Box::new(Lz4Legacy::new(source)),
            Compression::Zstd => Box::new(
                ruzstd::decoding::StreamingDecoder::new_with_max_window_size(source, MAX_WINDOW)
                    .map_err(|error| damaged(error.to_string()))?,
            ),
            Compression::Bzip2 => Box::new(bzip2::bufread::BzDecoder::new(source)),
            Compression::Lzo => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "hv does not read lzo"));
            }
        })
    }
}

fn damaged(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// LZ4's legacy frame (doc/lz4_Frame_format.md, "Legacy frame"): a magic number, then blocks of at most
/// 8 MiB, each behind its compressed size.
struct Lz4Legacy<R> {
    source: R,
    block: Vec<u8>,
    unpacked: Vec<u8>,
    given: usize,
    total: u64,
    ended: bool,
}

impl<R: BufRead> Lz4Legacy<R> {
    const MAGIC: u32 = 0x184c_2102;
    const MAX_UNPACKED: usize = 8 << 20;
    /// LZ4_compressBound of the largest block.
    const MAX_BLOCK: usize = Self::MAX_UNPACKED + Self::MAX_UNPACKED / 255 + 16;

    fn new(source: R) -> Self {
        Lz4Legacy { source, block: Vec::new(), unpacked: Vec::new(), given: 0, total: 0, ended: false }
    }

    /// Unpacks the next block; leaves nothing to give at the end.
    fn refill(&mut self) -> io::Result<()> {
        self.given = 0;
        self.unpacked.clear();
        let size = loop {
            match self.word()? {
                None => return Ok(()),
                Some(Self::MAGIC) => {}
                Some(size) => break size,
            }
        };
        // The last four bytes are what the kernel's build appended: the unpacked size.
        if self.total & 0xffff_ffff == u64::from(size) && self.source.fill_buf()?.is_empty() {
            return Ok(());
        }
        let size = usize::try_from(size).ok().filter(|size| (1..=Self::MAX_BLOCK).contains(size));
        let size = size.ok_or_else(|| damaged("an lz4 block has an impossible size"))?;
        self.block.resize(size, 0);
        self.source.read_exact(&mut self.block)?;
        self.unpacked.resize(Self::MAX_UNPACKED, 0);
        let count = lz4_flex::block::decompress_into(&self.block, &mut self.unpacked)
            .map_err(|error| damaged(error.to_string()))?;
        self.unpacked.truncate(count);
        self.total += count as u64;
        Ok(())
    }

    /// The next four bytes; None at the end of the source.
    fn word(&mut self) -> io::Result<Option<u32>> {
        if self.source.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut bytes = [0; 4];
        self.source.read_exact(&mut bytes)?;
        Ok(Some(u32::from_le_bytes(bytes)))
    }
}

impl<R: BufRead> Read for Lz4Legacy<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.given == self.unpacked.len() && !self.ended {
            self.refill()?;
            self.ended = self.unpacked.is_empty();
        }
        let rest = &self.unpacked[self.given..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.given += count;
        Ok(count)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    /// What the kernel's build runs for each compression.
    pub(crate) const TOOLS: [(Compression, &[&str]); 6] = [
        (Compression::Gzip, &["gzip", "-n", "-f", "-9"]),
        (Compression::Xz, &["xz", "--check=crc32", "--x86", "--lzma2=dict=32MiB"]),
        (Compression::Lzma, &["xz", "--format=lzma", "-9"]),
        (Compression::Lz4, &["lz4", "-l", "-9"]),
        (Compression::Zstd, &["zstd", "--ultra", "-22", "-q", "-T1"]),
        (Compression::Bzip2, &["bzip2", "-9"]),
    ];

    /// `data` as the tool packs them, or None where the tool is not installed.
    pub(crate) fn pack(tool: &[&str], data: &[u8]) -> Option<Vec<u8>> {
        let mut child = Command::new(tool[0])
            .args(&tool[1..])
            .args(if tool[0] == "lz4" { &["-", "-"][..] } else { &["-c"][..] })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut stdin = child.stdin.take().unwrap();
        let data = data.to_vec();
        let feeder = std::thread::spawn(move || stdin.write_all(&data));
        let packed = child.wait_with_output().unwrap();
        feeder.join().unwrap().unwrap();
        assert!(packed.status.success(), "{tool:?}");
        Some(packed.stdout)
    }

    fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
        let compression = Compression::of(packed).ok_or_else(|| damaged("no magic"))?;
        let mut data = Vec::new();
        compression.reader(packed)?.take(64 << 20).read_to_end(&mut data)?;
        Ok(data)
    }

    /// Bytes that compress somewhat, with x86 calls in them for the branch filter.
    fn sample(length: usize) -> Vec<u8> {
        (0..length).map(|i| if i % 37 == 0 { 0xe8 } else { (i * i / 101) as u8 }).collect()
    }

    #[test]
    fn what_the_kernels_build_packs_is_unpacked() {
        for (compression, tool) in TOOLS {
            // More than one block of lz4.
            let data = sample(if compression == Compression::Lz4 { (9 << 20) + 5 } else { 300_000 });
            let Some(mut packed) = pack(tool, &data) else { continue };
            assert_eq!(Compression::of(&packed), Some(compression));
            assert_eq!(unpack(&packed).unwrap().len(), data.len(), "{tool:?} without the size");
            packed.extend_from_slice(&(data.len() as u32).to_le_bytes());
            assert!(unpack(&packed).unwrap() == data, "{tool:?}");
        }
    }

    #[test]
    fn truncated_streams_are_errors() {
        let data = sample(100_000);
        for (_, tool) in TOOLS {
            let Some(packed) = pack(tool, &data) else { continue };
            assert!(unpack(&packed[..packed.len() / 2]).is_err(), "{tool:?}");
        }
    }

    #[test]
    fn a_header_that_asks_for_gigabytes_is_refused() {
        // lzma: properties, a dictionary of 4 GiB, unknown size.
        let lzma = [0x5d, 0, 0, 0, 0xf0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0];
        assert!(Compression::Lzma.reader(&lzma[..]).is_err());
        // zstd: no single segment, a window of 2^(10+31) bytes.
        let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0, 0xf8, 1, 0, 0];
        assert!(Compression::Zstd.reader(&zstd[..]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn damaged_streams_are_survived(
            which in 0usize..TOOLS.len(),
            hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            static PACKED: LazyLock<[Option<Vec<u8>>; 6]> =
                LazyLock::new(|| TOOLS.map(|(_, tool)| pack(tool, &sample(20_000))));
            if let Some(mut packed) = PACKED[which].clone() {
                for (place, byte) in hits {
                    let place = place.index(packed.len());
                    packed[place] = byte;
                }
                packed.truncate(cut.index(packed.len()) + 1);
                let _ = unpack(&packed);
            }
        }
    }
}
