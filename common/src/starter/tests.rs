//! The starter with real forks: what a shell sees once it is the workload.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::*;
use crate::spec::TerminalSize;
use crate::sys::spawn::spawn;

/// These tests become other users.
macro_rules! root_or_skip {
    () => {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
    };
}

fn process(args: &[&str]) -> Process {
    Process {
        args: args.iter().map(OsString::from).collect(),
        env: vec!["PATH=/usr/bin:/bin".into()],
        cwd: "/".into(),
        user: None,
        terminal: None,
        program: crate::spec::Program::Image,
        landlock: Vec::new(),
    }
}

fn shell(script: &str) -> Process {
    process(&["sh", "-c", script])
}

fn wait(pid: i32) -> i32 {
    let (_, status) = waitpid(Pid::from_raw(pid), WaitOptions::empty()).unwrap().unwrap();
    status.exit_status().unwrap_or(-1)
}

/// What the process wrote and its exit status, or why it was not started.
fn run(process: &Process, privileges: Privileges) -> Result<(String, i32), Failure> {
    let root = File::open("/").unwrap();
    let prepared = Prepared::new(process, root.as_fd(), privileges)?;
    let null = File::open("/dev/null").unwrap();
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let child = spawn(&prepared, [null.as_fd(), write.as_fd(), write.as_fd()], None).unwrap();
    drop(write);
    let child = child.map_err(|failure| prepared.explain(failure))?;
    let mut output = String::new();
    File::from(read).read_to_string(&mut output).unwrap();
    Ok((output, wait(child.pid)))
}

fn output(process: &Process, privileges: Privileges) -> String {
    run(process, privileges).unwrap().0
}

fn failure(process: &Process) -> (u8, String) {
    let failure = run(process, Privileges::all()).unwrap_err();
    (failure.status, failure.to_string())
}

#[test]
fn environment_directory_mask_and_status_are_as_asked() {
    root_or_skip!();
    let mut asked = shell("pwd; umask; echo $HOME; echo $A; ulimit -n; ulimit -c; exit 7");
    asked.cwd = "/usr".into();
    asked.env.push("A=b c".into());
    let home = Identity::resolve(None, File::open("/").unwrap().as_fd()).unwrap().home;
    let (text, status) = run(&asked, Privileges::all()).unwrap();
    assert_eq!(status, 7);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..4], ["/usr", "0022", home.to_str().unwrap(), "b c"]);
    assert_eq!(lines[4..], ["1024", "0"]);
    asked.env.push("HOME=/mine".into());
    assert!(output(&asked, Privileges::all()).contains("\n/mine\n"));
}

#[test]
fn user_and_groups_are_taken_and_capabilities_left() {
    root_or_skip!();
    let mut asked = shell("id -u; id -g; id -G; grep Cap /proc/self/status");
    asked.user = Some("4711:4712".into());
    let text = output(&asked, Privileges::all());
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..3], ["4711", "4712", "4712"]);
    assert!(
        text.contains("CapEff:\t0000000000000000") && text.contains("CapPrm:\t0000000000000000"),
        "{text}"
    );
}

#[test]
fn a_container_has_fourteen_capabilities_and_its_filters() {
    root_or_skip!();
    // One instruction: BPF_RET | BPF_K, SECCOMP_RET_ALLOW.
    let allow = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    let text = output(&shell("cat /proc/self/status"), Privileges::container(vec![allow]));
    let expected = rustix::thread::capabilities(None).unwrap().permitted & CONTAINER_CAPABILITIES;
    for line in [
        format!("CapEff:\t{:016x}", expected.bits()),
        format!("CapPrm:\t{:016x}", expected.bits()),
        format!("CapBnd:\t{:016x}", expected.bits()),
        "CapInh:\t0000000000000000".into(),
        "CapAmb:\t0000000000000000".into(),
        "NoNewPrivs:\t1".into(),
        "Seccomp:\t2".into(),
    ] {
        assert!(text.contains(&line), "{line} in {text}");
    }
}

#[test]
fn signals_are_as_new_and_descriptors_are_closed() {
    root_or_skip!();
    let mut blocked = nix::sys::signal::SigSet::empty();
    blocked.add(nix::sys::signal::SIGUSR1);
    blocked.thread_block().unwrap();
    let leak = File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let text = output(&shell("cat /proc/self/status; ls /proc/self/fd"), Privileges::all());
    blocked.thread_unblock().unwrap();
    for line in ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let tail: Vec<_> = text.lines().rev().take(4).collect();
    assert_eq!(tail, ["3", "2", "1", "0"], "3 is the directory that ls reads");
}

#[test]
fn programs_that_cannot_be_executed_end_as_in_a_shell() {
    root_or_skip!();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str, mode| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_string()
    };
    let script = file("script", "#!/no/such/interpreter\n", 0o755);
    let plain = file("plain", "text", 0o644);
    let noise = file("noise", "\u{1}\u{2}", 0o755);
    let absent = dir.path().join("absent");
    let table = [
        (absent.to_str().unwrap(), 127, "has no program"),
        ("no-such-command", 127, "along its PATH"),
        ("", 127, "has no program"),
        (&script, 127, "interpreter"),
        (&plain, 126, "cannot execute"),
        (&noise, 126, "cannot execute"),
        ("/usr", 126, "cannot execute"),
        ("/etc/passwd/x", 126, "cannot execute"),
    ];
    for (program, status, words) in table {
        let (found, what) = failure(&process(&[program]));
        assert_eq!(found, status, "{program}: {what}");
        assert!(what.contains(words), "{program}: {what}");
    }
    // Along PATH, what may not be executed is remembered, and what may is still found behind it.
    let mut asked = process(&["plain"]);
    asked.env = vec![format!("PATH=/absent:{}:/etc/passwd", dir.path().display()).into()];
    assert_eq!(failure(&asked).0, 126);
    fs::copy("/bin/true", dir.path().join("plain2")).unwrap();
    file("true", "text", 0o644);
    let mut asked = process(&["true"]);
    asked.env = vec![format!("PATH={}:/usr/bin:/bin", dir.path().display()).into()];
    assert_eq!(run(&asked, Privileges::all()).unwrap().1, 0);
}

#[test]
fn the_working_directory_must_be_there_enterable_and_inside() {
    root_or_skip!();
    let in_directory = |cwd: &str, user: Option<&str>| {
        let mut asked = process(&["true"]);
        asked.cwd = cwd.into();
        asked.user = user.map(str::to_string);
        asked
    };
    let (status, what) = failure(&in_directory("/no/such", None));
    assert_eq!((status, what.contains("/no/such")), (125, true), "{what}");
    assert_eq!(failure(&in_directory("relative", None)).0, 125);
    let private = tempfile::tempdir().unwrap();
    fs::set_permissions(private.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let path = private.path().to_str().unwrap();
    assert_eq!(failure(&in_directory(path, Some("4711"))).0, 125, "as the user, not as root");
    assert_eq!(run(&in_directory(path, None), Privileges::all()).unwrap().1, 0);
    // CVE-2024-21626: a leaked descriptor of a directory elsewhere. Here: of a mount that is nowhere.
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_create(context.as_fd()).unwrap();
    let elsewhere = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    let (status, what) = failure(&in_directory(&format!("/proc/self/fd/{}", elsewhere.as_raw_fd()), None));
    assert_eq!((status, what.contains("outside")), (125, true), "{what}");
}

#[test]
fn a_user_can_open_its_piped_output_again() {
    root_or_skip!();
    let mut asked = shell("echo again > /dev/stdout");
    asked.user = Some("4711".into());
    assert_eq!(run(&asked, Privileges::all()).unwrap(), ("again\n".to_string(), 0));
}

#[test]
fn a_terminal_becomes_the_controlling_one() {
    root_or_skip!();
    let master =
        rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::CLOEXEC).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let slave: OwnedFd =
        rustix::pty::ioctl_tiocgptpeer(&master, rustix::pty::OpenptFlags::from_bits_retain(flags.bits()))
            .unwrap();
    let mut asked = shell("echo hello > /dev/tty");
    asked.terminal = Some(TerminalSize { rows: 24, cols: 80 });
    asked.user = Some("4711".into());
    let root = File::open("/").unwrap();
    let prepared = Prepared::new(&asked, root.as_fd(), Privileges::all()).unwrap();
    let child = spawn(&prepared, [slave.as_fd(); 3], None).unwrap().unwrap();
    drop(slave);
    let mut text = [0; 7];
    let mut master = File::from(master);
    master.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello\r\n");
    assert_eq!(wait(child.pid), 0);
}

#[test]
fn the_three_streams_are_told_apart() {
    root_or_skip!();
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let root = File::open("/").unwrap();
    let prepared =
        Prepared::new(&shell("echo out; echo err >&2; cat"), root.as_fd(), Privileges::all()).unwrap();
    let (input_read, input_write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    rustix::io::write(&input_write, b"in\n").unwrap();
    drop(input_write);
    let (error_read, error_write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let stdio: [BorrowedFd<'_>; 3] = [input_read.as_fd(), write.as_fd(), error_write.as_fd()];
    let child = spawn(&prepared, stdio, None).unwrap().unwrap();
    drop((write, error_write, input_read));
    let text = |fd: OwnedFd| {
        let mut text = String::new();
        File::from(fd).read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!((text(read).as_str(), text(error_read).as_str()), ("out\nin\n", "err\n"));
    assert_eq!(wait(child.pid), 0);
}

#[test]
fn strings_with_nul_are_refused() {
    let root = File::open("/").unwrap();
    let refused = |asked: Process| Prepared::new(&asked, root.as_fd(), Privileges::all()).unwrap_err().status;
    assert_eq!(refused(process(&["a\0b"])), 125);
    let mut asked = process(&["a"]);
    asked.env.push("A=\0".into());
    assert_eq!(refused(asked), 125);
    let mut asked = process(&["a"]);
    asked.cwd = "/\0".into();
    assert_eq!(refused(asked), 125);
}

#[test]
fn failures_survive_the_pipe() {
    let failure = ExecFailure { step: Step::Seccomp, errno: 22 };
    assert_eq!(ExecFailure::from_bytes(failure.to_bytes()), failure);
    assert_eq!(ExecFailure::from_bytes([255, 2, 0, 0, 0]).step, Step::Exec);
}

#[test]
fn a_program_from_outside_the_root_is_executed_by_descriptor() {
    root_or_skip!();
    let injected = |path: &str| Process {
        program: crate::spec::Program::Injected(path.into()),
        ..process(&["sh", "-c", "echo $0; read -r x < /proc/$$/comm; echo $x", "it"])
    };
    let asked = injected("/bin/sh");
    let root = File::open("/").unwrap();
    let forgotten = Prepared::new(&asked, root.as_fd(), Privileges::all()).unwrap();
    assert_eq!(forgotten.command.candidates.len(), 0, "never one of the root's instead");
    let file = sealed(&asked.program).unwrap().unwrap();
    assert!(rustix::io::write(&file, b"x").is_err(), "sealed");
    let prepared = forgotten.executing(Some(file));
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let child = spawn(&prepared, [write.as_fd(); 3], None).unwrap().unwrap();
    drop(write);
    let mut output = String::new();
    File::from(read).read_to_string(&mut output).unwrap();
    assert!(output.starts_with("it\n"), "{output}");
    assert_eq!(wait(child.pid), 0);
    let failure = sealed(&injected("/surely/not").program).unwrap_err();
    assert!(failure.what.contains("/surely/not"), "{failure}");
}
