//! Messages of the kernel's routing socket (rtnetlink(7)): made and taken apart. Pure.

use std::io;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Bits of an attribute's type that are no part of it (`NLA_TYPE_MASK`).
const TYPE: u16 = 0x3fff;

/// A request, being written. Attributes and their contents begin at multiples of four bytes.
#[derive(Debug)]
pub(super) struct Request(Vec<u8>);

impl Request {
    /// Of this kind (`RTM_`), with more flags (`NLM_F_`), and the fixed part of its family.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Request {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Request(bytes)
    }

    /// Adds an attribute.
    pub fn with(mut self, kind: u16, value: &[u8]) -> Request {
        self.add(kind, value);
        self
    }

    /// Adds an attribute that holds what `inner` adds.
    pub fn nest(mut self, kind: u16, inner: impl FnOnce(Request) -> Request) -> Request {
        let at = self.0.len();
        self.add(kind, &[]);
        self = inner(self);
        let length = (self.0.len() - at) as u16;
        self.0[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    fn add(&mut self, kind: u16, value: &[u8]) {
        self.0.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// As it is sent.
    pub fn bytes(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// What one message of an answer is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// The end: all is well.
    Done,
    /// The kernel refuses, with this error number.
    Refused(i32),
    /// The fixed part and the attributes.
    Data(&'a [u8]),
}

/// The messages of one datagram.
pub(super) fn parts(mut bytes: &[u8]) -> io::Result<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    while let Some((header, _)) = bytes.split_at_checked(HEADER) {
        let length = number(header) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let body = bytes.get(HEADER..length).ok_or_else(broken)?;
        parts.push(match kind {
            NLMSG_DONE => Part::Done,
            NLMSG_ERROR if body.len() < 4 => return Err(broken()),
            NLMSG_ERROR if number(body) == 0 => Part::Done,
            NLMSG_ERROR => Part::Refused((number(body) as i32).wrapping_neg()),
            _ => Part::Data(body),
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(parts)
}

/// The attributes behind a fixed part of this length.
pub(super) fn attributes(body: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(fixed..).unwrap_or_default();
    std::iter::from_fn(move || {
        let head = rest.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & TYPE;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first four bytes as a number; 0 if there are fewer.
pub(super) fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |four| u32::from_ne_bytes(*four))
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message of the routing socket is broken")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attributes_round_trip() {
        let request = Request::new(16, 0, &[7; 16])
            .with(3, b"eth0\0")
            .nest(2, |inner| inner.with(1, b"x").with(2, &9u32.to_ne_bytes()))
            .bytes();
        let parts = parts(&request).unwrap();
        let [Part::Data(body)] = parts[..] else { panic!("{parts:?}") };
        let found: Vec<_> = attributes(body, 16).collect();
        assert_eq!(found[0], (3, &b"eth0\0"[..]));
        let inner: Vec<_> = attributes(found[1].1, 0).collect();
        assert_eq!((found[1].0, inner[0], number(inner[1].1)), (2, (1, &b"x"[..]), 9));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for part in parts(&bytes).unwrap_or_default() {
                if let Part::Data(body) = part {
                    attributes(body, 16).for_each(drop);
                }
            }
        }
    }
}
