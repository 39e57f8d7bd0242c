//! A file that may be a tar in any compression.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

use super::tar::Archive;
use crate::compression::Compression;

/// The bytes of the tar that `file` is, packed or not; None if it is none.
///
/// # Errors
/// The file cannot be read.
pub fn unpacked(file: &File) -> io::Result<Option<Box<dyn Read + '_>>> {
    let Some(probe) = open(file)? else { return Ok(None) };
    match Archive::new(probe).next_entry() {
        Ok(Some(_)) => open(file),
        _ => Ok(None),
    }
}

fn open(mut file: &File) -> io::Result<Option<Box<dyn Read + '_>>> {
    file.rewind()?;
    let mut start = [0; 8];
    let mut filled = 0;
    while filled < start.len() {
        match file.read(&mut start[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    file.rewind()?;
    let source = BufReader::with_capacity(256 << 10, file);
    match Compression::of(&start[..filled]) {
        None => Ok(Some(Box::new(source))),
        Some(Compression::Gzip) => Ok(Some(Box::new(flate2::bufread::MultiGzDecoder::new(source)))),
        // A damaged header: then it is no archive, but a file like others.
        Some(other) => Ok(other.reader(source).ok()),
    }
}
