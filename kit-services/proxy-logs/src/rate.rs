//! How often a log may be read: a bucket for each container.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use kit::Fault;
use serde_json::json;

use crate::Key;

/// Requests that may come at once.
const BURST: f64 = 30.0;
/// After each of these one more may come: thirty in a minute.
const EVERY: Duration = Duration::from_secs(2);
/// Buckets at once. A full bucket says nothing and is forgotten.
const BUCKETS: usize = 4_096;

#[derive(Default)]
pub struct Rate {
    buckets: Mutex<HashMap<Key, Bucket>>,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed / EVERY.as_secs_f64()).min(BURST);
        self.at = now;
    }
}

impl Rate {
    /// Take one request to a container's log.
    pub fn admit(&self, container: Key, now: Instant) -> Result<(), Fault> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS && !buckets.contains_key(&container) {
            buckets.retain(|_, bucket| {
                bucket.refill(now);
                bucket.tokens < BURST
            });
            if buckets.len() >= BUCKETS {
                return Err(refused());
            }
        }
        let bucket = buckets.entry(container).or_insert(Bucket {
            tokens: BURST,
            at: now,
        });
        bucket.refill(now);
        if bucket.tokens < 1.0 {
            return Err(refused());
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

fn refused() -> Fault {
    limited("this log is read more than 30 times a minute; follow it with GET /_logs/stream")
}

/// 429, as the contract has it.
pub fn limited(message: &str) -> Fault {
    const CODE: &str = "rate_limited";
    Fault::new(StatusCode::TOO_MANY_REQUESTS, message)
        .code(CODE)
        .retry_after(EVERY)
        .with_body(json!({ "error": CODE, "message": message, "code": CODE }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_at_once_and_one_every_two_seconds() {
        let rate = Rate::default();
        let now = Instant::now();
        let (one, other) = (Key([1; 12]), Key([2; 12]));
        for _ in 0..30 {
            rate.admit(one, now).expect("within the burst");
        }
        let fault = rate.admit(one, now).expect_err("too many");
        assert_eq!(fault.status, 429);
        assert_eq!(fault.retry_after, Some(Duration::from_secs(2)));
        rate.admit(other, now).expect("a bucket of its own");
        let later = now + Duration::from_secs(2);
        rate.admit(one, later).expect("one more");
        rate.admit(one, later).expect_err("only one more");
        rate.admit(one, now)
            .expect_err("time that runs backwards gives nothing");
    }

    #[test]
    fn buckets_are_bounded() {
        let rate = Rate::default();
        let now = Instant::now();
        let key = |number: u32| {
            let mut key = [0; 12];
            key[..4].copy_from_slice(&number.to_be_bytes());
            Key(key)
        };
        for number in 0..BUCKETS as u32 {
            rate.admit(key(number), now).expect("there is room");
        }
        rate.admit(key(u32::MAX), now).expect_err("there is none");
        rate.admit(key(1), now).expect("it has a bucket");
        let later = now + Duration::from_secs(2);
        rate.admit(key(u32::MAX), later)
            .expect("most have filled up again");
        let buckets = rate.buckets.lock().expect("whole");
        assert!(buckets.len() < 10, "{}", buckets.len());
    }
}
