//! What /proc says about processes and memory. Pure parsers over `&str`, and thin readers on top.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of a small file of the kernel's, mostly.
const USUAL: usize = 8192;
/// No file that is read so is longer.
const MOST: u64 = 64 << 20;

/// Memory of a process or of a part of it, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident: pages that are mapped and present.
    pub rss: u64,
    /// Proportional: each page divided by the number of its users.
    pub pss: u64,
    /// Resident, anonymous or modified: what this process alone holds.
    pub private: u64,
}

/// Sums the counters of `/proc/PID/smaps_rollup`, or of a whole `/proc/PID/smaps`.
pub fn parse_smaps_rollup(text: &str) -> Memory {
    text.lines().fold(Memory::default(), |sum, line| add_counter(sum, line, 1.0))
}

/// Sums the counters of the mappings in `/proc/PID/smaps` that lie in `ranges`. The kernel may have
/// merged a range with its neighbour: such a mapping counts in proportion to the part that lies inside.
pub fn parse_smaps_in(text: &str, ranges: &[Range<u64>]) -> Memory {
    let mut sum = Memory::default();
    let mut share = 0.0;
    for line in text.lines() {
        match mapping(line) {
            Some(mapping) => share = share_inside(&mapping, ranges),
            None if share > 0.0 => sum = add_counter(sum, line, share),
            None => {}
        }
    }
    sum
}

fn add_counter(mut sum: Memory, line: &str, share: f64) -> Memory {
    let Some((name, value)) = counter(line) else { return sum };
    let value = if share >= 1.0 { value } else { (value as f64 * share) as u64 };
    let field = match name {
        "Rss" => &mut sum.rss,
        "Pss" => &mut sum.pss,
        "Private_Clean" | "Private_Dirty" => &mut sum.private,
        _ => return sum,
    };
    *field = field.saturating_add(value);
    sum
}

/// `Name:   12 kB` in bytes.
fn counter(line: &str) -> Option<(&str, u64)> {
    let (name, rest) = line.split_once(':')?;
    let kibibytes: u64 = rest.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some((name, kibibytes.saturating_mul(1024)))
}

/// The addresses of a line that begins a mapping: `7f00-7f01 rw-p ...`.
fn mapping(line: &str) -> Option<Range<u64>> {
    let (addresses, _) = line.split_once(' ')?;
    let (start, end) = addresses.split_once('-')?;
    Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
}

fn share_inside(mapping: &Range<u64>, ranges: &[Range<u64>]) -> f64 {
    let length = mapping.end.saturating_sub(mapping.start);
    let inside: u64 = ranges
        .iter()
        .map(|range| mapping.end.min(range.end).saturating_sub(mapping.start.max(range.start)))
        .fold(0, u64::saturating_add);
    if length == 0 { 0.0 } else { (inside as f64 / length as f64).min(1.0) }
}

/// The `Name: value` lines of `/proc/PID/status`.
pub fn parse_status(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim())).collect()
}

/// A `Name: N kB` line of `/proc/PID/status` or `/proc/meminfo`, in bytes.
pub fn parse_size(text: &str, name: &str) -> Option<u64> {
    text.lines().filter_map(counter).find(|(found, _)| *found == name).map(|(_, bytes)| bytes)
}

/// When the process started, in clock ticks since the host did: field 22 of `/proc/PID/stat`. With the
/// process id it names one process for good. The command in field 2 may hold blanks and parentheses.
pub fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, after_command) = stat.rsplit_once(')')?;
    after_command.split_whitespace().nth(19)?.parse().ok()
}

/// The whole of a small file of the kernel's. These tell no length beforehand, and the kernel writes them anew for
/// each read: so in one, where that is enough, and not in a dozen that grow from 32 bytes.
///
/// # Errors
/// As open(2) and read(2), or it is not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    let bytes = read_bytes(path)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// As [`read_text`], of any bytes.
///
/// # Errors
/// As open(2) and read(2).
pub fn read_bytes(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(USUAL);
    // By way of `take`, because a file is asked for its length first.
    File::open(path)?.take(MOST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Start time of process `pid`; None if there is no such process.
///
/// # Errors
/// /proc cannot be read.
pub fn start_time(pid: i32) -> io::Result<Option<u64>> {
    match read_text(format!("/proc/{pid}/stat")) {
        Ok(stat) => Ok(parse_start_time(&stat)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // The process ended between open and read.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Memory of process `pid`.
///
/// # Errors
/// There is no such process, or it is somebody else's.
pub fn memory(pid: i32) -> io::Result<Memory> {
    fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).map(|text| parse_smaps_rollup(&text))
}

/// Memory of process `pid` in these address ranges.
///
/// # Errors
/// There is no such process, or it is somebody else's.
pub fn memory_in(pid: i32, ranges: &[Range<u64>]) -> io::Result<Memory> {
    fs::read_to_string(format!("/proc/{pid}/smaps")).map(|text| parse_smaps_in(&text, ranges))
}

/// This process's own memory, readable also where /proc cannot be reached any more.
#[derive(Debug)]
pub struct OwnMemory(File);

impl OwnMemory {
    /// Opens what the kernel says of it.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub fn open() -> io::Result<OwnMemory> {
        File::open("/proc/self/smaps").map(OwnMemory)
    }

    /// What there is of it in these address ranges, now.
    ///
    /// # Errors
    /// As read(2).
    pub fn memory_in(&self, ranges: &[Range<u64>]) -> io::Result<Memory> {
        let mut text = Vec::new();
        let mut piece = [0; 4096];
        loop {
            match self.0.read_at(&mut piece, text.len() as u64)? {
                0 => return Ok(parse_smaps_in(&String::from_utf8_lossy(&text), ranges)),
                count => text.extend_from_slice(&piece[..count]),
            }
        }
    }
}

/// The host's memory in bytes.
///
/// # Errors
/// /proc cannot be read.
pub fn host_memory() -> io::Result<u64> {
    let text = read_text("/proc/meminfo")?;
    parse_size(&text, "MemTotal").ok_or_else(|| io::Error::other("no MemTotal in /proc/meminfo"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMAPS: &str = "\
7f0000000000-7f0000010000 rw-p 00000000 00:00 0 
Size:                 64 kB
Rss:                  40 kB
Pss:                  20 kB
Private_Clean:         4 kB
Private_Dirty:         8 kB
VmFlags: rd wr mr mw me ac
7f0000020000-7f0000030000 rw-p 00000000 00:00 0          [heap]
Rss:                  16 kB
Pss:                  16 kB
Private_Dirty:        16 kB
";

    #[test]
    fn whole_and_part() {
        assert_eq!(parse_smaps_rollup(SMAPS), Memory { rss: 56 << 10, pss: 36 << 10, private: 28 << 10 });
        let within = |start, end| parse_smaps_in(SMAPS, std::slice::from_ref(&(start..end)));
        let first = within(0x7f00_0000_0000, 0x7f00_0001_0000);
        assert_eq!(first, Memory { rss: 40 << 10, pss: 20 << 10, private: 12 << 10 });
        let half = within(0x7f00_0002_0000, 0x7f00_0002_8000);
        assert_eq!(half.rss, 8 << 10);
        assert_eq!(parse_smaps_in(SMAPS, &[]), Memory::default());
    }

    #[test]
    fn start_time_behind_a_hostile_command() {
        let stat = "42 (a) b ( c) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2 3";
        assert_eq!(parse_start_time(stat), Some(98765));
        assert_eq!(parse_start_time("42 (a) S 1"), None);
        let own = start_time(std::process::id() as i32).unwrap();
        assert!(own.is_some_and(|ticks| ticks > 0));
        assert_eq!(start_time(i32::MAX).unwrap(), None);
    }

    #[test]
    fn status_and_meminfo() {
        let status = "Name:\thv\nVmHWM:\t    4096 kB\nThreads:\t3\n";
        assert_eq!(parse_status(status)["Threads"], "3");
        assert_eq!(parse_size(status, "VmHWM"), Some(4 << 20));
        assert!(host_memory().unwrap() > 1 << 20);
    }

    proptest! {
        #[test]
        fn parsers_never_panic(text in "([a-zA-Z0-9():\\- ]{0,40}\n?){0,8}", start: u64, end: u64) {
            let whole = parse_smaps_rollup(&text);
            prop_assert!(parse_smaps_in(&text, std::slice::from_ref(&(start..end))).rss <= whole.rss);
            parse_start_time(&text);
            parse_status(&text);
            parse_size(&text, "MemTotal");
        }
    }
}
