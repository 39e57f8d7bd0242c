//! Extended headers of POSIX tar (IEEE Std 1003.1-2001, "pax Extended Header").

use std::collections::BTreeMap;

use super::tar::{Segment, TarError};

/// What extended headers say of the next entry; it goes before what the entry's own header says.
#[derive(Debug, Clone, Default)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub time: Option<(i64, u32)>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub sparse: Sparse,
}

/// GNU tar's sparse files in pax headers, versions 0.0, 0.1 and 1.0.
#[derive(Debug, Clone, Default)]
pub(super) struct Sparse {
    pub name: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub map: Vec<Segment>,
    /// Version 1.0: the map is at the start of the data.
    pub map_in_data: bool,
    offset: Option<u64>,
}

impl Sparse {
    pub(super) fn is_any(&self) -> bool {
        self.size.is_some()
    }
}

impl Pax {
    /// Reads records `LENGTH KEY=VALUE\n` over what is known already.
    pub(super) fn read(&mut self, mut records: &[u8]) -> Result<(), TarError> {
        while !records.is_empty() {
            // GNU tar fills the rest of a block with zeros where it was told a wrong size.
            if records.iter().all(|byte| *byte == 0) {
                return Ok(());
            }
            let space = records.iter().take(20).position(|byte| *byte == b' ').ok_or(BAD)?;
            let length = usize::try_from(decimal(&records[..space])?).map_err(|_| BAD)?;
            if length <= space + 2 || length > records.len() || records[length - 1] != b'\n' {
                return Err(BAD);
            }
            let record = &records[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(BAD)?;
            self.record(&record[..equals], &record[equals + 1..])?;
            records = &records[length..];
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        let id = || u32::try_from(decimal(value)?).map_err(|_| BAD);
        match key {
            b"path" => self.path = Some(value.into()),
            b"linkpath" => self.link = Some(value.into()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(id()?),
            b"gid" => self.gid = Some(id()?),
            b"mtime" => self.time = Some(time(value)?),
            b"GNU.sparse.name" => self.sparse.name = Some(value.into()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = Some(decimal(value)?),
            b"GNU.sparse.major" => self.sparse.map_in_data = value == b"1",
            b"GNU.sparse.map" => self.sparse.map = map(value)?,
            b"GNU.sparse.offset" => self.sparse.offset = Some(decimal(value)?),
            b"GNU.sparse.numbytes" => {
                let offset = self.sparse.offset.take().ok_or(BAD)?;
                self.sparse.map.push(Segment { offset, length: decimal(value)? });
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.insert(name.into(), value.into());
                }
            }
        }
        Ok(())
    }
}

const BAD: TarError = TarError::Pax;

/// A number without sign.
pub(super) fn decimal(digits: &[u8]) -> Result<u64, TarError> {
    let text = std::str::from_utf8(digits).map_err(|_| BAD)?;
    if text.starts_with('+') {
        return Err(BAD);
    }
    text.parse().map_err(|_| BAD)
}

/// `-12.345`: seconds and the nanoseconds after them.
fn time(value: &[u8]) -> Result<(i64, u32), TarError> {
    let text = std::str::from_utf8(value).map_err(|_| BAD)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| BAD)?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(BAD);
    }
    let nanoseconds = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = nanoseconds.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    if text.starts_with('-') && nanoseconds > 0 {
        return Ok((seconds.checked_sub(1).ok_or(BAD)?, 1_000_000_000 - nanoseconds));
    }
    Ok((seconds, nanoseconds))
}

/// `OFFSET,LENGTH,OFFSET,LENGTH…`
fn map(value: &[u8]) -> Result<Vec<Segment>, TarError> {
    let numbers: Vec<u64> = value.split(|byte| *byte == b',').map(decimal).collect::<Result<_, _>>()?;
    if !numbers.len().is_multiple_of(2) {
        return Err(BAD);
    }
    Ok(numbers.chunks(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let mut pax = Pax::default();
        pax.read(b"14 path=a b/c\n14 mtime=-1.5\n30 SCHILY.xattr.user.a=\0\n=xyz\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a b/c"[..]));
        assert_eq!(pax.time, Some((-2, 500_000_000)));
        assert_eq!(pax.xattrs[&b"user.a"[..]], b"\0\n=xyz");
    }

    #[test]
    fn damaged_records_are_refused() {
        for bad in [
            &b"14 path=a b/c"[..],
            b"99 path=a\n",
            b"3 \n",
            b"8 uid=-1\n",
            b"18446744073709551616 a=b\n",
            b"12 size=+12\n",
            b"no length\n",
            b"25 GNU.sparse.numbytes=12\n",
            b"15 mtime=1.5x2\n",
        ] {
            assert!(Pax::default().read(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
