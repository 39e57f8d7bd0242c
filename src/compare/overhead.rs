//! What the harness itself adds to a start: the same program, started by it and by a bare loop of spawn, read and wait,
//! in pairs of random order.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use hv_common::{Id, Kind, phase};

use super::stats::{Paired, Random};
use super::{Contender, Launch, Role, Setup, launch, sandbox};
use crate::error::{Failure, Result};

/// Pairs before those that count.
const WARM_UP: usize = 5;

/// What the pairs say: time to the first byte by the harness over that of the bare loop, nanoseconds.
///
/// # Errors
/// A start failed.
pub fn measure(setup: &Setup, pairs: usize, seed: u64) -> Result<Option<Paired>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let who = Launch { who: Contender::from(Kind::Process), role: Role::Main };
    let mut counted = Vec::new();
    for number in 0..pairs + WARM_UP {
        let harness = || -> Result<f64> {
            // A block that is not the first: the conditions are looked at in that one only, after the first byte.
            let sample = launch::launch(setup, &who, 1, 0);
            match (sample.ready(), sample.failure) {
                (Some(took), None) => Ok(took),
                (_, why) => Err(Failure::refused(why.unwrap_or_else(|| "it wrote nothing".into()))),
            }
        };
        let (by_harness, bare) = if random.bool() {
            let by_harness = harness()?;
            (by_harness, bare(setup)?)
        } else {
            let bare = bare(setup)?;
            (harness()?, bare)
        };
        if number >= WARM_UP {
            counted.push((Some(by_harness), Some(bare)));
        }
    }
    Ok(Paired::of(&counted, &mut Random::new(seed, "overhead")))
}

/// The same command line, without anything around it.
fn bare(setup: &Setup) -> Result<f64> {
    let failed = |source| Failure::new("a bare start failed", source);
    let id = Id::random().map_err(failed)?;
    let stats = tempfile::NamedTempFile::new().map_err(failed)?;
    let mut command: Command = sandbox::command_line(setup, Kind::Process, &id, stats.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let asked = phase::now();
    let mut child = command.spawn().map_err(failed)?;
    let mut first = [0u8; 1];
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let read = stdout.map_or(Ok(0), |mut stdout| stdout.read(&mut first)).map_err(failed)?;
    let took = phase::now().saturating_sub(asked) as f64;
    stdin.map_or(Ok(()), |mut stdin| stdin.write_all(b"end\n")).map_err(failed)?;
    child.wait().map_err(failed)?;
    if read == 1 { Ok(took) } else { Err(Failure::refused("a bare start wrote nothing")) }
}
