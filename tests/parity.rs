//! Both kinds, or say so: every body here runs as a container and as a microVM.

mod support;

use hv_common::Kind;
use rustix::process::Signal;

use support::terminal::InTerminal;
use support::{Running, finish, image, sandbox, shell};

both_kinds! {
    /// The command's own status is hv's.
    fn exit_status(kind: Kind) {
        for status in [0, 255] {
            finish(shell(kind, &[], &format!("exit {status}")), b"").expect(status);
        }
    }

    /// A command that a signal ends: 128 + n, as a shell has it.
    fn ended_by_signal(kind: Kind) {
        for (signal, status) in [("KILL", 137), ("SEGV", 139)] {
            finish(shell(kind, &[], &format!("kill -{signal} $$")), b"").expect(status);
        }
    }

    /// A signal to hv reaches the command, which may handle it.
    fn handles_signals(kind: Kind) {
        let names = [
            (Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP"),
            (Signal::QUIT, "QUIT"), (Signal::USR1, "USR1"), (Signal::USR2, "USR2"),
        ];
        let traps: String = names.iter().map(|(_, name)| format!("trap 'echo got {name}' {name}; ")).collect();
        // `read` is interrupted by a trapped signal, and comes back for the next. One that arrives just
        // before it waits would interrupt nothing: hence the time limit.
        let script = format!("{traps} echo ready; while :; do read -t 1 -r line && exit 9; done");
        let mut running = Running::start(shell(kind, &[], &script));
        running.wait_for("ready");
        for (signal, name) in names {
            running.signal(signal);
            running.wait_for(&format!("got {name}"));
        }
        running.write(b"end\n");
        running.finish().expect(9);
    }

    /// A signal that the command does not handle ends it.
    fn dies_of_signals(kind: Kind) {
        for (signal, status) in [(Signal::TERM, 143), (Signal::INT, 130)] {
            let mut running = Running::start(shell(kind, &[], "echo ready; exec sleep 1000"));
            running.wait_for("ready");
            running.signal(signal);
            running.finish().expect(status);
        }
    }

    /// The environment is what was asked for and nothing of the host's.
    fn environment(kind: Kind) {
        let mut command = shell(kind, &["-e", "A=one two", "-e", "FROM_HOST", "-e", "ABSENT", "--env", "PATH=/bin"], "env");
        command.env("FROM_HOST", "yes").env("SECRET", "no");
        let text = finish(command, b"").expect(0).text();
        let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("SHLVL=") && !line.starts_with("PWD=")).collect();
        lines.sort_unstable();
        assert_eq!(lines, ["A=one two", "FROM_HOST=yes", "HOME=/root", "PATH=/bin"]);
    }

    /// The working directory.
    fn working_directory(kind: Kind) {
        assert_eq!(finish(shell(kind, &["--workdir", "/home/user"], "pwd"), b"").expect(0).text(), "/home/user\n");
    }

    /// A user by name, with the groups that the image gives it.
    fn user_by_name(kind: Kind) {
        let text = finish(shell(kind, &["--user", "user"], "id; echo $HOME"), b"").expect(0).text();
        assert!(text.starts_with("uid=1000(user) gid=1000(user) groups="), "{text}");
        assert!(text.contains("2000(extra)") && !text.contains("(other)"), "{text}");
        assert!(text.ends_with("/home/user\n"), "{text}");
    }

    /// User and group by number, known to the image or not.
    fn user_by_number(kind: Kind) {
        let text = finish(shell(kind, &["--user", "1234:3000"], "id -u; id -g"), b"").expect(0).text();
        assert_eq!(text, "1234\n3000\n");
    }

    /// A user whom the image does not know.
    fn unknown_user(kind: Kind) {
        let failed = finish(shell(kind, &["--user", "nemo"], "id"), b"").expect(125);
        assert!(failed.stderr.contains("nemo"), "{}", failed.stderr);
    }

    /// Standard input arrives, and so does its end.
    fn end_of_input(kind: Kind) {
        assert_eq!(finish(shell(kind, &[], "cat; echo end"), b"a\0b\n").expect(0).text(), "a\0b\nend\n");
        assert_eq!(finish(shell(kind, &[], "wc -c"), b"").expect(0).text().trim(), "0");
    }

    /// 10 MB through standard input and output, every byte the same.
    fn ten_megabytes(kind: Kind) {
        let mut state = 1u64;
        let bytes: Vec<u8> = (0..10_000_000 / 8).flat_map(|_| {
            // xorshift64: bytes of every value, that do not repeat.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        }).collect();
        let back = finish(sandbox(kind, &image::directory(), &[], &["cat"]), &bytes).expect(0);
        assert_eq!(back.stdout.len(), bytes.len());
        assert!(back.stdout == bytes, "bytes were changed");
    }

    /// Standard error is a stream of its own.
    fn separate_streams(kind: Kind) {
        let done = finish(shell(kind, &[], "echo out; echo err >&2; echo out"), b"").expect(0);
        assert_eq!((done.text().as_str(), done.stderr.as_str()), ("out\nout\n", "err\n"));
    }

    /// Without -t there is no terminal.
    fn no_terminal(kind: Kind) {
        finish(shell(kind, &[], "test -t 0 || test -t 1 || test -t 2"), b"").expect(1);
    }

    /// In a terminal: its size, keys, interrupt, resize, and the user's own terminal restored.
    fn terminal(kind: Kind) {
        // A person needs no -t: both ends are terminals.
        let mut seen = InTerminal::start(shell(kind, &[], "stty size; echo $TERM; trap 'stty size' WINCH; trap 'exit 5' INT; echo ready; while :; do read -t 1 -r line && echo \"<$line>\"; done"), 33, 101);
        let before = seen.mode();
        seen.wait_for("33 101");
        seen.wait_for("ready");
        seen.type_in("hello\r");
        seen.wait_for("<hello>");
        seen.resize(44, 132);
        seen.wait_for("44 132");
        // Interrupt, as typed.
        seen.type_in("\x03");
        assert_eq!(seen.status(), Some(5));
        let after = seen.mode();
        assert_eq!((before.input_modes, before.local_modes), (after.input_modes, after.local_modes));
    }

    /// A raw terminal is restored after the ends that nobody planned, too.
    fn bug_23_a_terminal_is_restored_after_signals(kind: Kind) {
        for signal in [Signal::HUP, Signal::TERM] {
            let mut seen = InTerminal::start(shell(kind, &[], "echo ready; sleep 1000"), 24, 80);
            let before = seen.mode();
            seen.wait_for("ready");
            rustix::process::kill_process(seen.pid(), signal).unwrap();
            assert_eq!(seen.status(), Some(128 + signal.as_raw()));
            let after = seen.mode();
            assert_eq!((before.input_modes, before.local_modes), (after.input_modes, after.local_modes));
        }
    }

    /// The host name: the sandbox's name, or what was asked for.
    fn hostname(kind: Kind) {
        let name = format!("named-{kind}-{}", std::process::id());
        assert_eq!(finish(shell(kind, &["--name", &name], "hostname"), b"").expect(0).text().trim(), name);
        assert_eq!(finish(shell(kind, &["--hostname", "box.test"], "hostname"), b"").expect(0).text().trim(), "box.test");
    }

    /// A run writes where it likes, and the image stays as it was, in every format.
    fn image_unchanged(kind: Kind) {
        let script = "set -e; cat /etc/data; echo x > /etc/data; rm /etc/group; mkdir /new; echo y > /new/file; cat /etc/data /new/file; sync";
        for image in image::raw().into_iter().chain([image::directory()]) {
            if !image.is_dir() && !rustix::process::geteuid().is_root() && kind == Kind::Ctr {
                continue;
            }
            let before = image::digest(&image);
            let done = finish(sandbox(kind, &image, &[], &["sh", "-c", script]), b"").expect(0);
            assert_eq!(done.text(), "from the image\nx\ny\n", "{}", image.display());
            assert_eq!(image::digest(&image), before, "{} was changed", image.display());
        }
    }

    /// A tar of a root file system is an image like any other; packed, it is the same file.
    fn root_tar(kind: Kind) {
        if kind == Kind::Ctr && !rustix::process::geteuid().is_root() {
            return println!("skipped: only root may mount a disk image");
        }
        let dir = tempfile::tempdir().unwrap();
        let busybox = image::directory().join("bin/busybox");
        let run = |applet: &[&str]| {
            let done = std::process::Command::new(&busybox).args(applet).current_dir(dir.path()).status();
            assert!(done.unwrap().success(), "{applet:?}");
        };
        let root = image::directory();
        run(&["tar", "-cf", "root.tar", "-C", root.to_str().unwrap(), "."]);
        run(&["gzip", "-1", "-k", "root.tar"]);
        for name in ["root.tar", "root.tar.gz"] {
            let script = "cat /etc/data && echo x > /etc/data && test -x /bin/busybox && cat /etc/data";
            let done = finish(sandbox(kind, &dir.path().join(name), &[], &["sh", "-c", script]), b"").expect(0);
            assert_eq!(done.text(), "from the image\nx\n", "{name}");
        }
        // Kept as a file with a hash tree, it is started by its root hash, and by no other.
        let kept = dir.path().join("root.erofs");
        let mut pack = support::hv(&["pack", "--verity"]);
        pack.arg(dir.path().join("root.tar")).arg(&kept);
        let text = finish(pack, b"").expect(0).text();
        let hash = text.trim().rsplit(' ').next().unwrap().to_owned();
        let start = |hash: &str| finish(sandbox(kind, &kept, &["--verity", hash], &["cat", "/etc/data"]), b"");
        assert_eq!(start(&hash).expect(0).text(), "from the image\n", "{text}");
        assert!(start(&"0".repeat(64)).expect(125).stderr.contains("another image"));
        let file = std::fs::File::options().write(true).open(&kept).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"changed", 100_000).unwrap();
        assert!(start(&hash).expect(125).stderr.contains("it was changed"));
        let refused = finish(sandbox(kind, &dir.path().join("root.tar"), &["--rw"], &["true"]), b"").expect(125);
        assert!(refused.stderr.contains("archive") && refused.stderr.contains("--rw"), "{}", refused.stderr);
    }

    /// However many sandboxes of one archive there are, the host has one file of it, and so one copy in its page cache.
    fn sandboxes_of_one_archive_read_one_file(kind: Kind) {
        if kind == Kind::Ctr && !rustix::process::geteuid().is_root() {
            return println!("skipped: only root may mount a disk image");
        }
        let dir = tempfile::tempdir().unwrap();
        let tar = dir.path().join("root.tar");
        let mut pack = std::process::Command::new(image::directory().join("bin/busybox"));
        pack.arg("tar").arg("-cf").arg(&tar).arg("-C").arg(image::directory()).arg(".");
        assert!(pack.status().unwrap().success());
        let start = || {
            let mut running = Running::start(sandbox(kind, &tar, &[], &["sh", "-c", "echo ready; read -r line"]));
            running.wait_for("ready");
            running
        };
        let mut all = [start(), start()];
        let files: Vec<_> = all.iter().map(|one| image_files(one.pid())).collect();
        assert_eq!(files[0].len(), 1, "{files:?}");
        assert_eq!(files[0], files[1]);
        all.iter_mut().for_each(|one| one.write(b"end\n"));
        all.into_iter().for_each(|one| drop(one.finish().expect(0)));
    }

    /// With --rw, and only then, what a run writes is there for the next.
    fn writable_image(kind: Kind) {
        let Some(ext4) = image::raw().into_iter().find(|image| image.extension().is_some_and(|format| format == "ext4")) else {
            return println!("skipped: no tool makes ext4 images here");
        };
        if kind == Kind::Ctr && !rustix::process::geteuid().is_root() {
            return println!("skipped: only root may mount a disk image");
        }
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("image.ext4");
        std::fs::copy(ext4, &copy).unwrap();
        let run = |options: &[&str], script: &str| finish(sandbox(kind, &copy, options, &["sh", "-c", script]), b"").expect(0).text();
        run(&["--rw"], "echo kept > /etc/data");
        assert_eq!(run(&[], "cat /etc/data; echo lost > /etc/data"), "kept\n");
        assert_eq!(run(&[], "cat /etc/data"), "kept\n");
    }

    /// Who needs more memory than there is, is killed, and hv says so.
    fn memory_limit(kind: Kind) {
        let Some(done) = limited(kind, &["--memory", "64M"], &["tail", "/dev/zero"]) else { return };
        let done = done.expect(137);
        assert!(done.stderr.contains("memory limit of 64 MiB was reached"), "{}", done.stderr);
    }

    /// No more processes than allowed, and the rest goes on.
    fn pids_limit(kind: Kind) {
        let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do sleep 1000 & done 2>/dev/null; echo never";
        let Some(done) = limited(kind, &["--pids", "8"], &["sh", "-c", script]) else { return };
        assert_ne!(done.status, Some(0), "16 children with a limit of 8: {}", done.text());
        finish(shell(kind, &["--pids", "8"], "sleep 0 & wait; echo fine"), b"").expect(0);
    }

    /// Without a command: the image's own.
    fn default_command(kind: Kind) {
        let done = finish(sandbox(kind, &image::directory(), &[], &[]), b"").expect(image::DEFAULT_STATUS);
        assert_eq!(done.text().trim(), image::DEFAULT_OUTPUT);
    }

    /// 127 for a command that is not there.
    fn not_found(kind: Kind) {
        for words in [&["no-such-command"][..], &["/no/such/command"]] {
            let failed = finish(sandbox(kind, &image::directory(), &[], words), b"").expect(127);
            assert!(failed.stderr.contains(words[0]), "{}", failed.stderr);
        }
    }

    /// 126 for one that is no program.
    fn not_executable(kind: Kind) {
        for word in ["/bin/noexec", "/etc"] {
            let failed = finish(sandbox(kind, &image::directory(), &[], &[word]), b"").expect(126);
            assert!(failed.stderr.contains(word), "{}", failed.stderr);
        }
    }

    /// Two sandboxes of one image at once, each with writes of its own.
    fn two_at_once(kind: Kind) {
        for image in image::any_raw().into_iter().chain([image::directory()]) {
            let start = |word: &str| {
                let script = format!("echo {word} > /etc/data; echo ready; read -r line; cat /etc/data");
                Running::start(sandbox(kind, &image, &[], &["sh", "-c", &script]))
            };
            let mut both = [start("one"), start("two")];
            both.iter_mut().for_each(|one| one.wait_for("ready"));
            both.iter_mut().for_each(|one| one.write(b"go\n"));
            let texts = both.map(|one| one.finish().expect(0).text());
            assert_eq!(texts, ["ready\none\n", "ready\ntwo\n"]);
        }
    }

    /// hv's own program runs in an image that holds nothing, as its first process and with its own arguments, and can
    /// execute itself again.
    fn a_program_from_outside_the_image(kind: Kind) {
        let empty = tempfile::tempdir().unwrap();
        let probe = support::probe();
        let options = ["--inject", probe.to_str().unwrap()];
        let words = ["any-name", "work", "--percent", "2", "syscall", "fork-exec", "file-create"];
        let done = finish(sandbox(kind, empty.path(), &options, &words), b"").expect(0);
        let outcomes: Vec<serde_json::Value> =
            done.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let counts = outcomes.iter().map(|outcome| (outcome["name"].as_str(), outcome["operations"].as_u64()));
        let expected = [("syscall", 4000), ("fork-exec", 1), ("file-create", 40)];
        assert_eq!(counts.collect::<Vec<_>>(), expected.map(|(name, count)| (Some(name), Some(count))), "{outcomes:?}");
        assert_eq!(outcomes[2]["place"], "overlay");
        let done = finish(sandbox(kind, empty.path(), &["--inject", "/no/such/program"], &words), b"").expect(125);
        assert!(done.stderr.contains("/no/such/program"), "{}", done.stderr);
    }

    /// Nobody reads the output any more: the command is told, and hv ends.
    fn closed_output(kind: Kind) {
        let mut command = shell(kind, &[], "yes; echo status $? >&2; exit 3");
        let (reading, writing) = std::io::pipe().unwrap();
        command.stdout(writing).stderr(std::process::Stdio::piped()).stdin(std::process::Stdio::null());
        let child = command.spawn().unwrap();
        drop(command);
        let mut first = [0; 2];
        std::io::Read::read_exact(&mut &reading, &mut first).unwrap();
        drop(reading);
        let done = support::run::wait(child);
        assert_eq!(done.status, Some(3), "{}", done.stderr);
        assert!(done.stderr.contains("status 141") || done.stderr.contains("status 1"), "{}", done.stderr);
    }
}

/// Device and inode of every image made by hv that this process, or one below it, has open.
fn image_files(pid: rustix::process::Pid) -> std::collections::BTreeSet<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let (mut found, mut todo) = (std::collections::BTreeSet::new(), vec![pid.as_raw_pid()]);
    while let Some(pid) = todo.pop() {
        let list = |path: String| std::fs::read_dir(path).into_iter().flatten().flatten();
        for open in list(format!("/proc/{pid}/fd")) {
            let made =
                std::fs::read_link(open.path()).is_ok_and(|path| path.to_string_lossy().ends_with(".erofs"));
            if let Some(file) = made.then(|| std::fs::metadata(open.path()).unwrap()) {
                found.insert((file.dev(), file.ino()));
            }
        }
        for task in list(format!("/proc/{pid}/task")) {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            todo.extend(children.split_whitespace().map(|pid| pid.parse::<i32>().unwrap()));
        }
    }
    found
}

/// Runs with a limit; None (and a message) where this user may set none.
fn limited(kind: Kind, options: &[&str], words: &[&str]) -> Option<support::Finished> {
    let done = finish(sandbox(kind, &image::directory(), options, words), b"");
    if kind == Kind::Ctr
        && done.status == Some(125)
        && done.stderr.contains("cannot limit")
        && !rustix::process::geteuid().is_root()
    {
        println!("skipped: {}", done.stderr.trim());
        return None;
    }
    Some(done)
}
