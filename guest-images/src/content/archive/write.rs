//! Headers of the tar archives that images are saved as: ustar (POSIX.1-1988), short names, no surprises.

use std::io::{self, Write};

const BLOCK: usize = 512;

/// Writes a header for a regular file (or, with `size` None, a directory) of root's, from 1970, so that the same
/// images give the same archive.
pub(super) fn header(to: &mut impl Write, name: &str, size: Option<u64>) -> io::Result<()> {
    let mut header = [0u8; BLOCK];
    let field = header.get_mut(..name.len()).filter(|field| field.len() <= 100);
    field.ok_or(io::ErrorKind::InvalidFilename)?.copy_from_slice(name.as_bytes());
    let mode = if size.is_some() { b"0000644\0" } else { b"0000755\0" };
    header[100..108].copy_from_slice(mode);
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(&number(size.unwrap_or(0)));
    header[136..148].copy_from_slice(&number(0));
    header[148..156].fill(b' ');
    header[156] = if size.is_some() { b'0' } else { b'5' };
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    to.write_all(&header)
}

/// Fills up to the next block.
pub(super) fn pad(to: &mut impl Write, size: u64) -> io::Result<()> {
    let rest = (size.next_multiple_of(BLOCK as u64) - size) as usize;
    to.write_all(&[0; BLOCK][..rest])
}

/// The end of an archive.
pub(super) fn end(to: &mut impl Write) -> io::Result<()> {
    to.write_all(&[0; 2 * BLOCK])
}

/// Eleven octal digits, or GNU's form of binary numbers for what is larger than 8 GiB.
fn number(value: u64) -> [u8; 12] {
    let mut field = [0; 12];
    if value < 1 << 33 {
        field[..11].copy_from_slice(format!("{value:011o}").as_bytes());
    } else {
        field[0] = 0x80;
        field[4..].copy_from_slice(&value.to_be_bytes());
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::tar::{Archive, What};

    #[test]
    fn what_is_written_reads_back() {
        let mut bytes = Vec::new();
        header(&mut bytes, "dir/", None).unwrap();
        header(&mut bytes, "dir/file", Some(3)).unwrap();
        bytes.extend_from_slice(b"abc");
        pad(&mut bytes, 3).unwrap();
        header(&mut bytes, "large", Some(1 << 40)).unwrap();
        let mut archive = Archive::new(&bytes[..]);
        assert_eq!(archive.next_entry().unwrap().unwrap().what, What::Directory);
        let What::File(file) = archive.next_entry().unwrap().unwrap().what else { panic!() };
        assert_eq!((file.size, file.at), (3, 1024));
        let What::File(large) = archive.next_entry().unwrap().unwrap().what else { panic!() };
        assert_eq!(large.size, 1 << 40);
        assert!(header(&mut bytes, &"x".repeat(101), None).is_err());
    }
}
