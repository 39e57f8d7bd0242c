//! RUN: a command in a container over the step's root, by `hv oci run`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use hv_common::starter::Identity;
use serde_json::{Value, json};

use crate::error::{Failure, Result};

/// What is run.
pub(crate) struct Job<'a> {
    pub(crate) root: &'a Path,
    pub(crate) args: &'a [String],
    pub(crate) env: &'a [String],
    pub(crate) cwd: &'a str,
    pub(crate) user: &'a str,
    pub(crate) offline: bool,
    pub(crate) bundle: &'a Path,
    /// In front of each line that it says.
    pub(crate) prefix: &'a str,
}

/// The capabilities of docker's containers.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

impl Job<'_> {
    /// Runs it to its end; its status.
    pub(crate) fn run(&self) -> Result<i32> {
        let config = self.bundle.join("config.json");
        std::fs::write(&config, self.config()?.to_string())
            .map_err(|source| Failure::new(format!("cannot write {}", config.display()), source))?;
        let id = format!(
            "build-{}",
            hv_common::Id::random().map_err(|source| Failure::new("cannot draw a name", source))?
        );
        let failed = |source| Failure::new("cannot start hv itself for a RUN", source);
        let mut child = Command::new("/proc/self/exe")
            .args(["oci", "run", "--bundle"])
            .arg(self.bundle)
            .arg(&id)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        std::thread::scope(|scope| {
            if let Some(out) = child.stdout.take() {
                scope.spawn(move || self.tell(out));
            }
            if let Some(err) = child.stderr.take() {
                scope.spawn(move || self.tell(err));
            }
        });
        let status = child.wait().map_err(failed)?;
        Ok(status.code().unwrap_or(255))
    }

    fn tell(&self, from: impl std::io::Read) {
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line);
            let text: String = text.trim_end().chars().filter(|c| !c.is_control() || *c == '\t').collect();
            eprintln!("{} {text}", self.prefix);
            line.clear();
        }
    }

    fn config(&self) -> Result<Value> {
        let root = std::fs::File::open(self.root)
            .map_err(|source| Failure::new(format!("cannot open {}", self.root.display()), source))?;
        let user = Some(self.user).filter(|user| !user.is_empty());
        let identity = Identity::resolve(user, std::os::fd::AsFd::as_fd(&root))?;
        let mut env = self.env.to_vec();
        if !env.iter().any(|one| one.starts_with("PATH=")) {
            env.push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
        }
        if !env.iter().any(|one| one.starts_with("HOME=")) {
            env.push(format!("HOME={}", identity.home.to_string_lossy()));
        }
        let mut namespaces = vec!["pid", "ipc", "uts", "mount", "cgroup"];
        if self.offline {
            namespaces.push("network");
        }
        let namespaces: Vec<Value> = namespaces.iter().map(|kind| json!({"type": kind})).collect();
        let inert = ["nosuid", "noexec", "nodev"];
        Ok(json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups},
                "args": self.args, "env": env, "cwd": self.cwd,
                "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
                "noNewPrivileges": false,
            },
            "root": {"path": self.root, "readonly": false},
            "hostname": "build",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": inert},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            ],
            "linux": {
                "namespaces": namespaces,
                "resources": {"devices": [{"allow": false, "access": "rwm"}]},
                "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            },
        }))
    }
}
