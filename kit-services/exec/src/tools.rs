//! What is asked about code without running it, by a process that reads it in the runtime's own way.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kit::Fault;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::Exec;
use crate::place::RelPath;
use crate::process::{AskError, Process, Said};

/// How long one question may take; a process that takes longer is ended.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for a document that is fetched.
const FETCH: Duration = Duration::from_secs(30);
/// How long it may take to be there.
const START: Duration = Duration::from_secs(15);
/// After how long without a question the process ends.
const IDLE: Duration = Duration::from_secs(60);
/// Questions at once.
const QUESTIONS: usize = 16;
/// Largest code that is looked at.
pub const CODE_BYTES: usize = 4 << 20;

/// The process that answers, where there is one.
#[derive(Debug)]
pub struct Tools {
    process: tokio::sync::Mutex<Option<Arc<Process>>>,
    used: Mutex<std::time::Instant>,
    turns: tokio::sync::Semaphore,
}

impl Default for Tools {
    fn default() -> Self {
        Tools {
            process: tokio::sync::Mutex::new(None),
            used: Mutex::new(std::time::Instant::now()),
            turns: tokio::sync::Semaphore::new(QUESTIONS),
        }
    }
}

impl Tools {
    pub fn end(&self) {
        if let Ok(mut process) = self.process.try_lock()
            && let Some(process) = process.take()
        {
            process.end("the service was restarted");
        }
    }
}

/// What a look at code found.
#[derive(Clone, Debug, Deserialize)]
pub struct Analysis {
    /// Why it is no JavaScript; nothing where it is.
    pub syntax: Option<String>,
    /// Why it is no TypeScript.
    pub typescript: Option<String>,
    pub javascript: Option<String>,
    /// Packages of npm that it asks for, by name.
    pub packages: Vec<String>,
    /// Everything that it imports, as it says it.
    pub imports: Vec<String>,
    pub normalized: bool,
    pub transformations: Vec<String>,
}

impl Exec {
    /// Look at code. `path` tells whether it is TypeScript; a script's own path has the files that it
    /// imports looked into as well.
    pub async fn analyze(
        &self,
        code: &str,
        path: &str,
        at: Option<&RelPath>,
    ) -> Result<Analysis, Fault> {
        if code.len() > CODE_BYTES {
            return Err(
                Fault::too_large(format!("the code is larger than {CODE_BYTES} bytes"))
                    .code("CODE_TOO_LARGE"),
            );
        }
        let at = at.map(|at| self.root().absolute(at));
        let question = json!({ "t": "analyze", "code": code, "path": path, "at": at });
        let answer = self.question(question, PATIENCE).await?;
        serde_json::from_value(answer)
            .map_err(|error| Fault::internal(format!("the code was looked at in vain: {error}")))
    }

    /// Hold a value against a type. The type as it was read, and what is wrong with the value.
    pub async fn hold_against_type(&self, definition: &str, value: &Value) -> Result<Value, Fault> {
        let question = json!({ "t": "type", "definition": definition, "value": value });
        self.question(question, PATIENCE).await
    }

    /// Fetch a document.
    pub async fn fetch(&self, url: &str, headers: &Value) -> Result<String, Fault> {
        let question = json!({ "t": "fetch", "url": url, "headers": headers });
        let answer = self.question(question, FETCH).await?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    async fn question(&self, question: Value, patience: Duration) -> Result<Value, Fault> {
        let _turn = self.tools.turns.acquire().await;
        let process = self.tools_process().await?;
        *self
            .tools
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = std::time::Instant::now();
        match process.ask(question, patience).await {
            Ok(answer) => Ok(answer),
            Err(AskError::Said(message)) => Err(Fault::bad_request(message).code("INVALID_CODE")),
            Err(AskError::Slow) => {
                process.end("a question took too long");
                Err(Fault::bad_request(format!(
                    "it could not be looked at within {} seconds",
                    patience.as_secs()
                ))
                .code("CODE_TOO_COMPLEX"))
            }
            Err(AskError::Ended(why)) => Err(Fault::bad_request(format!(
                "it could not be looked at: the process that reads it ended, {why}"
            ))
            .code("CODE_TOO_COMPLEX")),
        }
    }

    async fn tools_process(&self) -> Result<Arc<Process>, Fault> {
        let mut place = self.tools.process.lock().await;
        if let Some(process) = place.as_ref()
            && !process.is_over()
        {
            return Ok(process.clone());
        }
        let (sender, mut said) = mpsc::channel(64);
        let process = self.launch("tools.js", sender).await?;
        let ready = timeout(START, async {
            while let Some(said) = said.recv().await {
                if let Said::Message(message) = said
                    && message["t"] == "ready"
                {
                    return true;
                }
            }
            false
        });
        if !matches!(ready.await, Ok(true)) {
            let why = process.ending_soon().await;
            return Err(
                Fault::unavailable(format!("code cannot be looked at: {why}"))
                    .code("RUNTIME_FAILED"),
            );
        }
        // what it says beside answers is for nobody
        tokio::spawn(async move { while said.recv().await.is_some() {} });
        let weak = self.downgrade();
        let idle = Arc::downgrade(&process);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(IDLE / 2).await;
                let (Some(exec), Some(process)) = (weak.upgrade(), idle.upgrade()) else {
                    return;
                };
                let used = *exec
                    .tools
                    .used
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if used.elapsed() > IDLE {
                    process.end("nobody asked it anything for a while");
                    exec.tools.process.lock().await.take();
                    return;
                }
            }
        });
        *place = Some(process.clone());
        Ok(process)
    }
}
