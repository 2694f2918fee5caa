//! What is read out of a request before anything is decided: who sent it, whether it can mean two
//! things, whom it asks for and what it expects back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use memchr::memchr2_iter;
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use crate::connection::Connection;
use crate::refusals::Audience;

/// The connection it came over.
pub fn connection(session: &Session) -> Option<Arc<Connection>> {
    let facts = session
        .digest()?
        .proxy_digest
        .as_ref()?
        .user_data
        .as_ref()?;
    facts.downcast_ref::<Arc<Connection>>().cloned()
}

/// Refuse HTTP/1 headers that two readers could read in two ways (RFC 9112, sections 2.2, 6.1
/// and 11.2), judged by the bytes that arrived.
pub fn check_wire(session: &Session) -> Result<(), &'static str> {
    let raw = session.to_h1_raw();
    let mut ends = memchr2_iter(b'\r', b'\n', &raw);
    while let Some(end) = ends.next() {
        if !raw[end..].starts_with(b"\r\n") || ends.next() != Some(end + 1) {
            return Err("a line does not end in CR and LF");
        }
    }
    let request = session.req_header();
    // Equal ones might be read as one, but nobody sends them by accident.
    let mut lengths = request.headers.get_all(header::CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        let plain = length.as_bytes().iter().all(u8::is_ascii_digit);
        if lengths.next().is_some() || !plain || length.is_empty() {
            return Err("its length is not one number");
        }
    }
    let mut codings = request.headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err("the transfer coding is not just chunked");
        }
        // By now a length beside it has been removed from the parsed headers.
        let mut lines = raw.split(|&byte| byte == b'\n');
        let name = b"content-length:";
        if lines
            .any(|line| line.len() >= name.len() && line[..name.len()].eq_ignore_ascii_case(name))
        {
            return Err("it has both a length and a transfer coding");
        }
    }
    Ok(())
}

/// The one authority that the request names. A target in absolute form (RFC 9112, section 3.2.2)
/// becomes one in origin form.
pub fn authority(session: &mut Session) -> Result<String, &'static str> {
    const NONE: &str = "it names no host";
    let h2 = session.is_http2();
    let request = session.req_header_mut();
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err("it names two hosts"),
        (Some(host), None) => Some(
            host.to_str()
                .map_err(|_| "its host is not ASCII")?
                .to_owned(),
        ),
        (None, None) => None,
    };
    if h2 {
        let authority = request.uri.authority().map(|it| it.as_str().to_owned());
        return authority.or(host).ok_or(NONE);
    }
    let target = request.raw_path();
    if target.starts_with(b"/") || target == b"*" {
        return host.ok_or(NONE);
    }
    let text = std::str::from_utf8(target).map_err(|_| "its target is not ASCII")?;
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| {
            let (head, rest) = text.split_at_checked(scheme.len())?;
            head.eq_ignore_ascii_case(scheme).then_some(rest)
        })
        .ok_or("its target has no form that is known")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (named, path) = rest.split_at(end);
    let origin = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let named = named.to_owned();
    if host.is_some_and(|host| !host.eq_ignore_ascii_case(&named)) {
        return Err("its target and its host differ");
    }
    request
        .set_raw_path(origin.as_bytes())
        .map_err(|_| "its target is not a URI")?;
    Ok(named)
}

/// The protocol that it asks to go on with (RFC 9110, section 7.8): a WebSocket, or whatever else
/// a server in a container speaks. Another version of HTTP is none: its requests would pass by
/// what is decided about each. Nothing else is exempt from the time that a body may take.
pub fn upgrade(session: &mut Session) -> Option<HeaderValue> {
    if !session.is_upgrade_req() || !session.is_body_empty() {
        return None;
    }
    let request = session.req_header();
    let mut asked = request.headers.get_all(header::UPGRADE).iter();
    let (Some(protocol), None) = (asked.next(), asked.next()) else {
        return None;
    };
    let mut names = protocol.as_bytes().split(|&byte| byte == b',').map(|name| {
        let name = name.trim_ascii();
        name.split(|&byte| byte == b'/').next().unwrap_or_default()
    });
    let is_http = |name: &[u8]| {
        [&b"h2c"[..], b"h2", b"h3", b"http", b"tls"]
            .iter()
            .any(|http| name.eq_ignore_ascii_case(http))
    };
    (!names.any(is_http)).then(|| protocol.clone())
}

/// Whether it opens a WebSocket over HTTP/2 (RFC 8441).
pub fn is_websocket(request: &RequestHeader) -> bool {
    request.method == Method::CONNECT
        && request
            .extensions
            .get::<h2::ext::Protocol>()
            .is_some_and(|protocol| protocol.as_str() == "websocket")
}

/// Whether only HTTP/2 can carry it on: a WebSocket over it, or a call of gRPC, whose status comes
/// in trailers. (The variant of gRPC for browsers has them in the body.)
pub fn is_stream(session: &Session) -> bool {
    let request = session.req_header();
    let kind = request.headers.get(header::CONTENT_TYPE);
    let grpc = kind
        .and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')));
    session.is_http2() && (grpc || is_websocket(request))
}

/// Bodies up to this size fit into the buffers of a kit's socket.
const BULK_BYTES: u64 = 64 << 10;

/// Whether its body may be larger than the buffers on its way.
pub fn is_bulk(session: &mut Session) -> bool {
    match declared_length(session.req_header()) {
        Some(length) => length > BULK_BYTES,
        None => !session.is_body_empty(),
    }
}

/// The next part of a body that the proxy reads itself; over HTTP/2 Pingora keeps no time.
pub async fn next_part(
    session: &mut Session,
    patience: Duration,
) -> pingora::Result<Option<Bytes>> {
    match tokio::time::timeout(patience, session.read_request_body()).await {
        Ok(part) => part,
        Err(_) => {
            let fault = Error::explain(ErrorType::ReadTimedout, "reading a body");
            Err(fault.into_down())
        }
    }
}

/// Whether a browser asks if a page of another origin may send a request (Fetch, section 3.2.5).
pub fn is_preflight(request: &RequestHeader) -> bool {
    request.method == Method::OPTIONS
        && request.headers.contains_key(header::ORIGIN)
        && request
            .headers
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The length that its body is said to have.
pub fn declared_length(request: &RequestHeader) -> Option<u64> {
    request
        .headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Who reads a refusal: a page is for a navigation that asked for one.
pub fn audience(request: &RequestHeader, api: bool) -> Audience {
    let text = |name: HeaderName| request.headers.get(name).and_then(|it| it.to_str().ok());
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    let navigates = match text(HeaderName::from_static("sec-fetch-dest")) {
        Some(destination) => matches!(destination, "document" | "iframe" | "frame"),
        None => true,
    };
    let html = text(header::ACCEPT).is_some_and(|accept| accept.contains("text/html"));
    match (reads && navigates && html, api) {
        (true, _) => Audience::Person,
        (false, true) => Audience::Api,
        (false, false) => Audience::Kit,
    }
}
