//! The microVM's machine: its size, its processors, and how it ends when its kernel does.

mod support;

mod vm {
    use hv_common::Kind;

    use super::support::{Finished, finish, shell, unavailable};

    /// Runs a script in a microVM with these options; None where none can run.
    fn run(options: &[&str], script: &str) -> Option<Finished> {
        match unavailable(Kind::Vm) {
            Some(reason) => {
                println!("skipped: {reason}");
                None
            }
            None => Some(finish(shell(Kind::Vm, options, script), b"")),
        }
    }

    /// A panic is told by the guest itself, so that even a kernel that would stay there for ever is ended.
    #[test]
    fn a_panic_of_the_guest_is_seen_at_once() {
        let script = "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger; sleep 1000";
        let Some(done) = run(&["--cmdline", "panic=0"], script) else { return };
        let done = done.expect(125);
        assert!(done.stderr.contains("the guest kernel panicked: sysrq triggered crash"), "{}", done.stderr);
        assert!(done.stderr.contains("\n  | "), "the console's last lines: {}", done.stderr);
    }

    #[test]
    fn a_guest_that_takes_too_long_to_boot_is_ended() {
        let options = ["--boot-timeout", "1", "--cmdline", "initcall_blacklist=virtio_vsock_init"];
        let Some(done) = run(&options, "true") else { return };
        let done = done.expect(125);
        assert!(done.stderr.contains("of --boot-timeout"), "{}", done.stderr);
    }

    /// Above 3 GiB, memory goes on behind the hole, at 4 GiB.
    #[test]
    fn memory_on_both_sides_of_the_hole() {
        let script = "grep MemTotal /proc/meminfo; grep 'System RAM' /proc/iomem; nproc";
        let Some(done) = run(&["--memory", "3584M", "--cpus", "4"], script) else { return };
        let text = done.expect(0).text();
        let total = text.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        assert!(total.is_some_and(|kib| kib > 3400 << 10), "{text}");
        for range in ["00100000-bfffffff", "100000000-11fffffff"] {
            assert!(text.contains(range), "{text}");
        }
        assert!(text.ends_with("\n4\n"), "{text}");
    }
}
