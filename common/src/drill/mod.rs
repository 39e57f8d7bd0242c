//! The probe drill: harmless attempts to reach, from inside a sandbox, what is not its own.
//!
//! - [`table`]: every attempt, what it tries, and why it hurts nobody: one table.
//! - `files`, `calls`, `processes`, `network`, `limits`: how each is made.
//! - [`run`]: makes them, each in a process of its own, and says what came of it ([`Found`]).
//!
//! What an outcome means is not decided here: who started the drill knows which walls stand, and runs it again
//! without one of them.

mod calls;
mod files;
mod limits;
mod network;
mod processes;
pub mod table;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, waitpid};
use serde::{Deserialize, Serialize};

use crate::sys::fork::{Side, fork};
pub use processes::BYSTANDER;
pub use table::{PROBES, Probe};

/// An attempt that takes longer is ended.
const PATIENCE: Duration = Duration::from_secs(20);
/// The most bytes of a drill's findings.
pub const MOST: u64 = 1 << 20;

/// What the host has around the sandbox, for the attempts that are after it. What is absent is not tried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Around {
    /// A process of the host's that is there to be attacked.
    pub bystander: Option<i32>,
    /// An abstract Unix socket that somebody listens on, without the leading NUL.
    pub socket: Option<String>,
    /// A TCP port of 127.0.0.1 that somebody listens on.
    pub port: Option<u16>,
    /// The numbers of a disk of the host's.
    pub disk: Option<(u32, u32)>,
    /// The sandbox's memory limit in bytes.
    pub memory: Option<u64>,
    /// The sandbox's limit of processes.
    pub pids: Option<u32>,
}

/// What came of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The kernel did it, or would have, had the arguments made sense.
    Through,
    /// The calls worked, and nothing was behind them: an empty file, the same directory.
    Nothing,
    /// This error number.
    Error(i32),
    /// The attempt was ended by this signal.
    Killed(i32),
    /// What it is after was not named, or it took too long.
    NotTried,
}

/// What an attempt function answers: it went through, there was nothing behind, or the kernel's error.
type Reach = std::result::Result<Behind, Errno>;

/// What is behind a call that worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    /// What was looked for.
    Something,
    /// Nothing.
    Nothing,
    /// It was not tried.
    Untried,
}

/// What a drill finds: where it was, and what came of each attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The kernel's name for this boot: another kernel has another.
    pub boot: Option<String>,
    /// The namespaces of the drill, by the names of /proc/self/ns: their inode numbers.
    pub namespaces: BTreeMap<String, u64>,
    /// `CapEff`, `CapBnd`, `Seccomp`, `NoNewPrivs`, `Uid` and the like of /proc/self/status.
    pub status: BTreeMap<String, String>,
    /// Names below /dev, directories left out.
    pub devices: Vec<String>,
    /// The virtio devices that this kernel drives, by their numbers in the specification.
    pub virtio: Vec<u32>,
    /// What came of each attempt, by its name.
    pub outcomes: BTreeMap<String, Outcome>,
}

/// Lines of /proc/self/status that say what a process may do.
const STATUS: [&str; 7] = ["Uid", "Gid", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp"];

/// Makes every attempt, or those named; each in a process of its own that ends with it. To be called while there is
/// one thread.
///
/// # Errors
/// A process for an attempt cannot be made.
pub fn run(around: &Around, only: Option<&str>) -> io::Result<Found> {
    let mut found = look();
    for probe in PROBES.iter().filter(|probe| only.is_none_or(|name| probe.name == name)) {
        let outcome = apart(probe, around)?;
        found.outcomes.insert(probe.name.to_owned(), outcome);
    }
    Ok(found)
}

/// Where this process is. What cannot be read is absent: a bare process has no /proc.
fn look() -> Found {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let status = crate::procfs::parse_status(&status);
    let wanted = STATUS.iter().filter_map(|name| Some(((*name).to_owned(), (*status.get(name)?).to_owned())));
    Found {
        boot: boot.map(|text| text.trim().to_owned()),
        namespaces: files::namespaces(),
        status: wanted.collect(),
        devices: files::devices(),
        virtio: files::virtio(),
        outcomes: BTreeMap::new(),
    }
}

/// Makes one attempt in a new process.
fn apart(probe: &Probe, around: &Around) -> io::Result<Outcome> {
    let (answer, answers) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match fork()? {
        Side::Child => {
            let outcome = probe.outcome((probe.attempt)(around));
            let text = serde_json::to_vec(&outcome).unwrap_or_default();
            let _ = rustix::io::write(&answers, &text);
            std::process::exit(0)
        }
        Side::Parent { pid, pidfd } => {
            drop(answers);
            await_answer(&answer, pid, &pidfd)
        }
    }
}

fn await_answer(answer: &OwnedFd, pid: Pid, pidfd: &OwnedFd) -> io::Result<Outcome> {
    let late = !ends_within(pidfd, PATIENCE)?;
    if late {
        rustix::process::pidfd_send_signal(pidfd, Signal::KILL)?;
    }
    let (_, status) = waitpid(Some(pid), WaitOptions::empty())?.ok_or(io::ErrorKind::NotFound)?;
    if late {
        return Ok(Outcome::NotTried);
    }
    let mut bytes = [0u8; 64];
    let count = rustix::io::read(answer, &mut bytes)?;
    if let Ok(outcome) = serde_json::from_slice(&bytes[..count]) {
        return Ok(outcome);
    }
    Ok(status.terminating_signal().map_or(Outcome::NotTried, Outcome::Killed))
}

fn ends_within(pidfd: &OwnedFd, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

impl Probe {
    /// What an attempt's answer comes to.
    fn outcome(&self, reach: Reach) -> Outcome {
        match reach {
            Ok(Behind::Something) => Outcome::Through,
            Ok(Behind::Nothing) => Outcome::Nothing,
            Ok(Behind::Untried) => Outcome::NotTried,
            Err(errno) if self.past.contains(&errno) => Outcome::Through,
            Err(errno) => Outcome::Error(errno.raw_os_error()),
        }
    }
}

impl Found {
    /// Writes it as one line of JSON.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        to.write_all(&text)
    }

    /// Reads what came out of a sandbox: an allegation.
    ///
    /// # Errors
    /// It is not what [`Found::write`] writes.
    pub fn read(bytes: &[u8]) -> io::Result<Found> {
        let found: Found = serde_json::from_slice(bytes)?;
        let plain = |text: &String| {
            text.len() <= 256 && text.chars().all(|c| c.is_ascii_graphic() || " \t".contains(c))
        };
        let texts = found.boot.iter().chain(found.status.values()).chain(&found.devices);
        if texts.chain(found.status.keys()).chain(found.namespaces.keys()).all(plain) {
            return Ok(found);
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "a drill's finding holds bytes that are no text"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_read_back_and_others_refused() {
        let mut found = Found { boot: Some("x".into()), ..Found::default() };
        found.outcomes.insert("mount".into(), Outcome::Error(1));
        found.outcomes.insert("swap".into(), Outcome::Through);
        let mut bytes = Vec::new();
        found.write(&mut bytes).unwrap();
        assert_eq!(Found::read(&bytes).unwrap(), found);
        found.boot = Some("\x1b[2J".into());
        bytes.clear();
        found.write(&mut bytes).unwrap();
        assert!(Found::read(&bytes).is_err(), "terminal escapes do not come out");
        assert!(Found::read(b"{").is_err());
    }

    #[test]
    fn an_argument_that_makes_no_sense_is_found_out_after_the_rights() {
        let probe = PROBES.iter().find(|probe| probe.name == "load-module").unwrap();
        assert_eq!(probe.outcome(Err(Errno::BADF)), Outcome::Through);
        assert_eq!(probe.outcome(Err(Errno::PERM)), Outcome::Error(1));
        assert_eq!(probe.outcome(Ok(Behind::Nothing)), Outcome::Nothing);
    }
}
