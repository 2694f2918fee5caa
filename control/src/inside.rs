//! What the node itself asks of the kit in a machine, on the kit's own socket.
//!
//! The machine is hostile: what it answers is bounded by its caller in size and time, and means
//! nothing beyond the question.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use kit::call::edge;
use serde::Serialize;
use tokio::net::UnixStream;

/// Why a kit did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("the kit cannot be spoken to: {0}")]
    Connect(#[from] std::io::Error),
    #[error("the kit broke off: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the kit hung up")]
    Ended,
    #[error("the kit said too much, or broke off: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
}

/// Ask the kit at the other end something that no host leads to. The connection ends with the
/// question.
pub async fn ask(
    socket: OwnedFd,
    mut question: Request<Full<Bytes>>,
    most: usize,
) -> Result<(StatusCode, Bytes), AskError> {
    let headers = question.headers_mut();
    headers.insert("host", HeaderValue::from_static("kit"));
    headers.insert(edge::SERVICE, HeaderValue::from_static(edge::KIT));
    let stream = UnixStream::from_std(StdUnixStream::from(socket))?;
    let exchange = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = exchange.await?;
    let answer = async {
        let answer = sender.send_request(question).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), most).collect().await;
        Ok((status, body.map_err(AskError::Body)?.to_bytes()))
    };
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.into()),
        },
    }
}

/// Who a machine is from now on: `POST /identity` of the kit itself.
#[derive(Debug, Serialize)]
pub struct Identity<'a> {
    pub hostname: &'a str,
    pub files: Vec<File<'a>>,
}

/// A file that the machine is to have, or a directory.
#[derive(Debug, Serialize)]
pub struct File<'a> {
    pub path: &'a str,
    /// None for a directory.
    pub text: Option<&'a str>,
    pub mode: u32,
    /// User and group, as the machine counts them.
    pub owner: u32,
}
