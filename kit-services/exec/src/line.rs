//! Requests to a process: connections over its socket, kept open between requests.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Connections to one process that are kept while nothing is asked.
const KEPT: usize = 16;

/// The connections to one process.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<SendRequest<Body>>>>);

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lines")
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("its socket could not be reached")]
    Connect(#[source] std::io::Error),
    #[error("it broke off")]
    Broken(#[source] hyper::Error),
}

impl Lines {
    /// Ask; the connection is free again when the answer's body has ended.
    pub async fn send(
        &self,
        socket: &Path,
        request: Request<Body>,
    ) -> Result<Response<Answer>, LineError> {
        let mut line = match self.kept() {
            Some(line) => line,
            None => connect(socket).await?,
        };
        let response = line
            .send_request(request)
            .await
            .map_err(LineError::Broken)?;
        Ok(response.map(|body| Answer {
            body,
            line: Some((line, self.clone())),
        }))
    }

    fn kept(&self) -> Option<SendRequest<Body>> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(line) = lines.pop() {
            if line.is_ready() {
                return Some(line);
            }
        }
        None
    }

    fn keep(&self, line: SendRequest<Body>) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < KEPT && !line.is_closed() {
            lines.push(line);
        }
    }
}

async fn connect(socket: &Path) -> Result<SendRequest<Body>, LineError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(LineError::Connect)?;
    let (line, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(LineError::Broken)?;
    tokio::spawn(async move {
        // what goes wrong, whoever waits for the answer is told
        let _ = connection.with_upgrades().await;
    });
    Ok(line)
}

/// The body of an answer. Where it is dropped before its end, the connection goes with it, which is
/// how a process learns that nobody listens.
pub struct Answer {
    body: Incoming,
    line: Option<(SendRequest<Body>, Lines)>,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(None) = polled
            && let Some((line, lines)) = self.line.take()
        {
            lines.keep(line);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        // its end has to be asked for, for the connection to come back
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Answer {
    /// The answer to an upgrade has no body; its connection is somebody else's now.
    pub fn release(mut self) {
        self.line = None;
    }
}
