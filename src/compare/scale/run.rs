//! Starts sandboxes beside each other and takes their times and their memory.

use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Round, Scale, Start, Step};
use crate::compare::measure::Interrupts;
use crate::compare::sandbox::{Prepared, Sandbox};
use crate::compare::{Contender, Setup, memory};
use crate::error::{Failure, Result};

/// How many of what.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Rounds of each contender.
    pub rounds: usize,
    /// Sandboxes one after another.
    pub resident: usize,
    /// Sandboxes at once.
    pub at_once: usize,
}

/// Makes all rounds, those of each number in an order that `seed` gives again; an interrupt ends it, and the round
/// that it hit does not count. True beside the rounds when there was one.
pub fn measure(
    setup: &Setup,
    contenders: &[Contender],
    extent: Extent,
    seed: u64,
    interrupts: &Interrupts,
    mut progress: impl FnMut(usize, &Contender),
) -> (Scale, bool) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut scale = Scale { resident: extent.resident, at_once: extent.at_once, rounds: Vec::new() };
    for number in 0..extent.rounds {
        let mut order = contenders.to_vec();
        random.shuffle(&mut order);
        for who in order {
            progress(scale.rounds.len(), &who);
            let mut round = Round {
                round: number,
                kind: who,
                available: None,
                steps: Vec::new(),
                burst: Vec::new(),
                failure: None,
            };
            let outcome = beside(setup, extent.resident, &mut round)
                .and_then(|()| at_once(setup, extent.at_once, &mut round));
            if interrupts.arrived() {
                return (scale, true);
            }
            round.failure = outcome.err().map(|error| error.message());
            scale.rounds.push(round);
        }
    }
    (scale, false)
}

/// One after another, each beside all that were started before.
fn beside(setup: &Setup, count: usize, round: &mut Round) -> Result<()> {
    round.available = memory::available();
    let mut running: Vec<Sandbox> = Vec::new();
    for _ in 0..count {
        let mut sandbox = Prepared::new(setup, &round.kind)?.start(false)?;
        let first_byte = ready(&mut sandbox)?;
        let asked = sandbox.asked;
        running.push(sandbox);
        let monitors: Vec<i32> = running.iter().map(Sandbox::pid).collect();
        let all = memory::together(&monitors)
            .map_err(|source| Failure::new("cannot read the memory of the sandboxes", source))?;
        round.steps.push(Step {
            start: Start { asked, first_byte },
            pss: Some(all.pss),
            rss: Some(all.rss),
            available: memory::available(),
        });
    }
    end_all(running)
}

/// As many as `count` without waiting for one before the next is asked for.
fn at_once(setup: &Setup, count: usize, round: &mut Round) -> Result<()> {
    let prepared: Vec<Prepared> =
        (0..count).map(|_| Prepared::new(setup, &round.kind)).collect::<Result<_>>()?;
    let mut running: Vec<Sandbox> =
        prepared.into_iter().map(|prepared| prepared.start(false)).collect::<Result<_>>()?;
    let mut firsts: Vec<Option<u64>> = vec![None; count];
    while firsts.iter().any(Option::is_none) {
        for place in whose_output(&running, &firsts)? {
            firsts[place] = Some(ready(&mut running[place])?);
        }
    }
    let starts = running.iter().zip(firsts);
    round.burst.extend(
        starts.filter_map(|(sandbox, first)| Some(Start { asked: sandbox.asked, first_byte: first? })),
    );
    end_all(running)
}

/// Those that have written something, of those that had not yet.
fn whose_output(running: &[Sandbox], firsts: &[Option<u64>]) -> Result<Vec<usize>> {
    let waiting: Vec<usize> = (0..running.len()).filter(|place| firsts[*place].is_none()).collect();
    let mut polled: Vec<PollFd> = waiting
        .iter()
        .filter_map(|place| Some(PollFd::new(running[*place].output()?, PollFlags::POLLIN)))
        .collect();
    let deadline = waiting.iter().map(|place| running[*place].deadline()).min();
    let left = deadline.map_or(0, |at| at.saturating_duration_since(Instant::now()).as_millis());
    let count = poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))
        .map_err(|errno| Failure::new("cannot wait for the workloads' output", errno))?;
    if count == 0 {
        return Err(Failure::refused("not all wrote something within the time limit of a launch"));
    }
    let written = waiting.into_iter().zip(&polled).filter(|(_, fd)| fd.any() == Some(true));
    Ok(written.map(|(place, _)| place).collect())
}

/// The first byte, or what the launch complained of.
fn ready(sandbox: &mut Sandbox) -> Result<u64> {
    match sandbox.first_byte()? {
        Some(at) => Ok(at),
        None => {
            let ended = sandbox.end();
            let said = sandbox.last_words();
            let how = ended.map_or_else(|error| error.message(), |(_, status)| status.to_string());
            Err(Failure::refused(format!("the workload wrote nothing ({how}): {said}")))
        }
    }
}

/// Tells all to end before it waits for the first.
fn end_all(mut running: Vec<Sandbox>) -> Result<()> {
    running.iter_mut().try_for_each(Sandbox::tell_to_end)?;
    running.iter_mut().try_for_each(|sandbox| {
        let (_, status) = sandbox.end()?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::refused(format!("a launch ended with {status}: {}", sandbox.last_words())))
    })
}
