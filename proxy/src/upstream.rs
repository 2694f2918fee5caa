//! Connections to a container's kit and to control.
//!
//! The kit's socket lies in a directory that belongs to the container: anything in it may have
//! been replaced, at any moment, by anything. So the socket is opened beneath the directory
//! without following a link, looked at, and connected to through the very descriptor that was
//! looked at.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::connectors::L4Connect;
use pingora::http::ResponseHeader;
use pingora::protocols::ALPN;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{Digest, GetProxyDigest as _};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use routes::Id;
use routes::table::{KIT_SOCKET, Place};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;

use crate::ahead::{Ahead, Budget, PART_BYTES};
use crate::config::Limits;
use crate::connection::{Connection, Gate};
use crate::lines::{Line, Lines};
use crate::passage::{FromKit, Passage};
use crate::resolve::Destination;

/// Why a kit or control could not be connected to.
#[derive(Debug, thiserror::Error)]
pub enum NoConnection {
    #[error("could not open the directory of the socket")]
    OpenDirectory(#[source] rustix::io::Errno),
    #[error("could not open the socket beneath its directory")]
    OpenSocket(#[source] rustix::io::Errno),
    #[error("could not look at the socket")]
    Inspect(#[source] rustix::io::Errno),
    #[error("there is something else in the socket's place")]
    NotASocket,
    #[error("the socket belongs to user {0}, who is not the container's")]
    ForeignOwner(u32),
    #[error("could not connect to the socket")]
    Connect(#[source] io::Error),
}

impl NoConnection {
    /// A stable name for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            NoConnection::OpenDirectory(_) => "no_directory",
            NoConnection::OpenSocket(rustix::io::Errno::NOENT) => "no_socket",
            NoConnection::OpenSocket(_) => "socket_refused",
            NoConnection::Inspect(_) => "socket_unreadable",
            NoConnection::NotASocket => "not_a_socket",
            NoConnection::ForeignOwner(_) => "foreign_owner",
            NoConnection::Connect(_) => "connect_refused",
        }
    }
}

impl From<NoConnection> for Box<Error> {
    fn from(fault: NoConnection) -> Self {
        Error::because(
            ErrorType::Custom(fault.reason()),
            "connecting upstream",
            fault,
        )
        .into_up()
    }
}

/// Open the kit's socket in a place, so that whatever happens to the directory afterwards, the
/// descriptor is of a socket that one of the container's own users made.
pub fn open_kit(place: &Place) -> Result<OwnedFd, NoConnection> {
    let directory = rustix::fs::openat(
        CWD,
        &place.directory,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(NoConnection::OpenDirectory)?;
    let socket = rustix::fs::openat2(
        &directory,
        KIT_SOCKET,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV,
    )
    .map_err(NoConnection::OpenSocket)?;
    let found = rustix::fs::fstat(&socket).map_err(NoConnection::Inspect)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
        return Err(NoConnection::NotASocket);
    }
    if !place.owners.contains(found.st_uid) {
        return Err(NoConnection::ForeignOwner(found.st_uid));
    }
    Ok(socket)
}

/// A connection to the kit in a place, for a request of the proxy's own.
pub async fn dial(place: &Place) -> Result<UnixStream, NoConnection> {
    let socket = open_kit(place)?;
    // Through the descriptor, which stays open meanwhile.
    connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await
}

/// What to connect to. The address that Pingora is given means nothing.
#[derive(Debug)]
enum Target {
    Kit {
        place: Arc<Place>,
        watched: bool,
        lines: Arc<Lines>,
    },
    Control(PathBuf),
}

#[derive(Debug)]
struct Connector {
    target: Target,
    /// Of the client, for a request that may become a tunnel: see [`Patient`].
    passage: Option<Arc<Passage>>,
    /// Of the client, for a request whose body may fill all buffers: see [`Eager`].
    bulk: bool,
    gate: Option<Arc<Gate>>,
    budget: Arc<Budget>,
}

/// Whose budget control draws from: no container's.
const CONTROL: Id = Id([0; 12]);

#[async_trait]
impl L4Connect for Connector {
    async fn connect(&self, _: &PeerAddr) -> pingora::Result<Stream> {
        let (stream, line) = match &self.target {
            Target::Kit {
                place,
                watched,
                lines,
            } => {
                let stream = dial(place).await?;
                let line = lines
                    .add(&stream, place.container, *watched)
                    .map_err(NoConnection::Connect)?;
                (stream, line)
            }
            Target::Control(path) => {
                let stream = connect(path.clone()).await?;
                let line = Line::apart(&stream).map_err(NoConnection::Connect)?;
                (stream, line)
            }
        };
        let mut stream = if self.bulk {
            let container = match &self.target {
                Target::Kit { place, .. } => place.container,
                Target::Control(_) => CONTROL,
            };
            let ahead = Ahead::new(self.budget.clone(), container);
            let eager = Eager::new(stream, self.gate.clone(), ahead);
            Stream::from(VirtualSocketStream::new(Box::new(eager)))
        } else if let Some(passage) = &self.passage {
            let patient = Patient {
                stream: Some(stream),
                waited: false,
                ended: 0,
                kept: BytesMut::new(),
                passage: passage.clone(),
            };
            Stream::from(VirtualSocketStream::new(Box::new(patient)))
        } else {
            Stream::from(stream)
        };
        let blank = ResponseHeader::build(200, Some(0)).expect("200 is a status");
        stream.set_proxy_digest(ProxyDigest::new(Box::new(blank), Some(Box::new(line))));
        Ok(stream)
    }
}

/// The line of a connection to a kit or to control.
pub fn line(digest: &Digest) -> Option<&Arc<Line>> {
    let facts = digest.proxy_digest.as_ref()?.user_data.as_ref()?;
    facts.downcast_ref()
}

/// Between two tries while the queue of a listening socket is full; the caller bounds their sum.
const FULL_QUEUE: Duration = Duration::from_millis(10);

async fn connect(path: impl AsRef<std::path::Path>) -> Result<UnixStream, NoConnection> {
    loop {
        match UnixStream::connect(&path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(FULL_QUEUE).await;
            }
            done => return done.map_err(NoConnection::Connect),
        }
    }
}

/// The kit's end of what may become a tunnel; it is never reused.
///
/// Pingora, where it reads the answer to an upgrade at once, may close the tunnel that has just
/// been made (cloudflare/pingora#946): so others run once before the first read. And while it waits
/// to write to a kit it reads nothing from it, and could not be left: so what came with the request
/// and is not taken at once is kept here. Once the answer is with the client, both leave.
#[derive(Debug)]
struct Patient {
    stream: Option<UnixStream>,
    waited: bool,
    /// How often the kit was found to send no more.
    ended: u8,
    kept: BytesMut,
    passage: Arc<Passage>,
}

/// For Pingora to look at an answer that has been read: its two halves take turns in being the
/// first.
const TURNS: u8 = 2;
/// Kept for a kit at most: what a client may send with the headers of its request.
const KEPT_BYTES: usize = 1 << 20;
/// For a kit to take what is left of a tunnel that has ended.
const LAST_WORDS: Duration = Duration::from_secs(10);

impl Patient {
    fn socket(&mut self) -> Pin<&mut UnixStream> {
        Pin::new(
            self.stream
                .as_mut()
                .expect("it is there until it is dropped"),
        )
    }

    /// Pass on what is kept, as far as it is taken.
    fn drive(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.kept.is_empty() {
            let stream = self
                .stream
                .as_mut()
                .expect("it is there until it is dropped");
            match Pin::new(stream).poll_write(cx, &self.kept) {
                Poll::Ready(written) => self.kept.advance(written?),
                Poll::Pending => break,
            }
        }
        Ok(())
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else {
            return;
        };
        let kept = Vec::from(std::mem::take(&mut self.kept));
        if self.passage.is_out() {
            return self.passage.leave_kit(FromKit { stream, kept });
        }
        let runtime = tokio::runtime::Handle::try_current();
        if let (false, Ok(runtime)) = (kept.is_empty(), runtime) {
            runtime.spawn(async move {
                // A kit that has gone misses nothing.
                let _ = tokio::time::timeout(LAST_WORDS, stream.write_all(&kept)).await;
            });
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.waited {
            self.waited = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.passage.kit_may_leave() {
            return Poll::Ready(Ok(()));
        }
        self.drive(cx)?;
        let before = buf.filled().len();
        ready!(self.socket().poll_read(cx, buf))?;
        if buf.filled().len() > before {
            return Poll::Ready(Ok(()));
        }
        // A kit may send no more and still be told something: that is for a tunnel to see, once
        // the answer that it sent before has made one.
        if self.ended < TURNS {
            self.ended += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.passage.is_begun() {
            true => Poll::Pending,
            false => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.drive(cx)?;
        if self.kept.is_empty()
            && let Poll::Ready(written) = self.socket().poll_write(cx, buf)
        {
            return Poll::Ready(written);
        }
        let room = KEPT_BYTES.saturating_sub(self.kept.len()).min(buf.len());
        if room == 0 && !buf.is_empty() {
            return Poll::Pending;
        }
        self.kept.extend_from_slice(&buf[..room]);
        Poll::Ready(Ok(room))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.drive(cx)?;
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.passage.is_out() {
            return Poll::Ready(Ok(()));
        }
        self.drive(cx)?;
        if !self.kept.is_empty() {
            return Poll::Pending;
        }
        self.socket().poll_shutdown(cx)
    }
}

impl VirtualSocket for Patient {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

/// The kit's end of a request with a large body; it is not reused, as Pingora's pool knows the
/// connections in it by their descriptors.
///
/// While Pingora waits to write to a kit it reads nothing from it. A kit that answers while it is
/// still asked, and reads on when its answer is taken, would wait for ever. So while it takes
/// nothing, what it says is read into memory, up to the bounds of [`crate::ahead`]: once they are
/// met, it goes on when Pingora asks again. That stays far from it: over HTTP/1.1
/// the client is not read from meanwhile ([`Gate`]), and over HTTP/2 it sends in frames, of which
/// Pingora takes one for every four times as much of the answer.
#[derive(Debug)]
struct Eager {
    stream: UnixStream,
    gate: Option<Arc<Gate>>,
    ahead: Ahead,
    /// Why nothing more is read ahead: said when what was read is taken.
    fault: Option<io::Error>,
    ended: bool,
}

impl Eager {
    fn new(stream: UnixStream, gate: Option<Arc<Gate>>, ahead: Ahead) -> Eager {
        Eager {
            stream,
            gate,
            ahead,
            fault: None,
            ended: false,
        }
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        let mut part = [0; PART_BYTES];
        while !self.ended {
            let room = self.ahead.room();
            if room == 0 {
                break;
            }
            let mut part = ReadBuf::new(&mut part[..room]);
            match Pin::new(&mut self.stream).poll_read(cx, &mut part) {
                Poll::Pending => break,
                Poll::Ready(Err(fault)) => (self.fault, self.ended) = (Some(fault), true),
                Poll::Ready(Ok(())) if part.filled().is_empty() => self.ended = true,
                Poll::Ready(Ok(())) => {
                    self.ahead.put(part.filled());
                    self.tell();
                }
            }
        }
        self.ahead.rest();
    }

    /// Say how much is held.
    fn tell(&self) {
        if let Some(gate) = &self.gate {
            gate.holds(self.ahead.len());
        }
    }
}

impl Drop for Eager {
    fn drop(&mut self) {
        if let Some(gate) = &self.gate {
            gate.holds(0);
        }
    }
}

impl AsyncRead for Eager {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            self.ahead.take(buf);
            self.tell();
            return Poll::Ready(Ok(()));
        }
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Err(fault));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Eager {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if written.is_pending() {
            self.read_ahead(cx);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl VirtualSocket for Eager {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

/// An address that Pingora takes as equal to that of any open connection: what a connection may
/// be reused for, the group key says alone.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1);

/// How a request goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Manner {
    /// Over HTTP/1.1.
    Plain,
    /// The same over a connection of its own, with a body that may be larger than the buffers on
    /// its way: see [`Eager`].
    Bulk,
    /// Over HTTP/1.1, to leave it.
    Upgrade,
    /// Over HTTP/2: it ends with trailers, or is itself a stream in both directions.
    Streams,
}

/// Streams of one HTTP/2 connection to a kit. Each may hold a window full of what its reader does
/// not take, and the connection has room for all of them: a slow reader holds up itself alone.
const H2_STREAMS: usize = 16;
const H2_WINDOW: u32 = 128 << 10;

/// The peer for a destination; `watched` for a request that may be ended before it is over.
pub fn peer(
    destination: &Destination,
    manner: Manner,
    client: Option<&Connection>,
    watched: bool,
    lines: &Arc<Lines>,
    control: &std::path::Path,
    limits: &Limits,
) -> Box<HttpPeer> {
    let target = match destination {
        Destination::Kit { place, .. } => Target::Kit {
            place: place.clone(),
            watched,
            lines: lines.clone(),
        },
        Destination::Control { .. } => Target::Control(control.to_owned()),
    };
    let mut peer = HttpPeer::new(NOWHERE, false, String::new());
    peer.group_key = group(destination, manner, watched);
    let options = &mut peer.options;
    options.custom_l4 = Some(Arc::new(Connector {
        target,
        passage: client
            .filter(|_| manner == Manner::Upgrade)
            .map(|client| client.passage.clone()),
        bulk: manner == Manner::Bulk,
        // Over HTTP/2 a client is never held up as a whole.
        gate: client
            .filter(|client| manner == Manner::Bulk && !client.h2)
            .map(|client| client.gate.clone()),
        budget: lines.ahead.clone(),
    }));
    options.connection_timeout = Some(limits.connect);
    options.total_connection_timeout = Some(limits.connect);
    options.read_timeout = match (manner, destination) {
        // The line is reviewed: see `crate::silence`.
        (Manner::Plain | Manner::Bulk, Destination::Kit { .. }) => None,
        (Manner::Plain | Manner::Bulk, Destination::Control { .. }) => Some(limits.upstream),
        (Manner::Upgrade | Manner::Streams, _) => Some(limits.tunnel),
    };
    if manner == Manner::Streams {
        options.alpn = ALPN::H2;
        // What may have to be cut off has a connection to itself.
        options.max_h2_streams = if watched { 1 } else { H2_STREAMS };
        options.h2_stream_window_size = Some(H2_WINDOW);
        options.h2_connection_window_size = Some(H2_WINDOW * H2_STREAMS as u32);
    }
    options.write_timeout = Some(limits.send);
    options.idle_timeout = Some(limits.pool);
    Box::new(peer)
}

/// Equal for requests that may share a connection: the same start of the same container.
fn group(destination: &Destination, manner: Manner, watched: bool) -> u64 {
    let who: Option<(Id, u64)> = match destination {
        Destination::Kit { place, .. } => Some((place.container, place.incarnation)),
        Destination::Control { .. } => None,
    };
    let mut hasher = DefaultHasher::new();
    who.map(|(container, incarnation)| (container.0, incarnation))
        .hash(&mut hasher);
    (manner, watched).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::ahead::{OF_ALL_BYTES, OF_ONE_BYTES};

    /// A request to a kit that never reads and always writes, as far as the proxy takes it.
    async fn asked(budget: &Arc<Budget>, container: u8) -> (Eager, UnixStream) {
        let (kit, stream) = UnixStream::pair().expect("a pair");
        let ahead = Ahead::new(budget.clone(), Id([container; 12]));
        let mut eager = Eager::new(stream, None, ahead);
        kit.writable().await.expect("it is open");
        kit.try_write(b"first").expect("there is room");
        let asks = poll_fn(|cx| {
            while ask(&mut eager, cx).is_ready() {}
            let full = eager.ahead.room() == 0;
            eager.ahead.rest();
            if full { Poll::Ready(()) } else { Poll::Pending }
        });
        let says = async {
            loop {
                kit.writable().await.expect("it is open");
                let _ = kit.try_write(&[7; 64 << 10]);
            }
        };
        tokio::select! { () = asks => {}, () = says => {} }
        (eager, kit)
    }

    fn ask(eager: &mut Eager, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Pin::new(eager).poll_write(cx, &[0; 64 << 10])
    }

    /// Trap: each request of many to such a kit would hold all that one may.
    #[tokio::test]
    async fn a_kit_that_only_writes_fills_no_more_than_its_budget() {
        let budget = Arc::new(Budget::default());
        let mut open = Vec::new();
        for _ in 0..12 {
            open.push(asked(&budget, 1).await);
        }
        assert_eq!(budget.held(), OF_ONE_BYTES);
        // Another container has its own.
        let (other, kit) = asked(&budget, 2).await;
        assert!(other.ahead.len() > 1 << 20, "{}", other.ahead.len());
        drop((other, kit));
        // Once something is taken, a request goes on that had nothing left.
        let (mut last, _kit) = open.pop().expect("there are twelve");
        assert_eq!(last.ahead.len(), 0);
        drop(open.swap_remove(0));
        assert!(budget.held() < OF_ONE_BYTES);
        poll_fn(|cx| match ask(&mut last, cx) {
            Poll::Pending if last.ahead.is_empty() => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
        assert!(!last.ahead.is_empty());
        // And all of them together have theirs.
        for container in 2..=12 {
            for _ in 0..5 {
                open.push(asked(&budget, container).await);
            }
        }
        assert_eq!(budget.held(), OF_ALL_BYTES);
        drop((open, last));
        assert_eq!(budget.held(), 0);
    }
}
