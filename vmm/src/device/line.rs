//! A device's interrupt line: its pin of the machine's I/O APIC, edge triggered.
//!
//! Whoever raises it calls the host's kernel, which injects the interrupt at once. An eventfd that the kernel
//! listens on (an irqfd) would do the same a work queue later, and each costs two grace periods when the VM is
//! closed (virt/kvm/eventfd.c, irqfd_shutdown): 8 ms where a timer tick is 4.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The pins of a machine's interrupt controller.
pub trait Pins: Send + Sync {
    /// The pin of this number goes up or down.
    fn set(&self, gsi: u32, up: bool);
}

/// One device's line. Clones are the same line.
#[derive(Clone)]
pub struct Line(Arc<Shared>);

struct Shared {
    gsi: u32,
    pins: OnceLock<Arc<dyn Pins>>,
    /// Held from up to down: of two edges at once, the second would be none.
    pulse: Mutex<()>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Line({})", self.0.gsi)
    }
}

impl Line {
    /// A line to the pin of this number, of a controller that is told later.
    pub fn new(gsi: u32) -> Line {
        Line(Arc::new(Shared { gsi, pins: OnceLock::new(), pulse: Mutex::new(()) }))
    }

    /// Connects it, once, before the guest runs; before that nobody hears it.
    pub fn connect(&self, pins: Arc<dyn Pins>) {
        // A second controller would be a mistake of the machine's; the first stays.
        let _ = self.0.pins.set(pins);
    }

    /// Raises the interrupt.
    pub fn raise(&self) {
        let Some(pins) = self.0.pins.get() else { return };
        let _pulse = self.0.pulse.lock().unwrap_or_else(PoisonError::into_inner);
        pins.set(self.0.gsi, true);
        pins.set(self.0.gsi, false);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::thread;

    use super::*;

    /// Counts edges, and tells those that come while the pin is up.
    #[derive(Default)]
    pub struct Edges {
        up: AtomicBool,
        count: AtomicU64,
        lost: AtomicU64,
    }

    impl Edges {
        /// Edges since the last call.
        pub fn take(&self) -> u64 {
            self.count.swap(0, Ordering::SeqCst)
        }
    }

    impl Pins for Edges {
        fn set(&self, _gsi: u32, up: bool) {
            if !up {
                self.up.store(false, Ordering::SeqCst);
            } else if self.up.swap(true, Ordering::SeqCst) {
                self.lost.fetch_add(1, Ordering::SeqCst);
            } else {
                self.count.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    #[test]
    fn no_edge_is_lost_between_threads() {
        let (line, edges) = (Line::new(7), Arc::new(Edges::default()));
        line.raise();
        line.connect(edges.clone());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| line.raise()));
            }
        });
        assert_eq!((edges.take(), edges.lost.load(Ordering::SeqCst)), (40_000, 0));
    }
}
