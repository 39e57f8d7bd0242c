//! virtio-vsock: streams between the guest and unix sockets on the host. Virtio 1.2, section 5.10.
//!
//! # Layout
//! - [`Vsock`]: the device: queues and events. `bridge`: all connections; `connection`: one;
//!   `credit`: who may send how much; `host`: unix sockets; `packet`: headers.
//!
//! Bytes go straight between a socket and guest memory. Only what a socket has no room for is kept, and
//! never more than the guest was given credit for.

mod bridge;
mod connection;
mod credit;
mod host;
mod packet;
#[cfg(test)]
mod tests;

use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;

pub use host::ListenError;
pub use packet::HOST_CID;

use self::bridge::Bridge;
use self::host::Host;
use self::packet::Header;
use super::chain::Chain;
use super::queue::{BUDGET, CHAIN_COST, Virtqueue};
use super::{ActivateError, Activation, DeviceError, Event, Interrupt, Progress, VirtioDevice};
use crate::broker::Broker;
use crate::memory::GuestMemory;

const QUEUE_SIZES: [u16; 3] = [256, 256, 64];
const TO_GUEST: usize = 0;
const FROM_GUEST: usize = 1;
const EVENTS: usize = 2;
/// `VIRTIO_VSOCK_F_STREAM`.
const F_STREAM: u64 = 1 << 0;

/// The socket device.
pub struct Vsock {
    config: [u8; 8],
    bridge: Bridge,
    active: Option<Active>,
}

struct Active {
    memory: GuestMemory,
    interrupt: Arc<Interrupt>,
    to_guest: Virtqueue,
    from_guest: Virtqueue,
    /// For `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET` after a restore.
    _events: Virtqueue,
    /// Packets of the guest wait for it to make room for resets.
    paused: bool,
}

impl Vsock {
    /// A device for the guest with this context id (3 or more), whose host side is at this path (see
    /// the module `host`): the path itself is made now and removed on drop.
    ///
    /// # Errors
    /// The path cannot be listened on.
    pub fn new(guest_cid: u32, path: &Path) -> Result<Self, ListenError> {
        let guest_cid = u64::from(guest_cid);
        let bridge = Bridge::new(Host::listen(path)?, guest_cid);
        Ok(Vsock { config: guest_cid.to_le_bytes(), bridge, active: None })
    }

    /// The same with connections to the host made by somebody else, where there is one.
    #[must_use]
    pub fn through(mut self, broker: Option<Broker>) -> Self {
        self.bridge.connect_through(broker);
        self
    }
}

impl VirtioDevice for Vsock {
    fn name(&self) -> &str {
        "vsock"
    }

    fn device_type(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn features(&self) -> u64 {
        F_STREAM
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), ActivateError> {
        let to_guest = activation.take_queue(TO_GUEST)?;
        let from_guest = activation.take_queue(FROM_GUEST)?;
        let _events = activation.take_queue(EVENTS)?;
        let Activation { memory, interrupt, .. } = activation;
        self.active = Some(Active { memory, interrupt, to_guest, from_guest, _events, paused: false });
        Ok(())
    }

    fn reset(&mut self) {
        // Who connected from the host before the driver came up is not the driver's to reset.
        if self.active.take().is_some() {
            self.bridge.reset();
        }
    }

    fn sources(&self) -> Vec<RawFd> {
        vec![self.bridge.host().source()]
    }

    fn handle(&mut self, event: Event) -> Result<Progress, DeviceError> {
        let mut progress = match event {
            Event::Source(_) => self.bridge.poll(),
            Event::Queue(_) => Progress::Done,
        };
        if let Some(active) = &mut self.active {
            if event == Event::Queue(FROM_GUEST) || active.paused {
                progress = progress.and(active.take_packets(&mut self.bridge)?);
            }
            progress = progress.and(active.send_packets(&mut self.bridge)?);
        }
        Ok(progress)
    }
}

impl Active {
    fn take_packets(&mut self, bridge: &mut Bridge) -> Result<Progress, DeviceError> {
        let Active { memory, interrupt, from_guest, paused, .. } = self;
        *paused = false;
        from_guest.serve(memory, interrupt, |chain| {
            *paused = bridge.backlogged();
            (!*paused).then(|| take_packet(bridge, chain))
        })
    }

    /// Fills the guest's buffers as long as there are both.
    fn send_packets(&mut self, bridge: &mut Bridge) -> Result<Progress, DeviceError> {
        let Active { memory, interrupt, to_guest, .. } = self;
        to_guest.disable_notification(memory)?;
        let mut spent = 0;
        while bridge.has_next() {
            if spent >= BUDGET {
                to_guest.signal(memory, interrupt)?;
                return Ok(Progress::More);
            }
            let Some(Chain { head, writable: mut room, .. }) = to_guest.pop(memory)? else {
                // Wait for more, unless it has come meanwhile.
                if to_guest.enable_notification(memory)? {
                    to_guest.disable_notification(memory)?;
                    continue;
                }
                break;
            };
            // A buffer must have room for a header and something.
            let Some(payload) = room.split_off(Header::BYTES).filter(|payload| !payload.is_empty()) else {
                return Err(to_guest.malformed(head));
            };
            let Some(header) = bridge.next(&payload) else {
                to_guest.undo_pop();
                break;
            };
            room.copy_from(&header.bytes());
            let written = Header::BYTES + header.len as usize;
            spent += written + CHAIN_COST;
            to_guest.add_used(memory, head, written as u32)?;
        }
        to_guest.signal(memory, interrupt)?;
        // There is room for resets again: take the packets that waited.
        Ok(if self.paused && !bridge.backlogged() { Progress::More } else { Progress::Done })
    }
}

/// Copies a packet's header once and passes it on with as much payload as it says; a packet that says
/// more than it has is dropped. Nothing is written to the guest.
fn take_packet(bridge: &mut Bridge, chain: Chain) -> u32 {
    let mut payload = chain.readable;
    if let Some(bytes) = payload.take_array() {
        let header = Header::parse(&bytes);
        if header.len as usize <= payload.len() {
            payload.truncate(header.len as usize);
            bridge.receive(&header, payload);
        }
    }
    0
}
