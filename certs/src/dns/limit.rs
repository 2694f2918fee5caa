//! How much is said to whom.
//!
//! Over UDP anybody can ask in somebody else's name, and the answer is larger than the question.
//! So what is said to one network is limited (response rate limiting): beyond it, some questions
//! get an answer without records, which is no larger than they are and makes a real client come
//! back over TCP; the others get none.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::answer::Class;

/// The bounds of everything a stranger can make the server hold, say or wait for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Answers of one class a second to one network: an IPv4 /24 or an IPv6 /56.
    pub answers: u32,
    /// Answers that a network may have at once after it was quiet.
    pub burst: u32,
    /// Of the answers beyond, every how many-eth goes out without its records; the others do not
    /// go out. 0: none.
    pub slip: u32,
    /// Whether the loopback is limited, too.
    pub loopback: bool,
    /// Open TCP connections in all. Above it, a new one is closed at once.
    pub connections: usize,
    /// Open TCP connections of one network.
    pub connections_per_client: u32,
    /// Questions that one connection may ask.
    pub questions: u32,
    /// From accept, or from one question, to the last byte of the next.
    pub idle: Duration,
    /// For a client to take an answer.
    pub send: Duration,
    /// A message over TCP. Questions are short; updates and transfers are refused anyway.
    pub message_bytes: usize,
    /// Values of challenges at one name. They fit into one answer over UDP.
    pub values_per_name: usize,
    /// Values of challenges in all.
    pub values: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            // A public resolver's network asks for many users, and every host of a container is
            // a name of its own; 100 a second of a common answer are some 15 kB.
            answers: 100,
            burst: 200,
            slip: 2,
            loopback: false,
            connections: 256,
            connections_per_client: 16,
            questions: 1_000,
            idle: Duration::from_secs(10),
            send: Duration::from_secs(5),
            message_bytes: 4 << 10,
            values_per_name: 16,
            values: 1_024,
        }
    }
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Send,
    /// Without its records.
    Shorten,
    Drop,
}

/// Buckets, of 8 bytes each. Networks are spread over them by a secret hash: who shares one is
/// limited together, and nobody can choose with whom. A flood in the name of everybody reaches
/// each with a 65,536th of its rate.
const BUCKETS: usize = 1 << 16;

/// Who was told how much of late. Of a size that does not change.
pub struct Limiter {
    /// When the bucket will be empty (the virtual scheduling form of GCRA), in microseconds.
    buckets: Box<[AtomicU64]>,
    hasher: RandomState,
    /// Microseconds that one answer fills.
    interval: u64,
    /// How far ahead of now a bucket may be.
    tolerance: u64,
    slip: u64,
    loopback: bool,
    beyond: AtomicU64,
}

impl Limiter {
    pub fn new(limits: &Limits) -> Limiter {
        let interval = 1_000_000 / u64::from(limits.answers.max(1));
        Limiter {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            interval,
            tolerance: interval * u64::from(limits.burst.max(1)),
            slip: limits.slip.into(),
            loopback: limits.loopback,
            beyond: AtomicU64::new(0),
        }
    }

    /// Whether `client` is told something of this class at `now` (microseconds since whenever).
    pub fn ask(&self, client: IpAddr, class: Class, now: u64) -> Verdict {
        if client.is_loopback() && !self.loopback {
            return Verdict::Send;
        }
        let at = self.hasher.hash_one((network(client), class as u8)) as usize % BUCKETS;
        let bucket = &self.buckets[at];
        let taken = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |empty| {
            let empty = empty.max(now) + self.interval;
            (empty <= now + self.tolerance).then_some(empty)
        });
        if taken.is_ok() {
            return Verdict::Send;
        }
        let beyond = self.beyond.fetch_add(1, Ordering::Relaxed);
        if self.slip > 0 && beyond.is_multiple_of(self.slip) {
            Verdict::Shorten
        } else {
            Verdict::Drop
        }
    }
}

/// The network that is taken for one client: an IPv4 /24, an IPv6 /56.
pub fn network(client: IpAddr) -> u128 {
    match client.to_canonical() {
        // Of a prefix that no client has (RFC 6666, the discard prefix, is as good as any).
        IpAddr::V4(ip) => (0x0100_u128 << 112) | u128::from(u32::from(ip) >> 8),
        IpAddr::V6(ip) => u128::from(ip) >> 72 << 72,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(slip: u32) -> Limiter {
        Limiter::new(&Limits {
            answers: 10,
            burst: 20,
            slip,
            ..Limits::default()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many of `count` questions at one moment are answered in full.
    fn sent(limiter: &Limiter, client: &str, class: Class, count: usize, now: u64) -> usize {
        (0..count)
            .filter(|_| limiter.ask(ip(client), class, now) == Verdict::Send)
            .count()
    }

    #[test]
    fn a_network_has_a_burst_and_then_its_rate() {
        let limiter = limiter(0);
        let start = 5_000_000;
        assert_eq!(sent(&limiter, "192.0.2.1", Class::Records, 100, start), 20);
        assert_eq!(sent(&limiter, "192.0.2.200", Class::Records, 100, start), 0);
        let second = start + 1_000_000;
        assert_eq!(sent(&limiter, "192.0.2.7", Class::Records, 100, second), 10);
        let hour = start + 3_600_000_000;
        assert_eq!(sent(&limiter, "192.0.2.7", Class::Records, 100, hour), 20);
    }

    #[test]
    fn networks_and_classes_are_apart() {
        let limiter = limiter(0);
        assert_eq!(sent(&limiter, "192.0.2.1", Class::Records, 100, 0), 20);
        for (client, class) in [
            ("192.0.2.1", Class::Nothing),
            ("192.0.3.1", Class::Records),
            ("2001:db8:0:100::1", Class::Records),
            ("2001:db8:0:200::1", Class::Records),
        ] {
            assert_eq!(sent(&limiter, client, class, 100, 0), 20, "{client}");
        }
        assert_eq!(
            sent(&limiter, "2001:db8:0:1ff::9", Class::Records, 100, 0),
            0
        );
        let mapped = "::ffff:192.0.2.99";
        assert_eq!(sent(&limiter, mapped, Class::Records, 100, 0), 0);
    }

    #[test]
    fn what_is_beyond_slips_in_turn() {
        let limiter = limiter(2);
        let client = ip("198.51.100.1");
        let verdicts: Vec<Verdict> = (0..24)
            .map(|_| limiter.ask(client, Class::Records, 0))
            .skip(20)
            .collect();
        use Verdict::{Drop, Shorten};
        assert_eq!(verdicts, [Shorten, Drop, Shorten, Drop]);
    }

    /// A flood in the names of a million networks takes no memory, and leaves others their answers.
    #[test]
    fn a_flood_in_the_name_of_many_is_bounded() {
        let limiter = Limiter::new(&Limits::default());
        for network in 0..1_000_000_u32 {
            let client = IpAddr::V4((network << 8).into());
            limiter.ask(client, Class::Records, u64::from(network) * 10); // 100,000 a second
        }
        assert_eq!(limiter.buckets.len(), BUCKETS);
        let now = 10_000_000;
        assert_eq!(sent(&limiter, "2001:db8::1", Class::Records, 50, now), 50);
    }

    #[test]
    fn the_loopback_is_told_everything() {
        let limiter = limiter(0);
        assert_eq!(sent(&limiter, "127.0.0.1", Class::Records, 1000, 0), 1000);
        assert_eq!(sent(&limiter, "::1", Class::Records, 1000, 0), 1000);
    }
}
