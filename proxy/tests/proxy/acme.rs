//! Certificates that are ordered when somebody asks, from a real directory that asks back.

#[allow(dead_code, clippy::unwrap_used)]
#[path = "../../../certs/tests/acme/pebble.rs"]
mod pebble;
#[allow(dead_code, clippy::unwrap_used)]
#[path = "../../../certs/tests/acme/rig.rs"]
mod rig;
#[allow(dead_code, clippy::unwrap_used)]
#[path = "../../../certs/tests/acme/wire.rs"]
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use certs::Acme;
use proxy::{AccessLog, Certificates, Config, Proxy, Resolvers};
use routes::domain::Alias;
use routes::table::{Change, KIT_SOCKET, Owners, Place, State, Update};
use routes::{Id, Zone};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::dns::Dns;
use crate::kit::Kit;
use crate::rig::Feed;
use rig::{DOMAIN, Rig};

const SHOP: &str = "shop.example.com";
/// Longer than an order takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node that the world reaches by a real domain.
struct Node {
    rig: Rig,
    acme: Arc<Acme>,
    proxy: Option<Proxy>,
    config: Config,
    http: SocketAddr,
    https: SocketAddr,
    _kit: Kit,
    _dns: Dns,
    _feed: Feed,
    _state: tempfile::TempDir,
}

impl Node {
    /// `is_http_open`: whether the directory reaches its port for plain HTTP.
    async fn start(is_http_open: bool) -> Node {
        let [http, https] = pebble::free_ports();
        let asked = if is_http_open { http } else { 1 };
        let rig = Rig::with(|setup| (setup.http, setup.tls) = (asked, https)).await;
        let acme = rig.node();
        let state = tempfile::tempdir().expect("a directory");
        let zone = Zone::new(DOMAIN, "node-1").expect("a zone");
        let mut config = Config::new(zone, state.path());
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        (config.http, config.https) = (vec![at(http)], vec![at(https)]);
        config.metrics = Some(at(0));
        config.access_log = AccessLog::Off;
        config.workers = 1;
        config.limits.drain = Duration::from_secs(1);
        config.certificates = Certificates {
            acme: Some(acme.clone()),
            holdings: Some(acme.clone()),
        };
        // One name leads to an alias here, and others do not.
        let dns = Dns::start().await;
        dns.leads(SHOP, &format!("shop.node-1.containers.{DOMAIN}"));
        config.resolvers = Resolvers::At(vec![dns.address]);
        let proxy = Proxy::start(config.clone(), acme.resolver()).expect("it starts");
        let certificates = acme.resolver();
        let domains = proxy.domains();
        domains.certified_by(move |host| certificates.find(host).is_some());
        let directory = state.path().join("containers/web");
        std::fs::create_dir_all(&directory).expect("a directory");
        let kit = Kit::serve(&directory.join(KIT_SOCKET));
        let mut feed = Feed::connect(&config).await;
        let place = Place {
            container: Id([1; 12]),
            project: Id([2; 12]),
            name: "web".into(),
            state: State::Running,
            incarnation: 1,
            directory,
            owners: Owners {
                base: rustix::process::geteuid().as_raw(),
                count: 1,
            },
            access: None,
            links: None,
            hooks: None,
            address: None,
            embedding: Default::default(),
            sleep: Default::default(),
        };
        let alias = Alias {
            name: "shop".into(),
            container: place.container,
            door: "http-3000".parse().expect("a door"),
            target: None,
            pinned: false,
            expires: None,
        };
        for (generation, change) in [
            (1, Change::Replace(vec![])),
            (2, Change::Upsert(place)),
            (3, Change::Alias(alias)),
        ] {
            let heard = feed.send(&Update { generation, change }).await;
            assert!(heard.is_some(), "the proxy takes it");
        }
        Node {
            rig,
            acme,
            proxy: Some(proxy),
            config,
            http: at(http),
            https: at(https),
            _kit: kit,
            _dns: dns,
            _feed: feed,
            _state: state,
        }
    }

    /// One plain request, as somebody with a browser sends it.
    async fn plain(&self, host: &str, path: &str) -> String {
        let mut socket = TcpStream::connect(self.http).await.expect("it listens");
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: text/html\r\nconnection: close\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    /// The status of a request over TLS, by somebody who trusts the directory.
    async fn secured(&self, host: &str, alpn: &[u8]) -> std::io::Result<String> {
        let root = self.rig.pebble.issuing_root().await;
        let mut roots = rustls::RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(root.as_bytes()).expect("a root");
        roots.add(root).expect("a root");
        let mut client = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![alpn.to_vec()];
        let socket = TcpStream::connect(self.https).await?;
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let mut stream = connector.connect(name, socket).await?;
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        Ok(answer.lines().next().unwrap_or_default().to_owned())
    }

    /// Order from now on, and have the node's own, which are ordered at the start.
    async fn own(&self) {
        self.acme.start().expect("it starts");
        let resolver = self.acme.resolver();
        let hosts = ["api", "x.node-1.containers"].map(|it| format!("{it}.{DOMAIN}"));
        let own = tokio::time::timeout(PATIENCE, async {
            while hosts.iter().any(|host| resolver.find(host).is_none()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        own.await.expect("they come");
    }

    async fn stop(mut self) {
        if let Some(proxy) = self.proxy.take() {
            proxy.stop().await;
        }
    }
}

#[tokio::test]
async fn the_first_visitor_of_a_domain_waits_for_its_certificate() {
    let node = Node::start(true).await;
    node.acme.start().expect("it starts");
    let answer = node.plain(SHOP, "/cart").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("retry-after: 5\r\n"), "{answer}");
    assert!(answer.contains("certificate_pending") && answer.contains("http-equiv=\"refresh\""));
    // A handshake waits by itself.
    let secured = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Ok(line) = node.secured(SHOP, b"http/1.1").await {
                return line;
            }
        }
    });
    let line = secured.await.expect("it comes");
    assert_eq!(line, "HTTP/1.1 200 OK", "the container answers");
    let answer = node.plain(SHOP, "/cart").await;
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    assert!(
        answer.contains(&format!("location: https://{SHOP}:")),
        "{answer}"
    );
    node.stop().await;
}

#[tokio::test]
async fn names_of_the_node_are_served_with_certificates_of_the_directory() {
    let node = Node::start(true).await;
    node.acme.tend().await;
    let control = Kit::serve(&node.config.control);
    let line = node.secured(&format!("api.{DOMAIN}"), b"http/1.1").await;
    assert_eq!(line.expect("a handshake"), "HTTP/1.1 200 OK");
    drop(control);
    let host = format!("some-alias.node-1.containers.{DOMAIN}");
    let line = node.secured(&host, b"http/1.1").await;
    assert_eq!(line.expect("a handshake"), "HTTP/1.1 404 Not Found");
    let mut metrics = TcpStream::connect(
        node.proxy
            .as_ref()
            .expect("it runs")
            .bound()
            .metrics
            .expect("it was asked for"),
    )
    .await
    .expect("it listens");
    let request = b"GET /metrics HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n";
    metrics.write_all(request).await.expect("written");
    let mut text = String::new();
    metrics.read_to_string(&mut text).await.expect("metrics");
    for class in ["api", "node"] {
        let line = format!("hoody_proxy_certificate_seconds_left{{class=\"{class}\"}} ");
        let left = text.lines().find_map(|it| it.strip_prefix(&line));
        let left: f64 = left
            .unwrap_or_else(|| panic!("no {line}"))
            .parse()
            .expect("a number");
        assert!(left > 24.0 * 3600.0, "{left}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_directory_may_look_on_the_port_of_https() {
    let node = Node::start(false).await;
    node.acme.start().expect("it starts");
    let first = node.secured(SHOP, b"http/1.1").await;
    assert!(first.is_err(), "port 80 is closed: {first:?}");
    let again = tokio::time::timeout(PATIENCE, async {
        loop {
            // Each failure makes the next wait longer.
            node.rig.clock.advance(Duration::from_secs(600));
            if let Ok(line) = node.secured(SHOP, b"http/1.1").await {
                return line;
            }
        }
    });
    again.await.expect("it comes");
    // What only looks is shown nothing when there is nothing to see, and never more than that.
    for host in [SHOP, "other.example.com", &format!("api.{DOMAIN}")] {
        let looked = node.secured(host, b"acme-tls/1").await;
        assert!(looked.is_err(), "{host}: {looked:?}");
    }
    node.stop().await;
}

/// A host of a script of the node's container.
fn script(subdir: &str) -> String {
    let (project, container) = (Id([2; 12]), Id([1; 12]));
    format!("{subdir}.{project}-{container}-exec-1.node-1.containers.{DOMAIN}")
}

#[tokio::test]
async fn hosts_of_scripts_have_certificates_of_their_own_once_their_directory_exists() {
    let node = Node::start(true).await;
    node.own().await;
    let orders = node.rig.wire.orders();
    // What its container does not have is not ordered.
    for subdir in ["nothing", "shop-2"] {
        let secured = node.secured(&script(subdir), b"http/1.1").await;
        assert!(secured.is_err(), "{subdir}: {secured:?}");
    }
    let elsewhere = script("shop").replace("-exec-1.", "-http-1.");
    assert!(node.secured(&elsewhere, b"http/1.1").await.is_err());
    let stranger = script("shop").replace(&Id([1; 12]).to_string(), &Id([3; 12]).to_string());
    assert!(node.secured(&stranger, b"http/1.1").await.is_err());
    assert_eq!(node.rig.wire.orders(), orders);
    let secured = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Ok(line) = node.secured(&script("shop"), b"http/1.1").await {
                return line;
            }
        }
    });
    let line = secured.await.expect("it comes");
    assert_eq!(line, "HTTP/1.1 200 OK", "the container answers");
    assert_eq!(node.rig.wire.orders(), orders + 1);
    node.stop().await;
}

#[tokio::test]
async fn a_scanner_of_names_makes_no_order_and_learns_nothing() {
    let node = Node::start(true).await;
    node.own().await;
    let orders = node.rig.wire.orders();
    for number in 0..200 {
        let host = format!("h{number}.scanned.example");
        let secured = node.secured(&host, b"http/1.1").await;
        assert!(secured.is_err(), "{host}: {secured:?}");
        let path = format!("/.well-known/acme-challenge/token{number}");
        let answer = node.plain(&host, &path).await;
        assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_eq!(node.rig.wire.orders(), orders);
    node.stop().await;
}
