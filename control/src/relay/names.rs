//! Names of machines that leave by a proxy: asked of it over TCP (RFC 7766), whatever they were
//! asked by.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

use super::{ACCEPT_AGAIN, BIND_AGAIN, Relay, Upstream};

/// Who is asked where a container names nobody: resolvers that are open to all and take TCP.
pub const SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(9, 9, 9, 9)];
/// What is sent in one datagram; what is longer is asked for over TCP (RFC 9715).
const DATAGRAM: usize = 1232;
/// Longest that a question waits for its answer: resolvers ask again by then.
const PATIENCE: Duration = Duration::from_secs(10);
const HEADER: usize = 12;

/// Answer datagrams.
pub(super) async fn serve(relay: &Relay) {
    let at = (relay.settings.address, relay.settings.names);
    let socket = loop {
        match UdpSocket::bind(at).await {
            Ok(socket) => break Arc::new(socket),
            Err(_) => tokio::time::sleep(BIND_AGAIN).await,
        }
    };
    let mut question = vec![0; DATAGRAM];
    loop {
        let (length, from) = match socket.recv_from(&mut question).await {
            Ok(received) => received,
            Err(_) => {
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Some(entry) = relay.find(from.ip()) else {
            continue;
        };
        let Some(place) = relay.place(&entry) else {
            continue; // the resolver asks again
        };
        let (relay, socket) = (relay.clone(), socket.clone());
        let question = question[..length].to_vec();
        tokio::spawn(async move {
            let _place = place;
            let answering = async {
                let answer = relay.answer(&entry.upstream, &question).await?;
                socket.send_to(&answer, from).await
            };
            let answered: io::Result<usize> = tokio::select! {
                () = entry.over.cancelled() => Ok(0),
                answered = tokio::time::timeout(PATIENCE, answering) => {
                    answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                }
            };
            if let Err(error) = answered {
                let from: SocketAddr = from;
                tracing::debug!(machine = %from.ip(), %error, "a name was not asked for");
            }
        });
    }
}

impl Relay {
    async fn answer(&self, upstream: &Upstream, question: &[u8]) -> io::Result<Vec<u8>> {
        let length = u16::try_from(question.len()).map_err(io::Error::other)?;
        let mut out = self.connect_to_names(upstream).await?;
        let mut said = length.to_be_bytes().to_vec();
        said.extend_from_slice(question);
        out.write_all(&said).await?;
        let mut answer = vec![0; usize::from(out.read_u16().await?)];
        out.read_exact(&mut answer).await?;
        if answer.len() <= DATAGRAM {
            return Ok(answer);
        }
        truncated(question).ok_or_else(|| io::Error::other("the question is none"))
    }
}

/// The answer to ask again over TCP: the question with the bits QR and TC (RFC 1035, section 4.1).
fn truncated(question: &[u8]) -> Option<Vec<u8>> {
    let mut end = HEADER;
    loop {
        match *question.get(end)? {
            0 => break,
            length @ 1..=63 => end += 1 + usize::from(length),
            _ => return None,
        }
    }
    let mut answer = question.get(..end + 5)?.to_vec();
    answer[2] |= 0x82;
    answer[4..HEADER].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_answer_is_to_be_asked_for_again() {
        let mut question = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        question.extend_from_slice(b"\x03web\x04test\x00\x00\x01\x00\x01");
        let asked = question.len();
        question.extend_from_slice(b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00");
        let answer = truncated(&question).unwrap();
        assert_eq!(answer.len(), asked);
        assert_eq!(
            &answer[..HEADER],
            &[0xab, 0xcd, 0x83, 0, 0, 1, 0, 0, 0, 0, 0, 0]
        );
        for cut in 0..asked {
            assert_eq!(truncated(&question[..cut]), None);
        }
    }
}
