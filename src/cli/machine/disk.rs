//! Disks beside the image.

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::MachineOption;
use crate::size::parse_bytes;

/// The longest serial number that virtio-blk can tell.
const MAX_SERIAL: usize = 20;
/// The longest name of a disk.
const MAX_ID: usize = 32;

/// Disks of the machine.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Disks")]
pub struct DiskArgs {
    /// A raw image or block device as one more disk: vdb, vdc, ... (may be repeated). ro: read-only. serial=S: as
    /// /sys/block/*/serial shows it. id=I: what hv calls it. direct: around the host's page cache. iops=N, bw=SIZE:
    /// the most in a second
    #[arg(long, value_name = "PATH[,ro][,serial=S][,id=I][,direct][,iops=N][,bw=SIZE]")]
    pub disk: Vec<DiskArg>,
}

/// One `--disk`, as it was typed. A comma in the path is written twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskArg {
    /// A raw image, or a block device.
    pub path: PathBuf,
    /// The guest cannot change it.
    pub read_only: bool,
    /// 1 to 20 printable ASCII characters.
    pub serial: Option<String>,
    /// 1 to 32 letters, digits, `-`, `.` or `_`.
    pub id: Option<String>,
    /// Around the host's page cache.
    pub direct: bool,
    /// Requests in a second.
    pub iops: Option<NonZeroU64>,
    /// Bytes in a second.
    pub bandwidth: Option<NonZeroU64>,
}

impl FromStr for DiskArg {
    type Err = String;

    fn from_str(text: &str) -> Result<DiskArg, String> {
        let (path, options) = split_path(text);
        if path.is_empty() {
            return Err("a disk begins with its path: PATH[,ro][,serial=S]...".into());
        }
        let mut disk = DiskArg { path: path.into(), ..DiskArg::default() };
        let mut seen: Vec<&str> = Vec::new();
        for option in options.into_iter().flat_map(|options| options.split(',')) {
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (option, None),
            };
            if seen.contains(&key) {
                return Err(format!("`{key}` is there twice"));
            }
            seen.push(key);
            disk.set(key, value)?;
        }
        Ok(disk)
    }
}

/// The path, with its doubled commas undone, and what stands behind the first single comma.
fn split_path(text: &str) -> (String, Option<&str>) {
    let mut path = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(',') {
        path.push_str(before);
        match behind.strip_prefix(',') {
            Some(behind) => rest = behind,
            None => return (path, Some(behind)),
        }
        path.push(',');
    }
    path.push_str(rest);
    (path, None)
}

impl DiskArg {
    fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), String> {
        match (key, value) {
            ("ro", None) => self.read_only = true,
            ("direct", None) => self.direct = true,
            ("serial", Some(value)) => {
                let fits = (1..=MAX_SERIAL).contains(&value.len());
                if !fits || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(format!(
                        "serial=`{value}` is not 1 to {MAX_SERIAL} printable ASCII characters"
                    ));
                }
                self.serial = Some(value.into());
            }
            ("id", Some(value)) => {
                let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
                if !(1..=MAX_ID).contains(&value.len()) || !value.chars().all(allowed) {
                    return Err(format!(
                        "id=`{value}` is not 1 to {MAX_ID} letters, digits, `-`, `.` or `_`"
                    ));
                }
                self.id = Some(value.into());
            }
            ("iops", Some(value)) => {
                let number = Some(value).filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
                let number = number.and_then(|number| number.parse().ok()).and_then(NonZeroU64::new);
                self.iops = Some(number.ok_or(format!("iops=`{value}` is not a number above 0"))?);
            }
            ("bw", Some(value)) => {
                let none = "bw=0 lets nothing through; leave it out for no limit";
                self.bandwidth = Some(NonZeroU64::new(parse_bytes(value)?).ok_or(none)?);
            }
            ("ro" | "direct", Some(_)) => return Err(format!("`{key}` takes no value")),
            ("serial" | "id" | "iops" | "bw", None) => {
                return Err(format!("`{key}` needs a value: {key}=..."));
            }
            _ => {
                return Err(format!(
                    "`{key}` is not known; there are ro, serial=, id=, direct, iops= and bw= (and a comma in the path is written twice)"
                ));
            }
        }
        Ok(())
    }
}

impl fmt::Display for DiskArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display().to_string().replace(',', ",,"))?;
        let flags = [(self.read_only, ",ro"), (self.direct, ",direct")];
        flags.into_iter().filter(|(set, _)| *set).try_for_each(|(_, word)| f.write_str(word))?;
        let texts = [("serial", &self.serial), ("id", &self.id)];
        let numbers = [("iops", self.iops), ("bw", self.bandwidth)];
        for (key, value) in texts {
            value.iter().try_for_each(|value| write!(f, ",{key}={value}"))?;
        }
        for (key, value) in numbers {
            value.iter().try_for_each(|value| write!(f, ",{key}={value}"))?;
        }
        Ok(())
    }
}

/// Why a container refuses each.
pub const OPTIONS: &[MachineOption] = &[MachineOption {
    id: "disk",
    typed: |machine| !machine.disk.disk.is_empty(),
    why: "a container has files and no disks: what would be on one, it would have to mount with the host's own \
          file system code",
}];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> String {
        text.parse::<DiskArg>().unwrap_err()
    }

    #[test]
    fn all_of_it() {
        let disk: DiskArg = "/a,,b/data.img,ro,serial=S-1,id=data,direct,iops=100,bw=10M".parse().unwrap();
        let expected = DiskArg {
            path: "/a,b/data.img".into(),
            read_only: true,
            serial: Some("S-1".into()),
            id: Some("data".into()),
            direct: true,
            iops: NonZeroU64::new(100),
            bandwidth: NonZeroU64::new(10 << 20),
        };
        assert_eq!(disk, expected);
        assert_eq!("x".parse::<DiskArg>().unwrap(), DiskArg { path: "x".into(), ..DiskArg::default() });
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [
            ("", "path"),
            (",ro", "path"),
            ("x,", "``"),
            ("x,rw", "`rw`"),
            ("x,ro,ro", "twice"),
            ("x,serial=a,ro,serial=b", "twice"),
            ("x,ro=1", "no value"),
            ("x,serial", "needs a value"),
            ("x,serial=", "serial="),
            ("x,serial=123456789012345678901", "20"),
            ("x,serial=a b", "printable"),
            ("x,id=a/b", "id="),
            ("x,iops=0", "above 0"),
            ("x,iops=+5", "above 0"),
            ("x,iops=1e3", "above 0"),
            ("x,iops=99999999999999999999", "above 0"),
            ("x,bw=0", "bw=0"),
            ("x,bw=fast", "fast"),
            ("x,RO", "`RO`"),
            ("x, ro", "` ro`"),
        ] {
            assert!(error(text).contains(word), "{text}: {}", error(text));
        }
    }

    fn disk() -> impl Strategy<Value = DiskArg> {
        let number = || proptest::option::of((1u64..).prop_map(|n| NonZeroU64::new(n).unwrap()));
        (
            ("[^\0]{1,20}", any::<bool>(), any::<bool>()),
            proptest::option::of("[!-+\\--~]{1,20}"),
            proptest::option::of("[A-Za-z0-9._-]{1,32}"),
            (number(), number()),
        )
            .prop_map(|((path, read_only, direct), serial, id, (iops, bandwidth))| DiskArg {
                path: path.into(),
                read_only,
                serial,
                id,
                direct,
                iops,
                bandwidth,
            })
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(disk in disk()) {
            prop_assert_eq!(disk.to_string().parse::<DiskArg>(), Ok(disk));
        }

        #[test]
        fn anything_may_be_typed(text: String, keys in "(a|,|=|ro|id|serial|bw|iops|direct|1|M){0,12}") {
            for text in [text, keys] {
                if let Ok(disk) = text.parse::<DiskArg>() {
                    prop_assert_eq!(disk.to_string().parse::<DiskArg>(), Ok(disk));
                }
            }
        }
    }
}
