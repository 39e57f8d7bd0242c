//! The host a comparison was made on, and what makes its figures not comparable with another's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The host, as far as it explains the figures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Host {
    /// Model name of the first processor.
    pub cpu: String,
    /// Processors online.
    pub cpus: usize,
    /// Kernel release.
    pub kernel: String,
    /// `v1`, `v2` or `hybrid`.
    pub cgroup: String,
    /// One-minute load average when the comparison began.
    pub load: f64,
    /// Settings that are known to move the figures, by name; absent in files of version 1.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Reasons not to compare the figures with those of another machine.
    pub stamps: Vec<String>,
}

impl Host {
    /// Looks at this host.
    pub fn look(cgroup: String) -> Host {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let kernel = read("/proc/sys/kernel/osrelease").trim().to_string();
        let load = read("/proc/loadavg").split(' ').next().and_then(|l| l.parse().ok()).unwrap_or(0.0);
        let clock = read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
        let cpu = field(&cpuinfo, "model name").unwrap_or("unknown processor").to_string();
        let stamps = stamps(&cpuinfo, clock.trim(), load / cpus as f64);
        Host { cpu, cpus, kernel, cgroup, load, settings: settings(), stamps }
    }
}

/// Files whose contents explain a figure, and what they are called in the report.
const SETTINGS: [(&str, &str); 10] = [
    ("clock source", "/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    ("frequency governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    ("frequency boost", "/sys/devices/system/cpu/cpufreq/boost"),
    ("simultaneous threads", "/sys/devices/system/cpu/smt/active"),
    ("transparent huge pages", "/sys/kernel/mm/transparent_hugepage/enabled"),
    ("same-page merging", "/sys/kernel/mm/ksm/run"),
    ("kvm nx_huge_pages", "/sys/module/kvm/parameters/nx_huge_pages"),
    ("kvm halt_poll_ns", "/sys/module/kvm/parameters/halt_poll_ns"),
    ("swappiness", "/proc/sys/vm/swappiness"),
    ("kernel command line", "/proc/cmdline"),
];
/// The longest value that is kept.
const SETTING_LIMIT: usize = 400;

fn settings() -> BTreeMap<String, String> {
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| shown(&text));
    let mut found: BTreeMap<String, String> =
        SETTINGS.iter().filter_map(|(name, path)| Some(((*name).to_owned(), read(path)?))).collect();
    if let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo") {
        let favoured = mounts.lines().any(|line| line.contains("favordynmods"));
        found.insert("cgroup favordynmods".into(), if favoured { "on" } else { "off" }.into());
    }
    if let Ok(entries) = std::fs::read_dir("/sys/devices/system/cpu/vulnerabilities") {
        for entry in entries.flatten() {
            let name = format!("mitigation of {}", shown(&entry.file_name().to_string_lossy()));
            found.extend(read(&entry.path().to_string_lossy()).map(|value| (name, value)));
        }
    }
    found
}

/// One line without control characters; of a list with a choice, as the kernel writes it, the choice.
fn shown(text: &str) -> String {
    let text = text.trim();
    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(chosen, _)| chosen);
    let line: String = chosen.unwrap_or(text).chars().take(SETTING_LIMIT).collect();
    line.escape_debug().collect()
}

fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let line = cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

fn stamps(cpuinfo: &str, clock: &str, load_per_cpu: f64) -> Vec<String> {
    let mut stamps = Vec::new();
    if cfg!(debug_assertions) {
        stamps.push("hv is a debug build".into());
    }
    let model = field(cpuinfo, "model name").unwrap_or_default();
    if model.contains("QEMU") || model.contains("TCG") {
        stamps.push("the processor is emulated: times count instructions, not what hardware needs".into());
    } else if field(cpuinfo, "flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")) {
        stamps.push("the host is a virtual machine itself: VM exits cost more than on hardware".into());
    }
    if !clock.is_empty() && clock != "tsc" && clock != "kvm-clock" {
        stamps.push(format!("the clock source is {clock}"));
    }
    if load_per_cpu > 0.5 {
        stamps.push(format!("load of {load_per_cpu:.1} a processor when it began"));
    }
    stamps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulated_and_nested_hosts_are_stamped() {
        let emulated =
            stamps("model name\t: QEMU TCG CPU version 2.5+\nflags : svm hypervisor\n", "tsc", 0.0);
        assert!(emulated.iter().any(|stamp| stamp.contains("emulated")));
        let nested = stamps("model name : Xeon\nflags : fpu hypervisor\n", "kvm-clock", 0.0);
        assert!(nested.iter().any(|stamp| stamp.contains("virtual machine")));
        let busy = stamps("model name : Xeon\nflags : fpu\n", "hpet", 0.9);
        assert!(
            busy.iter().any(|stamp| stamp.contains("load"))
                && busy.iter().any(|stamp| stamp.contains("hpet"))
        );
    }

    #[test]
    fn the_choice_of_a_list_is_shown() {
        assert_eq!(shown("always [madvise] never\n"), "madvise");
        assert_eq!(shown("tsc\n"), "tsc");
        assert_eq!(shown("a\x1b[31mb"), "a\\u{1b}[31mb");
    }
}
