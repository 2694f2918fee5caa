//! The container's own use of URLs below a local domain.
//!
//! Resolvers send every name below `localhost` to the loopback address of whoever asks, so from
//! inside a container URLs lead to its own ports 80 and 443, and to those that the host uses
//! instead. The kit leaves those ports to the
//! container's programs: a netfilter rule turns connections to them over to the kit, which reads
//! the name that the client asks for (TLS server name, or `Host`) and passes the bytes on: to the
//! proxy where the name is below the domain, to the container's own server otherwise. The kit's
//! own connections carry a mark that the rule lets through.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::settings::Host;

/// Connections with this mark are the kit's own and pass the rule.
const MARK: u32 = 0x686f_6f64;
/// The first port at which the kit takes over connections; one for each port it takes them from.
const TAKEN: u16 = 61080;
/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 512;
/// How much of a connection may be read to find its name.
const PREFACE_BYTES: usize = 16 << 10;
/// How long a client may take to say its name.
const PREFACE_TIME: Duration = Duration::from_secs(10);

/// How the name is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Http,
    Tls,
}

/// Take over the container's loopback ports 80 and 443 until the process ends.
pub async fn serve(host: Host) -> io::Result<()> {
    let host = Arc::new(host);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = tokio::task::JoinSet::new();
    let doors = doors(&host);
    for Door {
        speaks,
        port,
        taken,
    } in doors.iter().copied()
    {
        for address in [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ] {
            let listener = match TcpListener::bind((address, taken)).await {
                Ok(listener) => listener,
                Err(error) if address.is_ipv6() => {
                    tracing::debug!(%error, "no IPv6 loopback");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let own = SocketAddr::new(address, port);
            tasks.spawn(accept(listener, speaks, own, host.clone(), slots.clone()));
        }
    }
    redirect(&doors).await?;
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// A port of the loopback that the kit takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Door {
    speaks: Speaks,
    /// The port that programs connect to.
    port: u16,
    /// Where the rule leads them.
    taken: u16,
}

/// The usual ports, and those of the host's URLs where they are others.
fn doors(host: &Host) -> Vec<Door> {
    let mut doors: Vec<Door> = Vec::new();
    for (speaks, port) in [
        (Speaks::Http, 80),
        (Speaks::Tls, 443),
        (Speaks::Http, host.http_port),
        (Speaks::Tls, host.https_port),
    ] {
        if !doors.iter().any(|door| door.port == port) {
            let taken = TAKEN + doors.len() as u16; // at most four
            doors.push(Door {
                speaks,
                port,
                taken,
            });
        }
    }
    doors
}

/// Install the rule. Container root can remove it; that harms nobody else.
async fn redirect(doors: &[Door]) -> io::Result<()> {
    let rules: String = doors
        .iter()
        .map(|Door { port, taken, .. }| {
            format!(
                "ip daddr 127.0.0.0/8 tcp dport {port} redirect to :{taken}\n\
                 ip6 daddr ::1 tcp dport {port} redirect to :{taken}\n"
            )
        })
        .collect();
    let rules = format!(
        "table inet hoody_loopback\n\
         delete table inet hoody_loopback\n\
         table inet hoody_loopback {{\n\
           chain output {{\n\
             type nat hook output priority -100; policy accept;\n\
             meta mark {MARK} return\n\
             {rules}\
           }}\n\
         }}\n"
    );
    let mut nft = tokio::process::Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = nft.stdin.take().expect("stdin is piped");
    stdin.write_all(rules.as_bytes()).await?;
    drop(stdin);
    let output = nft.wait_with_output().await?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "nft: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

async fn accept(
    listener: TcpListener,
    speaks: Speaks,
    own: SocketAddr,
    host: Arc<Host>,
    slots: Arc<Semaphore>,
) {
    loop {
        let slot = slots.clone().acquire_owned().await.expect("never closed");
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::warn!(%error, "accept on the loopback failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let host = host.clone();
        tokio::spawn(async move {
            if let Err(error) = pass(client, speaks, own, &host).await {
                tracing::debug!(%error, "a loopback connection ended");
            }
            drop(slot);
        });
    }
}

/// Read who the client asks for, connect there, and pass bytes both ways.
async fn pass(
    mut client: TcpStream,
    speaks: Speaks,
    own: SocketAddr,
    host: &Host,
) -> io::Result<()> {
    let name = tokio::time::timeout(PREFACE_TIME, name(&client, speaks)).await??;
    let mut server = match name {
        Some(name) if below(&name, &host.domain) => {
            let port = match speaks {
                Speaks::Tls => host.https_port,
                Speaks::Http => host.http_port,
            };
            connect(SocketAddr::new(host.gateway, port)).await?
        }
        _ => own_server(own).await?,
    };
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// Connect to the container's own server, on whichever loopback it listens: the client would have
/// tried the other one itself, had nobody accepted.
async fn own_server(own: SocketAddr) -> io::Result<TcpStream> {
    match connect(own).await {
        Ok(server) => Ok(server),
        Err(error) => {
            let other = match own.ip() {
                IpAddr::V4(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            };
            connect(SocketAddr::new(other, own.port()))
                .await
                .map_err(|_| error)
        }
    }
}

/// Connect past the rule.
async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(target),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_mark(MARK)?;
    socket.set_nonblocking(true)?;
    tokio::net::TcpSocket::from_std_stream(socket.into())
        .connect(target)
        .await
}

/// The name the client asks for, without taking the bytes off the connection.
async fn name(client: &TcpStream, speaks: Speaks) -> io::Result<Option<String>> {
    let mut seen = vec![0; PREFACE_BYTES];
    let mut before = 0;
    loop {
        let length = client.peek(&mut seen).await?;
        if length == 0 {
            return Ok(None);
        }
        match find(&seen[..length], speaks) {
            Found::Name(name) => return Ok(Some(name)),
            Found::Nothing => return Ok(None),
            Found::More if length == PREFACE_BYTES => return Ok(None),
            // peek returns at once while bytes are there: wait for more of them
            Found::More if length == before => tokio::time::sleep(Duration::from_millis(5)).await,
            Found::More => before = length,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Name(String),
    Nothing,
    More,
}

fn find(seen: &[u8], speaks: Speaks) -> Found {
    match speaks {
        Speaks::Http => find_host(seen),
        Speaks::Tls => find_server_name(seen),
    }
}

fn find_host(seen: &[u8]) -> Found {
    const HEADERS: usize = 64;
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(seen) {
        Err(_) => return Found::Nothing,
        Ok(httparse::Status::Partial) => {}
        Ok(httparse::Status::Complete(_)) => {}
    }
    let complete = seen.windows(4).any(|window| window == b"\r\n\r\n");
    let host = request
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("host"));
    match host {
        Some(host) if complete || !host.value.is_empty() => {
            let text = String::from_utf8_lossy(host.value);
            let name = text.rsplit_once(':').map_or(&*text, |(name, port)| {
                if port.bytes().all(|byte| byte.is_ascii_digit()) {
                    name
                } else {
                    &*text
                }
            });
            Found::Name(name.to_ascii_lowercase())
        }
        _ if complete => Found::Nothing,
        _ => Found::More,
    }
}

fn find_server_name(seen: &[u8]) -> Found {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut rest = seen;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return Found::Nothing;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                return accepted
                    .client_hello()
                    .server_name()
                    .map_or(Found::Nothing, |name| {
                        Found::Name(name.to_ascii_lowercase())
                    });
            }
            Ok(None) => {}
            Err(_) => return Found::Nothing,
        }
    }
    Found::More
}

/// Whether `name` is the domain or below it.
fn below(name: &str, domain: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == domain
        || name
            .strip_suffix(domain)
            .is_some_and(|labels| labels.ends_with('.') && labels.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_ports_are_taken_too() {
        let host = |http_port, https_port| Host {
            domain: "hoody.localhost".to_owned(),
            local: true,
            gateway: IpAddr::V4(Ipv4Addr::LOCALHOST),
            http_port,
            https_port,
            environment: std::collections::BTreeMap::new(),
        };
        let ports = |host: &Host| doors(host).iter().map(|door| door.port).collect::<Vec<_>>();
        assert_eq!(ports(&host(80, 443)), [80, 443]);
        assert_eq!(ports(&host(8080, 8443)), [80, 443, 8080, 8443]);
        let doors = doors(&host(8080, 443));
        assert_eq!(
            doors.last().map(|door| (door.port, door.taken)),
            Some((8080, TAKEN + 2))
        );
    }

    #[test]
    fn names_below_the_domain_are_the_proxys() {
        let check =
            |name: &str, want: bool| assert_eq!(below(name, "hoody.localhost"), want, "{name}");
        check("hoody.localhost", true);
        check("api.hoody.localhost", true);
        check("a-b-terminal-1.node.containers.hoody.localhost.", true);
        check("localhost", false);
        check("evilhoody.localhost", false);
        check(".hoody.localhost", false);
        check("127.0.0.1", false);
    }

    #[test]
    fn the_host_header_is_found_wherever_it_stands() {
        let check =
            |text: &str, want: Found| assert_eq!(find_host(text.as_bytes()), want, "{text:?}");
        let name = |text: &str| Found::Name(text.to_owned());
        check(
            "GET / HTTP/1.1\r\nHost: API.hoody.localhost:80\r\n\r\n",
            name("api.hoody.localhost"),
        );
        check(
            "GET / HTTP/1.1\r\nAccept: */*\r\nhost: a\r\n\r\n",
            name("a"),
        );
        check("GET / HTTP/1.1\r\nAccept: */*\r\n", Found::More);
        check("GET / HTTP/1.1\r\nAccept: */*\r\n\r\n", Found::Nothing);
        check("\x16\x03\x01 what is this", Found::Nothing);
    }

    #[test]
    fn the_server_name_is_found_in_a_client_hello() {
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
        let name = "api.hoody.localhost".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        assert_eq!(
            find_server_name(&hello),
            Found::Name("api.hoody.localhost".to_owned())
        );
        assert_eq!(find_server_name(&hello[..20]), Found::More);
        assert_eq!(find_server_name(b"GET / HTTP/1.1\r\n\r\n"), Found::Nothing);
    }
}
