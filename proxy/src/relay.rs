//! Bytes between a client and its kit, in both directions, until one of them ends it.
//!
//! What is read goes through memory that all tunnels of a worker share. Only what the other side
//! does not take at once is kept, and then nothing more is read from where it came: a tunnel on
//! which nothing happens holds no buffer, and a slow reader holds up its writer alone.
//!
//! ```text
//!              one side sends no more            both do
//!   passing ─────────────────────────▶ half ───────────────▶ over
//!      │                                 │                     ▲
//!      │ a side is gone, too slow, cut off, or too long silent │
//!      └───────────────▶ leaving ◀───────┘ ────────────────────┘
//!                        what is kept is delivered, a WebSocket is told why, and
//!                        what still comes is thrown away, for a bounded time
//! ```

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Instant, Sleep};

use crate::boundary::{self, Boundaries, Boundary};

/// What is read at once, and so the most that is kept of one direction.
const PASSING_BYTES: usize = 32 << 10;
/// For a side that is cut off to take what it is told last.
pub const CLOSING: Duration = Duration::from_secs(1);
/// For a client to go after its kit has. A socket that is closed on unread bytes would take with it
/// what was written before.
const GOODBYE: Duration = Duration::from_secs(2);
/// For a kit to take what is left of a client that has gone.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// Between two looks whether a kit that sends no more has gone altogether.
const LOOK: Duration = Duration::from_secs(1);
/// For the side that still sends after the other has ended. Long enough for a slow answer, and
/// short enough for a program that ignores that its client has left.
const HALF: Duration = Duration::from_secs(60);

thread_local! {
    static PASSING: RefCell<Box<[u8]>> = RefCell::new(vec![0; PASSING_BYTES].into());
}

/// How long a tunnel waits.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// While nothing passes in either direction.
    pub quiet: Duration,
    /// For one side to take some of what is kept for it.
    pub send: Duration,
}

/// Why a tunnel is ended by the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// The rules do not allow it any more.
    Forbidden,
    /// Its container is gone.
    Gone,
    /// The proxy goes.
    Stopping,
    /// Nothing has passed for too long.
    Quiet,
}

impl Close {
    /// What a WebSocket is told: code and reason (RFC 6455, section 7.4.1).
    fn words(self) -> (u16, &'static str) {
        match self {
            Close::Forbidden => (1008, "the rules of this container no longer allow it"),
            Close::Gone => (1001, "the container has gone; look whether it runs"),
            Close::Stopping => (1001, "the proxy goes; connect again"),
            Close::Quiet => (1001, "nothing has passed for too long; connect again"),
        }
    }
}

/// What a tunnel came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// From the client.
    pub up: u64,
    /// To the client.
    pub down: u64,
    /// What went wrong, and on which side.
    pub fault: Option<(&'static str, &'static str)>,
    /// Whether it was silent for too long.
    pub expired: bool,
}

/// A tunnel. Whoever polls it says whether it has to end.
pub struct Relay<C> {
    client: Side<C>,
    kit: Side<UnixStream>,
    up: Way,
    down: Way,
    /// Whether it is a WebSocket, and frames of its own are understood.
    frames: bool,
    patience: Patience,
    /// When something last passed.
    active: Instant,
    /// When a kit that sends no more was last looked at.
    looked: Instant,
    /// Until when it may take to leave.
    leaving: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    result: Passed,
}

struct Side<S> {
    io: S,
    /// Nothing can be read from it or written to it any more.
    gone: bool,
    /// It sends no more.
    ended: bool,
}

impl<S> Side<S> {
    fn new(io: S) -> Side<S> {
        Side {
            io,
            gone: false,
            ended: false,
        }
    }
}

/// One direction.
#[derive(Default)]
struct Way {
    /// What the other side has not taken, from `taken` on.
    kept: Vec<u8>,
    taken: usize,
    unflushed: bool,
    /// Something has passed since this was looked at.
    moved: bool,
    /// Its source sends no more.
    dry: bool,
    /// Nothing more comes after what is kept.
    ended: bool,
    /// The other side knows.
    shut: bool,
    /// Since when the other side takes nothing.
    since: Option<Instant>,
    bytes: u64,
    boundary: Boundary,
}

/// Which end of a direction failed.
enum Broken {
    Read,
    Write,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Relay<C> {
    /// `kept` has been read from the client and goes to the kit first. `boundaries` of a WebSocket
    /// know what has passed before.
    pub fn new(
        client: C,
        kit: UnixStream,
        kept: Vec<u8>,
        boundaries: Option<Boundaries>,
        patience: Patience,
    ) -> Relay<C> {
        let now = Instant::now();
        let frames = boundaries.is_some();
        let boundaries = boundaries.unwrap_or_default();
        let up = Way {
            kept,
            boundary: boundaries.up,
            ..Way::default()
        };
        let down = Way {
            boundary: boundaries.down,
            ..Way::default()
        };
        Relay {
            client: Side::new(client),
            kit: Side::new(kit),
            up,
            down,
            frames,
            patience,
            active: now,
            looked: now,
            leaving: None,
            timer: Box::pin(tokio::time::sleep(patience.quiet)),
            result: Passed::default(),
        }
    }

    /// Go on as far as possible. `close` says why it has to end, where it has; `lost` why a kit has
    /// left, where that is known.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        close: Option<Close>,
        lost: &dyn Fn() -> Option<Close>,
    ) -> Poll<Passed> {
        match (close, &mut self.leaving) {
            (Some(close), None) => {
                // A line is cut by closing the kit's socket.
                self.kit.gone = close != Close::Stopping;
                self.close(close);
            }
            // It goes already; whoever wants it to end waits no longer than for any other.
            (Some(_), Some(leaving)) => *leaving = (*leaving).min(Instant::now() + CLOSING),
            (None, _) => {}
        }
        loop {
            if self.leaving.is_none() && self.pass(cx, lost) {
                return Poll::Ready(self.result());
            }
            if self.leaving.is_some() && self.part(cx) {
                return Poll::Ready(self.result());
            }
            let deadline = self.deadline();
            if deadline < self.timer.deadline() {
                self.timer.as_mut().reset(deadline);
            }
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if deadline > now {
                self.timer.as_mut().reset(deadline);
            } else if self.leaving.is_some() {
                return Poll::Ready(self.result());
            } else {
                self.expire(now);
            }
        }
    }

    /// Both directions, and whether both have come to their end.
    fn pass(&mut self, cx: &mut Context<'_>, lost: &dyn Fn() -> Option<Close>) -> bool {
        let down = self.down.poll(cx, &mut self.kit.io, &mut self.client.io);
        let up = self.up.poll(cx, &mut self.client.io, &mut self.kit.io);
        if std::mem::take(&mut self.up.moved) | std::mem::take(&mut self.down.moved) {
            self.active = Instant::now();
        }
        match down {
            Poll::Ready(Err(Broken::Read)) => {
                self.result.fault = Some(("upstream", "read"));
                self.kit_left(lost);
            }
            Poll::Ready(Err(Broken::Write)) => self.client_left("write"),
            // Before the client is told that no more comes, it may be told why.
            Poll::Ready(Ok(())) if is_hung_up(&self.kit.io) => self.kit_left(lost),
            Poll::Ready(Ok(())) => {
                if let Poll::Ready(Err(_)) = self.down.finish(cx, &mut self.client.io) {
                    self.client_left("write");
                }
            }
            Poll::Pending => {}
        }
        if self.leaving.is_some() {
            return false;
        }
        match up {
            Poll::Ready(Err(Broken::Read)) => self.client_left("read"),
            // What it said before it went may still be here.
            Poll::Ready(Err(Broken::Write)) => self.up.abandon(),
            Poll::Ready(Ok(())) => {
                if let Poll::Ready(Err(_)) = self.up.finish(cx, &mut self.kit.io) {
                    self.up.abandon();
                }
            }
            Poll::Pending => {}
        }
        self.leaving.is_none() && self.down.shut && self.up.shut
    }

    /// The kit has gone; all that it said is with the client.
    fn kit_left(&mut self, lost: &dyn Fn() -> Option<Close>) {
        self.kit.gone = true;
        if let Some(why) = lost() {
            self.tell(why);
        }
        self.leave(GOODBYE);
    }

    fn client_left(&mut self, fault: &'static str) {
        self.result.fault = Some(("client", fault));
        self.client.gone = true;
        self.leave(LAST_WORDS);
    }

    /// End it, and say why where that is understood.
    fn close(&mut self, why: Close) {
        self.tell(why);
        self.leave(CLOSING);
    }

    fn tell(&mut self, why: Close) {
        if !self.frames {
            return;
        }
        let (code, reason) = why.words();
        if !self.client.gone && !self.down.shut {
            self.down.say(|| boundary::close(code, reason, None));
        }
        if !self.kit.gone && !self.up.shut {
            let mask = rand::random();
            self.up.say(|| boundary::close(code, reason, Some(mask)));
        }
    }

    fn leave(&mut self, time: Duration) {
        self.client.ended = self.up.dry;
        self.kit.ended = self.down.dry;
        self.up.ended = true;
        self.down.ended = true;
        self.leaving = Some(Instant::now() + time);
    }

    /// Deliver what is kept, and throw away what comes. Whether that is done.
    fn part(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.client.gone {
            let down = self.down.finish(cx, &mut self.client.io);
            self.client.gone = matches!(down, Poll::Ready(Err(_))) || self.client.drain(cx);
        }
        if !self.kit.gone {
            let up = self.up.finish(cx, &mut self.kit.io);
            self.kit.gone = matches!(up, Poll::Ready(Err(_))) || self.kit.drain(cx);
        }
        // A client is waited for, so that it hears all; a kit has heard what it took.
        let client = self.client.gone || (self.down.shut && self.client.ended);
        client && (self.kit.gone || self.up.shut)
    }

    /// When there is something to decide next.
    fn deadline(&self) -> Instant {
        if let Some(leaving) = self.leaving {
            return leaving;
        }
        let quiet = match self.up.ended || self.down.ended {
            true => self.patience.quiet.min(HALF),
            false => self.patience.quiet,
        };
        let waits = [self.up.since, self.down.since];
        let waits = waits.into_iter().flatten();
        let look = self.down.ended.then(|| self.looked + LOOK);
        waits
            .map(|since| since + self.patience.send)
            .chain(look)
            .fold(self.active + quiet, Instant::min)
    }

    /// A deadline has passed.
    fn expire(&mut self, now: Instant) {
        let late = |since: Option<Instant>| since.is_some_and(|it| it + self.patience.send <= now);
        let half = self.up.ended || self.down.ended;
        if late(self.down.since) {
            self.client_left("write_timeout");
        } else if late(self.up.since) {
            self.result.fault = Some(("upstream", "write_timeout"));
            self.kit.gone = true;
            self.leave(GOODBYE);
        } else if self.active + self.patience.quiet <= now || (half && self.active + HALF <= now) {
            // After the end of one side, the other's silence is no fault.
            if !half {
                self.result.fault = Some(("client", "read"));
                self.result.expired = true;
            }
            self.close(Close::Quiet);
        } else {
            self.looked = now;
        }
    }

    fn result(&self) -> Passed {
        let kept = (self.down.kept.len() - self.down.taken) as u64;
        Passed {
            up: self.up.bytes,
            down: self.down.bytes.saturating_sub(kept),
            ..self.result
        }
    }
}

impl<S: AsyncRead + Unpin> Side<S> {
    /// Throw away what comes. Whether reading fails.
    fn drain(&mut self, cx: &mut Context<'_>) -> bool {
        PASSING.with_borrow_mut(|passing| {
            while !self.ended {
                let mut came = ReadBuf::new(passing);
                match Pin::new(&mut self.io).poll_read(cx, &mut came) {
                    Poll::Pending => return false,
                    Poll::Ready(Err(_)) => return true,
                    Poll::Ready(Ok(())) => self.ended = came.filled().is_empty(),
                }
            }
            false
        })
    }
}

impl Way {
    /// Pass on what comes until nothing does. Ready at the end, when all has been passed on.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Broken>> {
        loop {
            ready!(self.deliver(cx, to)).map_err(|_| Broken::Write)?;
            if self.ended {
                return self.flush(cx, to).map_err(|_| Broken::Write);
            }
            let came = PASSING.with_borrow_mut(|passing| {
                let mut came = ReadBuf::new(passing);
                ready!(Pin::new(&mut *from).poll_read(cx, &mut came)).map_err(|_| Broken::Read)?;
                self.take(cx, came.filled(), to)
                    .map_err(|_| Broken::Write)?;
                Poll::Ready(Ok::<_, Broken>(came.filled().len()))
            });
            match came {
                Poll::Ready(Ok(0)) => (self.dry, self.ended) = (true, true),
                Poll::Ready(Ok(_)) => self.moved = true,
                Poll::Ready(Err(broken)) => return Poll::Ready(Err(broken)),
                Poll::Pending => {
                    ready!(self.flush(cx, to)).map_err(|_| Broken::Write)?;
                    return Poll::Pending;
                }
            }
        }
    }

    /// These bytes have come; what is not taken at once is kept.
    fn take(
        &mut self,
        cx: &mut Context<'_>,
        mut bytes: &[u8],
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.boundary.see(bytes);
        self.unflushed |= !bytes.is_empty();
        while !bytes.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, bytes) {
                Poll::Ready(written) => bytes = &bytes[some(written?)?..],
                Poll::Pending => {
                    self.kept = bytes.to_vec();
                    self.taken = 0;
                    self.waits();
                    break;
                }
            }
        }
        Ok(())
    }

    /// Pass on what is kept.
    fn deliver(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while self.taken < self.kept.len() {
            let left = &self.kept[self.taken..];
            match Pin::new(&mut *to).poll_write(cx, left) {
                Poll::Ready(written) => {
                    self.taken += some(written?)?;
                    self.since = None;
                    self.moved = true;
                    self.unflushed = true;
                }
                Poll::Pending => {
                    self.waits();
                    return Poll::Pending;
                }
            }
        }
        self.kept = Vec::new();
        self.taken = 0;
        Poll::Ready(Ok(()))
    }

    fn flush(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        if self.unflushed {
            if Pin::new(to).poll_flush(cx)?.is_pending() {
                self.waits();
                return Poll::Pending;
            }
            self.unflushed = false;
        }
        self.since = None;
        Poll::Ready(Ok(()))
    }

    /// Deliver what is kept, and say that it was the last.
    fn finish(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        if self.shut {
            return Poll::Ready(Ok(()));
        }
        ready!(self.deliver(cx, to))?;
        ready!(self.flush(cx, to))?;
        // It fails where the other side has gone, which needs not be told.
        if Pin::new(to).poll_shutdown(cx).is_pending() {
            self.waits();
            return Poll::Pending;
        }
        self.since = None;
        self.shut = true;
        Poll::Ready(Ok(()))
    }

    /// Put a frame in, where one may be.
    fn say(&mut self, frame: impl FnOnce() -> Vec<u8>) {
        if self.boundary.is_open() {
            self.kept.extend(frame());
        }
    }

    /// The other side takes no more.
    fn abandon(&mut self) {
        *self = Way {
            dry: self.dry,
            ended: true,
            shut: true,
            bytes: self.bytes,
            ..Way::default()
        };
    }

    /// The other side takes nothing now.
    fn waits(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }
}

/// A write of nothing is an end, too.
fn some(written: usize) -> io::Result<usize> {
    match written {
        0 => Err(io::ErrorKind::WriteZero.into()),
        some => Ok(some),
    }
}

/// Whether the other end of a unix socket is closed in both directions.
fn is_hung_up(socket: &UnixStream) -> bool {
    let mut asked = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::empty())];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let looked = poll(&mut asked, Some(&at_once));
    looked.is_ok() && asked[0].revents().contains(PollFlags::HUP)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PATIENCE: Patience = Patience {
        quiet: Duration::from_secs(600),
        send: Duration::from_secs(600),
    };

    struct Rig {
        relay: Relay<UnixStream>,
        client: UnixStream,
        kit: UnixStream,
    }

    fn rig(kept: Vec<u8>, frames: bool) -> Rig {
        let (near, client) = UnixStream::pair().expect("a pair");
        let (inner, kit) = UnixStream::pair().expect("a pair");
        let boundaries = frames.then(Boundaries::default);
        Rig {
            relay: Relay::new(near, inner, kept, boundaries, PATIENCE),
            client,
            kit,
        }
    }

    fn go_on(relay: &mut Relay<UnixStream>, cx: &mut Context<'_>) -> Poll<Passed> {
        relay.poll(cx, None, &|| None)
    }

    /// Whoever does not read holds up its writer, and next to nothing is kept meanwhile.
    #[tokio::test]
    async fn little_is_kept_for_a_slow_reader_and_nothing_after() {
        const WHOLE: usize = 8 << 20;
        let Rig {
            mut relay,
            mut client,
            mut kit,
        } = rig(Vec::new(), false);
        let writer = tokio::spawn(async move {
            kit.write_all(&vec![7; WHOLE]).await.expect("written");
            kit
        });
        poll_fn(|cx| {
            assert!(go_on(&mut relay, cx).is_pending());
            match relay.down.since {
                Some(_) => Poll::Ready(()),
                None => Poll::Pending,
            }
        })
        .await;
        let (kept, bytes) = (relay.down.kept.len(), relay.down.bytes);
        assert!((1..=PASSING_BYTES).contains(&kept), "{kept}");
        assert!(relay.down.kept.capacity() <= PASSING_BYTES);
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
            poll_fn(|cx| Poll::Ready(go_on(&mut relay, cx).is_pending())).await;
        }
        assert_eq!(
            (relay.down.kept.len(), relay.down.bytes),
            (kept, bytes),
            "nothing more is read"
        );
        // The other direction goes on meanwhile.
        client.write_all(b"still").await.expect("written");
        poll_fn(|cx| {
            assert!(go_on(&mut relay, cx).is_pending());
            match relay.up.bytes {
                5 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
        let mut read = vec![0; WHOLE];
        tokio::select! {
            _ = poll_fn(|cx| go_on(&mut relay, cx)) => panic!("it is not over"),
            read = client.read_exact(&mut read) => { read.expect("all comes"); }
        }
        poll_fn(|cx| Poll::Ready(go_on(&mut relay, cx).is_pending())).await;
        assert_eq!(relay.down.bytes, WHOLE as u64);
        assert_eq!(relay.down.kept.capacity() + relay.up.kept.capacity(), 0);
        drop(writer.await.expect("no panic"));
    }

    /// What was kept for a kit goes before what comes, and reaches it though the client has gone.
    #[tokio::test]
    async fn what_was_kept_goes_first() {
        let Rig {
            mut relay,
            mut client,
            mut kit,
        } = rig(vec![b'a'; 1 << 20], false);
        client.write_all(b"b").await.expect("written");
        drop(client);
        let heard = async {
            let mut heard = Vec::new();
            kit.read_to_end(&mut heard).await.expect("read");
            drop(kit);
            heard
        };
        let (passed, heard) = tokio::join!(poll_fn(|cx| go_on(&mut relay, cx)), heard);
        assert!(heard.len() == (1 << 20) + 1 && heard.ends_with(b"ab"));
        assert_eq!((passed.up, passed.fault), (1, None));
    }

    /// A frame is put in between two others, or not at all.
    #[tokio::test]
    async fn a_close_cuts_no_frame_in_two() {
        for whole in [true, false] {
            let Rig {
                mut relay,
                mut client,
                mut kit,
            } = rig(Vec::new(), true);
            let payload = 60_000u16;
            let frame = [&[0x82, 126][..], &payload.to_be_bytes()].concat();
            kit.write_all(&frame).await.expect("written");
            let size = usize::from(payload) - usize::from(!whole);
            kit.write_all(&vec![0; size]).await.expect("written");
            let all = (frame.len() + size) as u64;
            poll_fn(|cx| {
                assert!(go_on(&mut relay, cx).is_pending());
                match relay.down.bytes == all {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
            let told = async {
                let mut told = Vec::new();
                client.read_to_end(&mut told).await.expect("read");
                drop(client);
                told
            };
            let end = poll_fn(|cx| relay.poll(cx, Some(Close::Forbidden), &|| None));
            let (_, told) = tokio::join!(end, told);
            let rest = &told[frame.len() + size..];
            match whole {
                true => assert_eq!(rest[..4], [0x88, rest.len() as u8 - 2, 0x03, 0xf0]),
                false => assert!(rest.is_empty()),
            }
        }
    }
}
