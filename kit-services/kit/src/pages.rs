//! The web page of a service, built beforehand and carried in the binary.

use std::borrow::Cow;
use std::convert::Infallible;

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, StatusCode};
use tower::Service;
use tower_http::compression::CompressionLayer;

/// Where the pages find their scripts and styles, on every service's host.
pub const PREFIX: &str = "/_hoody/ui";

/// What of the policy says whom scripts may ask.
const CONNECT: &str = "connect-src 'self'";

/// Pages, by what finds their files: `terminal/index.html`, `terminal/assets/…`.
#[derive(Clone, Copy)]
pub struct Pages {
    find: fn(&str) -> Option<Cow<'static, [u8]>>,
}

/// Pages load nothing but their own files and may stand in a frame of any site. Styles are set by
/// script: the terminal draws with them.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; \
    connect-src 'self'; worker-src 'self' blob:; frame-src 'self' blob:; manifest-src 'self'; \
    base-uri 'none'; form-action 'self'";

impl Pages {
    pub const fn new(find: fn(&str) -> Option<Cow<'static, [u8]>>) -> Pages {
        Pages { find }
    }

    /// The page of a service.
    pub fn index(self, service: &str) -> Response {
        self.index_that_reaches(service, "")
    }

    /// The same, where its scripts may also ask the hosts of these sources (Content Security Policy
    /// Level 3, section 2.3.1).
    pub fn index_that_reaches(self, service: &str, sources: &str) -> Response {
        let Some(page) = (self.find)(&format!("{service}/index.html")) else {
            return (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("The {service} page is not part of this build; `make ui` builds it.\n"),
            )
                .into_response();
        };
        let policy = POLICY.replace(CONNECT, &format!("{CONNECT} {sources}"));
        // What cannot stand in a header adds nothing.
        let policy = match HeaderValue::try_from(policy) {
            Ok(policy) if !sources.is_empty() => policy,
            _ => HeaderValue::from_static(POLICY),
        };
        (
            [
                (
                    CONTENT_TYPE,
                    HeaderValue::from_static("text/html; charset=utf-8"),
                ),
                (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
                (CONTENT_SECURITY_POLICY, policy),
                (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
                (
                    HeaderName::from_static("referrer-policy"),
                    HeaderValue::from_static("no-referrer"),
                ),
            ],
            page,
        )
            .into_response()
    }

    /// The files that pages load, compressed where the client takes it.
    pub fn assets(
        self,
    ) -> impl Service<
        axum::extract::Request,
        Response = impl IntoResponse,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + Sync
    + 'static {
        Router::new()
            .route(
                "/{*path}",
                get(move |Path(path): Path<String>| async move { self.asset(&path) }),
            )
            .layer(CompressionLayer::new())
    }

    fn asset(self, path: &str) -> Response {
        let Some(file) = (self.find)(path) else {
            return (StatusCode::NOT_FOUND, "No such file.\n").into_response();
        };
        // names carry the hash of the content, so a file never changes
        let etag = path.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        (
            [
                (CONTENT_TYPE, HeaderValue::from_static(content_type(path))),
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
            file,
        )
            .into_response()
    }
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
