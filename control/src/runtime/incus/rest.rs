//! The engine's REST interface on its unix socket: requests, operations, events.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::UnixStream;

/// The largest answer that is read: a list of some ten thousand machines.
const ANSWER_BYTES: usize = 64 << 20;
/// How long one exchange may take; operations are waited for in slices of half of it.
const EXCHANGE: Duration = Duration::from_secs(60);

/// The engine's socket, and the project that requests are about.
#[derive(Debug, Clone)]
pub struct Rest {
    pub socket: PathBuf,
    pub project: String,
}

/// Why the engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    #[error("the engine does not answer on {socket}")]
    Connect {
        socket: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the engine broke off: {0}")]
    Broken(String),
    #[error("the engine took longer than {0:?}")]
    Slow(Duration),
    #[error("{message}")]
    Refused { code: u16, message: String },
}

impl RestError {
    pub fn is(&self, code: StatusCode) -> bool {
        matches!(self, RestError::Refused { code: refused, .. } if *refused == code.as_u16())
    }

    /// What the engine said, for those who know its words.
    pub fn says(&self, words: &str) -> bool {
        matches!(self, RestError::Refused { message, .. } if message.to_ascii_lowercase().contains(words))
    }
}

/// The envelope of every answer.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    metadata: Value,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_code: u16,
}

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    /// None where it was more than the bound.
    bytes: Option<Bytes>,
}

impl Rest {
    /// `/1.0/{path}` in the project.
    fn target(&self, path: &str) -> String {
        let joint = if path.contains('?') { '&' } else { '?' };
        format!("/1.0/{path}{joint}project={}", self.project)
    }

    /// A synchronous exchange; what it answers.
    pub async fn get(&self, path: &str) -> Result<Value, RestError> {
        Ok(self.exchange(Method::GET, path, None).await?.metadata)
    }

    /// A request whose work goes on in the background; what it said in the end.
    pub async fn work(
        &self,
        method: Method,
        path: &str,
        body: Value,
        within: Duration,
    ) -> Result<Value, RestError> {
        let begun = self.exchange(method, path, Some(body)).await?;
        if begun.operation.is_empty() {
            return Ok(begun.metadata);
        }
        let operation = begun.operation.trim_start_matches("/1.0/");
        let operation = operation.split('?').next().unwrap_or_default().to_owned();
        let waiting = async {
            loop {
                let slice = EXCHANGE.as_secs() / 2;
                let seen = self
                    .get(&format!("{operation}/wait?timeout={slice}"))
                    .await?;
                match seen["status_code"].as_u64() {
                    Some(200) => return Ok(seen["metadata"].clone()),
                    Some(code) if code >= 400 => {
                        let message = seen["err"]
                            .as_str()
                            .unwrap_or("the operation failed")
                            .to_owned();
                        return Err(RestError::Refused { code: 500, message });
                    }
                    _ => {} // it goes on
                }
            }
        };
        tokio::time::timeout(within, waiting)
            .await
            .map_err(|_| RestError::Slow(within))?
    }

    /// Put a file into a machine; a directory where `bytes` is none.
    pub async fn put_file(&self, machine: &str, file: File) -> Result<(), RestError> {
        let path = self.target(&format!("instances/{machine}/files?path={}", file.path));
        let kind = if file.bytes.is_some() {
            "file"
        } else {
            "directory"
        };
        let request = Request::post(path)
            .header("host", "incus")
            .header("content-type", "application/octet-stream")
            .header("x-incus-type", kind)
            .header("x-incus-uid", file.owner)
            .header("x-incus-gid", file.owner)
            .header("x-incus-mode", format!("{:04o}", file.mode))
            .header("x-incus-write", "overwrite")
            .body(Full::new(Bytes::from(file.bytes.unwrap_or_default())))
            .expect("paths of files are plain");
        self.send(request).await.map(drop)
    }

    /// The bytes of a file that the engine keeps, such as the output of a program.
    pub async fn bytes(&self, path: &str) -> Result<Bytes, RestError> {
        let request = Request::get(self.target(path))
            .header("host", "incus")
            .body(Full::default())
            .expect("paths of outputs are plain");
        self.raw(request).await.map(|(_, bytes)| bytes)
    }

    /// A file of a machine; nothing where there is none, or something else, or more than `most`
    /// bytes of it.
    pub async fn file(
        &self,
        machine: &str,
        path: &str,
        most: usize,
    ) -> Result<Option<Vec<u8>>, RestError> {
        let request = Request::get(self.target(&format!("instances/{machine}/files?path={path}")))
            .header("host", "incus")
            .body(Full::default())
            .expect("paths of files are plain");
        let answer = self.answer(request, most).await?;
        let of_kind = answer
            .headers
            .get("x-incus-type")
            .map(HeaderValue::as_bytes);
        match (answer.status, answer.bytes) {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (StatusCode::OK, bytes) if of_kind == Some(b"file") => Ok(bytes.map(|b| b.to_vec())),
            (StatusCode::OK, _) => Ok(None),
            (status, bytes) => {
                let bytes = bytes.unwrap_or_default();
                Err(RestError::Refused {
                    code: status.as_u16(),
                    message: String::from_utf8_lossy(&bytes).into_owned(),
                })
            }
        }
    }

    /// Remove a file of a machine, or what is there in its place.
    pub async fn remove_file(&self, machine: &str, path: &str) -> Result<(), RestError> {
        let path = format!("instances/{machine}/files?path={path}");
        match self.exchange(Method::DELETE, &path, None).await {
            Ok(_) => Ok(()),
            Err(error) if error.is(StatusCode::NOT_FOUND) || error.says("does not exist") => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Envelope, RestError> {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(self.target(path))
            .header("host", "incus")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| RestError::Broken(error.to_string()))?;
        self.send(request).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Envelope, RestError> {
        let (status, bytes) = self.raw(request).await?;
        let envelope: Envelope =
            serde_json::from_slice(&bytes).map_err(|error| RestError::Broken(error.to_string()))?;
        if envelope.error_code >= 400 || status.is_client_error() || status.is_server_error() {
            let code = if envelope.error_code == 0 {
                status.as_u16()
            } else {
                envelope.error_code
            };
            return Err(RestError::Refused {
                code,
                message: envelope.error,
            });
        }
        Ok(envelope)
    }

    async fn raw(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), RestError> {
        let answer = self.answer(request, ANSWER_BYTES).await?;
        let bytes = answer
            .bytes
            .ok_or_else(|| RestError::Broken("it said too much".to_owned()))?;
        Ok((answer.status, bytes))
    }

    async fn answer(
        &self,
        request: Request<Full<Bytes>>,
        most: usize,
    ) -> Result<Answer, RestError> {
        let broken = |error: hyper::Error| RestError::Broken(error.to_string());
        let exchange = async {
            let stream = connect(&self.socket).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .map_err(broken)?;
            let driver = tokio::spawn(connection);
            let response = sender.send_request(request).await.map_err(broken)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, most).collect().await;
            driver.abort();
            let bytes = match body {
                Ok(body) => Some(body.to_bytes()),
                Err(error) if error.is::<LengthLimitError>() => None,
                Err(error) => return Err(RestError::Broken(error.to_string())),
            };
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                bytes,
            })
        };
        tokio::time::timeout(EXCHANGE, exchange)
            .await
            .map_err(|_| RestError::Slow(EXCHANGE))?
    }

    /// The stream of what happens to machines: a WebSocket, the only form there is.
    pub async fn events(
        &self,
    ) -> Result<tokio_tungstenite::WebSocketStream<UnixStream>, RestError> {
        let stream = connect(&self.socket).await?;
        let url = format!("ws://incus{}", self.target("events?type=lifecycle"));
        tokio_tungstenite::client_async(url, stream)
            .await
            .map(|(socket, _)| socket)
            .map_err(|error| RestError::Broken(error.to_string()))
    }
}

/// A file for a machine.
pub struct File {
    pub path: &'static str,
    /// None for a directory.
    pub bytes: Option<Vec<u8>>,
    pub mode: u32,
    /// User and group, as the machine counts them.
    pub owner: u32,
}

async fn connect(socket: &Path) -> Result<UnixStream, RestError> {
    UnixStream::connect(socket)
        .await
        .map_err(|source| RestError::Connect {
            socket: socket.to_owned(),
            source,
        })
}
