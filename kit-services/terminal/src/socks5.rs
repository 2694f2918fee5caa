//! Connecting through a SOCKS5 proxy (RFC 1928), with a name and a password where it wants them
//! (RFC 1929).
//!
//! ssh has no such client of its own: it is given a command that connects for it. That command is
//! the kit's own program, which calls [`connect`].

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long the proxy and what is behind it may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy, and whom it knows its client as.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    pub host: String,
    pub port: u16,
    pub user: Option<String>,
    pub password: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("could not reach the proxy")]
    Reach(#[source] io::Error),
    #[error("the proxy does not speak SOCKS5")]
    Protocol,
    #[error("the proxy wants a name and a password")]
    NeedsName,
    #[error("the proxy does not know this name and password")]
    WrongName,
    #[error("the proxy refuses: {0}")]
    Refused(&'static str),
    #[error("the proxy takes no names of machines longer than 255 bytes")]
    LongName,
    #[error("the proxy did not connect in time")]
    Late,
}

/// Read a proxy from the file that a session keeps for it.
pub fn read(path: &Path) -> io::Result<Proxy> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

/// Connect to a port of a machine through a proxy.
pub async fn connect(proxy: &Proxy, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let all = async {
        let address = (proxy.host.as_str(), proxy.port);
        let mut stream = TcpStream::connect(address)
            .await
            .map_err(ConnectError::Reach)?;
        shake(&mut stream, proxy, host, port).await?;
        Ok(stream)
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .unwrap_or(Err(ConnectError::Late))
}

const VERSION: u8 = 5;
const NO_NAME: u8 = 0;
const BY_NAME: u8 = 2;

/// Ask a proxy to connect; what follows on the stream is the other machine's.
async fn shake(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> Result<(), ConnectError> {
    let lost = |_| ConnectError::Protocol;
    let offer: &[u8] = match proxy.user {
        Some(_) => &[VERSION, 2, NO_NAME, BY_NAME],
        None => &[VERSION, 1, NO_NAME],
    };
    stream.write_all(offer).await.map_err(lost)?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await.map_err(lost)?;
    match (chosen, &proxy.user) {
        ([VERSION, NO_NAME], _) => {}
        ([VERSION, BY_NAME], Some(user)) => {
            let mut who = vec![1];
            for text in [user, &proxy.password] {
                let length = u8::try_from(text.len()).map_err(|_| ConnectError::WrongName)?;
                who.push(length);
                who.extend(text.as_bytes());
            }
            stream.write_all(&who).await.map_err(lost)?;
            let mut answer = [0; 2];
            stream.read_exact(&mut answer).await.map_err(lost)?;
            if answer[1] != 0 {
                return Err(ConnectError::WrongName);
            }
        }
        ([VERSION, _], _) => return Err(ConnectError::NeedsName),
        _ => return Err(ConnectError::Protocol),
    }
    let mut request = vec![VERSION, 1, 0];
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => {
            request.push(1);
            request.extend(ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            request.push(4);
            request.extend(ip.octets());
        }
        Err(_) => {
            request.push(3);
            request.push(u8::try_from(host.len()).map_err(|_| ConnectError::LongName)?);
            request.extend(host.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    stream.write_all(&request).await.map_err(lost)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.map_err(lost)?;
    if answer[0] != VERSION {
        return Err(ConnectError::Protocol);
    }
    if answer[1] != 0 {
        return Err(ConnectError::Refused(reason(answer[1])));
    }
    // The address it connects from, which nobody needs.
    let length = match answer[3] {
        1 => 4,
        4 => 16,
        3 => stream.read_u8().await.map_err(lost)?.into(),
        _ => return Err(ConnectError::Protocol),
    };
    let mut rest = vec![0; length + 2];
    stream.read_exact(&mut rest).await.map_err(lost)?;
    Ok(())
}

fn reason(code: u8) -> &'static str {
    match code {
        1 => "it failed",
        2 => "its rules do not allow it",
        3 => "the network is unreachable",
        4 => "the machine is unreachable",
        5 => "the connection was refused",
        6 => "it took too long",
        7 => "it does not connect",
        8 => "it does not take such addresses",
        _ => "for a reason of its own",
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn proxy(user: Option<&str>) -> Proxy {
        Proxy {
            host: "127.0.0.1".to_owned(),
            port: 0,
            user: user.map(str::to_owned),
            password: "secret".to_owned(),
        }
    }

    /// Shake hands with a proxy that says this, whatever it is told; what it was told.
    async fn against(proxy: Proxy, host: &str, says: &[u8]) -> (Result<(), ConnectError>, Vec<u8>) {
        let (mut ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(says).await.unwrap();
        let result = shake(&mut ours, &proxy, host, 22).await;
        drop(ours);
        let mut told = Vec::new();
        theirs.read_to_end(&mut told).await.unwrap();
        (result, told)
    }

    #[tokio::test]
    async fn names_and_addresses_are_asked_for_as_the_standard_says() {
        let (result, told) =
            against(proxy(None), "host", &[5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await;
        result.unwrap();
        assert_eq!(told, b"\x05\x01\x00\x05\x01\x00\x03\x04host\x00\x16");
        let says = [5, 2, 1, 0, 5, 0, 0, 3, 1, b'x', 0, 0];
        let (result, told) = against(proxy(Some("me")), "1.2.3.4", &says).await;
        result.unwrap();
        assert_eq!(
            told,
            b"\x05\x02\x00\x02\x01\x02me\x06secret\x05\x01\x00\x01\x01\x02\x03\x04\x00\x16"
        );
    }

    #[tokio::test]
    async fn proxies_that_refuse_or_talk_nonsense_are_told_apart() {
        let says = async |user, says: &[u8]| {
            let (result, _) = against(proxy(user), "host", says).await;
            result.unwrap_err()
        };
        assert!(matches!(
            says(None, &[5, 255]).await,
            ConnectError::NeedsName
        ));
        assert!(matches!(says(None, &[5, 2]).await, ConnectError::NeedsName));
        assert!(matches!(
            says(Some("me"), &[5, 2, 1, 1]).await,
            ConnectError::WrongName
        ));
        assert!(matches!(
            says(None, b"HTTP/1.1 400").await,
            ConnectError::Protocol
        ));
        assert!(matches!(
            says(None, &[5, 0, 5, 5, 0, 1]).await,
            ConnectError::Refused("the connection was refused")
        ));
        assert!(matches!(
            says(None, &[5, 0, 5, 0, 0, 9]).await,
            ConnectError::Protocol
        ));
    }

    #[tokio::test]
    async fn bytes_go_through() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut greeting = [0; 3];
            stream.read_exact(&mut greeting).await.unwrap();
            stream.write_all(&[5, 0]).await.unwrap();
            let mut request = [0; 11];
            stream.read_exact(&mut request).await.unwrap();
            stream
                .write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
                .await
                .unwrap();
            stream.write_all(b"SSH-2.0").await.unwrap();
        });
        let proxy = Proxy {
            port,
            ..proxy(None)
        };
        let mut stream = connect(&proxy, "host", 22).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "SSH-2.0");
        let nobody = Proxy { port: 1, ..proxy };
        assert!(matches!(
            connect(&nobody, "host", 22).await,
            Err(ConnectError::Reach(_))
        ));
    }
}
