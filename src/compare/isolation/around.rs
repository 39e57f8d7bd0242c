//! What the attempts are after, on the host: made for the drill, and gone with it.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use hv_common::drill::{Around, BYSTANDER};
use hv_common::sys::fork::{Side, fork};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::error::{Failure, Result};

/// Loop devices and RAM disks, which are nobody's disk (Documentation/admin-guide/devices.txt).
const NO_DISKS: [u32; 2] = [1, 7];

/// A process, an abstract socket and a port, there to be attacked.
pub struct Surroundings {
    around: Around,
    bystander: Pid,
    /// The bystander ends when this closes.
    end: Option<OwnedFd>,
    _listeners: (UnixListener, TcpListener),
}

impl Surroundings {
    /// Makes them. To be called while there is one thread.
    ///
    /// # Errors
    /// Something cannot be made.
    pub fn make() -> Result<Surroundings> {
        let failed = |what| move |source| Failure::new(format!("cannot make {what} for the drill"), source);
        let name = format!("hv-drill-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let address = SocketAddr::from_abstract_name(&name).map_err(failed("a socket's name"))?;
        let unix = UnixListener::bind_addr(&address).map_err(failed("an abstract socket"))?;
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed("a port"))?;
        let port = tcp.local_addr().map_err(failed("a port"))?.port();
        let (bystander, end) = bystander().map_err(failed("a bystander"))?;
        let around = Around {
            bystander: Some(bystander.as_raw_pid()),
            socket: Some(name),
            port: Some(port),
            disk: disk(&fs::read_to_string("/proc/partitions").unwrap_or_default()),
            memory: None,
            pids: None,
        };
        Ok(Surroundings { around, bystander, end: Some(end), _listeners: (unix, tcp) })
    }

    /// What to tell the drill.
    pub fn around(&self) -> &Around {
        &self.around
    }
}

impl Drop for Surroundings {
    fn drop(&mut self) {
        self.end = None;
        // It ends by itself now.
        let _ = waitpid(Some(self.bystander), WaitOptions::empty());
    }
}

/// A process that waits until the other end of its pipe is closed.
fn bystander() -> std::io::Result<(Pid, OwnedFd)> {
    let (told, end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match fork()? {
        Side::Parent { pid, .. } => Ok((pid, end)),
        Side::Child => {
            drop(end);
            let name = std::ffi::CString::new(BYSTANDER).unwrap_or_default();
            let _ = rustix::thread::set_name(&name);
            let _ = rustix::io::retry_on_intr(|| rustix::io::read(&told, &mut [0u8; 1]));
            std::process::exit(0)
        }
    }
}

/// The numbers of the first real disk in /proc/partitions.
fn disk(partitions: &str) -> Option<(u32, u32)> {
    partitions.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (major, minor) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (!NO_DISKS.contains(&major)).then_some((major, minor))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loop_devices_are_no_disks() {
        let text =
            "major minor  #blocks  name\n\n   7        0      100 loop0\n 259        1   262144 nvme0n1\n";
        assert_eq!(disk(text), Some((259, 1)));
        assert_eq!(disk(""), None);
    }
}
