//! How much each side may still send. Virtio 1.2, section 5.10.6.3.
//!
//! Counters are modulo 2^32; each side tells how large its buffer is and how much has left it.

use std::num::Wrapping;

use crate::device::virtio::chain::Buffers;

/// What came from the guest for a socket that had no room for it. Never larger than the credit that the
/// guest was given.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: Vec<u8>,
    start: usize,
}

impl Backlog {
    /// Adds a packet's payload.
    pub fn push(&mut self, payload: &Buffers) {
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let at = self.bytes.len();
        self.bytes.resize(at + payload.len(), 0);
        payload.copy_to(&mut self.bytes[at..]);
    }

    /// What waits, oldest first.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// Drops the oldest `count` bytes; memory goes back once all are gone.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        if self.is_empty() {
            *self = Backlog::default();
        }
    }
}

/// From guest to host: what the guest was promised room for.
#[derive(Debug)]
pub struct Inbound {
    /// The promise, constant for a connection: `buf_alloc` in our packets.
    limit: u32,
    received: Wrapping<u32>,
    forwarded: Wrapping<u32>,
    told: Wrapping<u32>,
}

/// The guest sent more than it was promised room for.
#[derive(Debug, PartialEq, Eq)]
pub struct Excess;

impl Inbound {
    /// Promises `limit` bytes.
    pub fn new(limit: u32) -> Self {
        Inbound { limit, received: Wrapping(0), forwarded: Wrapping(0), told: Wrapping(0) }
    }

    /// `buf_alloc` of our packets.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// `fwd_cnt` of a packet that is sent now.
    pub fn tell(&mut self) -> u32 {
        self.told = self.forwarded;
        self.told.0
    }

    /// The guest sent so much.
    ///
    /// # Errors
    /// More than the promise.
    pub fn receive(&mut self, bytes: usize) -> Result<(), Excess> {
        let waiting = (self.received - self.forwarded).0 as usize;
        if waiting.checked_add(bytes).is_none_or(|sum| sum > self.limit as usize) {
            return Err(Excess);
        }
        self.received += bytes as u32;
        Ok(())
    }

    /// So much of it has reached the host's socket (or nobody wants it any more).
    pub fn forward(&mut self, bytes: usize) {
        self.forwarded += bytes as u32;
    }

    /// The guest believes less than half of its credit to be left, and there is better news.
    pub fn news(&self) -> bool {
        self.forwarded != self.told && (self.received - self.told).0 > self.limit / 2
    }
}

/// From host to guest: what the guest has promised room for.
#[derive(Debug, Default)]
pub struct Outbound {
    limit: u32,
    peer_forwarded: Wrapping<u32>,
    sent: Wrapping<u32>,
}

impl Outbound {
    /// The guest's credit fields of any packet.
    pub fn update(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.limit = buf_alloc;
        self.peer_forwarded = Wrapping(fwd_cnt);
    }

    /// Bytes that may be sent. 0 if what the guest says makes no sense.
    pub fn credit(&self) -> u32 {
        self.limit.saturating_sub((self.sent - self.peer_forwarded).0)
    }

    /// So much was sent.
    pub fn send(&mut self, bytes: usize) {
        self.sent += bytes as u32;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn guest_is_told_before_its_credit_ends() {
        let mut inbound = Inbound::new(1000);
        inbound.receive(500).unwrap();
        inbound.forward(500);
        assert!(!inbound.news(), "half is left");
        inbound.receive(1).unwrap();
        assert!(inbound.news());
        assert_eq!(inbound.tell(), 500);
        assert!(!inbound.news());
        assert_eq!(inbound.receive(1000), Err(Excess));
        inbound.receive(999).unwrap();
        assert!(!inbound.news(), "nothing left the buffer, so there is nothing to tell");
    }

    #[test]
    fn counters_wrap() {
        let mut inbound = Inbound::new(1 << 20);
        let mut outbound = Outbound::default();
        outbound.update(1 << 20, 0);
        for _ in 0..5000 {
            assert_eq!(outbound.credit(), 1 << 20);
            inbound.receive(1 << 20).unwrap();
            outbound.send(1 << 20);
            assert_eq!(outbound.credit(), 0);
            inbound.forward(1 << 20);
            outbound.update(1 << 20, inbound.tell());
        }
    }

    #[test]
    fn senseless_credit_is_none() {
        let mut outbound = Outbound::default();
        outbound.update(100, 1);
        assert_eq!(outbound.credit(), 0, "forwarded more than was sent");
        outbound.update(100, 0);
        assert_eq!(outbound.credit(), 100);
        outbound.send(60);
        outbound.update(50, 0);
        assert_eq!(outbound.credit(), 0, "the buffer has shrunk");
    }

    proptest! {
        #[test]
        fn never_more_than_the_promise_waits(steps in proptest::collection::vec((0usize..3000, 0usize..3000), 0..50)) {
            let mut inbound = Inbound::new(4096);
            let mut waiting = 0;
            for (receive, forward) in steps {
                match inbound.receive(receive) {
                    Ok(()) => waiting += receive,
                    Err(Excess) => prop_assert!(waiting + receive > 4096),
                }
                prop_assert!(waiting <= 4096);
                inbound.forward(forward.min(waiting));
                waiting -= forward.min(waiting);
            }
        }
    }
}
