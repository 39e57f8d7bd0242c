//! virtio-rng: random bytes from the host's kernel. Virtio 1.2, section 5.4.

use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use super::chain::Chain;
use super::queue::Virtqueue;
use super::{ActivateError, Activation, DeviceError, Event, Interrupt, Progress, VirtioDevice};
use crate::memory::GuestMemory;

/// The most that one request gets, in bytes, however large its buffers.
const LARGEST: usize = 64 << 10;
const QUEUE_SIZES: [u16; 1] = [64];

/// The entropy device.
#[derive(Default)]
pub struct Rng {
    active: Option<Active>,
}

struct Active {
    memory: GuestMemory,
    interrupt: Arc<Interrupt>,
    requests: Virtqueue,
}

impl Rng {
    /// One that no driver has activated.
    pub fn new() -> Self {
        Self::default()
    }
}

impl VirtioDevice for Rng {
    fn name(&self) -> &str {
        "rng"
    }

    fn device_type(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config(&self) -> &[u8] {
        &[]
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), ActivateError> {
        let requests = activation.take_queue(0)?;
        let Activation { memory, interrupt, .. } = activation;
        self.active = Some(Active { memory, interrupt, requests });
        Ok(())
    }

    fn reset(&mut self) {
        self.active = None;
    }

    fn handle(&mut self, _event: Event) -> Result<Progress, DeviceError> {
        let Some(Active { memory, interrupt, requests }) = &mut self.active else {
            return Ok(Progress::Done);
        };
        requests.serve(memory, interrupt, |chain| Some(fill(chain)))
    }
}

/// Fills the start of a request's buffers; how many bytes. 0 if the host has none to give.
fn fill(chain: Chain) -> u32 {
    let mut bytes = vec![0; chain.writable.len().min(LARGEST)];
    let mut have = 0;
    while have < bytes.len() {
        // Fails only before the host's pool is initialised, or when interrupted at once.
        match rustix::rand::getrandom(&mut bytes[have..], rustix::rand::GetRandomFlags::NONBLOCK) {
            Ok(count) => have += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    chain.writable.copy_from(&bytes[..have]) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Buffer, Rig};
    use super::Rng;

    #[test]
    fn gives_different_bytes_each_time() {
        let mut rig = Rig::new(Box::new(Rng::new()));
        let a = rig.request(0, &[Buffer::In(32)]);
        let b = rig.request(0, &[Buffer::In(20), Buffer::In(12)]);
        assert_eq!((a.written, b.written), (32, 32));
        assert_ne!(a.bytes, b.bytes);
        assert_ne!(a.bytes, [0; 32]);
    }

    #[test]
    fn bug_09_a_request_gets_64_kib_at_most() {
        let mut rig = Rig::new(Box::new(Rng::new()));
        assert_eq!(rig.request(0, &[Buffer::In(200 << 10), Buffer::In(200 << 10)]).written, 64 << 10);
        assert_eq!(rig.request(0, &[Buffer::Out(vec![1; 8])]).written, 0, "nothing to write to");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn survives_any_ring(hostile in super::super::testing::hostile(1)) {
            let mut rig = Rig::new(Box::new(Rng::new()));
            rig.survive(&hostile);
        }
    }
}
