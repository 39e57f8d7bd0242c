//! One kind of load, given to a guest of each monitor that is here, and the table of what came of it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{drive, peers};
use crate::testbed::{self, Streams};
use crate::{hv, kernel, progress};

const FIRECRACKER: &str = "firecracker";
/// What our own columns begin with; the best of them is compared with the best of the others.
const OURS: &str = "hv-";
/// How often a monitor is tried.
const TRIES: u32 = 4;

/// What is measured, and how it is shown.
pub struct Comparison {
    /// The shell script that boots each monitor's guest in the testbed.
    pub host: &'static str,
    /// The jobs of the guest's script that are shown, and what they are.
    pub jobs: &'static [(&'static str, &'static str)],
    /// What their numbers are; more is better.
    pub unit: &'static str,
    /// The monitors that the host's script knows, in the order of the columns. QEMU comes with the drive.
    pub monitors: &'static [&'static str],
    /// How long one monitor may take, by the clock on the wall: several times what it does.
    pub limit: Duration,
}

/// Numbers by monitor and job.
type Figures = BTreeMap<String, BTreeMap<String, f64>>;

impl Comparison {
    /// Measures the monitors whose name begins with one of `only` (all, if that is empty) and prints the table.
    ///
    /// # Errors
    /// Something could not be made, or the testbed failed.
    pub fn run(&self, only: &[String]) -> Result<ExitCode> {
        kernel::tuned()?;
        hv::build(true)?;
        let drive = drive::make(&super::SCRIPTS)?;
        let firecracker = peers::on_path(FIRECRACKER);
        let here = |name: &str| firecracker.is_some() || !name.starts_with(FIRECRACKER);
        let wanted =
            |name: &str| only.is_empty() || only.iter().any(|prefix| name.starts_with(prefix.as_str()));
        let asked: Vec<&str> =
            self.monitors.iter().copied().filter(|name| here(name) && wanted(name)).collect();
        ensure!(!asked.is_empty(), "none of {} is here", self.monitors.join(", "));
        let mut figures = Figures::new();
        for monitor in &asked {
            let extra = firecracker.clone().into_iter().collect();
            figures.extend(self.measure(monitor, &drive, extra)?);
        }
        print!("{}", self.table(&figures, &asked));
        if firecracker.is_none() {
            println!("absent  {FIRECRACKER}: not on PATH");
        }
        let complete =
            asked.iter().all(|name| figures.get(*name).is_some_and(|jobs| jobs.len() >= self.jobs.len()));
        Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// One monitor's figures. Each has an emulated host of its own, and as many as [`TRIES`]: the emulation of a
    /// guest was seen to come to a stand (docs/testbed.md).
    fn measure(&self, monitor: &str, drive: &Path, extra: Vec<PathBuf>) -> Result<Figures> {
        let script = ["sh", "-c", self.host, "sh", monitor];
        let run = testbed::Run {
            count: true,
            cpus: 1,
            memory_mib: 3072,
            timeout: Some(self.limit),
            silence: None,
            release: true,
            drives: vec![drive.to_owned()],
            extra,
            env: Vec::new(),
            command: script.map(str::to_owned).to_vec(),
        };
        for attempt in 1..=TRIES {
            let output = Shared::default();
            let step = progress::Step::start(format!("measuring {monitor} in the testbed, try {attempt}"));
            let streams =
                Streams { stdin: None, stdout: Box::new(output.clone()), stderr: Box::new(output.clone()) };
            let ended = testbed::run(&run, streams);
            let figures = parse(&output.text());
            if figures.get(monitor).is_some_and(|jobs| jobs.len() >= self.jobs.len()) {
                step.done();
                return Ok(figures);
            }
            match ended {
                Err(error) if !error.is::<testbed::TimeUp>() => return Err(error),
                _ => {}
            }
        }
        Ok(Figures::new())
    }

    fn table(&self, figures: &Figures, monitors: &[&str]) -> String {
        let mut text = format!("{:<34}", self.unit);
        monitors.iter().for_each(|name| text += &format!("{name:>19}"));
        text += &format!("{:>10}\n", "best/best");
        for (job, title) in self.jobs {
            text += &format!("{title:<34}");
            let figure = |monitor: &str| figures.get(monitor).and_then(|jobs| jobs.get(*job)).copied();
            for name in monitors {
                text += &format!("{:>19}", figure(name).map_or("failed".into(), shown));
            }
            let best = |ours: bool| {
                let figures = monitors.iter().filter(|name| name.starts_with(OURS) == ours);
                figures.filter_map(|name| figure(name)).reduce(f64::max)
            };
            text += &match (best(true), best(false)) {
                (Some(ours), Some(theirs)) if theirs > 0.0 => format!("{:>9.2}x\n", ours / theirs),
                _ => "\n".to_owned(),
            };
        }
        text
    }
}

/// Three digits or more.
fn shown(number: f64) -> String {
    if number < 100.0 { format!("{number:.1}") } else { format!("{number:.0}") }
}

/// What guests printed: `load JOB NUMBER` after `monitor NAME`, between whatever else a console shows.
fn parse(text: &str) -> Figures {
    let mut figures = Figures::new();
    let mut monitor = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["monitor", name] => monitor = Some(name.to_owned()),
            ["load", job, number] => {
                if let (Some(monitor), Ok(number)) = (&monitor, number.parse()) {
                    figures.entry(monitor.clone()).or_default().insert(job.to_owned(), number);
                }
            }
            _ => {}
        }
    }
    figures
}

/// Collects what the testbed prints, and shows it as it comes.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        io::stderr().write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Comparison = Comparison {
        host: "",
        jobs: &[("read-4k-1", "reads"), ("write-4k-1", "writes")],
        unit: "operations",
        monitors: &[],
        limit: Duration::ZERO,
    };

    #[test]
    fn figures_are_found_between_console_lines() {
        let text = "monitor hv-pci\nload read-4k-1 3000\n[ 1.2] noise\nmonitor qemu-microvm\r\nload read-4k-1 2000\r\nload x y\n";
        let figures = parse(text);
        assert_eq!((figures["hv-pci"]["read-4k-1"], figures["qemu-microvm"]["read-4k-1"]), (3000.0, 2000.0));
        let table = TWO.table(&figures, &["hv-pci", "qemu-microvm"]);
        let line = table.lines().nth(1).expect("a line for the first job");
        assert!(line.ends_with("1.50x"), "{table}");
        assert!(table.lines().nth(2).expect("and the second").contains("failed"), "{table}");
    }
}
