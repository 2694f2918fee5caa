//! Kits that neither answer nor go on with their answer.
//!
//! A deadline for each read would be a timer for each request, made only to be dropped a moment
//! later. So a request notes no time at all, only that a kit is waited for: the reviewer of
//! [`crate::lines`] sees that, begins to count, and ends what it finds unchanged for too long. It
//! may be late by the time between two of its looks, and is never early.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Since when a kit has been silent, and whether that has ended its connection.
#[derive(Debug, Default)]
pub struct Silence {
    /// Nobody waits ([`NOBODY`]), somebody does since the last look ([`ANEW`]), or the time of the
    /// look that found it, counted from there on.
    since: AtomicU64,
    ended: AtomicBool,
}

const NOBODY: u64 = 0;
const ANEW: u64 = 1;
const COUNTED: u64 = 2;

impl Silence {
    /// The kit is waited for from now on.
    pub fn begin(&self) {
        self.since.store(ANEW, Ordering::Relaxed);
    }

    /// Something has passed, in either direction: who waits, waits anew.
    pub fn broken(&self) {
        if self.since.load(Ordering::Relaxed) != NOBODY {
            self.begin();
        }
    }

    /// The answer is complete.
    pub fn over(&self) {
        self.since.store(NOBODY, Ordering::Relaxed);
    }

    /// Look whether it has lasted for so long, at this time since the beginning. It is found once.
    pub fn review(&self, now: Duration, patience: Duration) -> bool {
        let now = now.as_millis() as u64;
        let since = match self.since.load(Ordering::Relaxed) {
            NOBODY => return false,
            ANEW => {
                // What has changed meanwhile is seen next time.
                let (anew, counted) = (ANEW, now + COUNTED);
                let order = Ordering::Relaxed;
                let _ = self.since.compare_exchange(anew, counted, order, order);
                return false;
            }
            counted => counted - COUNTED,
        };
        let over = u128::from(now.saturating_sub(since)) >= patience.as_millis();
        over && !self.ended.swap(true, Ordering::AcqRel)
    }

    /// Whether it has ended the connection.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn silence_is_counted_from_the_first_look_and_ends_once() {
        let at = Duration::from_secs;
        let silence = Silence::default();
        assert!(!silence.review(at(0), PATIENCE), "nobody waits");
        assert!(!silence.review(at(100), PATIENCE));
        silence.begin();
        assert!(!silence.review(at(200), PATIENCE), "it begins");
        assert!(!silence.review(at(209), PATIENCE));
        silence.broken();
        assert!(!silence.review(at(210), PATIENCE), "it begins again");
        assert!(!silence.review(at(219), PATIENCE));
        silence.over();
        silence.broken();
        assert!(!silence.review(at(300), PATIENCE), "nobody waits any more");
        silence.begin();
        assert!(!silence.review(at(400), PATIENCE));
        assert!(!silence.has_ended());
        assert!(silence.review(at(410), PATIENCE));
        assert!(silence.has_ended());
        assert!(!silence.review(at(500), PATIENCE), "it has been found");
    }

    #[test]
    fn it_begins_with_the_clock() {
        let silence = Silence::default();
        silence.begin();
        assert!(!silence.review(Duration::ZERO, PATIENCE));
        assert!(silence.review(PATIENCE, PATIENCE));
    }
}
