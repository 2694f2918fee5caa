//! Bytes of requests: how many are held at a time, of all callers together.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use kit::Fault;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that all requests under way may hold together. Who sends slowly holds what it has sent.
pub const HELD: usize = 64 << 20;
/// A body that nothing comes of for this long is given up.
pub const SILENCE: Duration = Duration::from_secs(30);
/// A body is given up after this long, whatever comes of it.
pub const WHOLE: Duration = Duration::from_secs(300);

/// The bytes that may be held.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Budget(Arc::new(Semaphore::new(HELD)))
    }
}

/// A body, and its part of the budget.
#[derive(Debug)]
pub struct Held {
    pub bytes: Bytes,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// Read a body of at most so many bytes.
    pub async fn read(&self, body: Body, most: usize) -> Result<Held, Fault> {
        match tokio::time::timeout(WHOLE, self.collect(body, most)).await {
            Ok(read) => read,
            Err(_) => Err(late()),
        }
    }

    /// A part of the budget for bytes that are there; it waits until there is room for them.
    pub async fn hold(&self, count: usize) -> Result<OwnedSemaphorePermit, Fault> {
        let count = u32::try_from(count.min(HELD)).unwrap_or(u32::MAX);
        let held = self.0.clone().acquire_many_owned(count);
        match tokio::time::timeout(SILENCE, held).await {
            Ok(held) => Ok(held.expect("the budget is never closed")),
            Err(_) => Err(Fault::unavailable(
                "answers wait for clients that do not take them; try again",
            )
            .code("TOO_MUCH")
            .retry_after(Duration::from_secs(1))),
        }
    }

    async fn collect(&self, body: Body, most: usize) -> Result<Held, Fault> {
        let large =
            || Fault::too_large(format!("the body is larger than {most} bytes")).code("TOO_BIG");
        if axum::body::HttpBody::size_hint(&body).lower() > most as u64 {
            return Err(large());
        }
        let mut stream = body.into_data_stream();
        let mut whole = BytesMut::new();
        let mut permit: Option<OwnedSemaphorePermit> = None;
        while let Some(chunk) = next(&mut stream).await? {
            if whole.len() + chunk.len() > most {
                return Err(large());
            }
            let count = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            let more = self.0.clone().try_acquire_many_owned(count).map_err(|_| {
                Fault::unavailable(format!(
                    "requests that are under way hold {HELD} bytes already; try again"
                ))
                .code("TOO_MUCH")
                .retry_after(Duration::from_secs(1))
            })?;
            match &mut permit {
                Some(permit) => permit.merge(more),
                None => permit = Some(more),
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(Held {
            bytes: whole.freeze(),
            _permit: permit,
        })
    }
}

fn late() -> Fault {
    Fault::new(
        http::StatusCode::REQUEST_TIMEOUT,
        "the body did not come in time; send it again",
    )
    .code("BODY_TIMEOUT")
}

/// The next piece of a body; none at its end.
pub async fn next(stream: &mut axum::body::BodyDataStream) -> Result<Option<Bytes>, Fault> {
    match tokio::time::timeout(SILENCE, stream.next()).await {
        Err(_) => Err(late()),
        Ok(None) => Ok(None),
        Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
        Ok(Some(Err(_))) => {
            Err(Fault::bad_request("the request body ended early").code("BODY_BROKEN"))
        }
    }
}
