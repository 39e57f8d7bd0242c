//! Who the workload runs as: docker's rules for `USER[:GROUP]`, read from the image's own files.

use std::ffi::CString;
use std::os::fd::BorrowedFd;

use super::accounts::{self, Group, User};
use super::{Failure, inside};

/// The most supplementary groups the kernel takes (NGROUPS_MAX).
const MAX_GROUPS: usize = 65536;

/// A user as the kernel knows one, and its home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups. They hold the primary one too, so that a set-group-id program cannot shed
    /// it (CVE-2022-36109), and no others when the group was given by name or number.
    pub groups: Vec<u32>,
    /// Home directory: the entry's, else `/`.
    pub home: CString,
}

impl Identity {
    /// Looks `user` (None: root) up in the root directory's `/etc/passwd` and `/etc/group`.
    ///
    /// # Errors
    /// A name that has no entry, a number that is no id, or a file that cannot be read.
    pub fn resolve(user: Option<&str>, root: BorrowedFd<'_>) -> Result<Identity, Failure> {
        let read = |path: &str| {
            inside::read(root, path)
                .map_err(|error| Failure::new(format!("cannot read the image's /{path}"), error))
        };
        resolve(user.unwrap_or_default(), &read("etc/passwd")?, || read("etc/group"))
    }
}

fn resolve(
    user: &str,
    passwd: &[u8],
    group_file: impl FnOnce() -> Result<Vec<u8>, Failure>,
) -> Result<Identity, Failure> {
    let (user, group) = user.split_once(':').unwrap_or((user, ""));
    let entry = find_user(user, passwd)?;
    let (uid, gid, name, home) = match entry {
        Ok(entry) => (entry.uid, entry.gid, entry.name, entry.home),
        Err(uid) => (uid, 0, &b""[..], &b""[..]),
    };
    let group_file = if group.is_empty() && name.is_empty() { Vec::new() } else { group_file()? };
    let gid = if group.is_empty() { gid } else { find_group(group, &group_file)? };
    let mut groups = vec![gid];
    if group.is_empty() && !name.is_empty() {
        groups.extend(accounts::groups(&group_file).filter(|group| group.has(name)).map(|group| group.gid));
        groups[1..].sort_unstable();
        groups.dedup();
        if let Some(again) = groups.iter().skip(1).position(|other| *other == gid) {
            groups.remove(again + 1);
        }
    }
    if groups.len() > MAX_GROUPS {
        return Err(Failure::plain(format!(
            "user `{user}` is in more than {MAX_GROUPS} groups of the image"
        )));
    }
    let home = if home.is_empty() { &b"/"[..] } else { home };
    // Entries hold no NUL; should one, it ends the string.
    let home = CString::new(home).unwrap_or_else(|_| c"/".into());
    Ok(Identity { uid, gid, groups, home })
}

/// The entry of `user`, or its number when it is one without an entry.
fn find_user<'a>(user: &str, passwd: &'a [u8]) -> Result<Result<User<'a>, u32>, Failure> {
    let wanted = if user.is_empty() { Some(0) } else { number("user", user)? };
    let fits = |entry: &User| match wanted {
        Some(uid) => entry.uid == uid,
        None => entry.name == user.as_bytes(),
    };
    match (accounts::users(passwd).find(fits), wanted) {
        (Some(entry), _) => Ok(Ok(entry)),
        (None, Some(uid)) => Ok(Err(uid)),
        (None, None) => Err(absent("user", user, "passwd")),
    }
}

fn find_group(group: &str, file: &[u8]) -> Result<u32, Failure> {
    if let Some(gid) = number("group", group)? {
        return Ok(gid);
    }
    let fits = |entry: &Group| entry.name == group.as_bytes();
    accounts::groups(file).find(fits).map(|entry| entry.gid).ok_or_else(|| absent("group", group, "group"))
}

/// The id that `text` is when it is all digits: then it is never a name.
fn number(what: &str, text: &str) -> Result<Option<u32>, Failure> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    let out_of_range = || Failure::plain(format!("{what} {text} is out of range: ids go up to {}", i32::MAX));
    accounts::id(text.as_bytes()).map(Some).ok_or_else(out_of_range)
}

fn absent(what: &str, name: &str, file: &str) -> Failure {
    let name = name.escape_debug();
    Failure::plain(format!("{what} `{name}` is not in the image's /etc/{file}: use one that is, or a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nann:x:1000:100:Ann:/home/ann:/bin/sh\n\
        ann:x:2000:200::/other:\ntwin:x:1000:300::/twin:\n500:x:501:502::/five:\nnohome:x:7:7\n";
    const GROUP: &[u8] = b"root:x:0:root\nbin:x:1:root,ann\nusers:x:100:\nwheel:x:10:ann,root\nwheel:x:11:\n\
        again:x:10:ann\nmain:x:100:ann\n";

    fn of(user: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        resolve(user, PASSWD, || Ok(GROUP.to_vec()))
            .map(|found| (found.uid, found.gid, found.groups, found.home.into_string().unwrap()))
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn users_resolve_as_docker_has_them() {
        let table: &[(&str, u32, u32, &[u32], &str)] = &[
            ("", 0, 0, &[0, 1, 10], "/root"),
            ("root", 0, 0, &[0, 1, 10], "/root"),
            ("0", 0, 0, &[0, 1, 10], "/root"),
            ("ann", 1000, 100, &[100, 1, 10], "/home/ann"), // first entry of two; each group once
            ("ann:", 1000, 100, &[100, 1, 10], "/home/ann"),
            ("1000", 1000, 100, &[100, 1, 10], "/home/ann"), // a number with an entry is that user
            ("ann:wheel", 1000, 10, &[10], "/home/ann"),     // group given: no others
            ("ann:4242", 1000, 4242, &[4242], "/home/ann"),
            ("1000:0", 1000, 0, &[0], "/home/ann"),
            (":wheel", 0, 10, &[10], "/root"),
            ("4711", 4711, 0, &[0], "/"), // a number needs no entry
            ("4711:4712", 4711, 4712, &[4712], "/"),
            ("500", 500, 0, &[0], "/"), // digits are never a name
            ("nohome", 7, 7, &[7], "/"),
        ];
        for (user, uid, gid, groups, home) in table {
            assert_eq!(of(user), Ok((*uid, *gid, groups.to_vec(), home.to_string())), "{user}");
        }
        for bad in ["nobody", "ann:nogroup", "-1", "+0", "2147483648", "1:4294967295", "ann:wheel:x", "a\nb"]
        {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn without_files_only_numbers_work() {
        let bare = |user| resolve(user, b"", || Ok(Vec::new()));
        assert_eq!(bare("").unwrap(), Identity { uid: 0, gid: 0, groups: vec![0], home: c"/".into() });
        assert_eq!(bare("5:6").unwrap().groups, [6]);
        assert!(bare("root").unwrap_err().to_string().contains("`root` is not in the image's /etc/passwd"));
    }

    #[test]
    fn too_many_groups_are_an_error() {
        let many: String = (1..=MAX_GROUPS + 1).map(|gid| format!("g:x:{gid}:root\n")).collect();
        assert!(resolve("", PASSWD, || Ok(many.into_bytes())).is_err());
    }
}
