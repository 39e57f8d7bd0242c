//! How late a sleeper wakes up.

use rustix::thread::{ClockId as SleepClock, clock_nanosleep_absolute};
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::{Doing, Done, Timed};

/// Nanoseconds that each sleep lasts.
const SLEEP: i64 = 200_000;

/// An operation: a sleep of 0.2 ms until an instant (clock_nanosleep, TIMER_ABSTIME); what counts is not the sleep but
/// how much later than asked the sleeper runs. The slack of normal threads (50 us, prctl(PR_SET_TIMERSLACK)) is off.
pub fn lateness(operations: u64) -> Done {
    // Where that is forbidden the slack is part of the figure, as it is for every program there.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    let mut late = 0;
    for _ in 0..operations {
        let until = now() + SLEEP;
        let instant = Timespec { tv_sec: until / 1_000_000_000, tv_nsec: until % 1_000_000_000 };
        clock_nanosleep_absolute(SleepClock::Monotonic, &instant).doing("cannot sleep")?;
        late += (now() - until).max(0) as u64;
    }
    let _ = rustix::thread::set_current_timer_slack(None);
    Ok(Timed { operations, nanoseconds: late, place: None })
}

fn now() -> i64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
    tv_sec * 1_000_000_000 + tv_nsec
}
