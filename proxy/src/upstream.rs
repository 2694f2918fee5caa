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
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::http::ResponseHeader;
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
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use crate::config::Limits;
use crate::lines::{Line, Lines};
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

/// What to connect to. The address that Pingora is given means nothing.
#[derive(Debug)]
enum Target {
    Kit {
        place: Arc<Place>,
        gated: bool,
        lines: Arc<Lines>,
    },
    Control(PathBuf),
}

#[derive(Debug)]
struct Connector {
    target: Target,
    /// For a request that may become a WebSocket: see [`Patient`].
    patient: bool,
}

#[async_trait]
impl L4Connect for Connector {
    async fn connect(&self, _: &PeerAddr) -> pingora::Result<Stream> {
        let (stream, line) = match &self.target {
            Target::Kit {
                place,
                gated,
                lines,
            } => {
                let socket = open_kit(place)?;
                // Through the descriptor, which stays open meanwhile.
                let stream = connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await?;
                let line = lines
                    .add(&stream, place.container, *gated)
                    .map_err(NoConnection::Connect)?;
                (stream, Some(line))
            }
            Target::Control(path) => (connect(path.clone()).await?, None),
        };
        let mut stream = if self.patient {
            let patient = Patient {
                stream,
                waited: false,
            };
            Stream::from(VirtualSocketStream::new(Box::new(patient)))
        } else {
            Stream::from(stream)
        };
        if let Some(line) = line {
            let blank = ResponseHeader::build(200, Some(0)).expect("200 is a status");
            stream.set_proxy_digest(ProxyDigest::new(Box::new(blank), Some(Box::new(line))));
        }
        Ok(stream)
    }
}

/// The line of a connection to a kit.
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

/// A stream that lets others run once before its first read. Pingora, where it reads the answer
/// to an upgrade at once, may close the tunnel that has just been made
/// (cloudflare/pingora#946). It is never reused.
#[derive(Debug)]
struct Patient {
    stream: UnixStream,
    waited: bool,
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
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl VirtualSocket for Patient {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

/// An address that Pingora takes as equal to that of any open connection: what a connection may
/// be reused for, the group key says alone.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1);

/// The peer for a destination; `upgrade` for a request that may become a WebSocket, `gated` for
/// one that was judged by rules.
pub fn peer(
    destination: &Destination,
    upgrade: bool,
    gated: bool,
    lines: &Arc<Lines>,
    control: &std::path::Path,
    limits: &Limits,
) -> Box<HttpPeer> {
    let target = match destination {
        Destination::Kit { place, .. } => Target::Kit {
            place: place.clone(),
            gated,
            lines: lines.clone(),
        },
        Destination::Control { .. } => Target::Control(control.to_owned()),
    };
    let mut peer = HttpPeer::new(NOWHERE, false, String::new());
    peer.group_key = group(destination, upgrade, gated);
    let options = &mut peer.options;
    options.custom_l4 = Some(Arc::new(Connector {
        target,
        patient: upgrade,
    }));
    options.connection_timeout = Some(limits.connect);
    options.total_connection_timeout = Some(limits.connect);
    options.read_timeout = Some(if upgrade {
        limits.tunnel
    } else {
        limits.upstream
    });
    options.write_timeout = Some(limits.send);
    options.idle_timeout = Some(limits.pool);
    Box::new(peer)
}

/// Equal for requests that may share a connection: the same start of the same container.
fn group(destination: &Destination, upgrade: bool, gated: bool) -> u64 {
    let who: Option<(Id, u64)> = match destination {
        Destination::Kit { place, .. } => Some((place.container, place.incarnation)),
        Destination::Control { .. } => None,
    };
    let mut hasher = DefaultHasher::new();
    who.map(|(container, incarnation)| (container.0, incarnation))
        .hash(&mut hasher);
    (upgrade, gated).hash(&mut hasher);
    hasher.finish()
}
