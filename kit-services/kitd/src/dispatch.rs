//! From a request on the kit's socket to the service it names.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use kit::{Fault, Wire, call::edge};
use tokio::net::UnixListener;
use tower::{Service, ServiceExt};

use crate::identity::{self, Identity, IdentityError};
use crate::services::{self, SERVICES, Started};
use crate::{Settings, ports, websocket};

/// The kit of one container. Cheap to clone.
#[derive(Clone)]
pub struct Kit {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    /// One cell a service, in the order of the list; filled by its first call.
    started: Vec<OnceLock<Started>>,
    ports: ports::Ports,
    /// Requests that were not answered yet.
    waiting: AtomicUsize,
}

impl Kit {
    /// A kit with nothing started.
    pub fn new(settings: Settings) -> Self {
        kit::health::start();
        let started = SERVICES.iter().map(|_| OnceLock::new()).collect();
        Kit {
            inner: Arc::new(Inner {
                settings,
                started,
                ports: ports::Ports::new(),
                waiting: AtomicUsize::new(0),
            }),
        }
    }

    /// Start the services that have something to do without being called.
    pub fn start_wanted(&self) {
        for (at, entry) in SERVICES.iter().enumerate() {
            if (entry.wanted)(&self.inner.settings) {
                self.inner.started[at].get_or_init(|| {
                    tracing::info!(service = entry.slug, "starting {}", entry.slug);
                    entry.start(&self.inner.settings)
                });
            }
        }
    }

    /// Serve this listener until `stop` resolves; connections then end by themselves.
    pub async fn serve(
        self,
        listener: UnixListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        axum::serve(listener, Shared(self))
            .with_graceful_shutdown(stop)
            .await
    }

    /// Whether the process could end now without anybody losing anything.
    pub fn is_idle(&self) -> bool {
        self.inner.waiting.load(Ordering::SeqCst) == 0 && !self.is_at_work()
    }

    /// Whether a service holds a session or runs a program.
    fn is_at_work(&self) -> bool {
        let mut started = self.inner.started.iter().filter_map(OnceLock::get);
        started.any(Started::is_busy)
    }

    /// What the node asks the kit itself: `GET /busy` is whether there are sessions, programs, or
    /// requests beside this one; `POST /identity` has the machine be who it says.
    async fn tell_node(&self, request: Request) -> Response {
        match request.uri().path() {
            "/busy" => self.busy(),
            "/identity" if request.method() == Method::POST => match self.become_one(request).await
            {
                Ok(()) => StatusCode::NO_CONTENT.into_response(),
                Err(fault) => kit::http::refuse(Wire::KIT, &fault),
            },
            _ => {
                let unknown =
                    Fault::not_found("the kit itself is asked for `/busy` and `/identity` alone");
                refuse(&unknown, request.headers())
            }
        }
    }

    async fn become_one(&self, request: Request) -> Result<(), Fault> {
        if !self.inner.settings.machine {
            return Err(refused(IdentityError::NotAMachine));
        }
        let body = axum::body::to_bytes(request.into_body(), identity::BYTES).await;
        let body = body.map_err(|error| Fault::bad_request(format!("no identity: {error}")))?;
        let identity: Identity = serde_json::from_slice(&body)
            .map_err(|error| Fault::bad_request(format!("no identity: {error}")))?;
        tokio::task::spawn_blocking(move || identity::take(&identity))
            .await
            .map_err(|error| Fault::internal(format!("becoming somebody stumbled: {error}")))?
            .map_err(refused)
    }

    fn busy(&self) -> Response {
        let others = self.inner.waiting.load(Ordering::SeqCst) > 1;
        let busy = others || self.is_at_work();
        axum::Json(serde_json::json!({ "busy": busy })).into_response()
    }

    /// Answer one request.
    pub async fn answer(&self, mut request: Request) -> Response {
        let over_http2 = websocket::translate(&mut request);
        let mut response = self.dispatch(request).await;
        if over_http2 {
            websocket::translate_back(&mut response);
        }
        response
    }

    async fn dispatch(&self, request: Request) -> Response {
        let _waiting = Waiting::new(&self.inner.waiting);
        let named = request
            .headers()
            .get(edge::SERVICE)
            .and_then(|value| value.to_str().ok());
        let slug = named.unwrap_or_default().to_owned();
        if slug == edge::KIT {
            return self.tell_node(request).await;
        }
        if let Some(scheme) = ports::Scheme::of(&slug) {
            return self.inner.ports.forward(scheme, request).await;
        }
        let Some((at, entry)) = services::find(&slug) else {
            return refuse(&unknown(&slug), request.headers());
        };
        let service = self.inner.started[at].get_or_init(|| {
            tracing::info!(service = slug, "starting {slug}");
            entry.start(&self.inner.settings)
        });
        match service.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

fn refused(error: IdentityError) -> Fault {
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
    let words = format!("{error}{}", cause.unwrap_or_default());
    match error {
        IdentityError::NotAMachine => Fault::forbidden(words),
        IdentityError::Files(_) | IdentityError::Path { .. } => Fault::bad_request(words),
        IdentityError::Write { .. } | IdentityError::Name { .. } => Fault::internal(words),
    }
}

/// Counts a request for as long as it is held.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

const STYLE: &str = ":root{color-scheme:light dark}\
body{margin:0;min-height:100vh;display:grid;place-items:center;background:light-dark(#f6f7f9,#0f1216);\
color:light-dark(#1b1f24,#e7eaee);font:16px/1.55 system-ui,sans-serif}\
main{box-sizing:border-box;width:calc(100% - 3rem);max-width:30rem;padding:2rem 2.25rem;border-radius:14px;\
background:light-dark(#fff,#181c22);border:1px solid light-dark(#e3e6ea,#2a3038)}\
h1{margin:0 0 .6rem;font-size:1.5rem}p{margin:0;color:light-dark(#5d6671,#98a2ae);overflow-wrap:anywhere}";

/// JSON for programs, a plain page for whoever asks for one.
fn refuse(fault: &Fault, headers: &HeaderMap) -> Response {
    let wants_page = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    if !wants_page {
        return kit::http::refuse(Wire::KIT, fault);
    }
    // slugs are letters and hyphens when the proxy names them; nobody else reaches this socket
    let words: String = fault.message.replace(['<', '>', '&'], "");
    let page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width, initial-scale=1\"><title>Not here</title>\
         <style>{STYLE}</style><main><h1>Not here</h1><p>{words}</p></main>"
    );
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'",
        ),
        (CACHE_CONTROL, "no-store"),
    ];
    (fault.status, headers, page).into_response()
}

fn unknown(slug: &str) -> Fault {
    if slug.is_empty() {
        return Fault::bad_request(format!(
            "the request names no service: the header {} is missing",
            edge::SERVICE
        ));
    }
    let known: Vec<_> = SERVICES.iter().map(|entry| entry.slug).collect();
    Fault::not_found(format!(
        "this kit has no service `{slug}`; it has {}",
        known.join(", ")
    ))
    .code("SERVICE_UNKNOWN")
}

/// Bind the kit's socket, taking the place of one that an earlier kit left. Only root may connect:
/// programs in the container have no business on it.
pub fn bind(path: &Path) -> std::io::Result<UnixListener> {
    const OWNER_ONLY: u32 = 0o600;
    let fresh = path.with_extension("new");
    for stale in [&fresh, path] {
        match std::fs::remove_file(stale) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, PermissionsExt::from_mode(OWNER_ONLY))?;
    std::fs::rename(&fresh, path)?;
    Ok(listener)
}

/// The kit as a tower service.
#[derive(Clone)]
struct Shared(Kit);

impl Service<Request> for Shared {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let kit = self.0.clone();
        Box::pin(async move { Ok(kit.answer(request).await) })
    }
}

impl Service<axum::serve::IncomingStream<'_, UnixListener>> for Shared {
    type Response = Shared;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Shared, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: axum::serve::IncomingStream<'_, UnixListener>) -> Self::Future {
        std::future::ready(Ok(self.clone()))
    }
}
