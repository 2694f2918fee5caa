use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

fn upstream(kind: Kind, password: Option<&str>) -> Upstream {
    Upstream {
        kind,
        host: "proxy.test".to_owned(),
        port: 1080,
        credentials: password.map(|password| Credentials {
            user: "me".to_owned(),
            password: password.to_owned(),
        }),
        dns: Vec::new(),
    }
}

const MEANT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 7), 443);

/// What a proxy hears that says `answers`, each after having heard `lengths` bytes.
async fn hear(mut proxy: DuplexStream, script: Vec<(usize, Vec<u8>)>) -> Vec<u8> {
    let mut heard = Vec::new();
    for (length, answer) in script {
        let mut bytes = vec![0; length];
        if proxy.read_exact(&mut bytes).await.is_err() {
            break;
        }
        heard.extend(bytes);
        if proxy.write_all(&answer).await.is_err() {
            break;
        }
    }
    heard
}

async fn ask(upstream: &Upstream, script: Vec<(usize, Vec<u8>)>) -> (io::Result<Vec<u8>>, Vec<u8>) {
    let (mut out, proxy) = tokio::io::duplex(1024);
    let hearing = tokio::spawn(hear(proxy, script));
    let asked = upstream::ask(&mut out, upstream, MEANT).await;
    let rest = async {
        asked?;
        let mut rest = Vec::new();
        out.read_to_end(&mut rest).await?;
        Ok(rest)
    };
    let rest = rest.await;
    drop(out);
    (rest, hearing.await.unwrap())
}

#[tokio::test]
async fn socks_is_spoken_with_and_without_a_password() {
    let bound = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let mut last = bound.to_vec();
    last.extend(b"hello");
    let request = [5, 1, 0, 1, 192, 0, 2, 7, 1, 187];
    let plain = upstream(Kind::Socks5, None);
    let (rest, heard) = ask(&plain, vec![(3, vec![5, 0]), (10, last.clone())]).await;
    assert_eq!(rest.unwrap(), b"hello", "what follows is the connection's");
    assert_eq!(heard, [&[5, 1, 0][..], &request[..]].concat());

    let secret = upstream(Kind::Socks5, Some("pw"));
    let script = vec![(4, vec![5, 2]), (7, vec![1, 0]), (10, last)];
    let (rest, heard) = ask(&secret, script).await;
    assert_eq!(rest.unwrap(), b"hello");
    let said = b"\x05\x02\x00\x02\x01\x02me\x02pw";
    assert_eq!(heard, [&said[..], &request[..]].concat());
}

#[tokio::test]
async fn a_proxy_that_refuses_carries_nothing() {
    let plain = upstream(Kind::Socks5, None);
    let secret = upstream(Kind::Socks5, Some("pw"));
    for (upstream, script) in [
        (&plain, vec![(3, vec![5, 255])]),
        (&plain, vec![(3, vec![5, 2])]),
        (&plain, vec![(3, vec![4, 0])]),
        (&secret, vec![(4, vec![5, 2]), (7, vec![1, 1])]),
        (&plain, vec![(3, vec![5, 0]), (10, vec![5, 2, 0, 1])]),
        (&plain, vec![(3, vec![5, 0]), (10, vec![5, 0, 0, 9])]),
        (&plain, vec![(3, vec![5])]),
    ] {
        let (rest, _) = ask(upstream, script.clone()).await;
        assert!(rest.is_err(), "{script:?}");
    }
    let length = b"CONNECT 192.0.2.7:443 HTTP/1.1\r\nHost: 192.0.2.7:443\r\n\r\n".len();
    let http = upstream(Kind::Http, None);
    for answer in [
        "HTTP/1.1 403 Forbidden\r\n\r\n",
        "HTTP/1.1 407 Who?\r\n\r\n",
        "SSH-2.0 200 x\r\n\r\n",
        "HTTP/1.1 200 OK\r\n",
        &format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(9 << 10)),
    ] {
        let (rest, _) = ask(&http, vec![(length, answer.as_bytes().to_vec())]).await;
        assert!(rest.is_err(), "{answer:.40}");
    }
}

#[tokio::test]
async fn connect_is_spoken_with_credentials() {
    let said = "CONNECT 192.0.2.7:443 HTTP/1.1\r\nHost: 192.0.2.7:443\r\n\
        Proxy-Authorization: Basic bWU6cHc=\r\n\r\n";
    let http = upstream(Kind::Http, Some("pw"));
    let answer = b"HTTP/1.0 200 Go on\r\nVia: x\r\n\r\nhello".to_vec();
    let (rest, heard) = ask(&http, vec![(said.len(), answer)]).await;
    assert_eq!(rest.unwrap(), b"hello");
    assert_eq!(String::from_utf8(heard).unwrap(), said);
}

#[test]
fn credentials_are_not_shown() {
    let text = format!("{:?}", upstream(Kind::Socks5, Some("hush")));
    assert!(!text.contains("hush") && !text.contains("\"me\""), "{text}");
}

fn relay(reach: Reach, socket: PathBuf) -> Relay {
    Relay {
        settings: Arc::new(Settings {
            address: Ipv4Addr::LOCALHOST,
            port: 0,
            names: 0,
            socket,
            reach,
        }),
        entries: Arc::default(),
        all: Arc::new(Semaphore::new(IN_ALL)),
    }
}

#[tokio::test]
async fn neither_the_host_nor_clouds_are_a_proxy() {
    let relay = relay(Reach::Beyond, "/nonexistent".into());
    for address in [
        "127.0.0.1:1080",
        "127.9.9.9:80",
        "0.0.0.0:80",
        "169.254.169.254:80",
        "224.0.0.1:80",
        "[::1]:80",
        "[::ffff:127.0.0.1]:80",
    ] {
        assert!(!relay.reaches(address.parse().unwrap()).await, "{address}");
    }
}

/// A change of one machine's upstream ends its connections and nobody else's.
#[test]
fn a_table_ends_what_it_does_not_name() {
    let relay = relay(Reach::Anywhere, "/nonexistent".into());
    let (one, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let table = |password| {
        Table::from([
            (one, upstream(Kind::Http, Some(password))),
            (other, upstream(Kind::Http, None)),
        ])
    };
    relay.take(table("a"));
    let (first, second) = (
        relay.find(one.into()).unwrap(),
        relay.find(other.into()).unwrap(),
    );
    relay.take(table("a"));
    assert!(!first.over.is_cancelled());
    relay.take(table("b"));
    assert!(first.over.is_cancelled() && !second.over.is_cancelled());
    relay.take(Table::new());
    assert!(second.over.is_cancelled() && relay.find(other.into()).is_none());
}

#[tokio::test]
async fn a_relay_that_was_away_is_told_again() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("relay.sock");
    let link = link::Link::new(socket.clone());
    let address = Ipv4Addr::new(10, 0, 0, 1);
    let table = Table::from([(address, upstream(Kind::Socks5, Some("pw")))]);
    for _ in 0..2 {
        let relay = relay(Reach::Anywhere, socket.clone());
        let told = link::listen(&socket).unwrap();
        let serving = tokio::spawn({
            let relay = relay.clone();
            async move { link::serve(&told, &relay).await }
        });
        while relay.find(address.into()).is_none() {
            link.tell(table.clone()).await; // it may not have noticed yet that the first is gone
            tokio::task::yield_now().await;
        }
        let entry = relay.find(address.into()).unwrap();
        assert_eq!(entry.upstream, table[&address]);
        serving.abort();
        serving.await.ok();
    }
}
