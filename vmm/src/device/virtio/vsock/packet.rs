//! Packet headers. Virtio 1.2, section 5.10.6.

/// The host's context id. Virtio 1.2, section 5.10.4.
pub const HOST_CID: u64 = 2;
/// `VIRTIO_VSOCK_TYPE_STREAM`.
pub const STREAM: u16 = 1;

/// `VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`: the sender of the packet will receive no more.
pub const NO_MORE_RECEIVE: u32 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_SEND`: the sender of the packet will send no more.
pub const NO_MORE_SEND: u32 = 2;
/// Both directions.
pub const BOTH: u32 = NO_MORE_RECEIVE | NO_MORE_SEND;

/// What a packet is for: `enum virtio_vsock_op`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Op {
    /// Asks for a connection.
    Request = 1,
    /// Grants it.
    Response = 2,
    /// There is no such connection, or not any more.
    Reset = 3,
    /// The sender is done in one direction or both.
    Shutdown = 4,
    /// Payload.
    Data = 5,
    /// Nothing but the credit fields.
    CreditUpdate = 6,
    /// Asks for a [`Op::CreditUpdate`].
    CreditRequest = 7,
}

impl Op {
    /// The operation with this number.
    pub fn from_number(number: u16) -> Option<Op> {
        use Op::{CreditRequest, CreditUpdate, Data, Request, Reset, Response, Shutdown};
        let all = [Request, Response, Reset, Shutdown, Data, CreditUpdate, CreditRequest];
        all.into_iter().find(|op| *op as u16 == number)
    }
}

/// A connection's two ends, as ports: one may exist for each pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ports {
    /// On the host.
    pub host: u32,
    /// In the guest.
    pub guest: u32,
}

/// `struct virtio_vsock_hdr`, a copy of its own: nothing in it changes any more, nothing is believed yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// Context the packet comes from.
    pub src_cid: u64,
    /// Context it is for.
    pub dst_cid: u64,
    /// Port it comes from.
    pub src_port: u32,
    /// Port it is for.
    pub dst_port: u32,
    /// Bytes of payload behind the header.
    pub len: u32,
    /// Kind of socket; [`STREAM`].
    pub kind: u16,
    /// Number of an [`Op`].
    pub op: u16,
    /// With [`Op::Shutdown`]: [`NO_MORE_RECEIVE`], [`NO_MORE_SEND`].
    pub flags: u32,
    /// How many bytes the sender has room for in all.
    pub buf_alloc: u32,
    /// How many bytes have left the sender's buffer since the connection began, modulo 2^32.
    pub fwd_cnt: u32,
}

impl Header {
    /// Size in bytes.
    pub const BYTES: usize = 44;

    /// Takes the bytes apart.
    pub fn parse(bytes: &[u8; Self::BYTES]) -> Self {
        let u16_at = |at: usize| u16::from_le_bytes(core::array::from_fn(|i| bytes[at + i]));
        let u32_at = |at: usize| u32::from_le_bytes(core::array::from_fn(|i| bytes[at + i]));
        let u64_at = |at: usize| u64::from_le_bytes(core::array::from_fn(|i| bytes[at + i]));
        Header {
            src_cid: u64_at(0),
            dst_cid: u64_at(8),
            src_port: u32_at(16),
            dst_port: u32_at(20),
            len: u32_at(24),
            kind: u16_at(28),
            op: u16_at(30),
            flags: u32_at(32),
            buf_alloc: u32_at(36),
            fwd_cnt: u32_at(40),
        }
    }

    /// The bytes as they go into the guest's buffer.
    pub fn bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &self.src_cid.to_le_bytes());
        put(8, &self.dst_cid.to_le_bytes());
        put(16, &self.src_port.to_le_bytes());
        put(20, &self.dst_port.to_le_bytes());
        put(24, &self.len.to_le_bytes());
        put(28, &self.kind.to_le_bytes());
        put(30, &self.op.to_le_bytes());
        put(32, &self.flags.to_le_bytes());
        put(36, &self.buf_alloc.to_le_bytes());
        put(40, &self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// The connection that a packet from the guest belongs to.
    pub fn ports(&self) -> Ports {
        Ports { host: self.dst_port, guest: self.src_port }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips() {
        let bytes = core::array::from_fn(|i| i as u8);
        let header = Header::parse(&bytes);
        assert_eq!(header.bytes(), bytes);
        assert_eq!(header.src_cid, 0x0706_0504_0302_0100);
        assert_eq!(header.fwd_cnt, 0x2b2a_2928);
    }

    #[test]
    fn unknown_operations_are_none() {
        assert_eq!(Op::from_number(5), Some(Op::Data));
        assert_eq!(Op::from_number(0), None);
        assert_eq!(Op::from_number(8), None);
    }
}
