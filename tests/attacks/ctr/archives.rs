//! Attacks 23, 24 and 26: archives that are started, made to reach what is outside of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::hostile::{Door, Hostile};
use crate::made::Tar;
use crate::support::{Finished, finish, image};

struct Archives {
    hostile: Hostile,
}

impl Archives {
    fn new() -> Archives {
        Archives { hostile: Hostile::new().doors(&[Door::Ctr]) }
    }

    fn outside(&self) -> String {
        self.hostile.outside().to_str().unwrap().to_owned()
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.hostile.outside().parent().unwrap().join("archive.tar");
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Starts the archive by every way that there is; what it was to reach is as it was.
    #[track_caller]
    fn start(&self, tar: Tar, words: &[&str], check: impl Fn(&Finished)) {
        let path = self.file(&tar.end());
        for way in self.hostile.ways() {
            let mut command = self.hostile.hv(way, &["ctr"]);
            let done = finish(
                {
                    command.arg(&path).arg("--").args(words);
                    command
                },
                b"",
            );
            self.hostile.outside_is_untouched(way);
            assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
            // Of who is not root no image is mounted at all.
            match way.rooted {
                true => check(&done),
                false => assert_eq!(done.status, Some(125), "{}", done.stderr),
            }
        }
    }
}

/// An archive with a shell in it.
fn with_shell() -> Tar {
    let busybox = fs::read(image::directory().join("bin/busybox")).unwrap();
    let tar = Tar::new().dir("bin").entry(b'0', b"bin/busybox", "", &busybox);
    ["sh", "ls", "cat", "dd", "stat"]
        .iter()
        .fold(tar, |tar, name| tar.link(&format!("bin/{name}"), "busybox"))
}

#[test]
fn attack_23_cve_2021_29136_archives_write_nothing_outside_of_themselves() {
    let archives = Archives::new();
    let outside = archives.outside();
    for name in [
        format!("../../../../../..{outside}/pwned"),
        "../outside/pwned".into(),
        "x/../../outside/victim".into(),
    ] {
        archives.start(with_shell().file(&name, "x"), &["sh", "-c", "ls"], |done| {
            assert_eq!(done.status, Some(125), "{}", done.stderr);
            assert!(done.stderr.contains("`..`") && done.stderr.contains("archive.tar"), "{}", done.stderr);
        });
    }
    // An absolute name, a link and a file through it, a link that a file of the same name replaces, a whiteout:
    // all of it is in the image, below its own root.
    let inside = format!("cat {outside}/pwned && ! test -e {outside}/victim");
    let prints = |done: &Finished| assert_eq!(done.text(), "x", "{}", done.stderr);
    archives.start(with_shell().file(&format!("{outside}/pwned"), "x"), &["sh", "-c", &inside], prints);
    let through = with_shell().link("a", &outside).file("a/pwned", "x").file("a/.wh.victim", "");
    archives.start(through, &["sh", "-c", &inside], prints);
    let replaced = with_shell().link("a", &format!("{outside}/victim")).file("a", "x");
    archives.start(replaced, &["cat", "/a"], prints);
    let stolen = with_shell().hard("stolen", &format!("{outside}/victim"));
    archives.start(stolen, &["cat", "/stolen"], |done| {
        assert_eq!(done.status, Some(125), "{}", done.stderr);
        assert!(done.stderr.contains("hard link"), "{}", done.stderr);
    });
}

#[test]
fn attack_24_devices_of_an_archive_are_names_and_no_devices() {
    let archives = Archives::new();
    let mut tar = with_shell();
    tar.mode = 0o666;
    tar = tar.device(b'3', "mem", 1, 1).device(b'4', "disk", 8, 0).hard("same", "mem");
    tar.mode = 0o755;
    let script = "for name in mem same disk; do stat -c %F $name; dd if=$name bs=1 count=1 2>/dev/null && echo open; done; true";
    archives.start(tar, &["sh", "-c", script], |done| {
        assert_eq!(
            done.text(),
            "character special file\ncharacter special file\nblock special file\n",
            "{}",
            done.stderr
        );
    });
}

/// Unpacking is hv's own code: no program of the host's path does it, and none of the image's (GHSA-x86f-5xw2-fm2r).
#[test]
fn attack_26_no_program_unpacks_an_archive() {
    let archives = Archives::new();
    let dir = archives.hostile.outside().parent().unwrap().join("path");
    fs::create_dir(&dir).unwrap();
    let ran = archives.hostile.outside().join("ran");
    let programs = ["gzip", "unpigz", "pigz", "zstd", "xz", "tar", "bsdtar", "zcat"];
    let script = format!("#!/bin/sh\necho ran > {}\n", ran.display());
    let mut tar = with_shell();
    for name in programs {
        fs::write(dir.join(name), &script).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        tar = tar.file(&format!("bin/{name}"), &script);
    }
    let plain = archives.file(&tar.end());
    let packed = std::process::Command::new(image::directory().join("bin/busybox"))
        .args(["gzip", "-1"])
        .arg(&plain)
        .status();
    assert!(packed.unwrap().success());
    for way in archives.hostile.ways() {
        let mut command = archives.hostile.hv(way, &["ctr"]);
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", dir.display()));
        let done = finish(
            {
                command.arg(plain.with_extension("tar.gz")).args(["--", "cat", "/bin/gzip"]);
                command
            },
            b"",
        );
        archives.hostile.outside_is_untouched(way);
        if way.rooted {
            assert_eq!(done.text(), script, "{}", done.stderr);
        }
    }
}
