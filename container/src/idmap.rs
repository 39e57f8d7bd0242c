//! Which ids of the host stand for the ids of a user namespace.
//!
//! Without root a process may map only its own id, unless `/etc/subuid` and `/etc/subgid` give its
//! user ranges; then the set-user-id helpers newuidmap(1) and newgidmap(1) write the map.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::thread::Pid;

use crate::error::Error;

/// Directories where the helpers may be; the environment is not asked.
const HELPER_DIRS: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// Consecutive ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first id on the host.
    pub start: u32,
    /// How many.
    pub count: u32,
}

/// One line of an id map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// The first id inside.
    pub inside: u32,
    /// The first id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// How ids are mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IdMap {
    /// No user namespace: ids are the host's.
    None,
    /// Id 0 inside is this user and group; there are no others.
    Single,
    /// Id 0 inside is this user; ids from 1 on are these ranges, one after the other.
    Ranges {
        /// Users.
        users: Vec<Range>,
        /// Groups.
        groups: Vec<Range>,
        /// newuidmap and newgidmap.
        helpers: [PathBuf; 2],
    },
    /// As somebody else has decided.
    Given {
        /// Users.
        users: Vec<Mapping>,
        /// Groups.
        groups: Vec<Mapping>,
    },
}

impl IdMap {
    /// What this user may map.
    pub(crate) fn detect() -> IdMap {
        let helper =
            |name: &str| HELPER_DIRS.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists());
        let (Some(users), Some(groups)) = (helper("newuidmap"), helper("newgidmap")) else {
            return IdMap::Single;
        };
        let uid = rustix::process::getuid().as_raw();
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let name = user_name(&read("/etc/passwd"), uid);
        let ranges = |path: &str| ranges(&read(path), name.as_deref(), uid);
        match (ranges("/etc/subuid"), ranges("/etc/subgid")) {
            (uids, gids) if uids.is_empty() || gids.is_empty() => IdMap::Single,
            (uids, gids) => IdMap::Ranges { users: uids, groups: gids, helpers: [users, groups] },
        }
    }

    /// These lines.
    pub(crate) fn given(users: Vec<Mapping>, groups: Vec<Mapping>) -> IdMap {
        IdMap::Given { users, groups }
    }

    /// Whether the map lets a process set its supplementary groups.
    pub(crate) fn sets_groups(&self) -> bool {
        match self {
            IdMap::Single => false,
            // What is denied for a map of one's own group alone.
            IdMap::Given { groups, .. } => {
                let own = rustix::process::getegid().as_raw();
                own == 0 || !matches!(groups.as_slice(), [one] if one.count == 1 && one.outside == own)
            }
            _ => true,
        }
    }

    /// Whether user `uid` exists inside.
    pub(crate) fn maps_user(&self, uid: u32) -> bool {
        match self {
            IdMap::None => true,
            IdMap::Single => uid == 0,
            IdMap::Ranges { users, .. } => u64::from(uid) <= total(users),
            IdMap::Given { users, .. } => holds(users, uid),
        }
    }

    /// Whether group `gid` exists inside.
    pub(crate) fn maps_group(&self, gid: u32) -> bool {
        match self {
            IdMap::None => true,
            IdMap::Single => gid == 0,
            IdMap::Ranges { groups, .. } => u64::from(gid) <= total(groups),
            IdMap::Given { groups, .. } => holds(groups, gid),
        }
    }

    /// Writes the map of the user namespace that `child` is in.
    pub(crate) fn apply(&self, child: Pid) -> Result<(), Error> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        match self {
            IdMap::None => Ok(()),
            IdMap::Single => {
                // user_namespaces(7): without privilege the group map needs setgroups denied first.
                write(child, "setgroups", "deny")?;
                write(child, "uid_map", &format!("0 {uid} 1\n"))?;
                write(child, "gid_map", &format!("0 {gid} 1\n"))
            }
            IdMap::Ranges { users, groups, helpers: [newuidmap, newgidmap] } => {
                run(newuidmap, child, &arguments(uid, users))?;
                run(newgidmap, child, &arguments(gid, groups))
            }
            IdMap::Given { users, groups } => give(child, users, groups, (uid, gid)),
        }
    }

    /// In words, for the plan.
    pub(crate) fn words(&self) -> String {
        match self {
            IdMap::None => "no user namespace".into(),
            IdMap::Single => "user 0 inside is this user, no other ids; setgroups denied".into(),
            IdMap::Ranges { users, groups, .. } => format!(
                "user 0 inside is this user, then {} users and {} groups by newuidmap and newgidmap",
                total(users),
                total(groups)
            ),
            IdMap::Given { users, groups } => {
                format!(
                    "{} ranges of users, {} of groups, as the configuration says",
                    users.len(),
                    groups.len()
                )
            }
        }
    }
}

fn holds(map: &[Mapping], id: u32) -> bool {
    map.iter().any(|one| (one.inside..=one.inside + (one.count - 1)).contains(&id))
}

/// Root writes any map; a user one line for its own id, and more than that through the helpers.
fn give(child: Pid, users: &[Mapping], groups: &[Mapping], own: (u32, u32)) -> Result<(), Error> {
    let text = |map: &[Mapping]| -> String {
        map.iter().map(|one| format!("{} {} {}\n", one.inside, one.outside, one.count)).collect()
    };
    let is_own = |map: &[Mapping], id| matches!(map, [one] if one.count == 1 && one.outside == id);
    let capabilities = rustix::thread::capabilities(None)
        .map_or(rustix::thread::CapabilitySet::empty(), |sets| sets.effective);
    if capabilities.contains(rustix::thread::CapabilitySet::SETUID | rustix::thread::CapabilitySet::SETGID) {
        write(child, "uid_map", &text(users))?;
        return write(child, "gid_map", &text(groups));
    }
    if is_own(users, own.0) && is_own(groups, own.1) {
        write(child, "setgroups", "deny")?;
        write(child, "uid_map", &text(users))?;
        return write(child, "gid_map", &text(groups));
    }
    for (helper, map) in [("newuidmap", users), ("newgidmap", groups)] {
        let found = HELPER_DIRS.iter().map(|dir| Path::new(dir).join(helper)).find(|path| path.exists());
        let found = found.ok_or_else(|| {
            Error::Refused(format!(
                "mapping more than your own id without root needs {helper}: install the package uidmap"
            ))
        })?;
        let arguments: Vec<String> = map
            .iter()
            .flat_map(|one| [one.inside, one.outside, one.count])
            .map(|id| id.to_string())
            .collect();
        run(&found, child, &arguments)?;
    }
    Ok(())
}

fn total(ranges: &[Range]) -> u64 {
    ranges.iter().map(|range| u64::from(range.count)).sum()
}

fn write(child: Pid, file: &str, value: &str) -> Result<(), Error> {
    let path = format!("/proc/{}/{file}", child.as_raw_pid());
    std::fs::write(&path, value).map_err(|source| Error::System {
        operation: "write",
        object: format!("{path} of the new user namespace"),
        mend: "allow user namespaces for your user (see `hv check`), or start hv as root",
        source,
    })
}

/// Runs a helper: `newuidmap PID 0 UID 1 1 START COUNT ...`.
fn run(helper: &Path, child: Pid, arguments: &[String]) -> Result<(), Error> {
    let failed = |source: std::io::Error| Error::System {
        operation: "run",
        object: helper.display().to_string(),
        mend: "repair the package `uidmap` and /etc/subuid, or start hv as root",
        source,
    };
    let output = Command::new(helper)
        .arg(child.as_raw_pid().to_string())
        .args(arguments)
        .env_clear()
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_string();
    Err(failed(std::io::Error::other(words)))
}

fn arguments(own: u32, ranges: &[Range]) -> Vec<String> {
    let mut arguments = vec!["0".to_string(), own.to_string(), "1".to_string()];
    let mut inside = 1u64;
    for range in ranges {
        arguments.extend([inside.to_string(), range.start.to_string(), range.count.to_string()]);
        inside += u64::from(range.count);
    }
    arguments
}

/// The name of user `uid` in a passwd file.
fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        (number == uid).then(|| name.to_string())
    })
}

/// The ranges that a subuid(5) file gives a user, by name or number.
fn ranges(file: &str, name: Option<&str>, uid: u32) -> Vec<Range> {
    let number = uid.to_string();
    let parse = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let start: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        let ours = !owner.is_empty() && (Some(owner) == name || owner == number);
        (ours && count > 0 && start.checked_add(count - 1).is_some()).then_some(Range { start, count })
    };
    file.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_user_by_name_or_number() {
        let file =
            "ann:100000:65536\n# no\nbob:1:2\n1000:300000:10\nann:bad:1\nann:4294967295:2\n:5:5\nann:7:0\n";
        assert_eq!(
            ranges(file, Some("ann"), 1000),
            [Range { start: 100_000, count: 65536 }, Range { start: 300_000, count: 10 }]
        );
        assert_eq!(ranges(file, None, 7), []);
    }

    #[test]
    fn names_come_from_passwd() {
        let passwd = "root:x:0:0::/:\nann:x:1000:1000::/:\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!(user_name(passwd, 5), None);
    }

    #[test]
    fn helper_arguments_follow_each_other() {
        let two = [Range { start: 100_000, count: 10 }, Range { start: 300_000, count: 5 }];
        assert_eq!(arguments(1000, &two), ["0", "1000", "1", "1", "100000", "10", "11", "300000", "5"]);
    }

    #[test]
    fn tty_group_needs_a_range() {
        assert!(!IdMap::Single.maps_group(5));
        let ranges = |count| IdMap::Ranges {
            users: vec![],
            groups: vec![Range { start: 1, count }],
            helpers: ["a".into(), "b".into()],
        };
        assert!(ranges(5).maps_group(5));
        assert!(!ranges(4).maps_group(5));
    }
}
