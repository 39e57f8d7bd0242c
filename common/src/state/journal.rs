//! What a start makes, one line each, written before it is made: enough to remove it without the one
//! who made it. The first line names the boot of the host in which the journal was begun.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Something on the host that outlives its maker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    /// A cgroup directory; everything in it is killed before it is removed.
    Cgroup(PathBuf),
    /// A file or socket outside the sandbox's own directory.
    File(PathBuf),
    /// A process.
    Process {
        /// Its number.
        pid: i32,
        /// Its start time in clock ticks: another process with this number has another.
        start_time: u64,
    },
}

/// A journal, read back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Journal {
    /// The boot in which it was begun.
    pub(super) boot: String,
    /// What was written down, oldest first.
    pub(super) resources: Vec<Resource>,
}

impl Journal {
    /// Reads a journal. A last line that its writer could not finish describes nothing that was made.
    pub(super) fn parse(text: &str) -> Journal {
        let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let boot = lines.next().unwrap_or("").to_owned();
        Journal { boot, resources: lines.filter_map(|line| serde_json::from_str(line).ok()).collect() }
    }
}

pub(super) fn header() -> io::Result<String> {
    Ok(format!("{}\n", boot()?))
}

pub(super) fn line(resource: &Resource) -> io::Result<String> {
    Ok(format!("{}\n", serde_json::to_string(resource)?))
}

/// Names this boot of the host: numbers and cgroups of an earlier one are gone.
pub(super) fn boot() -> io::Result<String> {
    Ok(crate::procfs::read_text("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_round_trip_and_a_torn_last_line_is_left_out() {
        let resources = [
            Resource::Cgroup("/sys/fs/cgroup/hv/a".into()),
            Resource::Process { pid: 7, start_time: 99 },
            Resource::File("/tmp/x\n\"y".into()),
        ];
        let mut text = String::from("boot\n");
        for resource in &resources {
            text += &line(resource).unwrap();
        }
        assert_eq!(Journal::parse(&text), Journal { boot: "boot".into(), resources: resources.to_vec() });
        text += r#"{"file":"/half"#;
        assert_eq!(Journal::parse(&text).resources, resources);
    }

    proptest! {
        #[test]
        fn bug_18_any_text_is_survived_as_a_journal(text in ".{0,200}") {
            Journal::parse(&text);
        }

        #[test]
        fn bug_18_any_cut_of_a_journal_is_a_prefix(cut in 0usize..200) {
            let mut text = header().unwrap();
            let all: Vec<Resource> = (1..6).map(|pid| Resource::Process { pid, start_time: 5 }).collect();
            for resource in &all {
                text += &line(resource).unwrap();
            }
            let read = Journal::parse(&text[..cut.min(text.len())]).resources;
            prop_assert!(all.starts_with(&read));
        }
    }
}
