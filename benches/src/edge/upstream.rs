//! The upstreams: nginx for small replies, and this program for bodies and tunnels.

use std::convert::Infallible;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::header;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

use super::ground::{Ground, LARGE, REPLY_BYTES, SMALL};
use crate::server::Server;

/// A large body, in this many bytes at once.
const PART: usize = 64 << 10;
pub const LARGE_BYTES: usize = 64 << 20;

/// nginx on a socket: 1 KiB for every request.
pub fn small(ground: &Ground, core: usize) -> anyhow::Result<Server> {
    let directory = ground.path("upstream");
    std::fs::create_dir_all(&directory)?;
    let (own, socket) = (directory.display(), ground.socket(SMALL));
    let body = "x".repeat(REPLY_BYTES);
    let configuration = format!(
        "daemon off; worker_processes 1; user root; pid {own}/pid; error_log stderr crit;
         events {{ worker_connections 9000; }}
         http {{
           access_log off; keepalive_requests 1000000000; keepalive_timeout 600;
           client_body_temp_path {own}; proxy_temp_path {own}; fastcgi_temp_path {own};
           uwsgi_temp_path {own}; scgi_temp_path {own};
           server {{ listen unix:{}; default_type text/plain; location / {{ return 200 '{body}'; }} }}
         }}
        ",
        socket.display()
    );
    let file = directory.join("nginx.conf");
    std::fs::write(&file, configuration)?;
    let log = directory.join("log");
    let mut server = Server::start(Command::new("nginx").arg("-c").arg(&file), Some(core), &log)?;
    server.until(
        || std::os::unix::net::UnixStream::connect(&socket).is_ok(),
        &log,
    )?;
    Ok(server)
}

/// This program on a socket, in a process of its own.
pub fn large(ground: &Ground, core: usize) -> anyhow::Result<Server> {
    let (socket, log) = (ground.socket(LARGE), ground.path("large.log"));
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("serve").arg("upstream").arg(&socket);
    let mut server = Server::start(&command, Some(core), &log)?;
    server.until(
        || std::os::unix::net::UnixStream::connect(&socket).is_ok(),
        &log,
    )?;
    Ok(server)
}

/// Serve on a socket until the process is ended.
pub async fn serve(socket: &Path) -> anyhow::Result<()> {
    let listener = UnixListener::bind(socket)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            // Clients come and go as they like.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .with_upgrades()
                .await;
        });
    }
}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(mut request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
    if request.headers().contains_key(header::UPGRADE) {
        tokio::spawn(async move {
            if let Ok(upgraded) = hyper::upgrade::on(&mut request).await {
                let mut stream = TokioIo::new(upgraded);
                let _ = echo(&mut stream).await; // until its client is gone
            }
        });
        return Ok(Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, "websocket")
            .header("sec-websocket-accept", super::tunnels::ACCEPT)
            .body(Full::default().boxed())?);
    }
    if *request.method() == Method::PUT {
        let mut bytes = 0;
        let mut body = request.into_body();
        while let Some(part) = body.frame().await {
            bytes += part?.data_ref().map_or(0, Bytes::len);
        }
        return Ok(Response::new(Full::from(bytes.to_string()).boxed()));
    }
    let part = Bytes::from(vec![b'x'; PART]);
    let parts = futures::stream::repeat(part).take(LARGE_BYTES / PART);
    let body = StreamBody::new(parts.map(|part| Ok(Frame::data(part))));
    Ok(Response::builder()
        .header(header::CONTENT_LENGTH, LARGE_BYTES)
        .body(BodyExt::boxed(body))?)
}

/// Send back what comes, holding nothing in between but what a read needs.
async fn echo<S>(stream: &mut S) -> std::io::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut buffer = [0; 256];
    loop {
        let read = tokio::io::AsyncReadExt::read(stream, &mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..read]).await?;
    }
}
