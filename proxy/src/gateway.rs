//! The life of a request: heard out, resolved, admitted, sent on, logged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use routes::address::{Address, Name};

use crate::Shared;
use crate::admit::admit;
use crate::connection::Connection;
use crate::limits::RequestPermit;
use crate::logs::{Record, redact};
use crate::outbound;
use crate::refusals::Refusal;
use crate::request::{audience, authority, check_wire, connection, declared_length, is_websocket};
use crate::resolve::{Destination, refuse_host, resolve};
use crate::upstream;

/// What the proxy tells a kit and control about a request. Whatever a client sends under these
/// names is removed.
mod edge {
    use http::HeaderName;

    pub const PREFIX: &str = "x-hoody-edge-";
    /// The service the host named.
    pub const SERVICE: HeaderName = HeaderName::from_static("x-hoody-edge-service");
    /// Its index.
    pub const INDEX: HeaderName = HeaderName::from_static("x-hoody-edge-index");
    /// The port inside the container, for the services `http` and `https`.
    pub const PORT: HeaderName = HeaderName::from_static("x-hoody-edge-port");
    /// The label before an `exec` host.
    pub const SUBDOMAIN: HeaderName = HeaderName::from_static("x-hoody-edge-subdomain");
    /// The client's address.
    pub const CLIENT: HeaderName = HeaderName::from_static("x-hoody-edge-client");
    /// How the client reached the proxy.
    pub const SCHEME: HeaderName = HeaderName::from_static("x-hoody-edge-scheme");
    /// The authority it asked for.
    pub const HOST: HeaderName = HeaderName::from_static("x-hoody-edge-host");
    /// The realm the API's host named.
    pub const REALM: HeaderName = HeaderName::from_static("x-hoody-edge-realm");
    /// What many applications know already.
    pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
    pub const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
}

/// What remains of a refused request's body is read for this long, so that the answer arrives
/// before the connection ends.
const DRAIN_BODY: Duration = Duration::from_secs(2);
/// Logged for a client that left before its answer.
const CLIENT_LEFT: u16 = 499;

/// One worker's proxy.
pub struct Gateway {
    shared: Arc<Shared>,
}

impl Gateway {
    pub fn new(shared: Arc<Shared>) -> Gateway {
        Gateway { shared }
    }
}

/// One request on its way.
pub struct Visit {
    started: Instant,
    connection: Option<Arc<Connection>>,
    name: Option<Name>,
    destination: Option<Destination>,
    /// Whether the host is the API's.
    api: bool,
    permit: Option<RequestPermit>,
    /// Whether it asks to become a WebSocket, and whether it has.
    upgrade: bool,
    tunnel: bool,
    body_bytes: u64,
    /// Until the upstream's headers.
    upstream: Option<Duration>,
    refusal: Option<&'static str>,
}

/// What the request filter has found out.
enum Verdict {
    Pass(Destination),
    Refuse(Refusal),
    /// To the same place over HTTPS.
    Redirect(String),
}

impl From<Refusal> for Verdict {
    fn from(refusal: Refusal) -> Verdict {
        Verdict::Refuse(refusal)
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Visit;

    fn new_ctx(&self) -> Visit {
        Visit {
            started: Instant::now(),
            connection: None,
            name: None,
            destination: None,
            api: false,
            permit: None,
            upgrade: false,
            tunnel: false,
            body_bytes: 0,
            upstream: None,
            refusal: None,
        }
    }

    async fn early_request_filter(
        &self,
        session: &mut Session,
        visit: &mut Visit,
    ) -> pingora::Result<()> {
        let limits = &self.shared.config.limits;
        visit.connection = connection(session);
        if let Some(connection) = &visit.connection {
            connection.serving();
            visit.permit = connection.permit.request();
        }
        visit.upgrade = is_websocket(session);
        // Pingora leaves it without end once a request has been read.
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(limits.keepalive.as_secs().max(1)));
        }
        // A WebSocket's silence is bounded by the connection, not by its reads.
        session.set_read_timeout((!visit.upgrade).then_some(limits.body));
        session.set_write_timeout(Some(limits.send));
        session.set_total_drain_timeout(Some(DRAIN_BODY));
        Ok(())
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        visit: &mut Visit,
    ) -> pingora::Result<bool> {
        let verdict = self.judge(session, visit).unwrap_or_else(|verdict| verdict);
        match verdict {
            Verdict::Pass(destination) => {
                visit.destination = Some(destination);
                Ok(false)
            }
            Verdict::Refuse(refusal) => {
                self.refuse(session, visit, &refusal).await?;
                Ok(true)
            }
            Verdict::Redirect(location) => {
                let mut head = ResponseHeader::build(StatusCode::PERMANENT_REDIRECT, Some(2))?;
                head.insert_header(header::LOCATION, location)?;
                head.insert_header(header::CONTENT_LENGTH, "0")?;
                session.write_response_header(Box::new(head), true).await?;
                Ok(true)
            }
        }
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        visit: &mut Visit,
    ) -> pingora::Result<()> {
        // An empty last part would be written as the end of a chunked body, and then the end once
        // more (cloudflare/pingora#935). Before the end, nothing at all would mean the end: there
        // Pingora passes over what is empty.
        if end && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        visit.body_bytes += body.as_ref().map_or(0, |part| part.len() as u64);
        if visit.api && visit.body_bytes > self.shared.config.limits.api_body_bytes {
            return Error::e_explain(ErrorType::HTTPStatus(413), "the body is too large");
        }
        Ok(())
    }

    async fn upstream_peer(
        &self,
        _: &mut Session,
        visit: &mut Visit,
    ) -> pingora::Result<Box<HttpPeer>> {
        let config = &self.shared.config;
        let destination = visit
            .destination
            .as_ref()
            .expect("only admitted requests come here");
        Ok(upstream::peer(
            destination,
            visit.upgrade,
            &config.control,
            &config.limits,
        ))
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        visit: &mut Visit,
    ) -> pingora::Result<()> {
        let name = visit
            .name
            .as_ref()
            .expect("only admitted requests come here");
        let destination = visit
            .destination
            .as_ref()
            .expect("only admitted requests come here");
        outbound::rewrite(request, |headers| {
            strip(headers);
            let host = outbound::text(&name.to_string());
            if let Some(connection) = &visit.connection {
                let scheme = HeaderValue::from_static(connection.scheme());
                headers.insert(edge::FORWARDED_FOR, connection.client_text.clone());
                headers.insert(edge::FORWARDED_PROTO, scheme.clone());
                headers.insert(edge::CLIENT, connection.client_text.clone());
                headers.insert(edge::SCHEME, scheme);
            }
            headers.insert(edge::FORWARDED_HOST, host.clone());
            headers.insert(edge::HOST, host.clone());
            headers.insert(header::HOST, host);
            match destination {
                Destination::Control { realm } => {
                    if let Some(realm) = realm {
                        headers.insert(edge::REALM, outbound::text(&realm.to_string()));
                    }
                }
                Destination::Kit { door, .. } => {
                    headers.insert(edge::SERVICE, HeaderValue::from_static(door.service));
                    if let Some(index) = door.index {
                        headers.insert(edge::INDEX, index.into());
                    }
                    if let Some(port) = door.port {
                        headers.insert(edge::PORT, port.into());
                    }
                    if let Some(subdir) = door.subdir {
                        headers.insert(edge::SUBDOMAIN, outbound::text(subdir.as_str()));
                    }
                }
            }
        });
        Ok(())
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        visit: &mut Visit,
    ) -> pingora::Result<()> {
        let switched = response.status == StatusCode::SWITCHING_PROTOCOLS;
        if response.status.is_informational() && !switched {
            return Ok(());
        }
        let metrics = &self.shared.metrics;
        if visit.upstream.is_none() {
            let waited = visit.started.elapsed();
            visit.upstream = Some(waited);
            metrics.upstream.observe(waited.as_secs_f64());
        }
        if switched && !visit.tunnel {
            visit.tunnel = true;
            metrics.tunnels.inc();
            if let Some(connection) = &visit.connection {
                connection.tunnel();
            }
        }
        Ok(())
    }

    /// A pooled connection may end just when a request is sent over it, such as when its kit is
    /// replaced: what may be sent twice (RFC 9110, section 9.2.2) is then sent again.
    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        _: &mut Visit,
        reused: bool,
    ) -> Box<Error> {
        let lost = *error.esource() == ErrorSource::Upstream
            && matches!(
                error.etype(),
                ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
            );
        let repeatable = session.req_header().method.is_idempotent()
            && !session.as_ref().retry_buffer_truncated()
            && session.response_written().is_none();
        error.set_retry(reused && lost && repeatable);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        visit: &mut Visit,
    ) -> FailToProxy {
        let unsaid = |code| FailToProxy {
            error_code: code,
            can_reuse_downstream: false,
        };
        if *error.esource() == ErrorSource::Upstream {
            let reason = reason(error.etype());
            self.shared
                .metrics
                .upstream_errors
                .with_label_values(&[reason])
                .inc();
        }
        let begun = session
            .response_written()
            .is_some_and(|head| !head.status.is_informational() || head.status == 101);
        let Some(refusal) = refusal_for(error, visit) else {
            self.shared.metrics.client_aborts.inc();
            return unsaid(CLIENT_LEFT);
        };
        if begun {
            return unsaid(0);
        }
        session.set_keepalive(None);
        match self.refuse(session, visit, &refusal).await {
            Ok(()) => unsaid(refusal.status().as_u16()),
            Err(_) => unsaid(CLIENT_LEFT),
        }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, visit: &mut Visit) {
        self.log(session, error, visit);
        // Over HTTP/2 a connection has no time between requests that is its own.
        if !session.is_http2()
            && !visit.tunnel
            && let Some(connection) = &visit.connection
        {
            connection.idle();
        }
    }

    // The access log has every failed request.
    fn suppress_error_log(&self, _: &Session, _: &Visit, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Visit,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

impl Gateway {
    /// Hear the request out and say where it goes. `Err` is only the way out early.
    fn judge(&self, session: &mut Session, visit: &mut Visit) -> Result<Verdict, Verdict> {
        let Shared { config, table, .. } = &*self.shared;
        let bad = |why| Verdict::Refuse(Refusal::BadRequest(why));
        if !session.is_http2() {
            check_wire(session).map_err(bad)?;
        }
        let asked = authority(session).map_err(bad)?;
        let name = Name::parse(&asked).map_err(|why| Verdict::Refuse(refuse_host(why)))?;
        visit.name = Some(name);
        let address = Address::of(&name, &config.zone);
        visit.api = matches!(address, Ok(Address::Api | Address::Realm(_)));

        if visit.permit.is_none() {
            return Err(Refusal::TooManyRequests.into());
        }
        let request = session.req_header();
        if matches!(request.method, Method::TRACE | Method::CONNECT) {
            return Err(Refusal::MethodNotAllowed.into());
        }
        if request.raw_path().len() > config.limits.target_bytes {
            return Err(Refusal::TargetTooLong.into());
        }
        let header_bytes: usize = request
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        if header_bytes > config.limits.header_bytes {
            return Err(Refusal::HeadersTooLarge.into());
        }
        let secured = visit.connection.as_ref().and_then(|it| it.secured.as_ref());
        if secured.is_some_and(|secured| !secured.covers(name.as_str())) {
            return Err(Refusal::Misdirected.into());
        }
        let address = address.map_err(|why| Verdict::Refuse(refuse_host(why)))?;
        if secured.is_none() && !config.zone.is_local() {
            return Err(self.to_https(session.req_header(), &name));
        }
        let length = declared_length(session.req_header());
        if visit.api && length.is_some_and(|length| length > config.limits.api_body_bytes) {
            return Err(Refusal::BodyTooLarge.into());
        }
        let destination = resolve(&address, &table.load())?;
        admit(&destination)?;
        Ok(Verdict::Pass(destination))
    }

    fn to_https(&self, request: &RequestHeader, name: &Name) -> Verdict {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return Refusal::HttpsRequired.into();
        }
        let port = match self.shared.https_port {
            443 => String::new(),
            port => format!(":{port}"),
        };
        let target = request
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        Verdict::Redirect(format!("https://{}{port}{target}", name.as_str()))
    }

    async fn refuse(
        &self,
        session: &mut Session,
        visit: &mut Visit,
        refusal: &Refusal,
    ) -> pingora::Result<()> {
        visit.refusal = Some(refusal.code());
        self.shared
            .metrics
            .refusals
            .with_label_values(&[refusal.code()])
            .inc();
        if refusal.closes() {
            session.set_keepalive(None);
        }
        session.set_close_on_response_before_downstream_finish(false);
        let answer = refusal.answer(audience(session.req_header(), visit.api));
        let mut head = ResponseHeader::build(answer.status, Some(8))?;
        head.insert_header(header::CONTENT_TYPE, answer.content_type)?;
        head.insert_header(header::CONTENT_LENGTH, answer.body.len().to_string())?;
        head.insert_header(header::CACHE_CONTROL, "no-store")?;
        head.insert_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")?;
        head.insert_header(header::REFERRER_POLICY, "no-referrer")?;
        if let Some(policy) = answer.policy {
            head.insert_header(header::CONTENT_SECURITY_POLICY, policy)?;
        }
        if let Some(seconds) = answer.retry_after {
            head.insert_header(header::RETRY_AFTER, seconds.to_string())?;
        }
        let bodiless = session.req_header().method == Method::HEAD;
        session
            .write_response_header(Box::new(head), bodiless)
            .await?;
        if !bodiless {
            session
                .write_response_body(Some(Bytes::from(answer.body)), true)
                .await?;
        }
        // A connection that is closed on unread bytes may take the answer with it.
        if !matches!(refusal, Refusal::RequestTimeout)
            && session.drain_request_body().await.is_err()
        {
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn log(&self, session: &Session, error: Option<&Error>, visit: &Visit) {
        let Shared {
            metrics, journal, ..
        } = &*self.shared;
        let taken = visit.started.elapsed();
        let status = match session.response_written() {
            Some(head) => head.status.as_u16(),
            None => CLIENT_LEFT,
        };
        let kind = match &visit.destination {
            None => "refused",
            Some(Destination::Control { .. }) => "api",
            Some(Destination::Kit { door, .. }) if door.port.is_some() => "port",
            Some(Destination::Kit { .. }) => "kit",
        };
        let class = match status {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        metrics.requests.with_label_values(&[kind, class]).inc();
        if visit.tunnel {
            metrics.tunnels.dec();
        } else {
            metrics
                .durations
                .with_label_values(&[kind])
                .observe(taken.as_secs_f64());
        }
        let (bytes_in, bytes_out) = (
            session.body_bytes_read() as u64,
            session.body_bytes_sent() as u64,
        );
        metrics.bytes_in.inc_by(bytes_in);
        metrics.bytes_out.inc_by(bytes_out);
        let (true, Some(connection)) = (journal.is_on(), &visit.connection) else {
            return;
        };
        let request = session.req_header();
        let (place, door) = match &visit.destination {
            Some(Destination::Kit { place, door }) => (Some(place), Some(door)),
            _ => (None, None),
        };
        let now = jiff::Timestamp::now();
        let record = Record {
            time: now.checked_sub(taken).unwrap_or(now),
            client: connection.client.ip().to_canonical(),
            host: visit.name.as_ref().map(|name| name.as_str().to_owned()),
            container: place.map(|place| place.container),
            project: place.map(|place| place.project),
            service: door.map(|door| door.service),
            index: door.and_then(|door| door.index),
            port: door.and_then(|door| door.port),
            scheme: connection.scheme(),
            http: match request.version {
                Version::HTTP_2 => "2",
                Version::HTTP_11 => "1.1",
                _ => "1.0",
            },
            method: request.method.to_string(),
            target: redact(&String::from_utf8_lossy(request.raw_path())),
            status,
            bytes_in,
            bytes_out,
            duration_ms: millis(taken),
            upstream_ms: visit.upstream.map(millis),
            refusal: visit.refusal,
            fault: error.map(|error| {
                let side = match error.esource() {
                    ErrorSource::Upstream => "upstream",
                    ErrorSource::Downstream => "client",
                    ErrorSource::Internal | ErrorSource::Unset => "proxy",
                };
                format!("{side}: {}", reason(error.etype()))
            }),
            websocket: visit.tunnel,
        };
        if !journal.write(Box::new(record)) {
            metrics.log_dropped.inc();
        }
    }
}

/// To a microsecond.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

/// Remove what only the proxy may say.
fn strip(headers: &mut HeaderMap) {
    outbound::remove(headers, |name| {
        let name = name.as_str();
        name.starts_with(edge::PREFIX)
            || name.starts_with("x-forwarded-")
            || matches!(name, "forwarded" | "x-real-ip")
    });
}

/// What to tell the client about a failure; nothing where it has left.
fn refusal_for(error: &Error, visit: &Visit) -> Option<Refusal> {
    use ErrorType::{
        ConnectTimedout, ConnectionClosed, H2Error, HTTPStatus, ReadError, ReadTimedout,
        WriteError, WriteTimedout,
    };
    match (error.esource(), error.etype()) {
        (_, HTTPStatus(413)) => Some(Refusal::BodyTooLarge),
        (ErrorSource::Downstream, ReadTimedout) => Some(Refusal::RequestTimeout),
        (
            ErrorSource::Downstream,
            ReadError | WriteError | ConnectionClosed | WriteTimedout | H2Error,
        ) => None,
        (ErrorSource::Downstream, _) => {
            Some(Refusal::BadRequest("its headers or its body are malformed"))
        }
        _ if visit.api => Some(Refusal::ControlAway),
        (_, ConnectTimedout | ReadTimedout | WriteTimedout) => Some(Refusal::ServiceSilent),
        _ => Some(Refusal::ServiceFailed),
    }
}

/// A stable name for a kind of error.
fn reason(kind: &ErrorType) -> &'static str {
    use ErrorType::{
        ConnectError, ConnectTimedout, ConnectionClosed, Custom, InvalidHTTPHeader, ReadError,
        ReadTimedout, WriteError, WriteTimedout,
    };
    match kind {
        Custom(name) => name,
        ConnectTimedout => "connect_timeout",
        ConnectError => "connect",
        ReadTimedout => "read_timeout",
        WriteTimedout => "write_timeout",
        ReadError => "read",
        WriteError => "write",
        ConnectionClosed => "closed",
        InvalidHTTPHeader => "bad_headers",
        _ => "other",
    }
}
