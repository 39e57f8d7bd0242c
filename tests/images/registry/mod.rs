//! `hv pull`, `push`, `login` and the others, at registries that lie, stall and leak, and at Debian's.

mod debian;
mod hostile;
mod interrupted;
mod server;
mod tokens;

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Finished, finish, program};

/// A user with a store, settings and credentials of their own.
pub struct Home(tempfile::TempDir);

impl Home {
    /// One whose patience is short.
    pub fn new() -> Home {
        let home = Home(tempfile::tempdir().unwrap());
        for dir in ["lib", "cache", "docker"] {
            fs::create_dir(home.path().join(dir)).unwrap();
        }
        home.settings(r#"{"stall-seconds": 1, "retries": 2}"#);
        home
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// What `registries.json` says.
    pub fn settings(&self, json: &str) {
        fs::write(self.path().join("registries.json"), json).unwrap();
    }

    /// What docker's `config.json` says.
    pub fn credentials(&self, json: &str) {
        fs::write(self.path().join("docker/config.json"), json).unwrap();
    }

    /// hv with these arguments. Root's store is the system's: it is mounted over for this process alone.
    pub fn hv(&self, args: &[&str]) -> Command {
        self.hv_on("mount --bind $HOME/lib /var/lib; mount --bind $HOME/cache /var/cache", args)
    }

    /// The same, with other mounts where this user is root.
    pub fn hv_on(&self, mounts: &str, args: &[&str]) -> Command {
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("unshare");
            let script = format!("set -e; {mounts}; exec \"$@\"");
            command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]).arg(program());
            command
        } else {
            Command::new(program())
        };
        for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        command
            .args(args)
            .env("HOME", self.path())
            .env("XDG_DATA_HOME", self.path().join("lib"))
            .env("XDG_CACHE_HOME", self.path().join("cache"))
            .env("DOCKER_CONFIG", self.path().join("docker"))
            .env("HV_REGISTRIES", self.path().join("registries.json"))
            .env_remove("REGISTRY_AUTH_FILE")
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("SSL_CERT_FILE");
        command
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Finished {
        finish(self.hv(args), b"")
    }

    /// The store, an OCI layout.
    pub fn store(&self) -> std::path::PathBuf {
        self.path().join("lib/hv/images")
    }

    /// Whether the store has a blob of this digest.
    pub fn has(&self, digest: &str) -> bool {
        self.store().join("blobs/sha256").join(digest.trim_start_matches("sha256:")).exists()
    }

    /// Whether the store has any name.
    pub fn is_empty(&self) -> bool {
        let index = fs::read_to_string(self.store().join("index.json")).unwrap_or_default();
        !index.contains("ref.name")
    }
}
