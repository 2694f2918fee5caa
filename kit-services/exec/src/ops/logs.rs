//! What scripts said and what was asked of them.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::Request;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::stream::{self, StreamExt};
use kit::{Call, Fault, Operation, Raw, Route};
use regex::RegexBuilder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::{says_yes, words};
use crate::logs::{Kind, LogFile};
use crate::place::shorten;
use crate::{Exec, WIRE};

/// Lines of one answer.
const LINES: usize = 10_000;
/// Matches of one search.
const MATCHES: usize = 10_000;
/// Longest text that is looked for.
const QUERY_BYTES: usize = 1000;
/// Lines that a follower is given of what was there before.
const BEFORE: usize = 200;
/// Followers at once.
const FOLLOWERS: usize = 64;
/// How often a follower that gets no lines hears that it is connected.
const ALIVE: Duration = Duration::from_secs(15);

/// List the files of logs.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {
    /// `exec`, `access` or `cron`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// At most so many.
    limit: Option<String>,
}

/// A file of logs.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Listed {
    /// What reading calls it.
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    size: u64,
    modified: String,
}

/// Files of logs.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Logs {
    directory: String,
    count: usize,
    logs: Vec<Listed>,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/exec/logs/list")
        .named("exec_listLogs")
        .cli("exec logs list");
    type Service = Exec;
    type Reply = Logs;

    async fn run(self, exec: Exec, _: Call) -> Result<Logs, Fault> {
        exec.logs().flush().await;
        let kind = kind(self.kind.as_deref())?;
        let limit = number(self.limit.as_deref(), "limit", 1, 1000)?.unwrap_or(1000);
        let logs: Vec<Listed> = exec
            .logs()
            .files()
            .into_iter()
            .filter(|file| kind.is_none_or(|kind| file.kind == kind))
            .take(limit)
            .map(|file| Listed {
                kind: file.kind.word(),
                size: file.size,
                modified: file.modified.to_string(),
                name: file.name,
            })
            .collect();
        Ok(Logs {
            directory: exec.config().logs.display().to_string(),
            count: logs.len(),
            logs,
        })
    }
}

fn kind(text: Option<&str>) -> Result<Option<Kind>, Fault> {
    let Some(text) = text.filter(|text| !text.is_empty() && *text != "all") else {
        return Ok(None);
    };
    let found = Kind::ALL.into_iter().find(|kind| kind.word() == text);
    found.map(Some).ok_or_else(|| {
        Fault::bad_request(format!(
            "`{}` is no type of logs: exec, access or cron",
            shorten(text)
        ))
        .code("INVALID_LOG_TYPE")
    })
}

fn number(
    text: Option<&str>,
    name: &str,
    least: usize,
    most: usize,
) -> Result<Option<usize>, Fault> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match text.parse::<usize>() {
        Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
        _ => Err(
            Fault::bad_request(format!("`{name}` is a number from {least} to {most}"))
                .code("VALIDATION_ERROR"),
        ),
    }
}

fn missing(name: &str) -> Fault {
    Fault::not_found(format!(
        "there is no log `{}`; GET /api/v1/exec/logs/list has them",
        shorten(name)
    ))
    .code("LOG_NOT_FOUND")
}

/// Read lines of a log, or what one execution left.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Read {
    /// File, as the list names it; `exec.log` where an execution is named.
    file: Option<String>,
    /// Only lines of this execution: the `x-execution-id` of an answer.
    execution_id: Option<String>,
    /// At most so many, 1 to 10000.
    #[serde(default = "hundred")]
    #[schemars(with = "i64")]
    lines: Value,
    /// The last ones rather than the first.
    #[serde(default = "yes")]
    tail: bool,
    /// Only lines with this text.
    search: Option<String>,
}

fn hundred() -> Value {
    json!(100)
}

fn yes() -> bool {
    true
}

/// Lines of a log.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadLog {
    file: String,
    total_lines: usize,
    /// Lines that fit.
    filtered_lines: usize,
    returned_lines: usize,
    lines: Vec<String>,
    size: u64,
    modified: String,
}

impl Operation for Read {
    const ROUTE: Route = Route::post("/api/v1/exec/logs/read")
        .named("readLog")
        .cli("exec logs read");
    type Service = Exec;
    type Reply = ReadLog;

    async fn run(self, exec: Exec, _: Call) -> Result<ReadLog, Fault> {
        let execution = self.execution_id.filter(|id| !id.is_empty());
        let name = match (self.file.filter(|name| !name.is_empty()), &execution) {
            (Some(name), _) => name,
            (None, Some(_)) => Kind::Exec.file().to_owned(),
            (None, None) => {
                return Err(Fault::bad_request("say what to read: file, or executionId")
                    .code("VALIDATION_ERROR"));
            }
        };
        if let Some(id) = &execution {
            let fine = id.len() <= 64
                && id
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
            if !fine {
                return Err(
                    Fault::bad_request(format!("`{}` is no executionId", shorten(id)))
                        .code("VALIDATION_ERROR"),
                );
            }
        }
        let text = match &self.lines {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let most = number(text.as_deref(), "lines", 1, LINES)?.unwrap_or(100);
        exec.logs().flush().await;
        let file = exec.logs().file(&name).ok_or_else(|| missing(&name))?;
        let mark = execution.map(|id| format!("[{id}]"));
        let (tail, search) = (self.tail, self.search.unwrap_or_default());
        let its = exec.clone();
        let (total, filtered, lines) = blocking(move || {
            let (mut total, mut filtered) = (0, 0);
            let mut lines = std::collections::VecDeque::new();
            its.logs().read(&name, |line| {
                total += 1;
                let fits = mark
                    .as_ref()
                    .is_none_or(|mark| line.contains(mark.as_str()))
                    && line.contains(&search);
                if fits {
                    filtered += 1;
                    if tail || lines.len() < most {
                        lines.push_back(line.to_owned());
                    }
                    if lines.len() > most {
                        lines.pop_front();
                    }
                }
                true
            })?;
            Ok((total, filtered, Vec::from(lines)))
        })
        .await?;
        Ok(ReadLog {
            total_lines: total,
            filtered_lines: filtered,
            returned_lines: lines.len(),
            lines,
            size: file.size,
            modified: file.modified.to_string(),
            file: file.name,
        })
    }
}

/// Files are read beside what answers requests.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|_| Fault::internal("reading the logs broke off"))?;
    done.map_err(|error| Fault::internal(format!("the logs could not be read: {error}")))
}

/// Find lines in logs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Search {
    /// Text to find.
    query: Option<String>,
    /// Pattern to find instead (regular expression).
    regex: Option<String>,
    /// Only in these files.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    files: Value,
    /// At most so many lines.
    #[serde(default = "thousand")]
    limit: usize,
    /// Capitals count.
    #[serde(default)]
    case_sensitive: bool,
}

fn thousand() -> usize {
    1000
}

/// A line that was found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Found {
    file: String,
    /// Its number, from 1.
    line: usize,
    content: String,
}

/// Lines that were found.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Matches {
    query: String,
    /// `text` or `regex`.
    search_type: &'static str,
    files_searched: usize,
    matches_found: usize,
    results: Vec<Found>,
}

impl Operation for Search {
    const ROUTE: Route = Route::post("/api/v1/exec/logs/search")
        .named("searchLogs")
        .cli("exec logs search");
    type Service = Exec;
    type Reply = Matches;

    async fn run(self, exec: Exec, _: Call) -> Result<Matches, Fault> {
        const PATTERN_BYTES: usize = 1 << 20;
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let (query, kind, pattern) = match (given(self.query), given(self.regex)) {
            (_, Some(pattern)) => (pattern.clone(), "regex", pattern),
            (Some(query), None) => (query.clone(), "text", regex::escape(&query)),
            (None, None) => {
                return Err(Fault::bad_request("say what to find: query, or regex")
                    .code("VALIDATION_ERROR"));
            }
        };
        if query.len() > QUERY_BYTES {
            return Err(Fault::bad_request(format!(
                "what is looked for has {QUERY_BYTES} bytes at most"
            ))
            .code("VALIDATION_ERROR"));
        }
        let pattern = RegexBuilder::new(&pattern)
            .case_insensitive(!self.case_sensitive)
            .size_limit(PATTERN_BYTES)
            .build()
            .map_err(|error| {
                Fault::bad_request(format!("the pattern cannot be read: {error}"))
                    .code("INVALID_REGEX")
            })?;
        exec.logs().flush().await;
        let wanted = words(&self.files, "files")?;
        let known: Vec<LogFile> = exec.logs().files();
        if let Some(name) = wanted
            .iter()
            .find(|name| !known.iter().any(|file| file.name == **name))
        {
            return Err(missing(name));
        }
        let files: Vec<String> = known
            .into_iter()
            .map(|file| file.name)
            .filter(|name| wanted.is_empty() || wanted.contains(name))
            .collect();
        let searched = files.len();
        let (its, most) = (exec.clone(), self.limit.clamp(1, MATCHES));
        let results = blocking(move || {
            let mut results = Vec::new();
            for file in files {
                let mut number = 0;
                its.logs().read(&file, |line| {
                    number += 1;
                    if pattern.is_match(line) {
                        results.push(Found {
                            file: file.clone(),
                            line: number,
                            content: line.to_owned(),
                        });
                    }
                    results.len() < most
                })?;
            }
            Ok(results)
        })
        .await?;
        Ok(Matches {
            query,
            search_type: kind,
            files_searched: searched,
            matches_found: results.len(),
            results,
        })
    }
}

/// Empty logs: all of them, those of a type, or one file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Clear {
    /// Only this file.
    file: Option<String>,
    /// Only `exec`, `access` or `cron`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Only files that nothing was written to for so many days.
    older_than_days: Option<String>,
    /// Has to be `true`.
    confirm: Option<String>,
}

/// What was cleared.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cleared {
    /// Files.
    deleted: usize,
    /// Bytes.
    total_size: u64,
    message: String,
}

impl Operation for Clear {
    const ROUTE: Route = Route::delete("/api/v1/exec/logs/clear")
        .named("exec_clearLogs")
        .cli("exec logs clear");
    type Service = Exec;
    type Reply = Cleared;

    async fn run(self, exec: Exec, _: Call) -> Result<Cleared, Fault> {
        if self.confirm.as_deref() != Some("true") {
            return Err(
                Fault::bad_request("confirm=true parameter required for safety")
                    .code("CONFIRMATION_REQUIRED"),
            );
        }
        const DAY: u64 = 24 * 60 * 60;
        exec.logs().flush().await;
        let kind = kind(self.kind.as_deref())?;
        let days = number(self.older_than_days.as_deref(), "olderThanDays", 0, 36_500)?;
        let name = self.file.filter(|name| !name.is_empty());
        let files: Vec<LogFile> = match &name {
            Some(name) => vec![exec.logs().file(name).ok_or_else(|| missing(name))?],
            None => exec.logs().files(),
        };
        let (mut deleted, mut total) = (0, 0);
        for file in files {
            let age = jiff::Timestamp::now().duration_since(file.modified);
            let old = days.is_none_or(|days| {
                u64::try_from(age.as_secs()).unwrap_or_default() >= days as u64 * DAY
            });
            if !old || kind.is_some_and(|kind| kind != file.kind) {
                continue;
            }
            total += exec.logs().remove(&file).map_err(|error| {
                Fault::internal(format!("`{}` could not be cleared: {error}", file.name))
            })?;
            deleted += 1;
        }
        Ok(Cleared {
            deleted,
            total_size: total,
            message: format!("{deleted} log files cleared"),
        })
    }
}

/// Which log is followed. Read from the query by hand: the answer is a stream.
#[derive(JsonSchema)]
#[allow(dead_code)] // its schema is what is used
pub struct Follow {
    /// File, as the list names it.
    file: String,
    /// Go on with new lines; `true` where not said.
    follow: Option<String>,
}

static FOLLOWING: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(FOLLOWERS);

/// The stream of a log.
pub fn stream(exec: &Exec) -> Raw {
    const DOC: &str = "Follow a log as server-sent events: its last lines, then new ones as they are \
        written. Each event's data is `{\"file\", \"line\"}`; one named `lost` says that lines came \
        faster than they were taken.";
    let exec = exec.clone();
    let handler = get(move |request: Request| {
        let exec = exec.clone();
        async move {
            follow(&exec, request.uri().query().unwrap_or_default())
                .await
                .unwrap_or_else(|fault| kit::http::refuse(WIRE, &fault))
        }
    });
    Raw::new(
        Route::get("/api/v1/exec/logs/stream")
            .named("exec_streamLogs")
            .cli("exec logs stream"),
        DOC,
    )
    .answers("text/event-stream")
    .parameters::<Follow>()
    .handler(handler)
}

async fn follow(exec: &Exec, query: &str) -> Result<Response, Fault> {
    let query = kit::arguments::query_all(query);
    let said = |name: &str| {
        query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    };
    let name = said("file").unwrap_or_default();
    let goes_on = said("follow").is_none_or(|text| says_yes(Some(&text)));
    let turn = FOLLOWING.try_acquire().map_err(|_| {
        Fault::unavailable(format!(
            "{FOLLOWERS} streams of logs are open, which is the limit"
        ))
        .code("TOO_MANY_STREAMS")
        .retry_after(Duration::from_secs(5))
    })?;
    exec.logs().flush().await;
    let kind = Kind::ALL.into_iter().find(|kind| kind.file() == name);
    if exec.logs().file(&name).is_none() && kind.is_none() {
        return Err(missing(&name));
    }
    // from before the file is read, so that no line is missed
    let lines = exec.logs().follow();
    let (its, file) = (exec.clone(), name.clone());
    let before = blocking(move || {
        let mut last = std::collections::VecDeque::new();
        let read = its.logs().read(&file, |line| {
            last.push_back(line.to_owned());
            if last.len() > BEFORE {
                last.pop_front();
            }
            true
        });
        match read {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(last),
        }
    })
    .await?;
    let event = {
        let name = name.clone();
        move |line: &str| Event::default().data(json!({ "file": name, "line": line }).to_string())
    };
    let first: Vec<Event> = before.iter().map(|line| event(line)).collect();
    let first = stream::iter(first);
    let news = stream::unfold((lines, turn), move |(mut lines, turn)| {
        let event = event.clone();
        async move {
            loop {
                match lines.recv().await {
                    Ok(line) if Some(line.kind) == kind => {
                        return Some((event(&line.text), (lines, turn)));
                    }
                    Ok(_) => {}
                    Err(RecvError::Lagged(lost)) => {
                        let lost = Event::default().event("lost").data(lost.to_string());
                        return Some((lost, (lines, turn)));
                    }
                    Err(RecvError::Closed) => return None,
                }
            }
        }
    });
    let all = match goes_on && kind.is_some() {
        true => first.chain(news).left_stream(),
        false => first.right_stream(),
    };
    let events = all.map(Ok::<_, Infallible>);
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::new().interval(ALIVE))
        .into_response())
}
