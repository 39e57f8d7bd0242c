//! A store of a test's own, and images to put into it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use crate::support::{self, Finished, finish};

/// A directory with an empty store in it. All of it goes at the end.
pub struct World {
    dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        for name in ["data", "cache"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        World { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the store is.
    pub fn store(&self) -> PathBuf {
        match rustix::process::geteuid().is_root() {
            true => self.path("data/images"),
            false => self.path("data/hv/images"),
        }
    }

    /// A shell script with `$HV`, in which hv has this store.
    pub fn script(&self, script: &str) -> Command {
        let mut command;
        if rustix::process::geteuid().is_root() {
            command = Command::new("unshare");
            let mounts = "mkdir -p /var/lib/hv /var/cache/hv && mount --bind \"$WORLD/data\" /var/lib/hv && \
                          mount --bind \"$WORLD/cache\" /var/cache/hv || exit 99\n";
            command.args(["--mount", "--propagation", "private", "sh", "-c", &format!("{mounts}{script}")]);
        } else {
            command = Command::new("sh");
            command.args(["-c", script]);
        }
        command.env("HV", support::program()).env("WORLD", self.dir.path()).env("STORE", self.store());
        command.env("XDG_DATA_HOME", self.path("data")).env("XDG_CACHE_HOME", self.path("cache"));
        command.env("KERNEL", std::env::var_os("HV_TEST_KERNEL").unwrap_or_default());
        command.current_dir(self.dir.path());
        command
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(&self, script: &str) -> Finished {
        finish(self.script(script), b"")
    }

    /// Runs it, expects status 0, and gives what it printed.
    #[track_caller]
    pub fn text(&self, script: &str) -> String {
        self.run(script).expect(0).text()
    }

    /// What it prints, as JSON.
    #[track_caller]
    pub fn json(&self, script: &str) -> serde_json::Value {
        let text = self.text(script);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// Whether these programs are here; the reason is printed when they are not.
pub fn have(programs: &[&str]) -> bool {
    let there = |program: &&&str| {
        let mut found = Command::new("sh");
        found.args(["-c", &format!("command -v {program}")]).stdout(Stdio::null());
        !found.status().is_ok_and(|status| status.success())
    };
    match programs.iter().find(there) {
        Some(missing) => {
            println!("skipped: {missing} is not installed (Debian package of the same name)");
            false
        }
        None => true,
    }
}

/// `tar` of a directory.
pub fn tar(dir: &Path) -> Vec<u8> {
    let made = Command::new("tar")
        .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "-C"])
        .arg(dir)
        .args(["-c", "."])
        .output()
        .unwrap();
    assert!(made.status.success());
    made.stdout
}

/// The busybox image that all tests share, as a tar.
pub fn busybox() -> Vec<u8> {
    tar(&support::image::directory())
}

/// A digest as images have it.
pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// An OCI layout that is made by hand, with layers that are tars.
pub struct Layout {
    dir: PathBuf,
    manifests: Vec<serde_json::Value>,
}

impl Layout {
    pub fn new(dir: PathBuf) -> Layout {
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Layout { dir, manifests: Vec::new() }
    }

    /// Stores a blob; its descriptor.
    pub fn blob(&self, kind: &str, bytes: &[u8]) -> serde_json::Value {
        let digest = digest(bytes);
        fs::write(self.dir.join("blobs/sha256").join(&digest[7..]), bytes).unwrap();
        serde_json::json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    }

    /// Stores an image of these layers with this `config`; its descriptor.
    pub fn image(&self, layers: &[&[u8]], config: serde_json::Value) -> serde_json::Value {
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = serde_json::json!({"architecture": architecture, "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let layers: Vec<_> =
            layers.iter().map(|layer| self.blob("application/vnd.oci.image.layer.v1.tar", layer)).collect();
        let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": layers,
            "mediaType": "application/vnd.oci.image.manifest.v1+json"});
        self.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes())
    }

    /// Gives an image a name.
    pub fn name(&mut self, name: &str, mut image: serde_json::Value) {
        image["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": name});
        self.manifests.push(image);
    }

    /// Writes index.json.
    pub fn finish(self) -> PathBuf {
        let index = serde_json::json!({"schemaVersion": 2, "manifests": self.manifests});
        let mut file = fs::File::create(self.dir.join("index.json")).unwrap();
        file.write_all(index.to_string().as_bytes()).unwrap();
        self.dir
    }
}
