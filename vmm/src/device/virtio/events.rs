//! A virtio device in the event loop.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Event, Interrupt, Progress, SharedDevice, lock};

/// Carries queue notifications, and what else a device wants to be woken for, to the device.
///
/// Whatever goes wrong stays between the device and its driver: nothing here ends the loop.
pub struct Subscriber {
    device: SharedDevice,
    interrupt: Arc<Interrupt>,
    queue_events: Vec<Arc<EventFd>>,
    /// Wakes the loop for sources that the device has not finished with, since an edge comes only once.
    again: EventFd,
    unfinished: Vec<usize>,
}

impl Subscriber {
    pub(super) fn new(
        device: SharedDevice,
        interrupt: Arc<Interrupt>,
        queue_events: Vec<Arc<EventFd>>,
    ) -> io::Result<Self> {
        let again = EventFd::new(EFD_NONBLOCK)?;
        Ok(Subscriber { device, interrupt, queue_events, again, unfinished: Vec::new() })
    }

    fn queue(&mut self, index: usize) {
        self.interrupt.activity().notified();
        if self.dispatch(Event::Queue(index)) == Progress::More {
            // Only a full counter can fail this, and then the event is pending anyway.
            let _ = self.queue_events[index].write(1);
        }
    }

    fn source(&mut self, index: usize) {
        if self.dispatch(Event::Source(index)) == Progress::More {
            self.unfinished.push(index);
            let _ = self.again.write(1);
        }
    }

    fn dispatch(&mut self, event: Event) -> Progress {
        let mut device = lock(&self.device);
        device.handle(event).unwrap_or_else(|_error| {
            // It lets go of everything now, rather than when the driver gets round to resetting it.
            device.reset();
            self.interrupt.fail();
            Progress::Done
        })
    }
}

impl MutEventSubscriber for Subscriber {
    /// Events carry what they are for: 0 for "again", then the queues, then the device's sources.
    fn process(&mut self, events: Events, _ops: &mut EventOps) {
        let queues = self.queue_events.len();
        match events.data() as usize {
            0 => {
                let _ = self.again.read();
                std::mem::take(&mut self.unfinished).into_iter().for_each(|index| self.source(index));
            }
            data if data <= queues => self.queue(data - 1),
            data => self.source(data - 1 - queues),
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        let queues = self.queue_events.iter().map(|event| event.as_raw_fd());
        let sources = lock(&self.device).sources();
        // Each write to an eventfd is an edge, so it need not be read: one system call less a notification.
        let edge = EventSet::IN | EventSet::EDGE_TRIGGERED;
        let all = std::iter::once((self.again.as_raw_fd(), EventSet::IN))
            .chain(queues.map(|fd| (fd, edge)))
            .chain(sources.into_iter().map(|fd| (fd, edge)));
        for (data, (fd, set)) in all.enumerate() {
            if ops.add(Events::with_data_raw(fd, data as u32, set)).is_err() {
                // Without its events the device is of no use; its driver is told so.
                self.interrupt.fail();
            }
        }
    }
}
