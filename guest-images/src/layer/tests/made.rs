//! Tar streams made by hand, so that they can be wrong.

/// A tar that is being made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
    records: Vec<u8>,
    /// A device's.
    numbers: (u32, u32),
    pub(crate) mode: u32,
    pub(crate) owner: u32,
    pub(crate) time: u64,
}

impl Tar {
    pub(crate) fn new() -> Tar {
        Tar { mode: 0o755, time: 1_600_000_000, ..Tar::default() }
    }

    pub(crate) fn file(self, name: &str, text: &str) -> Tar {
        self.entry(b'0', name.as_bytes(), "", text.as_bytes())
    }

    pub(crate) fn dir(self, name: &str) -> Tar {
        self.entry(b'5', name.as_bytes(), "", b"")
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Tar {
        self.entry(b'2', name.as_bytes(), target, b"")
    }

    pub(crate) fn hard(self, name: &str, target: &str) -> Tar {
        self.entry(b'1', name.as_bytes(), target, b"")
    }

    /// An attribute of the next entry.
    pub(crate) fn xattr(self, name: &str, value: &[u8]) -> Tar {
        self.bytes_record(&format!("SCHILY.xattr.{name}"), value)
    }

    /// A record of the next entry's extended header.
    pub(crate) fn record(self, key: &str, value: &str) -> Tar {
        self.bytes_record(key, value.as_bytes())
    }

    fn bytes_record(mut self, key: &str, value: &[u8]) -> Tar {
        let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let mut length = rest.len();
        while length != rest.len() + length.to_string().len() {
            length = rest.len() + length.to_string().len();
        }
        self.records.extend_from_slice(length.to_string().as_bytes());
        self.records.extend_from_slice(&rest);
        self
    }

    #[allow(dead_code, reason = "whole-program tests, which have this file too, use it")]
    pub(crate) fn device(mut self, kind: u8, name: &str, major: u32, minor: u32) -> Tar {
        self.numbers = (major, minor);
        let mut tar = self.entry(kind, name.as_bytes(), "", b"");
        tar.numbers = (0, 0);
        tar
    }

    pub(crate) fn entry(mut self, kind: u8, name: &[u8], link: &str, data: &[u8]) -> Tar {
        let records = std::mem::take(&mut self.records);
        if !records.is_empty() {
            self.put(b'x', b"pax", "", &records);
        }
        self.put(kind, name, link, data);
        self
    }

    fn put(&mut self, kind: u8, name: &[u8], link: &str, data: &[u8]) {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name);
        let mut number = |at: usize, width: usize, value: u64| {
            let text = format!("{value:0width$o}");
            header[at..at + width].copy_from_slice(text.as_bytes());
        };
        number(100, 7, self.mode.into());
        number(108, 7, self.owner.into());
        number(116, 7, self.owner.into());
        number(124, 11, data.len() as u64);
        number(136, 11, self.time);
        number(329, 7, self.numbers.0.into());
        number(337, 7, self.numbers.1.into());
        header[156] = kind;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}
