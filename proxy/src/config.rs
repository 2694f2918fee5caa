//! Where the proxy listens, where its files are, and every limit it keeps.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use routes::Zone;

use crate::certificates::Certificates;
use crate::sender::Network;
use crate::wake::Patience;

/// How one proxy is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// The names it answers to.
    pub zone: Zone,
    /// Plain HTTP. For a local zone it serves what HTTPS serves; otherwise it redirects there.
    pub http: Vec<SocketAddr>,
    pub https: Vec<SocketAddr>,
    /// Load balancers in front, which say for whom they speak (the PROXY protocol, version 1 or
    /// 2). They must; whoever else does is not understood.
    pub senders: Vec<Network>,
    /// The port that a redirect to HTTPS names; the first of `https` where not given.
    pub public_https_port: Option<u16>,
    /// Who is asked where custom domains lead.
    pub resolvers: Resolvers,
    /// Who orders certificates, where somebody does.
    pub certificates: Certificates,
    /// Prometheus metrics, on a loopback address.
    pub metrics: Option<SocketAddr>,
    /// A name server, where the node has one.
    pub dns: Option<Dns>,
    /// The socket on which control pushes the routing table.
    pub feed: PathBuf,
    /// The file that keeps the routing table.
    pub table: PathBuf,
    /// The file that keeps the keys with which sign-ins are sealed.
    pub session_keys: PathBuf,
    /// The socket on which control serves the API.
    pub control: PathBuf,
    /// The socket on which control is told which containers are waited for.
    pub wake: PathBuf,
    /// The socket on which a successor asks for the listening sockets.
    pub handover: PathBuf,
    /// The socket on which proxies that have handed over follow the newest one.
    pub elders: PathBuf,
    pub access_log: AccessLog,
    /// The directory of the containers' own logs.
    pub container_logs: PathBuf,
    /// Threads that serve connections.
    pub workers: usize,
    pub limits: Limits,
}

impl Config {
    /// The usual places under a state directory; nothing listens to the world yet.
    pub fn new(zone: Zone, state: &Path) -> Config {
        let run = state.join("run");
        Config {
            zone,
            http: Vec::new(),
            https: Vec::new(),
            senders: Vec::new(),
            public_https_port: None,
            resolvers: Resolvers::Off,
            certificates: Certificates::default(),
            metrics: None,
            dns: None,
            feed: run.join("feed.sock"),
            table: state.join("proxy/table.json"),
            session_keys: state.join("proxy/session.key"),
            control: run.join("control.sock"),
            wake: run.join("wake.sock"),
            handover: run.join("handover.sock"),
            elders: run.join("elders.sock"),
            access_log: AccessLog::File(state.join("logs/access.log")),
            container_logs: state.join("proxy/logs"),
            workers: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            limits: Limits::default(),
        }
    }
}

/// The DNS servers that are asked where custom domains lead; they have to resolve what they are
/// asked, as those of a machine do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolvers {
    /// None: no name of another domain is known here.
    Off,
    /// Those in `/etc/resolv.conf`.
    System,
    At(Vec<SocketAddr>),
}

/// A name server beside the proxy: it is bound with the other listeners and handed over with them.
#[derive(Debug, Clone)]
pub struct Dns {
    /// Over UDP and TCP.
    pub listen: Vec<SocketAddr>,
    pub server: Arc<certs::dns::Server>,
}

/// Where the access log goes: JSON, one line a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    Off,
    Stdout,
    /// Appended to; at [`Limits::access_log_bytes`] it becomes `….1`, which it replaces.
    File(PathBuf),
}

/// The bounds of everything a stranger can make the proxy hold or wait for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections in all. Above it, a new one is closed at once.
    pub connections: usize,
    /// Open connections of one client: an IPv4 address or an IPv6 /64. The loopback is exempt.
    pub connections_per_client: u32,
    /// Requests of one client under way at once, above which it gets 429. The loopback is exempt.
    pub requests_per_client: u32,
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the first byte of a request to the last of its headers.
    pub headers: Duration,
    /// Between two requests of a connection.
    pub keepalive: Duration,
    /// Between two parts of a request's body.
    pub body: Duration,
    /// A client that sends no more but may still wait for its answer.
    pub half_close: Duration,
    /// For a client to take one part of a response.
    pub send: Duration,
    /// A WebSocket on which nothing passes in either direction.
    pub tunnel: Duration,
    /// To connect to a kit or to control.
    pub connect: Duration,
    /// A kit or control that neither answers nor sends the next part of its response.
    pub upstream: Duration,
    /// A connection to a kit or to control that waits for its next request.
    pub pool: Duration,
    /// Waiting connections to kits and control, per worker.
    pub pool_size: usize,
    /// Requests that a client of HTTP/2 takes back within ten seconds, of one connection.
    pub h2_resets: u32,
    /// Frames of HTTP/2 that ask for nothing, within ten seconds, of one connection.
    pub h2_idle_frames: u32,
    /// The headers of a request.
    pub header_bytes: usize,
    /// How many headers a request may have.
    pub header_count: usize,
    /// The path and query of a request.
    pub target_bytes: usize,
    /// The body of a request to the API. Bodies to containers are streamed without a limit.
    pub api_body_bytes: u64,
    /// For a container that sleeps or starts.
    pub wake: Patience,
    /// Between two words to control about which containers are used.
    pub tell: Duration,
    /// For requests under way when the proxy stops.
    pub drain: Duration,
    /// For requests and WebSockets under way when a successor has taken over.
    pub leave: Duration,
    /// One line of the feed: a whole table of some 100,000 containers.
    pub feed_line_bytes: usize,
    /// The access log before it is rotated.
    pub access_log_bytes: u64,
    /// The logs of containers.
    pub container_logs: proxy_logs::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 16_384,
            connections_per_client: 1_024,
            requests_per_client: 512,
            handshake: Duration::from_secs(10),
            headers: Duration::from_secs(10),
            keepalive: Duration::from_secs(75),
            body: Duration::from_secs(60),
            half_close: Duration::from_secs(2),
            send: Duration::from_secs(120),
            tunnel: Duration::from_secs(4 * 3600),
            connect: Duration::from_secs(5),
            upstream: Duration::from_secs(3600),
            pool: Duration::from_secs(60),
            pool_size: 256,
            h2_resets: 500,
            h2_idle_frames: 4_000,
            header_bytes: 64 << 10,
            header_count: 128,
            target_bytes: 16 << 10,
            api_body_bytes: 16 << 20,
            wake: Patience {
                page: Duration::from_millis(1_500),
                usual: Duration::from_secs(30),
                most: Duration::from_secs(120),
            },
            tell: Duration::from_secs(10),
            drain: Duration::from_secs(10),
            leave: Duration::from_secs(120),
            feed_line_bytes: 64 << 20,
            access_log_bytes: 64 << 20,
            container_logs: proxy_logs::Limits::default(),
        }
    }
}
