//! Mount options as mount(8) writes them, and what they mean: attributes of the mount, how it spreads,
//! words for the file system. Pure.

use super::step::Change;

const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
const ATIME: u64 = libc::MOUNT_ATTR__ATIME;
const NOATIME: u64 = libc::MOUNT_ATTR_NOATIME;
const STRICTATIME: u64 = libc::MOUNT_ATTR_STRICTATIME;
const NODIRATIME: u64 = libc::MOUNT_ATTR_NODIRATIME;
const NOSYMFOLLOW: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;

/// Attributes: what is added, what is taken away. With an `r` in front they hold for all mounts below too.
const ATTRIBUTES: [(&str, u64, u64); 17] = [
    ("ro", RDONLY, 0),
    ("rw", 0, RDONLY),
    ("nosuid", NOSUID, 0),
    ("suid", 0, NOSUID),
    ("nodev", NODEV, 0),
    ("dev", 0, NODEV),
    ("noexec", NOEXEC, 0),
    ("exec", 0, NOEXEC),
    ("noatime", NOATIME, ATIME),
    ("atime", 0, ATIME),
    ("relatime", 0, ATIME),
    ("norelatime", STRICTATIME, ATIME),
    ("strictatime", STRICTATIME, ATIME),
    ("nostrictatime", 0, ATIME),
    ("nodiratime", NODIRATIME, 0),
    ("diratime", 0, NODIRATIME),
    ("nosymfollow", NOSYMFOLLOW, 0),
];

const PROPAGATION: [(&str, u64); 4] = [
    ("private", libc::MS_PRIVATE),
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Every option that is no file system's own, for `features`.
#[rustfmt::skip]
pub const KNOWN: &[&str] = &[
    "async", "atime", "bind", "defaults", "dev", "diratime", "exec", "idmap", "noatime", "nodev", "nodiratime", "noexec",
    "norelatime", "nostrictatime", "nosuid", "nosymfollow", "private", "ratime", "rbind", "rdev", "rdiratime",
    "relatime", "rexec", "ridmap", "rnoatime", "rnodev", "rnodiratime", "rnoexec", "rnorelatime", "rnostrictatime", "rnosuid",
    "rnosymfollow", "ro", "rprivate", "rrelatime", "rro", "rrw", "rshared", "rslave", "rstrictatime", "rsuid",
    "runbindable", "rw", "shared", "slave", "strictatime", "suid", "tmpcopyup", "unbindable",
];

/// All options of one mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// It is a bind mount; with its submounts?
    pub bind: Option<bool>,
    /// Attributes and propagation of the mount itself.
    pub top: Change,
    /// The same, of everything below it too.
    pub all: Vec<Change>,
    /// A tmpfs gets what it covers.
    pub copy_up: bool,
    /// Ids are mapped: `idmap`; of its submounts too: `ridmap`.
    pub idmap: Option<bool>,
    /// What the file system is to know, key and value.
    pub data: Vec<(String, String)>,
}

/// Reads the list.
pub(super) fn parse(list: &[String]) -> Options {
    let mut options = Options::default();
    for option in list.iter().flat_map(|one| one.split(',')).filter(|one| !one.is_empty()) {
        options.add(option);
    }
    options
}

impl Options {
    fn add(&mut self, option: &str) {
        let attributes = |name: &str| ATTRIBUTES.iter().find(|(known, ..)| *known == name);
        let propagation = |name: &str| PROPAGATION.iter().find(|(known, _)| *known == name).map(|one| one.1);
        let recursive = option.strip_prefix('r').unwrap_or("");
        match option {
            // `rw` and `relatime` are words of their own, not recursive `w` and `elatime`.
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "defaults" | "async" | "nolazytime" | "symfollow" | "loud" | "nomand" | "noiversion" => {}
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.idmap = Some(self.idmap.unwrap_or(false)),
            "ridmap" => self.idmap = Some(true),
            _ => {
                if let Some((_, set, clear)) = attributes(option) {
                    self.top.set = self.top.set & !clear | set;
                    self.top.clear = self.top.clear & !set | clear;
                } else if let Some((_, set, clear)) = attributes(recursive) {
                    self.all.push(Change { set: *set, clear: *clear, propagation: 0 });
                } else if let Some(kind) = propagation(option) {
                    self.top.propagation = kind;
                } else if let Some(kind) = propagation(recursive) {
                    self.all.push(Change { propagation: kind, ..Change::default() });
                } else {
                    let (key, value) = option.split_once('=').unwrap_or((option, ""));
                    self.data.push((key.into(), value.into()));
                }
            }
        }
    }
}

/// `rootfsPropagation` and the like.
pub(super) fn propagation(word: &str) -> Option<(u64, bool)> {
    let find = |name: &str| PROPAGATION.iter().find(|(known, _)| *known == name).map(|one| one.1);
    find(word).map(|kind| (kind, false)).or_else(|| Some((find(word.strip_prefix('r')?)?, true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(list: &[&str]) -> Options {
        parse(&list.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn options_as_docker_and_podman_write_them() {
        let shm = of(&["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]);
        assert_eq!(shm.top.set, NOSUID | NOEXEC | NODEV);
        assert_eq!(shm.data, [("mode".into(), "1777".into()), ("size".into(), "65536k".into())]);
        let volume = of(&["rbind", "rprivate", "ro"]);
        assert_eq!((volume.bind, volume.top.set), (Some(true), RDONLY));
        assert_eq!(volume.all, [Change { propagation: libc::MS_PRIVATE, ..Change::default() }]);
        assert_eq!(of(&["bind", "rro"]).all[0].set, RDONLY);
        assert_eq!(of(&["ro,rw"]).top, Change { set: 0, clear: RDONLY, propagation: 0 });
        assert_eq!(
            of(&["strictatime", "noatime"]).top,
            Change { set: NOATIME, clear: ATIME, propagation: 0 }
        );
        assert!(of(&["tmpcopyup", "relatime", "rw"]).data.is_empty());
    }

    #[test]
    fn what_is_told_is_known() {
        for option in KNOWN {
            assert!(of(&[option]).data.is_empty(), "{option}");
        }
    }

    #[test]
    fn the_last_word_counts() {
        assert_eq!(of(&["rbind", "bind"]).bind, Some(true), "runc's: rbind stays");
        assert_eq!(propagation("rslave"), Some((libc::MS_SLAVE, true)));
        assert_eq!(propagation("rw"), None);
    }
}
