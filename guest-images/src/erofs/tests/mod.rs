//! The kernel mounts what was packed, and every file is compared with what it was made from. Where
//! mounting is not possible (not root, no EROFS), `fsck.erofs` is asked alone, and a line says so.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, FileTimes};
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::*;

mod random;

pub(crate) struct Mounted(pub(crate) tempfile::TempDir);

impl Mounted {
    /// Straight from the nameless file, as a container has it; else through a loop device.
    pub(crate) fn new(image: &File) -> Option<Mounted> {
        let at = tempfile::tempdir().unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), image.as_raw_fd());
        let direct = rustix::mount::mount(&path, at.path(), "erofs", rustix::mount::MountFlags::RDONLY, None);
        if direct.is_ok() {
            return Some(Mounted(at));
        }
        let mount = Command::new("mount")
            .args(["-t", "erofs", "-o", "ro,loop", &path])
            .arg(at.path())
            .output()
            .ok()?;
        if mount.status.success() {
            return Some(Mounted(at));
        }
        let message = String::from_utf8_lossy(&mount.stderr);
        let impossible = ["superuser", "denied", "unknown filesystem", "loop device", "not permitted"];
        assert!(
            impossible.iter().any(|why| message.contains(why)),
            "the kernel refuses it: {direct:?} {message}"
        );
        eprintln!("not compared through a mount: {}", message.trim());
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

fn pack_dir(dir: &Path) -> File {
    let root = crate::open(dir, false).unwrap();
    match pack(&root, &std::env::temp_dir()) {
        Ok(Root::Disk { file, format: Format::Erofs, writable: false, .. }) => file,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn bytes_of(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Everything that can be seen of a file, but its inode number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    device: u64,
    size: u64,
    links: u64,
    pub(crate) contents: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Another name of the same file, the first in order.
    same_as: PathBuf,
}

pub(crate) fn seen(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let (mut all, mut inodes) = (BTreeMap::new(), BTreeMap::new());
    let mut todo = vec![PathBuf::new()];
    while let Some(name) = todo.pop() {
        let path = root.join(&name);
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mut contents = Vec::new();
        if metadata.is_dir() {
            let mut below: Vec<_> =
                fs::read_dir(&path).unwrap().map(|entry| name.join(entry.unwrap().file_name())).collect();
            below.sort();
            todo.extend(below.into_iter().rev());
        } else if metadata.is_file() {
            File::open(&path).unwrap().take(64 << 20).read_to_end(&mut contents).unwrap();
        } else if metadata.is_symlink() {
            contents = fs::read_link(&path).unwrap().into_os_string().into_vec();
        }
        let is_device = metadata.file_type().is_char_device() || metadata.file_type().is_block_device();
        let found = Seen {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            device: if is_device { metadata.rdev() } else { 0 },
            size: if metadata.is_dir() { 0 } else { metadata.size() },
            links: if metadata.is_dir() { 0 } else { metadata.nlink() },
            contents,
            xattrs: xattrs_of(&path),
            same_as: inodes.entry(metadata.ino()).or_insert(name.clone()).clone(),
        };
        all.insert(name, found);
    }
    all
}

fn xattrs_of(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap_or(0);
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 65536];
        let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).unwrap();
        value.truncate(length);
        value
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

/// The kernel and fsck.erofs agree with the directory.
fn check(dir: &Path) -> Vec<u8> {
    let image = pack_dir(dir);
    let path = format!("/proc/{}/fd/{}", std::process::id(), image.as_raw_fd());
    if let Ok(fsck) = Command::new("fsck.erofs").arg(path).output() {
        assert!(fsck.status.success(), "{}", String::from_utf8_lossy(&fsck.stderr));
    }
    if let Some(mounted) = Mounted::new(&image) {
        let (expected, found) = (seen(dir), seen(mounted.0.path()));
        assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
        for (name, expected) in &expected {
            assert!(*expected == found[name], "{}: {}", name.display(), difference(expected, &found[name]));
        }
        let directory_links = |root: &Path| fs::metadata(root).unwrap().nlink();
        assert_eq!(directory_links(dir), directory_links(mounted.0.path()));
    }
    bytes_of(&image)
}

pub(crate) fn difference(expected: &Seen, found: &Seen) -> String {
    let short = |seen: &Seen| {
        format!(
            "{:o} {:?} {:?} {} {} {} {:?}",
            seen.mode,
            seen.owner,
            seen.modified,
            seen.size,
            seen.links,
            seen.contents.len(),
            seen.xattrs.keys().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>()
        )
    };
    format!(
        "expected {}, found {}, same contents: {}",
        short(expected),
        short(found),
        expected.contents == found.contents
    )
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

#[test]
fn an_empty_directory() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(check(dir.path()).len(), 2 * disk::BLOCK);
}

#[test]
fn every_kind_of_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), b"contents").unwrap();
    fs::hard_link(at("file"), at("again")).unwrap();
    fs::create_dir_all(at("deep/er")).unwrap();
    fs::hard_link(at("file"), at("deep/er/third")).unwrap();
    symlink("../nowhere", at("link")).unwrap();
    symlink("x".repeat(4095), at("long link")).unwrap();
    fs::write(at("-before-dot"), b"").unwrap();
    fs::write(dir.path().join(OsStr::from_bytes(b"\xff\xfe\n not UTF-8")), b"x").unwrap();
    fs::write(at(&"n".repeat(255)), b"x").unwrap();
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    drop(UnixListener::bind(at("socket")).unwrap());
    fs::set_permissions(at("deep"), fs::Permissions::from_mode(0o1777)).unwrap();
    if is_root() {
        for (name, kind, device) in [
            ("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
            ("whiteout", FileType::CharacterDevice, 0),
            ("disk", FileType::BlockDevice, rustix::fs::makedev(259, 70_000)),
        ] {
            rustix::fs::mknodat(CWD, at(name), kind, Mode::RUSR, device).unwrap();
        }
        chown(at("file"), Some(100_000), Some(4_000_000_000)).unwrap();
        lchown(at("link"), Some(7), Some(8)).unwrap();
        fs::set_permissions(at("file"), fs::Permissions::from_mode(0o6755)).unwrap();
    }
    check(dir.path());
}

#[test]
fn sizes_around_blocks_and_tails() {
    let dir = tempfile::tempdir().unwrap();
    for size in [
        0, 1, 31, 3967, 3999, 4000, 4031, 4032, 4033, 4064, 4065, 4095, 4096, 4097, 8191, 8192, 12_287,
        300_000,
    ] {
        let contents: Vec<u8> = (0..size).map(|i| (i * 7 + size) as u8).collect();
        fs::write(dir.path().join(size.to_string()), contents).unwrap();
    }
    fs::write(dir.path().join("zeros"), vec![0; 1 << 20]).unwrap();
    check(dir.path());
}

#[test]
fn times_before_1970_and_after_2038_with_nanoseconds() {
    let dir = tempfile::tempdir().unwrap();
    let day = Duration::new(86_400, 123_456_789);
    for (name, time) in [
        ("before", SystemTime::UNIX_EPOCH - day),
        ("after", SystemTime::UNIX_EPOCH + 40_000 * day),
        ("epoch", SystemTime::UNIX_EPOCH),
    ] {
        let file = File::create(dir.path().join(name)).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    }
    check(dir.path());
}

#[test]
fn sparse_files_stay_sparse() {
    let dir = tempfile::tempdir().unwrap();
    let file = File::create(dir.path().join("holes")).unwrap();
    file.set_len((50 << 20) + 77).unwrap();
    file.write_all_at(b"in the middle", 20 << 20).unwrap();
    file.write_all_at(b"end", (50 << 20) + 74).unwrap();
    File::create(dir.path().join("nothing")).unwrap().set_len(3 << 20).unwrap();
    let file = File::create(dir.path().join("large")).unwrap();
    file.set_len(40 << 30).unwrap();
    file.write_all_at(b"x", 33 << 30).unwrap();
    let image = pack_dir(dir.path());
    let blocks = image.metadata().unwrap().blocks();
    assert!(blocks * 512 < 4 << 20, "{blocks} sectors");
    fs::remove_file(dir.path().join("large")).unwrap();
    check(dir.path());
}

#[test]
fn large_directories() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..3000 {
        File::create(dir.path().join(format!("{number:x}-{}", "y".repeat(number % 200)))).unwrap();
    }
    for number in 0..100 {
        fs::create_dir(dir.path().join(format!("dir{number}"))).unwrap();
    }
    check(dir.path());
}

#[test]
fn a_tree_deeper_than_there_are_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let mut here = rustix::fs::open(dir.path(), rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    let depth = 2000;
    for _ in 0..depth {
        rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
        here = rustix::fs::openat(&here, "d", rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    }
    let image = pack_dir(dir.path());
    let block = bytes_of(&image);
    let inodes = u64::from_le_bytes(block[1024 + 16..1024 + 24].try_into().unwrap());
    assert_eq!(inodes, depth + 1);
    Command::new("rm").arg("-rf").arg(dir.path()).status().unwrap();
}

#[test]
fn extended_attributes() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), b"contents").unwrap();
    fs::create_dir(at("dir")).unwrap();
    symlink("file", at("link")).unwrap();
    if !is_root() {
        return;
    }
    // Version 2, effective, cap_net_raw: linux/capability.h.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set_xattr(&at("file"), "security.capability", &capability);
    set_xattr(&at("file"), "trusted.overlay.opaque", b"y");
    set_xattr(&at("link"), "trusted.link", b"on the link itself");
    set_xattr(&at("dir"), "trusted.empty", b"");
    // u::rwx, u:1000:r-x, g::r-x, mask::rwx, o::r-x: linux/posix_acl_xattr.h.
    let mut acl = vec![2, 0, 0, 0];
    for (tag, permissions, id) in
        [(1u16, 7u16, u32::MAX), (2, 5, 1000), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 5, u32::MAX)]
    {
        acl.extend(tag.to_le_bytes().into_iter().chain(permissions.to_le_bytes()).chain(id.to_le_bytes()));
    }
    set_xattr(&at("dir"), "system.posix_acl_access", &acl);
    set_xattr(&at("dir"), "system.posix_acl_default", &acl);
    for size in [1000, 3950, 3960, 4032, 5000, 20_000, 65_535] {
        let name = format!("large{size}");
        fs::write(at(&name), vec![1; size % 4096 + 7]).unwrap();
        set_xattr(&at(&name), "trusted.large", &vec![b'v'; size]);
    }
    check(dir.path());

    set_xattr(&at("file"), "trusted.too.large", &vec![b'v'; 65_536]);
    let refused = pack(&crate::open(dir.path(), false).unwrap(), &std::env::temp_dir());
    assert!(matches!(refused, Err(PackError::File { source: WriteError::Attributes, .. })), "{refused:?}");
}

#[test]
fn equal_trees_give_equal_bytes() {
    let make = |order: [&str; 3]| {
        let dir = tempfile::tempdir().unwrap();
        for name in order {
            let mut file = File::create(dir.path().join(name)).unwrap();
            file.write_all(name.repeat(3000).as_bytes()).unwrap();
            file.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH)).unwrap();
        }
        File::open(dir.path())
            .unwrap()
            .set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH))
            .unwrap();
        bytes_of(&pack_dir(dir.path()))
    };
    assert!(make(["a", "b", "c"]) == make(["c", "a", "b"]));
    assert!(make(["a", "b", "c"]) != make(["a", "b", "d"]));
}

#[test]
fn what_is_mounted_below_stays_out() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("proc")).unwrap();
    fs::write(dir.path().join("file"), b"").unwrap();
    let mount = |from: &str, to: &Path| {
        Command::new("mount").args(["--bind", from]).arg(to).output().unwrap().status.success()
    };
    if !mount("/proc", &dir.path().join("proc")) {
        return;
    }
    let bound = mount("/proc/version", &dir.path().join("file"));
    let image = pack_dir(dir.path());
    for name in ["proc", "file"] {
        Command::new("umount").arg(dir.path().join(name)).status().unwrap();
    }
    let Some(mounted) = Mounted::new(&image) else { return };
    assert_eq!(fs::read_dir(mounted.0.path().join("proc")).unwrap().count(), 0);
    assert!(!bound || fs::read(mounted.0.path().join("file")).unwrap().is_empty());
}

#[test]
fn the_image_is_open_for_reading_only_and_open_recognises_it() {
    let dir = tempfile::tempdir().unwrap();
    let image = pack_dir(dir.path());
    assert!(image.write_at(b"x", 0).is_err());
    let copy = tempfile::NamedTempFile::new().unwrap();
    copy.as_file().write_all_at(&bytes_of(&image), 0).unwrap();
    let opened = crate::open(copy.path(), false).unwrap();
    assert!(matches!(opened, Root::Disk { format: Format::Erofs, .. }));
    assert!(matches!(pack(&opened, dir.path()), Ok(Root::Disk { format: Format::Erofs, .. })), "passed on");
}
