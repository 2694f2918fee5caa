//! rclone's daemon: one process, on a port of the loopback that only who knows its password uses.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use base64::Engine;
use futures::StreamExt;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyDataStream, BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use kit::Fault;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long it may take to say where it listens.
const START: Duration = Duration::from_secs(20);
/// Longest a question that is no file may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Largest JSON answer: a directory of a hundred thousand names.
const REPLY_BYTES: usize = 32 << 20;
/// Largest line that is read of what it says.
const LINE_BYTES: usize = 4096;
/// What stands before its address in what it says.
const ADDRESS: &str = "Serving remote control on http://";
/// Longest text of its failures that is told on.
const WHY_BYTES: usize = 400;

/// A daemon that runs.
#[derive(Debug)]
pub struct Daemon {
    child: Mutex<Child>,
    address: String,
    authorization: HeaderValue,
}

/// Why something did not work.
#[derive(Debug)]
pub struct Failure {
    pub status: u16,
    pub message: String,
}

impl Failure {
    pub fn is_missing(&self) -> bool {
        self.status == 404 || self.message.contains("not found")
    }

    /// As the caller is told; `secrets` are taken out.
    pub fn fault(&self, act: &str, secrets: &[String]) -> Fault {
        let mut why: String = self.message.chars().filter(|c| !c.is_control()).collect();
        for secret in secrets.iter().filter(|secret| secret.len() > 2) {
            why = why.replace(secret.as_str(), "[REDACTED]");
        }
        let cut = why
            .char_indices()
            .map(|(at, _)| at)
            .find(|at| *at >= WHY_BYTES);
        why.truncate(cut.unwrap_or(why.len()));
        if self.is_missing() {
            return Fault::not_found(format!("could not {act}: {why}")).code("NOT_FOUND");
        }
        Fault::new(StatusCode::BAD_GATEWAY, format!("could not {act}: {why}")).code("REMOTE_FAILED")
    }
}

/// Where a program is, of the usual directories.
pub fn program(name: &str) -> Option<PathBuf> {
    ["/usr/local/bin", "/usr/bin", "/bin"]
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.is_file())
}

impl Daemon {
    /// Start one that keeps its file and what it caches in this directory.
    pub async fn start(state: &Path) -> Result<Daemon, Fault> {
        let rclone = program("rclone").ok_or_else(|| {
            Fault::new(
                StatusCode::NOT_IMPLEMENTED,
                "remote backends need rclone, which this computer does not have; install the package `rclone`",
            )
            .code("RCLONE_MISSING")
        })?;
        private_directory(state).map_err(|error| {
            Fault::internal(format!("could not make {}: {error}", state.display()))
        })?;
        let password = hex::encode(rand::random::<[u8; 32]>());
        // The parent's end is this process's: a daemon that nobody asks any more is of no use, and
        // at SIGTERM it unmounts what it mounted.
        let mut child = Command::new("/usr/bin/setpriv")
            .args(["--pdeathsig", "TERM"])
            .arg(rclone)
            .arg("rcd")
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", state)
            .env("RCLONE_CONFIG", state.join("rclone.conf"))
            .env("RCLONE_CACHE_DIR", state.join("cache"))
            .env("RCLONE_RC_ADDR", "127.0.0.1:0")
            .env("RCLONE_RC_SERVE", "true")
            .env("RCLONE_RC_USER", "kit")
            .env("RCLONE_RC_PASS", &password)
            .env("RCLONE_CONTIMEOUT", "15s")
            .env("RCLONE_LOW_LEVEL_RETRIES", "2")
            .env("RCLONE_RETRIES", "1")
            .current_dir(state)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Fault::internal(format!("could not start rclone: {error}")))?;
        let stderr = child.stderr.take().expect("stderr is piped");
        let mut lines = BufReader::with_capacity(LINE_BYTES, stderr).lines();
        let address = timeout(START, async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some((_, rest)) = line.split_once(ADDRESS) {
                    return Some(rest.trim_end_matches('/').to_owned());
                }
            }
            None
        })
        .await
        .ok()
        .flatten()
        .ok_or_else(|| Fault::unavailable("rclone did not start; try again"))?;
        // What it says may name what it was told; it is read so that it can go on, and dropped.
        tokio::spawn(async move {
            let mut rest = lines.into_inner();
            let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
        });
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("kit:{password}"));
        let mut authorization =
            HeaderValue::try_from(format!("Basic {basic}")).expect("base64 is a header");
        authorization.set_sensitive(true);
        Ok(Daemon {
            child: Mutex::new(child),
            address,
            authorization,
        })
    }

    /// Whether the process is there.
    pub fn runs(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(child.try_wait(), Ok(None))
    }

    /// Ask it to end, so that it unmounts.
    pub fn end(&self) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = child
            .id()
            .and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?))
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    /// One request of its own HTTP.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Fault> {
        let broken = |_| Fault::unavailable("rclone broke off; try again");
        let stream = TcpStream::connect(&self.address)
            .await
            .map_err(|_| Fault::unavailable("rclone is not there any more; try again"))?;
        let (mut line, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        tokio::spawn(async move {
            // what goes wrong, whoever waits for the answer is told
            let _ = connection.await;
        });
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, self.authorization.clone());
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        line.send_request(request).await.map_err(broken)
    }

    /// Call a method of its interface.
    pub async fn call(&self, method: &str, parameters: &Value) -> Result<Value, Failure> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/{method}"))
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(parameters.to_string()))
            .expect("names of methods are paths");
        match timeout(PATIENCE, self.ask(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure {
                status: 504,
                message: format!("no answer within {} seconds", PATIENCE.as_secs()),
            }),
        }
    }

    /// Send a request that is answered in JSON.
    pub async fn ask(&self, request: Request<Body>) -> Result<Value, Failure> {
        let failed = |message: String| Failure {
            status: 502,
            message,
        };
        let response = self
            .send(request)
            .await
            .map_err(|fault| failed(fault.message))?;
        let status = response.status();
        let bytes = Limited::new(response.into_body(), REPLY_BYTES)
            .collect()
            .await
            .map_err(|_| {
                failed(format!(
                    "the answer broke off, or is larger than {REPLY_BYTES} bytes"
                ))
            })?
            .to_bytes();
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() {
            return Ok(value);
        }
        Err(Failure {
            status: status.as_u16(),
            message: value["error"]
                .as_str()
                .unwrap_or("rclone does not say why")
                .to_owned(),
        })
    }
}

/// The body of an answer. The daemon is not idle while it goes on.
pub fn body(daemon: Arc<Daemon>, body: Incoming) -> Body {
    Body::from_stream(BodyDataStream::new(body).map(move |part| {
        let _held = &daemon;
        part
    }))
}

/// A directory that only its owner enters.
pub fn private_directory(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_no_secret_and_is_one_short_line() {
        let failure = Failure {
            status: 500,
            message: format!("dial hunter22\n{}", "é".repeat(900)),
        };
        let fault = failure.fault("read x", &["hunter22".to_owned()]);
        assert_eq!(fault.status, StatusCode::BAD_GATEWAY);
        assert!(fault.message.contains("[REDACTED]") && !fault.message.contains("hunter22"));
        assert!(!fault.message.contains('\n') && fault.message.len() < WHY_BYTES + 60);
        let missing = Failure {
            status: 404,
            message: "object not found".into(),
        };
        assert_eq!(missing.fault("read x", &[]).status, StatusCode::NOT_FOUND);
    }
}
