//! Reading, counting, following and clearing.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::response::Response;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Extensions;
use http::request::Parts;
use kit::{Call, Fault, Operation, Raw, Route, Wire, arguments};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::entry::{Kind, LogEntry, Source};
use crate::log::{Log, View};
use crate::query::{self, Filter, wrong};
use crate::stats::{self, Stats};
use crate::{Event, Logs, Scope, stream};

/// Entries of one reply, where the caller does not say.
const LIMIT: u32 = 200;
/// At most.
const MOST: u32 = 1_000;

/// The scope that the proxy put on a request.
fn scope(extensions: &Extensions) -> Result<Scope, Fault> {
    extensions
        .get::<Scope>()
        .copied()
        .ok_or_else(|| Fault::internal("the request names no container; the proxy has to"))
}

impl Logs {
    /// Count a request against its container's bucket.
    fn admit(&self, extensions: &Extensions) -> Result<Scope, Fault> {
        let scope = scope(extensions)?;
        self.0.rate.admit(scope.container, Instant::now())?;
        Ok(scope)
    }

    /// The log of a scope.
    pub(crate) async fn open(&self, scope: Scope) -> Result<Arc<Log>, Fault> {
        let logs = self.clone();
        let opened = self
            .aside(move || logs.store().log(scope.container))
            .await?
            .map_err(unreadable)?;
        opened.ok_or_else(|| Fault::not_found("this container is gone, and its log with it"))
    }

    pub(crate) async fn warm(&self, log: &Arc<Log>) -> Result<(), Fault> {
        let (logs, log) = (self.clone(), log.clone());
        self.aside(move || logs.store().warm(&log))
            .await?
            .map_err(unreadable)
    }

    /// Read a log away from the threads that serve connections.
    async fn read<T: Send + 'static>(
        &self,
        scope: Scope,
        read: impl FnOnce(View) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let log = self.open(scope).await?;
        let logs = self.clone();
        self.aside(move || {
            logs.store().warm(&log)?;
            read(log.view())
        })
        .await?
        .map_err(unreadable)
    }

    /// Do something that waits for the disk.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let permit = self.0.reads.acquire().await;
        let done = tokio::task::spawn_blocking(work).await;
        drop(permit);
        done.map_err(|_| Fault::internal("reading the log failed in a way that is ours to mend"))
    }
}

fn unreadable(error: std::io::Error) -> Fault {
    tracing::error!(%error, "could not read the log of a container");
    Fault::internal("the log could not be read from disk")
}

/// List the requests of this container.
///
/// The oldest come first. With `last` or `afterId` the reply is a bare list; otherwise, and where
/// bodies are asked for, it is a page with the number of all entries found. Only this container's
/// entries are ever listed: with `projectId` or `containerId` of another, none. Bodies are not
/// kept, so `includeRequestBody` and `includeResponseBody` change the shape of the reply only.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct List {
    /// Entries of this page, at most 1000; 200 where not given.
    limit: Option<u32>,
    /// Entries that are passed over.
    #[serde(default)]
    offset: u64,
    /// Nothing is listed unless this is the container's own project.
    project_id: Option<String>,
    /// Nothing is listed unless this is the container itself.
    container_id: Option<String>,
    /// Only this service: a slug as `terminal`, a port as `http-3000`, or `http` for all its ports.
    service_name: Option<String>,
    /// Only these levels, with commas between: debug, info, warn, error.
    level: Option<String>,
    /// Reply with a page, though bodies are never in it.
    #[serde(default)]
    include_request_body: bool,
    /// Reply with a page, though bodies are never in it.
    #[serde(default)]
    include_response_body: bool,
    /// Only the last of the entries found, as a bare list; at most 1000.
    last: Option<u32>,
    /// Only entries with a greater id, as a bare list.
    after_id: Option<u64>,
    /// Only entries with a smaller id.
    before_id: Option<u64>,
    /// Where to go on: the `cursor` of the page before.
    cursor: Option<String>,
    kind: Option<Kind>,
    /// Only this method.
    method: Option<String>,
    source: Option<Source>,
    /// Only this status, or this class: `404`, `5xx`.
    status: Option<String>,
    /// Only entries with this text in their address, client, method, service or trace id.
    search: Option<String>,
}

/// A page, or a bare list.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Listed {
    Page(Page),
    Bare(Vec<LogEntry>),
}

/// A page of entries.
#[derive(Serialize, JsonSchema)]
pub struct Page {
    entries: Vec<LogEntry>,
    /// All entries found.
    total: u64,
    limit: u32,
    offset: u64,
    /// Hand it back to go on after the last entry, whatever is written or removed meanwhile; null
    /// on the last page.
    cursor: Option<String>,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/_logs")
        .named("proxyLogs_listLogs")
        .cli("proxy logs list");
    type Service = Logs;
    type Reply = Listed;

    async fn run(self, logs: Logs, call: Call) -> Result<Listed, Fault> {
        let scope = logs.admit(&call.extensions)?;
        let limit = self.limit.unwrap_or(LIMIT).min(MOST);
        let after = match (&self.cursor, self.after_id) {
            (Some(cursor), _) if !cursor.is_empty() => Some(decode(cursor)?),
            (_, after) => after,
        };
        let filter = Filter::default()
            .within(
                scope,
                self.project_id.as_deref(),
                self.container_id.as_deref(),
            )
            .levels(self.level.as_deref())?
            .status(self.status.as_deref())?
            .kind(self.kind)
            .source(self.source)
            .method(self.method.as_deref())
            .service(self.service_name.as_deref())
            .search(self.search.as_deref())
            .after(after)
            .before(self.before_id);
        let bare = !self.include_request_body && !self.include_response_body;
        if let Some(last) = self.last.filter(|_| bare) {
            let last = last.min(MOST) as usize;
            let read = move |view: View| query::last(&view, &filter, last);
            return Ok(Listed::Bare(logs.read(scope, read).await?));
        }
        if self.after_id.is_some() && bare {
            let read = move |view: View| query::first(&view, &filter, limit as usize);
            return Ok(Listed::Bare(logs.read(scope, read).await?));
        }
        let offset = self.offset;
        let last = self.last;
        let (found, offset) = logs
            .read(scope, move |view| {
                let Some(last) = last else {
                    return Ok((query::page(&view, &filter, offset, limit as usize)?, offset));
                };
                // The end of what is found, as a page.
                let entries = query::last(&view, &filter, last.min(MOST) as usize)?;
                let total = query::page(&view, &filter, 0, 0)?.total;
                let offset = total.saturating_sub(entries.len() as u64);
                Ok((query::Page { entries, total }, offset))
            })
            .await?;
        let more = offset + (found.entries.len() as u64) < found.total;
        let cursor = found
            .entries
            .last()
            .filter(|_| more)
            .map(|last| encode(last.id));
        Ok(Listed::Page(Page {
            entries: found.entries,
            total: found.total,
            limit,
            offset,
            cursor,
        }))
    }
}

fn encode(id: u64) -> String {
    URL_SAFE_NO_PAD.encode(format!("after:{id}"))
}

fn decode(cursor: &str) -> Result<u64, Fault> {
    URL_SAFE_NO_PAD
        .decode(cursor)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| text.strip_prefix("after:")?.parse().ok())
        .ok_or_else(|| {
            let message = "it is not one that a page carried; leave it out to begin anew";
            wrong("cursor", message.to_owned())
        })
}

/// Count what the log of this container holds.
#[derive(Deserialize, JsonSchema)]
pub struct GetStats;

impl Operation for GetStats {
    const ROUTE: Route = Route::get("/_logs/stats")
        .named("getLogStats")
        .cli("proxy logs stats");
    type Service = Logs;
    type Reply = Stats;

    async fn run(self, logs: Logs, call: Call) -> Result<Stats, Fault> {
        let scope = logs.admit(&call.extensions)?;
        logs.read(scope, move |view| stats::count(&view, scope))
            .await
    }
}

/// Clear the log of this container.
///
/// All its entries are removed, from memory and from disk; one that says so takes their place, and
/// who follows the log gets a `reset`. Ids go on from where they were.
#[derive(Deserialize, JsonSchema)]
pub struct Clear;

#[derive(Serialize, JsonSchema)]
pub struct Cleared {
    cleared: bool,
}

impl Operation for Clear {
    const ROUTE: Route = Route::delete("/_logs")
        .named("clearLogs")
        .cli("proxy logs clear");
    type Service = Logs;
    type Reply = Cleared;

    async fn run(self, logs: Logs, call: Call) -> Result<Cleared, Fault> {
        let scope = logs.admit(&call.extensions)?;
        if logs.store().is_resigned() {
            let message =
                "this proxy is being replaced by a new one, which writes the log: try again";
            return Err(Fault::unavailable(message).retry_after(std::time::Duration::from_secs(1)));
        }
        let work = logs.clone();
        let by = call.client();
        logs.aside(move || {
            work.store().clear(scope.container)?;
            let message = match by {
                Some(client) => format!("the log was cleared by {client}"),
                None => "the log was cleared".to_owned(),
            };
            work.store().note(
                scope,
                crate::Level::Info,
                Event {
                    event: "cleared",
                    message: message.into(),
                    count: None,
                },
            );
            work.store().flush();
            Ok(())
        })
        .await?
        .map_err(unreadable)?;
        Ok(Cleared { cleared: true })
    }
}

/// What a stream takes.
#[expect(
    dead_code,
    reason = "the handler reads the query itself; this is its reference"
)]
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
struct Follow {
    /// Nothing comes unless this is the container's own project.
    project_id: Option<String>,
    /// Nothing comes unless this is the container itself.
    container_id: Option<String>,
    /// Only this service.
    service_name: Option<String>,
    kind: Option<Kind>,
    /// Only these levels, with commas between: debug, info, warn, error.
    level: Option<String>,
}

/// Following a log.
pub fn stream(logs: &Logs) -> Raw {
    let logs = logs.clone();
    let handler = get(move |request: Request| {
        let logs = logs.clone();
        async move {
            let (parts, _) = request.into_parts();
            match answer(&logs, &parts).await {
                Ok(response) => response,
                Err(fault) => kit::http::refuse(Wire::KIT, &fault),
            }
        }
    });
    Raw::new(
        Route::get("/_logs/stream")
            .named("streamLogs")
            .cli("proxy logs stream"),
        "Follow the log of this container as server-sent events.\n\nEach entry is an event whose \
         `id` is the entry's. With the header `Last-Event-ID` the stream goes on after that entry, \
         and from the oldest in memory after `0`; without it, it begins now. `reset` says that entries were \
         missed, because they are gone, the log was cleared, or the reader was too slow; \
         `epoch_mismatch` that the id is none of this log; `scope_changed` and `scope-destroyed` \
         end the stream: the container went to another project, or is gone. A comment comes every \
         15 seconds.",
    )
    .answers("text/event-stream")
    .parameters::<Follow>()
    .handler(handler)
}

async fn answer(logs: &Logs, request: &Parts) -> Result<Response, Fault> {
    let scope = logs.admit(&request.extensions)?;
    let query = arguments::query_pairs(request.uri.query().unwrap_or_default());
    let given = |name: &str| {
        query
            .iter()
            .find(|(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    };
    let kind = match given("kind") {
        None => None,
        Some("request") => Some(Kind::Request),
        Some("response") => Some(Kind::Response),
        Some("event") => Some(Kind::Event),
        Some(_) => {
            let message = "there are the kinds request, response and event";
            return Err(wrong("kind", message.to_owned()));
        }
    };
    let filter = Filter::default()
        .within(scope, given("projectId"), given("containerId"))
        .levels(given("level"))?
        .service(given("serviceName"))
        .kind(kind);
    stream::follow(logs, scope, filter, &request.headers).await
}
