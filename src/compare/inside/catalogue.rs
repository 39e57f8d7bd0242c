//! The workloads as the report shows them; what each does stands in `guest-images/probe` and docs/measuring.md.

/// Where a workload's cost behind a wall comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// From the wall itself: whoever builds one like it pays it (a second walk of page tables, a filter of system calls).
    Structural,
    /// From how this one is built, and can be built otherwise (layers of the root, the block device).
    Implementation,
}

impl Nature {
    /// For tables.
    pub fn word(self) -> &'static str {
        match self {
            Nature::Structural => "structural",
            Nature::Implementation => "implementation",
        }
    }
}

/// One workload.
#[derive(Debug)]
pub struct Workload {
    /// As `hv-probe work` knows it.
    pub name: &'static str,
    /// Its figure: nanoseconds an operation.
    pub time: &'static str,
    /// Its figure: VM exits an operation.
    pub exits: &'static str,
    /// Where its cost comes from.
    pub nature: Nature,
}

macro_rules! workloads {
    ($($name:literal $nature:ident,)+) => {
        /// All of them, in the order in which they are done and shown.
        pub const WORKLOADS: &[Workload] = &[$(Workload {
            name: $name,
            time: concat!("inside.", $name),
            exits: concat!("inside.", $name, ".exits"),
            nature: Nature::$nature,
        }),+];
    };
}

workloads! {
    "cpu" Structural,
    "memory-latency" Structural,
    "memory-bandwidth" Structural,
    "page-fault" Structural,
    "syscall" Structural,
    "fork-exec" Structural,
    "pipe" Structural,
    "file-create" Implementation,
    "file-stat" Implementation,
    "file-read" Implementation,
    "fsync" Implementation,
    "block-random" Implementation,
    "block-sequential" Implementation,
    "tcp-round-trip" Structural,
    "tcp-stream" Structural,
    "timer" Structural,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_the_program_inside_can_do_is_shown() {
        let mut names: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
        names.insert(0, hv_common::work::EMPTY);
        assert_eq!(names, hv_common::work::NAMES);
    }
}
