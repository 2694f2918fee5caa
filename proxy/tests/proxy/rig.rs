//! A proxy with containers behind it and clients in front.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proxy::{AccessLog, Config, Proxy};
use routes::domain::Alias;
use routes::sleep::Sleep;
use routes::table::{Ack, Change, KIT_SOCKET, Owners, Place, State, Update};
use routes::{Id, Zone};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

use crate::kit::Kit;

pub const NODE: &str = "box1";
/// What stands after the name of an alias.
pub const ZONE: &str = "box1.containers.hoody.localhost";

pub struct Rig {
    pub directory: TempDir,
    /// The newest; those before it drain.
    proxy: Mutex<Option<Proxy>>,
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub metrics: SocketAddr,
    pub config: Config,
    certs: Arc<Certs>,
    feed: Option<Feed>,
    made: AtomicU8,
}

/// A container behind the proxy, with its kit.
pub struct Container {
    pub place: Place,
    pub kit: Option<Kit>,
}

impl Container {
    pub fn label(&self, door: &str) -> String {
        format!("{}-{}-{door}", self.place.project, self.place.container)
    }

    /// The hostname of something in it.
    pub fn host(&self, door: &str) -> String {
        format!("{}.{NODE}.containers.hoody.localhost", self.label(door))
    }

    pub fn socket(&self) -> PathBuf {
        self.place.directory.join(KIT_SOCKET)
    }

    pub fn seen(&self) -> &crate::kit::Seen {
        &self.kit.as_ref().expect("it has a kit").seen
    }
}

pub const API: &str = "api.hoody.localhost";

impl Rig {
    pub async fn start() -> Rig {
        Rig::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Rig {
        let directory = tempfile::tempdir().expect("a directory");
        let zone = Zone::new("hoody.localhost", NODE).expect("a zone");
        let mut config = Config::new(zone, directory.path());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        (config.http, config.https, config.metrics) = (vec![any], vec![any], Some(any));
        config.workers = 2;
        config.limits.drain = Duration::from_secs(2);
        change(&mut config);
        let certs = Arc::new(Certs::new());
        let proxy = Proxy::start(config.clone(), certs.clone()).expect("it starts");
        let mut rig = Rig {
            http: proxy.bound().http[0],
            https: proxy.bound().https[0],
            metrics: proxy.bound().metrics.expect("it was asked for"),
            proxy: Mutex::new(Some(proxy)),
            directory,
            config,
            certs,
            feed: None,
            made: AtomicU8::new(1),
        };
        rig.push(1, Change::Replace(vec![])).await;
        rig
    }

    /// Stop it and start it again, without control.
    pub async fn restart(&mut self) {
        self.feed = None;
        self.take().stop().await;
        let proxy = Proxy::start(self.config.clone(), self.certs.clone()).expect("it starts");
        (self.http, self.https) = (proxy.bound().http[0], proxy.bound().https[0]);
        self.proxy = Mutex::new(Some(proxy));
    }

    /// The proxy, to be stopped.
    pub fn take(&self) -> Proxy {
        let proxy = self.proxy.lock().expect("no panic").take();
        proxy.expect("it runs")
    }

    /// Take back one that was taken.
    pub fn put(&self, proxy: Proxy) {
        *self.proxy.lock().expect("no panic") = Some(proxy);
    }

    /// Start a proxy that takes the place of the newest one, which then leaves.
    pub async fn succeed(&self, meanwhile: impl AsyncFn()) {
        let (config, certs) = (self.config.clone(), self.certs.clone());
        let start = move || Proxy::start(config, certs).expect("it starts");
        let new = tokio::task::spawn_blocking(start).await.expect("no panic");
        let old = self.proxy.lock().expect("no panic").replace(new);
        let old = old.expect("it runs");
        old.handed_over().await;
        tokio::spawn(old.leave());
        meanwhile().await;
    }

    /// The newest proxy ends like one that was killed, and another one starts in its place.
    pub async fn crash(&mut self) {
        drop(self.take());
        self.feed = None;
        let (config, certs) = (self.config.clone(), self.certs.clone());
        let start = move || Proxy::start(config, certs).expect("it starts");
        let new = tokio::task::spawn_blocking(start).await.expect("no panic");
        (self.http, self.https) = (new.bound().http[0], new.bound().https[0]);
        self.proxy = Mutex::new(Some(new));
    }

    /// Let control connect again with its next word, as it does when a proxy hangs up.
    pub fn hang_up(&mut self) {
        self.feed = None;
    }

    /// The certificate that clients trust.
    pub fn root(&self) -> &[u8] {
        &self.certs.root
    }

    /// Where the newest successor listens.
    pub fn latest(&self) -> SocketAddr {
        let proxy = self.proxy.lock().expect("no panic");
        proxy.as_ref().expect("it runs").bound().http[0]
    }

    /// Where it listens.
    pub fn bound(&self) -> proxy::Bound {
        let proxy = self.proxy.lock().expect("nobody panics with it");
        proxy.as_ref().expect("it runs").bound().clone()
    }

    /// Send a change as control does, and wait until it is in effect.
    pub async fn push(&mut self, generation: u64, change: Change) {
        if self.feed.is_none() {
            self.feed = Some(Feed::connect(&self.config).await);
        }
        let update = Update { generation, change };
        let feed = self.feed.as_mut().expect("it was just made");
        assert_eq!(feed.send(&update).await, Some(Ack { generation }));
    }

    fn next(&self) -> u8 {
        self.made.fetch_add(1, Ordering::SeqCst)
    }

    /// A container in this state, whose kit serves.
    pub async fn container(&mut self, state: State) -> Container {
        let number = self.next();
        let directory = self.directory.path().join(format!("containers/{number}"));
        std::fs::create_dir_all(&directory).expect("a directory");
        let kit = Kit::serve(&directory.join(KIT_SOCKET));
        let uid = rustix::process::geteuid().as_raw();
        let place = Place {
            container: Id([number; 12]),
            project: Id([0xee; 12]),
            name: format!("web{number}"),
            state,
            incarnation: 1,
            directory,
            owners: Owners {
                base: uid,
                count: 1,
            },
            access: None,
            links: None,
            hooks: None,
            address: None,
            embedding: Default::default(),
            sleep: Sleep {
                wakes: false, // what is asleep says so at once
                idle: None,
            },
        };
        self.upsert(&place).await;
        Container {
            place,
            kit: Some(kit),
        }
    }

    pub async fn running(&mut self) -> Container {
        self.container(State::Running).await
    }

    pub async fn upsert(&mut self, place: &Place) {
        let generation = u64::from(self.next()) + 1;
        self.push(generation, Change::Upsert(place.clone())).await;
    }

    /// Control's API.
    pub fn control(&self) -> Kit {
        Kit::serve(&self.config.control)
    }

    // ---- clients

    pub async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.http).await.expect("it listens")
    }

    pub async fn tls(
        &self,
        sni: &str,
        alpn: &[&[u8]],
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        self.tls_after(b"", sni, alpn).await
    }

    /// A TLS connection on which something else is written first.
    pub async fn tls_after(
        &self,
        first: &[u8],
        sni: &str,
        alpn: &[&[u8]],
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certs.root.clone()).expect("a root");
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = rustls::ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let mut socket = TcpStream::connect(self.https).await?;
        socket.write_all(first).await?;
        let name = ServerName::try_from(sni.to_owned()).expect("a name");
        tokio_rustls::TlsConnector::from(Arc::new(client))
            .connect(name, socket)
            .await
    }

    /// One request over a connection of its own, plain HTTP/1.1.
    pub async fn send<B>(&self, request: Request<B>) -> Response<Incoming>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(self.tcp().await))
                .await
                .expect("a connection");
        tokio::spawn(connection);
        sender.send_request(request).await.expect("an answer")
    }

    pub async fn h2(&self, sni: &str) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
        let stream = self.tls(sni, &[b"h2"]).await.expect("a connection");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("a connection");
        tokio::spawn(connection);
        sender
    }

    pub async fn get(&self, host: &str, path: &str) -> Heard {
        self.ask(Request::get(path).header("host", host)).await
    }

    pub async fn ask(&self, request: http::request::Builder) -> Heard {
        let request = request.body(Full::new(Bytes::new())).expect("a request");
        Heard::from(self.send(request).await).await
    }

    /// One request over TLS, HTTP/1.1.
    pub async fn secured(&self, host: &str, path: &str) -> Heard {
        let stream = self.tls(host, &[b"http/1.1"]).await.expect("a connection");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("a connection");
        tokio::spawn(connection);
        let ask = Request::get(path).header("host", host);
        let ask = ask.body(Full::new(Bytes::new())).expect("a request");
        Heard::from(sender.send_request(ask).await.expect("an answer")).await
    }

    /// Write these bytes and read until the connection ends.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut socket = self.tcp().await;
        socket.write_all(bytes).await.expect("written");
        let mut answer = Vec::new();
        let read = socket.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(5), read)
            .await
            .expect("it closes");
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub async fn metric(&self, line: &str) -> f64 {
        let mut socket = TcpStream::connect(self.metrics).await.expect("it listens");
        socket
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n")
            .await
            .expect("written");
        let mut text = String::new();
        socket.read_to_string(&mut text).await.expect("read");
        text.lines()
            .find_map(|row| row.strip_prefix(line)?.trim().parse().ok())
            .unwrap_or(0.0)
    }

    /// A metric comes to this value. What it counts may end after its client was answered.
    #[track_caller]
    pub fn comes_to<'a>(&'a self, line: &'a str, value: f64) -> impl Future<Output = ()> + 'a {
        let place = std::panic::Location::caller();
        async move {
            let mut last = f64::NAN;
            for _ in 0..500 {
                last = self.metric(line).await;
                if last == value {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("{place}: {line} is {last} and not {value}");
        }
    }

    /// The access log so far.
    pub fn log(&self) -> Vec<Value> {
        let AccessLog::File(path) = &self.config.access_log else {
            return vec![];
        };
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line is JSON"))
            .collect()
    }

    /// Wait for the log to hold a line about this target.
    pub async fn logged(&self, target: &str) -> Value {
        eventually(|| self.log().into_iter().find(|line| line["target"] == target)).await
    }
}

/// An alias that leads to a container without more.
pub fn alias(name: &str, to: &Container, door: &str) -> Alias {
    Alias {
        name: name.into(),
        container: to.place.container,
        door: door.parse().expect("a door"),
        target: None,
        pinned: false,
        expires: None,
    }
}

/// The host of an alias.
pub fn alias_host(name: &str) -> String {
    format!("{name}.{ZONE}")
}

/// Wait for something that must come.
pub async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..500 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come within 5 s");
}

/// A whole answer.
#[derive(Debug)]
pub struct Heard {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Heard {
    pub async fn from(response: Response<Incoming>) -> Heard {
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Heard {
            status: head.status,
            headers: head.headers,
            body,
        }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The code of a refusal.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().expect("a code").to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The values of a header as the kit saw it.
    pub fn told(&self, name: &str) -> Vec<String> {
        let told = self.json();
        let headers = told["headers"].as_array().expect("headers").clone();
        headers
            .into_iter()
            .filter(|pair| pair[0] == name)
            .map(|pair| pair[1].as_str().expect("text").to_owned())
            .collect()
    }
}

/// Control's side of the feed.
pub struct Feed {
    stream: BufReader<UnixStream>,
}

impl Feed {
    pub async fn connect(config: &Config) -> Feed {
        let stream = UnixStream::connect(&config.feed)
            .await
            .expect("the feed listens");
        Feed {
            stream: BufReader::new(stream),
        }
    }

    pub async fn send(&mut self, update: &Update) -> Option<Ack> {
        let line = serde_json::to_string(update).expect("JSON");
        self.line(&line).await
    }

    /// Send a line; nothing where it is answered by the end of the connection.
    pub async fn line(&mut self, line: &str) -> Option<Ack> {
        let line = format!("{line}\n");
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .await
            .ok()?;
        self.answer().await
    }

    pub async fn answer(&mut self) -> Option<Ack> {
        let mut answer = String::new();
        match self.stream.read_line(&mut answer).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(serde_json::from_str(&answer).expect("an ack")),
        }
    }

    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes).await
    }
}

/// One certificate for every name of the zone.
#[derive(Debug)]
struct Certs {
    root: CertificateDer<'static>,
    key: Arc<CertifiedKey>,
}

impl Certs {
    fn new() -> Certs {
        let names = [
            API.to_owned(),
            format!("*.{API}"),
            format!("*.{NODE}.containers.hoody.localhost"),
            "*.hoody.example".to_owned(),
            format!("*.{NODE}.containers.hoody.example"),
        ];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let root = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let key = rustls::crypto::ring::sign::any_supported_type(&key.into()).expect("a key");
        Certs {
            key: Arc::new(CertifiedKey::new(vec![root.clone()], key)),
            root,
        }
    }
}

impl ResolvesServerCert for Certs {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let known = hello.server_name().is_some_and(|name| {
            name.ends_with("hoody.localhost") || name.ends_with("hoody.example")
        });
        known.then(|| self.key.clone())
    }
}
