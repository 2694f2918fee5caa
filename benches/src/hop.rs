//! What the proxy adds to a reply of 1 KiB: the kit's socket asked directly, through the proxy, and
//! through nginx from the distribution's package with the same certificate kind and upstream.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::net::{TcpStream, UnixStream};

use crate::api::{Api, Container};
use crate::certificate;
use crate::figures::{percentile, summary};
use crate::server::{self, Server};

const REPLY_BYTES: usize = 1024;
const FILE: &str = "/api/v1/files/tmp/hop";

/// Requests one after another on one kept-alive connection, in `rounds` that take turns.
pub async fn ask(api: &Api, requests: usize, rounds: usize, state: &Path) -> anyhow::Result<Value> {
    let container = api.create("hop").await?;
    api.answered(&container, Instant::now()).await?;
    api.put(&container, "files", FILE, vec![b'x'; REPLY_BYTES])
        .await?;
    let measured = measure(&container, requests, rounds, state).await;
    api.delete(&container).await?;
    measured
}

async fn measure(
    container: &Container,
    requests: usize,
    rounds: usize,
    state: &Path,
) -> anyhow::Result<Value> {
    // Without an engine, the directory that is shared with the proxy is one deeper.
    let directory = state.join("containers").join(&container.id);
    let socket = ["kit.sock", "run/kit.sock"]
        .map(|name| directory.join(name))
        .into_iter()
        .find(|socket| socket.exists())
        .with_context(|| format!("no socket of a kit in {}", directory.display()))?;
    let host = container.host("files");
    let (name, port) = host.rsplit_once(':').map_or((&*host, 443), |(name, port)| {
        (name, port.parse().unwrap_or(443))
    });
    let proxy = SocketAddr::from(([127, 0, 0, 1], port));
    let scratch = std::env::temp_dir().join(format!("hop-{}", std::process::id()));
    let peer = server::free_address()?;
    let nginx = start_nginx(&scratch, &socket, peer)?;

    let (mut direct, mut through, mut nginx_times) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let stream = UnixStream::connect(&socket)
            .await
            .context("the kit's socket")?;
        direct.extend(round(stream, name, requests).await?);
        through.extend(
            round(
                secure(proxy, name, state.join("pki/ca.crt").as_path()).await?,
                name,
                requests,
            )
            .await?,
        );
        nginx_times.extend(
            round(
                secure(peer, "localhost", &scratch.join("certificate.pem")).await?,
                name,
                requests,
            )
            .await?,
        );
    }
    drop(nginx);
    std::fs::remove_dir_all(&scratch)?;

    let added = |samples: &[Duration]| {
        let over = percentile(samples, 0.5).saturating_sub(percentile(&direct, 0.5));
        (over.as_secs_f64() * 1e6).round()
    };
    let result = json!({
        "reply_bytes": REPLY_BYTES,
        "direct": summary("kit's socket, direct", &direct),
        "proxy_tls_h1": summary("through the proxy (TLS, HTTP/1.1)", &through),
        "nginx_tls_h1": summary("through nginx (TLS, HTTP/1.1)", &nginx_times),
        "proxy_adds_us": added(&through),
        "nginx_adds_us": added(&nginx_times),
    });
    println!(
        "the proxy adds {} µs, nginx {} µs",
        result["proxy_adds_us"], result["nginx_adds_us"]
    );
    Ok(result)
}

async fn secure(
    address: SocketAddr,
    name: &str,
    authority: &Path,
) -> anyhow::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls::pki_types::CertificateDer::pem_file_iter(authority)? {
        roots.add(certificate?)?;
    }
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned())?;
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?)
}

async fn round<S>(stream: S, host: &str, requests: usize) -> anyhow::Result<Vec<Duration>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    for _ in 0..requests / 10 {
        once(&mut sender, host).await?; // warm up
    }
    let mut times = Vec::with_capacity(requests);
    for _ in 0..requests {
        let began = Instant::now();
        once(&mut sender, host).await?;
        times.push(began.elapsed());
    }
    driver.abort();
    Ok(times)
}

async fn once(sender: &mut SendRequest<Empty<Bytes>>, host: &str) -> anyhow::Result<()> {
    let request = hyper::Request::get(FILE)
        .header("host", host)
        .header("x-hoody-edge-service", "files")
        .header("x-hoody-edge-index", "1")
        .body(Empty::new())?;
    let response = sender.send_request(request).await?;
    ensure!(
        response.status() == 200,
        "the reply is {}",
        response.status()
    );
    let body = response.into_body().collect().await?.to_bytes();
    ensure!(
        body.len() == REPLY_BYTES,
        "the reply has {} bytes",
        body.len()
    );
    Ok(())
}

fn start_nginx(scratch: &Path, socket: &Path, address: SocketAddr) -> anyhow::Result<Server> {
    std::fs::create_dir_all(scratch)?;
    certificate::write(scratch, &["localhost".into()])?;
    let directory = scratch.display();
    let configuration = format!(
        "daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log stderr; user root;\n\
         events {{ worker_connections 256; }}\n\
         http {{\n  access_log {directory}/access.log; client_body_temp_path {directory};\n\
         proxy_temp_path {directory}; fastcgi_temp_path {directory}; uwsgi_temp_path {directory};\n\
         scgi_temp_path {directory};\n  keepalive_requests 1000000;\n\
         upstream kit {{ server unix:{}; keepalive 16; }}\n\
         server {{\n    listen {address} ssl; server_name localhost;\n\
         ssl_certificate {directory}/certificate.pem; ssl_certificate_key {directory}/key.pem;\n\
         location / {{ proxy_pass http://kit; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_set_header Host $host; }}\n  }}\n}}\n",
        socket.display()
    );
    let (file, log) = (scratch.join("nginx.conf"), scratch.join("log"));
    std::fs::write(&file, configuration)?;
    let mut server = Server::start(Command::new("nginx").arg("-c").arg(file), None, &log)
        .context("nginx is the peer: apt-get install nginx-light")?;
    server.until(|| server::listens(address), &log)?;
    Ok(server)
}
