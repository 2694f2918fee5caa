//! The web pages, built beforehand and carried in the binary.

use std::convert::Infallible;

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, StatusCode};
use rust_embed::RustEmbed;
use tower::Service;
use tower_http::compression::CompressionLayer;

/// Where the pages find their scripts and styles, on every service's host.
pub const PREFIX: &str = "/_hoody/ui";

#[derive(RustEmbed)]
#[folder = "../ui/dist"]
#[allow_missing = true]
struct Built;

/// Pages load nothing but their own files and may stand in a frame of any site. Styles are set by
/// script: the terminal draws with them.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; \
    connect-src 'self'; worker-src 'self' blob:; frame-src 'self' blob:; manifest-src 'self'; \
    base-uri 'none'; form-action 'self'";

/// The page of a service.
pub fn index(service: &str) -> Response {
    let Some(page) = Built::get(&format!("{service}/index.html")) else {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("The {service} page is not part of this build; `make ui` builds it.\n"),
        )
            .into_response();
    };
    (
        [
            (
                CONTENT_TYPE,
                HeaderValue::from_static("text/html; charset=utf-8"),
            ),
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (
                HeaderName::from_static("referrer-policy"),
                HeaderValue::from_static("no-referrer"),
            ),
        ],
        page.data,
    )
        .into_response()
}

/// The files that pages load, compressed where the client takes it.
pub fn assets()
-> impl Service<axum::extract::Request, Response = impl IntoResponse, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    Router::new()
        .route("/{*path}", get(asset))
        .layer(CompressionLayer::new())
}

async fn asset(Path(path): Path<String>) -> Response {
    let Some(file) = Built::get(&path) else {
        return (StatusCode::NOT_FOUND, "No such file.\n").into_response();
    };
    // names carry the hash of the content, so a file never changes
    let etag = path.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (
        [
            (CONTENT_TYPE, HeaderValue::from_static(content_type(&path))),
            (
                CACHE_CONTROL,
                HeaderValue::from_static("public, max-age=31536000, immutable"),
            ),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (
                ETAG,
                HeaderValue::from_str(&format!("W/\"{etag:x}\"")).expect("hexadecimal"),
            ),
        ],
        file.data,
    )
        .into_response()
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("html") => "text/html; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("wasm") => "application/wasm",
        Some("json" | "map") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        _ => "application/octet-stream",
    }
}
