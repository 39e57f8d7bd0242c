//! From the guest to the link: each chain is one frame, written with one writev(2) straight from guest
//! memory, behind a header that was copied and checked.

use std::fs::File;

use super::counters::Counters;
use super::header;
use crate::device::virtio::chain::Chain;
use crate::device::virtio::queue::Virtqueue;
use crate::device::virtio::rate_limit::RateLimiter;
use crate::device::virtio::{DeviceError, Interrupt, Progress};
use crate::memory::{GuestMemory, scatter};

/// One transmit queue.
pub struct Transmitter {
    queue: Virtqueue,
    features: u64,
}

impl Transmitter {
    /// Over a queue, for a driver with these features.
    pub fn new(queue: Virtqueue, features: u64) -> Transmitter {
        Transmitter { queue, features }
    }

    /// Sends the frames that are there, as long as the limit allows.
    ///
    /// # Errors
    /// The driver broke the queue.
    pub fn run(
        &mut self,
        to: &File,
        memory: &GuestMemory,
        interrupt: &Interrupt,
        counters: &Counters,
        limit: &mut Option<RateLimiter>,
    ) -> Result<Progress, DeviceError> {
        let features = self.features;
        self.queue.serve(memory, interrupt, |chain| {
            if !limit
                .as_mut()
                .is_none_or(|limit| limit.allow(chain.readable.len().saturating_sub(header::LEN) as u64))
            {
                return None;
            }
            match send(chain, to, features) {
                Some(len) => counters.sent(len),
                None => counters.tx_dropped.add(1),
            }
            Some(0)
        })
    }
}

/// Sends one frame; its length. None if it cannot be sent: then it is lost, as on any wire. The device goes
/// on: an interface that is down, or a header that the driver may not send, is no fault of the ring.
fn send(mut chain: Chain, to: &File, features: u64) -> Option<usize> {
    let header: [u8; header::LEN] = chain.readable.take_array()?;
    let len = chain.readable.len();
    let header = header::checked(header, len, features)?;
    scatter::write_with_header(to, &header, chain.readable.slices()).ok().map(|_| len)
}
