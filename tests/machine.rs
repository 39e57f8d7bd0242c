//! The microVM's machine: its size, its processors, and how it ends when its kernel does.

mod support;

mod vm {
    use std::io::{Read, Seek, Write};

    use hv_common::Kind;

    use super::support::{Finished, Running, finish, shell, stock, unavailable};

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

    #[test]
    fn a_portable_processor_is_not_the_hosts() {
        let options = ["--cpu-template", "portable", "--cpus", "2"];
        let script = "grep -E '^(model name|flags)' /proc/cpuinfo | sort -u; nproc";
        let Some(done) = run(&options, script) else { return };
        let text = done.expect(0).text();
        let flags: Vec<&str> =
            text.lines().find(|line| line.starts_with("flags")).unwrap().split(' ').collect();
        for flag in ["sse4_2", "popcnt", "cx16", "smep", "smap", "lm", "nx"] {
            assert!(flags.contains(&flag), "no {flag} in {text}");
        }
        for flag in ["avx", "xsave", "rdrand", "topoext"] {
            assert!(!flags.contains(&flag), "{flag} in {text}");
        }
        assert!(text.contains("model name\t: hv portable processor, x86-64-v2\n"), "{text}");
        assert!(text.ends_with("\n2\n"), "{text}");
    }

    #[test]
    fn a_template_of_the_users_own() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut write = |text: &str| {
            file.as_file_mut().set_len(0).unwrap();
            file.rewind().unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        // SSE4.2 is bit 20 of ECX of leaf 1; bit 31 of EAX of leaf 7 is nothing that a processor has.
        write(r#"{"cpuid":[{"leaf":"0x1","register":"ecx","keep":"0xffefffff","require":"0x100000"}]}"#);
        let path = file.path().to_str().unwrap().to_owned();
        let Some(done) =
            run(&["--cpu-template", &path], "grep -c sse4_2 /proc/cpuinfo; grep -c sse4_1 /proc/cpuinfo")
        else {
            return;
        };
        assert_eq!(done.expect(0).text(), "0\n1\n");
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(br#"{"cpuid":[{"leaf":"0x7","register":"eax","require":"0x80000000"}]}"#).unwrap();
        let refused = run(&["--cpu-template", &path], "true").unwrap().expect(125);
        assert!(
            refused.stderr.contains("leaf 0x7, index 0, register eax lacks the bits 0x80000000"),
            "{}",
            refused.stderr
        );
    }

    #[test]
    fn each_vcpu_stays_on_its_processor() {
        if let Some(reason) = unavailable(Kind::Vm) {
            return println!("skipped: {reason}");
        }
        let allowed = rustix::thread::sched_getaffinity(None).unwrap();
        let ours: Vec<String> =
            (0..1024).filter(|cpu| allowed.is_set(*cpu)).map(|cpu| cpu.to_string()).collect();
        let pins = [ours[ours.len() - 1].as_str(), &ours[0]];
        let list = pins.join(",");
        let options = ["--cpus", "2", "--cpu-pin", &list];
        let mut running = Running::start(shell(Kind::Vm, &options, "echo ready; read -r line"));
        running.wait_for("ready");
        let tasks = std::fs::read_dir(format!("/proc/{}/task", running.holder().as_raw_pid())).unwrap();
        let mut found: Vec<(String, String)> = Vec::new();
        for task in tasks.flatten() {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap();
            let field = |name: &str| {
                status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
            };
            if field("Name:").starts_with("vcpu") {
                found.push((field("Name:"), field("Cpus_allowed_list:")));
            }
        }
        found.sort();
        assert_eq!(found, [("vcpu0".into(), pins[0].into()), ("vcpu1".into(), pins[1].into())]);
        running.write(b"end\n");
        running.finish().expect(0);
    }

    #[test]
    fn memory_of_huge_pages() {
        const KNOB: &str = "/proc/sys/vm/nr_hugepages";
        let before = std::fs::read_to_string(KNOB).unwrap();
        if !rustix::process::geteuid().is_root() || before.trim() != "0" {
            return println!("skipped: changes the host's pool of huge pages, which must be empty");
        }
        let options = ["--memory", "128M", "--hugepages"];
        let Some(done) = run(&options, "true") else { return };
        let done = done.expect(125);
        assert!(
            done.stderr.contains("needs 64 huge pages of 2 MiB") && done.stderr.contains(KNOB),
            "{}",
            done.stderr
        );
        std::fs::write(KNOB, "64").unwrap();
        let done = run(&options, "grep MemTotal /proc/meminfo").unwrap();
        std::fs::write(KNOB, before).unwrap();
        assert!(done.expect(0).text().contains("MemTotal"));
    }

    /// Presses the power button of the sandbox of this name.
    fn press(name: &str) {
        let socket = hv_common::state::Store::open().unwrap().path().join(name).join("control");
        // The command may run a moment before its monitor listens.
        let mut stream = loop {
            if let Ok(stream) = std::os::unix::net::UnixStream::connect(&socket) {
                break stream;
            }
        };
        stream.write_all(b"PUT /v1/power-button HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    /// The power button asks the workload to end, whether its kernel has it as a signal or as a key.
    #[test]
    fn the_power_button_ends_the_workload() {
        if let Some(reason) = unavailable(Kind::Vm) {
            return println!("skipped: {reason}");
        }
        // A key that is pressed before its driver is there is lost; a signal is not.
        let wait = "[ -e /sys/module/tiny_power_button ] || until [ -e /sys/class/input/event0 ]; do :; done; sleep 0.1;";
        let script =
            format!("trap 'echo asked; exit 7' TERM; {wait} echo ready; while :; do read -t 1 -r line; done");
        for (number, command) in [shell, stock].iter().enumerate() {
            let name = format!("button-{number}-{}", std::process::id());
            let mut running = Running::start(command(Kind::Vm, &["--name", &name], &script));
            running.wait_for("ready");
            press(&name);
            running.wait_for("asked");
            running.finish().expect(7);
        }
    }

    #[test]
    fn a_panic_of_debians_kernel_is_seen_at_once() {
        if let Some(reason) = unavailable(Kind::Vm) {
            return println!("skipped: {reason}");
        }
        let script =
            "until grep -q pvpanic_mmio /proc/modules; do :; done; echo c > /proc/sysrq-trigger; sleep 1000";
        let done = finish(stock(Kind::Vm, &["--cmdline", "panic=0"], script), b"").expect(125);
        assert!(done.stderr.contains("the guest kernel panicked: sysrq triggered crash"), "{}", done.stderr);
    }
}
