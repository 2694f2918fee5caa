//! The sockets of the name server, and the challenges that come and go.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IoSliceMut, PipeReader};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use super::answer::{Answer, Transport, answer};
use super::limit::{Limiter, Limits, Verdict, network};
use super::shown::Shown as Kept;
use super::zone::{BadZone, Challenges, ZoneSettings, Zones, key, name};
use crate::challenge::{ChallengeError, DnsChallenge};
use crate::clock::Clock;
use crate::{Error, chain};

/// What one receive may bring: the kernel hands datagrams of one client over together.
const RECEIVE_BYTES: usize = 64 << 10;
/// Datagrams that are served between two looks whether that is to end.
const TURN: usize = 8 * BATCH_SIZE;
/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Before the question of a message (RFC 1035, section 4.1.1).
const HEADER_BYTES: usize = 12;
/// For connections to have their answers when the server ends.
const DRAIN: Duration = Duration::from_secs(2);

/// An authoritative name server. It also answers its own DNS-01 challenges: they are visible as
/// soon as they are presented.
///
/// Challenges live as long as the order that wants them: in memory, or in a file that other
/// processes follow ([`Server::shown_in`]).
pub struct Server {
    settings: Vec<ZoneSettings>,
    zones: ArcSwap<Zones>,
    shown: Mutex<Shown>,
    kept: Option<Kept>,
    clock: Box<dyn Clock>,
    limits: Limits,
    limiter: Limiter,
    connections: Mutex<Connections>,
    started: Instant,
    counters: Counters,
}

#[derive(Clone)]
struct Shown {
    challenges: Challenges,
    /// Who certifies names of the zones that do not say so themselves.
    issuers: Vec<String>,
    serial: u32,
}

/// Open connections by the network they come from.
#[derive(Default)]
struct Connections {
    all: usize,
    by_network: HashMap<u128, u32>,
}

/// Where the server listens.
#[derive(Debug, Default)]
pub struct Sockets {
    pub udp: Vec<UdpSocket>,
    pub tcp: Vec<TcpListener>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origins = self.settings.iter().map(|zone| &zone.origin);
        f.debug_list().entries(origins).finish()
    }
}

impl Server {
    /// A server for these zones; nothing listens yet.
    pub fn new(
        settings: Vec<ZoneSettings>,
        limits: Limits,
        clock: impl Clock + 'static,
    ) -> Result<Server, BadZone> {
        let challenges = Challenges::new();
        let serial = next_serial(0, clock.now());
        let zones = Zones::build(&settings, &challenges, serial)?;
        Ok(Server {
            zones: ArcSwap::from_pointee(zones),
            shown: Mutex::new(Shown {
                challenges,
                issuers: Vec::new(),
                serial,
            }),
            kept: None,
            clock: Box::new(clock),
            limiter: Limiter::new(&limits),
            connections: Mutex::default(),
            started: Instant::now(),
            counters: Counters::new(),
            settings,
            limits,
        })
    }

    /// Keep challenges in a directory, and show those that other processes put there.
    pub fn shown_in(mut self, directory: &Path) -> Result<Server, Error> {
        self.kept = Some(Kept::open(directory)?);
        self.follow();
        Ok(self)
    }

    /// Say who certifies names of the zones (CAA), from now on, where their settings do not. What
    /// is no name is left out: a record that nobody understands would keep everybody away.
    pub fn certified_by(&self, issuers: &[String]) {
        let is_name = |issuer: &&String| {
            let good = name(issuer).is_ok();
            if !good {
                warn!("`{issuer}` is said to certify the names of this node, and is no name");
            }
            good
        };
        let issuers: Vec<String> = issuers.iter().filter(is_name).cloned().collect();
        let mut shown = lock(&self.shown);
        if shown.issuers != issuers {
            let fresh = Shown {
                issuers,
                ..shown.clone()
            };
            if let Err(bad) = self.show(&mut shown, fresh) {
                warn!(error = chain(&bad), "could not say who certifies the names");
            }
        }
    }

    /// The zones that this server answers for.
    pub fn settings(&self) -> &[ZoneSettings] {
        &self.settings
    }

    /// What is counted, for a registry.
    pub fn metrics(&self) -> Box<dyn Collector> {
        Box::new(self.counters.clone())
    }

    /// What is said to a message of `client`; nothing where it is to be silent.
    pub fn respond(&self, request: &[u8], client: IpAddr, transport: Transport) -> Option<Vec<u8>> {
        if asks_for_challenge(request) {
            self.follow();
        }
        let answer = match answer(&self.zones.load(), request, transport) {
            Ok(answer) => answer,
            Err(silence) => {
                self.counters.dropped(silence.reason());
                return None;
            }
        };
        self.counters.answered(&answer);
        if transport == Transport::Tcp {
            return Some(answer.bytes); // who is told is who asked
        }
        let now = self.started.elapsed().as_micros() as u64;
        match self.limiter.ask(client, answer.class, now) {
            Verdict::Send => Some(answer.bytes),
            Verdict::Shorten => {
                self.counters.limited("shortened");
                Some(answer.shortened())
            }
            Verdict::Drop => {
                self.counters.limited("dropped");
                None
            }
        }
    }

    /// Answer until `stopped` says so or its sender is gone. A question takes microseconds, so that
    /// TCP is on the runtime of one thread; each socket for UDP has a thread of its own.
    pub async fn serve(
        self: Arc<Self>,
        sockets: Sockets,
        mut stopped: watch::Receiver<bool>,
    ) -> io::Result<()> {
        // Ends the threads, also where this future is dropped.
        let (ends, end) = io::pipe()?;
        let (mut receiving, mut accepting) = (JoinSet::new(), JoinSet::new());
        for socket in sockets.udp {
            socket.set_nonblocking(true)?;
            let state = UdpSocketState::new((&socket).into())?;
            let (server, ends) = (self.clone(), ends.try_clone()?);
            receiving.spawn_blocking(move || server.serve_udp(&socket, &state, &ends));
        }
        for listener in sockets.tcp {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            accepting.spawn(self.clone().serve_tcp(listener, stopped.clone()));
        }
        info!(zones = ?self, "the name server answers");
        until(&mut stopped).await;
        drop(end);
        // Nothing is lost: what was received is answered before the thread looks for the end.
        receiving.join_all().await;
        let drained = timeout(DRAIN, accepting.join_all()).await;
        if drained.is_err() {
            info!("connections for names were cut off");
        }
        Ok(())
    }

    /// Answer datagrams until the other end of `ends` is closed. By a thread that waits for nothing
    /// but its socket: whoever asked is woken with the answer, and runs when this sleeps again,
    /// which is sooner than a runtime would let it.
    fn serve_udp(&self, socket: &UdpSocket, state: &UdpSocketState, ends: &PipeReader) {
        let mut space = vec![[0_u8; RECEIVE_BYTES]; BATCH_SIZE];
        loop {
            let mut waits = [
                PollFd::new(socket, PollFlags::IN),
                PollFd::new(ends, PollFlags::IN),
            ];
            match poll(&mut waits, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    warn!(%error, "a socket of the name server cannot be waited for");
                    std::thread::sleep(ACCEPT_PAUSE);
                }
            }
            if !waits[1].revents().is_empty() {
                return;
            }
            let mut served = 0;
            while served < TURN {
                let mut metas = [RecvMeta::default(); BATCH_SIZE];
                let mut buffers = space.iter_mut().map(|buffer| IoSliceMut::new(buffer));
                let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
                    std::array::from_fn(|_| buffers.next().expect("there is one for each"));
                let got = match state.recv(socket.into(), &mut buffers, &mut metas) {
                    Ok(got) => got,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => {
                        // Such as an ICMP error for an earlier answer: the next one is fine.
                        self.counters.dropped("socket");
                        break;
                    }
                };
                served += got;
                for (meta, buffer) in metas.iter().zip(&space).take(got) {
                    let datagrams = buffer[..meta.len].chunks(meta.stride.max(1));
                    for datagram in datagrams {
                        self.reply_udp(socket, state, datagram, meta);
                    }
                }
            }
        }
    }

    /// Answer from the address that was asked, also where the socket is bound to all.
    fn reply_udp(
        &self,
        socket: &UdpSocket,
        state: &UdpSocketState,
        datagram: &[u8],
        meta: &RecvMeta,
    ) {
        if meta.addr.port() == 0 {
            return self.counters.dropped("port");
        }
        let client = meta.addr.ip();
        let Some(reply) = self.respond(datagram, client, Transport::Udp) else {
            return;
        };
        let transmit = Transmit {
            destination: meta.addr,
            ecn: None,
            contents: &reply,
            segment_size: None,
            src_ip: meta.dst_ip,
        };
        // A full buffer loses the answer, as the network might; nobody is waited for.
        if state.try_send(socket.into(), &transmit).is_err() {
            self.counters.dropped("unsent");
        }
    }

    async fn serve_tcp(
        self: Arc<Self>,
        listener: tokio::net::TcpListener,
        stopped: watch::Receiver<bool>,
    ) {
        let mut talks = JoinSet::new();
        let mut told = stopped.clone();
        loop {
            let accepted = tokio::select! {
                () = until(&mut told) => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, client) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "the name server could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            while talks.try_join_next().is_some() {}
            let Some(place) = Place::take(&self, client) else {
                self.counters.dropped("connections");
                continue;
            };
            let (server, stopped) = (self.clone(), stopped.clone());
            talks.spawn(async move {
                // A client that leaves is none of our business.
                let _ = server.converse(stream, client, stopped).await;
                drop(place);
            });
        }
        drop(listener);
        talks.join_all().await;
    }

    /// Questions of a connection, one after another (RFC 7766).
    async fn converse(
        &self,
        mut stream: TcpStream,
        client: SocketAddr,
        stopped: watch::Receiver<bool>,
    ) -> io::Result<()> {
        stream.set_nodelay(true)?;
        for _ in 0..self.limits.questions {
            let question = timeout(self.limits.idle, self.read(&mut stream));
            let Ok(question) = question.await else {
                self.counters.dropped("slow");
                return Ok(());
            };
            let Some(reply) = self.respond(&question?, client.ip(), Transport::Tcp) else {
                return Ok(()); // no question: whatever this is, it is not DNS
            };
            let mut framed = Vec::with_capacity(reply.len() + 2);
            framed.extend((reply.len() as u16).to_be_bytes());
            framed.extend(reply);
            timeout(self.limits.send, stream.write_all(&framed)).await??;
            if *stopped.borrow() {
                return Ok(()); // a successor takes the next ones
            }
        }
        Ok(())
    }

    async fn read(&self, stream: &mut TcpStream) -> io::Result<Vec<u8>> {
        let length = usize::from(stream.read_u16().await?);
        if length > self.limits.message_bytes {
            self.counters.dropped("long");
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut question = vec![0; length];
        stream.read_exact(&mut question).await?;
        Ok(question)
    }

    /// Change what is shown, and the zones with it.
    fn change(
        &self,
        verb: &'static str,
        at: &str,
        change: impl FnOnce(&mut Challenges, String) -> Result<bool, String>,
    ) -> Result<(), ChallengeError> {
        let failed = |why: String| ChallengeError {
            verb,
            name: at.to_owned(),
            why,
            is_passing: false,
        };
        let whole = name(at).map_err(|bad| failed(bad.to_string()))?;
        if self.zones.load().of(&key(&whole)).is_none() {
            return Err(failed(format!(
                "it is in no zone of this name server, which has {self:?}; delegate its zone to \
                 this machine, or show challenges another way"
            )));
        }
        let whole = whole.to_lowercase().to_ascii();
        let mut shown = lock(&self.shown);
        let challenges = match &self.kept {
            Some(kept) => kept
                .change(self.clock.now(), |challenges| {
                    change(challenges, whole).map_err(NoChange::Refused)
                })
                .map_err(|no| failed(chain(&no)))?,
            None => {
                let mut challenges = shown.challenges.clone();
                change(&mut challenges, whole).map_err(failed)?;
                challenges
            }
        };
        self.show_challenges(&mut shown, challenges)
            .map_err(|bad| failed(bad.to_string()))
    }

    /// Show what other processes put into the file since it was looked at.
    fn follow(&self) {
        let Some(kept) = &self.kept else { return };
        // Whoever holds it is changing it, and shows what is there in a moment.
        let Ok(mut shown) = self.shown.try_lock() else {
            return;
        };
        if let Some(challenges) = kept.changed(self.clock.now())
            && let Err(bad) = self.show_challenges(&mut shown, challenges)
        {
            warn!(error = chain(&bad), "could not show challenges");
        }
    }

    fn show_challenges(&self, shown: &mut Shown, challenges: Challenges) -> Result<(), BadZone> {
        if shown.challenges == challenges {
            return Ok(());
        }
        let fresh = Shown {
            challenges,
            ..shown.clone()
        };
        self.show(shown, fresh)
    }

    /// Answer with these from now on.
    fn show(&self, shown: &mut Shown, mut fresh: Shown) -> Result<(), BadZone> {
        fresh.serial = next_serial(shown.serial, self.clock.now());
        let mut settings = self.settings.clone();
        for zone in &mut settings {
            if zone.issuers.is_empty() {
                zone.issuers.clone_from(&fresh.issuers);
            }
        }
        let zones = Zones::build(&settings, &fresh.challenges, fresh.serial)?;
        self.zones.store(Arc::new(zones));
        *shown = fresh;
        Ok(())
    }
}

/// Why nothing was changed in the file.
#[derive(Debug, thiserror::Error)]
enum NoChange {
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Kept(#[from] Error),
}

/// Whether a message asks for a name that challenges stand at (RFC 8555, section 8.4).
fn asks_for_challenge(request: &[u8]) -> bool {
    const LABEL: &[u8] = b"\x0f_acme-challenge";
    let label = request.get(HEADER_BYTES..HEADER_BYTES + LABEL.len());
    label.is_some_and(|label| label.eq_ignore_ascii_case(LABEL))
}

#[async_trait]
impl DnsChallenge for Server {
    async fn present(&self, name: &str, value: &str) -> Result<(), ChallengeError> {
        let (values, values_per_name) = (self.limits.values, self.limits.values_per_name);
        self.change("present", name, |challenges, name| {
            if value.is_empty() || value.len() > usize::from(u8::MAX) {
                return Err(format!(
                    "a value has 1 to 255 bytes, this one {}",
                    value.len()
                ));
            }
            let all: usize = challenges.values().map(|values| values.len()).sum();
            let here = challenges.entry(name).or_default();
            if here.contains(value) {
                return Ok(false);
            }
            if all >= values || here.len() >= values_per_name {
                return Err(format!(
                    "too many are shown already: {} there, {all} in all",
                    here.len()
                ));
            }
            Ok(here.insert(value.to_owned()))
        })
    }

    async fn withdraw(&self, name: &str, value: &str) -> Result<(), ChallengeError> {
        self.change("withdraw", name, |challenges, name| {
            let Some(values) = challenges.get_mut(&name) else {
                return Ok(false);
            };
            let was_there = values.remove(value);
            if values.is_empty() {
                challenges.remove(&name);
            }
            Ok(was_there)
        })
    }
}

/// A serial that is newer than the last one, also where the clock was set back or a server starts
/// anew (RFC 1982: they may wrap).
fn next_serial(last: u32, now: SystemTime) -> u32 {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as u32;
    if last == 0 || seconds.wrapping_sub(last).wrapping_sub(1) < u32::MAX / 2 {
        seconds
    } else {
        last.wrapping_add(1)
    }
}

async fn until(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await; // an error is a sender that is gone
}

/// A connection's place among those that are open; given back when dropped.
struct Place {
    server: Arc<Server>,
    network: u128,
}

impl Place {
    fn take(server: &Arc<Server>, client: SocketAddr) -> Option<Place> {
        let network = network(client.ip());
        let mut open = lock(&server.connections);
        let of_client = open.by_network.get(&network).copied().unwrap_or_default();
        let too_many = of_client >= server.limits.connections_per_client
            && (server.limits.loopback || !client.ip().is_loopback());
        if too_many || open.all >= server.limits.connections {
            return None;
        }
        open.all += 1;
        open.by_network.insert(network, of_client + 1);
        server.counters.connections.set(open.all as i64);
        Some(Place {
            server: server.clone(),
            network,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = lock(&self.server.connections);
        open.all -= 1;
        if let Some(count) = open.by_network.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.by_network.remove(&self.network);
            }
        }
        self.server.counters.connections.set(open.all as i64);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Types that are told apart in the metrics; a stranger cannot make more of them.
const KINDS: [RecordType; 7] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::TXT,
    RecordType::SOA,
    RecordType::NS,
    RecordType::CAA,
    RecordType::ANY,
];
const CODES: [(ResponseCode, &str); 8] = [
    (ResponseCode::NoError, "NOERROR"),
    (ResponseCode::NXDomain, "NXDOMAIN"),
    (ResponseCode::Refused, "REFUSED"),
    (ResponseCode::FormErr, "FORMERR"),
    (ResponseCode::NotImp, "NOTIMP"),
    (ResponseCode::BADVERS, "BADVERS"),
    (ResponseCode::NotAuth, "NOTAUTH"),
    (ResponseCode::ServFail, "SERVFAIL"),
];

/// What happened, how often.
#[derive(Clone)]
struct Counters {
    queries: IntCounterVec,
    /// Of `queries`, by the places of type and code: found without a lock.
    each: Arc<[[IntCounter; CODES.len()]; KINDS.len() + 1]>,
    limited: IntCounterVec,
    dropped: IntCounterVec,
    connections: IntGauge,
}

impl Counters {
    fn new() -> Counters {
        let vec = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect("the names are valid")
        };
        let queries = vec(
            "dns_queries_total",
            "Questions answered.",
            &["type", "code"],
        );
        let each = std::array::from_fn(|kind| {
            std::array::from_fn(|code| {
                let kind = KINDS
                    .get(kind)
                    .map_or("other".to_owned(), ToString::to_string);
                queries.with_label_values(&[kind.as_str(), CODES[code].1])
            })
        });
        Counters {
            each: Arc::new(each),
            queries,
            limited: vec(
                "dns_limited_total",
                "Answers held back because a network had too many.",
                &["action"],
            ),
            dropped: vec(
                "dns_dropped_total",
                "Messages and connections that got no answer.",
                &["reason"],
            ),
            connections: IntGauge::new("dns_connections", "Open TCP connections for names.")
                .expect("the name is valid"),
        }
    }

    fn answered(&self, answer: &Answer) {
        let kind = answer
            .kind
            .and_then(|kind| KINDS.iter().position(|it| *it == kind));
        let code = CODES.iter().position(|(code, _)| *code == answer.code);
        if let Some(code) = code {
            self.each[kind.unwrap_or(KINDS.len())][code].inc();
        }
    }

    fn limited(&self, action: &str) {
        self.limited.with_label_values(&[action]).inc();
    }

    fn dropped(&self, reason: &str) {
        self.dropped.with_label_values(&[reason]).inc();
    }

    fn all(&self) -> [&dyn Collector; 4] {
        [
            &self.queries,
            &self.limited,
            &self.dropped,
            &self.connections,
        ]
    }
}

impl Collector for Counters {
    fn desc(&self) -> Vec<&Desc> {
        self.all().iter().flat_map(|each| each.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.all().iter().flat_map(|each| each.collect()).collect()
    }
}

#[cfg(test)]
mod tests;
