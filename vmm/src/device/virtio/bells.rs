//! How a driver's notifications reach a device: what comes of them at once, and what is left to the event loop.
//!
//! A queue's notification is a write to a register. For most queues KVM turns it into an event (ioeventfd): the
//! vCPU goes on, and the event loop's thread wakes up. For those that the device
//! [serves at once](super::VirtioDevice::serves_at_once) the write comes to the vCPU's own thread, which serves the
//! queue there and then: two changes of thread less, and the guest has its answer when it is entered again. That is
//! for work that waits for nothing. What does wait, or is much, goes to the event loop like everything else.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Interrupt, Progress, SharedDevice, lock};

/// A device's queue notifications, by queue.
pub struct Bells {
    device: SharedDevice,
    interrupt: Arc<Interrupt>,
    bells: Vec<Bell>,
}

struct Bell {
    event: Arc<EventFd>,
    at_once: bool,
}

impl Bells {
    /// Those of a device.
    ///
    /// # Errors
    /// The host gives no event descriptors.
    pub fn new(device: &SharedDevice, interrupt: &Arc<Interrupt>) -> io::Result<Bells> {
        let bells = {
            let device = lock(device);
            let bell = |queue| {
                let event = Arc::new(EventFd::new(EFD_NONBLOCK)?);
                Ok(Bell { event, at_once: device.serves_at_once(queue) })
            };
            (0..device.queue_sizes().len()).map(bell).collect::<io::Result<_>>()?
        };
        Ok(Bells { device: Arc::clone(device), interrupt: Arc::clone(interrupt), bells })
    }

    /// What the event loop waits on, by queue.
    pub fn events(&self) -> Vec<Arc<EventFd>> {
        self.bells.iter().map(|bell| Arc::clone(&bell.event)).collect()
    }

    /// The queues whose notifications KVM may turn into events, and these.
    pub fn doorbells(&self) -> impl Iterator<Item = (usize, &EventFd)> {
        let numbered = self.bells.iter().enumerate();
        numbered.filter(|(_, bell)| !bell.at_once).map(|(queue, bell)| (queue, &*bell.event))
    }

    /// The driver has notified the queue of this index; nothing happens if there is none. The caller holds no lock.
    pub fn notified(&self, queue: usize) {
        let at_once = self.bells.get(queue).is_some_and(|bell| bell.at_once);
        if !(at_once && self.serve(queue) == Progress::Done) {
            self.ring(queue);
        }
    }

    /// Wakes the event loop for the queue of this index.
    fn ring(&self, queue: usize) {
        if let Some(bell) = self.bells.get(queue) {
            // Only a full counter can fail this, and then the event is pending anyway.
            let _ = bell.event.write(1);
        }
    }

    /// Wakes the event loop for every queue: what the driver made available before the device was live, or while
    /// it was saved, came without a notification.
    pub fn ring_all(&self) {
        (0..self.bells.len()).for_each(|queue| self.ring(queue));
    }

    /// Serves a queue on this thread, unless the device is busy: who is busy with it may be so for long.
    fn serve(&self, queue: usize) -> Progress {
        let Ok(mut device) = self.device.try_lock() else { return Progress::More };
        let served = device.serve_at_once(queue).unwrap_or_else(|_error| {
            // As in the event loop: it lets go of everything now.
            device.reset();
            self.interrupt.fail();
            Progress::Done
        });
        if served == Progress::Done {
            // Otherwise the event loop counts it.
            self.interrupt.activity().notified();
        }
        served
    }
}
