//! The microVM's network devices.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use clap::Args;
use hv_vmm::device::virtio::net::{MAX_PAIRS, Mac};

use super::MachineOption;
use crate::size::parse_bytes;

/// Network devices.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkArgs {
    /// A network device over an existing tap (may be repeated): tap=NAME, then any of ip=ADDRESS/BITS, gw=ADDRESS,
    /// mac=ADDRESS, mtu=N, queues=N, and limits: rx-bw, tx-bw (bytes a second), rx-ops, tx-ops (frames a second)
    #[arg(long, value_name = "tap=NAME[,..]|none", value_parser = parse_net)]
    pub net: Vec<Net>,
}

/// Why a container refuses it.
pub const OPTIONS: &[MachineOption] = &[MachineOption {
    id: "net",
    typed: |machine| machine.network.devices().next().is_some(),
    why: "a tap carries the frames of a machine's network card, and a container has none",
}];

impl NetworkArgs {
    /// The devices, without `none`s.
    pub fn devices(&self) -> impl Iterator<Item = &TapArgs> {
        self.net.iter().filter_map(|net| match net {
            Net::Tap(tap) => Some(tap),
            Net::None => None,
        })
    }
}

/// One `--net`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Net {
    /// No device.
    None,
    /// One over a tap.
    Tap(TapArgs),
}

/// A device over a tap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TapArgs {
    /// Name of the tap.
    pub tap: String,
    /// The guest's Ethernet address.
    pub mac: Option<Mac>,
    /// What the guest is told of the link; else the tap's own.
    pub mtu: Option<u16>,
    /// Queue pairs.
    pub queues: Option<u16>,
    /// What the guest may receive.
    pub rx: Rate,
    /// What it may send.
    pub tx: Rate,
    /// IPv4 address and bits of the network, set by hv-init.
    pub ip: Option<(Ipv4Addr, u8)>,
    /// IPv4 gateway, set by hv-init.
    pub gateway: Option<Ipv4Addr>,
}

/// A limit of one direction; None: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rate {
    /// Bytes a second.
    pub bytes: Option<u64>,
    /// Frames a second.
    pub operations: Option<u64>,
}

const KEYS: &str = "tap, ip, gw, mac, mtu, queues, rx-bw, tx-bw, rx-ops, tx-ops";

fn parse_net(text: &str) -> Result<Net, String> {
    if text == "none" {
        return Ok(Net::None);
    }
    let mut words = BTreeMap::new();
    for word in text.split(',') {
        let (key, value) = word.split_once('=').ok_or_else(|| {
            format!("`{word}` is not KEY=VALUE; write for example tap=tap0,ip=192.0.2.2/24")
        })?;
        if words.insert(key, value).is_some() {
            return Err(format!("{key}= is there twice"));
        }
    }
    let mut take = |key| words.remove(key);
    let tap = take("tap").ok_or("no tap: name one with tap=NAME, or write none")?;
    let args = TapArgs {
        tap: parse_name(tap)?,
        mac: take("mac").map(|mac| mac.parse::<Mac>().map_err(|error| error.to_string())).transpose()?,
        mtu: take("mtu").map(|mtu| in_range("mtu", mtu, 68, u16::MAX)).transpose()?,
        queues: take("queues").map(|queues| in_range("queues", queues, 1, MAX_PAIRS)).transpose()?,
        rx: Rate {
            bytes: take("rx-bw").map(|rate| parse_rate("rx-bw", rate)).transpose()?,
            operations: take("rx-ops").map(|rate| parse_count("rx-ops", rate)).transpose()?,
        },
        tx: Rate {
            bytes: take("tx-bw").map(|rate| parse_rate("tx-bw", rate)).transpose()?,
            operations: take("tx-ops").map(|rate| parse_count("tx-ops", rate)).transpose()?,
        },
        ip: take("ip").map(parse_address).transpose()?,
        gateway: take("gw").map(|gateway| parse_ipv4("gw", gateway)).transpose()?,
    };
    match words.keys().next() {
        Some(unknown) => Err(format!("`{unknown}` is unknown; there are {KEYS}")),
        None if args.gateway.is_some() && args.ip.is_none() => {
            Err("gw= needs an address beside it: ip=ADDRESS/BITS".into())
        }
        None => Ok(Net::Tap(args)),
    }
}

/// As the kernel names interfaces: 1 to 15 bytes, none of them `/`, `:` or white.
fn parse_name(name: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_graphic() && !"/:%".contains(c);
    if (1..=15).contains(&name.len()) && name.chars().all(allowed) && ![".", ".."].contains(&name) {
        return Ok(name.into());
    }
    Err(format!("`{}` is not the name of a network device", name.escape_default()))
}

fn in_range(key: &str, text: &str, least: u16, most: u16) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && (least..=most).contains(number));
    number.ok_or_else(|| format!("{key}= is a number from {least} to {most}, not `{text}`"))
}

fn parse_rate(key: &str, text: &str) -> Result<u64, String> {
    match parse_bytes(text).map_err(|error| format!("{key}=: {error}"))? {
        0 => Err(format!("{key}=0 would let nothing through; leave it out for no limit")),
        rate => Ok(rate),
    }
}

fn parse_count(key: &str, text: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && *number > 0);
    number.ok_or_else(|| format!("{key}= is a number of frames a second, at least 1, not `{text}`"))
}

fn parse_ipv4(key: &str, text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| format!("{key}= is an IPv4 address such as 192.0.2.1, not `{text}`"))
}

fn parse_address(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let wrong =
        || format!("ip= is an IPv4 address and the bits of its network, such as 192.0.2.2/24, not `{text}`");
    let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
    let address = address.parse().map_err(|_| wrong())?;
    let bits = in_range("ip", bits, 1, 32).map_err(|_| wrong())?;
    Ok((address, bits as u8))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tap(text: &str) -> TapArgs {
        match parse_net(text) {
            Ok(Net::Tap(args)) => args,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn every_word_has_its_place() {
        assert_eq!(parse_net("none"), Ok(Net::None));
        assert_eq!(tap("tap=t0"), TapArgs { tap: "t0".into(), ..TapArgs::default() });
        let all = tap(
            "mtu=9000,tap=t0,mac=02:00:00:00:00:07,queues=4,rx-bw=10M,tx-bw=1MB,rx-ops=5,tx-ops=6,ip=10.0.0.2/8,gw=10.0.0.1",
        );
        assert_eq!((all.mac, all.mtu, all.queues), (Some(Mac([2, 0, 0, 0, 0, 7])), Some(9000), Some(4)));
        assert_eq!(all.rx, Rate { bytes: Some(10 << 20), operations: Some(5) });
        assert_eq!(all.tx, Rate { bytes: Some(1_000_000), operations: Some(6) });
        assert_eq!(all.ip, Some((Ipv4Addr::new(10, 0, 0, 2), 8)));
        assert_eq!(all.gateway, Some(Ipv4Addr::new(10, 0, 0, 1)));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "KEY=VALUE"),
            ("tap", "KEY=VALUE"),
            ("none,tap=t0", "KEY=VALUE"),
            ("tap=t0,", "KEY=VALUE"),
            ("mtu=1500", "tap=NAME"),
            ("tap=", "name of a network device"),
            ("tap=a/b", "name of a network device"),
            ("tap=..", "name of a network device"),
            ("tap=0123456789abcdef", "name of a network device"),
            ("tap=t0,tap=t1", "twice"),
            ("tap=t0,colour=red", "colour"),
            ("tap=t0,mtu=67", "68"),
            ("tap=t0,mtu=+1500", "mtu="),
            ("tap=t0,mtu=65536", "mtu="),
            ("tap=t0,queues=0", "queues="),
            ("tap=t0,queues=1000", "queues="),
            ("tap=t0,rx-bw=0", "no limit"),
            ("tap=t0,rx-bw=fast", "rx-bw"),
            ("tap=t0,tx-ops=-1", "tx-ops"),
            ("tap=t0,mac=ff:ff:ff:ff:ff:ff", "MAC"),
            ("tap=t0,ip=10.0.0.1", "bits"),
            ("tap=t0,ip=10.0.0.1/33", "bits"),
            ("tap=t0,ip=::1/64", "IPv4"),
            ("tap=t0,gw=10.0.0.1", "ip="),
        ] {
            let error = parse_net(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _ = parse_net(&text);
        }

        #[test]
        fn what_was_read_is_what_was_written(
            mtu in 68..u16::MAX, queues in 1..=MAX_PAIRS, bytes in 1..u64::MAX, address: u32, bits in 1..=32u8,
        ) {
            let ip = Ipv4Addr::from(address);
            let args = tap(&format!("tap=t,mtu={mtu},queues={queues},tx-bw={bytes},ip={ip}/{bits}"));
            prop_assert_eq!((args.mtu, args.queues, args.tx.bytes), (Some(mtu), Some(queues), Some(bytes)));
            prop_assert_eq!(args.ip, Some((ip, bits)));
        }

        #[test]
        fn nearly_right_words_never_panic(words in proptest::collection::vec(
            ("(tap|ip|gw|mac|mtu|queues|rx-bw|tx-ops)?", "=?", "[0-9a-f.:/]{0,18}"), 0..6)
        ) {
            let words: Vec<String> = words.into_iter().map(|(a, b, c)| a + &b + &c).collect();
            let _ = parse_net(&words.join(","));
        }
    }
}
