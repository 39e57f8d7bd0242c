//! Random trees.

use std::ffi::OsString;
use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode};

use super::{bytes_of, check, is_root, pack_dir, set_xattr};

/// One file of a random tree.
#[derive(Debug, Clone)]
struct Made {
    directories: Vec<u8>,
    name: Vec<u8>,
    what: u8,
    size: usize,
    mode: u32,
    owner: u32,
    time: (u32, u32),
    attribute: Option<Vec<u8>>,
}

prop_compose! {
    fn made()(
        directories in proptest::collection::vec(0u8..4, 0..4),
        name in proptest::collection::vec(prop_oneof![Just(b'-'), Just(b'.'), Just(0xff), b'a'..=b'd'], 1..12),
        what in 0u8..8,
        size in prop_oneof![0usize..200, 3900usize..4200, 0usize..40_000],
        mode in 0u32..0o10000,
        owner in prop_oneof![Just(0u32), 0u32..70_000, any::<u32>().prop_map(|id| id / 2)],
        time in prop_oneof![Just((1_600_000_000, 0)), (any::<u32>().prop_map(|time| time / 2), 0u32..1_000_000_000)],
        attribute in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
    ) -> Made {
        Made { directories, name, what, size, mode, owner, time, attribute }
    }
}

fn make(root: &Path, made: &Made, last_file: &mut Option<PathBuf>) {
    let mut path = root.to_path_buf();
    path.extend(made.directories.iter().map(|directory| format!("dir{directory}")));
    fs::create_dir_all(&path).unwrap();
    path.push(OsString::from_vec(made.name.clone()));
    if fs::symlink_metadata(&path).is_ok() {
        return;
    }
    let contents: Vec<u8> = (0..made.size).map(|i| (i / 3) as u8).collect();
    match (made.what, &last_file) {
        (0, _) => fs::create_dir(&path).unwrap(),
        (1, _) => symlink("t".repeat(made.size % 4000 + 1), &path).unwrap(),
        (2, _) => rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
        (3, Some(last)) => fs::hard_link(last, &path).unwrap(),
        (4, _) => {
            let file = File::create(&path).unwrap();
            file.set_len(made.size as u64 * 50).unwrap();
            file.write_all_at(&contents, made.size as u64 * 13).unwrap();
        }
        _ => fs::write(&path, contents).unwrap(),
    }
    if is_root() {
        lchown(&path, Some(made.owner), Some(made.owner / 3)).unwrap();
        if let Some(value) = &made.attribute {
            set_xattr(&path, "trusted.attribute", value);
        }
    }
    if matches!(made.what, 0 | 4..) {
        fs::set_permissions(&path, fs::Permissions::from_mode(made.mode | 0o700)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::new(made.time.0.into(), made.time.1);
        File::open(&path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
    }
    if made.what >= 4 {
        *last_file = Some(path);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn random_trees_read_back(all in proptest::collection::vec(made(), 0..60)) {
        let dir = tempfile::tempdir().unwrap();
        let mut last_file = None;
        for one in all.iter().filter(|one| one.name != b"." && one.name != b"..") {
            make(dir.path(), one, &mut last_file);
        }
        let first = check(dir.path());
        prop_assert!(first == bytes_of(&pack_dir(dir.path())), "packed twice, the bytes differ");
    }
}
