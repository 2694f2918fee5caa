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
//!                                                 Tunnel
//! ```
//!
//! An HTTP/2 connection stays in `Serving` after its first request: its idle time is Pingora's
//! `h2_idle_timeout`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
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

use crate::config::Limits;
use crate::limits::ConnectionPermit;
pub use crate::socket::{Socket, buffered};
use crate::tls::Secured;

/// To say goodbye to a client that may be gone.
const GOODBYE: Duration = Duration::from_secs(2);

/// What is known about one connection, shared by its stream and the requests that come over it.
#[derive(Debug)]
pub struct Connection {
    pub client: SocketAddr,
    /// The client's address as it is told to upstreams.
    pub client_text: HeaderValue,
    /// The handshake, where there was one.
    pub secured: Option<Secured>,
    pub permit: ConnectionPermit,
    /// The phase, and how often it has changed: `changes << 2 | phase`.
    phase: AtomicU64,
    headers: Duration,
    keepalive: Duration,
    tunnel: Duration,
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

impl Connection {
    pub fn new(
        client: SocketAddr,
        secured: Option<Secured>,
        permit: ConnectionPermit,
        limits: &Limits,
    ) -> Connection {
        let text = client.ip().to_canonical().to_string();
        Connection {
            client,
            client_text: HeaderValue::try_from(text).expect("an address is ASCII"),
            secured,
            permit,
            // The first request has no time to idle in.
            phase: AtomicU64::new(Phase::Headers as u64),
            headers: limits.headers,
            keepalive: limits.keepalive,
            tunnel: limits.tunnel,
        }
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

    /// The connection has become a WebSocket.
    pub fn tunnel(&self) {
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
    transport: Transport,
    connection: Arc<Connection>,
    timer: Pin<Box<Sleep>>,
    /// The phase that the timer was set for, as [`Connection::phase`] counts.
    timed: u64,
    /// When something last passed, for a tunnel.
    active: Instant,
    fd: RawFd,
    facts: Arc<ProxyDigest>,
    socket: Arc<SocketDigest>,
}

enum Transport {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Stream {
    pub fn plain(socket: Socket, connection: Arc<Connection>) -> Stream {
        let fd = socket.get_ref().as_raw_fd();
        Stream::new(Transport::Plain(socket), fd, connection)
    }

    pub fn tls(stream: Box<TlsStream<Socket>>, connection: Arc<Connection>) -> Stream {
        let fd = stream.get_ref().0.get_ref().as_raw_fd();
        Stream::new(Transport::Tls(stream), fd, connection)
    }

    fn new(transport: Transport, fd: RawFd, connection: Arc<Connection>) -> Stream {
        let blank = ResponseHeader::build(200, Some(0)).expect("200 is a status");
        let facts: Box<dyn std::any::Any + Send + Sync> = Box::new(connection.clone());
        Stream {
            transport,
            timer: Box::pin(tokio::time::sleep(connection.headers)),
            timed: connection.phase.load(Ordering::Relaxed),
            active: Instant::now(),
            fd,
            facts: Arc::new(ProxyDigest::new(Box::new(blank), Some(facts))),
            socket: Arc::new(SocketDigest::from_raw_fd(fd)),
            connection,
        }
    }

    /// Called while there is nothing to read: whether the client has used up its time.
    fn expired(&mut self, cx: &mut Context<'_>) -> bool {
        let (word, phase) = self.connection.now();
        let limit = match phase {
            Phase::Serving => return false,
            Phase::Idle => self.connection.keepalive,
            Phase::Headers => self.connection.headers,
            Phase::Tunnel => self.connection.tunnel,
        };
        if self.timed != word {
            self.timed = word;
            self.active = Instant::now();
            self.timer.as_mut().reset(self.active + limit);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let quiet_until = self.active + limit;
            if phase != Phase::Tunnel || quiet_until <= Instant::now() {
                return true;
            }
            self.timer.as_mut().reset(quiet_until);
        }
        false
    }

    /// Something has passed.
    fn passed(&mut self) {
        match self.connection.now().1 {
            Phase::Idle => self.connection.enter(Phase::Headers),
            Phase::Tunnel => self.active = Instant::now(),
            Phase::Headers | Phase::Serving => {}
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        match read {
            Poll::Pending if this.expired(cx) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client was too slow",
            ))),
            Poll::Ready(Ok(())) if buf.filled().len() > before => {
                this.passed();
                read
            }
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
        let written = match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        if written.is_ready() && this.connection.now().1 == Phase::Tunnel {
            this.active = Instant::now();
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("connection", &self.connection)
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
        let secured = self.connection.secured.as_ref()?;
        Some(if secured.h2 { ALPN::H2 } else { ALPN::H1 })
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
