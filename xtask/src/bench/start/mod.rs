//! `cargo xtask bench start`: from a container runtime's exec to its exit, with the same root directory and the same
//! `config.json`.

mod native;

use std::path::PathBuf;

use anyhow::Result;

use super::figures::{Figure, count, median, on_path};
use super::table::{markdown, ms, ratio};
use crate::hv;

const SCRIPT: &str = include_str!("start.sh");
/// The ways to start a container that are shown, as the script names them, and their titles.
const OURS: [(&str, &str); 3] =
    [("hv ctr DIR", "hv ctr, directory"), ("hv ctr EROFS", "hv ctr, EROFS"), ("hv", "hv oci")];
/// The runtimes that the testbed has; youki comes from this machine's PATH, as a static program.
const PEERS: [&str; 3] = ["crun", "runc", "youki"];
/// The peer whose figures are the aim's.
const MEASURE: &str = "crun";
/// Containers started at once.
const AT_ONCE: u32 = 100;

/// Measures, and prints the tables.
///
/// # Errors
/// Something could not be built, or a measurement failed.
pub fn run(runs: u32) -> Result<()> {
    hv::build(true)?;
    let programs: Vec<PathBuf> = on_path("youki").into_iter().collect();
    let figures = count("start", SCRIPT, &[runs.to_string(), AT_ONCE.to_string()], programs)?;
    println!("`/bin/true` in a container, virtual milliseconds, from exec to exit:\n\n{}", whole(&figures));
    println!("`create`, `start`, `delete` in turn:\n\n{}", steps(&figures));
    println!(
        "{AT_ONCE} starts at once, until the last has ended, on one processor:\n\n{}",
        at_once(&figures)
    );
    println!("Memory of an idle container and its monitor, of ten (PSS, KiB):\n\n{}", idle(&figures));
    println!("Natively, whole process, wall time:\n\n{}", native::measure()?);
    Ok(())
}

fn of(figures: &[Figure], whose: &str, with: &str) -> Option<u64> {
    let wanted = |figure: &&Figure| figure.whose == whose && figure.with == with;
    median(figures.iter().filter(wanted).map(|figure| figure.value).collect())
}

/// One line for each runtime: its figure, shown, and hv's part of crun's where both are there.
fn rows(figures: &[Figure], with: &str, shown: fn(u64) -> String) -> Vec<Vec<String>> {
    let measure = of(figures, MEASURE, with);
    let names = OURS.into_iter().chain(PEERS.map(|peer| (peer, peer)));
    let row = |(whose, title): (&str, &str)| match (of(figures, whose, with), measure) {
        (Some(value), Some(measure)) => vec![title.into(), shown(value), ratio(value, measure)],
        (Some(value), None) => vec![title.into(), shown(value), "-".into()],
        (None, _) => vec![title.into(), "absent".into(), "-".into()],
    };
    names.map(row).collect()
}

fn whole(figures: &[Figure]) -> String {
    let mut rows = rows(figures, "run", ms);
    if let Some(floor) = of(figures, "floor", "run") {
        rows.push(vec!["(fork and exec of `true`, part of each)".into(), ms(floor), String::new()]);
    }
    markdown(&["", "run", "times crun's"], &rows)
}

fn steps(figures: &[Figure]) -> String {
    let times = |whose: &str| -> Option<[u64; 3]> {
        Some([of(figures, whose, "create")?, of(figures, whose, "start")?, of(figures, whose, "delete")?])
    };
    let measure = times(MEASURE).map(|times| times.iter().sum::<u64>());
    let row = |whose: &&str| {
        let title = if *whose == "hv" { "hv oci" } else { *whose };
        let Some(times) = times(whose) else {
            return [title, "absent", "-", "-", "-", "-"].map(str::to_owned).to_vec();
        };
        let sum = times.iter().sum::<u64>();
        let part = measure.map_or("-".into(), |measure| ratio(sum, measure));
        std::iter::once(title.to_owned()).chain(times.map(ms)).chain([ms(sum), part]).collect()
    };
    let rows: Vec<Vec<String>> = ["hv"].iter().chain(&PEERS).map(row).collect();
    markdown(&["", "create", "start", "delete", "sum", "times crun's"], &rows)
}

/// Of the ways to start that this was measured of.
fn at_once(figures: &[Figure]) -> String {
    let rows = rows(figures, "at-once", ms).into_iter().filter(|row| row[0] != OURS[1].1);
    markdown(&["", "makespan", "times crun's"], &rows.collect::<Vec<_>>())
}

fn idle(figures: &[Figure]) -> String {
    let rows = rows(figures, "idle", |kib| kib.to_string()).into_iter().filter(|row| row[0] != OURS[1].1);
    markdown(&["", "KiB", "times crun's"], &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(whose: &str, with: &str, value: u64) -> Figure {
        Figure { whose: whose.into(), with: with.into(), what: "us".into(), value }
    }

    #[test]
    fn absent_runtimes_are_named_and_crun_is_the_measure() {
        let figures = [figure("hv", "run", 10_000), figure("crun", "run", 20_000)];
        let text = whole(&figures);
        assert!(text.contains("| hv oci | 10.0 | 0.50 |"), "{text}");
        assert!(text.contains("| youki | absent | - |"), "{text}");
    }

    #[test]
    fn the_three_steps_are_added() {
        let all = |whose: &str, value| ["create", "start", "delete"].map(|with| figure(whose, with, value));
        let figures = [all("hv", 6_000), all("crun", 10_000)].concat();
        let text = steps(&figures);
        assert!(text.contains("| hv oci | 6.0 | 6.0 | 6.0 | 18.0 | 0.60 |"), "{text}");
        assert!(text.contains("| runc | absent |"), "{text}");
    }
}
