//! What this process, which is the monitor, uses of the host.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Threads that panicked, whoever caught it.
pub struct Panics(Arc<AtomicUsize>);

impl Panics {
    /// Counts from now on.
    pub fn watch() -> Panics {
        let count = Arc::new(AtomicUsize::new(0));
        let (counter, tell) = (count.clone(), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            counter.fetch_add(1, Ordering::SeqCst);
            tell(panic);
        }));
        Panics(count)
    }

    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Things that a machine must give back.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Resident memory that is no file's, in KiB.
    pub memory: u64,
    pub descriptors: usize,
    pub threads: usize,
}

impl Figures {
    pub fn now() -> Figures {
        let count = |path: &str| fs::read_dir(path).unwrap().count();
        Figures {
            memory: status("RssAnon:"),
            descriptors: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
        }
    }
}

fn status(field: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Whether this process comes to rest within a time: uses less than a tenth of a processor.
pub fn comes_to_rest(limit: Duration) -> bool {
    const WINDOW: Duration = Duration::from_millis(40);
    let begun = Instant::now();
    while begun.elapsed() < limit {
        let (wall, before) = (Instant::now(), processor_time());
        // Nothing is waited for here: it is a measurement.
        std::thread::sleep(WINDOW);
        if (processor_time() - before) * 10 < wall.elapsed() {
            return true;
        }
    }
    false
}
