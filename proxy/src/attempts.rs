//! How often credentials may be wrong.
//!
//! Counted per client and container, and per container. Who is over a bound is told to wait,
//! whether the next credential is right or wrong, so that nothing is learned from the answer.
//! Requests that bring no credential, and those of a session, are not held up.

use std::net::IpAddr;

use dashmap::DashMap;
use routes::Id;

use crate::limits;

/// Wrong credentials of one client on one container: so many at once, then one every six seconds.
const CLIENT: Rate = Rate {
    burst: 10,
    every: 6_000,
};
/// Of all clients on one container: a guesser with many addresses.
const CONTAINER: Rate = Rate {
    burst: 600,
    every: 100,
};
/// Clients, and containers, that are counted. Above it, those who may go on are forgotten first;
/// where nobody may, new clients are counted with their container only.
const COUNTED: usize = 65_536;

#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u64,
    /// Milliseconds in which one more is forgiven.
    every: u64,
}

/// The wrong credentials of late: for each, when the last of them is forgiven, in milliseconds
/// since 1970.
#[derive(Debug, Default)]
pub struct Attempts {
    clients: DashMap<(IpAddr, Id), u64>,
    containers: DashMap<Id, u64>,
}

impl Attempts {
    /// Seconds to wait before another credential is looked at; nothing where it may be now.
    pub fn wait(&self, client: IpAddr, container: Id, now: u64) -> Option<u32> {
        let client = self.clients.get(&(limits::key(client), container));
        let container = self.containers.get(&container);
        let of = |forgiven: Option<u64>, rate: Rate| {
            let over = forgiven?.checked_sub(now + (rate.burst - 1) * rate.every)?;
            (over > 0).then(|| over.div_ceil(1_000) as u32)
        };
        let client = of(client.map(|it| *it), CLIENT);
        let container = of(container.map(|it| *it), CONTAINER);
        client.max(container)
    }

    /// A credential was wrong.
    pub fn failed(&self, client: IpAddr, container: Id, now: u64) {
        let later = |forgiven: u64, rate: Rate| {
            let most = now + rate.burst * rate.every;
            (forgiven.max(now) + rate.every).min(most)
        };
        let key = (limits::key(client), container);
        if self.clients.len() >= COUNTED {
            self.clients.retain(|_, forgiven| *forgiven > now);
        }
        if self.clients.len() < COUNTED || self.clients.contains_key(&key) {
            let mut forgiven = self.clients.entry(key).or_insert(now);
            *forgiven = later(*forgiven, CLIENT);
        }
        if self.containers.len() >= COUNTED {
            self.containers.retain(|_, forgiven| *forgiven > now);
        }
        if self.containers.len() < COUNTED || self.containers.contains_key(&container) {
            let mut forgiven = self.containers.entry(container).or_insert(now);
            *forgiven = later(*forgiven, CONTAINER);
        }
    }

    /// Forget everything that is forgiven.
    pub fn forget(&self, now: u64) {
        self.clients.retain(|_, forgiven| *forgiven > now);
        self.containers.retain(|_, forgiven| *forgiven > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_client_waits_after_its_burst() {
        let attempts = Attempts::default();
        let (client, container) = (ip("192.0.2.1"), Id([1; 12]));
        for _ in 0..CLIENT.burst {
            assert_eq!(attempts.wait(client, container, NOW), None);
            attempts.failed(client, container, NOW);
        }
        assert_eq!(attempts.wait(client, container, NOW), Some(6));
        assert_eq!(attempts.wait(client, container, NOW + 5_500), Some(1));
        assert_eq!(attempts.wait(client, container, NOW + 6_000), None);
        // Others, and the same client elsewhere, go on.
        assert_eq!(attempts.wait(ip("192.0.2.2"), container, NOW), None);
        assert_eq!(attempts.wait(client, Id([2; 12]), NOW), None);
        // However it is written, and whatever it has of its network.
        assert_eq!(
            attempts.wait(ip("::ffff:192.0.2.1"), container, NOW),
            Some(6)
        );
        for at in 0..CLIENT.burst {
            attempts.failed(ip(&format!("2001:db8::{at}")), container, NOW);
        }
        assert_eq!(attempts.wait(ip("2001:db8::99"), container, NOW), Some(6));
        // More of it does not lock out for longer.
        for _ in 0..1_000 {
            attempts.failed(client, container, NOW);
        }
        assert!(
            attempts
                .wait(client, container, NOW)
                .is_some_and(|it| it <= 60)
        );
        attempts.forget(NOW + 120_000);
        assert!(attempts.clients.is_empty() && attempts.containers.is_empty());
    }

    #[test]
    fn many_clients_wait_together() {
        let attempts = Attempts::default();
        let container = Id([1; 12]);
        for at in 0..CONTAINER.burst {
            let [.., high, low] = at.to_be_bytes();
            attempts.failed(IpAddr::from([10, 0, high, low]), container, NOW);
        }
        assert_eq!(attempts.wait(ip("192.0.2.1"), container, NOW), Some(1));
        assert_eq!(attempts.wait(ip("192.0.2.1"), Id([2; 12]), NOW), None);
    }
}
