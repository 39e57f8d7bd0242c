//! How a machine ended, told once by whoever sees it first and then to everyone who waits.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use rustix::event::{EventfdFlags, eventfd};

/// Why no vCPU runs any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The guest asked for a reset: keyboard controller or ACPI reset register.
    Reset,
    /// The guest asked for power-off: ACPI sleep state S5.
    PowerOff,
    /// The guest's kernel said that it has panicked.
    Panic,
    /// The host's processor of a vCPU was taken away before the start.
    Pin {
        /// Which.
        cpu: usize,
        /// Why it cannot be used.
        errno: i32,
    },
    /// The host's kernel takes no system call filter, with this error number.
    Filter(i32),
    /// Triple fault: the processor gave up.
    TripleFault,
    /// KVM met an instruction that it had to emulate and cannot.
    Emulation {
        /// The guest's instruction pointer.
        rip: u64,
        /// The bytes there, as far as KVM told.
        bytes: Vec<u8>,
    },
    /// Another KVM_EXIT_INTERNAL_ERROR, by its suberror.
    Internal(u32),
    /// The processor refused to enter the guest, with its own reason.
    FailedEntry(u64),
    /// KVM_RUN itself failed, with this error number.
    Run(i32),
    /// An exit that this monitor does not know.
    Unknown(u32),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Reset => write!(f, "the guest reset its machine"),
            End::PowerOff => write!(f, "the guest switched its machine off"),
            End::Panic => write!(f, "the guest's kernel panicked"),
            End::Pin { cpu, errno } => {
                let why = io::Error::from_raw_os_error(*errno);
                write!(f, "a vCPU cannot stay on the host's processor {cpu}: {why}")
            }
            End::Filter(errno) => {
                let why = io::Error::from_raw_os_error(*errno);
                write!(f, "the monitor cannot limit its threads' system calls (CONFIG_SECCOMP_FILTER): {why}")
            }
            End::TripleFault => write!(f, "the guest's processor stopped with a triple fault"),
            End::Emulation { rip, bytes } => {
                write!(f, "KVM cannot emulate the guest's instruction at {rip:#x} (")?;
                for (index, byte) in bytes.iter().enumerate() {
                    write!(f, "{}{byte:02x}", if index == 0 { "" } else { " " })?;
                }
                write!(f, ")")
            }
            End::Internal(suberror) => write!(f, "KVM reports an internal error, suberror {suberror}"),
            End::FailedEntry(reason) => {
                write!(f, "the processor refused to enter the guest (hardware reason {reason:#x})")
            }
            End::Run(errno) => write!(f, "KVM_RUN failed: {}", io::Error::from_raw_os_error(*errno)),
            End::Unknown(reason) => write!(f, "KVM left the guest for an unknown reason ({reason})"),
        }
    }
}

/// A machine's end, shared by its vCPUs, its devices and those who wait for it.
#[derive(Debug, Clone)]
pub struct Ending(Arc<Cell>);

#[derive(Debug)]
struct Cell {
    end: OnceLock<End>,
    event: OwnedFd,
}

impl Ending {
    /// Not ended yet.
    ///
    /// # Errors
    /// The host gives no eventfd.
    pub fn new() -> io::Result<Ending> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Ending(Arc::new(Cell { end: OnceLock::new(), event })))
    }

    /// Tells the end; the first one told stays.
    pub fn tell(&self, end: End) {
        if self.0.end.set(end).is_ok() {
            // Cannot fail: the counter is 0 and this is the only write.
            let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
        }
    }

    /// The end, once told.
    pub fn get(&self) -> Option<&End> {
        self.0.end.get()
    }

    /// Readable as soon as the end is told, and ever after.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_end_stays() {
        let ending = Ending::new().unwrap();
        assert_eq!(ending.get(), None);
        ending.clone().tell(End::PowerOff);
        ending.tell(End::Reset);
        assert_eq!(ending.get(), Some(&End::PowerOff));
        let mut count = [0; 8];
        rustix::io::read(ending.event(), &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
    }

    #[test]
    fn emulation_names_address_and_bytes() {
        let end = End::Emulation { rip: 0x1000, bytes: vec![0x48, 0x0f, 0xc7] };
        assert_eq!(end.to_string(), "KVM cannot emulate the guest's instruction at 0x1000 (48 0f c7)");
    }
}
