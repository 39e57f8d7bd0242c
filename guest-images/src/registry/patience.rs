//! Trying again, with growing pauses.

use std::thread;
use std::time::Duration;

use super::RegistryError;

/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(200);
/// The longest of our own.
const LONGEST: Duration = Duration::from_secs(10);
/// The longest that a registry can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// Attempts so far that came to nothing.
#[derive(Debug)]
pub struct Patience {
    retries: u32,
    failures: u32,
}

impl Patience {
    /// For so many further attempts after the first one.
    pub fn new(retries: u32) -> Patience {
        Patience { retries, failures: 0 }
    }

    /// Something has been gained: what failed before does not count any more.
    pub fn renew(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt; gives the error back if it will not pass, or if there were enough of them.
    ///
    /// # Errors
    /// The one that was given.
    pub fn after(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        if !error.is_passing() || self.failures >= self.retries {
            return Err(error);
        }
        thread::sleep(pause(self.failures, error.after(), fastrand::f64()));
        self.failures += 1;
        Ok(())
    }
}

/// Attempts until one succeeds, or fails for good.
///
/// # Errors
/// The last one's.
pub fn insist<T>(
    retries: u32,
    mut attempt: impl FnMut() -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    let mut patience = Patience::new(retries);
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error) => patience.after(error)?,
        }
    }
}

/// After so many failures before this one. `chance`, from 0 to 1, keeps clients that failed together apart.
fn pause(failures: u32, asked: Option<Duration>, chance: f64) -> Duration {
    let own = FIRST.saturating_mul(1 << failures.min(16)).min(LONGEST).mul_f64(0.5 + chance);
    own.max(asked.unwrap_or_default().min(LONGEST_ASKED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        assert_eq!(pause(0, None, 0.5), FIRST);
        assert_eq!(pause(3, None, 0.5), FIRST * 8);
        assert_eq!(pause(100, None, 0.5), LONGEST);
        assert_eq!(pause(0, Some(Duration::from_secs(7)), 0.5), Duration::from_secs(7));
        assert_eq!(pause(0, Some(Duration::from_secs(1 << 40)), 0.5), LONGEST_ASKED);
    }

    #[test]
    fn what_will_not_pass_is_not_tried_again() {
        let mut tried = 0;
        let refused: Result<(), _> = insist(5, || {
            tried += 1;
            Err(RegistryError::Refused { what: "x".into(), why: "y".into() })
        });
        assert!(refused.is_err());
        assert_eq!(tried, 1);
    }
}
