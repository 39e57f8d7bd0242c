//! Goes through a schedule, block by block, until it is done, precise enough, out of time, or interrupted.

use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::stats::Estimate;
use super::{Contender, Role, Sample, Schedule, Setup, launch};
use crate::error::{Failure, Result};

/// An interval that reaches no further from its median than this, as a share, is precise enough.
const PRECISE: f64 = 0.02;
/// Fewer counted blocks are never enough.
const BLOCKS_AT_LEAST: usize = 20;
/// The interval is looked at each time so many more blocks are done: looking costs, too.
const BLOCKS_BETWEEN: usize = 10;

/// When to stop before the schedule's end.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// Not before.
    Done,
    /// When the intervals of the time to the first byte are precise, or so much time has passed.
    Precise(Duration),
}

/// What came of it.
pub struct Measured {
    /// Every launch.
    pub samples: Vec<Sample>,
    /// Counted blocks that were begun.
    pub runs: usize,
    /// Why it ended.
    pub stopped: String,
    /// Somebody interrupted it.
    pub interrupted: bool,
}

/// Interrupts that wait to be seen: none of them ends the measuring without its report.
pub struct Interrupts(SignalFd);

impl Interrupts {
    /// Takes SIGINT, SIGTERM and SIGHUP over. What this process starts gets them as always.
    ///
    /// # Errors
    /// The kernel gives no descriptor.
    pub fn take() -> Result<Interrupts> {
        let set: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        set.thread_block()
            .and_then(|()| SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
            .map(Interrupts)
            .map_err(|errno| Failure::new("cannot take over the signals", errno))
    }

    /// True once for each that came.
    pub fn arrived(&self) -> bool {
        matches!(self.0.read_signal(), Ok(Some(_)))
    }
}

/// Launches what `schedule` says; `progress` is told before each launch.
pub fn measure(
    setup: &Setup,
    schedule: &Schedule,
    until: Until,
    interrupts: &Interrupts,
    mut progress: impl FnMut(usize, &Contender),
) -> Measured {
    let began = Instant::now();
    let mut samples = Vec::new();
    for (block, launches) in schedule.blocks.iter().enumerate() {
        let runs = block.saturating_sub(schedule.warm_up);
        if let Until::Precise(budget) = until
            && let Some(why) = enough(schedule, &samples, runs, began.elapsed(), budget)
        {
            return Measured { samples, runs, stopped: why, interrupted: false };
        }
        for (place, launch) in launches.iter().enumerate() {
            progress(samples.len(), &launch.who);
            let sample = launch::launch(setup, launch, block, place);
            if interrupts.arrived() {
                let stopped = format!(
                    "interrupted: partial, {} of {} launches were made",
                    samples.len(),
                    schedule.launches()
                );
                // The launch that the interrupt hit says nothing.
                let runs = (block + 1).saturating_sub(schedule.warm_up);
                return Measured { samples, runs, stopped, interrupted: true };
            }
            samples.push(sample);
        }
    }
    let runs = schedule.blocks.len() - schedule.warm_up;
    Measured { samples, runs, stopped: "all blocks were measured".into(), interrupted: false }
}

/// Why no further block is needed.
fn enough(
    schedule: &Schedule,
    samples: &[Sample],
    runs: usize,
    spent: Duration,
    budget: Duration,
) -> Option<String> {
    if spent >= budget {
        return Some(format!("the budget of {} s was spent", budget.as_secs()));
    }
    if runs < BLOCKS_AT_LEAST || !runs.is_multiple_of(BLOCKS_BETWEEN) {
        return None;
    }
    let contenders = schedule.blocks[0].iter().map(|launch| &launch.who);
    contenders.clone().all(|who| is_precise(schedule, samples, who)).then(|| {
        format!(
            "every interval of the time to the first byte is within {:.0} % of its median",
            PRECISE * 100.0
        )
    })
}

fn is_precise(schedule: &Schedule, samples: &[Sample], who: &Contender) -> bool {
    let counted = |sample: &&Sample| {
        sample.kind == *who
            && sample.role == Role::Main
            && sample.block >= schedule.warm_up
            && sample.failure.is_none()
    };
    let times: Vec<f64> = samples.iter().filter(counted).filter_map(Sample::ready).collect();
    let estimate = Estimate::of(&times);
    estimate.is_some_and(|estimate| {
        estimate.interval.is_some_and(|ends| {
            let furthest = f64::max(ends.high - estimate.median, estimate.median - ends.low);
            furthest <= PRECISE * estimate.median
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::example;

    fn why(runs: usize, spent: u64) -> Option<String> {
        let report = example::report(runs);
        let schedule = Schedule::new(&report.contenders, runs, report.warm_up, &[], report.seed);
        enough(&schedule, &report.samples, runs, Duration::from_secs(spent), Duration::from_secs(100))
    }

    #[test]
    fn it_stops_when_it_is_precise_or_the_budget_is_spent() {
        assert_eq!(why(10, 1), None, "too few blocks");
        assert_eq!(why(41, 1), None, "not looked at");
        assert!(why(40, 1).unwrap().contains("within 2 %"));
        assert!(why(10, 100).unwrap().contains("budget of 100 s"));
    }
}
