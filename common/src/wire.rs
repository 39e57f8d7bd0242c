//! What the monitor and hv-init say to each other.
//!
//! The configuration travels in the initramfs ([`CONFIG_PATH`]); afterwards hv-init connects through
//! vsock to the host, one connection a purpose: control messages in frames (a little-endian 32-bit
//! length, then that many bytes of postcard), and the workload's streams as they are, one connection
//! each, so that a reader that stops holds up nothing but its own stream.
//!
//! Everything that comes from the guest is hostile: frames are bounded, and decoding never panics.

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::root::Format;
use crate::spec::{Process, TerminalSize};
use crate::starter::Rights;

/// Where hv-init finds its [`GuestConfig`] in the initramfs.
pub const CONFIG_PATH: &str = "/hv/config";
/// Where it finds the program, when that is not the root's.
pub const PROGRAM_PATH: &str = "/hv/program";
/// Version of these messages; hv-init refuses another.
pub const VERSION: u32 = 6;
/// The longest frame either side accepts, in bytes.
pub const MAX_FRAME: usize = 256 * 1024;

/// vsock ports on the host (CID 2) that hv-init connects to.
pub mod port {
    /// Frames of [`super::FromGuest`] and [`super::ToGuest`].
    pub const CONTROL: u32 = 1024;
    /// Bytes for the workload's standard input; host shuts down at end of file.
    pub const STDIN: u32 = 1025;
    /// Bytes of its standard output.
    pub const STDOUT: u32 = 1026;
    /// Bytes of its standard error.
    pub const STDERR: u32 = 1027;
    /// Both directions of its terminal, instead of the three above.
    pub const TERMINAL: u32 = 1028;
    /// In the guest: where hv-init takes an [`super::Order`], as the first frame of a connection from the host; below
    /// 1024, so that no user of the guest can have it.
    pub const ORDERS: u32 = 1000;
}

/// This run, as the guest needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestConfig {
    /// [`VERSION`].
    pub version: u32,
    /// The sandbox's host name.
    pub hostname: String,
    /// Kernel modules to load, paths in the initramfs, in this order.
    pub modules: Vec<String>,
    /// Kernel modules to load once the workload runs, which does without them.
    pub later: Vec<String>,
    /// The root disk.
    pub root: GuestRoot,
    /// Network interfaces that hv-init sets up; others are left to the workload.
    pub network: Vec<GuestInterface>,
    /// What to start.
    pub process: Process,
    /// What it may do; None: all that its user may, because the machine is the wall.
    pub rights: Option<Rights>,
    /// What it finds beside its root.
    pub given: Given,
    /// Processes and threads at once.
    pub pids: Option<u32>,
}

/// What the host gives to the workload's world before it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Small files, which are copies: what is written to them stays in the guest.
    pub files: Vec<GivenFile>,
    /// Names below /proc/sys, with slashes, and what is written there.
    pub parameters: Vec<(String, String)>,
}

/// A file of the host's, as it was when the guest was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenFile {
    /// Where, in the guest.
    pub path: String,
    /// Who may do what with it.
    pub mode: u32,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// A further process that the host wants. hv-init answers with a frame of a port's number, which the host connects to
/// for each stream: standard input, output and error, or the terminal. Then both speak as a monitor and hv-init do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// [`VERSION`].
    pub version: u32,
    /// What to start.
    pub process: Process,
    /// What it may do; None: all that its user may.
    pub rights: Option<Rights>,
}

/// A network interface with an address that is known before the guest starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestInterface {
    /// By which it is found.
    pub mac: [u8; 6],
    /// Its address, and how many bits of it are the network's.
    pub address: (Ipv4Addr, u8),
    /// Where to send what is for other networks.
    pub gateway: Option<Ipv4Addr>,
}

/// The guest's root disk: the first virtio-blk device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRoot {
    /// Its file system.
    pub format: Format,
    /// Mount it for writing instead of laying an overlay over it.
    pub writable: bool,
}

/// Control messages of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGuest {
    /// The workload's program has been executed.
    Started,
    /// It could not be: what failed, on which object, and the error number.
    Failed {
        /// Operation and object, in words.
        what: String,
        /// Error number as in errno(3).
        errno: i32,
        /// 125, 126 or 127.
        status: u8,
    },
    /// The workload has ended and its streams are drained and, with `writable`, its disk unmounted.
    Exited(Exit),
}

/// Control messages of the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuest {
    /// Send the workload this signal.
    Signal(u8),
    /// The terminal has another size.
    Resize(TerminalSize),
}

/// Encodes a value as it stands in a frame or in the configuration file.
///
/// # Errors
/// The value is larger than [`MAX_FRAME`].
pub fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let bytes = postcard::to_allocvec(value).map_err(invalid)?;
    if bytes.len() > MAX_FRAME { Err(invalid("message too long")) } else { Ok(bytes) }
}

/// Decodes what [`encode`] wrote; trailing bytes are an error.
///
/// # Errors
/// The bytes are not such a value.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(invalid("bytes after the message")),
        Err(error) => Err(invalid(error)),
    }
}

/// Writes one frame.
///
/// # Errors
/// As the writer, or the value is too large.
pub fn write_frame<T: Serialize>(mut to: impl Write, value: &T) -> io::Result<()> {
    let bytes = encode(value)?;
    let mut frame = (bytes.len() as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(&bytes);
    to.write_all(&frame)
}

/// Reads one frame; None at a clean end.
///
/// # Errors
/// As the reader, or the frame is too long, truncated, or not such a value.
pub fn read_frame<T: DeserializeOwned>(mut from: impl Read) -> io::Result<Option<T>> {
    let mut length = [0u8; 4];
    let first = loop {
        match from.read(&mut length[..1]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if first == 0 {
        return Ok(None);
    }
    from.read_exact(&mut length[1..])?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(invalid(format!("frame of {length} bytes is longer than {MAX_FRAME}")));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    decode(&bytes).map(Some)
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::How;

    #[test]
    fn frames_round_trip() {
        let exited = FromGuest::Exited(Exit { how: How::Signal(9), out_of_memory: true });
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &exited).unwrap();
        write_frame(&mut bytes, &FromGuest::Started).unwrap();
        let mut from = &bytes[..];
        assert_eq!(read_frame(&mut from).unwrap(), Some(exited));
        assert_eq!(read_frame(&mut from).unwrap(), Some(FromGuest::Started));
        assert_eq!(read_frame::<FromGuest>(&mut from).unwrap(), None);
    }

    #[test]
    fn attack_34_hostile_frames_are_errors() {
        let endless = u32::MAX.to_le_bytes();
        assert!(read_frame::<FromGuest>(&endless[..]).is_err());
        assert!(read_frame::<FromGuest>(&[9, 0, 0, 0, 1][..]).is_err(), "truncated");
        assert!(read_frame::<FromGuest>(&[2, 0, 0, 0, 0, 0][..]).is_err(), "trailing byte");
        assert!(read_frame::<FromGuest>(&[1, 0, 0, 0, 77][..]).is_err(), "no such message");
    }
}
