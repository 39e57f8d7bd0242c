//! Network interfaces of this network namespace. netdevice(7).

use std::ffi::CString;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Interfaces are looked for up to this index: devices that a machine starts with have small ones.
const LAST_INDEX: libc::c_int = 256;

/// One interface, to be set up.
#[derive(Debug)]
pub struct Interface {
    socket: OwnedFd,
    request: Request,
}

/// An `ifreq` that names an interface.
#[derive(Clone)]
pub(super) struct Request(pub libc::ifreq);

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Request").field(&self.0.ifr_name).finish()
    }
}

impl Request {
    /// One with a name of at most 15 bytes, all else zero.
    pub(super) fn of(name: &[u8]) -> io::Result<Request> {
        // SAFETY: ifreq is plain data, for which zeros are a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name) {
            *to = *from as libc::c_char;
        }
        Ok(Request(request))
    }

    /// An ioctl of a socket that reads and writes this request.
    fn ask(&mut self, socket: &OwnedFd, what: libc::Ioctl) -> io::Result<()> {
        // SAFETY: the descriptor is open, and all of this module's ioctls (SIOC[GS]IF*) read and write one
        // ifreq, which lives until the call returns.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw mut self.0) })
    }
}

impl Interface {
    /// The interface with this Ethernet address; None if there is none (yet).
    ///
    /// # Errors
    /// `EAFNOSUPPORT` from a kernel without IPv4.
    pub fn with_mac(mac: [u8; 6]) -> io::Result<Option<Interface>> {
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        for index in 1..=LAST_INDEX {
            let mut request = Request::of(b"")?;
            request.0.ifr_ifru.ifru_ifindex = index;
            if request.ask(&socket, libc::SIOCGIFNAME).is_err() {
                continue;
            }
            let mut of_index = request.clone();
            if of_index.ask(&socket, libc::SIOCGIFHWADDR).is_err() {
                continue;
            }
            // SAFETY: SIOCGIFHWADDR succeeded, so the union holds an address.
            let address = unsafe { of_index.0.ifr_ifru.ifru_hwaddr };
            if address.sa_family == libc::ARPHRD_ETHER && address.sa_data[..6] == mac.map(|byte| byte as i8) {
                return Ok(Some(Interface { socket, request }));
            }
        }
        Ok(None)
    }

    /// Gives it an address of a network of `prefix` bits, at most 32.
    ///
    /// # Errors
    /// As netdevice(7).
    pub fn set_address(&self, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
        let mut request = self.request.clone();
        request.0.ifr_ifru.ifru_addr = socket_address(address);
        request.ask(&self.socket, libc::SIOCSIFADDR)?;
        request.0.ifr_ifru.ifru_netmask = socket_address(mask.into());
        request.ask(&self.socket, libc::SIOCSIFNETMASK)
    }

    /// Brings it up.
    ///
    /// # Errors
    /// As netdevice(7).
    pub fn bring_up(&self) -> io::Result<()> {
        let mut request = self.request.clone();
        request.0.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        request.ask(&self.socket, libc::SIOCSIFFLAGS)
    }

    /// Sends what is for no known network to `gateway`, which is on this interface's own.
    ///
    /// # Errors
    /// As rtnetlink would say it: `ENETUNREACH` when no interface that is up leads to the gateway.
    pub fn route_by(&self, gateway: Ipv4Addr) -> io::Result<()> {
        // SAFETY: rtentry is plain data, for which zeros are a value.
        let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
        route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_gateway = socket_address(gateway);
        route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        // SAFETY: the descriptor is open, and SIOCADDRT reads one rtentry, whose rt_dev is null.
        check(unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCADDRT, &raw const route) })
    }
}

/// The MTU of the interface of this name.
///
/// # Errors
/// As netdevice(7): `ENODEV` when there is none.
pub fn mtu(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut request = Request::of(name.to_bytes())?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    request.ask(&socket, libc::SIOCGIFMTU)?;
    // SAFETY: SIOCGIFMTU succeeded, so the union holds an MTU.
    let mtu = unsafe { request.0.ifr_ifru.ifru_mtu };
    u32::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// A `sockaddr_in` with port 0, as the ioctls of IPv4 take it.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut bytes = [0 as libc::c_char; 14];
    for (to, from) in bytes[2..].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: bytes }
}

pub(super) fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_told_apart() {
        assert_eq!(mtu("hv-surely-not").unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert!(mtu("a-name-longer-than-15").is_err());
        assert!(mtu("nul\0").is_err());
        assert!(mtu("lo").unwrap() >= 68);
        assert!(Interface::with_mac([2, 0xff, 0xff, 0xff, 0xff, 0xfe]).unwrap().is_none());
    }

    #[test]
    fn addresses_are_in_network_order() {
        let address = socket_address(Ipv4Addr::new(192, 0, 2, 7));
        assert_eq!(address.sa_data[2..6].iter().map(|byte| *byte as u8).collect::<Vec<_>>(), [192, 0, 2, 7]);
        assert_eq!(address.sa_data[..2], [0, 0]);
    }
}
