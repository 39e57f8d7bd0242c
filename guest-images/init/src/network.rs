//! The guest's network interfaces.

use hv_common::starter::Failure;
use hv_common::sys::interface::Interface;
use hv_common::sys::loopback;
use hv_common::wire::GuestInterface;
use rustix::io::Errno;
use rustix::thread::{Timespec, nanosleep};

use crate::Doing;

/// How long a device may take to appear, in milliseconds.
const PATIENCE: u32 = 10_000;

/// Brings the loopback interface up, and gives the others the addresses that they are to have.
pub fn set_up(interfaces: &[GuestInterface]) -> Result<(), Failure> {
    match loopback::bring_up() {
        // A kernel without IPv4 has nothing to bring up.
        Err(Errno::AFNOSUPPORT) => {}
        other => other.doing("cannot bring the loopback interface up")?,
    }
    interfaces.iter().try_for_each(set_up_one)
}

fn set_up_one(wanted: &GuestInterface) -> Result<(), Failure> {
    let (address, prefix) = wanted.address;
    let interface = find(wanted.mac)?;
    interface
        .set_address(address, prefix)
        .doing(&format!("cannot give the network device its address {address}/{prefix}"))?;
    interface.bring_up().doing("cannot bring the network device up")?;
    match wanted.gateway {
        Some(gateway) => {
            interface.route_by(gateway).doing(&format!("cannot use {gateway} as gateway (--net ...,gw=)"))
        }
        None => Ok(()),
    }
}

/// Drivers find their devices before PID 1 starts or while their module is loaded, unless the kernel was told to
/// probe asynchronously.
fn find(mac: [u8; 6]) -> Result<Interface, Failure> {
    for _ in 0..PATIENCE {
        match Interface::with_mac(mac) {
            Ok(Some(interface)) => return Ok(interface),
            Ok(None) => {}
            Err(error) => return Err(Failure::new("this kernel has no IPv4 for --net ...,ip=", error)),
        }
        let _ = nanosleep(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 });
    }
    Err(Failure::plain(
        "the network device never appeared: this kernel lacks virtio-net, built in or as a module",
    ))
}
