//! The launches.

use super::switches::{self, Switch};
use super::{Ablation, TWIN, Trial, USUAL};
use crate::compare::measure::Interrupts;
use crate::compare::sandbox::Prepared;
use crate::compare::{Contender, Setup};
use crate::error::{Failure, Result};

/// Makes `blocks` counted blocks after one that does not count, in an order that `seed` gives again. An interrupt ends
/// it: true beside what was measured.
pub fn measure(
    setup: &Setup,
    subjects: &[Contender],
    blocks: usize,
    seed: u64,
    interrupts: &Interrupts,
    mut progress: impl FnMut(usize, &Contender),
) -> (Ablation, bool) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut ablation = Ablation { blocks, trials: Vec::new() };
    for block in 0..=blocks {
        let mut starts: Vec<(&Contender, &str, Option<&Switch>)> = Vec::new();
        for who in subjects {
            starts.extend([(who, USUAL, None), (who, TWIN, None)]);
            starts.extend(switches::of(who).iter().map(|switch| (who, switch.id, Some(switch))));
        }
        random.shuffle(&mut starts);
        for (who, name, switch) in starts {
            progress(ablation.trials.len(), who);
            let changed = switch.map(|switch| switch.apply(setup));
            let mut trial = Trial {
                block,
                kind: who.clone(),
                switch: name.into(),
                asked: 0,
                first_byte: 0,
                gone: 0,
                failure: None,
            };
            let outcome = start(changed.as_ref().unwrap_or(setup), &mut trial);
            if interrupts.arrived() {
                return (ablation, true);
            }
            trial.failure = outcome.err().map(|error| error.message());
            ablation.trials.push(trial);
        }
    }
    (ablation, false)
}

/// How many launches that makes.
pub fn launches(subjects: &[Contender], blocks: usize) -> usize {
    (blocks + 1) * subjects.iter().map(|who| 2 + switches::of(who).len()).sum::<usize>()
}

fn start(setup: &Setup, trial: &mut Trial) -> Result<()> {
    let mut sandbox = Prepared::new(setup, &trial.kind)?.start(false)?;
    trial.asked = sandbox.asked;
    let first = sandbox.first_byte();
    if let Ok(Some(at)) = first {
        trial.first_byte = at;
        sandbox.tell_to_end()?;
    }
    let (gone, status) = sandbox.end()?;
    trial.gone = gone;
    if first?.is_none() || !status.success() {
        return Err(Failure::refused(format!("it ended with {status}: {}", sandbox.last_words())));
    }
    Ok(())
}
