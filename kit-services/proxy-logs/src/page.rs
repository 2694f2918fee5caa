//! The page of the service.

use axum::Router;
use axum::routing::get;
use http::HeaderMap;
use kit::call::edge;
use kit::pages::{PREFIX, Pages};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "../ui/dist/logs"]
#[prefix = "logs/"]
#[allow_missing = true]
struct Built;

const PAGES: Pages = Pages::new(|path| Built::get(path).map(|file| file.data));

/// Serve the page at `/`, and what it loads.
pub fn add(router: Router) -> Router {
    let page = |headers: HeaderMap| async move {
        PAGES.index_that_reaches("logs", &siblings(&headers).unwrap_or_default())
    };
    router
        .route("/", get(page))
        .nest_service(PREFIX, PAGES.assets())
}

/// The hosts beside the one that was asked, as a source: the page sends requests to them again.
fn siblings(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name)?.to_str().ok();
    let (host, scheme) = (text(edge::HOST)?, text(edge::SCHEME)?);
    let (_, domain) = host.split_once('.')?;
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte);
    // At least two labels: never a whole top-level domain.
    (domain.contains('.') && domain.bytes().all(is_host)).then(|| format!("{scheme}://*.{domain}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_reaches_the_hosts_beside_its_own() {
        let cases = [
            (
                "p-c-logs-1.box1.containers.example",
                Some("https://*.box1.containers.example"),
            ),
            (
                "p-c-logs-1.box1.containers.example:8443",
                Some("https://*.box1.containers.example:8443"),
            ),
            ("example.org", None),
            ("logs", None),
            ("a.b.c; script-src *", None),
            ("a.b.c https://evil.example", None),
        ];
        for (host, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(edge::HOST, host.parse().expect("a value"));
            headers.insert(edge::SCHEME, "https".parse().expect("a value"));
            assert_eq!(siblings(&headers).as_deref(), expected, "{host}");
        }
    }
}
