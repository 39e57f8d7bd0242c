//! Disk images: each file system, untouched by a run, or written with `--rw`; and what is refused.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::*;
use hv_common::{Backend, Format, Root};
use hv_container::{Bare, Namespaces};

const SCRIPT: &str = "echo evil > /etc/passwd && cat /etc/passwd && touch /new && rm -r /home";

/// Runs a tool; false, with a word about it, if it is not installed or there is no root to mount with.
fn made(tool: &str, args: &[&str]) -> bool {
    if !is_root() {
        return skipped("mounting an image needs root");
    }
    match Command::new(tool).args(args).output() {
        Ok(output) => {
            assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
            true
        }
        Err(error) => skipped(&format!("{tool}: {error}")),
    }
}

fn make(dir: &Path, format: Format) -> Option<PathBuf> {
    let image = dir.join("image");
    let (root, path) = (image_root(), image.to_str().unwrap());
    let done = match format {
        Format::Erofs => made("mkfs.erofs", &[path, root]),
        Format::Squashfs => made("mksquashfs", &[root, path, "-quiet", "-no-progress"]),
        Format::Ext4 => made("mke2fs", &["-q", "-t", "ext4", "-d", root, path, "16M"]),
    };
    done.then_some(image)
}

fn image_root() -> &'static str {
    image().to_str().unwrap()
}

fn disk(path: &Path, format: Format, writable: bool) -> Root {
    let file = File::options().read(true).write(writable).open(path).unwrap();
    Root::Disk { path: path.to_owned(), file, format, writable }
}

fn loop_devices_of(path: &Path) -> usize {
    let backing = |name: &std::ffi::OsStr| {
        std::fs::read_to_string(Path::new("/sys/block").join(name).join("loop/backing_file"))
            .unwrap_or_default()
    };
    let devices = std::fs::read_dir("/sys/block").unwrap();
    devices
        .filter(|entry| backing(&entry.as_ref().unwrap().file_name()).contains(path.to_str().unwrap()))
        .count()
}

fn runs_and_stays_as_it_is(format: Format) {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = make(dir.path(), format) else { return };
    let before = std::fs::read(&path).unwrap();
    let outcome = run(spec_of(disk(&path, format, false), &["sh", "-c", SCRIPT]));
    assert_eq!(outcome.ok(), "evil\n");
    assert!(std::fs::read(&path).unwrap() == before, "the image changed");
    eventually("its loop device is gone", || loop_devices_of(&path) == 0);
}

#[test]
fn erofs_runs_and_stays_as_it_is() {
    runs_and_stays_as_it_is(Format::Erofs);
}

#[test]
fn squashfs_runs_and_stays_as_it_is() {
    runs_and_stays_as_it_is(Format::Squashfs);
}

#[test]
fn ext4_runs_and_stays_as_it_is() {
    runs_and_stays_as_it_is(Format::Ext4);
}

#[test]
fn writable_images_keep_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = make(dir.path(), Format::Ext4) else { return };
    let write = spec_of(disk(&path, Format::Ext4, true), &["sh", "-c", "echo kept > /kept"]);
    assert_eq!(run(write).exit.status(), 0);
    // A container that another test is just starting has a copy of every descriptor, this mount's too.
    eventually("the image is unmounted", || loop_devices_of(&path) == 0);
    assert_eq!(run(spec_of(disk(&path, Format::Ext4, false), &["cat", "/kept"])).ok(), "kept\n");
    eventually("its loop device is gone", || loop_devices_of(&path) == 0);
}

#[test]
fn formats_that_nobody_can_write_are_refused_for_writing() {
    let dir = tempfile::tempdir().unwrap();
    for format in [Format::Erofs, Format::Squashfs] {
        let Some(path) = make(dir.path(), format) else { return };
        let error =
            start_on(&Namespaces::new(), spec_of(disk(&path, format, true), &["true"])).err().unwrap();
        assert!(chain(&error).contains("--rw"), "{}", chain(&error));
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn images_that_are_not_what_they_say_are_refused_with_the_kernels_words() {
    if !is_root() && !skipped("mounting an image needs root") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, vec![0u8; 1 << 20]).unwrap();
    for format in [Format::Erofs, Format::Squashfs, Format::Ext4] {
        let error =
            start_on(&Namespaces::new(), spec_of(disk(&path, format, false), &["true"])).err().unwrap();
        let text = chain(&error);
        assert!(error.status == 125 && text.contains(format.name()) && text.contains("image"), "{text}");
    }
    eventually("its loop device is gone", || loop_devices_of(&path) == 0);
}

#[test]
fn bare_processes_leave_images_alone_too() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = make(dir.path(), Format::Erofs) else { return };
    for root in [disk(&path, Format::Erofs, false), spec(image(), &[]).root] {
        let outcome = start_on(&Bare::new(), spec_of(root, &["sh", "-c", SCRIPT])).unwrap().finish();
        assert_ne!(outcome.exit.status(), 0);
        assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    }
}

both_ways! {
    fn a_disk_image_without_root_is_refused() {
        if is_root() {
            // The other way round is the test.
            return again_as_nobody(concat!(module_path!(), "::a_disk_image_without_root_is_refused"));
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let spec = spec_of(disk(file.path(), Format::Erofs, false), &["true"]);
        let error = start_on(&Namespaces::new(), spec).err().unwrap();
        assert!(chain(&error).contains("needs root"), "{}", chain(&error));
        let plan = Namespaces::new().plan(&spec_of(disk(file.path(), Format::Erofs, false), &["true"]));
        assert!(plan.iter().any(|line| line.contains("user namespace") || line.contains("map ids")), "{plan:?}");
    }
}
