//! What a network device is made from.

use std::fmt;
use std::str::FromStr;

use crate::device::virtio::rate_limit::Limits;

/// Queue pairs of a device at most: one a vCPU of the largest machine would be more queues than doorbells
/// are worth; Linux's tap itself has no more than 256.
pub const MAX_PAIRS: u16 = 16;

/// A network device over a tap of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Name of an existing tap.
    pub tap: String,
    /// The guest's address.
    pub mac: Mac,
    /// What the guest is told of the link; None: the tap's own MTU.
    pub mtu: Option<u16>,
    /// Queue pairs, 1 to [`MAX_PAIRS`].
    pub pairs: u16,
    /// How much the guest may receive.
    pub rx: Limits,
    /// How much it may send.
    pub tx: Limits,
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

/// Text that is no address of one device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a device's MAC address: six pairs of hexadecimal digits, the second digit even, such as 02:00:00:00:00:01"
)]
pub struct BadMac(String);

impl Mac {
    /// The address of a sandbox's device of this number: locally administered, the same for the same name.
    ///
    /// 46 bits of the name's FNV-1a hash: that two of a thousand sandboxes share one is a chance of one in
    /// a hundred million.
    pub fn of_sandbox(name: &str, device: usize) -> Mac {
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
        let [a, b, c, d, e, f, g, h] = hash(hash(seed, 0), device as u8).to_le_bytes();
        // The upper bytes are folded in, for they are the better mixed ones.
        Mac([a & 0xfc | 0x02, b ^ g, c ^ h, d, e, f])
    }

    /// Whether it can be one device's: not of a group, not all zeros.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Mac, BadMac> {
        let bad = || BadMac(text.escape_default().to_string());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(bad)?;
            if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        let mac = Mac(bytes);
        if parts.next().is_none() && mac.is_unicast() { Ok(mac) } else { Err(bad()) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_of_sandboxes_are_stable_local_and_different() {
        let one = Mac::of_sandbox("web-1", 0);
        assert_eq!(one, Mac::of_sandbox("web-1", 0));
        assert_ne!(one, Mac::of_sandbox("web-2", 0));
        assert_ne!(one, Mac::of_sandbox("web-1", 1));
        let all: std::collections::HashSet<_> =
            (0..10_000).map(|n| Mac::of_sandbox(&format!("sandbox-{n}"), n % 3)).collect();
        assert_eq!(all.len(), 10_000);
        assert!(all.iter().all(|mac| mac.0[0] & 3 == 2), "locally administered, not a group");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "03:00:00:00:00:01",
            "00:00:00:00:00:00",
            "2:0:0:0:0:1",
            "+2:00:00:00:00:01",
            "02-00-00-00-00-01",
            "02:00:00:00:00:0g",
            "ff:ff:ff:ff:ff:ff",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn addresses_round_trip(bytes in any::<[u8; 6]>()) {
            let mac = Mac(bytes);
            let read = mac.to_string().parse::<Mac>();
            prop_assert_eq!(read.ok(), mac.is_unicast().then_some(mac));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = text.parse::<Mac>();
        }
    }
}
