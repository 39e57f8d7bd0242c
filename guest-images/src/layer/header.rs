//! The fields of a tar header (POSIX ustar; GNU's binary numbers).

use super::pax::Pax;
use super::tar::TarError;
use crate::erofs::Metadata;

/// Bytes of a header; everything in a tar begins at a multiple.
pub(super) const BLOCK: usize = 512;

/// One header.
pub(super) struct Header(pub(super) [u8; BLOCK]);

impl Header {
    /// The sum of all bytes, the sum's own field as spaces; some old writers added signed bytes.
    pub(super) fn is_sound(&self) -> bool {
        let Ok(expected) = octal(&self.0[148..156]) else { return false };
        let field = |at: usize| (148..156).contains(&at);
        let bytes = || self.0.iter().enumerate().map(move |(at, byte)| if field(at) { b' ' } else { *byte });
        let unsigned: u64 = bytes().map(u64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte as i8)).sum();
        expected == unsigned || i64::try_from(expected) == Ok(signed)
    }

    pub(super) fn number(&self, field: std::ops::Range<usize>, what: &'static str) -> Result<u64, TarError> {
        u64::try_from(self.signed(field, what)?).map_err(|_| TarError::Field(what))
    }

    pub(super) fn id(&self, field: std::ops::Range<usize>, what: &'static str) -> Result<u32, TarError> {
        u32::try_from(self.number(field, what)?).map_err(|_| TarError::Field(what))
    }

    /// Octal digits, or GNU's binary numbers: the first bit set, big-endian, two's complement.
    pub(super) fn signed(&self, field: std::ops::Range<usize>, what: &'static str) -> Result<i64, TarError> {
        let bytes = &self.0[field];
        if bytes[0] & 0x80 == 0 {
            let number = octal(bytes).map_err(|()| TarError::Field(what))?;
            return i64::try_from(number).map_err(|_| TarError::Field(what));
        }
        // Bit 6 of the first byte is the sign.
        let first =
            if bytes[0] & 0x40 != 0 { i128::from(bytes[0] as i8) } else { i128::from(bytes[0] & 0x3f) };
        let value = bytes[1..].iter().fold(first, |value, byte| value << 8 | i128::from(*byte));
        i64::try_from(value).map_err(|_| TarError::Field(what))
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let name = until_zero(&self.0[..100]);
        let prefix = until_zero(&self.0[345..500]);
        // GNU keeps other things where ustar has the prefix, and says so in the magic.
        match &self.0[257..263] == b"ustar\0" && !prefix.is_empty() {
            true => [prefix, b"/", name].concat(),
            false => name.to_vec(),
        }
    }

    pub(super) fn metadata(&self, pax: &Pax) -> Result<Metadata, TarError> {
        let time = match pax.time {
            Some(time) => time,
            None => (self.signed(136..148, "time")?, 0),
        };
        let id = |known: Option<u32>, field, what| known.map_or_else(|| self.id(field, what), Ok);
        Ok(Metadata {
            permissions: (self.number(100..108, "mode")? & 0o7777) as u16,
            uid: id(pax.uid, 108..116, "owner")?,
            gid: id(pax.gid, 116..124, "group")?,
            seconds: time.0,
            nanoseconds: time.1,
            xattrs: pax.xattrs.clone(),
        })
    }
}

pub(super) fn until_zero(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}

/// Digits between spaces and zeros; nothing at all is 0.
fn octal(field: &[u8]) -> Result<u64, ()> {
    let digits = until_zero(field).trim_ascii();
    digits.iter().try_fold(0u64, |number, digit| match digit {
        b'0'..=b'7' => number.checked_mul(8).map(|number| number + u64::from(digit - b'0')).ok_or(()),
        _ => Err(()),
    })
}
