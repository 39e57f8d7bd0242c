//! Interrupts that are messages (MSI): a write of a value to an address that a processor's interrupt
//! controller takes. Intel SDM volume 3, section 11.11; PCI Local Bus 3.0, section 6.8.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

/// What the guest's driver wants to be sent. Its word: whoever routes it decides whether it can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Where it is written: chooses the processor.
    pub address: u64,
    /// What is written: chooses the processor's vector.
    pub data: u32,
}

/// The interrupts of a device that sends messages. Each has an event that raises it, without an exit, once
/// the driver has said what its message is.
pub trait Messages: Send + Sync {
    /// What raises each, in the device's own numbering.
    fn events(&self) -> &[EventFd];

    /// Tells the device where to have its messages routed. Called once, before the guest runs.
    fn attach(&self, router: Arc<dyn Router>);
}

/// Decides what the guest gets when an event of [`Messages::events`] is raised.
pub trait Router: Send + Sync {
    /// From now on the events at these indices send these messages; all of them or, in case of an error, none.
    ///
    /// # Errors
    /// The host refuses one of the messages.
    fn route(&self, messages: &[(usize, Message)]) -> io::Result<()>;
}
