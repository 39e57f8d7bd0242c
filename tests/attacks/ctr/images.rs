//! Attacks 29 and 30: images that are no images, or are made to hurt whoever mounts them.

use std::fs;
use std::path::Path;

use crate::hostile::{Door, Hostile, USER, Way};
use crate::support::{finish, image};

#[test]
fn attack_29_cve_2026_24054_an_image_without_contents_is_nobody_elses_disk() {
    let hostile = Hostile::new().doors(&[Door::Ctr]);
    let empty = hostile.outside().parent().unwrap().join("empty");
    fs::create_dir(&empty).unwrap();
    fs::write(empty.with_extension("img"), b"").unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    for way in hostile.ways() {
        for (path, status) in [(empty.clone(), 127), (empty.with_extension("img"), 125)] {
            let mut command = hostile.hv(way, &["ctr"]);
            command.arg(&path).args(["--", "sh", "-c", "ls /"]);
            let done = finish(command, b"").expect(status);
            assert_eq!(done.text(), "", "{way:?}");
        }
        assert_eq!(fs::read_dir(&empty).unwrap().count(), 0, "{way:?}");
    }
    let after = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    assert!(
        after <= mounts + 2,
        "other tests' mounts come and go, a root disk's would stay: {mounts} {after}"
    );
}

/// A file system that lies about itself goes to the host's kernel only as far as root allows, read-only; of a
/// user who is not root it is not mounted at all.
#[test]
fn attack_30_a_file_system_made_to_hurt_is_refused_or_mounted_read_only() {
    let hostile = Hostile::new().doors(&[Door::Ctr]);
    let dir = hostile.outside().parent().unwrap().to_path_buf();
    for whole in image::raw() {
        let mut bytes = fs::read(&whole).unwrap();
        let start = |way: Way, path: &Path| {
            let mut command = hostile.hv(way, &["ctr"]);
            command.arg(path).args(["--", "sh", "-c", "touch /x && ls /"]);
            finish(command, b"")
        };
        let before = image::digest(&whole);
        if !rustix::process::geteuid().is_root() {
            continue;
        }
        let user = Way { door: Door::Ctr, rooted: false };
        let root = Way { door: Door::Ctr, rooted: true };
        let done = start(user, &whole).expect(125);
        assert!(done.stderr.contains("root"), "as {USER}: {}", done.stderr);
        start(root, &whole).expect(0);
        assert_eq!(image::digest(&whole), before, "not changed by whoever writes inside");
        // Every second byte of what describes the file system, spoilt.
        let to = bytes.len().min(4096);
        bytes[1024..to].iter_mut().step_by(2).for_each(|byte| *byte ^= 0xff);
        let spoilt = dir.join("spoilt.img");
        fs::write(&spoilt, &bytes).unwrap();
        let done = start(root, &spoilt);
        assert!(done.status.is_some_and(|status| status >= 125), "{}: {}", whole.display(), done.text());
        assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
        assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(dir.to_str().unwrap()));
    }
}
