//! Following a log: server-sent events, with `id` the entry's id.
//!
//! A stream holds a position and nothing else. It reads from the log's ring when its reader takes
//! more; a reader that is slower than the ring is told with `reset`, and goes on with what is
//! there.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use kit::Fault;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::entry::Head;
use crate::log::{Log, Mark};
use crate::query::Filter;
use crate::rate::limited;
use crate::{Logs, Scope};

/// A client that lost its line comes back after this.
const RETRY_MS: u32 = 2_000;
/// Entries that are handed over at once.
const BATCH: usize = 64;

pub const LAST_EVENT_ID: &str = "last-event-id";

/// The right to one stream; given back when dropped.
struct Permit {
    logs: Logs,
    log: Arc<Log>,
}

impl Permit {
    fn take(logs: &Logs, log: &Arc<Log>) -> Result<Permit, Fault> {
        let limits = logs.store().limits();
        let under_way = logs.0.streams.fetch_add(1, Ordering::AcqRel);
        let own = log.streams.fetch_add(1, Ordering::AcqRel);
        let permit = Permit {
            logs: logs.clone(),
            log: log.clone(),
        };
        if own >= limits.streams {
            return Err(limited(
                "this log is followed by as many as may; close one of them",
            ));
        }
        if under_way >= limits.streams_in_all {
            return Err(limited(
                "logs are followed by as many as may; try again later",
            ));
        }
        Ok(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let give = |count: &AtomicUsize| count.fetch_sub(1, Ordering::AcqRel);
        give(&self.logs.0.streams);
        give(&self.log.streams);
    }
}

/// One reader on its way through a log.
struct Reader {
    permit: Permit,
    changes: watch::Receiver<Mark>,
    filter: Filter,
    /// The last entry that it has seen or passed over.
    at: u64,
    seen: Mark,
    /// Said before anything else.
    opening: Option<String>,
    heartbeat: Instant,
    over: bool,
}

/// Follow the log of a scope from where the client left off, or from now on.
pub async fn follow(
    logs: &Logs,
    scope: Scope,
    filter: Filter,
    headers: &HeaderMap,
) -> Result<Response, Fault> {
    let log = logs.open(scope).await?;
    let permit = Permit::take(logs, &log)?;
    let changes = log.watch();
    let left_off = headers.get(LAST_EVENT_ID).map(|value| {
        value
            .to_str()
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
    });
    if left_off.is_some() {
        logs.warm(&log).await?;
    }
    let (newest, passed) = log.bounds();
    let mut opening = format!("retry: {RETRY_MS}\n: connected\n\n");
    let at = match left_off {
        None => newest,
        Some(Some(id)) if id <= newest => {
            // From the start is from what there is.
            if id > 0 && id < passed {
                event(&mut opening, "reset", &reset("expired", passed));
            }
            id.max(passed)
        }
        // No id that this log has given: it is of another log, or of another life of this one.
        Some(id) => {
            let what = json!({ "reason": "unknown_id", "lastEventId": id, "newest": newest });
            event(&mut opening, "epoch_mismatch", &what);
            newest
        }
    };
    let seen = log.following(at, 0).mark;
    let reader = Reader {
        permit,
        changes,
        filter,
        at,
        seen,
        opening: Some(opening),
        heartbeat: Instant::now() + logs.store().limits().heartbeat,
        over: false,
    };
    let frames = futures::stream::unfold(reader, |mut reader| async move {
        let frames = reader.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(frames)), reader))
    });
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(frames)).into_response())
}

impl Reader {
    /// The next frames; none when the stream is over.
    async fn next(&mut self) -> Option<String> {
        if let Some(opening) = self.opening.take() {
            return Some(opening);
        }
        while !self.over {
            // Before looking, so that what comes meanwhile wakes again.
            self.changes.borrow_and_update();
            let frames = self.look();
            if !frames.is_empty() {
                self.alive();
                return Some(frames);
            }
            match timeout_at(self.heartbeat, self.changes.changed()).await {
                Ok(Ok(())) => {}
                // The log itself is held by the permit: it does not go before the stream.
                Ok(Err(_)) => return None,
                Err(_) => {
                    self.alive();
                    return Some(": keepalive\n\n".to_owned());
                }
            }
        }
        None
    }

    fn alive(&mut self) {
        let heartbeat = self.permit.logs.store().limits().heartbeat;
        self.heartbeat = Instant::now() + heartbeat;
    }

    /// What is there to say now.
    fn look(&mut self) -> String {
        let mut frames = String::new();
        loop {
            let following = self.permit.log.following(self.at, BATCH);
            let mark = following.mark;
            if mark.gone {
                event(
                    &mut frames,
                    "scope-destroyed",
                    &json!({ "reason": "the container is gone" }),
                );
                self.over = true;
                return frames;
            }
            if mark.moves != self.seen.moves {
                let what = json!({ "reason": "the container is in another project" });
                event(&mut frames, "scope_changed", &what);
                self.over = true;
                return frames;
            }
            if mark.clears != self.seen.clears {
                event(&mut frames, "reset", &reset("cleared", mark.newest));
            } else if following.skipped {
                let to = following
                    .lines
                    .first()
                    .map_or(mark.newest, |(id, _)| id - 1);
                event(&mut frames, "reset", &reset("slow", to));
            }
            self.seen = mark;
            let Some((last, _)) = following.lines.last() else {
                if following.skipped {
                    self.at = mark.newest;
                }
                return frames;
            };
            self.at = *last;
            for (id, line) in &following.lines {
                let admitted = self.filter.is_open()
                    || Head::of(line).is_some_and(|head| self.filter.admits(&head));
                if admitted && let Ok(line) = std::str::from_utf8(line) {
                    let _ = write!(frames, "id: {id}\ndata: {line}\n\n");
                }
            }
            if !frames.is_empty() {
                return frames;
            }
        }
    }
}

/// Forget what you have seen: entries up to this one are out of reach.
fn reset(reason: &str, passed: u64) -> Value {
    json!({ "reason": reason, "passed": passed })
}

/// An event that is no entry. A `reset` also takes back the client's last id.
fn event(frames: &mut String, name: &str, data: &Value) {
    let id = if name == "reset" || name == "epoch_mismatch" {
        "id:\n"
    } else {
        ""
    };
    let _ = write!(frames, "{id}event: {name}\ndata: {data}\n\n");
}
