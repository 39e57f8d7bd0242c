//! Layers are merged, and the result is read through the kernel's eyes (or `fsck.erofs` alone, where nothing
//! can be mounted; a line says so).

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::erofs::tests::{Mounted, bytes_of};

mod attacks;
mod made;
mod reference;

pub(crate) use made::Tar;

pub(super) fn layer(bytes: &[u8]) -> Layer {
    let mut blob = tempfile::tempfile().unwrap();
    blob.write_all(bytes).unwrap();
    Layer { name: "test".into(), blob, diff_id: None }
}

pub(crate) fn flat(tars: &[Vec<u8>]) -> Result<Flattened, LayerError> {
    flatten(&tars.iter().map(|tar| layer(tar)).collect::<Vec<_>>(), &std::env::temp_dir())
}

pub(super) fn check_image(image: &File) {
    let path = format!("/proc/{}/fd/{}", std::process::id(), image.as_raw_fd());
    if let Ok(fsck) = Command::new("fsck.erofs").arg(path).output() {
        assert!(fsck.status.success(), "{}", String::from_utf8_lossy(&fsck.stderr));
    }
}

/// All names below, and what regular files hold.
fn listing(root: &Path) -> Vec<(PathBuf, Option<String>)> {
    let mut all: Vec<_> = crate::erofs::tests::seen(root)
        .into_iter()
        .map(|(name, seen)| {
            let is_file = root.join(&name).symlink_metadata().unwrap().is_file();
            (name, is_file.then(|| String::from_utf8_lossy(&seen.contents).into_owned()))
        })
        .collect();
    all.sort();
    all
}

fn expect(tars: &[Vec<u8>], expected: &[(&str, Option<&str>)]) {
    let flat = flat(tars).unwrap();
    check_image(&flat.file);
    if let Some(mounted) = Mounted::new(&flat.file) {
        let found = listing(mounted.0.path());
        let root = [(PathBuf::new(), None)];
        let expected = expected.iter().map(|(name, text)| (name.into(), text.map(String::from)));
        assert_eq!(found, root.into_iter().chain(expected).collect::<Vec<_>>());
    }
}

#[test]
fn whiteouts_and_opaque_directories_hide_lower_layers_only() {
    let lower =
        Tar::new().dir("a").file("a/x", "1").file("a/y", "1").dir("b").file("b/x", "1").file("c", "1");
    // The whiteouts stand behind what their own layer has put in the same place.
    let upper = Tar::new()
        .dir("a")
        .file("a/x", "2")
        .file("a/.wh.x", "")
        .file("a/.wh.y", "")
        .dir("b")
        .file("b/new", "2")
        .file("b/.wh..wh..opq", "")
        .file(".wh.c", "")
        .file(".wh..wh.plnk/1.2", "aufs");
    expect(
        &[lower.end(), upper.end()],
        &[("a", None), ("a/x", Some("2")), ("b", None), ("b/new", Some("2"))],
    );
}

#[test]
fn hard_links_reach_into_lower_layers_and_keep_what_they_name() {
    let lower = Tar::new().file("a", "old").hard("b", "a");
    let upper = Tar::new().hard("c", "./a").file("a", "new");
    let all = [lower.end(), upper.end()];
    expect(&all, &[("a", Some("new")), ("b", Some("old")), ("c", Some("old"))]);
    let refused = flat(&[Tar::new().hard("x", "nowhere").end()]);
    assert!(matches!(refused, Err(LayerError::Entry { source: merge::MergeError::Target(_), .. })));
}

#[test]
fn what_changes_its_kind_replaces_what_was_there() {
    let lower = Tar::new().dir("a").file("a/x", "1").file("b", "1").link("l", "a");
    let upper = Tar::new().file("a", "2").dir("b").file("b/x", "2").dir("l").file("l/x", "2");
    let expected = [("a", Some("2")), ("b", None), ("b/x", Some("2")), ("l", None), ("l/x", Some("2"))];
    expect(&[lower.end(), upper.end()], &expected);
}

#[test]
fn links_on_the_way_are_followed_inside_of_the_image() {
    let lower = Tar::new().dir("usr").dir("usr/lib").link("lib", "usr/lib").link("out", "../../../usr");
    let upper = Tar::new().file("lib/x", "1").file("out/y", "2");
    let found = flat(&[lower.end(), upper.end()]).unwrap();
    if let Some(mounted) = Mounted::new(&found.file) {
        assert_eq!(fs::read_to_string(mounted.0.path().join("usr/lib/x")).unwrap(), "1");
        assert_eq!(fs::read_to_string(mounted.0.path().join("usr/y")).unwrap(), "2");
    }
    let circle = Tar::new().link("a", "b").link("b", "a").file("a/x", "");
    assert!(matches!(flat(&[circle.end()]), Err(LayerError::Entry { source: merge::MergeError::Links, .. })));
}

#[test]
fn attributes_of_overlayfs_do_not_enter_an_image() {
    let tar = Tar::new()
        .xattr("trusted.overlay.opaque", b"y")
        .xattr("user.overlay.redirect", b"/x")
        .xattr("user.a", b"b")
        .xattr("security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
        .file("x", "1");
    let found = flat(&[tar.end()]).unwrap();
    let bytes = bytes_of(&found.file);
    let has = |text: &[u8]| memchr::memmem::find(&bytes, text).is_some();
    assert!(has(b"capability") && !has(b"overlay."));
}

#[test]
fn equal_files_are_stored_once_and_equal_layers_give_equal_bytes() {
    let big = "0123456789abcdef".repeat(64 << 10);
    let once = Tar::new().file("a", &big);
    let thrice = Tar::new().file("a", &big).file("b", "between").file("c", &big).file("d", &big);
    let tar = thrice.end();
    let (once, thrice) = (flat(&[once.end()]).unwrap(), flat(std::slice::from_ref(&tar)).unwrap());
    let size = |flat: &Flattened| flat.file.metadata().unwrap().len();
    assert!(size(&thrice) < size(&once) + (64 << 10), "{} {}", size(&once), size(&thrice));
    assert!(bytes_of(&flat(&[tar]).unwrap().file) == bytes_of(&thrice.file));
    check_image(&thrice.file);
    if let Some(mounted) = Mounted::new(&thrice.file) {
        for (name, expected) in [("a", &big[..]), ("b", "between"), ("c", &big), ("d", &big)] {
            assert!(fs::read_to_string(mounted.0.path().join(name)).unwrap() == expected, "{name}");
        }
    }
}

/// Files that share their beginning share its blocks, and a file that repeats itself is stored once; what is all new
/// needs no map.
#[test]
fn equal_chunks_of_large_files_are_stored_once() {
    let noise = |seed: u32, length: usize| -> String {
        let mut state = seed;
        let letter = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'a' + (state >> 28) as u8)
        };
        (0..length).map(letter).collect()
    };
    let shared = noise(1, 512 << 10);
    let longer = shared.clone() + &noise(2, 100_001);
    let repeated = noise(3, 64 << 10).repeat(16) + "end";
    let tar = Tar::new().file("a", &shared).file("b", &longer).file("c", &repeated).end();
    let found = flat(&[tar]).unwrap();
    check_image(&found.file);
    let expected = shared.len() + 100_001 + (64 << 10);
    let size = found.file.metadata().unwrap().len() as usize;
    assert!((expected..expected + (64 << 10)).contains(&size), "{size} of {expected}");
    if let Some(mounted) = Mounted::new(&found.file) {
        for (name, expected) in [("a", shared), ("b", longer), ("c", repeated)] {
            assert!(fs::read_to_string(mounted.0.path().join(name)).unwrap() == expected, "{name}");
        }
    }
}

#[test]
fn packed_layers_are_told_by_their_bytes_and_may_have_many_parts() {
    let tar = Tar::new().file("x", &"text".repeat(1000)).end();
    let (front, back) = tar.split_at(700);
    for tool in [&["gzip", "-c"][..], &["zstd", "-c", "-q"]] {
        let pack = |data: &[u8]| crate::compression::tests::pack(tool, data);
        let (Some(front), Some(back)) = (pack(front), pack(back)) else { continue };
        // zstd:chunked has frames to skip between and behind those with data.
        let skip = match tool[0] {
            "zstd" => &b"\x50\x2a\x4d\x18\x03\0\0\0xyz"[..],
            _ => b"",
        };
        let blob = [&front, skip, &back, skip].concat();
        let packed = flat(std::slice::from_ref(&blob)).unwrap();
        assert!(
            bytes_of(&packed.file) == bytes_of(&flat(std::slice::from_ref(&tar)).unwrap().file),
            "{tool:?}"
        );
        assert!(flat(&[blob[..front.len() + skip.len() + back.len() / 2].to_vec()]).is_err());
    }
}

/// GNU tar's and bsdtar's sparse files, long names and negative times, against the kernel's own view.
#[test]
fn what_tar_programs_write_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let sparse = File::create(tree.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &[7; 10_000], 30 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"x", 5 << 30).unwrap();
    sparse.set_len((5 << 30) + 4096 * 3).unwrap();
    fs::create_dir_all(tree.join("d".repeat(200)).join("e".repeat(200))).unwrap();
    fs::write(tree.join("d".repeat(200)).join("e".repeat(200)).join("f".repeat(255)), "deep").unwrap();
    std::os::unix::fs::symlink("t".repeat(300), tree.join("link")).unwrap();
    File::open(&tree)
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH - std::time::Duration::from_millis(1500))
        .unwrap();
    let archive = dir.path().join("archive");
    for tool in [
        &["tar", "--format=gnu", "-S"][..],
        &["tar", "--format=posix", "-S", "--sparse-version=0.0"],
        &["tar", "--format=posix", "-S", "--sparse-version=0.1"],
        &["tar", "--format=posix", "-S", "--sparse-version=1.0"],
        &["bsdtar", "--format=pax", "--read-sparse"],
    ] {
        let mut command = Command::new(tool[0]);
        command.args(&tool[1..]).arg("-cf").arg(&archive).arg("-C").arg(&tree).arg(".");
        let Ok(status) = command.status() else {
            eprintln!("not tried: {} is not installed", tool[0]);
            continue;
        };
        assert!(status.success());
        let blob = File::open(&archive).unwrap();
        let layers = [Layer { name: "archive".into(), blob, diff_id: None }];
        let found = flatten(&layers, dir.path()).unwrap();
        assert!(found.file.metadata().unwrap().len() < 2 << 20, "{tool:?}: holes are stored");
        check_image(&found.file);
        let Some(mounted) = Mounted::new(&found.file) else { continue };
        let time = |path: &Path| path.metadata().unwrap().modified().unwrap();
        let small = |path: &Path| crate::erofs::tests::seen(path).into_keys().collect::<Vec<_>>();
        assert_eq!(small(&tree), small(mounted.0.path()), "{tool:?}");
        let name = PathBuf::from("d".repeat(200)).join("e".repeat(200)).join("f".repeat(255));
        assert_eq!(fs::read_to_string(mounted.0.path().join(name)).unwrap(), "deep");
        // GNU's own format has no fractions, and bsdtar writes those of negative times the other way round.
        if tool[0] == "tar" && !tool[1].contains("gnu") {
            assert_eq!(time(&tree), time(mounted.0.path()), "{tool:?}");
        }
        let file = File::open(mounted.0.path().join("sparse")).unwrap();
        assert_eq!(file.metadata().unwrap().len(), (5 << 30) + 4096 * 3, "{tool:?}");
        let byte = |at: u64, wanted: u8| {
            let mut byte = [9];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, at).unwrap();
            assert_eq!(byte[0], wanted, "{tool:?} at {at}");
        };
        byte(0, 0);
        byte((30 << 20) + 9_999, 7);
        byte((30 << 20) + 10_000, 0);
        byte(5 << 30, b'x');
        byte((5 << 30) + 1, 0);
    }
}
