//! A request to a script: found, admitted, passed on, and its answer back.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{
    self, ACCEPT, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, CONTENT_TYPE, HOST,
    ORIGIN, UPGRADE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use kit::call::edge;
use kit::{Call, Fault};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use subtle::ConstantTimeEq;
use tokio::io::AsyncWriteExt;

use crate::directives::{Directives, MOST_CONCURRENT};
use crate::line::{Answer, LineError};
use crate::logs::{Kind, now};
use crate::metrics::Active;
use crate::place::{Deployment, RelPath};
use crate::pool::{self, Entered, Script, Turn};
use crate::routing::{self, Look, Match};
use crate::{Exec, WIRE};

/// Largest body that a script gets as a whole; one with `@rawBody` gets it as it comes.
pub const BODY_BYTES: usize = 32 << 20;
/// Requests at once, WebSockets included.
const REQUESTS: usize = 4096;
/// How long a client of a WebSocket that ended may take for what was said last.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// What of a request's address stands in logs.
const URL_CHARS: usize = 300;
/// Headers between the kit and a process.
const INTERNAL: &str = "x-hoody-exec-";
const CALL: HeaderName = HeaderName::from_static("x-hoody-exec-call");
const ID: HeaderName = HeaderName::from_static("x-hoody-exec-id");
const FAILED: &str = "x-hoody-exec-failed";
/// What of a call need not be encoded to stand in a header.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'{')
    .remove(b'}')
    .remove(b':')
    .remove(b',')
    .remove(b'"')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'/');

/// Where scripts are looked for.
pub struct Files<'a>(pub &'a crate::root::Root);

impl Look for Files<'_> {
    fn is_file(&self, path: &RelPath) -> bool {
        self.0.file(path).is_some()
    }
    fn is_directory(&self, path: &RelPath) -> bool {
        self.0.facts(path).is_ok_and(|facts| facts.is_directory())
    }
    fn names(&self, directory: &RelPath) -> Vec<String> {
        let entries = self.0.list(directory).unwrap_or_default();
        let named = entries.into_iter().filter_map(|entry| {
            match (entry.facts.is_file(), entry.facts.is_directory()) {
                (true, _) => Some(entry.name),
                (_, true) => Some(format!("{}/", entry.name)),
                _ => None, // a link, or no file at all
            }
        });
        named.collect()
    }
}

/// Answer a request that no operation answers.
pub async fn answer(exec: Exec, request: Request) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    let wants_page = request.uri().path() == "/"
        && request.method() == Method::GET
        && wants_page(request.headers());
    match find(&exec, &request) {
        Ok(Some(found)) => found.run(&exec, request).await,
        Ok(None) if wants_page && exec.config().page.is_some() => {
            (exec.config().page.expect("it was just seen"))()
        }
        Ok(None) => {
            let (method, path) = (request.method(), request.uri().path());
            let fault = Fault::not_found(format!(
                "no script answers {method} {path}; write one with POST /api/v1/exec/scripts/write, or list them with GET /api/v1/exec/scripts/list"
            ))
            .code("SCRIPT_NOT_FOUND");
            refuse(&fault, &Directives::default(), origin.as_ref())
        }
        Err(fault) => refuse(&fault, &Directives::default(), origin.as_ref()),
    }
}

fn wants_page(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"))
}

/// A script that a request leads to.
struct Found {
    call: Call,
    deployment: Deployment,
    matched: Match,
    directives: Arc<Directives>,
}

fn find(exec: &Exec, request: &Request) -> Result<Option<Found>, Fault> {
    let call = Call {
        method: request.method().clone(),
        uri: request.uri().clone(),
        headers: request.headers().clone(),
        extensions: http::Extensions::new(),
    };
    let deployment = Deployment::of(&call, None, None)?;
    let parts = routing::parts(call.uri.path())?;
    let files = Files(exec.root());
    let base = deployment.directory();
    let Some(mut matched) =
        routing::resolve(&files, &base, &parts).or_else(|| markdown(&files, &base, &parts))
    else {
        return Ok(None);
    };
    let Some(facts) = exec.root().file(&matched.path) else {
        return Ok(None);
    };
    let directives = match matched.path.is_script() {
        true => exec.directives(&matched.path, &facts)?,
        // a text is guarded by the script beside it
        false => {
            let guard = [".ts", ".js"]
                .iter()
                .map(|ending| matched.path.with_extension(ending))
                .find_map(|path| Some((exec.root().file(&path)?, path)));
            match guard {
                Some((facts, path)) => exec.directives(&path, &facts)?,
                None => Arc::default(),
            }
        }
    };
    if !directives.enabled() {
        return Ok(None);
    }
    matched.parameters.retain(|name, _| name != "__proto__");
    Ok(Some(Found {
        call,
        deployment,
        matched,
        directives,
    }))
}

/// `/guide.md` is the text itself, for reading.
fn markdown(files: &Files<'_>, base: &RelPath, parts: &[String]) -> Option<Match> {
    let last = parts.last().filter(|last| last.ends_with(".md"))?;
    if last.starts_with(['.', '_']) || last.ends_with(".system.md") {
        return None;
    }
    let path = RelPath::read(base.join(&parts.join("/")).as_str()).ok()?;
    files.is_file(&path).then(|| Match {
        path,
        parameters: std::collections::BTreeMap::new(),
    })
}

impl Found {
    async fn run(self, exec: &Exec, request: Request) -> Response {
        let origin = request.headers().get(ORIGIN).cloned();
        let asks = request
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if request.method() == Method::OPTIONS && origin.is_some() && asks {
            return preflight(&self.directives, &request);
        }
        if let Err(fault) = self.admit() {
            return refuse(&fault, &self.directives, origin.as_ref());
        }
        let directives = self.directives.clone();
        let mut response = match self.forward(exec, request).await {
            Ok(response) => response,
            Err(fault) => kit::http::refuse(WIRE, &fault),
        };
        allow_origin(&directives, origin.as_ref(), response.headers_mut());
        response
    }

    /// Whether the caller has one of the script's tokens, where it has any.
    fn admit(&self) -> Result<(), Fault> {
        if self.directives.tokens().next().is_none() {
            return Ok(());
        }
        let headers = &self.call.headers;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = text("authorization").and_then(|value| {
            let (scheme, rest) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
        });
        let query = self.call.uri.query().unwrap_or_default();
        let asked = query
            .split('&')
            .filter_map(|pair| pair.strip_prefix("token="))
            .map(|value| percent_encoding::percent_decode_str(value).decode_utf8_lossy());
        let shown: Vec<_> = [bearer, text("x-token")]
            .into_iter()
            .flatten()
            .map(std::borrow::Cow::Borrowed)
            .chain(asked)
            .collect();
        let open = self.directives.tokens().any(|token| {
            shown
                .iter()
                .any(|it| bool::from(it.as_bytes().ct_eq(token.as_bytes())))
        });
        match open {
            true => Ok(()),
            false => Err(Fault::unauthorized(
                "this script asks for its token: send it as `Authorization: Bearer`, `X-Token` or `?token=`",
            )
            .code("TOKEN_REQUIRED")),
        }
    }

    async fn forward(self, exec: &Exec, request: Request) -> Result<Response, Fault> {
        if !self.matched.path.is_script() {
            let (text, _) = exec.root().text(&self.matched.path)?;
            let kind = [(CONTENT_TYPE, "text/markdown; charset=utf-8")];
            return Ok((kind, text).into_response());
        }
        let (path, directives) = (&self.matched.path, &self.directives);
        let turn = exec.pool().turn(path, directives.concurrent()).ok_or_else(|| {
            Fault::unavailable(format!(
                "the script {path} has {} requests, which is its limit; `@concurrent` raises it to at most {MOST_CONCURRENT}",
                directives.concurrent()
            ))
            .code("SCRIPT_BUSY")
            .retry_after(Duration::from_secs(1))
        })?;
        if exec.metrics().active().len() >= REQUESTS {
            return Err(Fault::unavailable(format!(
                "{REQUESTS} requests are under way, which is the limit"
            ))
            .code("TOO_MANY_REQUESTS")
            .retry_after(Duration::from_secs(1)));
        }
        let declared = request.body().size_hint().lower();
        if !directives.raw_body() && declared > BODY_BYTES as u64 {
            return Err(too_large());
        }
        let execution = Execution::begin(exec, &self, &request, turn);
        let result = self.ask(exec, request, &execution).await;
        match result {
            Ok(response) => Ok(execution.carry(response)),
            Err(fault) => {
                execution.over(fault.status.as_u16(), Some(&fault.message));
                Err(fault)
            }
        }
    }

    /// Pass the request on and wait for the answer to begin.
    async fn ask(
        &self,
        exec: &Exec,
        mut request: Request,
        execution: &Execution,
    ) -> Result<Reply, Fault> {
        let path = &self.matched.path;
        let script = exec
            .script(&self.deployment, path, &self.directives)
            .await?;
        let entered = script.enter();
        let upgrade = websocket_of(request.headers());
        let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let request = self.dress(exec, request, upgrade, &execution.id)?;
        let timeout = self.directives.timeout();
        let sent = tokio::time::timeout(timeout, script.lines.send(&script.process.http, request));
        let response = match sent.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(broken(&script, &error).await),
            Err(_) => {
                script.abandon();
                return Err(Fault::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    format!(
                        "the script {path} did not answer within {} ms; `@timeout` gives it longer",
                        timeout.as_millis()
                    ),
                )
                .code("SCRIPT_TIMEOUT"));
            }
        };
        Ok(Reply {
            response,
            client,
            entered,
            script,
        })
    }

    /// Give the request the form that a process expects.
    fn dress(
        &self,
        exec: &Exec,
        request: Request,
        upgrade: Option<HeaderValue>,
        id: &str,
    ) -> Result<http::Request<Body>, Fault> {
        let (mut parts, body) = request.into_parts();
        let host = self.call.host().map(str::to_owned);
        let gone: Vec<HeaderName> = parts
            .headers
            .keys()
            .filter(|name| {
                let name = name.as_str();
                name.starts_with(INTERNAL)
                    || (name.starts_with(edge::PREFIX)
                        && !edge::IDENTITY.contains(&name)
                        && name != "x-hoody-edge-hook")
                    || matches!(
                        name,
                        "keep-alive" | "proxy-connection" | "connection" | "upgrade" | "expect"
                    )
            })
            .cloned()
            .collect();
        for name in gone {
            parts.headers.remove(name);
        }
        let value = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| Fault::bad_request("the request cannot be passed on as it is"))
        };
        if let Some(host) = &host {
            parts.headers.insert(HOST, value(host)?);
        }
        if let Some(protocol) = upgrade {
            parts
                .headers
                .insert(CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(UPGRADE, protocol);
        }
        let call = json!({
            "parameters": self.matched.parameters,
            "ip": self.call.client().map(|ip| ip.to_string()),
            "hostname": host,
            "shared": exec.shared().version(&self.deployment),
        });
        let call = utf8_percent_encode(&call.to_string(), PLAIN).to_string();
        parts.headers.insert(CALL, value(&call)?);
        parts.headers.insert(ID, value(id)?);
        let target = parts.uri.path_and_query().map_or("/", |it| it.as_str());
        parts.uri = target
            .parse::<Uri>()
            .unwrap_or_else(|_| Uri::from_static("/"));
        parts.version = http::Version::HTTP_11;
        let body = match self.directives.raw_body() {
            true => body,
            false => Body::new(Limited::new(body, BODY_BYTES)),
        };
        Ok(http::Request::from_parts(parts, body))
    }
}

fn too_large() -> Fault {
    Fault::too_large(format!(
        "the body is larger than {BODY_BYTES} bytes; a script with `@rawBody` takes it as a stream"
    ))
    .code("BODY_TOO_LARGE")
}

/// Why a connection to a process broke off.
async fn broken(script: &Script, error: &LineError) -> Fault {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return too_large();
        }
        cause = error.source();
    }
    if let LineError::Broken(error) = error
        && error.is_user()
        && !script.process.is_over()
    {
        return Fault::bad_request("the request's body broke off").code("BODY_BROKEN");
    }
    let ending = script.process.ending_soon().await;
    pool::ended(&script.path, &ending)
}

/// An answer as it comes from a process.
struct Reply {
    response: http::Response<Answer>,
    client: Option<hyper::upgrade::OnUpgrade>,
    entered: Entered,
    script: Arc<Script>,
}

/// A request while it is under way. Where it is dropped, its client has gone.
struct Execution {
    exec: Exec,
    id: String,
    number: u64,
    script: String,
    method: Method,
    url: String,
    client: String,
    turn: Option<Turn>,
    /// What became of it; nothing until it is over.
    done: bool,
    status: u16,
    failure: Option<String>,
    quiet: bool,
}

impl Execution {
    fn begin(exec: &Exec, found: &Found, request: &Request, turn: Turn) -> Execution {
        let id = format!("{:016x}", rand::random::<u64>());
        let client = found
            .call
            .client()
            .map_or_else(|| "127.0.0.1".to_owned(), |ip| ip.to_string());
        let url = shown_url(&found.call.uri);
        let number = exec.metrics().begin(Active::new(
            id.clone(),
            found.matched.path.to_string(),
            found.call.host().unwrap_or_default().to_owned(),
            client.clone(),
            request.method().to_string(),
            url.clone(),
        ));
        Execution {
            exec: exec.clone(),
            id,
            number,
            script: found.matched.path.to_string(),
            method: request.method().clone(),
            url,
            client,
            turn: Some(turn),
            done: false,
            // what stands in logs where a client does not wait
            status: 499,
            failure: Some("the client left".to_owned()),
            quiet: found.directives.log_level() == "none",
        }
    }

    fn over(mut self, status: u16, failure: Option<&str>) {
        self.status = status;
        self.failure = failure.map(str::to_owned);
        if let Some(failure) = failure
            && !self.quiet
        {
            self.exec
                .logs()
                .script("error", &self.script, Some(&self.id), failure);
        }
        self.done = true;
    }

    /// Hand the answer on; it is over when its body is.
    fn carry(mut self, reply: Reply) -> Response {
        let Reply {
            mut response,
            client,
            entered,
            script,
        } = reply;
        self.status = response.status().as_u16();
        let failed = response.headers_mut().remove(FAILED).and_then(|text| {
            let text = percent_encoding::percent_decode(text.as_bytes());
            Some(text.decode_utf8().ok()?.into_owned())
        });
        for name in response
            .headers()
            .keys()
            .filter(|name| name.as_str().starts_with(INTERNAL) || name.as_str() == "keep-alive")
            .cloned()
            .collect::<Vec<_>>()
        {
            response.headers_mut().remove(name);
        }
        let id = HeaderValue::from_str(&self.id).expect("it is hexadecimal");
        response.headers_mut().insert("x-execution-id", id);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(client) = client
        {
            self.exec.metrics().upgraded(self.number);
            self.failure = None;
            return join(response, client, self, entered, script);
        }
        response.headers_mut().remove(CONNECTION);
        let (parts, body) = response.into_parts();
        let carried = Carried {
            body,
            execution: self,
            failed,
            _entered: entered,
        };
        Response::from_parts(parts, Body::new(carried))
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        let failure = self.failure.take();
        let failure = failure.as_deref();
        let took = self.exec.metrics().end(self.number, self.status, failure);
        self.turn.take();
        let millis = took.as_secs_f64() * 1000.0;
        let Execution {
            id,
            script,
            method,
            url,
            client,
            status,
            ..
        } = self;
        let now = now();
        let line = format!("{now} {client} {method} {url} {status} {millis:.1}ms {script} [{id}]");
        self.exec.logs().write(Kind::Access, &line);
    }
}

/// The path and the names in the query: values may be anything, secrets too.
fn shown_url(uri: &Uri) -> String {
    let mut url: String = uri.path().chars().take(URL_CHARS).collect();
    let names = uri.query().unwrap_or_default().split('&');
    let names: Vec<String> = names
        .filter(|pair| !pair.is_empty())
        .take(16)
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) => format!("{}=…", name.chars().take(40).collect::<String>()),
            None => "…".to_owned(),
        })
        .collect();
    if !names.is_empty() {
        url.push('?');
        url.push_str(&names.join("&"));
    }
    url
}

/// The body of an answer, with what is held for as long as it goes on.
struct Carried {
    body: Answer,
    execution: Execution,
    failed: Option<String>,
    _entered: Entered,
}

impl HttpBody for Carried {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(None) => {
                self.execution.failure = self.failed.take();
                self.execution.done = true;
            }
            Poll::Ready(Some(Err(_))) => {
                self.execution.failure = Some("the answer broke off".to_owned());
                self.execution.status = 502;
            }
            _ => {}
        }
        polled
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// Connect the two sides of a WebSocket.
fn join(
    mut response: http::Response<Answer>,
    client: hyper::upgrade::OnUpgrade,
    mut execution: Execution,
    entered: Entered,
    script: Arc<Script>,
) -> Response {
    let server = hyper::upgrade::on(&mut response);
    let (parts, body) = response.into_parts();
    body.release();
    tokio::spawn(async move {
        let (Ok(client), Ok(server)) = tokio::join!(client, server) else {
            execution.failure = Some("the WebSocket was not opened".to_owned());
            drop((execution, entered));
            return;
        };
        let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(client));
        let (mut from_server, mut to_server) = tokio::io::split(TokioIo::new(server));
        // whichever side ends first ends both: a process that is gone answers no close
        let copied = tokio::select! {
            copied = tokio::io::copy(&mut from_client, &mut to_server) => copied,
            copied = tokio::io::copy(&mut from_server, &mut to_client) => copied,
        };
        // what was said last goes out; a client that takes nothing any more is let go
        let _ = tokio::time::timeout(LAST_WORDS, to_client.shutdown()).await;
        if copied.is_err() || script.process.is_over() {
            execution.failure = Some("the WebSocket broke off".to_owned());
        }
        drop((execution, entered));
    });
    Response::from_parts(parts, Body::empty())
}

/// What the client wants the connection to become, where that is a WebSocket.
fn websocket_of(headers: &HeaderMap) -> Option<HeaderValue> {
    kit::http::upgrade_of(headers)
        .filter(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn refuse(fault: &Fault, directives: &Directives, origin: Option<&HeaderValue>) -> Response {
    let mut response = kit::http::refuse(WIRE, fault);
    allow_origin(directives, origin, response.headers_mut());
    response
}

/// Which origin may read the answer, and whether with credentials.
fn allowed(directives: &Directives, origin: &HeaderValue) -> Option<(HeaderValue, bool)> {
    let told = directives.cors_credentials();
    match directives.text("cors") {
        None => Some((origin.clone(), told.unwrap_or(true))),
        Some("none") => None,
        Some("*") => Some((origin.clone(), told == Some(true))),
        Some(some) => some
            .split([',', ' '])
            .any(|one| one.as_bytes() == origin.as_bytes())
            .then(|| (origin.clone(), told == Some(true))),
    }
}

fn allow_origin(directives: &Directives, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    let Some(origin) = origin else { return };
    headers.append(VARY, HeaderValue::from_static("origin"));
    if headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        return; // the script has said so itself
    }
    if let Some((origin, credentials)) = allowed(directives, origin) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if credentials {
            headers.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
    }
}

fn preflight(directives: &Directives, request: &Request) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    let origin = request.headers().get(ORIGIN);
    allow_origin(directives, origin, headers);
    let methods = directives
        .text("corsMethods")
        .unwrap_or("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    if let Ok(methods) = HeaderValue::from_str(methods) {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    let asked = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS);
    let allowed = directives
        .text("corsHeaders")
        .and_then(|text| HeaderValue::from_str(text).ok())
        .or_else(|| asked.cloned());
    if let Some(allowed) = allowed {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    let age = directives
        .value("corsMaxAge")
        .and_then(serde_json::Value::as_u64)
        .unwrap_or(600);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(age));
    response
}

impl Exec {
    /// Run a script by itself, as its schedule says. Whether it went well; otherwise why not.
    pub async fn run_scheduled(
        &self,
        path: &RelPath,
        run: &str,
    ) -> Result<(String, &'static str), (Fault, &'static str)> {
        let fail = |fault: Fault| {
            let status = match fault.code {
                Some("SCRIPT_TIMEOUT") => "timeout",
                Some("SCRIPT_INVALID" | "SCRIPT_LOAD_TIMEOUT" | "SCRIPT_NOT_FOUND") => "load_error",
                Some("SCRIPT_BUSY") => "skipped_overload",
                _ => "error",
            };
            (fault, status)
        };
        let facts = self
            .root()
            .facts(path)
            .map_err(|error| fail(Fault::from(error)))?;
        let directives = self.directives(path, &facts).map_err(fail)?;
        if !directives.enabled() {
            let off = Fault::conflict(format!("the script {path} says `@enabled false`"));
            return Err((off, "disabled"));
        }
        if directives.websocket() {
            let fault = Fault::conflict(format!("the script {path} is a WebSocket"));
            return Err((fault, "incompatible"));
        }
        let deployment = deployment_of(path);
        let _turn = self
            .pool()
            .turn(path, directives.concurrent())
            .ok_or_else(|| {
                fail(Fault::unavailable("it has as many requests as it may").code("SCRIPT_BUSY"))
            })?;
        let script = self
            .script(&deployment, path, &directives)
            .await
            .map_err(fail)?;
        let _entered = script.enter();
        let call = json!({
            "method": "SCHEDULE",
            "shared": self.shared().version(&deployment),
        });
        let route = path
            .below(&deployment.directory())
            .and_then(routing::route_of)
            .unwrap_or_else(|| "/".to_owned());
        let route = utf8_percent_encode(&route, PLAIN).to_string();
        let request = http::Request::get(route)
            .header(HOST, "schedule")
            .header(
                CALL,
                utf8_percent_encode(&call.to_string(), PLAIN).to_string(),
            )
            .header(ID, run)
            .header(header::USER_AGENT, "hoody-exec-schedule")
            .body(Body::empty())
            .map_err(|error| fail(Fault::internal(error.to_string())))?;
        let exchange = async {
            let response = script
                .lines
                .send(&script.process.http, request)
                .await
                .map_err(Some)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), PREVIEW_BYTES)
                .collect()
                .await;
            let text = body.map_or_else(|_| Bytes::new(), |body| body.to_bytes());
            Ok((status, text))
        };
        match tokio::time::timeout(directives.schedule_timeout(), exchange).await {
            Err(_) => {
                script.abandon();
                let late = Fault::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    format!("the script {path} took longer than it may"),
                );
                Err((late, "timeout"))
            }
            Ok(Err(error)) => {
                let error: Option<LineError> = error;
                let fault = match error {
                    Some(error) => broken(&script, &error).await,
                    None => Fault::internal("it broke off"),
                };
                Err((fault, "error"))
            }
            Ok(Ok((status, text))) => {
                let text = String::from_utf8_lossy(&text)
                    .chars()
                    .take(200)
                    .collect::<String>();
                match status.as_u16() < 500 {
                    true => Ok((text, "ok")),
                    false => Err((Fault::internal(text), "error")),
                }
            }
        }
    }
}

/// What of a scheduled run's answer is read.
const PREVIEW_BYTES: usize = 64 << 10;

/// Whose script this is: the first two names of its path.
pub fn deployment_of(path: &RelPath) -> Deployment {
    let mut names = path.names();
    let subdomain = names.next().unwrap_or("default").to_owned();
    let id = match names.next() {
        Some(id) if path.names().count() > 2 => id.to_owned(),
        _ => "1".to_owned(),
    };
    Deployment { subdomain, id }
}
