//! What both transports are made of, and the choice between them.

use std::io;
use std::sync::{Arc, Mutex};

use super::bells::Bells;
use super::events::Subscriber;
use super::handshake::Handshake;
use super::interrupt::{Interrupt, Wire};
use super::{VirtioDevice, mmio, pci};
use crate::device::pci::Function;
use crate::device::pci::bridge::HostBridge;
use crate::device::{self as machine, Device};
use crate::memory::GuestMemory;

/// How a guest reaches its virtio devices. All of a machine's are reached the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransportKind {
    /// A page of registers and an interrupt line each, found by ACPI: the quickest to be probed.
    #[default]
    Mmio,
    /// Functions on a PCI Express bus, with interrupts (MSI-X) for each queue.
    Pci,
}

/// Devices that a machine cannot have.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// No place for all of them.
    #[error("a machine has no place for {asked} virtio devices: with this transport it has {places}")]
    TooMany {
        /// How many there should be.
        asked: usize,
        /// How many there can be.
        places: usize,
    },
    /// The host did not give what a device needs.
    #[error("cannot make the device {0}")]
    Device(String, #[source] io::Error),
}

impl TransportKind {
    /// Puts devices behind registers, in the order in which the guest shall find them.
    ///
    /// # Errors
    /// Too many, or the host has no descriptors left.
    pub fn assemble(
        self,
        devices: Vec<Box<dyn VirtioDevice>>,
        memory: &GuestMemory,
    ) -> Result<Vec<Arc<dyn Device>>, AssembleError> {
        match self {
            TransportKind::Mmio => place_all(devices, mmio::Place::COUNT, |number, device| {
                let place = mmio::Place::nth(number as u32)?;
                let transport = mmio::Transport::new(device, place, memory.clone());
                Some(transport.map(|transport| Arc::new(transport) as Arc<dyn Device>))
            }),
            TransportKind::Pci => {
                let mut functions: Vec<Arc<dyn Function>> = Vec::new();
                let mut all = place_all(devices, pci::Place::COUNT, |number, device| {
                    let place = pci::Place::nth(number)?;
                    let transport = pci::Transport::new(device, place, memory.clone()).map(Arc::new);
                    Some(transport.map(|transport| {
                        functions.push(transport.clone());
                        transport as Arc<dyn Device>
                    }))
                })?;
                all.push(Arc::new(HostBridge::new(functions)));
                Ok(all)
            }
        }
    }
}

/// `place` gives None when there is no place of that number.
fn place_all(
    devices: Vec<Box<dyn VirtioDevice>>,
    places: usize,
    mut place: impl FnMut(usize, Box<dyn VirtioDevice>) -> Option<io::Result<Arc<dyn Device>>>,
) -> Result<Vec<Arc<dyn Device>>, AssembleError> {
    let asked = devices.len();
    let mut placed = Vec::with_capacity(asked);
    for (number, device) in devices.into_iter().enumerate() {
        let name = device.name().to_owned();
        let device = place(number, device).ok_or(AssembleError::TooMany { asked, places })?;
        placed.push(device.map_err(|error| AssembleError::Device(name, error))?);
    }
    Ok(placed)
}

/// A device with all that does not depend on how its registers look.
pub(super) struct Parts {
    /// What to call it.
    pub name: String,
    /// The device type's number.
    pub device_type: u32,
    /// Status, features and queues.
    pub handshake: Handshake,
    /// How it interrupts.
    pub interrupt: Arc<Interrupt>,
    /// How its queues are notified.
    pub bells: Bells,
    /// Its part in the event loop.
    pub subscriber: machine::Subscriber,
}

impl Parts {
    /// A device whose interrupts go out through `wire`.
    pub fn new(device: Box<dyn VirtioDevice>, memory: GuestMemory, wire: Arc<dyn Wire>) -> io::Result<Parts> {
        let (name, device_type) = (device.name().to_owned(), device.device_type());
        let interrupt = Arc::new(Interrupt::new(wire));
        let handshake = Handshake::new(device, memory, Arc::clone(&interrupt));
        let bells = Bells::new(handshake.device(), &interrupt)?;
        let events = bells.events();
        let subscriber = Subscriber::new(Arc::clone(handshake.device()), Arc::clone(&interrupt), events)?;
        let subscriber = Arc::new(Mutex::new(subscriber));
        Ok(Parts { name, device_type, handshake, interrupt, bells, subscriber })
    }
}

/// What a write to a register has brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing beyond the registers.
    None,
    /// The device went live.
    Activated,
}
