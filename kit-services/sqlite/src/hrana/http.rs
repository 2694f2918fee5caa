//! Hrana over HTTP: pipelines and cursors, on streams that a baton leads to.
//!
//! A baton is good for one request. It names its stream, and holds a number that changes with each
//! answer; both are random. A stream that is left alone is closed, and its baton then leads nowhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use kit::Fault;
use tokio::sync::mpsc;

use super::stream::{Running, Stream, Target, Texts, error};
use super::{
    BODY, Cursor, Encoding, Error, Pipeline, Pipelined, Request as Ask, Response as Reply,
    STREAM_IDLE, TRANSACTION_IDLE,
};
use crate::Sqlite;
use crate::run::Budget;

/// How often streams are looked after.
const PACE: Duration = Duration::from_secs(1);
/// Pieces in which an answer goes out: what is not taken holds its part of the budget.
const PIECE: usize = 64 << 10;

/// The streams that wait for their next request.
#[derive(Debug, Default)]
pub struct Waiting(Mutex<HashMap<[u8; 16], Slot>>);

#[derive(Debug)]
struct Slot {
    /// The other half of the baton.
    nonce: [u8; 16],
    /// None while a request is at it.
    kept: Option<Kept>,
    expires: Instant,
}

/// A stream and what its client has stored.
#[derive(Debug)]
struct Kept {
    stream: Stream,
    texts: Texts,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 16], Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Streams that have a baton.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Take the stream that a baton leads to.
    fn take(&self, baton: &str) -> Result<([u8; 16], Kept), Error> {
        let expired = || {
            error(
                "STREAM_EXPIRED",
                format!(
                    "no stream has this baton: it was closed, or nobody asked it anything for {} s \
                     ({} s in a transaction), and what was open in it was rolled back; begin \
                     another one",
                    STREAM_IDLE.as_secs(),
                    TRANSACTION_IDLE.as_secs()
                ),
            )
        };
        let bytes = URL_SAFE_NO_PAD.decode(baton).map_err(|_| expired())?;
        let (id, nonce) = bytes.split_at_checked(16).ok_or_else(expired)?;
        let id: [u8; 16] = id.try_into().map_err(|_| expired())?;
        let mut streams = self.lock();
        let slot = streams.get_mut(&id).ok_or_else(expired)?;
        if slot.nonce != nonce {
            return Err(error(
                "BATON_REUSED",
                "this baton was used already; send the one of the last answer",
            ));
        }
        let kept = slot.kept.take().ok_or_else(|| {
            error(
                "STREAM_BUSY",
                "another request is at this stream; wait for its answer, which has the next baton",
            )
        })?;
        Ok((id, kept))
    }

    /// The baton that comes next; until [`put`](Waiting::put) its stream is busy.
    fn reserve(&self, id: [u8; 16]) -> String {
        let nonce: [u8; 16] = rand::random();
        let slot = Slot {
            nonce,
            kept: None,
            expires: Instant::now() + STREAM_IDLE,
        };
        self.lock().insert(id, slot);
        URL_SAFE_NO_PAD.encode([id, nonce].concat())
    }

    fn put(&self, id: [u8; 16], kept: Kept) {
        let idle = match kept.stream.is_in_transaction() {
            true => TRANSACTION_IDLE,
            false => STREAM_IDLE,
        };
        if let Some(slot) = self.lock().get_mut(&id) {
            slot.expires = Instant::now() + idle;
            slot.kept = Some(kept);
        }
    }

    fn remove(&self, id: [u8; 16]) {
        self.lock().remove(&id);
    }

    /// Close what was left alone at this time.
    pub fn expire(&self, now: Instant) -> usize {
        let mut streams = self.lock();
        let over: Vec<_> = streams
            .iter()
            .filter(|(_, slot)| slot.kept.is_some() && slot.expires <= now)
            .map(|(id, _)| *id)
            .collect();
        let closed: Vec<_> = over.iter().filter_map(|id| streams.remove(id)).collect();
        drop(streams);
        closed.len() // connections close here, outside of the lock
    }

    /// Look after them as long as the service is there.
    pub fn tend(self: &Arc<Self>) {
        let waiting: Weak<Waiting> = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(PACE).await;
                let Some(waiting) = waiting.upgrade() else {
                    return;
                };
                let expiring = tokio::task::spawn_blocking(move || waiting.expire(Instant::now()));
                if expiring.await.is_err() {
                    tracing::error!("closing streams panicked");
                }
            }
        });
    }
}

/// Gives the place of a stream free unless it was put back.
struct Reserved {
    sqlite: Sqlite,
    id: [u8; 16],
    done: bool,
}

impl Reserved {
    fn put(mut self, kept: Kept) {
        self.done = true;
        self.sqlite.waiting.put(self.id, kept);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.done {
            self.sqlite.waiting.remove(self.id);
        }
    }
}

/// The stream of a baton, or a new one, and the baton that comes next.
async fn begin(
    sqlite: &Sqlite,
    target: &Target,
    baton: Option<&str>,
) -> Result<(Kept, Reserved, String), Error> {
    let (id, kept) = match baton {
        Some(baton) => sqlite.waiting.take(baton)?,
        None => {
            let stream = Stream::open(sqlite, target).await?;
            let texts = Texts::default();
            (rand::random(), Kept { stream, texts })
        }
    };
    let next = sqlite.waiting.reserve(id);
    let reserved = Reserved {
        sqlite: sqlite.clone(),
        id,
        done: false,
    };
    Ok((kept, reserved, next))
}

/// Serve `POST …/pipeline`.
pub async fn pipeline(
    sqlite: Sqlite,
    target: Target,
    encoding: Encoding,
    request: Request,
) -> Response {
    match run_pipeline(&sqlite, &target, encoding, request).await {
        Ok(pipelined) => {
            let bytes = Bytes::from(encoding.pipelined(&pipelined));
            let Ok(permit) = sqlite.answers.hold(bytes.len()).await else {
                let error = error("TOO_MUCH", "answers wait for clients that do not take them");
                return refuse(encoding, StatusCode::SERVICE_UNAVAILABLE, &error);
            };
            let mut rest = bytes;
            let pieces = std::iter::from_fn(move || {
                let _held = &permit;
                (!rest.is_empty()).then(|| {
                    let piece = rest.split_to(rest.len().min(PIECE));
                    Ok::<_, std::convert::Infallible>(piece)
                })
            });
            answer(encoding, Body::from_stream(futures::stream::iter(pieces)))
        }
        Err((status, error)) => refuse(encoding, status, &error),
    }
}

fn answer(encoding: Encoding, body: Body) -> Response {
    let headers = [
        (CONTENT_TYPE, encoding.content_type()),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, body).into_response()
}

/// A failure of the whole request.
pub fn refuse(encoding: Encoding, status: StatusCode, error: &Error) -> Response {
    let headers = [
        (CONTENT_TYPE, encoding.content_type()),
        (CACHE_CONTROL, "no-store"),
    ];
    (status, headers, encoding.error(error)).into_response()
}

/// A failure, and its status.
pub fn of_fault(fault: &Fault) -> (StatusCode, Error) {
    (fault.status, Error::from(fault))
}

/// The status of an error that has none.
fn status(error: &Error) -> StatusCode {
    match error.code.as_str() {
        "STREAM_EXPIRED" | "DATABASE_NOT_FOUND" => StatusCode::NOT_FOUND,
        "BATON_REUSED" | "STREAM_BUSY" => StatusCode::CONFLICT,
        "TOO_MANY_STREAMS" | "TOO_MANY_CURSORS" | "TOO_MUCH" | "TOO_MANY_DATABASES" => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        "NOT_A_DATABASE" | "CORRUPT" | "CANNOT_OPEN" => StatusCode::UNPROCESSABLE_ENTITY,
        "OUTSIDE" | "NOT_ALLOWED" | "READ_ONLY" => StatusCode::FORBIDDEN,
        "DISK_FULL" => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::BAD_REQUEST,
    }
}

async fn read<T>(
    sqlite: &Sqlite,
    request: Request,
    parse: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Result<T, (StatusCode, Error)> {
    let held = sqlite.bodies.read(request.into_body(), BODY).await;
    let held = held.map_err(|fault| of_fault(&fault))?;
    parse(&held.bytes).map_err(|wrong| (StatusCode::BAD_REQUEST, error("HRANA_PROTO_ERROR", wrong)))
}

async fn run_pipeline(
    sqlite: &Sqlite,
    target: &Target,
    encoding: Encoding,
    request: Request,
) -> Result<Pipelined, (StatusCode, Error)> {
    let asked: Pipeline = read(sqlite, request, |bytes| encoding.pipeline(bytes)).await?;
    let begun = begin(sqlite, target, asked.baton.as_deref()).await;
    let (kept, reserved, next) = begun.map_err(|error| (status(&error), error))?;
    let Kept { stream, mut texts } = kept;
    let mut stream = Some(stream);
    let mut results = Vec::with_capacity(asked.requests.len());
    let mut budget = Budget::default();
    for mut request in asked.requests {
        let Some(open) = stream.take() else {
            results.push(Err(super::stream::ended()));
            continue;
        };
        if let Err(error) = texts.resolve(&mut request) {
            stream = Some(open);
            results.push(Err(error));
            continue;
        }
        match request {
            Ask::Close => {
                results.push(Ok(Reply::Close));
                // closing may write: not here
                drop(tokio::task::spawn_blocking(move || drop(open)).await);
            }
            Ask::StoreSql { sql_id, sql } => {
                results.push(texts.store(sql_id, sql).map(|()| Reply::StoreSql));
                stream = Some(open);
            }
            Ask::CloseSql { sql_id } => {
                texts.close(sql_id);
                results.push(Ok(Reply::CloseSql));
                stream = Some(open);
            }
            request => {
                let (back, result) = open.ask(sqlite, request, &mut budget).await;
                stream = back;
                results.push(result);
            }
        }
    }
    let baton = stream.map(|stream| {
        reserved.put(Kept { stream, texts });
        next
    });
    Ok(Pipelined { baton, results })
}

/// Serve `POST …/cursor`.
pub async fn cursor(
    sqlite: Sqlite,
    target: Target,
    encoding: Encoding,
    request: Request,
) -> Response {
    let begun = async {
        let mut asked: Cursor = read(&sqlite, request, |bytes| encoding.cursor(bytes)).await?;
        let begun = begin(&sqlite, &target, asked.baton.as_deref()).await;
        let (kept, reserved, next) = begun.map_err(|error| (status(&error), error))?;
        let Kept { stream, texts } = kept;
        if let Err(error) = texts.resolve_batch(&mut asked.batch) {
            reserved.put(Kept { stream, texts });
            return Err((StatusCode::BAD_REQUEST, error));
        }
        match Running::begin(&sqlite, stream, asked.batch) {
            Ok(running) => Ok((running, texts, reserved, next)),
            Err(refused) => {
                let (stream, error) = *refused;
                reserved.put(Kept { stream, texts });
                Err((status(&error), error))
            }
        }
    };
    let (mut running, texts, reserved, next) = match begun.await {
        Ok(begun) => begun,
        Err((status, error)) => return refuse(encoding, status, &error),
    };
    // the answer is written here, so that the stream is put back however its reader leaves
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        let mut taken = sender.send(encoding.head(Some(&next)).into()).await.is_ok();
        while taken {
            let Some(entries) = running.entries.recv().await else {
                break;
            };
            let mut bytes = Vec::new();
            for entry in &entries {
                bytes.extend(encoding.entry(entry));
            }
            taken = sender.send(bytes.into()).await.is_ok();
        }
        // the last piece is taken before the stream is free: its client has the next baton by then
        if let Some(stream) = running.end(&sqlite).await
            && taken
        {
            reserved.put(Kept { stream, texts });
        }
        drop(sender);
    });
    let pieces = tokio_stream::wrappers::ReceiverStream::new(receiver);
    answer(
        encoding,
        Body::from_stream(pieces.map(Ok::<_, std::convert::Infallible>)),
    )
}
