//! Network interfaces of this network namespace by the kernel's routing socket (rtnetlink(7)): which there are, and
//! frames handed from one to another below all protocols.

mod message;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use message::{Part, Request, attributes, number};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
/// Bytes of `struct ifinfomsg`, `ifaddrmsg`, `rtmsg`.
const IFINFO: usize = 16;
const IFADDR: usize = 8;
const ROUTE: usize = 12;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
/// The place of the rules for what comes in, and its handle (linux/pkt_sched.h).
const INGRESS: u32 = 0xFFFF_FFF1;
const INGRESS_HANDLE: u32 = 0xFFFF_0000;

/// An interface that carries Ethernet frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its address.
    pub mac: [u8; 6],
    /// The longest packet.
    pub mtu: u32,
    /// Its first IPv4 address, and the bits of its network.
    pub address: Option<(Ipv4Addr, u8)>,
    /// Where it sends what is for no known network.
    pub gateway: Option<Ipv4Addr>,
}

/// The routing socket.
#[derive(Debug)]
pub struct Routing(OwnedFd);

impl Routing {
    /// Opens it, for the namespace that this thread is in.
    ///
    /// # Errors
    /// As socket(2).
    pub fn open() -> io::Result<Routing> {
        let socket =
            // Protocol 0 is NETLINK_ROUTE.
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Routing(socket))
    }

    /// The Ethernet interfaces, those of no network (loopback) left out.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn interfaces(&self) -> io::Result<Vec<Interface>> {
        let mut found = Vec::new();
        self.ask(Request::new(RTM_GETLINK, NLM_F_DUMP, &[0; IFINFO]), |body| found.extend(interface(body)))?;
        let family = libc::AF_INET as u8;
        let mut fixed = [0; IFADDR];
        fixed[0] = family;
        self.ask(Request::new(RTM_GETADDR, NLM_F_DUMP, &fixed), |body| {
            let index = body.get(4..).map_or(0, number);
            if let Some(one) = found.iter_mut().find(|one: &&mut Interface| one.index == index) {
                one.address = one.address.or_else(|| address(body));
            }
        })?;
        let mut fixed = [0; ROUTE];
        fixed[0] = family;
        self.ask(Request::new(RTM_GETROUTE, NLM_F_DUMP, &fixed), |body| {
            let Some((index, gateway)) = default_route(body) else { return };
            if let Some(one) = found.iter_mut().find(|one| one.index == index) {
                one.gateway = one.gateway.or(Some(gateway));
            }
        })?;
        Ok(found)
    }

    /// Brings an interface up, with this MTU.
    ///
    /// # Errors
    /// As rtnetlink(7).
    pub fn bring_up(&self, index: u32, mtu: u32) -> io::Result<()> {
        let up = (libc::IFF_UP as u32).to_ne_bytes();
        let fixed = [&[0; 4][..], &index.to_ne_bytes(), &up, &up].concat();
        self.tell(Request::new(RTM_NEWLINK, 0, &fixed).with(IFLA_MTU, &mtu.to_ne_bytes()))
    }

    /// Removes an interface.
    ///
    /// # Errors
    /// As rtnetlink(7).
    pub fn remove(&self, index: u32) -> io::Result<()> {
        let fixed = [&[0; 4][..], &index.to_ne_bytes(), &[0; 8]].concat();
        self.tell(Request::new(RTM_DELLINK, 0, &fixed))
    }

    /// Every frame that comes in at `from` goes out at `to`, and no protocol of this host sees it.
    ///
    /// # Errors
    /// As rtnetlink(7): `ENOENT` from a kernel without `cls_matchall`, `act_mirred` or `sch_ingress`.
    pub fn redirect(&self, from: u32, to: u32) -> io::Result<()> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let queue = Request::new(RTM_NEWQDISC, flags, &traffic(from, INGRESS_HANDLE, INGRESS, 0));
        match self.tell(queue.with(TCA_KIND, b"ingress\0")) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            other => other?,
        }
        // Preference 1, every protocol.
        let info = 1 << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
        // struct tc_mirred: no index of its own; TC_ACT_STOLEN, TCA_EGRESS_REDIR.
        let mirred = [0, 0, 4, 0, 0, 1, to].map(u32::to_ne_bytes).concat();
        let filter = Request::new(RTM_NEWTFILTER, flags, &traffic(from, 0, INGRESS_HANDLE, info));
        // TCA_MATCHALL_ACT, the first action, TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_MIRRED_PARMS.
        self.tell(filter.with(TCA_KIND, b"matchall\0").nest(TCA_OPTIONS, |options| {
            options.nest(2, |actions| {
                actions
                    .nest(1, |action| action.with(1, b"mirred\0").nest(2, |options| options.with(2, &mirred)))
            })
        }))
    }

    /// Takes the rules for what comes in at `from` away.
    ///
    /// # Errors
    /// As rtnetlink(7): `ENOENT` where there are none.
    pub fn leave(&self, from: u32) -> io::Result<()> {
        self.tell(Request::new(RTM_DELQDISC, 0, &traffic(from, INGRESS_HANDLE, INGRESS, 0)))
    }

    fn tell(&self, request: Request) -> io::Result<()> {
        self.ask(request, |_| ())
    }

    fn ask(&self, request: Request, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        send(&self.0, &request.bytes(), SendFlags::empty())?;
        // The kernel's own datagrams are no longer (NLMSG_GOODSIZE of a dump: 32 KiB).
        let mut space = vec![0; 64 << 10];
        loop {
            let (length, _) =
                rustix::io::retry_on_intr(|| recv(&self.0, &mut space[..], RecvFlags::empty()))?;
            for part in message::parts(&space[..length])? {
                match part {
                    Part::Done => return Ok(()),
                    Part::Refused(errno) => return Err(io::Error::from_raw_os_error(errno)),
                    Part::Data(body) => each(body),
                }
            }
        }
    }
}

/// `struct tcmsg`.
fn traffic(index: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    [0, index, handle, parent, info].map(u32::to_ne_bytes).concat()
}

fn interface(body: &[u8]) -> Option<Interface> {
    let kind = u16::from_ne_bytes([*body.get(2)?, *body.get(3)?]);
    if kind != libc::ARPHRD_ETHER {
        return None;
    }
    let index = number(body.get(4..)?);
    let (mut name, mut mac, mut mtu) = (String::new(), None, 1500);
    for (kind, value) in attributes(body, IFINFO) {
        match kind {
            IFLA_IFNAME => name = String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value)).into(),
            IFLA_ADDRESS => mac = value.try_into().ok(),
            IFLA_MTU => mtu = number(value),
            _ => {}
        }
    }
    Some(Interface { index, name, mac: mac?, mtu, address: None, gateway: None })
}

fn address(body: &[u8]) -> Option<(Ipv4Addr, u8)> {
    // IFA_LOCAL, which is this end's own where the link has two.
    let local = attributes(body, IFADDR).find(|(kind, _)| *kind == 2)?.1;
    Some((Ipv4Addr::from(<[u8; 4]>::try_from(local).ok()?), *body.get(1)?))
}

/// Interface and gateway of a route to everywhere in the main table.
fn default_route(body: &[u8]) -> Option<(u32, Ipv4Addr)> {
    let (bits, table) = (*body.get(1)?, *body.get(4)?);
    if bits != 0 || table != libc::RT_TABLE_MAIN {
        return None;
    }
    // RTA_OIF, RTA_GATEWAY.
    let value = |wanted: u16| attributes(body, ROUTE).find(|(kind, _)| *kind == wanted).map(|one| one.1);
    Some((number(value(4)?), Ipv4Addr::from(<[u8; 4]>::try_from(value(5)?).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found() {
        let routing = Routing::open().unwrap();
        let found = routing.interfaces().unwrap();
        assert!(!found.iter().any(|one| one.name == "lo"));
        for one in found {
            assert_eq!(crate::sys::interface::mtu(&one.name).unwrap(), one.mtu, "{}", one.name);
        }
        assert_eq!(routing.remove(u32::MAX >> 1).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
