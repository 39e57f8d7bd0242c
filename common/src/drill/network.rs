//! Attempts by the network.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with,
};

use super::{Around, Behind, Reach};
use crate::sys::attempt;

/// `ETH_P_ALL` in network byte order.
const ALL_PROTOCOLS: i32 = 0x0300;
const ICMP: i32 = 1;
/// `RTM_NEWROUTE` of linux/rtnetlink.h.
const NEW_ROUTE: u16 = 24;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST: u16 = 0x1 | 0x4;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;

pub(super) fn raw(_: &Around) -> Reach {
    attempt::socket(libc::AF_INET, libc::SOCK_RAW, ICMP).map(|_| Behind::Something)
}

/// Bound to no interface, and closed at once.
pub(super) fn packet(_: &Around) -> Reach {
    attempt::socket(libc::AF_PACKET, libc::SOCK_RAW, ALL_PROTOCOLS).map(|_| Behind::Something)
}

/// A request with an address family and nothing else: refused as too short once the rights were looked at
/// (`rtnetlink_rcv_msg` in net/core/rtnetlink.c).
pub(super) fn route(_: &Around) -> Reach {
    let socket = attempt::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
    let mut message = Vec::new();
    message.extend(20u32.to_ne_bytes());
    message.extend([NEW_ROUTE, REQUEST].map(u16::to_ne_bytes).concat());
    message.extend([1u32, 0].map(u32::to_ne_bytes).concat());
    message.extend([libc::AF_INET as u8, 0, 0, 0]);
    send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0u8; 256];
    let (count, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    refusal(&answer[..count])
}

/// What an acknowledgement says: an errno, negated, after its header.
fn refusal(answer: &[u8]) -> Reach {
    let kind = answer.get(4..6).and_then(|bytes| Some(u16::from_ne_bytes(bytes.try_into().ok()?)));
    let error = answer.get(16..20).and_then(|bytes| Some(i32::from_ne_bytes(bytes.try_into().ok()?)));
    match (kind, error) {
        (Some(ERROR), Some(0)) => Ok(Behind::Something),
        (Some(ERROR), Some(error)) => Err(Errno::from_raw_os_error(error.wrapping_neg())),
        _ => Err(Errno::PROTO),
    }
}

pub(super) fn abstract_socket(around: &Around) -> Reach {
    let Some(name) = &around.socket else { return Ok(Behind::Untried) };
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
    connect(&stream(AddressFamily::UNIX)?, &address).map(|()| Behind::Something)
}

pub(super) fn loopback(around: &Around) -> Reach {
    let Some(port) = around.port else { return Ok(Behind::Untried) };
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    connect(&stream(AddressFamily::INET)?, &address).map(|()| Behind::Something)
}

fn stream(family: AddressFamily) -> Result<OwnedFd, Errno> {
    socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements() {
        let mut answer = [0u8; 36];
        answer[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        assert_eq!(refusal(&answer), Ok(Behind::Something));
        answer[16..20].copy_from_slice(&(-1i32).to_ne_bytes());
        assert_eq!(refusal(&answer), Err(Errno::PERM));
        assert_eq!(refusal(&answer[..12]), Err(Errno::PROTO));
    }
}
