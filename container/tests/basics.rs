//! What every workload sees: exit statuses, streams, user, directory, environment, signals.

mod support;

use support::*;

both_ways! {
    fn exit_statuses_are_the_workloads() {
        assert_eq!(sh("exit 0").exit.status(), 0);
        assert_eq!(sh("exit 42").exit.status(), 42);
        assert_eq!(sh("kill -TERM $$").exit.status(), 128 + 15);
        assert_eq!(sh("kill -KILL $$").exit.status(), 128 + 9);
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
}
