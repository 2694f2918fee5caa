//! A client's socket with buffers that are there only while something is in them.
//!
//! What is read goes into memory that all connections of a worker share, and from there at once to
//! whoever asked; only what was not asked for is kept. So a connection on which nothing happens
//! holds no buffer, and one that is busy is read in large parts.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What is read from a socket at once: a whole TLS record and more.
const READ_BYTES: usize = 32 << 10;
/// Small writes are put together up to about one segment.
const WRITE_BYTES: usize = 1460;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// A socket of a client.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    /// What was read and not asked for yet, from `taken` on.
    unread: Vec<u8>,
    taken: usize,
    /// What was written and not sent yet, from `sent` on.
    unsent: Vec<u8>,
    sent: usize,
}

/// Give a socket its buffers.
pub fn buffered(stream: TcpStream) -> Socket {
    Socket {
        stream,
        unread: Vec::new(),
        taken: 0,
        unsent: Vec::new(),
        sent: 0,
    }
}

impl Socket {
    pub fn get_ref(&self) -> &TcpStream {
        &self.stream
    }

    /// Read once; `take` is given what has come and says how much of it it took. What is left is
    /// kept. Nothing may be kept before.
    fn take_in(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&[u8]) -> usize,
    ) -> Poll<io::Result<()>> {
        SHARED.with_borrow_mut(|shared| {
            let mut came = ReadBuf::new(shared);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut came))?;
            let came = came.filled();
            let took = take(came);
            if took < came.len() {
                self.unread = came[took..].to_vec();
                self.taken = 0;
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Send what was written before.
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            let left = &self.unsent[self.sent..];
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, left))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        self.unsent = Vec::new();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Make room for this many bytes beside those that are not sent yet, where they may wait.
    fn room(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<bool>> {
        if self.unsent.len() + bytes > WRITE_BYTES {
            ready!(self.send(cx))?;
        }
        if bytes >= WRITE_BYTES {
            return Poll::Ready(Ok(false));
        }
        if self.unsent.capacity() == 0 {
            self.unsent.reserve_exact(WRITE_BYTES);
        }
        Poll::Ready(Ok(true))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.taken < this.unread.len() {
            let kept = &this.unread[this.taken..];
            let took = kept.len().min(buf.remaining());
            buf.put_slice(&kept[..took]);
            Pin::new(this).consume(took);
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() >= READ_BYTES {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        this.take_in(cx, |came| {
            let took = came.len().min(buf.remaining());
            buf.put_slice(&came[..took]);
            took
        })
    }
}

impl AsyncBufRead for Socket {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.taken == this.unread.len() {
            ready!(this.take_in(cx, |_| 0))?;
        }
        Poll::Ready(Ok(&this.unread[this.taken..]))
    }

    fn consume(self: Pin<&mut Self>, bytes: usize) {
        let this = self.get_mut();
        this.taken += bytes;
        if this.taken >= this.unread.len() {
            this.unread = Vec::new();
            this.taken = 0;
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if ready!(this.room(cx, buf.len()))? {
            this.unsent.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let bytes = bufs.iter().map(|buf| buf.len()).sum();
        if ready!(this.room(cx, bytes))? {
            for buf in bufs {
                this.unsent.extend_from_slice(buf);
            }
            return Poll::Ready(Ok(bytes));
        }
        Pin::new(&mut this.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.send(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.send(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (there, here) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (here, _) = here.expect("a connection");
        (buffered(here), there.expect("a connection"))
    }

    /// Bytes that differ from their neighbours, so that none can be lost or doubled unseen.
    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|at| (at * 7 % 251) as u8).collect()
    }

    #[tokio::test]
    async fn everything_arrives_in_order_however_it_is_read() {
        for part in [1, 7, 4096, READ_BYTES - 1, READ_BYTES, 3 * READ_BYTES] {
            let (mut socket, mut there) = pair().await;
            let sent = bytes(5 * READ_BYTES + 3);
            let expected = sent.clone();
            let writer = tokio::spawn(async move {
                there.write_all(&sent).await.expect("it is read");
                there
            });
            let head = socket.fill_buf().await.expect("a part")[0];
            socket.consume(1);
            let mut got = vec![head];
            let mut buffer = vec![0; part];
            while got.len() < expected.len() {
                let read = socket.read(&mut buffer).await.expect("a part");
                assert_ne!(read, 0, "an early end");
                got.extend_from_slice(&buffer[..read]);
            }
            assert!(got == expected, "in parts of {part}");
            assert_eq!(socket.unread.capacity(), 0, "nothing is held");
            drop(writer.await.expect("it ends"));
            assert_eq!(socket.read(&mut buffer).await.expect("the end"), 0);
        }
    }

    #[tokio::test]
    async fn small_writes_wait_for_a_flush_and_large_ones_do_not() {
        let (mut socket, mut there) = pair().await;
        let all = bytes(2 * WRITE_BYTES + 100);
        let mut got = vec![0; all.len()];
        socket.write_all(&all[..50]).await.expect("it waits");
        let wait = IoSlice::new(&all[50..60]);
        let more = IoSlice::new(&all[60..100]);
        assert_eq!(
            socket
                .write_vectored(&[wait, more])
                .await
                .expect("it waits"),
            50
        );
        let arrived = rustix::io::ioctl_fionread(&there).expect("it is a socket");
        assert_eq!(arrived, 0, "nothing is sent");
        socket.write_all(&all[100..]).await.expect("it is sent");
        there.read_exact(&mut got).await.expect("all is there");
        assert!(got == all);
        socket.write_all(&all[..10]).await.expect("it waits");
        socket.flush().await.expect("it is sent");
        assert_eq!(socket.unsent.capacity(), 0, "nothing is held");
        there.read_exact(&mut got[..10]).await.expect("it is there");
        socket.write_all(&all[..10]).await.expect("it waits");
        socket.shutdown().await.expect("it is sent");
        let mut rest = Vec::new();
        there.read_to_end(&mut rest).await.expect("the end");
        assert_eq!(rest, &all[..10]);
    }
}
