//! `hv compare`: one image, three walls, one table and one page; or two reports.
//! `kinds`: who can be launched here.

mod kinds;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hv_common::Kind;
use hv_common::cgroup::Layout;

use crate::cli::CompareArgs;
use crate::compare::measure::{self, Interrupts, Measured, Until};
use crate::compare::report::{csv, difference, file, html, switches, text};
use crate::compare::scale::run::Extent;
use crate::compare::{
    Ablation, Contender, Host, Inside, REPORT_VERSION, Report, Role, Scale, Schedule, Setup, ablate, against,
    inside, launch, overhead, scale,
};
use crate::error::{self, Failure, Result};

/// Counted blocks by default, with `--quick`, and at most with `--paper`.
const RUNS: usize = 40;
const RUNS_QUICK: usize = 10;
const RUNS_PAPER: usize = 500;
/// Exit status after an interrupt: 128 and SIGINT.
const INTERRUPTED: u8 = 130;

/// Measures, or reads what was measured; prints the table and writes the files.
///
/// # Errors
/// Nothing can be measured, or a report cannot be read or written.
pub fn run(args: &CompareArgs) -> Result<u8> {
    if args.list_kinds {
        return print(&kinds::list()).map(|()| 0);
    }
    if let Some(path) = &args.replay {
        let report = file::read(path)?;
        return show(args, &report).map(|()| 0);
    }
    match args.images.as_slice() {
        [before, after] => difference(args, before, after),
        [image] if args.fail_if_slower.is_some() => Err(Failure::refused(format!(
            "--fail-if-slower compares two reports; {} is the only one",
            image.display()
        ))),
        [image] => measure(args, image),
        _ => Err(Failure::refused("no image was named; see `hv compare --help`")),
    }
}

/// Two reports with the same statistics.
fn difference(args: &CompareArgs, before: &Path, after: &Path) -> Result<u8> {
    let (before, after) = (file::read(before)?, file::read(after)?);
    let changes = against::changes(&before, &after);
    print(&difference::render(&before, &after, &changes))?;
    let Some(limit) = args.fail_if_slower else { return Ok(0) };
    let worse: Vec<_> = changes.iter().filter(|change| change.is_worse_by(limit)).collect();
    for change in &worse {
        let (share, limit) = (100.0 * (change.ratio.ratio - 1.0), 100.0 * limit);
        error::say(format_args!(
            "{} of {} grew by {share:.1} %, more than {limit} %",
            change.label, change.who
        ));
    }
    Ok(u8::from(!worse.is_empty()))
}

fn measure(args: &CompareArgs, image: &Path) -> Result<u8> {
    let image = crate::image::file(image)?;
    if (args.scale || args.ablate) && !args.command.is_empty() {
        return Err(Failure::refused(
            "--scale and --ablate have a workload of their own: leave out `-- CMD`, or these",
        ));
    }
    let mut setup = setup(args, image)?;
    if let Some(pairs) = args.overhead {
        return overhead(&setup, pairs as usize, args.seed.unwrap_or_else(|| fastrand::u64(..)));
    }
    let (contenders, skipped) = kinds::usable(&args.kinds, &setup);
    if contenders.is_empty() {
        let reasons: Vec<String> = skipped.iter().map(|(kind, why)| format!("{kind}: {why}")).collect();
        let why = reasons.join("; ");
        return Err(Failure::refused(format!("none of the kinds can run here ({why}); see `hv check`")));
    }
    let interrupts = Interrupts::take()?;
    let cgroup = Layout::detect().map_or_else(|_| "none".into(), |layout| layout.shape().to_string());
    let host = Host::look(cgroup);
    let subjects = if args.ablate { subjects(&contenders) } else { Vec::new() };
    let _root = kinds::prepare(&mut setup, contenders.iter().chain(&subjects))?;
    let schedule = schedule(args, &contenders, !setup.files.is_empty());
    let until = if args.paper { Until::Precise(Duration::from_secs(args.budget)) } else { Until::Done };
    let measured = measure::measure(&setup, &schedule, until, &interrupts, progress(schedule.launches()));
    let beside = beside(args, &setup, &contenders, &measured, schedule.seed, &interrupts);
    let (ablation, ablation_cut) = ablation(
        args,
        &setup,
        &subjects,
        schedule.seed,
        &interrupts,
        beside.as_ref().is_some_and(|(_, cut)| *cut) || measured.interrupted,
    );
    let (scale, cut_short) = beside.map_or((None, false), |(scale, cut_short)| (Some(scale), cut_short));
    let cut_short = cut_short || ablation_cut;
    let over = measured.interrupted || cut_short;
    let work = if over { None } else { work(args, &setup, &contenders, schedule.seed, &interrupts)? };
    finish_progress();
    let (inside, left_off) = work.map_or((None, false), |(inside, left_off)| (Some(inside), left_off));
    let stopped = match (cut_short, left_off) {
        (true, _) => {
            "interrupted: partial, not all sandboxes beside each other or with a change were started".into()
        }
        (_, true) => "interrupted: partial, not all rounds of work inside were made".into(),
        _ => measured.stopped,
    };
    let report = Report {
        version: REPORT_VERSION,
        hv: env!("CARGO_PKG_VERSION").into(),
        image: display(&setup.image),
        workload: workload(&setup),
        limits: format!(
            "{} MiB of memory, {} cpu, for container and microVM alike",
            args.memory >> 20,
            args.cpus
        ),
        guest_kernel: contenders.contains(&Kind::Vm.into()).then(|| guest_kernel(args)),
        host,
        seed: schedule.seed,
        runs: measured.runs,
        warm_up: schedule.warm_up,
        stopped,
        contenders,
        skipped,
        samples: measured.samples,
        scale,
        ablation,
        inside,
    };
    show(args, &report)?;
    let beside = report.scale.iter().flat_map(|scale| &scale.rounds).map(|round| &round.failure);
    let inside = report.inside.iter().flat_map(|inside| &inside.rounds).map(|round| &round.failure);
    let failed = report.samples.iter().map(|sample| &sample.failure).chain(beside).chain(inside);
    let failed = failed.into_iter().any(Option::is_some);
    Ok(if over || left_off { INTERRUPTED } else { u8::from(failed) })
}

/// Sandboxes beside each other, if they were asked for; true beside it when that was interrupted.
fn beside(
    args: &CompareArgs,
    setup: &Setup,
    contenders: &[Contender],
    measured: &Measured,
    seed: u64,
    interrupts: &Interrupts,
) -> Option<(Scale, bool)> {
    if !(args.scale || args.paper && args.command.is_empty()) || measured.interrupted {
        return None;
    }
    let extent = match (args.quick, args.paper) {
        (true, _) => Extent { rounds: 3, resident: 4, at_once: 4 },
        (_, true) => Extent { rounds: 11, resident: 8, at_once: 8 },
        _ => Extent { rounds: 5, resident: 8, at_once: 8 },
    };
    let rounds = extent.rounds * contenders.len();
    Some(scale::run::measure(setup, contenders, extent, seed, interrupts, progress(rounds)))
}

/// What the harness adds to a start of the bare process.
fn overhead(setup: &Setup, pairs: usize, seed: u64) -> Result<u8> {
    let paired = overhead::measure(setup, pairs, seed)?
        .ok_or_else(|| Failure::refused("no pair of starts gave a ratio"))?;
    let range = paired.interval.map_or("too few pairs for an interval".to_owned(), |ends| {
        format!("95 % interval {:.4} to {:.4}", ends.low, ends.high)
    });
    print(&format!(
        "harness over bare loop, time to the first byte of `hv process`: {:.4} ({range}); {:+.1} us a start; {} pairs, seed {seed}\n",
        paired.ratio,
        paired.shift / 1e3,
        paired.n
    ))?;
    Ok(0)
}

/// Whose switches are tried: those of `vm`, and for `ctr` those of a bundle.
fn subjects(contenders: &[Contender]) -> Vec<Contender> {
    let own = |kind: Kind| contenders.contains(&kind.into());
    let bundle = own(Kind::Ctr).then(|| Contender::Peer("hv-oci".into()));
    own(Kind::Vm).then(|| Kind::Vm.into()).into_iter().chain(bundle).collect()
}

/// Starts with one thing changed, if they were asked for and nothing was interrupted; true when that was.
fn ablation(
    args: &CompareArgs,
    setup: &Setup,
    subjects: &[Contender],
    seed: u64,
    interrupts: &Interrupts,
    interrupted: bool,
) -> (Option<Ablation>, bool) {
    if !args.ablate || interrupted {
        return (None, false);
    }
    let blocks = match (args.runs, args.quick, args.paper) {
        (Some(runs), ..) => runs as usize,
        (_, true, _) => 10,
        (_, _, true) => 100,
        _ => 25,
    };
    let launches = ablate::run::launches(subjects, blocks);
    let (ablation, cut) = ablate::run::measure(setup, subjects, blocks, seed, interrupts, progress(launches));
    (Some(ablation), cut)
}

/// Workloads inside, if they were asked for; true beside them when that was interrupted.
fn work(
    args: &CompareArgs,
    setup: &Setup,
    contenders: &[Contender],
    seed: u64,
    interrupts: &Interrupts,
) -> Result<Option<(Inside, bool)>> {
    let (rounds, twins) = match (args.runs, args.quick, args.paper) {
        (Some(runs), ..) => (runs as usize, runs >= 10),
        (_, true, _) => (5, false),
        (_, _, true) => (40, true),
        _ => (10, true),
    };
    let Some(percent) = args.inside else { return Ok(None) };
    let extent = inside::run::Extent { rounds, twins, percent };
    // Another runtime has no way to run a program that its image does not hold.
    let own: Vec<Contender> = contenders.iter().filter(|who| who.kind().is_some()).cloned().collect();
    let launches = own.len() * (1 + rounds * if twins { 2 } else { 1 });
    inside::run::measure(setup, &own, extent, seed, interrupts, progress(launches)).map(Some)
}

fn schedule(args: &CompareArgs, contenders: &[Contender], cold: bool) -> Schedule {
    let (runs, warm_up) = match args.runs {
        Some(runs) => (runs as usize, 1),
        None if args.quick => (RUNS_QUICK, 1),
        None if args.paper => (RUNS_PAPER, 3),
        None => (RUNS, 3),
    };
    // So few say nothing of noise; somebody is only trying it out.
    let extra: &[Role] = match (runs, cold) {
        (..3, _) => &[],
        (_, true) => &[Role::Twin, Role::Cold],
        (_, false) => &[Role::Twin],
    };
    Schedule::new(contenders, runs, warm_up, extra, args.seed.unwrap_or_else(|| fastrand::u64(..)))
}

/// The files that were asked for, then the table.
fn show(args: &CompareArgs, report: &Report) -> Result<()> {
    if let Some(path) = &args.json {
        file::write(report, path)?;
    }
    if let Some(dir) = &args.out {
        std::fs::create_dir_all(dir)
            .map_err(|source| Failure::new(format!("cannot make {}", dir.display()), source))?;
        file::write(report, &dir.join("report.json"))?;
        file::place(csv::render(report).as_bytes(), &dir.join("report.csv"))?;
        if let Some(scale) = &report.scale {
            file::place(csv::scale(scale).as_bytes(), &dir.join("scale.csv"))?;
        }
        if let Some(ablation) = &report.ablation {
            file::place(switches::csv(ablation).as_bytes(), &dir.join("switches.csv"))?;
        }
        if let Some(inside) = &report.inside {
            file::place(csv::inside(inside).as_bytes(), &dir.join("inside.csv"))?;
        }
        file::place(html::render(report).as_bytes(), &dir.join("report.html"))?;
        if let Some(picture) = html::picture(report) {
            file::place(picture.as_bytes(), &dir.join("start.svg"))?;
        }
    }
    print(&text::render(report))
}

fn print(text: &str) -> Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|source| Failure::new("cannot print the report", source))
}

fn setup(args: &CompareArgs, image: PathBuf) -> Result<Setup> {
    let mut machine = Vec::new();
    for (option, value) in [("--kernel", &args.kernel), ("--modules", &args.modules)] {
        if let Some(value) = value {
            machine.extend([OsString::from(option), value.clone().into_os_string()]);
        }
    }
    Ok(Setup {
        hv: std::env::current_exe()
            .map_err(|source| Failure::new("cannot find hv's own program file", source))?,
        // A directory has no one file to drop from the page cache: nothing is measured cold then.
        files: if image.is_file() {
            [image.clone()].into_iter().chain(args.kernel.clone()).collect()
        } else {
            Vec::new()
        },
        root: image.clone(),
        edit: None,
        image,
        kernel: args.kernel.clone(),
        machine,
        memory: args.memory,
        cpus: args.cpus,
        command: args.command.clone(),
        injected: None,
        deadline: Duration::from_secs(args.timeout),
    })
}

fn display(path: &Path) -> String {
    path.display().to_string().escape_debug().collect()
}

fn workload(setup: &Setup) -> String {
    if setup.command.is_empty() {
        return format!("{} '{}'", launch::WAITING[..2].join(" "), launch::WAITING[2]);
    }
    let words: Vec<String> =
        setup.command.iter().map(|word| word.to_string_lossy().escape_debug().collect()).collect();
    words.join(" ")
}

fn guest_kernel(args: &CompareArgs) -> String {
    args.kernel.as_deref().map_or_else(|| "the default of `hv kernel ls`".into(), display)
}

/// Tells a person at a terminal how far it is; silent otherwise.
fn progress(launches: usize) -> impl FnMut(usize, &Contender) {
    let shown = std::io::stderr().is_terminal();
    move |done, who| {
        if shown {
            eprint!("\r\x1b[K{}/{launches} {who}", done + 1);
        }
    }
}

fn finish_progress() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}
