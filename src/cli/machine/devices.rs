//! How the microVM reaches its devices, and ports between guest and host.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use hv_vmm::device::virtio::console::MAX_NAME;

use super::MachineOption;

/// The bus, and ports.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Devices")]
pub struct DeviceArgs {
    /// How the guest reaches its devices [default: mmio]
    #[arg(long, value_enum, value_name = "mmio|pci", hide_possible_values = true)]
    pub transport: Option<Transport>,
    /// A port of the virtio console (may be repeated): /dev/vport* in the guest, named in /sys/class/virtio-ports.
    /// PATH is a unix socket that somebody listens on, or a file that the guest's output is appended to
    #[arg(long, value_name = "NAME=PATH")]
    pub port: Vec<PortArg>,
}

/// One `--port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortArg {
    /// 1 to 32 letters, digits, `-`, `.` or `_`.
    pub name: String,
    /// A socket, or a file.
    pub path: PathBuf,
}

impl FromStr for PortArg {
    type Err = String;

    fn from_str(text: &str) -> Result<PortArg, String> {
        let (name, path) = text.split_once('=').unwrap_or((text, ""));
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if !(1..=MAX_NAME).contains(&name.len()) || !name.chars().all(allowed) {
            return Err(format!(
                "a port's name has 1 to {MAX_NAME} letters, digits, `-`, `.` or `_`: NAME=PATH"
            ));
        }
        if path.is_empty() {
            return Err("a port needs a socket or a file on the host: NAME=PATH".into());
        }
        Ok(PortArg { name: name.into(), path: path.into() })
    }
}

impl fmt::Display for PortArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.path.display())
    }
}

/// A transport of virtio devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// A page of registers each, without a bus.
    Mmio,
    /// Functions on a PCI Express bus.
    Pci,
}

/// Why a container refuses each.
pub const OPTIONS: &[MachineOption] = &[
    MachineOption {
        id: "transport",
        typed: |machine| machine.devices.transport.is_some(),
        why: "a container has no devices of its own that a bus could carry",
    },
    MachineOption {
        id: "port",
        typed: |machine| !machine.devices.port.is_empty(),
        why: "a container has no console device whose ports these could be",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_a_name_and_a_path() {
        let port: PortArg = "agent.1=/run/a=b".parse().unwrap();
        assert_eq!((port.name.as_str(), port.path.to_str()), ("agent.1", Some("/run/a=b")));
        assert_eq!(port.to_string(), "agent.1=/run/a=b");
        for bad in ["", "x", "x=", "=y", "a b=y", "a/b=y", &format!("{}=y", "x".repeat(33))] {
            assert!(bad.parse::<PortArg>().is_err(), "{bad:?}");
        }
    }
}
