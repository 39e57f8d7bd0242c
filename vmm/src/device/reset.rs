//! Reset through the command port of a PC's keyboard controller (Intel 8042): Linux's `reboot=k`, and
//! the reset register that the FADT names. There is no keyboard.

use super::{Device, Range};
use crate::end::{End, Ending};

/// The controller's command and status port.
pub const PORT: u16 = 0x64;
/// The command that pulses the processor's reset line.
pub const COMMAND: u8 = 0xfe;

/// The reset line.
pub struct Reset(Ending);

impl Reset {
    /// Tells the machine's end.
    pub fn new(ending: Ending) -> Reset {
        Reset(ending)
    }
}

impl Device for Reset {
    fn name(&self) -> &str {
        "reset"
    }

    fn range(&self) -> Range {
        Range::ports(PORT, 1)
    }

    /// The status register: both buffers empty, so that the guest's wait before its command ends at once.
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        if data.first() == Some(&COMMAND) {
            self.0.tell(End::Reset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reset_command_resets() {
        let ending = Ending::new().unwrap();
        let reset = Reset::new(ending.clone());
        reset.write(0, &[0xd1]);
        assert_eq!(ending.get(), None);
        reset.write(0, &[COMMAND]);
        assert_eq!(ending.get(), Some(&End::Reset));
    }
}
