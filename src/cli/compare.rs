//! Arguments of `hv compare`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::compare::{Contender, peers};
use crate::size::parse_bytes;

/// Shown below the help text.
pub const EXAMPLES: &str = "\
Exit status: 0 if every launch worked, 1 if one failed or --fail-if-slower found
something, 125 if hv itself failed, 130 if it was interrupted.

Example: hv compare --kernel vmlinux --out report rootfs.img
         hv compare --quick rootfs.img -- ./my-program --once
         hv compare --quick --scale --kinds process,ctr rootfs.img
         hv compare --kinds ctr,crun,runc rootfs.img
         hv compare --inside rootfs.img
         hv compare --replay report/report.json
         hv compare before.json after.json --fail-if-slower 5%";

/// Arguments of `hv compare`.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// The image: a raw ext4, squashfs or EROFS file, or a directory; or two reports (.json) to compare with each other
    #[arg(value_name = "IMAGE", num_args = 1..=2, required_unless_present_any = ["replay", "list_kinds"], conflicts_with = "replay")]
    pub images: Vec<PathBuf>,
    /// The command; else a shell that says a word and waits while memory is read
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
    /// Counted launches of each kind [default: 40]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: Option<u32>,
    /// Ten counted launches of each kind
    #[arg(long, conflicts_with_all = ["runs", "paper"])]
    pub quick: bool,
    /// Launch until each interval is narrower than 2 % to either side, 500 blocks are done or the budget is spent
    #[arg(long, conflicts_with = "runs")]
    pub paper: bool,
    /// Seconds that --paper may take
    #[arg(long, value_name = "SECONDS", default_value_t = 1800, requires = "paper")]
    pub budget: u64,
    /// Also start sandboxes beside each other, and at once: what each further one costs (part of --paper)
    #[arg(long)]
    pub scale: bool,
    /// Also start with one thing changed at a time: what each switch of vm, and each wall of a container, costs
    #[arg(long)]
    pub ablate: bool,
    /// Measure workloads inside, too, as ratios to the bare process; PERCENT of their operations [default: 100]
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true, default_missing_value = "100", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub inside: Option<u32>,
    /// Measure the harness itself instead: so many pairs of a start by it and one by a bare loop
    #[arg(long, hide = true, value_name = "PAIRS", value_parser = clap::value_parser!(u32).range(5..=10_000))]
    pub overhead: Option<u32>,
    /// Kinds to launch, in the order of the columns: process, ctr, vm, and other runtimes that --list-kinds names
    #[arg(long, value_name = "KINDS", value_delimiter = ',', default_value = "process,ctr,vm", value_parser = parse_kind)]
    pub kinds: Vec<Contender>,
    /// List the kinds that can be launched, and which are absent here
    #[arg(long)]
    pub list_kinds: bool,
    /// Write report.json, report.csv, report.html and start.svg into DIR
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Write every sample to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Show the report FILE again (and write its page with --out) instead of measuring
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,
    /// Of two reports: end with status 1 when the second is surely slower or larger by more than this
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    pub fail_if_slower: Option<f64>,
    /// Memory of container and microVM alike
    #[arg(long, short, value_name = "SIZE", default_value = "256M", value_parser = parse_bytes)]
    pub memory: u64,
    /// Processors of container and microVM alike
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: u32,
    /// The order of the launches that an earlier report printed
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Seconds after which one launch counts as failed
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Kernel: an ELF vmlinux or a bzImage [default: the newest in the store]
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// The kernel's modules: a /lib/modules/VERSION [default: beside the kernel]
    #[arg(long, value_name = "DIR")]
    pub modules: Option<PathBuf>,
}

fn parse_kind(word: &str) -> Result<Contender, String> {
    let who = Contender::try_from(word.to_owned())?;
    if who.kind().is_some() || peers::find(word).is_some() {
        return Ok(who);
    }
    let known: Vec<&str> = peers::TABLE.iter().map(|adapter| adapter.name).collect();
    Err(format!("use process, ctr, vm, or one of {}", known.join(", ")))
}

/// A share from a number of per cent, with or without the sign.
fn parse_percent(word: &str) -> Result<f64, String> {
    let number: f64 = word.strip_suffix('%').unwrap_or(word).parse().map_err(|_| "use a number like 5%")?;
    if (0.0..=1000.0).contains(&number) { Ok(number / 100.0) } else { Err("use 0% to 1000%".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_by_name() {
        assert!(["process", "ctr", "vm", "crun", "bwrap"].iter().all(|word| parse_kind(word).is_ok()));
        assert!(parse_kind("lxc").unwrap_err().contains("firecracker"));
    }

    #[test]
    fn per_cent_with_and_without_its_sign() {
        assert_eq!(parse_percent("5%"), Ok(0.05));
        assert_eq!(parse_percent("50"), Ok(0.5));
        assert!(["", "%", "-1%", "NaN", "inf", "5 %"].iter().all(|word| parse_percent(word).is_err()));
    }
}
