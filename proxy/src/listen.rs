//! Sockets, workers, and one connection from accept to close.
//!
//! Every worker is a thread with a runtime of its own, which accepts from all sockets and keeps
//! its connections: nothing moves between threads, no lock is shared on the way of a request.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::apps::{HttpServerOptions, ServerApp};
use pingora::protocols::http::v2::server::default_h2_options;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use routes::table::State;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustls::server::ResolvesServerCert;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};
use tracing::{info, warn};

use crate::activity::{self, Activity};
use crate::attempts::Attempts;
use crate::config::{Config, Dns, Limits};
use crate::connection::{Connection, Socket, Stream, buffered};
use crate::domains::{Domains, Lookups, NoResolver};
use crate::elders::{self, Link};
use crate::gateway::Gateway;
use crate::handover::{self, Inherited, Name, Role};
use crate::ledger::Ledger;
use crate::limits::{Clients, ConnectionPermit, Nameless};
use crate::lines::{self, End, Lines};
use crate::logs::{Journal, OpenLog};
use crate::passage::Tunnel;
use crate::refusals::{Audience, Refusal};
use crate::relay::{self, Close, Patience, Relay};
use crate::scripts::{Entitlements, Scripts};
use crate::session::{KeepKeys, Keys};
use crate::tls::{NoHandshake, Tls};
use crate::uploads::Uploads;
use crate::wake::Wakes;
use crate::{Shared, admin, feed, frames, hooks, logs, sender};

/// Connections that the kernel holds for a socket until a worker takes them.
const BACKLOG: i32 = 1_024;
/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A client that is gone without a word is noticed after a bit more than two minutes.
const TCP_IDLE: Duration = Duration::from_secs(60);
const TCP_INTERVAL: Duration = Duration::from_secs(15);
const TCP_PROBES: u32 = 5;
/// What HTTP/2 lets a client send before it is read: of one stream, and of all of a connection.
const H2_STREAM_WINDOW: u32 = 256 << 10;
const H2_CONNECTION_WINDOW: u32 = 1 << 20;
/// Requests are tried again only where nothing of them was sent: on a pooled connection that
/// turned out dead.
const TRIES: usize = 3;

/// A proxy that serves. Dropping it stops it at once; [`Proxy::stop`] drains first.
pub struct Proxy {
    bound: Bound,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    handed_over: watch::Receiver<bool>,
    leaving: Arc<AtomicBool>,
    domains: Domains,
}

/// The addresses that were bound.
#[derive(Debug, Clone, Default)]
pub struct Bound {
    pub http: Vec<SocketAddr>,
    pub https: Vec<SocketAddr>,
    pub metrics: Option<SocketAddr>,
    /// Names, over UDP and TCP.
    pub dns: Vec<SocketAddr>,
}

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartProxy {
    #[error("could not listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("could not bind the feed's socket {path}")]
    BindFeed {
        path: std::path::PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not make the directory {path}")]
    MakeDirectory {
        path: std::path::PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    OpenLog(#[from] OpenLog),
    #[error(transparent)]
    KeepKeys(#[from] KeepKeys),
    #[error("could not set up TLS")]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    NoResolver(#[from] NoResolver),
    #[error("could not start a thread")]
    Spawn(#[source] io::Error),
    #[error("the address for metrics {0} is not a loopback address")]
    PublicMetrics(SocketAddr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Proxy {
    /// Bind, start the workers and the feed, and return. The certificates come from `certs`, asked
    /// in every handshake.
    pub fn start(config: Config, certs: Arc<dyn ResolvesServerCert>) -> Result<Proxy, StartProxy> {
        let tls = Arc::new(Tls::new(
            certs,
            config.certificates.clone(),
            config.limits.handshake,
        )?);
        let mut sockets = Vec::new();
        let mut bound = Bound::default();
        let mut inherited = Inherited::take(&config.handover);
        let mut offered = Vec::new();
        let mut listen = |role, asked| -> Result<std::net::TcpListener, StartProxy> {
            let name = Name { role, asked };
            let listener = match inherited.listener(&name) {
                Some(listener) => listener,
                None => listen(asked)?,
            };
            let copy = listener.try_clone().map_err(StartProxy::Spawn)?;
            offered.push((name, copy.into()));
            Ok(listener)
        };
        for (scheme, role, addresses, known) in [
            (Scheme::Http, Role::Http, &config.http, &mut bound.http),
            (Scheme::Https, Role::Https, &config.https, &mut bound.https),
        ] {
            for &address in addresses {
                let listener = listen(role, address)?;
                known.push(local(&listener, address)?);
                sockets.push((scheme, listener));
            }
        }
        let metrics = match config.metrics {
            Some(address) if !address.ip().is_loopback() => {
                return Err(StartProxy::PublicMetrics(address));
            }
            Some(address) => {
                let listener = listen(Role::Metrics, address)?;
                bound.metrics = Some(local(&listener, address)?);
                Some(listener)
            }
            None => None,
        };
        let dns = match &config.dns {
            Some(dns) => Some(bind_dns(dns, &mut inherited, &mut offered, &mut bound.dns)?),
            None => None,
        };
        if let Some(path) = config.table.parent() {
            std::fs::create_dir_all(path).map_err(|source| StartProxy::MakeDirectory {
                path: path.to_owned(),
                source,
            })?;
        }
        let predecessor = inherited.predecessor();
        let longest = config.limits.feed_line_bytes;
        let (ledger, table) = match &predecessor {
            None => Ledger::open(&config.table, longest),
            Some(_) => Ledger::open_beside(&config.table, longest),
        };
        let feed = feed::bind(&config.feed).map_err(|source| StartProxy::BindFeed {
            path: config.feed.clone(),
            source,
        })?;
        let sessions = Keys::open(&config.session_keys, &config.zone, millis_now() / 1_000)?;
        let handover = feed::bind(&config.handover).map_err(|source| StartProxy::BindFeed {
            path: config.handover.clone(),
            source,
        })?;
        let elders = feed::bind(&config.elders).map_err(|source| StartProxy::BindFeed {
            path: config.elders.clone(),
            source,
        })?;
        let table = Arc::new(ArcSwap::from_pointee(table));
        let logs = logs::of_containers(&config, table.clone());
        let metrics_of_all = admin::Metrics::new();
        if let Some(dns) = &config.dns {
            metrics_of_all.add(dns.server.metrics());
        }
        let (journal, writer) = Journal::open(
            &config.access_log,
            config.limits.access_log_bytes,
            logs.clone(),
            metrics_of_all.container_log_lost.clone(),
            predecessor,
        )?;

        let (domains, lookups) = Domains::new(
            &config.resolvers,
            config.zone.clone(),
            table.clone(),
            metrics_of_all.domain_lookups.clone(),
        )?;

        let (stop, stopped) = watch::channel(false);
        let workers = config.workers.max(1);
        let https_port = config
            .public_https_port
            .or_else(|| bound.https.first().map(SocketAddr::port))
            .unwrap_or(443);
        let leaving = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared {
            clients: Arc::new(Clients::new(&config.limits)),
            table,
            changed: watch::Sender::new(()),
            fed: AtomicBool::new(false),
            metrics: metrics_of_all,
            https_port,
            journal,
            logs_router: logs.router(),
            logs,
            stopping: stopped.clone(),
            ledger: Mutex::new(ledger),
            sessions,
            attempts: Attempts::default(),
            lines: Arc::new(Lines::default()),
            uploads: Uploads::default(),
            asking: Arc::new(hooks::Asking::new()),
            wakes: Wakes::new(config.wake.clone()),
            activity: Arc::new(Activity::new()),
            domains: domains.clone(),
            leaving: leaving.clone(),
            config,
        });
        if let Some(acme) = &shared.config.certificates.acme {
            let scripts = Scripts::new(
                shared.config.zone.clone(),
                shared.table.clone(),
                shared.asking.clone(),
            );
            acme.plug(Arc::new(Entitlements {
                domains: domains.clone(),
                scripts,
            }));
        }
        feed::observe(&shared.table.load(), &shared);

        let mut threads = vec![writer];
        let (busy, idle) = mpsc::channel(1);
        for number in 0..workers {
            let sockets = sockets
                .iter()
                .map(|(scheme, socket)| Ok((*scheme, socket.try_clone()?)))
                .collect::<io::Result<Vec<_>>>()
                .map_err(StartProxy::Spawn)?;
            let (shared, tls, stopped) = (shared.clone(), tls.clone(), stopped.clone());
            let busy: mpsc::Sender<()> = busy.clone();
            threads.push(thread(format!("proxy-{number}"), move || {
                Box::pin(async move {
                    work(sockets, shared, tls, stopped).await;
                    drop(busy);
                })
            })?);
        }
        drop(busy);
        if let (Some(sockets), Some(dns)) = (dns, &shared.config.dns) {
            let (server, stopped) = (dns.server.clone(), stopped.clone());
            threads.push(thread("proxy-dns".into(), move || {
                Box::pin(answer_names(server, sockets, stopped))
            })?);
        }
        let (handed, handed_over) = watch::channel(false);
        let beside = Beside {
            feed,
            metrics,
            handover,
            elders,
            offered,
            handed,
            idle,
            lookups,
        };
        threads.push(thread("proxy-feed".into(), move || {
            Box::pin(keep_informed(beside, shared, stopped))
        })?);
        inherited.taken();
        info!(http = ?bound.http, https = ?bound.https, dns = ?bound.dns, workers, "the proxy listens");
        Ok(Proxy {
            bound,
            stop,
            threads,
            handed_over,
            leaving,
            domains,
        })
    }

    /// The custom domains, for whoever orders certificates for them.
    pub fn domains(&self) -> &Domains {
        &self.domains
    }

    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Until a successor has taken over the sockets.
    pub async fn handed_over(&self) {
        let mut handed_over = self.handed_over.clone();
        if handed_over.wait_for(|it| *it).await.is_err() {
            std::future::pending().await
        }
    }

    /// Where a successor serves: like [`Proxy::stop`], but nobody is hurried away. Connections
    /// that wait for a request are told to go with its answer, and whatever is under way has
    /// [`Limits::leave`].
    pub async fn leave(self) {
        self.leaving.store(true, Ordering::Release);
        self.stop().await;
    }

    /// Take no more connections, let requests under way end up to the drain limit, and return when
    /// everything is closed.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let name = thread.thread().name().unwrap_or_default().to_owned();
                if thread.join().is_err() {
                    warn!("the thread {name} panicked");
                }
            }
        });
        // It only fails where the runtime goes down, and then nobody waits.
        let _ = joined.await;
    }
}

/// Let this process open as many descriptors as it may: a connection takes one towards its client
/// and often two towards its kit, one of which is there to shut it down.
pub fn raise_descriptors(limits: &Limits) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        )
    {
        warn!(%error, "could not raise the limit of open descriptors");
        return;
    }
    let wanted = limits.connections as u64 * 3;
    if let Some(most) = maximum.filter(|&most| most < wanted) {
        warn!("{most} descriptors are allowed, {wanted} may be wanted: raise the hard limit");
    }
}

type Task = std::pin::Pin<Box<dyn Future<Output = ()>>>;

/// A thread with a runtime of its own that runs one task to its end.
fn thread(
    name: String,
    task: impl FnOnce() -> Task + Send + 'static,
) -> Result<JoinHandle<()>, StartProxy> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartProxy::Spawn)?;
    std::thread::Builder::new()
        .name(name)
        .spawn(move || runtime.block_on(task()))
        .map_err(StartProxy::Spawn)
}

fn listen(address: SocketAddr) -> Result<std::net::TcpListener, StartProxy> {
    let bind = || -> io::Result<std::net::TcpListener> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if address.is_ipv6() {
            // So that `[::]` and `0.0.0.0` can be listed side by side.
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|source| StartProxy::Listen { address, source })
}

fn local(listener: &std::net::TcpListener, address: SocketAddr) -> Result<SocketAddr, StartProxy> {
    listener
        .local_addr()
        .map_err(|source| StartProxy::Listen { address, source })
}

/// The sockets for names, of both transports at each address.
fn bind_dns(
    dns: &Dns,
    inherited: &mut Inherited,
    offered: &mut Vec<(Name, OwnedFd)>,
    bound: &mut Vec<SocketAddr>,
) -> Result<certs::dns::Sockets, StartProxy> {
    let mut sockets = certs::dns::Sockets::default();
    for &asked in &dns.listen {
        let name = |role| Name { role, asked };
        let tcp = match inherited.listener(&name(Role::DnsTcp)) {
            Some(tcp) => tcp,
            None => listen(asked)?,
        };
        let address = local(&tcp, asked)?;
        let udp = match inherited.datagrams(&name(Role::DnsUdp)) {
            Some(udp) => udp,
            None => bind_udp(address)?, // the same port where it was left open
        };
        let copies = (tcp.try_clone(), udp.try_clone());
        offered.push((
            name(Role::DnsTcp),
            copies.0.map_err(StartProxy::Spawn)?.into(),
        ));
        offered.push((
            name(Role::DnsUdp),
            copies.1.map_err(StartProxy::Spawn)?.into(),
        ));
        bound.push(address);
        sockets.tcp.push(tcp);
        sockets.udp.push(udp);
    }
    Ok(sockets)
}

fn bind_udp(address: SocketAddr) -> Result<std::net::UdpSocket, StartProxy> {
    let bind = || -> io::Result<std::net::UdpSocket> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        rustix::net::bind(&socket, &address)?;
        Ok(socket.into())
    };
    bind().map_err(|source| StartProxy::Listen { address, source })
}

/// Names have a thread of their own: a flood of questions for them takes none of the workers' time
/// but what the machine is short of.
async fn answer_names(
    server: Arc<certs::dns::Server>,
    sockets: certs::dns::Sockets,
    stopped: watch::Receiver<bool>,
) {
    if let Err(error) = server.serve(sockets, stopped).await {
        warn!(%error, "the name server could not start");
    }
}

/// What is served beside the workers.
struct Beside {
    feed: std::os::unix::net::UnixListener,
    metrics: Option<std::net::TcpListener>,
    handover: std::os::unix::net::UnixListener,
    elders: std::os::unix::net::UnixListener,
    offered: Vec<(Name, OwnedFd)>,
    handed: watch::Sender<bool>,
    /// Ends when no worker has anything open.
    idle: mpsc::Receiver<()>,
    lookups: Option<Lookups>,
}

/// For what there is for the logs to be brought to disk, before a successor writes them.
const RESIGNING: Duration = Duration::from_secs(5);

/// The feed, the metrics and a successor's wish, beside the workers. What goes on while they drain
/// is held against the rules until its end.
async fn keep_informed(beside: Beside, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let Beside { mut idle, .. } = beside;
    let socket = |it: std::os::unix::net::UnixListener| {
        tokio::net::UnixListener::from_std(it).expect("the runtime takes sockets")
    };
    tokio::spawn(review(shared.clone()));
    let teller = shared.clone();
    tokio::spawn(async move { activity::tell(&teller).await });
    if let Some(lookups) = beside.lookups {
        tokio::spawn(lookups.run());
    }
    // These three are the newest proxy's alone.
    let mut serving = JoinSet::new();
    serving.spawn(feed::serve(socket(beside.feed), shared.clone()));
    serving.spawn(elders::serve(socket(beside.elders), shared.clone()));
    if let Some(metrics) = beside.metrics {
        let metrics = TcpListener::from_std(metrics).expect("the runtime takes sockets");
        serving.spawn(admin::serve(metrics, shared.clone()));
    }
    tokio::select! {
        successor = handover::offer(socket(beside.handover), beside.offered) => {
            serving.shutdown().await;
            let link = Link::new(shared.config.elders.clone());
            if timeout(RESIGNING, shared.journal.resign(link)).await.is_err() {
                warn!("the logs are not on disk yet; the successor writes beside them");
            }
            drop(successor);
            beside.handed.send_replace(true);
            tokio::spawn(async move { elders::follow(&shared).await });
            until_stopped(&mut stopped).await;
        }
        () = until_stopped(&mut stopped) => {}
    }
    let _ = idle.recv().await;
}

/// Between two looks at what has run out: keys of sessions, attempts that are forgiven.
const TIDY: Duration = Duration::from_secs(600);

/// End what the rules do not allow any more, and what has run out.
async fn review(shared: Arc<Shared>) {
    let mut tidied = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(lines::REVIEW).await;
        let now = millis_now();
        shared.lines.review(&shared.table.load(), now);
        shared.lines.end_silent(shared.config.limits.upstream);
        let held = shared.lines.ahead.held();
        shared.metrics.read_ahead.set(held as i64);
        let late = shared.uploads.review(shared.config.limits.body);
        let expired = &shared.metrics.expired;
        expired.with_label_values(&["body"]).inc_by(late);
        if tidied.elapsed() >= TIDY {
            tidied = tokio::time::Instant::now();
            shared.attempts.forget(now);
            if let Err(error) = shared.sessions.renew(now / 1_000) {
                warn!(cause = ?std::error::Error::source(&error), "{error}");
            }
        }
    }
}

/// Milliseconds since 1970.
pub fn millis_now() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed();
    since.map_or(0, |since| since.as_millis() as u64)
}

async fn until_stopped(stopped: &mut watch::Receiver<bool>) {
    // An error is a proxy that was dropped.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// What the connections of one worker share.
struct Worker {
    http: Arc<HttpProxy<Gateway>>,
    shared: Arc<Shared>,
    tls: Arc<Tls>,
    stopped: watch::Receiver<bool>,
    open: AtomicUsize,
    /// Those of them that are tunnels on their own.
    tunnels: AtomicUsize,
    closed: Notify,
    /// Tunnels have to end, and are told so.
    ending: AtomicBool,
    end: Notify,
}

async fn work(
    sockets: Vec<(Scheme, std::net::TcpListener)>,
    shared: Arc<Shared>,
    tls: Arc<Tls>,
    mut stopped: watch::Receiver<bool>,
) {
    let worker = Arc::new(Worker {
        http: Arc::new(http(&shared)),
        shared,
        tls,
        stopped: stopped.clone(),
        open: AtomicUsize::new(0),
        tunnels: AtomicUsize::new(0),
        closed: Notify::new(),
        ending: AtomicBool::new(false),
        end: Notify::new(),
    });
    let accepting: Vec<_> = sockets
        .into_iter()
        .map(|(scheme, socket)| {
            let socket = TcpListener::from_std(socket).expect("the runtime takes sockets");
            tokio::spawn(accept(socket, scheme, worker.clone()))
        })
        .collect();
    until_stopped(&mut stopped).await;
    for task in accepting {
        task.abort();
    }
    if stopped.has_changed().is_err() {
        return;
    }
    let limits = &worker.shared.config.limits;
    let begun = tokio::time::Instant::now();
    let mut most = limits.drain;
    if worker.shared.leaving.load(Ordering::Acquire) {
        // A request may be on its way: a connection is told to go with its answer, and is cut off
        // only where it has waited as long as it may anyway.
        most = limits.leave;
        let _ = timeout(limits.keepalive.min(most), drained(&worker, &worker.open)).await;
    }
    worker.http.cleanup().await;
    let _ = timeout_at(begun + most, drained(&worker, &worker.open)).await;
    worker.ending.store(true, Ordering::Release);
    worker.end.notify_waiters();
    // Each of them takes no longer than that.
    let _ = timeout(2 * relay::CLOSING, drained(&worker, &worker.tunnels)).await;
}

async fn drained(worker: &Worker, open: &AtomicUsize) {
    while open.load(Ordering::Acquire) > 0 {
        worker.closed.notified().await;
    }
}

fn http(shared: &Arc<Shared>) -> HttpProxy<Gateway> {
    let limits = &shared.config.limits;
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: limits.pool_size,
        max_retries: TRIES,
        // No upstream speaks TLS: trust nobody, and read no certificates of the machine.
        ca_file: Some("/dev/null".into()),
        ..ServerConf::default()
    };
    let mut http = HttpProxy::new(Gateway::new(shared.clone()), Arc::new(conf));
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(limits.keepalive);
    // WebSockets over HTTP/2 begin with it; the gateway refuses it for everything else.
    options.allow_connect_method_proxying = true;
    http.server_options = Some(options);
    let mut h2 = default_h2_options();
    h2.initial_window_size(H2_STREAM_WINDOW);
    h2.initial_connection_window_size(H2_CONNECTION_WINDOW);
    h2.enable_connect_protocol();
    http.h2_options = Some(h2);
    // No modules: Pingora's own, which would compress answers, is made for each request only to
    // find that it is switched off.
    http
}

async fn accept(socket: TcpListener, scheme: Scheme, worker: Arc<Worker>) {
    let Worker { shared, .. } = &*worker;
    let label = match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    loop {
        let (stream, client) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        shared.metrics.accepted.with_label_values(&[label]).inc();
        let nameless = match shared.clients.connect() {
            Ok(nameless) => nameless,
            Err(full) => {
                shared.dropped(full.reason());
                continue;
            }
        };
        let open = Open::new(worker.clone());
        let sender = shared.config.senders.iter();
        if sender.clone().any(|it| it.contains(client.ip())) {
            tokio::spawn(Box::pin(async move {
                if let Some(served) = serve_for(stream, client, scheme, nameless, &open.0).await {
                    tokio::spawn(go_on(served, open));
                }
            }));
            continue;
        }
        match nameless.of(client.ip()) {
            Ok(permit) => {
                tokio::spawn(Box::pin(async move {
                    let stream = buffered(stream);
                    if let Some(served) = serve(stream, client, scheme, permit, &open.0).await {
                        // In a task of its own, which is a small one.
                        tokio::spawn(go_on(served, open));
                    }
                }));
            }
            Err(full) => shared.dropped(full.reason()),
        }
    }
}

/// Counts a connection while it lives.
struct Open(Arc<Worker>);

impl Open {
    fn new(worker: Arc<Worker>) -> Open {
        worker.open.fetch_add(1, Ordering::AcqRel);
        worker.shared.metrics.connections.inc();
        Open(worker)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.shared.metrics.connections.dec();
        self.0.closed.notify_one();
    }
}

/// Serve a client that a load balancer speaks for.
async fn serve_for(
    socket: TcpStream,
    sender: SocketAddr,
    scheme: Scheme,
    nameless: Nameless,
    worker: &Worker,
) -> Option<Served> {
    let shared = &worker.shared;
    let mut socket = buffered(socket);
    let told = timeout(shared.config.limits.handshake, sender::read(&mut socket)).await;
    let client = match told {
        Ok(Ok(client)) => client.unwrap_or(sender),
        Ok(Err(_)) => {
            shared.dropped("sender_malformed");
            return None;
        }
        Err(_) => {
            shared.dropped("sender_slow");
            return None;
        }
    };
    match nameless.of(client.ip()) {
        Ok(permit) => serve(socket, client, scheme, permit, worker).await,
        Err(full) => {
            shared.dropped(full.reason());
            None
        }
    }
}

/// A connection that Pingora has done its part for, and that goes on as a tunnel.
struct Served {
    connection: Arc<Connection>,
    tunnel: Tunnel,
}

async fn serve(
    mut socket: Socket,
    client: SocketAddr,
    scheme: Scheme,
    permit: ConnectionPermit,
    worker: &Worker,
) -> Option<Served> {
    keep_alive(socket.get_ref()).ok()?;
    let shared = &worker.shared;
    let known =
        |secured, h2| Arc::new(Connection::new(client, secured, permit, h2, shared.clone()));
    let (stream, connection) = match scheme {
        Scheme::Http => {
            let told = timeout(shared.config.limits.headers, frames::sniff(&mut socket)).await;
            let (h2, taken) = match told {
                Ok(told) => told.ok()?,
                Err(_) => {
                    let expired = &shared.metrics.expired;
                    expired.with_label_values(&["headers"]).inc();
                    return None;
                }
            };
            let connection = known(None, h2);
            (Stream::plain(socket, taken, connection.clone()), connection)
        }
        Scheme::Https => match worker.tls.accept(socket, client.ip()).await {
            Ok((stream, secured)) => {
                let h2 = secured.h2;
                let connection = known(Some(secured), h2);
                (Stream::tls(stream, connection.clone()), connection)
            }
            Err(NoHandshake::Plain(socket)) => {
                shared.dropped("handshake_plain");
                say_https(*socket).await;
                return None;
            }
            Err(fault) => {
                shared.dropped(&format!("handshake_{}", fault.reason()));
                return None;
            }
        },
    };
    worker
        .http
        .process_new(Box::new(stream), &worker.stopped)
        .await;
    let tunnel = connection.passage.take()?;
    Some(Served { connection, tunnel })
}

/// A tunnel on its own, to its end.
async fn go_on(served: Served, open: Open) {
    let worker = &*open.0;
    let shared = &worker.shared;
    let _counted = Counted::new(worker);
    // Its permit is given back with it.
    let Served { connection, tunnel } = served;
    let Tunnel {
        client,
        kit,
        mut account,
    } = tunnel;
    let kept = [kit.kept, client.unread].concat();
    let limits = &shared.config.limits;
    let patience = Patience {
        quiet: limits.tunnel,
        send: limits.send,
    };
    let boundaries = account.boundaries.take();
    let mut relay = Relay::new(client.transport, kit.stream, kept, boundaries, patience);
    let container = account.container();
    let cut = || {
        let cut = account.line.as_ref().and_then(|line| line.cut_for());
        cut.map(|why| match why {
            End::Rules | End::Way => Close::Forbidden,
            End::Gone => Close::Gone,
        })
    };
    // The reviewer may have cut the line after it was last looked at.
    let lost = || {
        cut().or_else(|| {
            let table = shared.table.load();
            let place = table.places.get(&container?);
            let runs = place.is_some_and(|it| it.state == State::Running);
            (!runs).then_some(Close::Gone)
        })
    };
    let mut end = std::pin::pin!(worker.end.notified());
    let mut watched = false;
    let passed = std::future::poll_fn(|cx| {
        if !watched {
            watched = true;
            // Whoever waits is told, and whoever comes later sees the flag.
            let _ = end.as_mut().poll(cx);
            if let Some(line) = &account.line {
                line.watch(cx.waker());
            }
        }
        let stopping = worker.ending.load(Ordering::Acquire);
        let close = cut().or(stopping.then_some(Close::Stopping));
        relay.poll(cx, close, &lost)
    })
    .await;
    drop(relay);
    account.add(passed, shared);
    account.close(shared);
    drop(connection);
}

/// Counts a tunnel while it lives.
struct Counted<'a>(&'a Worker);

impl Counted<'_> {
    fn new(worker: &Worker) -> Counted<'_> {
        worker.tunnels.fetch_add(1, Ordering::AcqRel);
        Counted(worker)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.tunnels.fetch_sub(1, Ordering::AcqRel);
        self.0.closed.notify_one();
    }
}

/// For somebody who speaks HTTP where HTTPS is spoken to take the answer and go.
const FAREWELL: Duration = Duration::from_secs(2);
/// What is read of what it sends meanwhile: a connection that is closed on unread bytes may take
/// the answer with it.
const FAREWELL_BYTES: u64 = 64 << 10;

async fn say_https(mut socket: Socket) {
    let refusal = Refusal::BadRequest("this port speaks HTTPS: ask with https://");
    let answer = refusal.answer(Audience::Kit).message();
    let said = async {
        socket.write_all(&answer).await?;
        socket.shutdown().await?;
        let mut rest = socket.take(FAREWELL_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // A client that is gone needs no answer.
    let _ = timeout(FAREWELL, said).await;
}

impl Shared {
    /// Count a connection that was closed unserved.
    fn dropped(&self, reason: &str) {
        self.metrics.dropped.with_label_values(&[reason]).inc();
    }
}

fn keep_alive(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, TCP_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, TCP_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, TCP_PROBES)?;
    Ok(())
}
