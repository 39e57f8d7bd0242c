//! Token buckets: how many operations and bytes a device may do in a second of the host's time.
//!
//! A bucket holds a second's worth of tokens at most, so an idle device may burst for a second. A request
//! may begin while there is any token left, and then takes all that it costs: the bucket goes into debt, and
//! the next one waits until the debt is paid. So a request that costs more than a second's worth is late, not
//! stuck, and in the long run the rate is exact. Nobody waits actively: a timer becomes readable when it is
//! time to try again.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// What tokens are counted in: so small that no time and no rate is rounded.
const PARTS: i128 = 1_000_000_000;

/// How much a device may do in a second; None is without limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests (of a disk) or packets (of a network card) a second.
    pub operations: Option<NonZeroU64>,
    /// Bytes a second, in whichever direction.
    pub bytes: Option<NonZeroU64>,
}

/// One bucket; time is what the caller says it is.
#[derive(Debug)]
struct TokenBucket {
    /// Tokens a second, and tokens of a full bucket.
    rate: i128,
    /// In [`PARTS`] of a token; below 0 is debt.
    level: i128,
}

impl TokenBucket {
    fn full(rate: NonZeroU64) -> Self {
        let rate = i128::from(rate.get());
        TokenBucket { rate, level: rate * PARTS }
    }

    /// Time has passed.
    fn fill(&mut self, elapsed: Duration) {
        let nanos = i128::try_from(elapsed.as_nanos()).unwrap_or(i128::MAX);
        let gained = self.rate.saturating_mul(nanos);
        self.level = self.level.saturating_add(gained).min(self.rate * PARTS);
    }

    /// How long until a request may begin; zero if one may now.
    fn delay(&self) -> Duration {
        if self.level > 0 {
            return Duration::ZERO;
        }
        let nanos = -self.level / self.rate + 1;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// A request begins.
    fn take(&mut self, tokens: u64) {
        self.level -= i128::from(tokens) * PARTS;
    }
}

/// The buckets of a device, and the timer that says when to try again.
#[derive(Debug)]
pub struct RateLimiter {
    operations: Option<TokenBucket>,
    bytes: Option<TokenBucket>,
    filled: Instant,
    timer: OwnedFd,
}

impl RateLimiter {
    /// Full buckets; None if nothing is limited.
    ///
    /// # Errors
    /// The host gives no timer.
    pub fn new(limits: Limits) -> io::Result<Option<RateLimiter>> {
        if limits == Limits::default() {
            return Ok(None);
        }
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Some(RateLimiter {
            operations: limits.operations.map(TokenBucket::full),
            bytes: limits.bytes.map(TokenBucket::full),
            filled: Instant::now(),
            timer: timerfd_create(TimerfdClockId::Monotonic, flags)?,
        }))
    }

    /// Whether a request of so many bytes may begin now. If so, its tokens are taken. If not, [`timer`]
    /// becomes readable when it is worth asking again.
    ///
    /// [`timer`]: RateLimiter::timer
    pub fn allow(&mut self, bytes: u64) -> bool {
        let delay = self.ask(Instant::now(), bytes);
        if delay.is_zero() {
            return true;
        }
        self.set_timer(delay);
        false
    }

    /// Whether a request may begin whose size is not known yet. Takes nothing: [`RateLimiter::charge`] does.
    /// If not, [`timer`] becomes readable when it is worth asking again.
    ///
    /// [`timer`]: RateLimiter::timer
    pub fn may_begin(&mut self) -> bool {
        let delay = self.fill(Instant::now());
        if !delay.is_zero() {
            self.set_timer(delay);
        }
        delay.is_zero()
    }

    /// Takes the tokens of a request of so many bytes that [`RateLimiter::may_begin`] has let begin.
    pub fn charge(&mut self, bytes: u64) {
        for (bucket, tokens) in [(&mut self.operations, 1), (&mut self.bytes, bytes)] {
            bucket.iter_mut().for_each(|bucket| bucket.take(tokens));
        }
    }

    /// What [`RateLimiter::allow`] does at an instant: takes the tokens and says zero, or how long to wait.
    fn ask(&mut self, now: Instant, bytes: u64) -> Duration {
        let delay = self.fill(now);
        if delay.is_zero() {
            self.charge(bytes);
        }
        delay
    }

    /// The time has come to `now`: fills the buckets; how long until a request may begin.
    fn fill(&mut self, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.filled);
        self.filled = self.filled.max(now);
        let buckets = [&mut self.operations, &mut self.bytes].into_iter().flatten();
        buckets.fold(Duration::ZERO, |delay, bucket| {
            bucket.fill(elapsed);
            delay.max(bucket.delay())
        })
    }

    /// Readable when a request that was not allowed may be tried again. Reading or not makes no difference
    /// to whoever waits edge triggered; others call [`RateLimiter::clear`].
    pub fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// The timer is not readable any more, until it expires again.
    pub fn clear(&self) {
        // Nothing to read: it has been cleared already.
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
    }

    fn set_timer(&self, delay: Duration) {
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: delay.subsec_nanos().into(),
            },
        };
        // A relative time with fewer than 10^9 nanoseconds is the only thing that could be refused.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limiter(operations: u64, bytes: u64) -> RateLimiter {
        let limits = Limits { operations: NonZeroU64::new(operations), bytes: NonZeroU64::new(bytes) };
        RateLimiter::new(limits).unwrap().unwrap()
    }

    #[test]
    fn without_limits_there_is_nothing() {
        assert!(RateLimiter::new(Limits::default()).unwrap().is_none());
    }

    #[test]
    fn a_burst_is_a_second_then_one_by_one() {
        let mut limiter = limiter(10, 0);
        let start = limiter.filled;
        assert!((0..10).all(|_| limiter.ask(start, 1 << 40).is_zero()));
        let delay = limiter.ask(start, 0);
        assert!(delay > Duration::ZERO && delay <= SECOND / 10, "{delay:?}");
        assert!(limiter.ask(start + delay, 0).is_zero());
        assert!(!limiter.ask(start + delay, 0).is_zero());
        let later = start + 100 * SECOND;
        assert!((0..10).all(|_| limiter.ask(later, 0).is_zero()));
        assert!(!limiter.ask(later, 0).is_zero(), "a long rest gives no more than a second's worth");
    }

    #[test]
    fn a_request_larger_than_the_bucket_is_paid_afterwards() {
        let mut limiter = limiter(0, 1000);
        let start = limiter.filled;
        assert!(limiter.ask(start, 5000).is_zero());
        let delay = limiter.ask(start, 1);
        assert!(delay >= 4 * SECOND && delay < 4 * SECOND + Duration::from_millis(2), "{delay:?}");
        assert!(limiter.ask(start + delay, u64::MAX).is_zero());
        assert!(limiter.ask(start + 10 * delay, 0) > SECOND);
    }

    #[test]
    fn what_one_bucket_refuses_costs_nothing_of_the_other() {
        let mut limiter = limiter(2, 1000);
        let start = limiter.filled;
        assert!(limiter.ask(start, 1001).is_zero());
        assert!((0..100).all(|_| !limiter.ask(start, 1).is_zero()));
        assert!(limiter.ask(start + SECOND, 0).is_zero());
        assert!(limiter.ask(start + SECOND, 0).is_zero(), "two operations were left");
    }

    #[test]
    fn a_request_of_unknown_size_is_charged_when_it_is_known() {
        let mut limiter = limiter(0, 1000);
        assert!(limiter.may_begin() && limiter.may_begin(), "asking costs nothing");
        limiter.charge(1_000_000);
        assert!(!limiter.may_begin());
    }

    #[test]
    fn the_timer_wakes_whoever_was_refused() {
        let mut limiter = limiter(1000, 0);
        while limiter.allow(0) {}
        let readable = |limiter: &RateLimiter, wait| {
            let mut fds = [PollFd::from_borrowed_fd(limiter.timer(), PollFlags::IN)];
            poll(&mut fds, wait).unwrap() > 0
        };
        assert!(readable(&limiter, None), "waits for ever if the timer was not set");
        assert!(limiter.allow(0));
        limiter.clear();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        assert!(!readable(&limiter, Some(&now)));
    }

    proptest! {
        /// Over any time, what has been allowed is at most a second's burst, the rate times the time, and
        /// one request; and whoever waits as told is allowed to.
        #[test]
        fn the_rate_is_kept(
            rate in 1u64..1_000_000,
            requests in proptest::collection::vec((0u64..2_000_000, 0u64..3_000_000_000), 1..60),
        ) {
            let mut limiter = limiter(0, rate);
            let start = limiter.filled;
            let mut now = start;
            let mut moved = 0u128;
            for (bytes, pause) in requests {
                let delay = limiter.ask(now, bytes);
                if !delay.is_zero() {
                    now += delay;
                    prop_assert!(limiter.ask(now, bytes).is_zero());
                }
                let elapsed = now.duration_since(start).as_nanos();
                prop_assert!(moved * 1_000_000_000 <= (elapsed + 1_000_000_000) * u128::from(rate));
                moved += u128::from(bytes);
                now += Duration::from_nanos(pause);
            }
        }

        #[test]
        fn nothing_overflows(rate in 1u64.., bytes: Vec<u64>, seconds in 0u64..1 << 40) {
            let mut limiter = limiter(rate, rate);
            let start = limiter.filled;
            for bytes in bytes {
                limiter.ask(start, bytes);
                limiter.ask(start + Duration::from_secs(seconds), bytes);
                limiter.ask(start, bytes);
            }
        }
    }
}
