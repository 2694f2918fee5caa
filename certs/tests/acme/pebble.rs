//! A real directory to test with: pebble, as Debian packages it, and what it asks.
//!
//! It rejects one good nonce in twenty and uses what it knows of a name in every second order, as
//! it comes. Its looks at names are delayed where a test says so.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use certs::{ChallengeError, DnsChallenge};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::UdpSocket;

/// How long pebble may take to be there.
const START: Duration = Duration::from_secs(30);

pub struct Pebble {
    child: Child,
    setup: Setup,
    pub directory: String,
    management: String,
    files: tempfile::TempDir,
}

/// How a pebble is started.
#[derive(Clone)]
pub struct Setup {
    pub dns: SocketAddr,
    /// Ports that it asks names on.
    pub http: u16,
    pub tls: u16,
    /// Seconds that a look is delayed by, up to. Nothing: as it comes, up to 15.
    pub delay: Option<u32>,
    /// External accounts that there are, and have to be bound to: id and key in base64url.
    pub external: Vec<(&'static str, &'static str)>,
}

impl Setup {
    pub fn new(dns: &Names) -> Setup {
        Setup {
            dns: dns.address,
            http: 1,
            tls: 1,
            delay: Some(0),
            external: Vec::new(),
        }
    }
}

impl Pebble {
    pub async fn start(setup: Setup) -> Pebble {
        let files = tempfile::tempdir().unwrap();
        write_certificates(files.path());
        let ports = free_ports();
        Pebble::start_at(setup, files, ports).await
    }

    /// The same again, having forgotten everything.
    pub async fn forget(mut self) -> Pebble {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let ports = [&self.directory, &self.management].map(|url| {
            let url: reqwest::Url = url.parse().unwrap();
            url.port().unwrap()
        });
        let files = std::mem::replace(&mut self.files, tempfile::tempdir().unwrap());
        Pebble::start_at(self.setup.clone(), files, ports).await
    }

    async fn start_at(setup: Setup, files: tempfile::TempDir, ports: [u16; 2]) -> Pebble {
        let at = files.path();
        let keys: HashMap<_, _> = setup.external.iter().copied().collect();
        let config = serde_json::json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{}", ports[0]),
            "managementListenAddress": format!("127.0.0.1:{}", ports[1]),
            "certificate": at.join("leaf.pem"),
            "privateKey": at.join("leaf.key"),
            "httpPort": setup.http,
            "tlsPort": setup.tls,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": !setup.external.is_empty(),
            "externalAccountMACKeys": keys,
        }});
        std::fs::write(at.join("config.json"), config.to_string()).unwrap();
        let mut command = Command::new("pebble");
        command
            .arg("-config")
            .arg(at.join("config.json"))
            .arg("-dnsserver")
            .arg(setup.dns.to_string())
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(at.join("log")).unwrap())
            .stderr(std::fs::File::create(at.join("errors")).unwrap());
        match setup.delay {
            Some(0) => command.env("PEBBLE_VA_NOSLEEP", "1"),
            Some(seconds) => command.env("PEBBLE_VA_SLEEPTIME", seconds.to_string()),
            None => &mut command,
        };
        let child = command
            .spawn()
            .expect("pebble is installed: hoody/setup/packages.sh test");
        let pebble = Pebble {
            child,
            setup,
            directory: format!("https://127.0.0.1:{}/dir", ports[0]),
            management: format!("https://127.0.0.1:{}", ports[1]),
            files,
        };
        let there = pebble.wait();
        tokio::time::timeout(START, there)
            .await
            .unwrap_or_else(|_| panic!("pebble does not start: {}", pebble.log()));
        pebble
    }

    async fn wait(&self) {
        let client = self.client();
        while client.get(&self.directory).send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn client(&self) -> reqwest::Client {
        let root = std::fs::read(self.root()).unwrap();
        reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&root).unwrap()])
            .build()
            .unwrap()
    }

    /// The root of its own HTTPS.
    pub fn root(&self) -> PathBuf {
        self.files.path().join("root.pem")
    }

    /// The root of what it issues, which it makes anew with every start.
    pub async fn issuing_root(&self) -> String {
        self.manage("roots/0").await
    }

    /// What it says of a certificate it issued, by its serial number in hexadecimal.
    pub async fn status(&self, serial: &str) -> serde_json::Value {
        let text = self
            .manage(&format!("cert-status-by-serial/{serial}"))
            .await;
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn manage(&self, path: &str) -> String {
        let url = format!("{}/{path}", self.management);
        let answer = self.client().get(url).send().await.unwrap();
        answer.text().await.unwrap()
    }

    pub fn log(&self) -> String {
        ["log", "errors"]
            .map(|name| std::fs::read_to_string(self.files.path().join(name)).unwrap_or_default())
            .join("\n")
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_ports() -> [u16; 2] {
    let bound = [0, 0].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    bound.map(|listener| listener.local_addr().unwrap().port())
}

fn write_certificates(at: &Path) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    std::fs::write(at.join("root.pem"), root.pem()).unwrap();
    std::fs::write(at.join("leaf.pem"), leaf.pem()).unwrap();
    std::fs::write(at.join("leaf.key"), key.serialize_pem()).unwrap();
}

/// A DNS server for pebble: every name is at 127.0.0.1, and has the texts that were shown.
pub struct Names {
    pub address: SocketAddr,
    texts: Texts,
}

/// By name in lower case, without the last dot.
type Texts = Arc<Mutex<HashMap<String, Vec<String>>>>;

impl Names {
    pub async fn start() -> Arc<Names> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let texts = Texts::default();
        tokio::spawn(serve(socket, texts.clone()));
        Arc::new(Names { address, texts })
    }

    /// How many texts are shown.
    pub fn count(&self) -> usize {
        self.texts.lock().unwrap().values().map(Vec::len).sum()
    }
}

#[async_trait]
impl DnsChallenge for Names {
    async fn present(&self, name: &str, value: &str) -> Result<(), ChallengeError> {
        let mut texts = self.texts.lock().unwrap();
        let of_name = texts.entry(name.to_owned()).or_default();
        if !of_name.iter().any(|it| it == value) {
            of_name.push(value.to_owned());
        }
        Ok(())
    }

    async fn withdraw(&self, name: &str, value: &str) -> Result<(), ChallengeError> {
        if let Some(of_name) = self.texts.lock().unwrap().get_mut(name) {
            of_name.retain(|it| it != value);
        }
        Ok(())
    }
}

async fn serve(socket: UdpSocket, texts: Texts) {
    let mut packet = [0; 1500];
    while let Ok((length, client)) = socket.recv_from(&mut packet).await {
        let answer = answer(&packet[..length], &texts.lock().unwrap());
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

/// The answer to a question (RFC 1035, section 4): A and TXT, of one label after the other.
fn answer(packet: &[u8], texts: &HashMap<String, Vec<String>>) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(std::str::from_utf8(packet.get(at..at + length)?).ok()?);
        at += length;
    }
    let name = labels.join(".").to_ascii_lowercase();
    let kind = u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?);
    let question = packet.get(12..at + 4)?;
    let records: Vec<Vec<u8>> = match kind {
        1 => vec![vec![127, 0, 0, 1]],
        16 => texts
            .get(&name)
            .into_iter()
            .flatten()
            .map(|text| [&[text.len() as u8], text.as_bytes()].concat())
            .collect(),
        _ => Vec::new(),
    };
    let mut answer = packet[..2].to_vec();
    answer.extend([0x85, 0x80, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    answer.extend(question);
    for data in records {
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 0]);
        answer.extend((data.len() as u16).to_be_bytes());
        answer.extend(data);
    }
    Some(answer)
}
