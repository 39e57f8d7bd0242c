//! Small files of the kernel: reading, writing, and parsing their numbers. Pure parsers over `&str`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::Error;
use crate::procfs;

/// The whole of a small kernel file; bytes that are not UTF-8 (mount points have any) are replaced.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    let bytes = procfs::read_bytes(path).map_err(|source| Error::new("read", path, source))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes `value` in one write(2), as kernel files want it; never creates the file.
pub(super) fn write(path: &Path, value: &str) -> Result<(), Error> {
    try_write(path, value).map_err(|source| Error::new(format!("write `{value}` to"), path, source))
}

/// As [`write()`], but a file that does not exist counts as done.
pub(super) fn write_if_present(path: &Path, value: &str) -> Result<(), Error> {
    match try_write(path, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| Error::new(format!("write `{value}` to"), path, source)),
    }
}

/// As [`write()`], with the plain error.
pub(super) fn try_write(path: &Path, value: &str) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all(value.as_bytes())
}

/// A file that holds one number, None if there is no such file.
pub(super) fn number(path: &Path) -> Result<Option<u64>, Error> {
    match procfs::read_text(path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::new("read", path, source)),
    }
}

/// The number behind `key` in a file of `key number` lines.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The process ids of a `cgroup.procs` file, each once; 0 (a process of another pid namespace) is left out.
pub(super) fn pids(text: &str) -> Vec<i32> {
    let mut pids: Vec<i32> =
        text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keyed_numbers() {
        let events = "low 0\noom 3\noom_kill 2\noom_group_kill 7\n";
        assert_eq!(keyed(events, "oom"), Some(3));
        assert_eq!(keyed(events, "oom_kill"), Some(2));
        assert_eq!(keyed(events, "missing"), None);
    }

    #[test]
    fn pids_are_sorted_and_unique() {
        assert_eq!(pids("7\n3\n7\n0\n"), [3, 7]);
        assert!(pids("").is_empty());
    }

    proptest! {
        #[test]
        fn parsers_never_panic(text in ".{0,200}", key in "[a-z_]{0,10}") {
            keyed(&text, &key);
            prop_assert!(pids(&text).iter().all(|pid| *pid > 0));
        }

        #[test]
        fn written_pids_are_read(wanted in proptest::collection::btree_set(1i32.., 0..20)) {
            let text: String = wanted.iter().map(|pid| format!("{pid}\n")).collect();
            prop_assert_eq!(pids(&text), wanted.into_iter().collect::<Vec<_>>());
        }
    }
}
