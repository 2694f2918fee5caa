//! Sockets that pass from a proxy to its successor, so that no connection is refused in between.
//!
//! ```text
//!   old                                new
//!    │ listens on handover.sock         │
//!    │ ◄──────────── connects ───────── │
//!    │ ── listening sockets, named ───► │   (SCM_RIGHTS)
//!    │                                  │ serves from them
//!    │ ◄──────────── "taken" ────────── │
//!    │ writes no more logs              │
//!    │ ── the end of the connection ──► │ writes the logs
//!    │ accepts no more, and drains      │ listens on handover.sock
//! ```
//!
//! Both accept from the same sockets for a moment. Where any of it fails, the old one goes on.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketType, recvmsg, sendmsg, sockopt,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixListener;
use tokio::time::timeout;
use tracing::{info, warn};

/// Sockets that can be handed over at once; a node has a few.
const SOCKETS: usize = 64;
/// Their names, as one line of JSON.
const NAMES_BYTES: usize = 16 << 10;
/// For the other side to say its part. A successor starts its workers within it.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a successor says when it serves.
const TAKEN: u8 = b'!';

/// What a socket is for, and the address it was asked for by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    pub role: Role,
    pub asked: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Http,
    Https,
    Metrics,
    /// Names over TCP and UDP.
    DnsTcp,
    DnsUdp,
}

/// Sockets of a predecessor.
pub struct Inherited {
    sockets: Vec<(Name, OwnedFd)>,
    predecessor: Option<UnixStream>,
}

impl Inherited {
    /// Those of the proxy that serves there, if one does.
    pub fn take(path: &Path) -> Inherited {
        match receive(path) {
            Ok((sockets, predecessor)) => {
                info!(
                    sockets = sockets.len(),
                    "another proxy hands its sockets over"
                );
                Inherited {
                    sockets,
                    predecessor: Some(predecessor),
                }
            }
            Err(error) => {
                let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
                if !nobody.contains(&error.kind()) {
                    warn!(%error, "could not take over the sockets of another proxy");
                }
                Inherited {
                    sockets: Vec::new(),
                    predecessor: None,
                }
            }
        }
    }

    /// The listening one with this name.
    pub fn listener(&mut self, name: &Name) -> Option<TcpListener> {
        let listens = |socket: &OwnedFd| sockopt::socket_acceptconn(socket).unwrap_or(false);
        Some(self.take_if(name, listens)?.into())
    }

    /// The one for datagrams with this name.
    pub fn datagrams(&mut self, name: &Name) -> Option<UdpSocket> {
        let is_udp = |socket: &OwnedFd| sockopt::socket_type(socket) == Ok(SocketType::DGRAM);
        Some(self.take_if(name, is_udp)?.into())
    }

    fn take_if(&mut self, name: &Name, fits: fn(&OwnedFd) -> bool) -> Option<OwnedFd> {
        let found = |(it, socket): &(Name, OwnedFd)| it == name && fits(socket);
        let at = self.sockets.iter().position(found)?;
        Some(self.sockets.swap_remove(at).1)
    }

    /// Where the predecessor says, by the end of the connection, that it writes no more logs.
    pub fn predecessor(&self) -> Option<UnixStream> {
        self.predecessor.as_ref()?.try_clone().ok()
    }

    /// Tell the predecessor that its sockets are served.
    pub fn taken(self) {
        if let Some(mut predecessor) = self.predecessor
            && let Err(error) = predecessor.write_all(&[TAKEN])
        {
            warn!(%error, "could not tell the other proxy that its sockets are taken over");
        }
    }
}

fn receive(path: &Path) -> io::Result<(Vec<(Name, OwnedFd)>, UnixStream)> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let peer = sockopt::socket_peercred(&stream)?.uid;
    if peer != rustix::process::geteuid() {
        return Err(io::Error::other("another user offers them"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut names = vec![0; NAMES_BYTES];
    let mut parts = [IoSliceMut::new(&mut names)];
    let got = recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            sockets.extend(rights);
        }
    }
    let mut filled = got.bytes;
    while filled > 0 && names[filled - 1] != b'\n' && filled < NAMES_BYTES {
        match stream.read(&mut names[filled..])? {
            0 => break,
            more => filled += more,
        }
    }
    let names: Vec<Name> = serde_json::from_slice(&names[..filled])?;
    if names.len() != sockets.len() {
        return Err(io::Error::other("not every socket has a name"));
    }
    let named = names.into_iter().zip(sockets).map(|(name, socket)| {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok((name, socket))
    });
    Ok((named.collect::<io::Result<_>>()?, stream))
}

/// Wait until the predecessor writes no more logs, or says nothing.
pub fn until_resigned(mut predecessor: UnixStream) {
    let ended = predecessor
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| predecessor.read(&mut [0]));
    if let Err(error) = ended {
        warn!(%error, "the other proxy does not say that it writes no more; writing beside it");
    }
}

/// Offer these sockets until a successor has taken them over. It waits for the end of what is
/// returned.
pub async fn offer(
    listener: UnixListener,
    sockets: Vec<(Name, OwnedFd)>,
) -> tokio::net::UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match timeout(PATIENCE, hand_over(stream, &sockets)).await {
                Ok(Ok(successor)) => return successor,
                Ok(Err(error)) => warn!(%error, "the sockets were not taken over"),
                Err(_) => warn!("the successor does not say whether it serves; serving on"),
            },
            Err(error) => {
                warn!(%error, "could not accept a successor");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn hand_over(
    mut stream: tokio::net::UnixStream,
    sockets: &[(Name, OwnedFd)],
) -> io::Result<tokio::net::UnixStream> {
    let peer = stream.peer_cred()?.uid();
    if peer != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other(format!("user {peer} may not take them")));
    }
    let names: Vec<&Name> = sockets.iter().map(|(name, _)| name).collect();
    let mut line = serde_json::to_vec(&names)?;
    line.push(b'\n');
    let rights: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
    let mut sent = stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(&rights)) {
                return Err(io::Error::other("there are too many sockets"));
            }
            let parts = [IoSlice::new(&line)];
            Ok(sendmsg(&stream, &parts, &mut control, SendFlags::NOSIGNAL)?)
        })
        .await?;
    while sent < line.len() {
        stream.writable().await?;
        match stream.try_write(&line[sent..]) {
            Ok(more) => sent += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    match stream.read_u8().await? {
        TAKEN => Ok(stream),
        other => Err(io::Error::other(format!("the successor said {other}"))),
    }
}
