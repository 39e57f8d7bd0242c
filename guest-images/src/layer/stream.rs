//! A layer's blob becomes the bytes of its tar.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The most memory that a zstd window may take: what `zstd --ultra --long=27` makes, its own limit too.
const MAX_WINDOW: u64 = 128 << 20;
const BUFFER: usize = 256 << 10;

/// How a blob is packed, by its first bytes: media types lie, and docker-archives have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames; zstd:chunked is that with frames to skip.
    Zstd,
}

impl Packing {
    /// Recognises a blob that starts like this (four bytes are enough).
    pub fn of(start: &[u8]) -> Packing {
        match start {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
            _ => Packing::Plain,
        }
    }
}

/// One layer of an image.
#[derive(Debug)]
pub struct Layer {
    /// What messages call it: its digest, or a path.
    pub name: String,
    /// Its blob.
    pub blob: File,
    /// The SHA-256 that the unpacked stream must have, as hexadecimal digits; None: not known.
    pub diff_id: Option<String>,
}

impl Layer {
    /// How it is packed.
    pub(super) fn packing(&self) -> io::Result<Packing> {
        let mut start = Vec::new();
        At { file: &self.blob, at: 0 }.take(4).read_to_end(&mut start)?;
        Ok(Packing::of(&start))
    }

    /// The unpacked stream, from its start. Any number may be open at once.
    pub(super) fn open(&self) -> io::Result<Box<dyn Read + Send + '_>> {
        let source = plain(&self.blob);
        Ok(match self.packing()? {
            Packing::Plain => Box::new(source),
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
            Packing::Zstd => Box::new(Zstd::new(source)),
        })
    }
}

/// A file's bytes, from its start.
pub(super) fn plain(file: &File) -> impl BufRead + Send + '_ {
    BufReader::with_capacity(BUFFER, At { file, at: 0 })
}

struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(into, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Any number of frames, one after the other.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Zstd<R> {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW);
        Zstd { source, decoder }
    }

    /// Begins the next frame; false at the end of the blob.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    if io::copy(&mut self.source.by_ref().take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(damaged(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(into);
            }
            if self.decoder.is_finished() {
                if into.is_empty() || !self.next_frame()? {
                    return Ok(0);
                }
            } else {
                let step = BlockDecodingStrategy::UptoBytes(BUFFER);
                self.decoder.decode_blocks(&mut self.source, step).map_err(damaged)?;
            }
        }
    }
}

fn damaged(error: FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
