//! `hv stop`: asks sandboxes to end, and waits until they are gone.

use std::time::{Duration, Instant};

use hv_common::state::State;
use hv_common::{Id, procfs};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cli::StopArgs;
use crate::cmd;
use crate::control::{View, client};
use crate::error::{Failure, Result};

/// Beyond the workload's own time: what it takes to kill it, and to remove what was made for it.
const REMOVAL: Duration = Duration::from_secs(20);

/// Stops all that are named, at the same time.
///
/// # Errors
/// One of them does not run, cannot be asked, or does not go; the others are stopped all the same.
pub fn run(args: StopArgs) -> Result<u8> {
    let store = cmd::tidy_store()?;
    let deadline = Instant::now() + Duration::from_secs(args.time) + REMOVAL;
    let body = format!(r#"{{"grace_seconds":{}}}"#, args.time);
    let ask = |name: String| {
        let id = Id::try_from(name)?;
        let state = store.state(&id).ok_or_else(|| {
            Failure::refused(format!("no sandbox named `{id}` runs here")).hint("`hv ps` shows what runs")
        })?;
        // Before it is asked: afterwards the number may be another's.
        let monitor = open(&state);
        client::ask_json::<View>(&store.path().join(id.as_str()), "PUT", "/v1/stop", &body)?;
        Ok((id, monitor))
    };
    let asked: Vec<Result<(Id, Option<OwnedFd>)>> = args.names.into_iter().map(ask).collect();
    let mut result = Ok(0);
    for one in asked {
        let gone = one.and_then(|(id, monitor)| match monitor {
            Some(monitor) => await_end(&id, &monitor, deadline),
            None => Ok(()),
        });
        // The last failure is told by whoever called; the others here.
        if gone.is_err()
            && let Err(earlier) = std::mem::replace(&mut result, gone.map(|()| 0))
        {
            earlier.tell();
        }
    }
    result
}

/// The sandbox's monitor; None if it has ended already.
fn open(state: &State) -> Option<OwnedFd> {
    let monitor = pidfd_open(Pid::from_raw(state.monitor)?, PidfdFlags::empty()).ok()?;
    // Looked at after it was opened: so it is the one that wrote the state.
    let started = procfs::start_time(state.monitor).ok().flatten()?;
    (started == state.monitor_started).then_some(monitor)
}

fn await_end(id: &Id, monitor: &OwnedFd, deadline: Instant) -> Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(monitor, PollFlags::IN)], Some(&left)) {
            Ok(1..) => return Ok(()),
            Ok(0) => {
                return Err(Failure::refused(format!(
                    "sandbox {id} was told to stop, but its monitor has not ended"
                ))
                .hint("a reader of its output may have stopped reading; `kill -9` ends the monitor"));
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => {
                return Err(Failure::new(format!("cannot wait for the end of sandbox {id}"), errno));
            }
        }
    }
}
