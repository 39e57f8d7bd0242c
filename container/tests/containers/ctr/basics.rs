//! What every workload sees: exit statuses, streams, user, directory, environment, signals.

use crate::support::*;
use hv_common::Phase;
use hv_common::exit::How;

both_ways! {
    fn exit_statuses_are_the_workloads() {
        assert_eq!(sh("exit 0").exit.status(), 0);
        assert_eq!(sh("exit 42").exit.status(), 42);
        assert_eq!(sh("kill -TERM $$").exit.how, How::Signal(15));
        assert_eq!(sh("kill -KILL $$").exit.how, How::Signal(9));
    }

    fn streams_are_separate_and_end() {
        let outcome = sh("echo out; echo err >&2; cat");
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    }

    fn input_arrives_and_ends() {
        let mut running = start(spec(image(), &["cat"]));
        write_all(running.stdin.as_mut().unwrap(), b"hello\0\xff\n");
        assert_eq!(running.finish().stdout, "hello\0\u{fffd}\n");
    }

    fn ten_megabytes_come_through() {
        let outcome = sh("head -c 10485760 /dev/zero");
        assert_eq!(outcome.stdout.len(), 10 << 20);
    }

    fn directory_and_environment_are_as_asked() {
        let mut spec = spec(image(), &["sh", "-c", "pwd; echo $A; umask"]);
        spec.process.cwd = "/home/ann".into();
        spec.process.env.push("A=b c".into());
        assert_eq!(run(spec).ok(), "/home/ann\nb c\n0022\n");
    }

    fn signals_reach_the_workload() {
        let script = "trap 'exit 7' TERM; trap 'exit 8' HUP; trap 'exit 9' USR1; echo ready; \
            while :; do sleep 0.01; done";
        for (signal, status) in [(libc::SIGTERM, 7), (libc::SIGHUP, 8), (libc::SIGUSR1, 9)] {
            let mut running = start(spec(image(), &["sh", "-c", script]));
            assert_eq!(running.line(), "ready");
            running.sandbox.signal(signal).unwrap();
            assert_eq!(running.finish().exit.status(), status);
        }
    }

    fn signals_that_nobody_can_catch_are_passed_on() {
        let mut running = start(spec(image(), &["sh", "-c", "echo ready; exec cat"]));
        assert_eq!(running.line(), "ready");
        running.sandbox.signal(libc::SIGSTOP).unwrap();
        running.sandbox.signal(libc::SIGCONT).unwrap();
        write_all(running.stdin.as_mut().unwrap(), b"on\n");
        assert_eq!(running.line(), "on");
        running.sandbox.signal(libc::SIGKILL).unwrap();
        assert_eq!(running.sandbox.wait().unwrap().how, How::Signal(9));
    }

    fn signals_are_at_their_defaults() {
        let status = run(spec(image(), &["grep", "-E", "Sig(Blk|Ign)|ShdPnd", "/proc/self/status"])).ok();
        assert_eq!(status.matches("0000000000000000").count(), 3, "{status}");
    }

    fn commands_that_cannot_run_have_their_own_statuses() {
        for (program, status) in [("nonesuch", 127), ("/bin/nonesuch", 127), ("/etc/passwd", 126), ("/etc", 126)] {
            let error = start_on(&hv_container::Namespaces::new(), spec(image(), &[program])).err().unwrap();
            assert_eq!(error.status, status, "{program}: {}", chain(&error));
            assert!(chain(&error).contains(program), "{}", chain(&error));
        }
    }

    fn orphans_are_reaped_and_all_end_with_the_workload() {
        // The orphan's own end must not be taken for the workload's.
        let out = sh("(setsid sh -c 'exit 3' &) ; (setsid sleep 1000 &) ; sleep 0.1; ps | grep -c '[Z]ombie'; exit 5");
        assert_eq!((out.exit.status(), out.stdout.as_str()), (5, "0\n"));
    }

    fn phases_come_in_order() {
        let running = start(spec(image(), &["true"]));
        let timeline = running.timeline.clone();
        running.finish();
        let order = [Phase::Opened, Phase::Boundary, Phase::Init, Phase::Exec, Phase::Exit, Phase::Gone];
        let instants: Vec<u64> = order.iter().map(|phase| timeline.at(*phase).unwrap()).collect();
        assert!(instants.is_sorted(), "{instants:?}");
    }

    fn exit_is_announced() {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut running = start(spec(image(), &["cat"]));
        let ready = |running: &Running, timeout: i64| {
            let mut ends = [PollFd::from_borrowed_fd(running.sandbox.exit_fd(), PollFlags::IN)];
            let timeout = rustix::event::Timespec { tv_sec: timeout, tv_nsec: 0 };
            poll(&mut ends, Some(&timeout)).unwrap() == 1
        };
        assert!(!ready(&running, 0));
        drop(running.stdin.take());
        assert!(ready(&running, 10));
        assert_eq!(running.sandbox.wait().unwrap().status(), 0);
        assert_eq!(running.sandbox.wait().unwrap().status(), 0, "and once more");
    }

    fn two_of_one_image_run_at_once() {
        let mut first = start(spec(image(), &["sh", "-c", "echo 1 > /tmp/who; echo; cat > /dev/null; cat /tmp/who"]));
        first.line();
        let second = sh("test -e /tmp/who || echo 2 > /tmp/who; cat /tmp/who");
        assert_eq!(second.ok(), "2\n");
        assert_eq!(first.finish().ok(), "1\n");
    }

    fn processes_are_listed() {
        let mut running = start(spec(image(), &["sh", "-c", "sleep 1000 & echo; cat"]));
        running.line();
        let pids = running.sandbox.pids();
        // PID 1, the shell, sleep, and cat if it is there already.
        assert!(pids.len() >= 3, "{pids:?}");
        for pid in pids {
            assert!(std::fs::exists(format!("/proc/{pid}")).unwrap());
        }
    }
}

both_ways! {
    fn users_that_are_not_mapped_are_refused() {
        if is_root() {
            // The other way round is the test.
            return again_as_nobody(concat!(module_path!(), "::users_that_are_not_mapped_are_refused"));
        }
        let mut spec = spec(image(), &["true"]);
        spec.process.user = Some("ann".into());
        let error = start_on(&hv_container::Namespaces::new(), spec).err().unwrap();
        assert!(chain(&error).contains("/etc/subuid"), "{}", chain(&error));
    }
}

#[test]
fn users_are_those_of_the_image() {
    if !is_root() && !skipped("without root there is one user") {
        return;
    }
    let id = |user: &str| {
        let mut spec = spec(image(), &["sh", "-c", "id; echo $HOME"]);
        spec.process.user = Some(user.into());
        run(spec).ok()
    };
    assert_eq!(id("ann"), "uid=1000(ann) gid=1000(ann) groups=100(users),1000(ann)\n/home/ann\n");
    assert!(id("4711:12").starts_with("uid=4711 gid=12 groups=12\n"));
    let mut unknown = spec(image(), &["id"]);
    unknown.process.user = Some("bob".into());
    let error = start_on(&hv_container::Namespaces::new(), unknown).err().unwrap();
    assert!(chain(&error).contains("`bob`"), "{}", chain(&error));
}
