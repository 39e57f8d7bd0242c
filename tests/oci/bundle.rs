//! A bundle of the tests' image, and hv oci called on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};

use crate::support::{self, Finished, finish, image};

/// How long anything may take.
const PATIENCE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// A bundle with a state directory of its own; its containers are deleted with it.
pub struct Bundle {
    dir: tempfile::TempDir,
    /// The name of its container.
    pub id: String,
    /// What is written to config.json before each call.
    pub config: Value,
    /// Options before the verb.
    pub globals: Vec<String>,
}

/// None, and the reason printed, where containers with cgroups cannot be made.
pub fn root_bundle(script: &str) -> Option<Bundle> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return None;
    }
    Some(Bundle::new(script))
}

impl Bundle {
    /// A bundle whose process runs this shell script.
    pub fn new(script: &str) -> Bundle {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        // Users of other namespaces pass through.
        let mode: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.path(), mode).unwrap();
        let id = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let done = finish(support::hv(&["oci", "spec", "--bundle", dir.path().to_str().unwrap()]), b"");
        done.expect(0);
        let mut config: Value =
            serde_json::from_slice(&fs::read(dir.path().join("config.json")).unwrap()).unwrap();
        config["root"] = json!({"path": image::directory(), "readonly": true});
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["process"]["terminal"] = json!(false);
        config["linux"]["cgroupsPath"] = json!(format!("/hv-test/{id}"));
        Bundle { dir, id, config, globals: Vec::new() }
    }

    /// The bundle's directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `hv oci --root STATE VERB ARGS`; the bundle is written first.
    pub fn command(&self, verb: &str, args: &[&str]) -> Command {
        fs::write(self.file("config.json"), self.config.to_string()).unwrap();
        let mut command = support::hv(&["oci", "--root"]);
        command.arg(self.file("state")).args(&self.globals).arg(verb).args(args);
        command.current_dir(self.path());
        command
    }

    /// The same, to its end.
    pub fn call(&self, verb: &str, args: &[&str]) -> Finished {
        let command = self.command(verb, args);
        // What goes on running keeps the streams: then they are no pipes, whose end would not come.
        let stays = verb == "create" || args.contains(&"--detach");
        if stays { self.to_files(command) } else { finish(command, b"") }
    }

    fn to_files(&self, mut command: Command) -> Finished {
        let [out, err] = ["out", "err"].map(|name| self.file(name));
        let file = |path: &Path| fs::File::create(path).unwrap();
        command.stdin(std::process::Stdio::null()).stdout(file(&out)).stderr(file(&err));
        let mut child = command.spawn().unwrap();
        wait_for(child.id() as i32);
        let status = child.wait().unwrap().code();
        Finished { status, stdout: fs::read(out).unwrap(), stderr: fs::read_to_string(err).unwrap() }
    }

    /// `VERB ID`, which must work.
    pub fn ok(&self, verb: &str) -> Finished {
        let done = self.call(verb, &[&self.id]);
        assert_eq!(done.code(), 0, "{verb}: {}", done.stderr);
        done
    }

    /// `run`, in the foreground.
    pub fn run(&self) -> Finished {
        self.call("run", &[&self.id])
    }

    /// Creates and starts with standard streams to /dev/null.
    pub fn start(&self) {
        self.create();
        self.ok("start");
    }

    /// Creates.
    pub fn create(&self) {
        let done = self.call("create", &["--pid-file", "pid", &self.id]);
        assert_eq!(done.code(), 0, "create: {}", done.stderr);
    }

    /// What `state` says.
    pub fn state(&self) -> Value {
        serde_json::from_slice(&self.ok("state").stdout).unwrap()
    }

    /// What `state` calls it.
    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// What a command in the container prints.
    pub fn exec(&self, script: &str) -> Finished {
        self.call("exec", &[&self.id, "sh", "-c", script])
    }

    /// Whether any of its cgroups is there.
    pub fn has_cgroups(&self) -> bool {
        cgroups(&self.id)
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.call("delete", &["--force", &self.id]);
    }
}

impl Finished {
    /// Its exit status; -1 if a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.unwrap_or(-1)
    }
}

/// Waits until a process has ended.
pub fn wait_for(pid: i32) {
    let Some(number) = Pid::from_raw(pid) else { return };
    let Ok(process) = pidfd_open(number, PidfdFlags::empty()) else { return };
    let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&PATIENCE)).unwrap();
    assert_eq!(ended, 1, "process {pid} does not end");
}

fn cgroups(id: &str) -> bool {
    let tops = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    tops.chain(["/sys/fs/cgroup".into()]).any(|top| top.join("hv-test").join(id).exists())
}
