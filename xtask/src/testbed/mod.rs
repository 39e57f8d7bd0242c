//! The testbed: an emulated host with hardware virtualisation and cgroup v2, see `docs/testbed.md`.

mod drive;
pub mod image;
mod qemu;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

pub use self::drive::quoted;
pub use self::qemu::TimeUp;
use crate::{apt, cache, workspace};

/// One run of one command in the testbed.
pub struct Run {
    /// Counting mode: one processor, one instruction is one virtual nanosecond.
    pub count: bool,
    /// Processors of the emulated host; counting mode has one.
    pub cpus: u32,
    /// Memory of the emulated host, in MiB.
    pub memory_mib: u32,
    /// How long the command may take, boot included.
    pub timeout: Option<Duration>,
    /// How long it may be silent before the emulated host counts as standing still.
    pub silence: Option<Duration>,
    /// Use the release programs, not the debug ones.
    pub release: bool,
    /// More disks, raw images: `/dev/nvme2n1` and on. They stay as they are.
    pub drives: Vec<PathBuf>,
    /// More files for /hv/bin.
    pub extra: Vec<PathBuf>,
    /// Environment of the command beside the testbed's own.
    pub env: Vec<(String, String)>,
    /// The command and its arguments.
    pub command: Vec<String>,
}

/// The ends of the command's streams on this side.
pub struct Streams {
    /// What the command reads; absent is an empty input.
    pub stdin: Option<Box<dyn Read + Send>>,
    /// Takes what it writes to standard output.
    pub stdout: Box<dyn Write + Send>,
    /// Takes what it writes to standard error.
    pub stderr: Box<dyn Write + Send>,
}

impl Streams {
    /// The streams of this process.
    pub fn inherited() -> Self {
        Self {
            stdin: Some(Box::new(std::io::stdin())),
            stdout: Box::new(std::io::stdout()),
            stderr: Box::new(std::io::stderr()),
        }
    }
}

/// Boots the testbed, runs the command in it, and returns the command's exit status.
///
/// # Errors
/// The testbed could not be made or booted, its host died, or the time was up.
pub fn run(run: &Run, streams: Streams) -> Result<u8> {
    apt::install(&["qemu-system-x86", "e2fsprogs", "util-linux"])?;
    let host = image::host()?;
    let dir = RunDir::create()?;
    let disk = dir.path.join("hv.img");
    let bin_dir = workspace::bin_dir(if run.release { "release" } else { "debug" });
    let contents =
        drive::Contents { bin_dir: &bin_dir, extra: &run.extra, command: &run.command, env: &run.env };
    drive::make(&host, &contents, &dir.path.join("staging"), &disk)?;
    qemu::run(&host, &disk, run, streams, &dir.path)
}

/// The directory of one run. Its lock is held as long as this process lives; the next run removes the
/// directories of runs that were killed.
struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    fn create() -> Result<Self> {
        let parent = cache::root()?.join("runs");
        fs::create_dir_all(&parent).with_context(|| format!("create {}", parent.display()))?;
        remove_stale(&parent)?;
        let path = parent.join(std::process::id().to_string());
        cache::remove_tree(&path)?;
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).with_context(|| format!("create {}", lock_path.display()))?;
        lock.lock().with_context(|| format!("lock {}", lock_path.display()))?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // The next run tries again.
        let _ = cache::remove_tree(&self.path);
    }
}

fn remove_stale(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent).with_context(|| format!("list {}", parent.display()))? {
        let path = entry.with_context(|| format!("list {}", parent.display()))?.path();
        // Without a lock file it is being made or removed at this moment.
        if let Ok(lock) = File::open(path.join("lock"))
            && lock.try_lock().is_ok()
        {
            cache::remove_tree(&path)?;
        }
    }
    Ok(())
}
