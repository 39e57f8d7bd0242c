//! `NOTIFY_SOCKET` (sd_notify(3)): the workload gets a socket of its own, in a directory that nothing else is in, and hv
//! hands on what says how it is. Who is the main process is for hv to say: nobody in there knows its number.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use hv_container::oci::Config;
use hv_container::oci::config::Mount;
use rustix::event::{PollFd, PollFlags, poll};

use super::{Fault, Result};

/// The variable that names the socket.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// Where the socket's directory is in the container, and its name there, as runc has them.
const INSIDE: &str = "/run/notify";
const NAME: &str = "notify.sock";
/// The directory of a container's state that is shown there.
const DIR: &str = "notify";
/// What is handed on; descriptors, and what is about other processes, are not.
const HANDED_ON: [&str; 6] = ["READY=1", "RELOADING=1", "STOPPING=1", "STATUS=", "ERRNO=", "WATCHDOG=1"];
/// The longest message that is read, in bytes.
const LONGEST: usize = 4096;

/// Whether somebody waits for word of the service that this process is.
fn wanted() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|path| path.starts_with(['/', '@']))
}

/// Where somebody waits for word, the container gets a socket for it. `state` is the container's directory.
pub fn offer(state: &Path, config: &mut Config) -> Result<()> {
    if wanted().is_none() {
        return Ok(());
    }
    let dir = state.join(DIR);
    std::fs::create_dir(&dir)
        .map_err(|source| Fault::because(format_args!("cannot make {}", dir.display()), source))?;
    let failed = |source| Fault::because(format_args!("cannot set the mode of {}", dir.display()), source);
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).map_err(failed)?;
    config.mounts.push(Mount {
        destination: INSIDE.into(),
        kind: Some("bind".into()),
        source: Some(dir.display().to_string()),
        options: ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).into(),
        ..Mount::default()
    });
    if let Some(process) = &mut config.process {
        process.env.retain(|word| !word.starts_with("NOTIFY_SOCKET="));
        process.env.push(format!("{VARIABLE}={INSIDE}/{NAME}"));
    }
    Ok(())
}

/// The container's socket, and the one that hv was given.
pub struct Messenger {
    inside: UnixDatagram,
    host: UnixDatagram,
}

impl Messenger {
    /// Makes the socket in the container's directory, before its program runs. None: nobody waits for word, or the
    /// container was created without one.
    pub fn of(state: &Path) -> Result<Option<Messenger>> {
        let Some(to) = wanted().filter(|_| state.join(DIR).is_dir()) else { return Ok(None) };
        let make = || {
            let host = UnixDatagram::unbound()?;
            match to.strip_prefix('@') {
                Some(name) => host.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
                None => host.connect(&to)?,
            }
            // By way of the directory's descriptor: a path may be longer than a socket's address.
            let dir = std::fs::File::open(state.join(DIR))?;
            let path = format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd());
            let inside = UnixDatagram::bind(&path)?;
            // Whoever it runs as: the directory is seen by this container alone.
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777))?;
            inside.set_nonblocking(true)?;
            Ok(Messenger { inside, host })
        };
        let made =
            make().map_err(|source: io::Error| Fault::because(format_args!("{VARIABLE}={to}"), source))?;
        Ok(Some(made))
    }

    /// Hands on until the workload says that it is ready, or has ended. `pid` is its number on the host.
    pub fn until_ready(&self, process: &OwnedFd, pid: i32) -> Result<()> {
        self.until(process, pid, true)
    }

    /// Hands on until the workload has ended.
    pub fn until_end(&self, process: &OwnedFd, pid: i32) -> Result<()> {
        self.until(process, pid, false)
    }

    fn until(&self, process: &OwnedFd, pid: i32, first: bool) -> Result<()> {
        loop {
            let mut ends = [PollFd::new(&self.inside, PollFlags::IN), PollFd::new(process, PollFlags::IN)];
            match poll(&mut ends, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Fault::because("cannot wait for word from the container", errno)),
            }
            let ended = !ends[1].revents().is_empty();
            // What was said last counts too.
            if self.hand_on(pid) && first || ended {
                return Ok(());
            }
        }
    }

    /// Hands on all that has come; whether readiness was in it.
    fn hand_on(&self, pid: i32) -> bool {
        let mut space = [0u8; LONGEST];
        let mut ready = false;
        while let Ok(length) = self.inside.recv(&mut space) {
            let text = String::from_utf8_lossy(&space[..length]);
            let Some(mut message) = passed(&text) else { continue };
            if message.lines().any(|line| line == "READY=1") {
                ready = true;
                message.push_str(&format!("MAINPID={pid}\n"));
            }
            // Nobody listens any more: the workload does not suffer from that.
            let _ = self.host.send(message.as_bytes());
        }
        ready
    }
}

/// The lines of a message that are handed on.
fn passed(text: &str) -> Option<String> {
    let known = |line: &&str| {
        HANDED_ON.iter().any(|one| if one.ends_with('=') { line.starts_with(one) } else { line == one })
    };
    let lines: String = text.lines().filter(known).map(|line| format!("{line}\n")).collect();
    (!lines.is_empty()).then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_other_processes_is_not_handed_on() {
        assert_eq!(passed("READY=1\nMAINPID=1\nSTATUS=up\n").as_deref(), Some("READY=1\nSTATUS=up\n"));
        for other in ["", "MAINPID=1", "READY=0", "READY=11", "FDSTORE=1", "BARRIER=1", "X=READY=1"] {
            assert_eq!(passed(other), None, "{other}");
        }
    }
}
