//! The workloads. Each does a fixed number of one operation, so that equal work is compared, and says how long
//! all of them took; what an operation is stands with each workload.

mod files;
mod image;
mod memory;
mod place;
mod processes;
mod sockets;
mod timer;

pub use processes::NOTHING;

use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::time::Instant;

use hv_common::work::Outcome;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// What a workload gives, or why it cannot be done here.
type Done = Result<Timed, String>;

/// Operations and how long they took.
struct Timed {
    operations: u64,
    nanoseconds: u64,
    place: Option<String>,
}

impl Timed {
    /// `operation` so many times.
    fn repeat(operations: u64, mut operation: impl FnMut(u64) -> Result<(), String>) -> Done {
        let began = Instant::now();
        for number in 0..operations {
            operation(number)?;
        }
        Ok(Timed::since(began, operations))
    }

    fn since(began: Instant, operations: u64) -> Timed {
        Timed { operations, nanoseconds: began.elapsed().as_nanos() as u64, place: None }
    }
}

/// One workload.
struct Workload {
    name: &'static str,
    /// Operations of the whole.
    operations: u64,
    run: fn(u64) -> Done,
}

const fn workload(name: &'static str, operations: u64, run: fn(u64) -> Done) -> Workload {
    Workload { name, operations, run }
}

/// All of them, each 10 to 100 ms on a processor of 2020. `empty` shows what the waiting and the telling cost.
const ALL: &[Workload] = &[
    workload("empty", 1, |operations| Timed::repeat(operations, |_| Ok(()))),
    workload("cpu", 20_000_000, cpu),
    workload("memory-latency", 400_000, memory::latency),
    workload("memory-bandwidth", 32_768, memory::bandwidth),
    workload("page-fault", 20_480, memory::faults),
    workload("syscall", 200_000, system_call),
    workload("fork-exec", 50, processes::fork_and_execute),
    workload("pipe", 8_000, processes::pipe),
    workload("file-create", 2_000, files::create),
    workload("file-stat", 20_000, files::stat),
    workload("file-read", 10_000, files::read),
    workload("fsync", 20_000, files::fsync),
    workload("block-random", 2_000, image::random),
    workload("block-sequential", 4_096, image::sequential),
    workload("tcp-round-trip", 4_000, sockets::round_trip),
    workload("tcp-stream", 512, sockets::stream),
    workload("timer", 100, timer::lateness),
];

/// `work` with these arguments.
pub fn run(mut args: &[&str]) -> ExitCode {
    let (mut percent, mut waits) = (100, false);
    loop {
        match args {
            ["--percent", number, rest @ ..] => {
                let Ok(number @ 1..=100) = number.parse() else { return super::usage() };
                (percent, args) = (number, rest);
            }
            ["--wait", rest @ ..] => (waits, args) = (true, rest),
            _ => break,
        }
    }
    let all: Vec<&str> = ALL.iter().map(|workload| workload.name).collect();
    let names = if args == ["all"] { &all } else { args };
    let found: Option<Vec<&Workload>> =
        names.iter().map(|name| ALL.iter().find(|workload| workload.name == *name)).collect();
    let Some(chosen) = found.filter(|chosen| !chosen.is_empty()) else { return super::usage() };
    stay_on_one_processor();
    match chosen.into_iter().try_for_each(|workload| do_one(workload, percent, waits)) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody is left to tell.
        Err(_) => ExitCode::FAILURE,
    }
}

/// A container's limit is a share of all processors, a microVM has so many: on one, all are alike, and what two
/// threads say to each other crosses to no other.
fn stay_on_one_processor() {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    if let Some(first) = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)) {
        let mut one = CpuSet::new();
        one.set(first);
        // Where that is forbidden the figures are those of a process that moves.
        let _ = sched_setaffinity(None, &one);
    }
}

fn do_one(workload: &Workload, percent: u64, waits: bool) -> io::Result<()> {
    if waits && io::stdin().lock().read_line(&mut String::new())? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let operations = (workload.operations * percent / 100).max(1);
    let (timed, failure) = match (workload.run)(operations) {
        Ok(timed) => (timed, None),
        Err(why) => (Timed { operations: 0, nanoseconds: 0, place: None }, Some(why)),
    };
    let Timed { operations, nanoseconds, place } = timed;
    let outcome = Outcome { name: workload.name.into(), operations, nanoseconds, place, failure };
    let mut line = serde_json::to_string(&outcome)?;
    line.push('\n');
    io::stdout().write_all(line.as_bytes())
}

/// An operation: three shifts and three exclusive ors, each of which needs the one before (Marsaglia's xorshift).
fn cpu(operations: u64) -> Done {
    let mut state = std::hint::black_box(88_172_645_463_325_252u64);
    let timed = Timed::repeat(operations, |_| {
        state = next(state);
        Ok(())
    });
    std::hint::black_box(state);
    timed
}

/// The next number of a sequence that visits all but 0.
fn next(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ (state << 17)
}

/// An operation: getppid(2), which no library answers from memory.
fn system_call(operations: u64) -> Done {
    Timed::repeat(operations, |_| {
        std::hint::black_box(rustix::process::getppid());
        Ok(())
    })
}

/// Says what was being done when something failed.
trait Doing<T> {
    fn doing(self, what: &str) -> Result<T, String>;
}

impl<T, E: std::fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: &str) -> Result<T, String> {
        self.map_err(|error| format!("{what}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_counts_what_it_was_asked_for() {
        for workload in ALL {
            let asked = (workload.operations / 50).max(1);
            match (workload.run)(asked) {
                Ok(timed) => assert_eq!(timed.operations, asked, "{}", workload.name),
                Err(why) => panic!("{}: {why}", workload.name),
            }
        }
    }

    #[test]
    fn names_are_told_apart() {
        let mut names: Vec<&str> = ALL.iter().map(|workload| workload.name).collect();
        assert_eq!(names, hv_common::work::NAMES, "what the comparison asks for");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
