//! WebSockets over HTTP/2 (RFC 8441): to whatever serves them they look like any other.
//!
//! Over HTTP/2 a WebSocket begins as a `CONNECT` with the pseudo-header `:protocol`, and its bytes
//! are the stream's data. Services and the servers in the container know the handshake of
//! HTTP/1.1, so the request takes that form on its way in and the answer the other one back.

use axum::extract::Request;
use axum::response::Response;
use http::header::{CONNECTION, HeaderName, UPGRADE};
use http::{HeaderValue, Method, StatusCode, Version};
use hyper::ext::Protocol;

/// The key of a handshake protects from nothing here: HTTP/2 has its own framing. Any one will do.
const KEY: HeaderValue = HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA==");
const KEY_NAME: HeaderName = http::header::SEC_WEBSOCKET_KEY;
const ACCEPT_NAME: HeaderName = http::header::SEC_WEBSOCKET_ACCEPT;

/// Give a WebSocket over HTTP/2 the form of one over HTTP/1.1. Whether it was one.
pub fn translate(request: &mut Request) -> bool {
    let asks = request.method() == Method::CONNECT
        && request
            .extensions()
            .get::<Protocol>()
            .is_some_and(|protocol| protocol.as_str() == "websocket");
    if !asks {
        return false;
    }
    request.extensions_mut().remove::<Protocol>();
    *request.method_mut() = Method::GET;
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(KEY_NAME, KEY);
    true
}

/// Give the answer to it the form that HTTP/2 has for it.
pub fn translate_back(response: &mut Response) {
    for name in [CONNECTION, UPGRADE, ACCEPT_NAME] {
        response.headers_mut().remove(name);
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        *response.status_mut() = StatusCode::OK;
        *response.body_mut() = axum::body::Body::empty();
    } else if response.status().is_success() {
        // It would be taken for a WebSocket.
        *response.status_mut() = StatusCode::BAD_GATEWAY;
    }
}
