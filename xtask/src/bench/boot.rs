//! `cargo xtask bench boot`: from a monitor's exec to its exit, with the same kernel and the same initrd.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::Result;

use super::figures::{Figure, count, median, on_path};
use super::table::{markdown, ms, ratio};
use super::{exits, initrd, native};
use crate::{hv, kernel, progress, workspace};

const SCRIPT: &str = include_str!("boot.sh");
/// Monitors that start a kernel as hv does, if they are static programs in `PATH`.
const PEERS: [&str; 2] = ["firecracker", "cloud-hypervisor"];
const KERNELS: [(&str, &str); 2] = [("tuned", "Tuned kernel"), ("debian", "Debian's kernel, unpacked")];

/// Measures, and prints the tables.
///
/// # Errors
/// Something could not be built, or a measurement failed.
pub fn run(runs: u32) -> Result<()> {
    kernel::tuned()?;
    hv::build(true)?;
    let log = workspace::log("bench")?;
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--release", "--package", "hv-vmm", "--example", "boot"]);
    progress::run("building the example boot", cargo.current_dir(workspace::root()), &log)?;
    let boot = workspace::bin_dir("release").join("examples/boot");

    let peers: Vec<_> = PEERS.iter().map(|name| (*name, on_path(name))).collect();
    let mut programs = vec![boot.clone(), initrd::make()?];
    programs.extend(peers.iter().filter_map(|(_, path)| path.clone()));
    let figures = count("boot", SCRIPT, &[runs.to_string()], programs)?;
    for (with, title) in KERNELS {
        println!(
            "{title}; 1 vCPU, 256 MiB, busybox as initrd prints a line and resets; virtual milliseconds:\n"
        );
        println!("{}", times(&figures, with, &peers.iter().map(|peer| peer.0).collect::<Vec<_>>()));
        println!("VM exits of one such run, by reason:\n\n{}", reasons(&figures, with));
    }
    let firecracker = peers.iter().find(|peer| peer.0 == "firecracker").and_then(|peer| peer.1.as_deref());
    print_native(native::measure(&boot, firecracker)?);
    Ok(())
}

fn values(figures: &[Figure], whose: &str, with: &str, what: &str) -> Vec<u64> {
    let wanted = |figure: &&Figure| figure.whose == whose && figure.with == with && figure.what == what;
    figures.iter().filter(wanted).map(|figure| figure.value).collect()
}

fn times(figures: &[Figure], with: &str, peers: &[&str]) -> String {
    let of = |whose: &str| median(values(figures, whose, with, "us"));
    let hv = of("hv");
    let mut rows = Vec::new();
    for whose in ["hv"].iter().chain(peers) {
        let (time, against) = match (of(whose), hv) {
            (Some(time), Some(hv)) => (ms(time), ratio(hv, time)),
            _ => ("absent".into(), "-".into()),
        };
        rows.push(vec![(*whose).to_owned(), time, against]);
    }
    if let Some(floor) = of("floor") {
        rows.push(vec!["(fork and exec of `true`, part of each)".into(), ms(floor), String::new()]);
    }
    markdown(&["monitor", "exec to exit", "hv's is, times this"], &rows)
}

fn reasons(figures: &[Figure], with: &str) -> String {
    let mut counts: BTreeMap<String, BTreeMap<&str, u64>> = BTreeMap::new();
    let mut monitors = BTreeSet::new();
    for figure in figures.iter().filter(|figure| figure.with == with) {
        let Some(code) = figure.what.strip_prefix("exit ").and_then(|code| code.parse().ok()) else {
            continue;
        };
        monitors.insert(figure.whose.as_str());
        *counts.entry(exits::name(code)).or_default().entry(&figure.whose).or_default() += figure.value;
        *counts.entry("all".into()).or_default().entry(&figure.whose).or_default() += figure.value;
    }
    let mut header = vec!["reason"];
    // hv first, then the others by name.
    let mut order: Vec<&str> = monitors.into_iter().collect();
    order.sort_by_key(|whose| *whose != "hv");
    header.extend(&order);
    let mut sorted: Vec<_> = counts.into_iter().collect();
    sorted.sort_by_key(|(_, by)| std::cmp::Reverse(by.values().sum::<u64>()));
    let row = |(reason, by): (String, BTreeMap<&str, u64>)| {
        let cell = |whose: &&str| by.get(whose).copied().unwrap_or_default().to_string();
        std::iter::once(reason).chain(order.iter().map(cell)).collect()
    };
    markdown(&header, &sorted.into_iter().map(row).collect::<Vec<_>>())
}

fn print_native(measured: Option<(native::Tiny, Option<native::Tiny>)>) {
    let Some((hv, firecracker)) = measured else {
        return println!("A guest of a few instructions, natively: not measured, there is no /dev/kvm here.");
    };
    let row = |name: &str, tiny: Option<&native::Tiny>| match tiny {
        Some(tiny) => {
            let calls = tiny.calls.map_or("-".into(), |calls| calls.to_string());
            vec![name.to_owned(), ms(tiny.us), calls, ratio(hv.us, tiny.us)]
        }
        None => vec![name.to_owned(), "absent".into(), "-".into(), "-".into()],
    };
    println!("A guest of a few instructions on this machine's own KVM, whole process, wall time:\n");
    let rows = [row("hv", Some(&hv)), row("firecracker", firecracker.as_ref())];
    println!("{}", markdown(&["monitor", "ms", "system calls", "hv's is, times this"], &rows));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_peers_are_named() {
        let figure = |whose: &str, what: &str, value| Figure {
            whose: whose.into(),
            with: "tuned".into(),
            what: what.into(),
            value,
        };
        let figures =
            [figure("hv", "us", 100_000), figure("firecracker", "us", 200_000), figure("hv", "exit 123", 9)];
        let text = times(&figures, "tuned", &PEERS);
        assert!(text.contains("| firecracker | 200.0 | 0.50 |"), "{text}");
        assert!(text.contains("| cloud-hypervisor | absent | - |"), "{text}");
        assert!(reasons(&figures, "tuned").contains("| port | 9 |"));
    }
}
