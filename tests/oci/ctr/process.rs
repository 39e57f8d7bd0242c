//! What the program is given: identity, capabilities, limits, descriptors, terminal, words for failures.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use serde_json::json;

use crate::bundle::root_bundle;
use crate::support::finish;

#[test]
fn the_process_is_as_the_configuration_says() {
    let script = "id -u; id -g; id -G; umask; pwd; echo $A; ulimit -n; cat /proc/self/oom_score_adj; \
                  grep -E 'CapPrm|CapBnd|CapAmb|CapInh|NoNew|Seccomp:' /proc/self/status; uname -m; ls /proc/self/fd | wc -l";
    let Some(mut bundle) = root_bundle(script) else { return };
    let process = &mut bundle.config["process"];
    process["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 63});
    process["cwd"] = json!("/tmp");
    process["env"] = json!(["A=value", "PATH=/bin"]);
    process["oomScoreAdj"] = json!(100);
    process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 100}]);
    process["capabilities"] = json!({"bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_KILL"],
        "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]});
    bundle.config["linux"]["personality"] = json!({"domain": "LINUX32"});
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
        [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]});
    let text = bundle.run().expect(0).text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..8], ["1000", "1001", "1001 5 6", "0077", "/tmp", "value", "99", "100"], "{text}");
    for (name, value) in [
        ("CapInh", "20"),
        ("CapPrm", "20"),
        ("CapBnd", "21"),
        ("CapAmb", "20"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        let line = lines.iter().find(|line| line.starts_with(name)).unwrap();
        let found = line.split_whitespace().nth(1).unwrap().trim_start_matches('0');
        assert_eq!(found, value, "{line}");
    }
    assert!(text.contains("i686"), "{text}");
    assert_eq!(*lines.last().unwrap(), "4", "0, 1, 2 and the directory itself: {text}");
}

#[test]
fn failures_are_told_in_words_that_clients_know() {
    let Some(mut bundle) = root_bundle("true") else { return };
    for (program, status, words) in [
        ("nothing-such", 127, "executable file not found in $PATH"),
        ("/bin/nothing", 127, "no such file or directory"),
        ("/bin/noexec", 126, "permission denied"),
        ("/etc", 126, "is a directory"),
    ] {
        bundle.config["process"]["args"] = json!([program]);
        let done = bundle.run();
        assert_eq!(done.code(), status, "{program}: {}", done.stderr);
        assert!(done.stderr.contains(words), "{program}: {}", done.stderr);
        let create = bundle.call("create", &[&bundle.id]);
        assert!(create.stderr.contains(words), "create tells it already: {}", create.stderr);
        assert!(!bundle.has_cgroups());
    }
}

#[test]
fn exec_is_as_hard_as_the_first_process() {
    let Some(mut bundle) = root_bundle("sleep 1000") else { return };
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
        [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]});
    bundle.start();
    let text = bundle.exec("grep -E 'CapPrm|NoNew|Seccomp:' /proc/self/status; cat /proc/self/cgroup; hostname; ls /proc/self/fd | wc -l").text();
    assert!(
        text.contains("CapPrm:\t0000000020000420")
            && text.contains("NoNewPrivs:\t1")
            && text.contains("Seccomp:\t2"),
        "{text}"
    );
    assert!(text.ends_with("hv\n4\n"), "{text}");
    assert_eq!(bundle.exec("mkdir /dev/shm/x").code(), 1);
    assert_eq!(bundle.exec("exit 9").code(), 9);
    let missing = bundle.call("exec", &[&bundle.id, "nothing-such"]);
    assert!(
        missing.code() == 127 && missing.stderr.contains("executable file not found"),
        "{}",
        missing.stderr
    );
    let file = bundle.file("process.json");
    std::fs::write(
        &file,
        json!({"args": ["id", "-u"], "cwd": "/", "user": {"uid": 7}, "env": ["PATH=/bin"]}).to_string(),
    )
    .unwrap();
    let done = bundle.call("exec", &["--process", file.to_str().unwrap(), &bundle.id]);
    assert_eq!(done.expect(0).text(), "7\n");
    let detached = bundle.call("exec", &["--detach", "--pid-file", "exec.pid", &bundle.id, "sleep", "1000"]);
    detached.expect(0);
    let pid = std::fs::read_to_string(bundle.file("exec.pid")).unwrap();
    assert!(bundle.call("ps", &["-f", "json", &bundle.id]).text().contains(pid.trim()));
}

#[test]
fn the_terminals_other_end_comes_through_the_console_socket() {
    let Some(mut bundle) =
        root_bundle("test -t 0 && test -t 1 && ls -l /dev/console && stty size && tty; echo end")
    else {
        return;
    };
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({"height": 33, "width": 99});
    let listener = UnixListener::bind(bundle.file("console")).unwrap();
    bundle.call("create", &["--console-socket", "console", &bundle.id]).expect(0);
    let (socket, _) = listener.accept().unwrap();
    let terminal = receive(&socket);
    bundle.ok("start");
    let mut text = String::new();
    let mut file = std::fs::File::from(terminal);
    let mut bytes = [0u8; 256];
    // A terminal whose other end is closed gives an error, not an end.
    while let Ok(length @ 1..) = file.read(&mut bytes) {
        text.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    assert!(text.contains("33 99") && text.contains("/dev/pts/0") && text.contains("/dev/console"), "{text}");
}

fn receive(socket: &std::os::unix::net::UnixStream) -> OwnedFd {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0u8; 64];
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    recvmsg(socket.as_fd(), &mut parts, &mut control, RecvFlags::empty()).unwrap();
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.expect("a descriptor comes with the message")
}

#[test]
fn descriptors_are_inherited_only_when_asked_for() {
    let Some(bundle) = root_bundle("cat <&3; ls /proc/self/fd") else { return };
    let file = crate::support::image::directory().join("etc/data");
    let sh = |options: &str| {
        let hv = bundle.command("run", &[]);
        let mut command = std::process::Command::new("sh");
        let words: Vec<String> = hv.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let line = format!("exec 3<'{}' 4<&- 9</; exec \"$@\" {options} {}", file.display(), bundle.id);
        command.args(["-c", &line, "sh"]).arg(hv.get_program()).args(words).current_dir(bundle.path());
        finish(command, b"")
    };
    let kept = sh("--preserve-fds 1");
    assert!(kept.text().starts_with("from the image\n"), "{} {}", kept.text(), kept.stderr);
    assert!(!kept.text().contains('9'), "{}", kept.text());
    assert!(!sh("").text().contains("from the image"));
    assert!(sh("--preserve-fds 3").stderr.contains("descriptor 4 is not open"));
}
