//! The serial console: an 8250 UART as the first COM port of a PC.
//!
//! What the guest writes is kept apart from the workload's output: the last of it in a ring, for
//! messages about a guest that failed, and copied to the monitor's standard error when asked for.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use acpi_tables::{Aml, aml};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vm_superio::Trigger;
use vm_superio::serial::NoEvents;

use super::line::Line;
use super::{Device, Range};

/// COM1's first port.
const PORT: u16 = 0x3f8;
/// COM1's interrupt.
const GSI: u32 = 4;
/// How much of the guest's output is kept, in bytes.
const KEPT: usize = 16 * 1024;

/// The last output of the guest's console. Clones share it.
#[derive(Debug, Clone)]
pub struct Console(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ring: Mutex<VecDeque<u8>>,
    /// Output is copied to standard error too, until it is muted.
    echo: bool,
    muted: Arc<AtomicBool>,
}

impl Console {
    /// An empty console; `echo` copies all output to standard error.
    pub fn new(echo: bool) -> Console {
        Console(Arc::new(Shared { ring: Mutex::default(), echo, muted: Arc::default() }))
    }

    /// Another console of the same machine: both are muted at once.
    pub fn beside(&self, echo: bool) -> Console {
        let muted = Arc::clone(&self.0.muted);
        Console(Arc::new(Shared { ring: Mutex::default(), echo, muted }))
    }

    /// The last output, at most 16 KiB.
    pub fn bytes(&self) -> Vec<u8> {
        self.ring().iter().copied().collect()
    }

    /// Ends the copying to standard error, even of what is being copied: a vCPU that waits for a reader
    /// of it must not hold up the machine's end.
    pub fn mute(&self) {
        self.0.muted.store(true, Ordering::Release);
    }

    fn ring(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn echo(&self, mut data: &[u8]) {
        let stderr = rustix::stdio::stderr();
        while self.0.echo && !data.is_empty() && !self.0.muted.load(Ordering::Acquire) {
            let mut fds = [PollFd::from_borrowed_fd(stderr, PollFlags::OUT)];
            // Looks at `echo` again every now and then.
            match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 })) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(_) => return,
            }
            match rustix::io::write(stderr, data) {
                Ok(count) => data = &data[count..],
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Nobody reads it any more: the guest must not notice.
                Err(_) => return,
            }
        }
    }
}

impl Write for Console {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut ring = self.ring();
        let excess = (ring.len() + data.len()).saturating_sub(KEPT).min(ring.len());
        ring.drain(..excess);
        ring.extend(&data[data.len().saturating_sub(KEPT)..]);
        drop(ring);
        self.echo(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Trigger for Line {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.raise();
        Ok(())
    }
}

/// The UART.
pub struct Serial {
    uart: Mutex<vm_superio::Serial<Line, NoEvents, Console>>,
    interrupt: Line,
}

impl Serial {
    /// COM1 with this console at its other end.
    pub fn new(console: Console) -> Serial {
        let interrupt = Line::new(GSI);
        let uart = vm_superio::Serial::new(interrupt.clone(), console);
        Serial { uart: Mutex::new(uart), interrupt }
    }
}

impl Device for Serial {
    fn name(&self) -> &str {
        "serial0"
    }

    fn range(&self) -> Range {
        Range::ports(PORT, 8)
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        // The UART is 8 bits wide: a wider access finds nobody, as on a bus without byte steering.
        if let [byte] = data {
            let mut uart = self.uart.lock().unwrap_or_else(PoisonError::into_inner);
            *byte = uart.read(offset as u8);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let [byte] = data {
            let mut uart = self.uart.lock().unwrap_or_else(PoisonError::into_inner);
            // Fails only for what this UART is not used for: input.
            let _ = uart.write(offset as u8, *byte);
        }
    }

    fn interrupt(&self) -> Option<&Line> {
        Some(&self.interrupt)
    }

    fn aml(&self, dsdt: &mut Vec<u8>) {
        let id = aml::EISAName::new("PNP0501");
        let ports = aml::IO::new(PORT, PORT, 1, 8);
        let interrupt = aml::Interrupt::new(true, true, false, false, GSI);
        let resources = aml::ResourceTemplate::new(vec![&ports, &interrupt]);
        let names = [
            aml::Name::new("_HID".into(), &id),
            aml::Name::new("_UID".into(), &aml::ZERO),
            aml::Name::new("_CRS".into(), &resources),
        ];
        let [hid, uid, crs] = &names;
        aml::Device::new("COM1".into(), vec![hid, uid, crs]).to_aml_bytes(dsdt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn console_keeps_the_last_bytes_only() {
        let mut console = Console::new(false);
        console.write_all(&[b'a'; KEPT]).unwrap();
        console.write_all(b"tail").unwrap();
        let kept = console.bytes();
        assert_eq!(kept.len(), KEPT);
        assert!(kept.ends_with(b"atail"));
        console.write_all(&vec![b'b'; 3 * KEPT]).unwrap();
        assert_eq!(console.bytes(), vec![b'b'; KEPT]);
    }

    #[test]
    fn guest_output_reaches_the_console_and_wide_accesses_do_nothing() {
        let console = Console::new(false);
        let serial = Serial::new(console.clone());
        serial.write(0, b"h");
        serial.write(0, b"i");
        serial.write(0, b"no");
        assert_eq!(console.bytes(), b"hi");
        let mut status = [0xff];
        serial.read(5, &mut status);
        assert_eq!(status[0] & 0x20, 0x20, "transmitter empty");
    }

    /// What a child of this test does with a UART whose output is copied to standard error, or not.
    const CHILD: &str = "HV_TEST_SERIAL_ECHO";

    #[test]
    fn bug_26_no_register_turns_on_the_copy_to_the_host() {
        if let Some(echo) = std::env::var_os(CHILD) {
            let serial = Serial::new(Console::new(echo == "1"));
            let mut value = 1u32;
            for _ in 0..100_000 {
                value = value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                serial.write(u64::from(value >> 13) % 8, &[(value >> 24) as u8]);
            }
            return;
        }
        let told = |echo: &str| {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            child
                .args(["--exact", "device::serial::tests::bug_26_no_register_turns_on_the_copy_to_the_host"]);
            let output = child.env(CHILD, echo).output().unwrap();
            assert!(output.status.success());
            output.stderr
        };
        assert!(told("1").len() > 1000, "the same with the copy: the test would notice");
        assert_eq!(told("0"), b"");
    }
}
