//! One connection of a client: what is known about it, and a stream that keeps its deadlines.
//!
//! Pingora reads headers without a deadline for the whole of them and ends a silent WebSocket
//! after a minute. So the stream keeps time by itself; the gateway tells it which part of a
//! request the connection is in:
//!
//! ```text
//!           first byte            headers read             answered
//!   Idle ───────────────▶ Headers ─────────────▶ Serving ───────────▶ Idle   (HTTP/1.1)
//!                                                   │ 101
//!                                                   ▼
//!                                                 Tunnel ──▶ out of Pingora (`passage`)
//! ```
//!
//! An HTTP/2 connection stays in `Serving` after its first request: its idle time is Pingora's
//! `h2_idle_timeout`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;

use crate::Shared;
use crate::config::Limits;
use crate::frames::{self, Flood, Frames};
use crate::limits::ConnectionPermit;
use crate::passage::{FromClient, Passage};
use crate::refusals::{Audience, Refusal};
pub use crate::socket::{Socket, buffered};
use crate::tls::Secured;

/// Times the headers that are allowed. Within it, they are read and refused with a reason.
const HEADERS_READ: usize = 2;
/// To say goodbye to a client that may be gone.
const GOODBYE: Duration = Duration::from_secs(2);

/// What is known about one connection, shared by its stream and the requests that come over it.
pub struct Connection {
    pub client: SocketAddr,
    /// The client's address as it is told to upstreams.
    pub client_text: HeaderValue,
    /// The handshake, where there was one.
    pub secured: Option<Secured>,
    pub permit: ConnectionPermit,
    /// The way out of Pingora, for a tunnel.
    pub passage: Arc<Passage>,
    /// Whether it may be read from while it sends a large body over HTTP/1.
    pub gate: Arc<Gate>,
    /// Whether it speaks HTTP/2, by ALPN or by its first bytes.
    pub h2: bool,
    /// The phase, and how often it has changed: `changes << 2 | phase`.
    phase: AtomicU64,
    shared: Arc<Shared>,
}

/// Keeps a client from being read while its kit does not take what was read before.
#[derive(Debug, Default)]
pub struct Gate {
    held: AtomicUsize,
    waiting: Mutex<Option<Waker>>,
}

/// Held for a kit, above which its client is not read.
const HELD_BYTES: usize = 64 << 10;

impl Gate {
    /// So much is held now.
    pub fn holds(&self, bytes: usize) {
        self.held.store(bytes, Ordering::Release);
        if bytes < HELD_BYTES
            && let Some(waiting) = self.lock().take()
        {
            waiting.wake();
        }
    }

    /// Whether to wait; whoever asks is woken then.
    fn is_shut(&self, cx: &Context<'_>) -> bool {
        if self.held.load(Ordering::Acquire) < HELD_BYTES {
            return false;
        }
        *self.lock() = Some(cx.waker().clone());
        self.held.load(Ordering::Acquire) >= HELD_BYTES
    }

    fn lock(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which part of a request a connection is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Idle = 0,
    Headers = 1,
    Serving = 2,
    Tunnel = 3,
}

impl Phase {
    /// A stable name for metrics.
    fn name(self) -> &'static str {
        match self {
            Phase::Idle => "idle",
            Phase::Headers => "headers",
            Phase::Serving => "serving",
            Phase::Tunnel => "tunnel",
        }
    }
}

impl Connection {
    pub fn new(
        client: SocketAddr,
        secured: Option<Secured>,
        permit: ConnectionPermit,
        h2: bool,
        shared: Arc<Shared>,
    ) -> Connection {
        let text = client.ip().to_canonical().to_string();
        Connection {
            client,
            client_text: HeaderValue::try_from(text).expect("an address is ASCII"),
            secured,
            permit,
            passage: Arc::default(),
            gate: Arc::default(),
            h2,
            // The first request has no time to idle in.
            phase: AtomicU64::new(Phase::Headers as u64),
            shared,
        }
    }

    fn limits(&self) -> &Limits {
        &self.shared.config.limits
    }

    fn enter(&self, phase: Phase) {
        // Only the task of the connection, or with HTTP/2 the first request, changes it.
        let changes = (self.phase.load(Ordering::Relaxed) >> 2) + 1;
        self.phase
            .store(changes << 2 | phase as u64, Ordering::Relaxed);
    }

    fn now(&self) -> (u64, Phase) {
        let word = self.phase.load(Ordering::Relaxed);
        let phase = match word & 3 {
            0 => Phase::Idle,
            1 => Phase::Headers,
            2 => Phase::Serving,
            _ => Phase::Tunnel,
        };
        (word, phase)
    }

    /// The headers of a request are here.
    pub fn serving(&self) {
        self.enter(Phase::Serving);
    }

    /// The request has been answered; another may follow.
    pub fn idle(&self) {
        self.enter(Phase::Idle);
    }

    /// The connection has become a tunnel.
    pub fn tunnel(&self) {
        self.passage.begin();
        self.enter(Phase::Tunnel);
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.secured.is_some() {
            "https"
        } else {
            "http"
        }
    }
}

/// The stream of a connection, as Pingora takes it.
pub struct Stream {
    /// What was read to learn what the connection speaks, until it is read again.
    taken: Vec<u8>,
    /// There until it is dropped.
    transport: Option<Transport>,
    /// Over HTTP/2, what passes.
    frames: Option<Box<Frames>>,
    /// Over HTTP/1, what has been read of the headers of this request.
    header_bytes: usize,
    connection: Arc<Connection>,
    timer: Pin<Box<Sleep>>,
    /// The phase that the timer was set for, as [`Connection::phase`] counts.
    timed: u64,
    /// Over HTTP/1, what is sent in place of Pingora's own words, and how much of it was.
    instead: Option<(Vec<u8>, usize)>,
    /// From when on the client's end of sending is passed on.
    ended: Option<Pin<Box<Sleep>>>,
    fd: RawFd,
    facts: Arc<ProxyDigest>,
    socket: Arc<SocketDigest>,
}

/// A client's socket, with or without TLS.
pub enum Transport {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Stream {
    /// `taken` has been read from the socket and comes first.
    pub fn plain(socket: Socket, taken: Vec<u8>, connection: Arc<Connection>) -> Stream {
        let fd = socket.get_ref().as_raw_fd();
        let mut stream = Stream::new(Transport::Plain(socket), fd, connection);
        stream.taken = taken;
        stream
    }

    pub fn tls(stream: Box<TlsStream<Socket>>, connection: Arc<Connection>) -> Stream {
        let fd = stream.get_ref().0.get_ref().as_raw_fd();
        Stream::new(Transport::Tls(stream), fd, connection)
    }

    fn new(transport: Transport, fd: RawFd, connection: Arc<Connection>) -> Stream {
        let blank = ResponseHeader::build(200, Some(0)).expect("200 is a status");
        let facts: Box<dyn std::any::Any + Send + Sync> = Box::new(connection.clone());
        let frames = connection
            .h2
            .then(|| Box::new(Frames::new(connection.limits())));
        Stream {
            taken: Vec::new(),
            transport: Some(transport),
            frames,
            header_bytes: 0,
            timer: Box::pin(tokio::time::sleep(connection.limits().headers)),
            timed: connection.phase.load(Ordering::Relaxed),
            instead: None,
            ended: None,
            fd,
            facts: Arc::new(ProxyDigest::new(Box::new(blank), Some(facts))),
            socket: Arc::new(SocketDigest::from_raw_fd(fd)),
            connection,
        }
    }

    fn transport(&mut self) -> Pin<&mut Transport> {
        let transport = self.transport.as_mut();
        Pin::new(transport.expect("it is there until it is dropped"))
    }

    /// Called while there is nothing to read: whether the client has used up its time.
    fn expired(&mut self, cx: &mut Context<'_>) -> bool {
        let (word, phase) = self.connection.now();
        let limit = match phase {
            Phase::Serving => return false,
            Phase::Idle => self.connection.limits().keepalive,
            Phase::Headers => self.connection.limits().headers,
            Phase::Tunnel => self.connection.limits().tunnel,
        };
        if self.timed != word {
            self.timed = word;
            self.timer.as_mut().reset(Instant::now() + limit);
        }
        let expired = self.timer.as_mut().poll(cx).is_ready();
        if expired {
            let counted = &self.connection.shared.metrics.expired;
            counted.with_label_values(&[phase.name()]).inc();
        }
        expired
    }

    /// These bytes came from the client; they may be the ones that are too many.
    fn received(&mut self, bytes: &[u8]) -> io::Result<()> {
        let flood = match &mut self.frames {
            Some(frames) => frames.received(bytes).err().map(Flood::reason),
            None => self.too_many_headers(bytes.len()).then_some("headers"),
        };
        let Some(reason) = flood else {
            return Ok(());
        };
        let floods = &self.connection.shared.metrics.floods;
        floods.with_label_values(&[reason]).inc();
        Err(io::Error::new(io::ErrorKind::QuotaExceeded, reason))
    }

    /// Whether headers go on beyond what is refused by name: Pingora would read a mebibyte.
    fn too_many_headers(&mut self, bytes: usize) -> bool {
        if self.connection.now().1 != Phase::Headers {
            self.header_bytes = 0;
            return false;
        }
        let limits = self.connection.limits();
        self.header_bytes += bytes;
        self.header_bytes > HEADERS_READ * (limits.header_bytes + limits.target_bytes)
    }

    /// Of these bytes so many went to the client.
    fn sent<'a>(&mut self, mut bytes: impl Iterator<Item = &'a [u8]>, mut count: usize) {
        let Some(frames) = &mut self.frames else {
            return;
        };
        while count > 0
            && let Some(part) = bytes.next()
        {
            let part = &part[..part.len().min(count)];
            if let Some(code) = frames.sent(part) {
                let faults = &self.connection.shared.metrics.h2_faults;
                faults.with_label_values(&[frames::fault(code)]).inc();
            }
            count -= part.len();
        }
    }

    /// What cannot be read as a request is refused by Pingora itself, before the gateway hears of
    /// it, and without a word. It gets one here: like all refusals, with a body that says what.
    fn mind(&mut self, bytes: &[u8]) {
        let connection = &self.connection;
        if self.instead.is_none()
            && !connection.h2
            && connection.now().1 == Phase::Headers
            && bytes.starts_with(b"HTTP/1.1 400 ")
        {
            let refusal = Refusal::BadRequest("its first line or its headers are malformed");
            let refusals = &connection.shared.metrics.refusals;
            refusals.with_label_values(&[refusal.code()]).inc();
            self.instead = Some((refusal.answer(Audience::Kit).message(), 0));
        }
    }

    /// Write what is said instead; then everything of Pingora's is passed over.
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some((answer, sent)) = &mut self.instead else {
            return Poll::Ready(Ok(()));
        };
        let transport = self.transport.as_mut();
        let transport = transport.expect("it is there until it is dropped");
        while *sent < answer.len() {
            let rest = &answer[*sent..];
            match ready!(Pin::new(&mut *transport).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *sent += count,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Called where the client sends no more. It may have left, or wait for its answer with its
    /// own direction closed (RFC 9112, section 9.6): which of both, nobody can tell until something
    /// is written. So the answer is given some time to come.
    fn awaits_answer(&mut self, cx: &mut Context<'_>) -> bool {
        let h2 = self.connection.h2;
        if h2 || self.connection.now().1 != Phase::Serving {
            return false;
        }
        let grace = self.connection.limits().half_close;
        let ended = self
            .ended
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(grace)));
        ended.as_mut().poll(cx).is_pending()
    }

    /// Something has passed.
    fn passed(&mut self) {
        if self.connection.now().1 == Phase::Idle {
            self.connection.enter(Phase::Headers);
            self.header_bytes = 0;
        }
    }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client was too slow")
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        // Pingora reads on only after it has passed on what it had.
        if !this.connection.h2 && this.connection.now().1 == Phase::Tunnel {
            this.connection.passage.client_is_ready(cx);
            return match this.expired(cx) {
                true => Poll::Ready(Err(too_slow())),
                false => Poll::Pending,
            };
        }
        if this.connection.gate.is_shut(cx) {
            return match this.expired(cx) {
                true => Poll::Ready(Err(too_slow())),
                false => Poll::Pending,
            };
        }
        if !this.taken.is_empty() {
            let part = this.taken.len().min(buf.remaining());
            buf.put_slice(&this.taken[..part]);
            this.taken.drain(..part);
            return Poll::Ready(this.received(&buf.filled()[before..]));
        }
        let read = this.transport().poll_read(cx, buf);
        match read {
            Poll::Pending if this.expired(cx) => Poll::Ready(Err(too_slow())),
            Poll::Ready(Ok(())) if buf.filled().len() > before => {
                this.passed();
                Poll::Ready(this.received(&buf.filled()[before..]))
            }
            Poll::Ready(Ok(())) if this.awaits_answer(cx) => Poll::Pending,
            _ => read,
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.mind(buf);
        if this.instead.is_some() {
            return this.poll_instead(cx).map_ok(|()| buf.len());
        }
        let written = this.transport().poll_write(cx, buf);
        if let Poll::Ready(Ok(count)) = written {
            this.sent(std::iter::once(buf), count);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().transport().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.connection.passage.is_out() {
            return Poll::Ready(Ok(()));
        }
        this.transport().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.mind(bufs.first().map_or(&[], |first| first));
        if this.instead.is_some() {
            let all = bufs.iter().map(|part| part.len()).sum();
            return this.poll_instead(cx).map_ok(|()| all);
        }
        let written = this.transport().poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(count)) = written {
            this.sent(bufs.iter().map(|part| &**part), count);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.transport
            .as_ref()
            .is_some_and(AsyncWrite::is_write_vectored)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let passage = &self.connection.passage;
        if let (true, Some(transport)) = (passage.is_out(), self.transport.take()) {
            passage.leave_client(FromClient {
                transport,
                unread: std::mem::take(&mut self.taken),
            });
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("client", &self.connection.client)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for Stream {
    async fn shutdown(&mut self) {
        // A client that is gone needs no goodbye.
        let _ = tokio::time::timeout(GOODBYE, AsyncWriteExt::shutdown(self)).await;
    }
}

impl UniqueID for Stream {
    fn id(&self) -> UniqueIDType {
        self.fd
    }
}

impl Ssl for Stream {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        Some(if self.connection.h2 {
            ALPN::H2
        } else {
            ALPN::H1
        })
    }
}

impl GetTimingDigest for Stream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Stream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.facts.clone())
    }
}

impl GetSocketDigest for Stream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.socket.clone())
    }
}

impl Peek for Stream {}
