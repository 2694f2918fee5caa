//! Counting failures, so that guessing gets slow.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use kit::Fault;

use crate::time::Millis;

/// Keys counted at once. Beyond it, those with the fewest counts make way.
const KEYS: usize = 1 << 16;

/// At most so many in a window that begins with the first.
pub struct Limiter {
    most: u32,
    window: Millis,
    counts: Mutex<HashMap<String, Count>>,
}

struct Count {
    since: Millis,
    number: u32,
}

/// What is counted as one address: all of IPv4, the usual network of one customer in IPv6.
pub fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

impl Limiter {
    pub fn new(most: u32, window: Millis) -> Limiter {
        Limiter {
            most,
            window,
            counts: Mutex::default(),
        }
    }

    /// Refuse where the limit is reached.
    pub fn check(&self, key: &str, now: Millis) -> Result<(), Fault> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = counts
            .get(key)
            .filter(|count| now - count.since < self.window)
        else {
            return Ok(());
        };
        if count.number < self.most {
            return Ok(());
        }
        let wait = (count.since + self.window - now).max(1).cast_unsigned();
        Err(Fault::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too many attempts; try again later",
        )
        .code("RATE_LIMITED")
        .retry_after(Duration::from_millis(wait)))
    }

    /// Count one.
    pub fn note(&self, key: &str, now: Millis) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts
            .get_mut(key)
            .filter(|count| now - count.since < self.window)
        {
            count.number = count.number.saturating_add(1);
            return;
        }
        if counts.len() >= KEYS && !counts.contains_key(key) {
            counts.retain(|_, count| now - count.since < self.window);
            if counts.len() >= KEYS {
                make_room(&mut counts);
            }
        }
        counts.insert(
            key.to_owned(),
            Count {
                since: now,
                number: 1,
            },
        );
    }
}

/// Forget the half that was counted least.
fn make_room(counts: &mut HashMap<String, Count>) {
    let mut numbers: Vec<u32> = counts.values().map(|count| count.number).collect();
    numbers.sort_unstable();
    let middle = numbers[numbers.len() / 2];
    let mut spare = counts.len() / 2;
    counts.retain(|_, count| {
        let keep = count.number > middle || spare == 0;
        if !keep {
            spare -= 1;
        }
        keep
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_for_its_window() {
        let limiter = Limiter::new(2, 1000);
        for now in [0, 1] {
            limiter.check("a", now).unwrap();
            limiter.note("a", now);
        }
        let refused = limiter.check("a", 400).unwrap_err();
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.retry_after, Some(Duration::from_millis(600)));
        limiter.check("b", 400).unwrap();
        limiter.check("a", 1000).unwrap();
    }

    #[test]
    fn many_keys_do_not_push_out_a_guesser() {
        let limiter = Limiter::new(3, 1_000_000);
        for _ in 0..3 {
            limiter.note("guesser", 0);
        }
        for i in 0..KEYS * 2 {
            limiter.note(&i.to_string(), 1);
        }
        assert!(limiter.counts.lock().unwrap().len() <= KEYS);
        assert!(limiter.check("guesser", 2).is_err());
    }

    #[test]
    fn a_customer_of_ipv6_is_one_address() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(
            network("2001:db8:1:2:3::1"),
            network("2001:db8:1:2:ffff::2")
        );
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
