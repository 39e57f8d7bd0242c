//! What has been learned of the workload so far, for those who wait for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hv_common::{Exit, Phase, Timeline};
use rustix::event::{EventfdFlags, eventfd};

/// What hv-init said about the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// The workload's program has been executed.
    Started,
    /// It could not be.
    Failed {
        /// Operation and object.
        what: String,
        /// Error number.
        errno: i32,
        /// Status that hv exits with.
        status: u8,
    },
}

/// What is known. Clones share it.
#[derive(Clone)]
pub struct Outcome(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Readable once the start is decided: hv-init said so, or its workload's end, or is lost.
    decided: OwnedFd,
    /// Readable once nothing more will be learned.
    complete: OwnedFd,
    timeline: Timeline,
}

#[derive(Default)]
struct State {
    start: Option<Start>,
    exit: Option<Exit>,
    /// Outputs that have not ended.
    outputs: u8,
    /// Why nothing more comes from hv-init.
    lost: Option<String>,
}

impl Outcome {
    /// Nothing is known, and `outputs` streams will end.
    ///
    /// # Errors
    /// No eventfd.
    pub fn new(outputs: u8, timeline: Timeline) -> io::Result<Outcome> {
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let state = Mutex::new(State { outputs, ..State::default() });
        Ok(Outcome(Arc::new(Shared { state, decided: event()?, complete: event()?, timeline })))
    }

    /// How the start went, when that is known.
    pub fn start(&self) -> Option<Start> {
        self.lock().start.clone()
    }

    /// How the workload ended, and whether all its output has been handed on.
    pub fn exit(&self) -> Option<(Exit, bool)> {
        let state = self.lock();
        state.exit.map(|exit| (exit, state.outputs == 0))
    }

    /// Why nothing more comes from hv-init, if so.
    pub fn loss(&self) -> Option<String> {
        self.lock().lost.clone()
    }

    /// Readable once [`Outcome::start`], [`Outcome::exit`] or [`Outcome::loss`] is Some.
    pub fn decided(&self) -> BorrowedFd<'_> {
        self.0.decided.as_fd()
    }

    /// Readable once the workload has ended and its output is handed on, or hv-init is lost before that.
    pub fn complete(&self) -> BorrowedFd<'_> {
        self.0.complete.as_fd()
    }

    pub(super) fn started(&self) {
        self.decide(Start::Started);
    }

    pub(super) fn failed(&self, what: String, errno: i32, status: u8) {
        // The guest chooses the number, hv's meaning stays: 125, 126 or 127.
        let status = status.clamp(hv_common::exit::HV_FAILED, hv_common::exit::NOT_FOUND);
        self.decide(Start::Failed { what, errno, status });
    }

    pub(super) fn exited(&self, exit: Exit) {
        self.0.timeline.mark(Phase::Exit);
        self.change(|state| {
            state.exit.get_or_insert(exit);
        });
    }

    pub(super) fn output_ended(&self) {
        self.change(|state| state.outputs = state.outputs.saturating_sub(1));
    }

    /// hv-init hung up. After its last message that is how it should be.
    pub(super) fn lost(&self, why: &str) {
        self.change(|state| {
            if state.exit.is_none() {
                state.lost.get_or_insert_with(|| why.to_owned());
            }
        });
    }

    /// The first decision stays.
    fn decide(&self, start: Start) {
        self.change(|state| {
            state.start.get_or_insert(start);
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        if state.start.is_some() || state.exit.is_some() || state.lost.is_some() {
            raise(&self.0.decided);
        }
        if (state.exit.is_some() && state.outputs == 0) || state.lost.is_some() {
            raise(&self.0.complete);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn raise(event: &OwnedFd) {
    // Fails only when the counter is full, and then it is readable anyway.
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use hv_common::exit::How;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn outcome(outputs: u8) -> Outcome {
        Outcome::new(outputs, Timeline::new().unwrap()).unwrap()
    }

    fn is_raised(event: BorrowedFd<'_>) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(event, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn complete_needs_the_exit_and_the_end_of_every_output() {
        for exit_first in [true, false] {
            let outcome = outcome(2);
            let exit = Exit { how: How::Code(3), out_of_memory: false };
            outcome.output_ended();
            if exit_first {
                outcome.exited(exit);
            } else {
                outcome.output_ended();
            }
            assert!(!is_raised(outcome.complete()));
            if exit_first {
                outcome.output_ended();
            } else {
                outcome.exited(exit);
            }
            assert!(is_raised(outcome.complete()));
            assert_eq!(outcome.exit(), Some((exit, true)));
        }
    }

    #[test]
    fn hanging_up_is_a_loss_only_before_the_exit() {
        let outcome = outcome(0);
        outcome.exited(Exit { how: How::Code(0), out_of_memory: false });
        outcome.lost("closed");
        assert_eq!(outcome.loss(), None);
        let early = self::outcome(1);
        early.lost("closed");
        assert!(is_raised(early.decided()) && is_raised(early.complete()));
    }

    #[test]
    fn an_exit_without_a_start_decides_the_start() {
        let outcome = outcome(1);
        outcome.exited(Exit { how: How::Code(0), out_of_memory: false });
        assert!(is_raised(outcome.decided()));
    }

    #[test]
    fn the_guests_status_keeps_hvs_meaning_and_the_first_word_counts() {
        let outcome = outcome(0);
        outcome.failed("x".into(), 2, 7);
        outcome.started();
        assert_eq!(outcome.start(), Some(Start::Failed { what: "x".into(), errno: 2, status: 125 }));
    }
}
