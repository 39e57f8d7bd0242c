//! What stands around a microVM's monitor, seen from outside: what somebody who took it over could reach.

mod support;

mod vm {
    use std::fs::{self, File};
    use std::io::ErrorKind;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};

    use hv_common::Kind;
    use hv_common::state::{State, Store};
    use hv_common::sys::fork::{UnshareFlags, unshare};
    use hv_vmm::jail::FIRST_USER;
    use rustix::process::{Gid, Pid, Signal, Uid, chdir, kill_process};
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

    use super::support::{Running, finish, shell, unavailable};

    /// A microVM whose workload waits for its input to end, and its state; None where none can run.
    fn waiting(name: &str, options: &[&str]) -> Option<(Running, State)> {
        if let Some(reason) = unavailable(Kind::Vm) {
            println!("skipped: {reason}");
            return None;
        }
        let name = format!("{name}-{}", std::process::id());
        let options = [&["--name", &name], options].concat();
        let mut running = Running::start(shell(Kind::Vm, &options, "echo ready; cat"));
        running.wait_for("ready");
        let id = name.try_into().unwrap();
        // It is written as soon as the monitor knows that the workload runs, which is not before it says so.
        let state = loop {
            match Store::open().unwrap().state(&id) {
                Some(state) => break state,
                None => std::thread::yield_now(),
            }
        };
        Some((running, state))
    }

    fn read(pid: i32, file: &str) -> String {
        fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap()
    }

    fn field<'a>(status: &'a str, name: &str) -> Vec<&'a str> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in {status}")).split_whitespace().collect()
    }

    /// Every thread, not only the first.
    fn threads(pid: i32) -> Vec<(String, String)> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let of = |path: PathBuf| {
            let text = |file| fs::read_to_string(path.join(file)).unwrap();
            (text("comm").trim().to_owned(), text("status"))
        };
        tasks.map(|task| of(task.unwrap().path())).collect()
    }

    #[test]
    fn every_thread_is_nobody_with_no_rights_and_a_filter() {
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: needs root");
        }
        let Some((mut running, state)) = waiting("rights", &[]) else { return };
        let monitor = state.holder.unwrap();
        let user = (FIRST_USER + monitor as u32).to_string();
        let threads = threads(monitor);
        for name in ["vcpu0", "events", "control"] {
            assert!(threads.iter().any(|(thread, _)| thread == name), "no {name} thread: {threads:?}");
        }
        for (name, status) in &threads {
            for ids in ["Uid", "Gid"] {
                assert_eq!(field(status, ids), [&*user; 4], "{name}: {ids}");
            }
            assert_eq!(field(status, "Groups"), [""; 0], "{name}");
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(field(status, set), ["0000000000000000"], "{name}: {set}");
            }
            assert_eq!(field(status, "NoNewPrivs"), ["1"], "{name}");
            assert_eq!(field(status, "Seccomp"), ["2"], "{name} has no filter");
        }
        let numbers = read(monitor, "status");
        assert_eq!(field(&numbers, "NSpid").last(), Some(&"1"), "the first of its pid namespace");
        for (limit, value) in
            [("Max core file size", "0"), ("Max processes", "512"), ("Max open files", "4096")]
        {
            let limits = read(monitor, "limits");
            let line = limits.lines().find(|line| line.starts_with(limit)).unwrap();
            assert_eq!(line[limit.len()..].split_whitespace().next(), Some(value), "{line}");
        }
        running.end_input();
        running.finish().expect(0);
    }

    #[test]
    fn nothing_can_be_opened_from_where_the_monitor_is() {
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: needs root");
        }
        let Some((mut running, state)) = waiting("view", &[]) else { return };
        let monitor = state.holder.unwrap();
        for kind in ["mnt", "net", "ipc", "uts", "pid"] {
            let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
            assert_ne!(of(&monitor.to_string()), of("self"), "{kind}");
        }
        let mounts = read(monitor, "mountinfo");
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
        assert!(mounts.contains(" / / ro,nosuid,nodev,noexec") && mounts.contains("- tmpfs "), "{mounts}");
        let root = PathBuf::from(format!("/proc/{monitor}/root"));
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "its root is empty");
        assert_eq!(
            fs::metadata(&root).unwrap().mode() & 0o777,
            0,
            "even root's own test may look only by right of root"
        );
        assert_eq!(fs::write(root.join("x"), "").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        let network = read(monitor, "net/dev");
        assert_eq!(network.lines().skip(2).filter(|line| !line.trim_start().starts_with("lo:")).count(), 0);
        assert_eq!(
            read(monitor, "net/unix").lines().skip(1).count(),
            0,
            "no socket of the host is in its view"
        );

        std::thread::spawn(move || attack(monitor)).join().unwrap();
        running.end_input();
        running.finish().expect(0);
    }

    /// A thread of this test goes where the monitor is, as who the monitor is, with no filter, and tries.
    fn attack(monitor: i32) {
        let open = |kind: &str| File::open(format!("/proc/{monitor}/ns/{kind}")).unwrap();
        use LinkNameSpaceType as T;
        let spaces = [
            ("net", T::Network),
            ("ipc", T::InterProcessCommunication),
            ("uts", T::HostNameAndNISDomainName),
            ("mnt", T::Mount),
        ];
        let spaces = spaces.map(|(name, kind)| (open(name), kind));
        unshare(UnshareFlags::FS).unwrap();
        for (space, kind) in spaces {
            move_into_link_name_space(space.as_fd(), Some(kind)).unwrap();
        }
        let id = FIRST_USER + monitor as u32;
        let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(group, group, group).unwrap();
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        chdir("/").unwrap_err();
        for path in
            ["/", ".", "..", "/proc", "/proc/self/root", "/dev/kvm", "/etc/passwd", "../../../etc/passwd"]
        {
            File::open(path).map(|_| panic!("{path} opens")).unwrap_err();
            fs::read_dir(path).map(|_| panic!("{path} can be listed")).unwrap_err();
        }
        for path in ["/x", "x", "/tmp/x", "/dev/shm/x"] {
            fs::write(path, "").map(|()| panic!("{path} can be written")).unwrap_err();
            fs::create_dir(path).map(|()| panic!("{path} can be made")).unwrap_err();
        }
        std::net::TcpStream::connect("127.0.0.1:22").unwrap_err();
        std::process::Command::new("/bin/true").spawn().map(|_| panic!("it executes")).unwrap_err();
        rustix::mount::mount("none", "/", "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap_err();
        unshare(UnshareFlags::NEWNET).unwrap_err();
        rustix::process::chroot("..").unwrap_err();
    }

    /// What it holds is what a guest is made of: nothing leads on from there.
    #[test]
    fn its_descriptors_lead_nowhere() {
        let Some((mut running, state)) = waiting("fds", &["--seccomp", "kill"]) else { return };
        let monitor = state.holder.unwrap();
        for entry in fs::read_dir(format!("/proc/{monitor}/fd")).unwrap() {
            let entry = entry.unwrap();
            let to = fs::read_link(entry.path()).unwrap();
            let name = to.to_str().unwrap();
            if ["anon_inode:", "socket:", "pipe:"].iter().any(|kind| name.starts_with(kind)) {
                continue;
            }
            let info = read(monitor, &format!("fdinfo/{}", entry.file_name().to_str().unwrap()));
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
            let writable = i32::from_str_radix(flags, 8).unwrap() & access() != 0;
            assert!(!Path::new(name).is_dir(), "{name} is a directory");
            let own_lock = Store::open().unwrap().path().join(state.id.as_str()).join("lock");
            assert!(!writable || to == own_lock, "{name} can be written");
        }
        running.end_input();
        running.finish().expect(0);
    }

    /// `O_ACCMODE`.
    fn access() -> i32 {
        rustix::fs::OFlags::RWMODE.bits() as i32
    }

    #[test]
    fn a_monitor_that_is_killed_is_told_and_cleaned_up_after() {
        let Some((running, state)) = waiting("killed", &[]) else { return };
        kill_process(Pid::from_raw(state.holder.unwrap()).unwrap(), Signal::KILL).unwrap();
        let done = running.finish().expect(125);
        assert!(done.stderr.contains("monitor was ended by signal 9"), "{}", done.stderr);
        assert!(!Store::open().unwrap().path().join(state.id.as_str()).exists());
    }

    #[test]
    fn it_runs_without_a_jail_and_without_filters() {
        let Some((mut running, state)) = waiting("open", &["--no-jail", "--seccomp=off"]) else { return };
        let monitor = state.holder.unwrap();
        let status = read(monitor, "status");
        assert_eq!(field(&status, "Seccomp"), ["0"]);
        assert_eq!(field(&status, "NSpid").len(), 1);
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
        assert_eq!(of(&monitor.to_string()), of("self"));
        running.end_input();
        running.finish().expect(0);
    }

    #[test]
    fn the_plan_says_what_stands_around() {
        if let Some(reason) = unavailable(Kind::Vm) {
            return println!("skipped: {reason}");
        }
        let plan = |options: &[&str]| {
            let options = [options, &["--dry-run"]].concat();
            finish(shell(Kind::Vm, &options, "true"), b"").expect(0).text()
        };
        let shut = plan(&["--jail"]);
        for words in
            ["pid namespace", "an empty root directory", "no capabilities", "any other ends the monitor"]
        {
            assert!(shut.contains(words), "{shut}");
        }
        let open = plan(&["--no-jail", "--seccomp", "off"]);
        assert!(open.contains("no jail:") && open.contains("no system call filters"), "{open}");
    }
}

/// Words of a microVM's walls are refused for a container, with the reason.
#[test]
fn a_container_says_why_it_has_none_of_these() {
    for (option, why) in [
        ("--jail", "shut in by what a container is"),
        ("--no-jail", "shut in"),
        ("--seccomp=off", "always on"),
    ] {
        let done = support::finish(support::hv(&["ctr", "/", option, "--", "true"]), b"").expect(125);
        assert!(done.stderr.contains("only for `hv vm`") && done.stderr.contains(why), "{}", done.stderr);
    }
}
