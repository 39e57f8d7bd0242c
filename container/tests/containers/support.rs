//! Starts real containers of a small root directory made of busybox.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hv_common::{Backend, Exit, Id, Limits, Process, Root, Sandbox, Spec, StartError, Stdio, Timeline};
use hv_container::Namespaces;

const PROGRAMS: [&str; 36] = [
    "sh", "true", "false", "cat", "echo", "ls", "id", "env", "pwd", "sleep", "kill", "hostname", "mount",
    "umount", "mknod", "touch", "mkdir", "readlink", "ps", "head", "tail", "wc", "dd", "grep", "stty", "tty",
    "test", "seq", "sort", "stat", "rm", "unshare", "chroot", "ip", "setsid", "chmod",
];

/// Counts up when the tree below changes.
const RECIPE: u32 = 1;

/// A root directory with busybox, made once for all test programs of this user. Everybody may read it.
pub fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let length = fs::metadata(busybox()).unwrap().len();
        let user = rustix::process::geteuid().as_raw();
        let place = std::env::temp_dir().join(format!("hv-test-root-{user}-{RECIPE}-{length}"));
        if !place.exists() {
            // Test programs run at once: each makes it apart, the first one's stays.
            let _ = fs::rename(make_image().path(), &place);
        }
        place
    })
}

fn busybox() -> &'static str {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    busybox.expect("these tests need the Debian package busybox-static")
}

/// A root directory of one's own, to spoil.
pub fn make_image() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    for sub in ["bin", "etc", "home/ann", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(sub)).unwrap();
    }
    fs::copy(busybox(), root.join("bin/busybox")).unwrap();
    for program in PROGRAMS {
        symlink("busybox", root.join("bin").join(program)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")
        .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nusers:x:100:ann\nann:x:1000:\n").unwrap();
    dir
}

/// What to start; change what matters to the test.
pub fn spec(root: &Path, args: &[&str]) -> Spec {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let dir = rustix::fs::open(root, flags, rustix::fs::Mode::empty()).unwrap();
    spec_of(Root::Directory { path: root.to_owned(), dir }, args)
}

/// The same for any opened image.
pub fn spec_of(root: Root, args: &[&str]) -> Spec {
    Spec {
        id: Id::random().unwrap(),
        hostname: "box".into(),
        root,
        process: Process {
            args: args.iter().map(Into::into).collect(),
            env: vec!["PATH=/bin".into()],
            cwd: "/".into(),
            user: None,
            terminal: None,
            program: hv_common::Program::Image,
            landlock: Vec::new(),
        },
        limits: Limits::default(),
    }
}

/// A container, and the other ends of its streams.
pub struct Running {
    pub sandbox: Box<dyn Sandbox>,
    pub stdin: Option<File>,
    pub stdout: File,
    pub stderr: File,
    pub timeline: Timeline,
}

/// How a container ended.
#[derive(Debug)]
pub struct Outcome {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// The output of a container that must have ended well.
    pub fn ok(self) -> String {
        assert_eq!(self.exit.status(), 0, "{self:?}");
        self.stdout
    }
}

pub fn start_on(backend: &dyn Backend, spec: Spec) -> Result<Running, StartError> {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let ((stdin, stdin_out), (stdout_in, stdout), (stderr_in, stderr)) = (pipe(), pipe(), pipe());
    let timeline = Timeline::new().unwrap();
    let sandbox = backend.start(spec, Stdio::Streams([stdin, stdout, stderr]), &timeline)?;
    Ok(Running {
        sandbox,
        stdin: Some(stdin_out.into()),
        stdout: stdout_in.into(),
        stderr: stderr_in.into(),
        timeline,
    })
}

pub fn start(spec: Spec) -> Running {
    start_on(&Namespaces::new(), spec).unwrap_or_else(|error| panic!("{}", chain(&error)))
}

impl Running {
    /// Reads until a line has come from standard output.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0u8; 1];
        while self.stdout.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// Closes standard input, reads all output, waits.
    pub fn finish(mut self) -> Outcome {
        drop(self.stdin.take());
        let mut stderr = self.stderr;
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        let mut stdout = Vec::new();
        self.stdout.read_to_end(&mut stdout).unwrap();
        let exit = self.sandbox.wait().unwrap();
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        Outcome { exit, stdout, stderr: errors.join().unwrap() }
    }
}

/// Starts, waits, and gives all output.
pub fn run(spec: Spec) -> Outcome {
    start(spec).finish()
}

/// Runs a shell script in the common image.
pub fn sh(script: &str) -> Outcome {
    run(spec(image(), &["/bin/sh", "-c", script]))
}

/// An error with all its reasons, as `hv` prints it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// Says why a test does not run; false.
pub fn skipped(reason: &str) -> bool {
    println!("skipped: {reason}");
    false
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs the test of this path once more as an unprivileged user. The program is named by a descriptor: the
/// user may not be able to reach it where it was built.
pub fn again_as_nobody(test: &str) {
    // As the test program knows it: without the crate.
    let test = test.split_once("::").map_or(test, |(_, path)| path);
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = File::open("/proc/self/exe").unwrap();
    let mut command = std::process::Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env("TMPDIR", dir.path());
    let output = command.current_dir("/").uid(NOBODY).gid(NOBODY).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("1 passed"), "as user {NOBODY}:\n{text}");
}

/// An id that owns nothing.
const NOBODY: u32 = 65534;

/// One test body, run as it is and, when that is root, as an unprivileged user too.
#[macro_export]
macro_rules! both_ways {
    ($($(#[$attribute:meta])* fn $name:ident() $body:block)*) => {$(
        #[test]
        $(#[$attribute])*
        fn $name() {
            $body
            $crate::support::again_as_nobody(concat!(module_path!(), "::", stringify!($name)));
        }
    )*};
}

/// Waits until `done` says so, for what the kernel does in its own time; at most ten seconds.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "still not: {what}");
        std::thread::yield_now();
    }
}

/// The host's mounts of the file systems that containers are made of; others come and go on a busy host.
pub fn host_mounts() -> Vec<String> {
    let kinds = ["overlay", "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "erofs", "squashfs"];
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let is_ours = |line: &&str| kinds.iter().any(|kind| line.contains(&format!(" - {kind} ")));
    table.lines().filter(is_ours).map(str::to_string).collect()
}

pub fn write_all(file: &mut File, bytes: &[u8]) {
    file.write_all(bytes).unwrap();
}

/// Keeps a descriptor open for the length of a test.
pub fn keep(fd: OwnedFd) -> File {
    fd.into()
}
