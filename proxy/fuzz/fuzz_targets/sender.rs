//! Whatever a load balancer sends first is a header or none, of a bounded length, however it is cut
//! into parts, and of what follows not a byte is taken.
#![no_main]

#[path = "../../src/sender.rs"]
#[allow(dead_code)]
mod sender;

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, ReadBuf};

/// The longest header of both versions.
const LONGEST: usize = 16 + 2_048;

/// Bytes that come a few at a time.
struct Parts<'a> {
    rest: &'a [u8],
    size: usize,
}

impl AsyncRead for Parts<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let part = self.size.min(buf.remaining()).min(self.rest.len());
        buf.put_slice(&self.rest[..part]);
        self.rest = &self.rest[part..];
        Poll::Ready(Ok(()))
    }
}

/// What is read, and how many bytes of it were taken.
fn read(bytes: &[u8], size: usize) -> (Option<Option<std::net::SocketAddr>>, usize) {
    let mut parts = Parts { rest: bytes, size };
    let mut context = Context::from_waker(Waker::noop());
    let read = {
        let future = std::pin::pin!(sender::read(&mut parts));
        match future.poll(&mut context) {
            Poll::Ready(read) => read.ok(),
            Poll::Pending => unreachable!("nothing is waited for"),
        }
    };
    (read, bytes.len() - parts.rest.len())
}

/// What headers begin with, so that the fuzzer need not learn it.
const BEGINNINGS: [&[u8]; 5] = [
    b"",
    b"\r\n\r\n\0\r\nQUIT\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0",
    b"PROXY TCP4 ",
    b"PROXY TCP6 ::1 ",
];

fuzz_target!(|bytes: &[u8]| {
    for beginning in BEGINNINGS {
        check(&[beginning, bytes].concat());
    }
});

fn check(bytes: &[u8]) {
    let (whole, taken) = read(bytes, usize::MAX);
    assert!(taken <= LONGEST);
    assert_eq!(read(bytes, 1), (whole, taken));
    let Some(client) = whole else { return };
    // The header alone, and with anything after it, says the same.
    assert_eq!(read(&bytes[..taken], 7), (whole, taken));
    assert_eq!(
        read(&[&bytes[..taken], b"PROXY"].concat(), 3),
        (whole, taken)
    );
    // And what it says can be said again.
    if let Some(client) = client {
        let (family, any) = match client {
            std::net::SocketAddr::V4(_) => ("TCP4", "127.0.0.1"),
            std::net::SocketAddr::V6(_) => ("TCP6", "::1"),
        };
        let line = format!(
            "PROXY {family} {} {any} {} 1\r\n",
            client.ip(),
            client.port()
        );
        // Scopes and flow labels are in no header.
        assert_eq!(read(line.as_bytes(), 100).0, Some(Some(client)));
    }
}
