//! Starts sandboxes with the program for inside, and has it work.

use std::ffi::OsString;

use hv_common::work::{EMPTY, NAMES, Outcome};
use hv_common::{Kind, Metrics};

use super::{Done, Inside, Round};
use crate::compare::launch::Injected;
use crate::compare::measure::Interrupts;
use crate::compare::sandbox::{Prepared, Sandbox};
use crate::compare::{Contender, Role, Setup};
use crate::error::{Failure, Result};

/// What a guest can say at most: a reason is a sentence.
const WORDS_LIMIT: usize = 200;
/// The program, beside hv.
const PROGRAM: &str = "hv-probe";

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Counted rounds of each contender; one more warms up.
    pub rounds: usize,
    /// Each counted round is made twice, for the noise floor.
    pub twins: bool,
    /// Which share of each workload's operations is done, in per cent.
    pub percent: u32,
}

/// Makes all rounds, those of each number in an order that `seed` gives again; an interrupt ends it, and the round that
/// it hit is left out. True beside the rounds when there was one.
///
/// # Errors
/// The program for inside is not beside hv.
pub fn measure(
    setup: &Setup,
    contenders: &[Contender],
    extent: Extent,
    seed: u64,
    interrupts: &Interrupts,
    mut progress: impl FnMut(usize, &Contender),
) -> Result<(Inside, bool)> {
    let setup = with_program(setup, extent.percent)?;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut inside = Inside { percent: extent.percent, rounds: Vec::new() };
    for number in 0..=extent.rounds {
        let roles: &[Role] =
            if extent.twins && number > 0 { &[Role::Main, Role::Twin] } else { &[Role::Main] };
        let mut order: Vec<(Contender, Role)> =
            contenders.iter().flat_map(|who| roles.iter().map(|role| (who.clone(), *role))).collect();
        random.shuffle(&mut order);
        for (kind, role) in order {
            progress(inside.rounds.len(), &kind);
            let mut round = Round { round: number, kind, role, done: Vec::new(), failure: None };
            let outcome = work(&setup, &mut round);
            if interrupts.arrived() {
                return Ok((inside, true));
            }
            round.failure = outcome.err().map(|error| error.message());
            inside.rounds.push(round);
        }
    }
    Ok((inside, false))
}

/// The launches of `setup` with the program for inside instead of the user's command.
fn with_program(setup: &Setup, percent: u32) -> Result<Setup> {
    let program = setup.hv.with_file_name(PROGRAM);
    if !program.is_file() {
        let why = format!("there is no {}", program.display());
        return Err(
            Failure::refused(why).hint(format!("{PROGRAM} belongs beside hv; `cargo build` makes both"))
        );
    }
    let percent = percent.to_string();
    // The first is done when the sandbox has come up: what is counted begins after it.
    let words = [PROGRAM, "work", "--wait", "--percent", &percent, EMPTY].into_iter().chain(NAMES);
    let command = words.map(OsString::from).collect();
    Ok(Setup { command, injected: Some(Injected(program)), ..setup.clone() })
}

fn work(setup: &Setup, round: &mut Round) -> Result<()> {
    let mut sandbox = Prepared::new(setup, &round.kind)?.start(false)?;
    let outcome = converse(&mut sandbox, round);
    let ended = sandbox.end();
    let said = |error: Failure, sandbox: &mut Sandbox| match sandbox.last_words() {
        words if words == "no message" => error,
        words => Failure::refused(format!("{}: {words}", error.message())),
    };
    outcome.map_err(|error| said(error, &mut sandbox))?;
    let (_, status) = ended?;
    if status.success() {
        return Ok(());
    }
    Err(said(Failure::refused(format!("the program inside ended with {status}")), &mut sandbox))
}

fn converse(sandbox: &mut Sandbox, round: &mut Round) -> Result<()> {
    one(sandbox, EMPTY)?;
    let count = |sandbox: &Sandbox| exits(sandbox, &round.kind);
    let mut before = count(sandbox)?;
    for name in NAMES {
        let outcome = one(sandbox, name)?;
        let after = count(sandbox)?;
        let exits = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        round.done.push(Done { outcome, exits });
        before = after;
    }
    Ok(())
}

/// Has one workload done. What comes from inside is an allegation: bounded, and its words made harmless.
fn one(sandbox: &mut Sandbox, name: &str) -> Result<Outcome> {
    sandbox.tell(b"go\n")?;
    let line = sandbox.line()?;
    let outcome: Outcome = serde_json::from_slice(&line).map_err(|source| {
        Failure::new(format!("what came from inside about {name} makes no sense"), source)
    })?;
    if outcome.name != name {
        return Err(Failure::refused(format!("asked for {name}, something else was done inside")));
    }
    let harmless =
        |words: String| words.chars().take(WORDS_LIMIT).flat_map(char::escape_debug).collect::<String>();
    Ok(Outcome { place: outcome.place.map(harmless), failure: outcome.failure.map(harmless), ..outcome })
}

/// VM exits so far, of a microVM whose host counts them.
fn exits(sandbox: &Sandbox, who: &Contender) -> Result<Option<u64>> {
    if who.kind() != Some(Kind::Vm) {
        return Ok(None);
    }
    let metrics: Metrics = sandbox.ask("/v1/metrics")?;
    Ok(metrics.crossings.get(crate::compare::sample::TOTAL).copied())
}
