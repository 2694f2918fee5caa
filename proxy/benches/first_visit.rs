//! How long the first visitor of a domain waits: from a plain request to the first answer over
//! HTTPS, with a certificate that was ordered meanwhile. The directory is pebble on this machine,
//! once at full speed and once as it comes, when it delays each look by up to 15 s.
//!
//! `cargo bench -p proxy --bench first_visit`

#![allow(clippy::unwrap_used, dead_code)]

#[path = "../../certs/tests/acme/pebble.rs"]
mod pebble;
#[path = "../../certs/tests/acme/rig.rs"]
mod rig;
#[path = "../../certs/tests/acme/wire.rs"]
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use certs::acme::Entitled;
use proxy::{AccessLog, Certificates, Config, Proxy};
use routes::Zone;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Domains that are visited for the first time, one after the other.
const VISITS: usize = 15;
/// What a browser waits between two tries after its first answer.
const AGAIN: Duration = Duration::from_millis(20);

struct Everybody;

#[async_trait]
impl Entitled for Everybody {
    fn may_be(&self, _: &str) -> bool {
        true
    }

    async fn entitled(&self, _: &str, _: Option<std::net::IpAddr>) -> Result<(), String> {
        Ok(())
    }
}

#[tokio::main]
async fn main() {
    for (what, delay) in [("at full speed", Some(0)), ("as it comes", None)] {
        let [http, https] = pebble::free_ports();
        let change = |setup: &mut pebble::Setup| {
            (setup.http, setup.tls, setup.delay) = (http, https, delay);
        };
        let mut rig = rig::Rig::with(change).await;
        rig.settings.targets.clear();
        rig.settings.limits.orders_per_hour = VISITS;
        let acme = rig.node();
        let state = tempfile::tempdir().unwrap();
        let zone = Zone::new(rig::DOMAIN, "node-1").unwrap();
        let mut config = Config::new(zone, state.path());
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        (config.http, config.https) = (vec![at(http)], vec![at(https)]);
        config.access_log = AccessLog::Off;
        config.certificates = Certificates {
            acme: Some(acme.clone()),
            holdings: None,
        };
        acme.plug(Arc::new(Everybody));
        let proxy = Proxy::start(config, acme.resolver()).unwrap();
        acme.start().unwrap();
        let root = rig.pebble.issuing_root().await;
        let mut times = Vec::new();
        for number in 0..VISITS {
            let host = format!("shop.first-{number}.com");
            let begun = Instant::now();
            plain(at(http), &host).await;
            while secured(at(https), &host, &root).await.is_err() {
                tokio::time::sleep(AGAIN).await;
            }
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        println!(
            "{what}: median {} ms, least {} ms, most {} ms of {VISITS}",
            times[VISITS / 2].as_millis(),
            times[0].as_millis(),
            times[VISITS - 1].as_millis()
        );
        proxy.stop().await;
    }
}

async fn plain(at: SocketAddr, host: &str) -> String {
    let mut socket = TcpStream::connect(at).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn secured(at: SocketAddr, host: &str, root: &str) -> std::io::Result<()> {
    let mut roots = rustls::RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(root.as_bytes()).unwrap();
    roots.add(root).unwrap();
    let client = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let mut stream = connector
        .connect(name, TcpStream::connect(at).await?)
        .await?;
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.read_u8().await.map(drop)
}
