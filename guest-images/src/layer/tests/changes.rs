//! What is written is read back.

use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;

use super::super::tar::{Archive, Entry, What};
use super::super::{Body, Writer, changes};
use crate::erofs::Metadata;

fn read(tar: &[u8]) -> Vec<Entry> {
    let mut archive = Archive::new(tar);
    std::iter::from_fn(|| archive.next_entry().unwrap()).collect()
}

fn names(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| String::from_utf8(entry.path.clone()).unwrap()).collect()
}

#[test]
fn an_upper_directory_becomes_a_layer() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("d")).unwrap();
    std::fs::write(at("d/file"), "hello").unwrap();
    std::fs::hard_link(at("d/file"), at("d/second")).unwrap();
    std::fs::set_permissions(at("d/file"), std::fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("/etc/passwd", at("link")).unwrap();
    let root = rustix::process::geteuid().is_root();
    if root {
        let whiteout = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, at("gone"), whiteout, 0o600.into(), 0).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(at("d"), "trusted.overlay.opaque", b"y", flags).unwrap();
    }
    let mut tar = Vec::new();
    changes(dir.path(), Some(1000), &mut tar).unwrap();
    let entries = read(&tar);
    let expected = match root {
        true => vec!["d/", "d/.wh..wh..opq", "d/file", "d/second", ".wh.gone", "link"],
        false => vec!["d/", "d/file", "d/second", "link"],
    };
    assert_eq!(names(&entries), expected);
    let of = |name: &str| entries.iter().find(|entry| entry.path == name.as_bytes()).unwrap();
    assert_eq!((of("d/file").metadata.permissions, of("d/file").metadata.seconds), (0o4751, 1000));
    assert_eq!(of("d/second").what, What::HardLink(b"d/file".to_vec()));
    assert_eq!(of("link").what, What::Link(b"/etc/passwd".to_vec()));
    let mut again = Vec::new();
    changes(dir.path(), Some(1000), &mut again).unwrap();
    assert_eq!(tar, again);
}

proptest! {
    #[test]
    fn entries_round_trip(
        path in prop::collection::vec(1u8..=255, 1..300),
        target in prop::collection::vec(1u8..=255, 1..200),
        permissions in 0u16..0o10000, uid: u32, gid: u32, seconds in -4_000_000_000i64..4_000_000_000_000,
        value in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        prop_assume!(!path.ends_with(b"/"));
        let xattrs = [(b"user.x".to_vec(), value)].into();
        let metadata = Metadata { permissions, uid, gid, seconds, nanoseconds: 0, xattrs };
        let mut writer = Writer::new(Vec::new());
        writer.entry(&path, &metadata, Body::Link(&target)).unwrap();
        writer.entry(&path, &metadata, Body::File(5)).unwrap();
        writer.data(5, &b"hello more"[..]).unwrap();
        writer.entry(&path, &metadata, Body::Character(5, 300)).unwrap();
        let entries = read(&writer.finish().unwrap());
        prop_assert_eq!(entries.len(), 3);
        for entry in &entries {
            prop_assert_eq!(&entry.path, &path);
            prop_assert_eq!(&entry.metadata, &metadata);
        }
        prop_assert_eq!(&entries[0].what, &What::Link(target));
        prop_assert!(matches!(&entries[1].what, What::File(contents) if contents.size == 5));
        prop_assert_eq!(&entries[2].what, &What::Character(5, 300));
    }
}
