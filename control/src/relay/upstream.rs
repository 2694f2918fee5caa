//! Asking a proxy for a connection.

use std::io;
use std::net::SocketAddrV4;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Credentials, Kind, Upstream};

/// The longest head of an answer to CONNECT.
const HEAD: usize = 8 << 10;
/// A user name or a password in SOCKS (RFC 1929).
pub const SOCKS_TEXT: usize = 255;

/// Ask the proxy at the other end of `out` to connect to `meant`. Afterwards `out` is that
/// connection.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    out: &mut S,
    upstream: &Upstream,
    meant: SocketAddrV4,
) -> io::Result<()> {
    match upstream.kind {
        Kind::Socks5 => socks5(out, upstream.credentials.as_ref(), meant).await,
        Kind::Http => connect(out, upstream.credentials.as_ref(), meant).await,
    }
}

fn refused(words: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, words)
}

/// RFC 1928, and RFC 1929 where there are credentials.
async fn socks5<S: AsyncRead + AsyncWrite + Unpin>(
    out: &mut S,
    credentials: Option<&Credentials>,
    meant: SocketAddrV4,
) -> io::Result<()> {
    const NONE: u8 = 0;
    const PASSWORD: u8 = 2;
    // A proxy that needs no password may be offered one all the same.
    let methods: &[u8] = match credentials {
        Some(_) => &[5, 2, NONE, PASSWORD],
        None => &[5, 1, NONE],
    };
    out.write_all(methods).await?;
    let mut chosen = [0; 2];
    out.read_exact(&mut chosen).await?;
    match (chosen, credentials) {
        ([5, NONE], _) => {}
        ([5, PASSWORD], Some(Credentials { user, password })) => {
            let length = |text: &str| {
                u8::try_from(text.len()).map_err(|_| refused("the credentials are too long"))
            };
            let mut said = vec![1, length(user)?];
            said.extend_from_slice(user.as_bytes());
            said.push(length(password)?);
            said.extend_from_slice(password.as_bytes());
            out.write_all(&said).await?;
            let mut answer = [0; 2];
            out.read_exact(&mut answer).await?;
            if answer[1] != 0 {
                return Err(refused("the proxy does not take the credentials"));
            }
        }
        _ => return Err(refused("the proxy speaks no SOCKS5 that is spoken here")),
    }
    let mut request = vec![5, 1, 0, 1];
    request.extend_from_slice(&meant.ip().octets());
    request.extend_from_slice(&meant.port().to_be_bytes());
    out.write_all(&request).await?;
    let mut answer = [0; 4];
    out.read_exact(&mut answer).await?;
    if answer[0] != 5 || answer[1] != 0 {
        return Err(refused("the proxy does not connect there"));
    }
    let bound = match answer[3] {
        1 => 4,
        4 => 16,
        3 => usize::from(out.read_u8().await?),
        _ => return Err(refused("the proxy answers in no way of SOCKS5")),
    };
    let mut rest = vec![0; bound + 2];
    out.read_exact(&mut rest).await?;
    Ok(())
}

/// RFC 9110, section 9.3.6.
async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    out: &mut S,
    credentials: Option<&Credentials>,
    meant: SocketAddrV4,
) -> io::Result<()> {
    let mut head = format!("CONNECT {meant} HTTP/1.1\r\nHost: {meant}\r\n");
    if let Some(Credentials { user, password }) = credentials {
        let both = STANDARD.encode(format!("{user}:{password}"));
        head.push_str(&format!("Proxy-Authorization: Basic {both}\r\n"));
    }
    head.push_str("\r\n");
    out.write_all(head.as_bytes()).await?;
    // Byte by byte: what follows the head belongs to the connection.
    let mut answer = Vec::with_capacity(256);
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == HEAD {
            return Err(refused("the proxy's answer is too long"));
        }
        answer.push(out.read_u8().await?);
    }
    let status = answer
        .split(|byte| *byte == b' ')
        .nth(1)
        .and_then(|code| std::str::from_utf8(code).ok()?.parse::<u16>().ok());
    match status {
        Some(200..=299) if answer.starts_with(b"HTTP/1.") => Ok(()),
        Some(407) => Err(refused("the proxy does not take the credentials")),
        _ => Err(refused("the proxy does not connect there")),
    }
}
