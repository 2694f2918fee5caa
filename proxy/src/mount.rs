//! Answering a request in this process: from Pingora's session to an axum router and back.
//!
//! For the few endpoints that the proxy has on the hosts of containers. A request comes here after
//! it was judged like any other; its body is small and read whole, its answer is streamed and held
//! back as its reader demands.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use bytes::Bytes;
use http::{Extensions, HeaderValue, Method, Request, Version, header};
use http_body_util::BodyExt;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, OrErr};
use tokio::sync::watch;
use tower::ServiceExt;

use crate::request::next_part;

/// The body of a request to something that the proxy itself answers.
const BODY_BYTES: usize = 1 << 20;

/// Between two looks whether an answer that goes on may still do so.
const REVIEW: Duration = Duration::from_millis(250);

/// How an answer came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounted {
    /// It was sent.
    Answered,
    /// The request's body is larger than [`BODY_BYTES`]; nothing was sent.
    TooLarge,
}

/// The request as a router reads it, without what only the proxy may say.
fn request(
    session: &Session,
    body: Bytes,
    extensions: Extensions,
) -> pingora::Result<Request<Body>> {
    let head = session.req_header();
    let target = head.uri.path_and_query().map_or("/", |it| it.as_str());
    let mut request = Request::builder()
        .method(head.method.clone())
        .uri(target)
        .body(Body::from(body))
        .or_err(ErrorType::InvalidHTTPHeader, "the target is no path")?;
    *request.headers_mut() = head.headers.clone();
    *request.extensions_mut() = extensions;
    Ok(request)
}

/// What a client says while its answer is on the way: that it has left, or more than it may.
fn left(said: pingora::Result<Option<Bytes>>) -> pingora::Result<()> {
    said.map(drop).map_err(|error| error.into_down())
}

/// The whole body; none where it is too large.
async fn read(session: &mut Session, patience: Duration) -> pingora::Result<Option<Bytes>> {
    let mut whole = Vec::new();
    while let Some(part) = next_part(session, patience).await? {
        if whole.len() + part.len() > BODY_BYTES {
            return Ok(None);
        }
        whole.extend_from_slice(&part);
    }
    Ok(Some(whole.into()))
}

/// Let the router answer. `prepare` sets the headers that tell it what the proxy knows; `begun` is
/// called with the head of the answer, before it is sent. An answer of unknown length ends when
/// `stopping` turns true, and is cut off when `stands` does not hold any more. Of the request's body
/// a part has to come within `patience`.
#[allow(clippy::too_many_arguments)]
pub async fn answer(
    session: &mut Session,
    router: Router,
    extensions: Extensions,
    prepare: impl FnOnce(&mut http::HeaderMap),
    begun: impl FnOnce(&Session, &ResponseHeader),
    stands: impl Fn() -> bool,
    mut stopping: watch::Receiver<bool>,
    patience: Duration,
) -> pingora::Result<Mounted> {
    let Some(body) = read(session, patience).await? else {
        return Ok(Mounted::TooLarge);
    };
    let mut request = request(session, body, extensions)?;
    prepare(request.headers_mut());
    let mut answering = Box::pin(router.oneshot(request));
    let answer = loop {
        tokio::select! {
            answer = &mut answering => match answer {
                Ok(answer) => break answer,
                Err(never) => match never {},
            },
            // It ends in an error: the client has left, or says more than it may.
            idle = session.read_body_or_idle(true) => left(idle)?,
        }
    };
    drop(answering);
    let (parts, mut body) = answer.into_parts();
    let mut head = ResponseHeader::build(parts.status, Some(parts.headers.len() + 2))?;
    for (name, value) in &parts.headers {
        head.append_header(name.clone(), value.clone())?;
    }
    let length = body.size_hint().exact();
    if let Some(length) = length {
        // As hyper does where axum is served by it.
        if !parts.headers.contains_key(header::CONTENT_LENGTH) && !parts.status.is_informational() {
            head.insert_header(header::CONTENT_LENGTH, length.to_string())?;
        }
    } else if !parts.headers.contains_key(header::CONTENT_LENGTH)
        && session.req_header().version == Version::HTTP_11
    {
        head.insert_header(
            header::TRANSFER_ENCODING,
            HeaderValue::from_static("chunked"),
        )?;
    }
    begun(session, &head);
    let bodiless = session.req_header().method == Method::HEAD
        || matches!(parts.status.as_u16(), 204 | 304)
        || length == Some(0);
    session
        .write_response_header(Box::new(head), bodiless)
        .await?;
    if bodiless {
        return Ok(Mounted::Answered);
    }
    let mut review = tokio::time::interval(REVIEW);
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            idle = session.read_body_or_idle(true) => { left(idle)?; continue }
            _ = review.tick(), if length.is_none() => match stands() {
                true => continue,
                false => return Err(Error::explain(ErrorType::ConnectionClosed, "it may not go on")),
            },
            _ = stopping.wait_for(|stopping| *stopping), if length.is_none() => None,
        };
        match frame {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    session.write_response_body(Some(data), false).await?;
                }
            }
            Some(Err(error)) => {
                // What was begun cannot be mended: the client must not take it for whole.
                session.set_keepalive(None);
                return Err(Error::because(
                    ErrorType::InternalError,
                    "the answer broke off",
                    error,
                ));
            }
            None => break,
        }
    }
    session.write_response_body(None, true).await?;
    Ok(Mounted::Answered)
}
