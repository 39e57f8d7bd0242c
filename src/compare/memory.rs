//! The memory of one idle sandbox, read while its workload waits: a ledger that names what does
//! not add up.

use serde::{Deserialize, Serialize};

/// Bytes, each with its source; None where it could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Proportional set size of the monitor without guest memory (`smaps`).
    pub monitor: Option<u64>,
    /// Proportional set size of the sandbox's other processes (`smaps_rollup`).
    pub processes: Option<u64>,
    /// Guest memory that is resident in the monitor (`smaps` of its ranges).
    pub guest: Option<u64>,
    /// What the sandbox's cgroup accounts (`memory.current`, `memory.usage_in_bytes`).
    pub cgroup: Option<u64>,
    /// Proportional set size of the processes in that cgroup, guest memory included.
    pub inside: Option<u64>,
    /// What could not be read, and why.
    pub gaps: Vec<String>,
}

impl Ledger {
    /// All that processes hold: monitor, the rest, guest memory.
    pub fn sum(&self) -> Option<u64> {
        Some(self.monitor? + self.processes.unwrap_or(0) + self.guest.unwrap_or(0))
    }

    /// What the cgroup accounts and no process maps: kernel memory on its behalf, page cache it
    /// brought in. Negative when shared pages are charged elsewhere.
    pub fn residual(&self) -> Option<i64> {
        Some(self.cgroup? as i64 - self.inside? as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ledger_adds_up_and_names_the_rest() {
        let ledger = Ledger {
            monitor: Some(3),
            processes: Some(1),
            guest: Some(30),
            cgroup: Some(40),
            inside: Some(33),
            gaps: Vec::new(),
        };
        assert_eq!(ledger.sum(), Some(34));
        assert_eq!(ledger.residual(), Some(7));
        assert_eq!(Ledger::default().sum(), None);
    }

    #[test]
    fn pages_charged_elsewhere_make_a_negative_rest() {
        let ledger = Ledger { cgroup: Some(1), inside: Some(5), ..Ledger::default() };
        assert_eq!(ledger.residual(), Some(-4));
    }
}
