//! How a machine is held: a gate that each of its threads passes between two pieces of work.
//!
//! While the gate is closed, every thread that comes to it waits there, outside the guest and with no
//! device locked. Whoever closes it wakes the threads from wherever they wait otherwise (a vCPU out of the
//! guest, the event loop out of its wait) and then waits until all have come.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A gate, open at first. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// What [`Gate::pass`] looks at without a lock: the rule is that it is open.
    closed: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Threads that wait.
    held: usize,
    /// Never to be closed again.
    abandoned: bool,
}

impl Gate {
    /// Goes through, waiting as long as the gate is closed. True if it was closed.
    pub fn pass(&self) -> bool {
        if !self.is_closed() {
            return false;
        }
        let mut state = self.lock();
        state.held += 1;
        self.0.changed.notify_all();
        while self.is_closed() {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.held -= 1;
        true
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::SeqCst)
    }

    /// Closes it, unless it was abandoned.
    pub fn close(&self) {
        let state = self.lock();
        self.0.closed.store(!state.abandoned, Ordering::SeqCst);
    }

    /// Waits until `count` threads wait before it; false if that took longer than `limit`.
    pub fn await_held(&self, count: usize, limit: Duration) -> bool {
        let missing = |state: &mut State| state.held < count;
        let waited = self.0.changed.wait_timeout_while(self.lock(), limit, missing);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.held >= count
    }

    /// Opens it: all who wait go on.
    pub fn open(&self) {
        let _state = self.lock();
        self.0.closed.store(false, Ordering::SeqCst);
        self.0.changed.notify_all();
    }

    /// Opens it for good: the machine ends, and nobody may wait any more.
    pub fn abandon(&self) {
        self.lock().abandoned = true;
        self.open();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn all_threads_are_held_and_let_go() {
        let (gate, work, stop) = (Gate::default(), AtomicUsize::new(0), AtomicBool::new(false));
        assert!(!gate.pass());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !stop.load(Ordering::SeqCst) {
                        gate.pass();
                        work.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            for _ in 0..100 {
                gate.close();
                assert!(gate.await_held(4, LONG));
                let done = work.load(Ordering::SeqCst);
                thread::yield_now();
                assert_eq!(work.load(Ordering::SeqCst), done, "nobody works behind a closed gate");
                gate.open();
            }
            stop.store(true, Ordering::SeqCst);
        });
    }

    #[test]
    fn who_does_not_come_is_noticed() {
        let gate = Gate::default();
        gate.close();
        assert!(!gate.await_held(1, Duration::from_millis(1)));
    }

    #[test]
    fn an_abandoned_gate_holds_nobody() {
        let gate = Gate::default();
        thread::scope(|scope| {
            gate.close();
            let held = scope.spawn(|| gate.pass());
            assert!(gate.await_held(1, LONG));
            gate.abandon();
            assert!(held.join().unwrap());
        });
        gate.close();
        assert!(!gate.pass());
    }
}
