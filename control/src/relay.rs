//! The way out of machines that are to leave by a proxy: a process of its own.
//!
//! The packet filter turns what such machines send over to the relay (`runtime/incus/filter.rs`);
//! the relay finds out where it was meant to go, and carries it there through the machine's
//! [`Upstream`]. Names are asked over TCP, through the same proxy ([`names`]).
//!
//! Control tells it who leaves by what over a socket ([`link`]). The relay keeps that in memory and
//! nowhere else: while control is away it goes on as it was told last; started anew, it carries
//! nothing until it is told. So no credential is on disk in the clear, and nothing ever goes out
//! another way.
//!
//! It must be no way into this host, on which it runs as root: what the host itself or its machines
//! listen on is no proxy ([`Reach`]).

pub mod link;
pub mod names;
pub mod upstream;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Connections of one machine at once; what is beyond is refused.
const PER_MACHINE: usize = 512;
/// The same of all machines: each is two sockets and two buffers.
const IN_ALL: usize = 8192;
/// What is held of a connection in each direction.
const BUFFER: usize = 16 << 10;
/// From a machine's connection to one that carries it.
const CONNECT: Duration = Duration::from_secs(20);
/// Wait after an error that accepting ends with: descriptors may be short.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How often an address is tried that is not there yet: the bridge may come later.
const BIND_AGAIN: Duration = Duration::from_secs(1);
/// Silence after which the other end is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// RFC 1928.
    Socks5,
    /// `CONNECT` (RFC 9110, section 9.3.6).
    Http,
}

/// A proxy that a machine leaves by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    pub kind: Kind,
    pub host: String,
    pub port: u16,
    pub credentials: Option<Credentials>,
    /// Who is asked for names, in this order; see [`names::SERVERS`] where there are none.
    pub dns: Vec<Ipv4Addr>,
}

/// Never shown, and never logged.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// Who leaves by what.
pub type Table = BTreeMap<Ipv4Addr, Upstream>;

/// Where a relay is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The address of this host on the bridge.
    pub address: Ipv4Addr,
    /// The port for connections, and that for names.
    pub port: u16,
    pub names: u16,
    /// The socket on which control tells it what to do.
    pub socket: PathBuf,
    pub reach: Reach,
}

/// Which proxies may be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Those that are neither this host nor on its bridge.
    Beyond,
    /// All, for tests on loopback.
    Anywhere,
}

/// Why the relay could not serve.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("could not listen on {path}")]
    Listen {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What is known of a machine.
pub(crate) struct Entry {
    pub upstream: Upstream,
    /// Ends what goes on by this upstream.
    over: CancellationToken,
    connections: Arc<Semaphore>,
}

/// The relay's state, shared by its listeners.
#[derive(Clone)]
pub(crate) struct Relay {
    settings: Arc<Settings>,
    entries: Arc<Mutex<BTreeMap<Ipv4Addr, Arc<Entry>>>>,
    all: Arc<Semaphore>,
}

/// Serve until `shutdown` is over.
pub async fn serve(
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RelayError> {
    let relay = Relay {
        settings: Arc::new(settings),
        entries: Arc::default(),
        all: Arc::new(Semaphore::new(IN_ALL)),
    };
    let told = link::listen(&relay.settings.socket)?;
    let serving = async {
        tokio::join!(
            link::serve(&told, &relay),
            relay.clone().connections(relay.settings.port, false),
            relay.clone().connections(relay.settings.names, true),
            names::serve(&relay),
        )
    };
    tokio::select! {
        _ = serving => {}
        () = shutdown => {}
    }
    Ok(())
}

impl Relay {
    /// Take a new table. What goes on by an upstream that is no more, or another, ends.
    pub(crate) fn take(&self, table: Table) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = BTreeMap::new();
        for (address, upstream) in table {
            let kept = entries.remove(&address).filter(|entry| {
                let same = entry.upstream == upstream;
                if !same {
                    entry.over.cancel();
                }
                same
            });
            let entry = kept.unwrap_or_else(|| {
                Arc::new(Entry {
                    upstream,
                    over: CancellationToken::new(),
                    connections: Arc::new(Semaphore::new(PER_MACHINE)),
                })
            });
            next.insert(address, entry);
        }
        for gone in entries.values() {
            gone.over.cancel();
        }
        *entries = next;
    }

    pub(crate) fn find(&self, address: IpAddr) -> Option<Arc<Entry>> {
        let IpAddr::V4(address) = address else {
            return None;
        };
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(&address).cloned()
    }

    /// A place among the connections of a machine and of all.
    pub(crate) fn place(
        &self,
        entry: &Entry,
    ) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let own = entry.connections.clone().try_acquire_owned().ok()?;
        let all = self.all.clone().try_acquire_owned().ok()?;
        Some((own, all))
    }

    /// Carry what comes to a port of the relay.
    async fn connections(self, port: u16, names: bool) {
        let listener = loop {
            match TcpListener::bind((self.settings.address, port)).await {
                Ok(listener) => break listener,
                Err(error) => {
                    let address = self.settings.address;
                    tracing::debug!(%error, "cannot listen on {address}:{port} yet");
                    tokio::time::sleep(BIND_AGAIN).await;
                }
            }
        };
        loop {
            let (machine, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection of a machine");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let Some(entry) = self.find(from.ip()) else {
                continue; // nobody who leaves by a proxy
            };
            let Some(place) = self.place(&entry) else {
                tracing::debug!(machine = %from.ip(), "a machine has all the connections it may have");
                continue;
            };
            let relay = self.clone();
            tokio::spawn(async move {
                let _place = place;
                tokio::select! {
                    () = entry.over.cancelled() => {}
                    carried = relay.carry(machine, &entry.upstream, names) => {
                        if let Err(error) = carried {
                            tracing::debug!(machine = %from.ip(), %error, "a connection was not carried");
                        }
                    }
                }
            });
        }
    }

    async fn carry(
        &self,
        mut machine: TcpStream,
        upstream: &Upstream,
        names: bool,
    ) -> io::Result<()> {
        alive(&machine)?;
        let mut out = if names {
            self.connect_to_names(upstream).await?
        } else {
            let meant = SockRef::from(&machine)
                .original_dst_v4()?
                .as_socket_ipv4()
                .ok_or_else(|| io::Error::other("no IPv4 address was meant"))?;
            if *meant.ip() == self.settings.address && meant.port() == self.settings.port {
                return Err(io::Error::other("the relay itself was meant"));
            }
            self.connect(upstream, meant).await?
        };
        copy_bidirectional_with_sizes(&mut machine, &mut out, BUFFER, BUFFER).await?;
        Ok(())
    }

    /// The first of the machine's name servers that the proxy reaches.
    pub(crate) async fn connect_to_names(&self, upstream: &Upstream) -> io::Result<TcpStream> {
        let mut failed = io::Error::other("there is no name server");
        let servers = match upstream.dns.as_slice() {
            [] => &names::SERVERS,
            servers => servers,
        };
        for server in servers {
            match self.connect(upstream, SocketAddrV4::new(*server, 53)).await {
                Ok(out) => return Ok(out),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// A connection through the proxy to where it was meant to go.
    async fn connect(&self, upstream: &Upstream, meant: SocketAddrV4) -> io::Result<TcpStream> {
        let connecting = async {
            let mut failed = io::Error::other("the proxy's name has no address");
            let addresses =
                tokio::net::lookup_host((upstream.host.as_str(), upstream.port)).await?;
            for address in addresses {
                if !self.reaches(address).await {
                    failed = io::Error::other("the proxy is this host or one of its machines");
                    continue;
                }
                match TcpStream::connect(address).await {
                    Ok(mut out) => {
                        alive(&out)?;
                        upstream::ask(&mut out, upstream, meant).await?;
                        return Ok(out);
                    }
                    Err(error) => failed = error,
                }
            }
            Err(failed)
        };
        tokio::time::timeout(CONNECT, connecting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether a proxy may be there. The kernel knows: it reaches what is on this host from that
    /// very address, and what is on the bridge from the bridge's.
    async fn reaches(&self, address: SocketAddr) -> bool {
        if self.settings.reach == Reach::Anywhere {
            return true;
        }
        let IpAddr::V4(ip) = address.ip() else {
            return false; // machines have no IPv6, and neither has what stands in for them
        };
        if ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast() {
            return false;
        }
        let from = async {
            let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
            probe.connect((ip, 53)).await?; // sends nothing
            probe.local_addr()
        };
        match from.await {
            Ok(from) => from.ip() != IpAddr::V4(ip) && from.ip() != self.settings.address,
            Err(_) => false,
        }
    }
}

/// Have the kernel find out that an end is gone that says nothing.
fn alive(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let pace = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 4);
    SockRef::from(stream).set_tcp_keepalive(&pace)
}

#[cfg(test)]
mod tests;
