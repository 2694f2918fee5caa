//! The proxy as a node runs it, with a routing table that is fed to it as control does.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use routes::table::{Ack, Change, Place, Update};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use serde_json::json;

use super::ground::{DOMAIN, Ground, LARGE, LARGE_ROUTE, NODE, PROJECT, SMALL, container, zone};

/// Serve until the process is ended.
pub async fn serve(
    http: SocketAddr,
    https: SocketAddr,
    directory: &Path,
    state: &Path,
) -> anyhow::Result<()> {
    let mut config = proxy::Config::new(zone(), state);
    config.http = vec![http];
    config.https = vec![https];
    config.workers = 1;
    let certificate = CertificateDer::from_pem_file(directory.join("certificate.pem"))?;
    let key = PrivateKeyDer::from_pem_file(directory.join("key.pem"))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
    let certificate = Arc::new(rustls::sign::CertifiedKey::new(vec![certificate], key));
    let mut names = certs::Names::default();
    names.insert(&format!("*.{NODE}.containers.{DOMAIN}"), certificate);
    let resolver = Arc::new(certs::Resolver::new(names));
    Box::pin(proxy::run(config, resolver, |_| {}, std::future::pending())).await?;
    Ok(())
}

/// The place of a route, whose upstream's socket is in this directory.
pub fn place(directory: PathBuf, route: usize) -> anyhow::Result<Place> {
    // Written as the feed writes it: what a place may have beside this stays away.
    Ok(serde_json::from_value(json!({
        "container": container(route),
        "project": PROJECT,
        "name": format!("box-{route}"),
        "state": "running",
        "incarnation": 1,
        "directory": directory,
        "owners": { "base": rustix::process::getuid().as_raw(), "count": 1 },
    }))?)
}

/// Send it this many routes and wait until they are in effect.
pub fn feed(ground: &Ground, state: &Path, routes: usize) -> anyhow::Result<UnixStream> {
    let feed = state.join("run/feed.sock");
    let places = (0..routes)
        .map(|route| {
            let upstream = if route == LARGE_ROUTE { LARGE } else { SMALL };
            place(ground.upstream(upstream), route)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let update = Update {
        generation: 1,
        change: Change::Replace(places),
    };
    let mut line = serde_json::to_vec(&update)?;
    line.push(b'\n');
    let mut control = UnixStream::connect(&feed).context("the feed's socket")?;
    control.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(&control).read_line(&mut answer)?;
    let ack: Ack = serde_json::from_str(&answer).context("no answer of the feed")?;
    ensure!(ack.generation == 1, "the table is not in effect");
    Ok(control)
}
