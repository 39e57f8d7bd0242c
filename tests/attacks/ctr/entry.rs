//! Attacks 1 to 4, 16 and 28: what a container's process is made by, and what it finds when it begins.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::hostile::{Door, Hostile, emulated};
use crate::support::{self, Running, finish, image};

fn write_program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// An image whose program is a script for the program that executes it; another that opens whatever else
/// executes programs, to write to it later.
#[test]
fn attack_01_cve_2019_5736_the_program_file_cannot_be_written() {
    let hostile = Hostile::arranged(|image, _| write_program(&image.join("bin/evil"), "#!/proc/self/exe\n"));
    let before = image::digest(&support::program());
    let script = "for round in 1 2; do for p in /proc/[0-9]*; do \
        case $(readlink $p/exe) in */busybox) continue;; esac; \
        ( exec 9<$p/exe && echo x > /proc/self/fd/9 && echo written $p; echo x >> $p/exe && echo written $p ); \
        done; done 2> /dev/null; echo done";
    for way in hostile.ways() {
        for words in [&["/proc/self/exe", "--version"][..], &["/bin/evil"]] {
            let done = hostile.run_program(way, words);
            // A bundle's process may be hv once more, from a mount that cannot be written; hv ctr's may not.
            assert!(way.door != Door::Ctr || done.status == Some(127), "{way:?} {words:?}: {}", done.text());
        }
        assert_eq!(hostile.run(way, script).text(), "done\n", "{way:?}");
    }
    // In the container meanwhile: whoever comes in by exec is looked at.
    for way in hostile.ways().into_iter().filter(|way| way.door == Door::Exec) {
        let bundle = hostile.bundle(way, &["sh", "-c", &script.replace("1 2", "$(seq 100000)")]);
        bundle.start().expect(0);
        for _ in 0..if emulated() { 1 } else { 5 } {
            bundle.call("exec", &["/proc/self/exe", "--version"]);
            bundle.call("exec", &["true"]).expect(0);
        }
    }
    assert_eq!(image::digest(&support::program()), before);
}

#[test]
fn attack_02_cve_2024_21626_no_directory_of_the_host_is_the_working_directory() {
    let tried = if emulated() { &[3, 7][..] } else { &[3, 5, 7, 8, 9, 12] };
    for fd in tried {
        let cwd = format!("/proc/self/fd/{fd}");
        let options = ["--workdir", &cwd].map(str::to_owned);
        let hostile = Hostile::new()
            .options(&[&options[0], &options[1]])
            .doors(&[Door::Ctr, Door::Run])
            .config(move |config| config["process"]["cwd"] = json!(cwd));
        hostile.each_way("pwd; ls; cat ../../etc/hostname", |way, done| {
            assert_ne!(done.status, Some(0), "{way:?}: {}", done.text());
        });
    }
    let hostile = Hostile::new().doors(&[Door::Exec]);
    for way in hostile.ways() {
        let bundle = hostile.bundle(way, &["sleep", "1000"]);
        bundle.start().expect(0);
        for fd in (3..14).step_by(if emulated() { 4 } else { 1 }) {
            let verb = ["exec", "--cwd", &format!("/proc/self/fd/{fd}")];
            let done = finish(bundle.command(&verb, &["ls"]), b"");
            assert_ne!(done.status, Some(0), "{way:?} {fd}: {}", done.text());
        }
    }
    // 3 is the directory that ls itself has opened.
    Hostile::new().each_way_prints("ls /proc/self/fd; pwd", "0\n1\n2\n3\n/\n");
}

#[test]
fn attack_03_descriptors_of_the_caller_are_not_inherited() {
    let hostile = Hostile::new();
    for way in hostile.ways() {
        let bundle = hostile.bundle(way, &["sh", "-c", "ls /proc/$$/fd; echo end"]);
        let inner = match way.door {
            Door::Ctr => {
                let mut command = hostile.hv(way, &["ctr"]);
                command.arg(hostile.image()).args(["--", "sh", "-c", "ls /proc/$$/fd; echo end"]);
                command
            }
            Door::Run => bundle.command(&["run"], &[]),
            Door::Exec => {
                bundle.start().expect(0);
                bundle.command(&["exec"], &["sh", "-c", "ls /proc/$$/fd; echo end"])
            }
        };
        // The caller's shell has the host's root open, twice, and not to be closed by exec.
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec 3</ 9</; exec \"$@\"", "sh"])
            .arg(inner.get_program())
            .args(inner.get_args());
        command.current_dir(inner.get_current_dir().unwrap()).env_remove("XDG_RUNTIME_DIR");
        let done = finish(command, b"");
        if way.door != Door::Exec || bundle.pid() != 0 {
            assert_eq!(done.text(), "0\n1\n2\nend\n", "{way:?}: {}", done.stderr);
        }
    }
}

/// Programs of the image that tools of the host might run with the host's rights.
#[test]
fn attack_04_cve_2022_1227_no_program_of_the_image_runs_on_the_host() {
    let hostile = Hostile::arranged(|image, outside| {
        let evil = format!("#!/bin/sh\necho owned > {}/owned\n", outside.display());
        for name in ["nsenter", "ps", "newuidmap", "newgidmap", "tar", "xz", "unpigz", "criu"] {
            let path = image.join("bin").join(name);
            let _ = fs::remove_file(&path);
            write_program(&path, &evil);
        }
    });
    for way in hostile.ways().into_iter().filter(|way| way.door == Door::Exec) {
        let bundle = hostile.bundle(way, &["sleep", "1000"]);
        bundle.start().expect(0);
        for verb in ["ps", "state", "pause", "resume"] {
            // From where they are, even.
            let mut command = bundle.command(&[verb], &[]);
            command.current_dir(hostile.image().join("bin"));
            finish(command, b"");
        }
        finish(hostile.hv(way, &["ps"]), b"").expect(0);
        hostile.outside_is_untouched(way);
    }
}

/// Nothing of a start listens in the abstract namespace, which a container in the host's network shares.
#[test]
fn attack_16_cve_2020_15257_no_socket_can_be_reached_by_name_alone() {
    let hostile = Hostile::new();
    for way in hostile.ways() {
        let mut monitor = None;
        let bundle = hostile.bundle(way, &["sleep", "1000"]);
        let mut pids = Vec::new();
        if way.door == Door::Ctr {
            let mut command = hostile.hv(way, &["ctr"]);
            command.arg(hostile.image()).args(["--", "sh", "-c", "echo ready; read -r line"]);
            let mut running = Running::start(command);
            running.wait_for("ready");
            pids.push(running.pid().as_raw_pid());
            monitor = Some(running);
        } else {
            bundle.create(&[]);
            pids.push(bundle.pid());
        }
        let table = fs::read_to_string("/proc/net/unix").unwrap();
        for pid in pids {
            for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
                let target = fs::read_link(entry.path()).unwrap_or_default();
                let text = target.to_string_lossy();
                let Some(inode) = text.strip_prefix("socket:[").and_then(|text| text.strip_suffix(']'))
                else {
                    continue;
                };
                let line = table.lines().find(|line| line.split_whitespace().nth(6) == Some(inode));
                let name = line.and_then(|line| line.split_whitespace().nth(7)).unwrap_or("");
                assert!(!name.starts_with('@'), "{way:?}: {name}");
            }
        }
        drop(monitor);
    }
}

/// User, working directory and environment come from the image, and mean nothing outside of it.
#[test]
fn attack_28_cve_2022_23648_what_an_image_says_of_its_process_stays_inside() {
    let hostile = Hostile::arranged(|image, outside| {
        fs::remove_file(image.join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink(outside.join("passwd"), image.join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("../../../../../../..", image.join("up")).unwrap();
    })
    .options(&["--workdir", "/up/../up/etc", "--env", "LD_PRELOAD=/evil.so", "--env", "PATH=/bin"])
    .doors(&[Door::Ctr]);
    fs::write(hostile.outside().join("passwd"), "root:x:0:0::/:/bin/sh\nann:x:0:0::/:/bin/sh\n").unwrap();
    for way in hostile.ways() {
        assert_eq!(hostile.run(way, "pwd; ls data").text(), "/etc\ndata\n", "{way:?}");
    }
    // The accounts are the image's, where that link leads nowhere.
    for way in hostile.ways() {
        let mut command = hostile.hv(way, &["ctr"]);
        command.arg(hostile.image()).args(["--user", "ann", "--", "id", "-u"]);
        finish(command, b"").expect(125);
    }
}

#[test]
fn nothing_of_the_host_is_left_in_a_waiting_process() {
    let hostile = Hostile::new().doors(&[Door::Run]);
    for way in hostile.ways() {
        let bundle = hostile.bundle(way, &["true"]);
        bundle.create(&[]).expect(0);
        let pid = bundle.pid();
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
            let harmless = target.to_str().is_some_and(|target| target.starts_with("socket:"));
            assert!(number < 3 || harmless, "{way:?}: {number}: {}", target.display());
        }
        for place in ["cwd", "root"] {
            assert_eq!(fs::read_link(format!("/proc/{pid}/{place}")).unwrap(), Path::new("/"), "{way:?}");
        }
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(!String::from_utf8_lossy(&line).contains("create"), "no words of the host: {line:?}");
    }
}
