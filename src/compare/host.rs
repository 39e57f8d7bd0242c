//! The host a comparison was made on, and what makes its figures not comparable with another's.

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
        Host { cpu, cpus, kernel, cgroup, load, stamps }
    }
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
}
