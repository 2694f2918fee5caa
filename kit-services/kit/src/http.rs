//! The HTTP face of an [`Api`].

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, get, on};
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;

use crate::api::{Gate, Op};
use crate::{Api, Call, Fault, Route, Verb, Wire, arguments, health, mcp, openapi};

/// Largest JSON body of an operation. Larger things travel as streams through raw routes.
pub const MAX_BODY: usize = 16 << 20;

impl Api {
    /// The service as an axum router: its operations, its raw routes, `health`, `openapi.json`,
    /// `openapi.yaml` and the MCP endpoint at `/mcp`.
    pub fn router(self) -> Router {
        let api = Arc::new(self);
        let mut paths = Paths::default();
        let mut router = Router::new();
        for raw in &api.raws {
            if let Some(handler) = &raw.handler {
                router = both(router, &paths.of(raw.route.path), handler.clone());
            }
        }
        for (verb, ops) in groups(&api.ops) {
            let path = paths.of(ops[0].route.path);
            router = both(router, &path, on(filter(verb), operation(&api, ops)));
        }
        let wire = api.wire;
        let health = format!("{}/health", api.base);
        if !api.serves(&health) {
            router = both(router, &health, health::handler(api.name));
        }
        router = openapi::routes(router, &api);
        router = mcp::routes(router, &api);
        router = match &api.other_methods {
            Some(handler) => router.method_not_allowed_fallback(handler.clone()),
            None => router.method_not_allowed_fallback(move |request: Request| async move {
                refuse(
                    wire,
                    &Fault::new(
                        StatusCode::METHOD_NOT_ALLOWED,
                        format!(
                            "{} is not allowed on {}",
                            request.method(),
                            request.uri().path()
                        ),
                    ),
                )
            }),
        };
        match &api.fallback {
            Some(handler) => router.fallback_service(handler.clone()),
            None => router.fallback(move |request: Request| async move {
                refuse(
                    wire,
                    &Fault::not_found(format!(
                        "no operation {} {}; the operations are listed in openapi.json",
                        request.method(),
                        request.uri().path()
                    )),
                )
            }),
        }
    }
}

/// The path under which each shape of path is registered. `/servers/{id}` and
/// `/servers/{server_id}` are one place to the router and have to bear one name there; operations
/// take their parameters by position.
#[derive(Default)]
struct Paths(HashMap<String, String>);

impl Paths {
    fn of(&mut self, path: &str) -> String {
        self.0
            .entry(shape(path))
            .or_insert_with(|| path.to_owned())
            .clone()
    }
}

/// A path template without the names of its parameters and without its trailing slash.
fn shape(path: &str) -> String {
    let blank = |segment: &str| match segment {
        _ if segment.starts_with("{*") => "{*}".to_owned(),
        _ if segment.starts_with('{') => "{}".to_owned(),
        _ => segment.to_owned(),
    };
    path.trim_end_matches('/')
        .split('/')
        .map(blank)
        .collect::<Vec<_>>()
        .join("/")
}

/// Operations that share verb and path, in the order they were added.
fn groups(ops: &[Arc<Op>]) -> Vec<(Verb, Vec<Arc<Op>>)> {
    let mut groups: Vec<(Verb, Vec<Arc<Op>>)> = Vec::new();
    for op in ops {
        for verb in [Some(op.route.verb), op.route.also].into_iter().flatten() {
            let known = groups.iter_mut().find(|(known, group)| {
                *known == verb && shape(group[0].route.path) == shape(op.route.path)
            });
            match known {
                Some((_, group)) => group.push(op.clone()),
                None => groups.push((verb, vec![op.clone()])),
            }
        }
    }
    for (verb, group) in &groups {
        let plain = group
            .iter()
            .filter(|op| op.route.selector.is_none())
            .count();
        assert!(
            plain <= 1,
            "{} {} is declared twice",
            verb.as_str(),
            group[0].route.path
        );
    }
    groups
}

/// Register a path with and without its trailing slash.
pub(crate) fn both(router: Router, path: &str, handler: MethodRouter) -> Router {
    let bare = path.trim_end_matches('/');
    if bare.is_empty() {
        return router.route("/", handler);
    }
    match bare.split_once("{*") {
        Some(("/", _)) => return router.route(bare, handler),
        // The rest of a path may be empty.
        Some((prefix, _)) => return router.route(bare, handler.clone()).route(prefix, handler),
        None => {}
    }
    router
        .route(bare, handler.clone())
        .route(&format!("{bare}/"), handler)
}

type Parameters = Result<RawPathParams, RawPathParamsRejection>;

/// The handler of operations that share verb and path.
fn operation(
    api: &Arc<Api>,
    ops: Vec<Arc<Op>>,
) -> impl Fn(Parameters, Request) -> futures::future::BoxFuture<'static, Response> + Clone + use<> {
    let (wire, gate, ops) = (api.wire, api.gate.clone(), Arc::new(ops));
    move |parameters, request| {
        let (gate, ops) = (gate.clone(), ops.clone());
        Box::pin(async move {
            let op = match choose(&ops, &request) {
                Ok(op) => op,
                Err(fault) => return refuse(wire, &fault),
            };
            match answer(op, gate.as_ref(), parameters, request).await {
                Ok(reply) => succeed(wire, &op.route, reply),
                Err(fault) => refuse(wire, &fault),
            }
        })
    }
}

/// The operation that the query string selects; the one without a selector where it selects none.
fn choose<'a>(ops: &'a [Arc<Op>], request: &Request) -> Result<&'a Arc<Op>, Fault> {
    if let [op] = ops
        && op.route.selector.is_none()
    {
        return Ok(op);
    }
    let query = arguments::query_all(request.uri().query().unwrap_or_default());
    ops.iter()
        .find(|op| {
            op.route
                .selector
                .is_some_and(|selector| selects(selector, &query))
        })
        .or_else(|| ops.iter().find(|op| op.route.selector.is_none()))
        .ok_or_else(|| {
            let keys: Vec<_> = ops.iter().filter_map(|op| op.route.selector).collect();
            Fault::not_found(format!(
                "add one of these to the query: {}",
                keys.join(", ")
            ))
        })
}

fn selects(selector: &str, query: &[(String, String)]) -> bool {
    match selector.split_once('=') {
        Some((key, value)) => query
            .iter()
            .any(|(name, text)| name == key && text == value),
        None => query.iter().any(|(name, _)| name == selector),
    }
}

/// What the client wants the connection to become (RFC 9110, section 7.8).
pub fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = headers.get(CONNECTION)?.to_str().ok()?;
    asked
        .split(',')
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
        .then(|| headers.get(UPGRADE).cloned())
        .flatten()
}

async fn answer(
    op: &Op,
    gate: Option<&Gate>,
    parameters: Parameters,
    request: Request,
) -> Result<Value, Fault> {
    let (parts, body) = request.into_parts();
    let call = Call::from(parts);
    let call = op.admit(gate, call).await?;
    let values: Vec<String> = match parameters {
        // A rest of the path may be empty, and any bytes: who minds reads them from the call's URI.
        _ if op.route.rest_prefix().is_some() => vec![op.route.rest_lossy(call.uri.path())],
        Ok(parameters) => parameters
            .iter()
            .map(|(_, value)| value.to_owned())
            .collect(),
        Err(error) => {
            let why = error.body_text();
            return Err(Fault::bad_request(format!("the path is not valid: {why}")));
        }
    };
    let body = if op.route.body {
        read(body).await?
    } else {
        None
    };
    let path: Vec<_> = op
        .route
        .path_parameters()
        .map(str::to_owned)
        .zip(values)
        .collect();
    let headers = op.route.headers.iter().filter_map(|&name| {
        let value = call.headers.get(name)?;
        Some((
            name.to_owned(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        ))
    });
    let query = arguments::query_all(call.uri.query().unwrap_or_default());
    let merged = arguments::merge(op.input(), body, query, headers.chain(path))?;
    op.call(merged, call).await
}

/// Read a JSON body; an empty one is none, whatever its content type says.
async fn read(body: Body) -> Result<Option<Value>, Fault> {
    let large = || Fault::too_large(format!("the JSON body is larger than {MAX_BODY} bytes"));
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(large());
    }
    let bytes = axum::body::to_bytes(body, MAX_BODY)
        .await
        .map_err(|error| {
            let source = std::error::Error::source(&error);
            if source.is_some_and(|source| source.is::<http_body_util::LengthLimitError>()) {
                large()
            } else {
                Fault::bad_request("the request body ended early")
            }
        })?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        Fault::bad_request(format!("the request body is not JSON: {error}")).code("INVALID_JSON")
    })
}

fn filter(verb: Verb) -> MethodFilter {
    match verb {
        Verb::Get => MethodFilter::GET,
        Verb::Head => MethodFilter::HEAD,
        Verb::Post => MethodFilter::POST,
        Verb::Put => MethodFilter::PUT,
        Verb::Patch => MethodFilter::PATCH,
        Verb::Delete => MethodFilter::DELETE,
        Verb::Options => MethodFilter::OPTIONS,
        Verb::Other(name) => panic!("{name} is for raw routes with a fallback handler only"),
    }
}

/// Write a reply.
pub fn succeed(wire: Wire, route: &Route, reply: Value) -> Response {
    let status = StatusCode::from_u16(route.status).expect("routes declare valid statuses");
    if status == StatusCode::NO_CONTENT {
        return status.into_response();
    }
    json(status, &(wire.success)(route, reply))
}

/// Write a failure.
pub fn refuse(wire: Wire, fault: &Fault) -> Response {
    let body = fault.body.clone().unwrap_or_else(|| (wire.failure)(fault));
    let mut response = json(fault.status, &body);
    if let Some(wait) = fault.retry_after {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    response
}

/// A JSON response that no cache keeps.
pub fn json(status: StatusCode, body: &Value) -> Response {
    let mut response = (status, body.to_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A GET handler for a document that does not change while the process runs.
pub(crate) fn document(
    content_type: &'static str,
    make: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> MethodRouter {
    get(move || {
        let make = make.clone();
        async move { ([(CONTENT_TYPE, content_type)], make()) }
    })
}
