//! How a workload ended, and the status that hv reports for it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// hv's own failure: nothing of the user's ran (as docker, env and timeout have it).
pub const HV_FAILED: u8 = 125;
/// The command was found but could not be executed.
pub const CANNOT_EXECUTE: u8 = 126;
/// The command was not found.
pub const NOT_FOUND: u8 = 127;

/// How the workload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit status or signal.
    pub how: How,
    /// The kernel's memory killer hit at least one process of the sandbox.
    pub out_of_memory: bool,
}

/// Exit status or signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// The process called exit with this status.
    Code(u8),
    /// The process was ended by this signal (1 to 64).
    Signal(u8),
}

impl Exit {
    /// Reads a raw wait status as wait(2) gives it.
    pub fn from_wait_status(status: i32, out_of_memory: bool) -> Exit {
        let signal = status & 0x7f;
        let how = if signal == 0 { How::Code((status >> 8) as u8) } else { How::Signal(signal as u8) };
        Exit { how, out_of_memory }
    }

    /// The status hv exits with: the workload's own, or 128 + n for signal n.
    pub fn status(self) -> u8 {
        match self.how {
            How::Code(code) => code,
            How::Signal(signal) => 128u8.saturating_add(signal),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.how {
            How::Code(code) => write!(f, "exit status {code}"),
            How::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_status_of_exit_and_signal() {
        assert_eq!(Exit::from_wait_status(3 << 8, false).status(), 3);
        assert_eq!(Exit::from_wait_status(9, true).status(), 137);
        assert_eq!(Exit::from_wait_status(11 | 0x80, false).how, How::Signal(11));
    }
}
