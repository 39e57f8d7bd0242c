//! virtio-console with several ports. Virtio 1.2, section 5.3.
//!
//! Port 0 is a console (`hvc0` in Linux); the others have names and are character devices in the guest
//! (`/dev/vport*`, named in `/sys/class/virtio-ports/*/name`). What is at a port's other end is an [`End`].
//!
//! Nothing is buffered here. What the guest writes stays in its queue until the end takes it, and what comes
//! from an end is read when the guest has room for it; so neither side can make the monitor grow. What the
//! driver has to be told of a port is a set of flags, not a list, for the same reason.

mod control;
mod end;
mod port;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::event::{Timespec, epoll};
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

use super::queue::Virtqueue;
use super::{ActivateError, Activation, DeviceError, Event, Interrupt, Progress, VirtioDevice};
use crate::memory::GuestMemory;
use control::Message;
use port::Port;

pub use end::{End, FILE_LIMIT, OpenError};
pub use port::MAX_NAME;

/// The most ports of a device, the console included.
pub const MAX_PORTS: usize = 15;

/// The device has a control queue, and more than one port. Section 5.3.3.
const MULTIPORT: u64 = 1 << 1;
/// Entries of each queue.
const QUEUE_SIZE: u16 = 64;
/// Queues of control messages: to the driver, and from it.
const CONTROL_IN: usize = 2;
const CONTROL_OUT: usize = 3;
/// Bytes of columns and rows, number of ports, and emergency write.
const CONFIG_BYTES: usize = 12;
const PORT_COUNT: usize = 4;

/// The device.
pub struct VirtioConsole {
    config: [u8; CONFIG_BYTES],
    queue_sizes: Vec<u16>,
    ports: Vec<Port>,
    /// Watches the ports' ends, edge triggered.
    epoll: OwnedFd,
    active: Option<Active>,
}

struct Active {
    memory: GuestMemory,
    interrupt: Arc<Interrupt>,
    /// By number; only those of ports that the driver knows of.
    queues: Vec<Option<Virtqueue>>,
}

impl Active {
    fn queue(&mut self, index: usize) -> Option<(&mut Virtqueue, &GuestMemory, &Interrupt)> {
        let queue = self.queues.get_mut(index)?.as_mut()?;
        Some((queue, &self.memory, &self.interrupt))
    }
}

/// The queue by which a port's input goes to the driver; its output comes by the next. Section 5.3.2.
fn input_queue(port: usize) -> usize {
    if port == 0 { 0 } else { 2 * port + 2 }
}

/// The port of a queue, and whether it is the one for its input; None for the control queues.
fn port_of(queue: usize) -> Option<(usize, bool)> {
    let port = match queue {
        0 | 1 => 0,
        CONTROL_IN | CONTROL_OUT => return None,
        queue => queue / 2 - 1,
    };
    Some((port, queue.is_multiple_of(2)))
}

impl VirtioConsole {
    /// A console whose output goes to `console`, and ports with these names and ends, in this order: at
    /// most [`MAX_PORTS`] in all.
    ///
    /// # Errors
    /// The host gives no epoll instance or cannot watch an end.
    pub fn new(console: End, named: Vec<(String, End)>) -> io::Result<Self> {
        let named = named.into_iter().map(|(name, end)| Port::new(Some(name), end));
        let ports: Vec<Port> =
            std::iter::once(Port::new(None, console)).chain(named).take(MAX_PORTS).collect();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (number, port) in (0..).zip(&ports) {
            port.watch(&epoll, epoll::EventData::new_u64(number))?;
        }
        let mut config = [0; CONFIG_BYTES];
        config[PORT_COUNT..PORT_COUNT + 4].copy_from_slice(&(ports.len() as u32).to_le_bytes());
        let queue_sizes = vec![QUEUE_SIZE; 2 * (ports.len() + 1)];
        Ok(VirtioConsole { config, queue_sizes, ports, epoll, active: None })
    }

    /// Output: from the driver to the end, until the end takes no more.
    fn output(&mut self, number: usize) -> Result<Progress, DeviceError> {
        let (Some(active), Some(port)) = (&mut self.active, self.ports.get_mut(number)) else {
            return Ok(Progress::Done);
        };
        let Some((queue, memory, interrupt)) = active.queue(input_queue(number) + 1) else {
            return Ok(Progress::Done);
        };
        port.begin_turn();
        let served = queue.serve(memory, interrupt, |chain| port.take_output(chain.readable))?;
        Ok(served.and(port.end_turn()))
    }

    /// Input: from the end to the driver, as long as it has room.
    fn input(&mut self, number: usize) -> Result<Progress, DeviceError> {
        let (Some(active), Some(port)) = (&mut self.active, self.ports.get_mut(number)) else {
            return Ok(Progress::Done);
        };
        let Some((queue, memory, interrupt)) = active.queue(input_queue(number)) else {
            return Ok(Progress::Done);
        };
        if !port.wants_input() {
            return Ok(Progress::Done);
        }
        queue.serve(memory, interrupt, |chain| port.give_input(&chain.writable))
    }

    /// What the driver says. A message that makes no sense is none.
    fn listen(&mut self) -> Result<Progress, DeviceError> {
        let Some(active) = &mut self.active else { return Ok(Progress::Done) };
        let Some((queue, memory, interrupt)) = active.queue(CONTROL_OUT) else { return Ok(Progress::Done) };
        let ports = &mut self.ports;
        let mut opened = Vec::new();
        let progress = queue.serve(memory, interrupt, |mut chain| {
            match chain.readable.take_array().map(Message::from_bytes) {
                Some(Message { event: control::DEVICE_READY, value: 1, .. }) => {
                    ports.iter_mut().for_each(Port::announce);
                }
                Some(Message { port, event, value }) => {
                    if let Some(known) = ports.get_mut(port as usize) {
                        known.hear(event, value != 0);
                        opened.push(port as usize);
                    }
                }
                None => {}
            }
            Some(0)
        })?;
        // As often as somebody said something, but not more often than there are ports.
        opened.sort_unstable();
        opened.dedup();
        opened.into_iter().try_fold(progress, |progress, port| Ok(progress.and(self.resume(port)?)))
    }

    /// Tells the driver what it has to know, as far as it has room.
    fn tell(&mut self) -> Result<Progress, DeviceError> {
        let Some(active) = &mut self.active else { return Ok(Progress::Done) };
        if !self.ports.iter().any(Port::owes) {
            return Ok(Progress::Done);
        }
        let Some((queue, memory, interrupt)) = active.queue(CONTROL_IN) else { return Ok(Progress::Done) };
        let ports = &mut self.ports;
        queue.serve(memory, interrupt, |chain| {
            let message = (0..).zip(ports.iter_mut()).find_map(|(number, port)| port.next_message(number))?;
            Some(chain.writable.copy_from(&message) as u32)
        })
    }

    /// An end may take or give again; carries on where it stopped. What is not finished is begun again with
    /// the next source event.
    fn resume(&mut self, number: usize) -> Result<Progress, DeviceError> {
        let progress = self.output(number)?.and(self.input(number)?);
        if let Some(port) = self.ports.get_mut(number) {
            port.unfinished = progress == Progress::More;
        }
        Ok(progress)
    }

    fn ends(&mut self) -> Result<Progress, DeviceError> {
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
                MAX_PORTS];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A call that does not wait is not interrupted, and nothing else can fail it.
        let count = epoll::wait(&self.epoll, &mut events[..], Some(&at_once)).unwrap_or(0);
        for event in events.iter().take(count) {
            if let Some(port) = self.ports.get_mut(event.data.u64() as usize) {
                port.unfinished = true;
            }
        }
        let ready: Vec<usize> = self
            .ports
            .iter()
            .enumerate()
            .filter(|(_, port)| port.unfinished)
            .map(|(number, _)| number)
            .collect();
        ready.into_iter().try_fold(Progress::Done, |progress, port| Ok(progress.and(self.resume(port)?)))
    }
}

impl VirtioDevice for VirtioConsole {
    fn name(&self) -> &str {
        "console"
    }

    fn device_type(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    /// Communication controller, other.
    fn pci_class(&self) -> u32 {
        0x07_8000
    }

    fn features(&self) -> u64 {
        MULTIPORT
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    /// Somebody may read the console's output slowly: nobody else shall wait for that.
    fn own_thread(&self) -> bool {
        true
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), ActivateError> {
        let (input, output) = (activation.take_queue(0)?, activation.take_queue(1)?);
        let Activation { features, memory, interrupt, mut queues } = activation;
        queues[0] = Some(input);
        queues[1] = Some(output);
        if features & MULTIPORT == 0 {
            // A driver that knows of one port only: the console, and it is open.
            queues.truncate(2);
            self.ports[0].hear(control::PORT_OPEN, true);
        }
        self.active = Some(Active { memory, interrupt, queues });
        Ok(())
    }

    fn reset(&mut self) {
        self.active = None;
        self.ports.iter_mut().for_each(Port::reset);
    }

    fn sources(&self) -> Vec<RawFd> {
        vec![self.epoll.as_raw_fd()]
    }

    fn handle(&mut self, event: Event) -> Result<Progress, DeviceError> {
        let progress = match event {
            Event::Queue(CONTROL_IN) => Progress::Done,
            Event::Queue(CONTROL_OUT) => self.listen()?,
            Event::Queue(queue) => match port_of(queue) {
                Some((port, true)) => self.input(port)?,
                Some((port, false)) => self.output(port)?,
                None => Progress::Done,
            },
            Event::Source(_) => self.ends()?,
        };
        // Whatever happened, an end may have gone.
        Ok(progress.and(self.tell()?))
    }
}
