//! The host's end of a network device: a tap.

use std::fs::File;
use std::io;

use hv_common::sys::{interface, tun};
use virtio_bindings::virtio_net as spec;

use super::header;

/// What a network device needs from whatever takes its frames. A read or write of a queue is one frame with
/// a `virtio_net_hdr_v1` in front of it, and does not wait.
pub trait Link: Send {
    /// One descriptor a queue pair; as many as long as it lives.
    fn queues(&self) -> &[File];

    /// `TUN_F_*` bits of the frames that it can be told to hand over.
    fn offloads(&self) -> u32;

    /// Whether it takes UDP segments (`VIRTIO_NET_HDR_GSO_UDP_L4`).
    fn takes_udp_segments(&self) -> bool {
        self.offloads() & libc::TUN_F_USO4 != 0
    }

    /// Says which of [`Link::offloads`] the driver takes.
    ///
    /// # Errors
    /// The host refused.
    fn set_offloads(&self, offloads: u32) -> io::Result<()>;

    /// Says that exactly the first `pairs` queues take frames.
    ///
    /// # Errors
    /// The host refused.
    fn use_pairs(&mut self, pairs: u16) -> io::Result<()>;
}

/// Why a tap cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// No interface of this name, in this network namespace.
    #[error(
        "there is no network device `{name}`; `ip tuntap add {name} mode tap` and `ip link set {name} up` make one"
    )]
    Missing {
        /// As it was asked for.
        name: String,
    },
    /// Somebody has it open.
    #[error("the tap `{name}` is in use by another program")]
    Busy {
        /// Its name.
        name: String,
    },
    /// An interface, but no tap, or made for another number of queues.
    #[error(
        "`{name}` cannot be opened as a tap {how}; `ip tuntap add {name} mode tap{words}` makes one that can"
    )]
    Unfit {
        /// Its name.
        name: String,
        /// With one or several queues.
        how: &'static str,
        /// For `ip tuntap add`.
        words: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Another user's.
    #[error(
        "this user may not open the tap `{name}`; `ip tuntap add {name} mode tap user NAME` makes one for a user"
    )]
    Denied {
        /// Its name.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something else.
    #[error("cannot {operation} of the tap `{name}`")]
    Host {
        /// What was tried.
        operation: &'static str,
        /// Its name.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// An opened tap device.
#[derive(Debug)]
pub struct Tap {
    queues: Vec<File>,
    offloads: u32,
    mtu: u16,
    attached: u16,
}

/// Everything that virtio-net has a feature bit for, and what kernels before Linux 6.2 knew of it.
const ALL_OFFLOADS: u32 = OLD_OFFLOADS | libc::TUN_F_USO4 | libc::TUN_F_USO6;
const OLD_OFFLOADS: u32 =
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN | libc::TUN_F_UFO;

impl Tap {
    /// Opens `pairs` queues of the existing tap of this name. Nothing comes through them before
    /// [`Link::use_pairs`], but for the first.
    ///
    /// # Errors
    /// It is not there, not a tap, not for this user, or in use.
    pub fn open(name: &str, pairs: u16) -> Result<Tap, TapError> {
        let failed = |operation, source| TapError::Host { operation, name: name.to_owned(), source };
        // Opening a name that is not there would make a device that nobody has set up.
        let mtu = interface::mtu(name).map_err(|error| match error.raw_os_error() {
            Some(libc::ENODEV) => TapError::Missing { name: name.to_owned() },
            _ => failed("ask for the MTU", error),
        })?;
        let several = pairs > 1;
        let open = || tun::open_tap_with_header(name, several);
        let mut queues = Vec::new();
        for _ in 0..pairs {
            let queue = match open() {
                // A tap for several queues can be used with one.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && !several => {
                    tun::open_tap_with_header(name, true)
                }
                other => other,
            };
            queues.push(queue.map_err(|error| explain(name, several, error))?);
        }
        let first = &queues[0];
        let known = tun::set_offloads(first, ALL_OFFLOADS).is_ok();
        let offloads = if known { ALL_OFFLOADS } else { OLD_OFFLOADS };
        tun::set_offloads(first, 0).map_err(|error| failed("set the offloads", error))?;
        for queue in &queues {
            tun::set_header_len(queue, header::LEN as i32)
                .map_err(|error| failed("set the header's length", error))?;
        }
        let mtu = mtu.try_into().unwrap_or(u16::MAX);
        let mut tap = Tap { queues, offloads, mtu, attached: pairs };
        tap.use_pairs(1).map_err(|error| failed("detach a queue", error))?;
        Ok(tap)
    }

    /// The host's own MTU of it.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }
}

fn explain(name: &str, several: bool, source: io::Error) -> TapError {
    let name = name.to_owned();
    match source.raw_os_error() {
        Some(libc::EBUSY) => TapError::Busy { name },
        Some(libc::EPERM | libc::EACCES) => TapError::Denied { name, source },
        Some(libc::EINVAL) if several => {
            TapError::Unfit { name, how: "with several queues", words: " multi_queue", source }
        }
        Some(libc::EINVAL) => TapError::Unfit { name, how: "with one queue", words: "", source },
        _ => TapError::Host { operation: "open a queue", name, source },
    }
}

impl Link for Tap {
    fn queues(&self) -> &[File] {
        &self.queues
    }

    fn offloads(&self) -> u32 {
        self.offloads
    }

    fn set_offloads(&self, offloads: u32) -> io::Result<()> {
        tun::set_offloads(&self.queues[0], offloads & self.offloads)
    }

    fn use_pairs(&mut self, pairs: u16) -> io::Result<()> {
        while self.attached < pairs {
            tun::attach_queue(&self.queues[usize::from(self.attached)], true)?;
            self.attached += 1;
        }
        while self.attached > pairs {
            tun::attach_queue(&self.queues[usize::from(self.attached) - 1], false)?;
            self.attached -= 1;
        }
        Ok(())
    }
}

/// The guest's side of an offload: the feature by which a driver says that it takes such frames.
const GUEST_SIDE: [(u32, u32); 7] = [
    (spec::VIRTIO_NET_F_GUEST_CSUM, libc::TUN_F_CSUM),
    (spec::VIRTIO_NET_F_GUEST_TSO4, libc::TUN_F_TSO4),
    (spec::VIRTIO_NET_F_GUEST_TSO6, libc::TUN_F_TSO6),
    (spec::VIRTIO_NET_F_GUEST_ECN, libc::TUN_F_TSO_ECN),
    (spec::VIRTIO_NET_F_GUEST_UFO, libc::TUN_F_UFO),
    (spec::VIRTIO_NET_F_GUEST_USO4, libc::TUN_F_USO4),
    (spec::VIRTIO_NET_F_GUEST_USO6, libc::TUN_F_USO6),
];

/// The feature bits that stand for these offloads of a link.
pub fn features_of(offloads: u32) -> u64 {
    let bits = GUEST_SIDE.iter().filter(|(_, offload)| offloads & offload != 0);
    bits.fold(0, |features, (bit, _)| features | 1 << bit)
}

/// The offloads that a driver with these features takes. What depends on something that it did not
/// negotiate is left out: segments on filled-in checksums, and UDP segments of one address family (tap
/// devices take both or none).
pub fn offloads_of(features: u64) -> u32 {
    let has = |bit: u32| features & 1 << bit != 0;
    if !has(spec::VIRTIO_NET_F_GUEST_CSUM) {
        return 0;
    }
    let wanted = GUEST_SIDE.iter().filter(|(bit, _)| has(*bit));
    let wanted = wanted.fold(0, |offloads, (_, offload)| offloads | offload);
    let both = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let segments = libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    let wanted = if wanted & both == both { wanted } else { wanted & !both };
    if wanted & segments != 0 { wanted } else { wanted & !libc::TUN_F_TSO_ECN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let error = Tap::open("hv-surely-not", 1).unwrap_err();
        assert!(matches!(error, TapError::Missing { .. }), "{error}");
        assert!(Tap::open("a-name-longer-than-15", 1).is_err());
        assert!(Tap::open("nul\0", 1).is_err());
    }

    #[test]
    fn offloads_follow_the_features() {
        assert_eq!(offloads_of(features_of(ALL_OFFLOADS)), ALL_OFFLOADS);
        assert_eq!(offloads_of(features_of(OLD_OFFLOADS)), OLD_OFFLOADS);
        assert_eq!(offloads_of(0), 0);
        let without_checksum = features_of(ALL_OFFLOADS) & !(1 << spec::VIRTIO_NET_F_GUEST_CSUM);
        assert_eq!(offloads_of(without_checksum), 0);
        let one_family = features_of(libc::TUN_F_CSUM | libc::TUN_F_USO4 | libc::TUN_F_TSO_ECN);
        assert_eq!(offloads_of(one_family), libc::TUN_F_CSUM);
    }
}
