//! Messages of the control queues. Virtio 1.2, section 5.3.6.2.

/// From the driver: it is there.
pub const DEVICE_READY: u16 = 0;
/// To the driver: a port is there.
pub const PORT_ADD: u16 = 1;
/// From the driver: a port of its is set up.
pub const PORT_READY: u16 = 3;
/// To the driver: a port is a console.
pub const CONSOLE_PORT: u16 = 4;
/// Both ways: a port's end is there, or no longer.
pub const PORT_OPEN: u16 = 6;
/// To the driver, followed by a name: what a port is called.
pub const PORT_NAME: u16 = 7;

/// Port, event and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Number of the port.
    pub port: u32,
    /// One of the above.
    pub event: u16,
    /// Depends on the event; mostly 1 for yes.
    pub value: u16,
}

impl Message {
    /// As it is in the queue.
    pub fn from_bytes([a, b, c, d, e, f, g, h]: [u8; 8]) -> Message {
        Message {
            port: u32::from_le_bytes([a, b, c, d]),
            event: u16::from_le_bytes([e, f]),
            value: u16::from_le_bytes([g, h]),
        }
    }

    /// As it goes into the queue, without what follows it.
    pub fn to_bytes(self) -> Vec<u8> {
        [&self.port.to_le_bytes()[..], &self.event.to_le_bytes(), &self.value.to_le_bytes()].concat()
    }
}
