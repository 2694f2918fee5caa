//! Hostname in, container out: the only part of a node that listens to the world.
//!
//! In reading order:
//!
//! - [`config`]: addresses, paths and limits.
//! - `listen`: sockets, worker threads, one connection from accept to close, and draining.
//! - `handover`: sockets that pass to a successor · `elders`: what a proxy that has handed over
//!   still hears from the newest one, and leaves to it.
//! - `tls`: the handshake. Certificates come from outside as a resolver. `certificates`: those that
//!   are ordered when somebody asks, and what a directory is answered.
//! - `scripts`: hosts of script directories, which have certificates of their own.
//! - `sender`: whom a load balancer speaks for · `frames`: HTTP/2 by its first bytes, and floods.
//! - `connection`: what is known about a connection, and the deadlines of its stream; `socket`:
//!   its buffers.
//! - `gateway`: the life of a request, as the phases of Pingora's `ProxyHttp`.
//! - `request`: what is read out of a request before anything is decided.
//! - `resolve`: address → destination · `domains`: names of other people's that lead to an alias ·
//!   `admit`: may it pass now?
//! - `gates`: may this visitor? With `evidence` (what a request brings), `session` (the cookie of
//!   somebody who has signed in), `signed_out` (copies of it), `signin` (the page), `attempts` (how often one may be wrong) and
//!   `lines` (what goes on, and when it has to end).
//! - `wake`: what sleeps is woken, and waited for · `activity`: what is used, so that control can
//!   put to sleep what is not.
//! - `hooks`: scripts of a container that see its requests first.
//! - `isolation`, `cookies`: what a container may say to a browser, and what is kept from it.
//! - `uploads`: bodies over HTTP/2 that do not come any more.
//! - `passage`: the way of a tunnel out of Pingora · `relay`: a tunnel on its own · `boundary`: where
//!   its frames end.
//! - `upstream`: connections to a container's kit and to control · `ahead`: what is read of their
//!   answers before it is taken · `outbound`: headers for them.
//! - `mount`: answers of routers in this process, such as that of the log of a container.
//! - `refusals`: every answer that the proxy gives by itself.
//! - `feed`: the routing table, pushed by control · `ledger`: the table on disk.
//! - `trace`: which trace a request belongs to.
//! - `limits`, `logs`, `admin`: who has how much open, what happened, how often.
//!
//! `resolve`, `admit`, `gates`, `wake` and `refusals` know no type of Pingora. Nothing here knows what runs a
//! container or where control keeps its state. Every container is taken to be hostile: its
//! replies, its socket, its names.

mod activity;
mod admin;
mod admit;
mod ahead;
mod attempts;
mod boundary;
mod certificates;
pub mod config;
mod connection;
mod cookies;
mod domains;
mod elders;
mod evidence;
mod feed;
mod frames;
mod gates;
mod gateway;
mod handover;
mod hooks;
mod isolation;
mod ledger;
mod limits;
mod lines;
mod listen;
mod logs;
mod mount;
mod outbound;
mod passage;
mod query;
mod refusals;
mod relay;
mod request;
mod resolve;
mod scripts;
mod sender;
mod session;
mod signed_out;
mod signin;
mod silence;
mod socket;
mod tls;
mod trace;
mod uploads;
mod upstream;
mod wake;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use routes::Table;

pub use certificates::Certificates;
pub use config::{AccessLog, Config, Dns, Limits, Resolvers};
pub use domains::{Domains, NotLed};
pub use listen::{Bound, Proxy, StartProxy};
pub use refusals::REFUSALS;
pub use sender::{Network, NoNetwork};
pub use wake::Patience;

/// Directives for a log filter that keep out what Pingora reports about clients that misbehave or
/// leave: the access log has it, one line a request.
pub const QUIET: &str = "pingora_proxy=off,pingora_core=off";

/// Serve in a process of its own until `shutdown` resolves or a successor has taken over, then
/// drain. `started` is told of it once it serves.
pub async fn run(
    config: Config,
    certs: Arc<dyn rustls::server::ResolvesServerCert>,
    started: impl FnOnce(&Proxy),
    shutdown: impl Future<Output = ()>,
) -> Result<(), StartProxy> {
    listen::raise_descriptors(&config.limits);
    let proxy = Proxy::start(config, certs)?;
    started(&proxy);
    let handed_over = tokio::select! {
        () = shutdown => false,
        () = proxy.handed_over() => true,
    };
    if handed_over {
        proxy.leave().await;
    } else {
        proxy.stop().await;
    }
    Ok(())
}

/// What the parts of one proxy share.
struct Shared {
    config: Config,
    table: Arc<ArcSwap<Table>>,
    /// Told after every change of the table.
    changed: tokio::sync::watch::Sender<()>,
    /// Whether the table has come from control since this proxy started, and not from disk alone.
    fed: AtomicBool,
    /// The logs of containers, and the router that serves them.
    logs: proxy_logs::Logs,
    logs_router: axum::Router,
    /// Turns true when the proxy drains.
    stopping: tokio::sync::watch::Receiver<bool>,
    ledger: std::sync::Mutex<ledger::Ledger>,
    clients: Arc<limits::Clients>,
    metrics: admin::Metrics,
    journal: logs::Journal,
    sessions: session::Keys,
    attempts: attempts::Attempts,
    lines: Arc<lines::Lines>,
    uploads: uploads::Uploads,
    asking: Arc<hooks::Asking>,
    wakes: wake::Wakes,
    activity: Arc<activity::Activity>,
    domains: Domains,
    /// The port that a redirect to HTTPS names.
    https_port: u16,
    /// Whether a successor serves, so that nobody is hurried away.
    leaving: Arc<AtomicBool>,
}
