//! Code that somebody else wrote, a model for one, run once: in a process without files, network
//! or permissions, in namespaces of its own. One is kept started, so that an evaluation waits for
//! nothing but the code.

use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kit::Fault;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::Exec;
use crate::process::prepare;

/// Evaluations at once, on the whole container.
const EVALS: usize = 4;
/// How long code may run where nobody says, and at most.
const TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);
/// Heap of an evaluation, in MiB.
const HEAP_MIB: u64 = 64;
/// Code with the values it is given, and what it may return.
const GIVEN_BYTES: usize = 4 << 20;
const RETURNED_BYTES: u64 = 4 << 20;
/// How long a sandbox waits for code; then another one takes its place, when there is need.
const SPARE: Duration = Duration::from_secs(60);

/// The sandboxes.
#[derive(Debug)]
pub struct Sandboxes {
    spare: Mutex<Option<(Child, std::time::Instant)>>,
    turns: Semaphore,
}

impl Default for Sandboxes {
    fn default() -> Self {
        Sandboxes {
            spare: Mutex::new(None),
            turns: Semaphore::new(EVALS),
        }
    }
}

impl Sandboxes {
    pub fn end(&self) {
        self.take();
    }
    fn take(&self) -> Option<Child> {
        let spare = self
            .spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        spare
            .filter(|(_, since)| since.elapsed() < SPARE)
            .map(|(child, _)| child)
    }
}

/// What a sandbox says.
#[derive(Deserialize)]
struct Outcome {
    ok: bool,
    #[serde(default)]
    value: Value,
    #[serde(default)]
    error: String,
}

impl Exec {
    /// Evaluate what a script asks for: `{code, globals, timeout}`, the values as JSON text.
    pub async fn eval(&self, wish: &Value) -> Result<Value, Fault> {
        let code = wish["code"].as_str().unwrap_or_default();
        let globals: Value = wish["globals"]
            .as_str()
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_else(|| json!({}));
        let time = wish["timeout"]
            .as_u64()
            .map_or(TIMEOUT, Duration::from_millis)
            .min(LONGEST);
        let line = format!("{}\n", json!({ "code": code, "globals": globals }));
        if line.len() > GIVEN_BYTES {
            return Err(Fault::too_large(format!(
                "code and its values have {GIVEN_BYTES} bytes at most"
            ))
            .code("EVAL_TOO_LARGE"));
        }
        let _turn = self.sandboxes.turns.acquire().await;
        let child = match self.sandboxes.take() {
            Some(child) => child,
            None => self.sandbox()?,
        };
        self.make_spare_sandbox();
        match timeout(time, exchange(child, line)).await {
            Err(_) => Err(Fault::new(
                http::StatusCode::GATEWAY_TIMEOUT,
                format!("the code did not end within {} ms", time.as_millis()),
            )
            .code("EVAL_TIMEOUT")),
            Ok(Err(why)) => {
                Err(Fault::bad_request(format!("the code was ended: {why}")).code("EVAL_ENDED"))
            }
            Ok(Ok(outcome)) if outcome.ok => Ok(outcome.value),
            Ok(Ok(outcome)) => Err(Fault::bad_request(outcome.error).code("EVAL_FAILED")),
        }
    }

    fn make_spare_sandbox(&self) {
        if let Ok(child) = self.sandbox() {
            *self
                .sandboxes
                .spare
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some((child, std::time::Instant::now()));
            let exec = self.downgrade();
            tokio::spawn(async move {
                tokio::time::sleep(SPARE).await;
                if let Some(exec) = exec.upgrade() {
                    let mut spare = exec
                        .sandboxes
                        .spare
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    if spare
                        .as_ref()
                        .is_some_and(|(_, since)| since.elapsed() >= SPARE)
                    {
                        spare.take();
                    }
                }
            });
        }
    }

    fn sandbox(&self) -> Result<Child, Fault> {
        let launcher = self.launcher()?;
        let mut command = Command::new("bwrap");
        command
            .args([
                "--unshare-all",
                "--die-with-parent",
                "--new-session",
                "--clearenv",
                "--cap-drop",
                "ALL",
            ])
            .args([
                "--setenv",
                "DENO_NO_UPDATE_CHECK",
                "1",
                "--setenv",
                "NO_COLOR",
                "1",
                "--setenv",
                "DENO_DIR",
                "/tmp/deno",
            ])
            .args([
                "--ro-bind",
                "/usr",
                "/usr",
                "--symlink",
                "usr/lib",
                "/lib",
                "--symlink",
                "usr/lib64",
                "/lib64",
            ])
            .args([
                "--symlink",
                "usr/bin",
                "/bin",
                // of /proc, only what the runtime finds itself by: in a machine of its own no whole
                // one can be mounted, and the code has no business in one
                "--dir",
                "/proc/self",
                "--symlink",
                "/deno",
                "/proc/self/exe",
                "--dev",
                "/dev",
                "--size",
                "16777216",
                "--tmpfs",
                "/tmp",
            ])
            .arg("--ro-bind")
            .arg(&launcher.deno)
            .arg("/deno")
            .arg("--ro-bind")
            .arg(launcher.parts.join("sandbox.js"))
            .arg("/sandbox.js")
            .args([
                "--chdir",
                "/tmp",
                "/deno",
                "run",
                "--quiet",
                "--no-prompt",
                "--no-remote",
                "--no-npm",
                "--no-config",
                "--no-lock",
            ])
            .arg(format!("--v8-flags=--max-old-space-size={HEAP_MIB}"))
            .arg("/sandbox.js")
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        prepare(&mut command, launcher.account.as_ref());
        command.spawn().map_err(|error| {
            Fault::unavailable(format!(
                "code cannot be evaluated here: bubblewrap does not start ({error}); `apt install bubblewrap` brings it"
            ))
            .code("SANDBOX_MISSING")
        })
    }
}

/// Hand the code in and read what comes of it. The sandbox is gone afterwards, with all in it.
async fn exchange(mut child: Child, line: String) -> Result<Outcome, String> {
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("it has no way to speak".to_owned());
    };
    let write = async {
        // where it ends before it has read all, its end is what is told
        let _ = input.write_all(line.as_bytes()).await;
        let _ = input.flush().await;
        input
    };
    let read = async {
        let mut answer = Vec::new();
        let mut reader = BufReader::new(output).take(RETURNED_BYTES);
        reader
            .read_until(b'\n', &mut answer)
            .await
            .map_err(|error| error.to_string())?;
        Ok::<_, String>(answer)
    };
    let (_input, answer) = tokio::join!(write, read);
    let answer = answer?;
    if !answer.ends_with(b"\n") {
        if answer.len() as u64 >= RETURNED_BYTES {
            return Err(format!("it returned more than {RETURNED_BYTES} bytes"));
        }
        let status = timeout(Duration::from_secs(1), child.wait()).await;
        let full = matches!(&status, Ok(Ok(status)) if !matches!(status.code(), Some(0 | 1)));
        return Err(match full {
            true => format!("its memory was full ({HEAP_MIB} MiB), or it broke"),
            false => "it ended without an answer; the sandbox may not be allowed here (unprivileged user namespaces)".to_owned(),
        });
    }
    serde_json::from_slice(&answer).map_err(|_| "it said what is no answer".to_owned())
}
