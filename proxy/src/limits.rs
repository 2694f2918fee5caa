//! Who has how much open.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use dashmap::DashMap;

use crate::config::Limits;

/// The clients that have connections open, and how many.
#[derive(Debug)]
pub struct Clients {
    open: AtomicUsize,
    each: DashMap<IpAddr, Arc<Client>>,
    connections: usize,
    connections_per_client: u32,
    requests_per_client: u32,
}

/// What one client has open.
#[derive(Debug, Default)]
struct Client {
    connections: AtomicU32,
    requests: AtomicU32,
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    clients: Arc<Clients>,
    key: IpAddr,
    client: Arc<Client>,
}

/// The right to one request under way; given back when dropped.
#[derive(Debug)]
pub struct RequestPermit(Arc<Client>);

/// Which bound a new connection met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    All,
    Client,
}

impl Clients {
    pub fn new(limits: &Limits) -> Clients {
        Clients {
            open: AtomicUsize::new(0),
            each: DashMap::new(),
            connections: limits.connections,
            connections_per_client: limits.connections_per_client,
            requests_per_client: limits.requests_per_client,
        }
    }

    /// Take one more connection of this address, if both bounds allow it.
    pub fn connect(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionPermit, Full> {
        if self.open.fetch_add(1, Ordering::AcqRel) >= self.connections {
            self.open.fetch_sub(1, Ordering::AcqRel);
            return Err(Full::All);
        }
        let key = key(address);
        // Counted under the entry's lock, so that a client is not forgotten meanwhile.
        let client = {
            let entry = self.each.entry(key).or_default();
            entry.connections.fetch_add(1, Ordering::AcqRel);
            entry.clone()
        };
        let permit = ConnectionPermit {
            clients: self.clone(),
            key,
            client,
        };
        let open = permit.client.connections.load(Ordering::Acquire);
        if open > self.connections_per_client && !key.is_loopback() {
            return Err(Full::Client);
        }
        Ok(permit)
    }
}

impl ConnectionPermit {
    /// Take one more request of this connection's client, if its bound allows it.
    pub fn request(&self) -> Option<RequestPermit> {
        let under_way = self.client.requests.fetch_add(1, Ordering::AcqRel);
        let permit = RequestPermit(self.client.clone());
        let allowed = under_way < self.clients.requests_per_client || self.key.is_loopback();
        allowed.then_some(permit)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.clients.open.fetch_sub(1, Ordering::AcqRel);
        if self.client.connections.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.clients.each.remove_if(&self.key, |_, client| {
                client.connections.load(Ordering::Acquire) == 0
            });
        }
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One client: an IPv4 address, however written, or the /64 that a site is given.
pub fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let network = u128::from(v6) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(network))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients() -> Arc<Clients> {
        let limits = Limits {
            connections: 4,
            connections_per_client: 2,
            requests_per_client: 1,
            ..Limits::default()
        };
        Arc::new(Clients::new(&limits))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn bounds_hold_and_everything_is_given_back() {
        let clients = clients();
        let one = clients.connect(ip("192.0.2.1")).expect("first");
        let two = clients.connect(ip("::ffff:192.0.2.1")).expect("second");
        assert_eq!(
            clients.connect(ip("192.0.2.1")).expect_err("third"),
            Full::Client
        );
        let _three = clients.connect(ip("2001:db8::1")).expect("first");
        let _four = clients.connect(ip("2001:db8::ffff:1")).expect("second");
        assert_eq!(
            clients.connect(ip("127.0.0.1")).expect_err("fifth"),
            Full::All
        );
        drop((one, two));
        let one = clients.connect(ip("192.0.2.1")).expect("again");
        let request = one.request().expect("one");
        assert!(one.request().is_none());
        drop(request);
        assert!(one.request().is_some());
        drop((one, _three, _four));
        assert!(clients.each.is_empty());
        assert_eq!(clients.open.load(Ordering::Acquire), 0);
    }

    #[test]
    fn the_loopback_is_exempt() {
        let clients = clients();
        let held: Vec<_> = (0..4)
            .map(|_| clients.connect(ip("::1")).expect("exempt"))
            .collect();
        let requests: Vec<_> = (0..9).map(|_| held[0].request().expect("exempt")).collect();
        drop(requests);
    }
}
