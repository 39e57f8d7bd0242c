//! Attempts on limits and rights.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal, WaitOptions, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{Around, Behind, Reach};
use crate::sys::attempt;
use crate::sys::fork::{Side, fork};

/// So much more than the limit is asked for.
const MORE_PIDS: u32 = 8;
const MORE_MEMORY: u64 = 16 << 20;
/// No limit is tried that is larger: the host is to come to no harm where none holds.
const MOST_PIDS: u32 = 512;
const MOST_MEMORY: u64 = 512 << 20;
/// A step of the cycle counter, in cycles, that tells a cached access from another.
const FINE: u64 = 2000;

/// Lowers one that nobody here needs, and raises it again.
pub(super) fn raise(_: &Around) -> Reach {
    let limit = |value| Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(Resource::Core, limit(0))?;
    setrlimit(Resource::Core, limit(1)).map(|()| Behind::Something)
}

pub(super) fn regain(_: &Around) -> Reach {
    let mut sets: CapabilitySets = rustix::thread::capabilities(None)?;
    sets.effective |= CapabilitySet::SYS_ADMIN;
    sets.permitted |= CapabilitySet::SYS_ADMIN;
    rustix::thread::set_capabilities(None, sets).map(|()| Behind::Something)
}

pub(super) fn real_time(_: &Around) -> Reach {
    attempt::run_first().map(|()| Behind::Something)
}

/// Eight more than the limit; each waits until it is told to end.
pub(super) fn processes(around: &Around) -> Reach {
    let Some(limit) = around.pids.filter(|limit| *limit <= MOST_PIDS) else { return Ok(Behind::Untried) };
    let (end, told) = rustix::pipe::pipe()?;
    let mut made = Vec::new();
    let outcome = (0..limit + MORE_PIDS).try_for_each(|_| {
        let side = fork().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        match side {
            Side::Parent { pid, .. } => made.push(pid),
            Side::Child => wait_for_end(&end),
        }
        Ok(())
    });
    drop(told);
    for pid in made {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        rustix::process::waitpid(Some(pid), WaitOptions::empty())?;
    }
    outcome.map(|()| Behind::Something)
}

fn wait_for_end(end: &OwnedFd) -> ! {
    let _ = rustix::io::read(end, &mut [0u8; 1]);
    std::process::exit(0)
}

/// Sixteen MiB more than the limit, written to page by page.
pub(super) fn memory(around: &Around) -> Reach {
    let Some(limit) = around.memory.filter(|limit| *limit <= MOST_MEMORY) else { return Ok(Behind::Untried) };
    // Whoever has to go, it is to be this one (proc(5)); a bare process has no /proc.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let size = usize::try_from(limit + MORE_MEMORY).map_err(|_| Errno::NOMEM)?;
    let mut memory: Vec<u8> = Vec::new();
    memory.try_reserve_exact(size).map_err(|_| Errno::NOMEM)?;
    memory.resize(size, 1);
    // The pages hold something, and are asked for it: they were really there.
    let sum: usize = memory.chunks(4096).map(|page| usize::from(page[0])).sum();
    Ok(if sum == size.div_ceil(4096) { Behind::Something } else { Behind::Nothing })
}

/// The counter is in the processor: the most that can be done is to forbid it (prctl(2), `PR_SET_TSC`).
pub(super) fn clock(_: &Around) -> Reach {
    Ok(if attempt::clock_step() < FINE { Behind::Something } else { Behind::Nothing })
}
