//! Named instants between "asked" and "gone", on one host clock.
//!
//! The instants live in a shared page, so that a child that has not executed anything yet can mark
//! one with two stores, and the monitor reads it after the child is gone. A guest never tells the
//! time: it touches the mark port, and the monitor reads the host's clock.

use serde::{Deserialize, Serialize};

use crate::sys::shared::SharedPage;

/// I/O port through which the guest marks a phase: one byte, [`Phase`] as a number.
pub const MARK_PORT: u16 = 0x4f0;

/// An instant in the life of a sandbox, in the order in which they happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Phase {
    /// The monitor's first instruction of its own.
    Launch = 0,
    /// Image, kernel and limits are opened and checked.
    Opened = 1,
    /// The wall stands: namespaces and root in place, or the first vCPU is about to be entered.
    Boundary = 2,
    /// The guest's kernel runs its first instruction (vm only).
    Kernel = 3,
    /// The sandbox's PID 1 runs its first instruction of its own.
    Init = 4,
    /// The workload is about to be executed.
    Exec = 5,
    /// The monitor saw the first byte that the workload wrote (only where the monitor relays).
    FirstByte = 6,
    /// The monitor learned that the workload has ended.
    Exit = 7,
    /// Everything the start made is removed again.
    Gone = 8,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Phase; 9] = [
        Phase::Launch,
        Phase::Opened,
        Phase::Boundary,
        Phase::Kernel,
        Phase::Init,
        Phase::Exec,
        Phase::FirstByte,
        Phase::Exit,
        Phase::Gone,
    ];

    /// The phase of this number, if it is one a guest may mark.
    pub fn from_guest(number: u8) -> Option<Phase> {
        [Phase::Init, Phase::Exec].into_iter().find(|phase| *phase as u8 == number)
    }
}

/// The instants of one start. Clones share the same page.
#[derive(Debug, Clone)]
pub struct Timeline(std::sync::Arc<SharedPage>);

impl Timeline {
    /// An empty timeline.
    ///
    /// # Errors
    /// The kernel has no page to give.
    pub fn new() -> std::io::Result<Timeline> {
        Ok(Timeline(std::sync::Arc::new(SharedPage::new()?)))
    }

    /// Marks `phase` now, unless it is marked already. Safe to call between fork and exec.
    pub fn mark(&self, phase: Phase) {
        self.0.set_if_zero(phase as usize, now());
    }

    /// Nanoseconds of the host's monotonic clock at which `phase` was marked.
    pub fn at(&self, phase: Phase) -> Option<u64> {
        Some(self.0.get(phase as usize)).filter(|instant| *instant != 0)
    }
}

/// Nanoseconds of the host's monotonic clock: the one clock that phases are told on.
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_mark_stays() {
        let timeline = Timeline::new().unwrap();
        assert_eq!(timeline.at(Phase::Init), None);
        timeline.mark(Phase::Init);
        let first = timeline.at(Phase::Init);
        timeline.mark(Phase::Init);
        assert!(first.is_some());
        assert_eq!(timeline.at(Phase::Init), first);
    }

    #[test]
    fn guest_marks_only_its_own_phases() {
        assert_eq!(Phase::from_guest(Phase::Init as u8), Some(Phase::Init));
        assert_eq!(Phase::from_guest(Phase::Gone as u8), None);
        assert_eq!(Phase::from_guest(200), None);
    }
}
