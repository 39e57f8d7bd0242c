//! A made-up report for the tests of everything that shows one.

use std::collections::BTreeMap;

use hv_common::work::{NAMES, Outcome};
use hv_common::{Kind, Phase};

use super::ablate::{Ablation, TWIN, Trial, USUAL, switches};
use super::inside::{self, Done, Inside};
use super::memory::Ledger;
use super::scale::{Round, Start, Step};
use super::stats::Random;
use super::{Contender, Host, REPORT_VERSION, Report, Role, Sample, Scale, Schedule};

/// Milliseconds from one phase to the next, for each kind, in the order of the phases.
const STEPS: [(Kind, [f64; 7]); 3] = [
    (Kind::Process, [0.8, 0.9, 0.5, 0.0, 0.0, 0.4, 3.0]),
    (Kind::Ctr, [0.8, 0.9, 4.5, 0.0, 0.1, 0.4, 3.0]),
    (Kind::Vm, [0.8, 6.0, 30.0, 0.1, 55.0, 2.0, 3.0]),
];

/// A comparison of so many counted blocks, its samples a few per cent apart.
pub fn report(runs: usize) -> Report {
    let contenders: Vec<Contender> = STEPS.iter().map(|(kind, _)| Contender::from(*kind)).collect();
    let schedule = Schedule::new(&contenders, runs, 1, &[Role::Twin, Role::Cold], 7);
    let mut random = Random::new(7, "example");
    let mut clock = 1_000_000_000;
    let samples = schedule.blocks.iter().enumerate().flat_map(|(block, launches)| {
        launches.iter().enumerate().map(move |(place, launch)| (block, place, launch))
    });
    let samples = samples
        .map(|(block, place, launch)| {
            let mut sample = Sample::empty(launch.who.clone(), launch.role, block, place);
            let factor = if launch.role == Role::Cold { 1.8 } else { 1.0 };
            fill(&mut sample, &mut clock, factor, &mut random);
            sample
        })
        .collect();
    Report {
        version: REPORT_VERSION,
        hv: "0.1.0".into(),
        image: "/images/demo.erofs".into(),
        workload: "/bin/sh -c 'echo ready; read -r line'".into(),
        limits: "256 MiB of memory, 1 cpu, for container and microVM alike".into(),
        guest_kernel: Some("/kernels/vmlinux".into()),
        host: Host {
            cpu: "Example 9000".into(),
            cpus: 8,
            kernel: "6.12.0".into(),
            cgroup: "v2".into(),
            load: 0.1,
            settings: BTreeMap::from([("transparent huge pages".to_owned(), "madvise".to_owned())]),
            stamps: Vec::new(),
        },
        seed: schedule.seed,
        runs,
        warm_up: schedule.warm_up,
        stopped: "all blocks were measured".into(),
        contenders,
        skipped: BTreeMap::new(),
        samples,
        scale: None,
        ablation: None,
        inside: None,
    }
}

/// A comparison with so many blocks of switches: PCI costs 30 ms, there is no pool of huge pages.
pub fn with_ablation(blocks: usize) -> Report {
    let mut report = report(blocks);
    let mut random = Random::new(9, "switches");
    let vm = Contender::from(Kind::Vm);
    let names = [USUAL, TWIN].into_iter().chain(switches::of(&vm).iter().map(|switch| switch.id));
    let mut trials = Vec::new();
    for block in 0..=blocks {
        for switch in names.clone() {
            let more = if switch == "transport-pci" { 30e6 } else { 0.0 };
            let took = (95e6 + more) * (0.01 * random.normal()).exp();
            let failure = (switch == "huge-pages").then(|| "no pool".to_owned());
            let first_byte = 1000 + took as u64;
            let (kind, switch) = (vm.clone(), switch.to_owned());
            trials.push(Trial {
                block,
                kind,
                switch,
                asked: 1000,
                first_byte,
                gone: first_byte + 9,
                failure,
            });
        }
    }
    report.ablation = Some(Ablation { blocks, trials });
    report
}

/// A comparison with so many rounds of sandboxes beside each other, too.
pub fn with_scale(rounds: usize) -> Report {
    let mut report = report(rounds);
    let mut random = Random::new(8, "rounds");
    let mut near = |value: f64| (value * (0.02 * random.normal()).exp()) as u64;
    let mut all = Vec::new();
    for round in 0..rounds {
        for (kind, steps) in STEPS {
            let (start, each) = (steps.iter().sum::<f64>() * 1e6, steps[2] * 1e6 + 5e5);
            let mut took = |slower: f64| Start { asked: 10, first_byte: 10 + near(start * slower) };
            let begin =
                (0..8).map(|running| (running, took(1.0 + 0.02 * f64::from(running)))).collect::<Vec<_>>();
            let burst = (0..8).map(|_| took(3.0)).collect();
            let mut held = 0;
            let mut step = |(running, start): (i32, Start)| {
                held += near(each);
                let rss = Some(held + u64::from(running.unsigned_abs() + 1) * 2_000_000);
                Step { start, pss: Some(held + 2_000_000), rss, available: Some((8 << 30) - held) }
            };
            let steps = begin.into_iter().map(&mut step).collect();
            all.push(Round {
                round,
                kind: kind.into(),
                available: Some(8 << 30),
                steps,
                burst,
                failure: None,
            });
        }
    }
    report.scale = Some(Scale { resident: 8, at_once: 8, rounds: all });
    report
}

/// A comparison with so many counted rounds of workloads inside, too: 100 ns an operation in a bare process, 10 per cent
/// more in a container, 30 in a microVM, which has two exits each.
pub fn with_inside(rounds: usize) -> Report {
    let mut report = report(rounds);
    let mut random = Random::new(9, "inside");
    let mut all = Vec::new();
    for round in 0..=rounds {
        for (kind, cost) in [(Kind::Process, 1.0), (Kind::Ctr, 1.1), (Kind::Vm, 1.3)] {
            for role in [Role::Main, Role::Twin] {
                let done = NAMES.iter().map(|name| Done {
                    outcome: Outcome {
                        name: (*name).into(),
                        operations: 1000,
                        nanoseconds: (1e5 * cost * (0.01 * random.normal()).exp()) as u64,
                        place: name.starts_with("file").then(|| "overlay".to_owned()),
                        failure: None,
                    },
                    exits: (kind == Kind::Vm).then_some(if *name == NAMES[0] { 40 } else { 2040 }),
                });
                let done = done.collect();
                all.push(inside::Round { round, kind: kind.into(), role, done, failure: None });
            }
        }
    }
    report.inside = Some(Inside { percent: 100, rounds: all });
    report
}

fn fill(sample: &mut Sample, clock: &mut u64, factor: f64, random: &mut Random) {
    let Some(kind) = sample.kind.kind() else { return };
    let Some((_, steps)) = STEPS.iter().find(|(of, _)| *of == kind) else { return };
    let mut step = |ms: f64| {
        *clock += (ms * 1e6 * factor * (0.03 * random.normal()).exp()) as u64;
        *clock
    };
    sample.asked = step(1.0);
    let phases = [Phase::Launch, Phase::Opened, Phase::Boundary, Phase::Kernel, Phase::Init, Phase::Exec];
    for (phase, ms) in phases.into_iter().zip(steps) {
        let at = step(*ms);
        let has = match phase {
            Phase::Kernel => kind == Kind::Vm,
            Phase::Init => kind != Kind::Process,
            _ => true,
        };
        if has {
            sample.phases.insert(phase, at);
        }
    }
    sample.first_byte = Some(step(steps[6]));
    sample.told_to_end = Some(step(0.1));
    sample.phases.insert(Phase::Exit, step(0.5));
    sample.gone = step(if kind == Kind::Vm { 20.0 } else { 2.0 });
    sample.cpu_ns = (steps.iter().sum::<f64>() * 0.9e6) as u64;
    let vm = kind == Kind::Vm;
    sample.memory = Ledger {
        monitor: Some(3 << 20),
        processes: Some(if vm { 0 } else { 2 << 20 }),
        guest: vm.then_some(29 << 20),
        cgroup: (kind != Kind::Process).then_some(if vm { 34 << 20 } else { 4 << 20 }),
        inside: (kind != Kind::Process).then_some(if vm { 32 << 20 } else { 2 << 20 }),
        gaps: Vec::new(),
    };
    if vm {
        sample.crossings = BTreeMap::from(
            [("total", 2900), ("io", 210), ("mmio", 205)].map(|(name, n)| (name.to_owned(), n)),
        );
    }
    sample.status = Some(0);
}
