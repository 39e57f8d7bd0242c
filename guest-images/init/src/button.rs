//! The power button: whoever presses it asks the workload to end, as `hv stop` does.
//!
//! It comes as a signal where the kernel has the small driver for it, which knows PID 1 only, and as a key of an
//! input device where it has the large one.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::signal::Signal;

/// What hv has the small driver send (`tiny_power_button.power_signal` on the kernel's command line).
pub const SIGNAL: Signal = Signal::SIGPWR;
/// The machine has no other input device.
const DEVICE: &str = "/dev/input/event0";

/// `struct input_event` (linux/input.h): two words of time, then type, code and value.
const EVENT: usize = 24;
/// `EV_KEY`, `KEY_POWER`; a value of 1 is "pressed" (linux/input-event-codes.h).
const PRESSED: [u8; 8] = [1, 0, 116, 0, 1, 0, 0, 0];

/// The button as an input device, if it is one.
#[derive(Default)]
pub struct Button(Option<File>);

impl Button {
    /// Looks for it, once its driver is there.
    pub fn find() -> Button {
        Button(OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(DEVICE).ok())
    }

    /// What becomes readable when something is done with it.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd)
    }

    /// Whether it was pressed since the last call.
    pub fn was_pressed(&mut self) -> bool {
        let Some(device) = &mut self.0 else { return false };
        let mut events = [0; 16 * EVENT];
        match device.read(&mut events) {
            Ok(0) => self.0 = None,
            Ok(len) => return pressed(&events[..len]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // It was taken away: whoever polls it would be woken for ever.
            Err(_) => self.0 = None,
        }
        false
    }
}

fn pressed(events: &[u8]) -> bool {
    events.chunks_exact(EVENT).any(|event| event.ends_with(&PRESSED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_press_is_told_from_a_release() {
        let event = |end: [u8; 8]| [[7; 16].as_slice(), &end].concat();
        let (press, release, sync) = (event(PRESSED), event([1, 0, 116, 0, 0, 0, 0, 0]), event([0; 8]));
        assert!(pressed(&[sync.clone(), press.clone(), sync.clone()].concat()));
        assert!(!pressed(&[release, sync].concat()));
        assert!(!pressed(&press[..EVENT - 1]), "half an event is none");
    }
}
