//! The life of a request: heard out, resolved, admitted, sent on, logged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use proxy_logs::Capture;
use routes::address::{Address, Name};
use routes::table::Place;

use crate::Shared;
use crate::admit::admit;
use crate::connection::Connection;
use crate::limits::RequestPermit;
use crate::logs::{self, Record};
use crate::mount::{self, Mounted};
use crate::refusals::Refusal;
use crate::request::{audience, authority, check_wire, connection, declared_length, is_websocket};
use crate::resolve::{Destination, KitDoor, refuse_host, resolve};
use crate::upstream;

/// What the proxy tells a kit and control about a request. Whatever a client sends under these
/// names is removed.
mod edge {
    use http::{HeaderMap, HeaderName, HeaderValue};
    use routes::address::Name;

    use crate::connection::Connection;
    use crate::resolve::KitDoor;

    pub const PREFIX: &str = "x-hoody-edge-";
    /// The service the host named.
    pub const SERVICE: &str = "x-hoody-edge-service";
    /// Its index.
    pub const INDEX: &str = "x-hoody-edge-index";
    /// The port inside the container, for the services `http` and `https`.
    pub const PORT: &str = "x-hoody-edge-port";
    /// The label before an `exec` host.
    pub const SUBDOMAIN: &str = "x-hoody-edge-subdomain";
    /// The client's address.
    pub const CLIENT: &str = "x-hoody-edge-client";
    /// How the client reached the proxy.
    pub const SCHEME: &str = "x-hoody-edge-scheme";
    /// The authority it asked for.
    pub const HOST: &str = "x-hoody-edge-host";
    /// The realm the API's host named.
    pub const REALM: &str = "x-hoody-edge-realm";

    /// Whether only the proxy may say this.
    pub fn is_ours(name: &HeaderName) -> bool {
        let name = name.as_str();
        name.starts_with(PREFIX)
            || name.starts_with("x-forwarded-")
            || matches!(name, "forwarded" | "x-real-ip")
    }

    /// Remove what only the proxy may say, from a request that it answers itself.
    pub fn strip(headers: &mut HeaderMap) {
        let found: Vec<_> = headers
            .keys()
            .filter(|name| is_ours(name))
            .cloned()
            .collect();
        for name in found {
            headers.remove(name);
        }
    }

    /// Tell such a request what a kit is told.
    pub fn tell(
        headers: &mut HeaderMap,
        connection: Option<&Connection>,
        name: Option<&Name>,
        door: &KitDoor,
    ) {
        let mut set = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        set(SERVICE, door.service.to_owned());
        if let Some(index) = door.index {
            set(INDEX, index.to_string());
        }
        if let Some(connection) = connection {
            set(CLIENT, connection.client.ip().to_canonical().to_string());
            set(SCHEME, connection.scheme().to_owned());
        }
        if let Some(name) = name {
            set(HOST, name.to_string());
            // HTTP/2 has no such field.
            set("host", name.to_string());
        }
    }
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
    /// Whether it may go there.
    admitted: bool,
    /// The number of a request that stays open, once its answer has begun.
    opened: Option<u64>,
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
    /// On to the visit's destination.
    Pass,
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
            admitted: false,
            opened: None,
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
            Verdict::Pass => {
                visit.admitted = true;
                if visit.is_for_the_log() {
                    self.answer_from_log(session, visit).await?;
                    return Ok(true);
                }
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
        strip(request);
        let name = visit
            .name
            .as_ref()
            .expect("only admitted requests come here");
        let host = name.to_string();
        if let Some(connection) = &visit.connection {
            let client = connection.client.ip().to_canonical().to_string();
            request.insert_header("x-forwarded-for", &client)?;
            request.insert_header("x-forwarded-proto", connection.scheme())?;
            request.insert_header(edge::CLIENT, client)?;
            request.insert_header(edge::SCHEME, connection.scheme())?;
        }
        request.insert_header("x-forwarded-host", &host)?;
        request.insert_header(edge::HOST, &host)?;
        request.insert_header(header::HOST, host)?;
        match visit
            .destination
            .as_ref()
            .expect("only admitted requests come here")
        {
            Destination::Control { realm } => {
                if let Some(realm) = realm {
                    request.insert_header(edge::REALM, realm.to_string())?;
                }
            }
            Destination::Kit { door, .. } => {
                request.insert_header(edge::SERVICE, door.service)?;
                if let Some(index) = door.index {
                    request.insert_header(edge::INDEX, index.to_string())?;
                }
                if let Some(port) = door.port {
                    request.insert_header(edge::PORT, port.to_string())?;
                }
                if let Some(subdir) = door.subdir {
                    request.insert_header(edge::SUBDOMAIN, subdir.as_str())?;
                }
            }
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
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
        self.log_open(session, response, visit);
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
        // Known from here on, so that the container's log has what was not let through.
        let destination = visit.destination.insert(destination);
        admit(destination)?;
        Ok(Verdict::Pass)
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

    /// Let the service answer that shows the log of the visit's container.
    async fn answer_from_log(
        &self,
        session: &mut Session,
        visit: &mut Visit,
    ) -> pingora::Result<()> {
        let Some(Destination::Kit { place, door }) = visit.destination.clone() else {
            return Ok(());
        };
        let shared = &*self.shared;
        let mut extensions = http::Extensions::new();
        extensions.insert(logs::scope(&place));
        let (connection, name) = (visit.connection.clone(), visit.name);
        let prepare = |headers: &mut HeaderMap| {
            edge::strip(headers);
            edge::tell(headers, connection.as_deref(), name.as_ref(), &door);
        };
        let begun = |session: &Session, head: &ResponseHeader| {
            self.log_open(session, head, visit);
        };
        let answer = mount::answer(
            session,
            shared.logs_router.clone(),
            extensions,
            prepare,
            begun,
            shared.stopping.clone(),
        );
        match Box::pin(answer).await? {
            Mounted::Answered => Ok(()),
            Mounted::TooLarge => self.refuse(session, visit, &Refusal::BodyTooLarge).await,
        }
    }

    /// Write down a request that stays open when its answer begins: who looks at the log sees it
    /// while it lasts.
    fn log_open(&self, session: &Session, head: &ResponseHeader, visit: &mut Visit) {
        let stays = visit.tunnel
            || head
                .headers
                .get(header::CONTENT_TYPE)
                .is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"));
        if !stays || visit.opened.is_some() || visit.place().is_none() {
            return;
        }
        visit.opened = Some(self.shared.journal.number());
        self.write(session, visit, Some(head), None);
    }

    fn log(&self, session: &Session, error: Option<&Error>, visit: &Visit) {
        let metrics = &self.shared.metrics;
        let taken = visit.started.elapsed();
        let status = match session.response_written() {
            Some(head) => head.status.as_u16(),
            None => CLIENT_LEFT,
        };
        let kind = match &visit.destination {
            Some(Destination::Control { .. }) if visit.admitted => "api",
            Some(Destination::Kit { door, .. }) if visit.admitted => match door.port {
                Some(_) => "port",
                None => "kit",
            },
            _ => "refused",
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
        metrics.bytes_in.inc_by(session.body_bytes_read() as u64);
        metrics.bytes_out.inc_by(session.body_bytes_sent() as u64);
        self.write(session, visit, None, error);
    }

    /// Hand a request to the journal: when it is over, or with the head of an answer that begins.
    fn write(
        &self,
        session: &Session,
        visit: &Visit,
        begins: Option<&ResponseHeader>,
        error: Option<&Error>,
    ) {
        let Some(connection) = &visit.connection else {
            return;
        };
        let request = session.req_header();
        let head = begins.or(session.response_written());
        let place = visit.place();
        // The access log has no headers.
        let text = match place {
            Some(_) => Capture::of(request.raw_path(), &request.headers),
            None => Capture::target_alone(request.raw_path()),
        };
        let took = visit.started.elapsed();
        let now = jiff::Timestamp::now();
        let record = Record {
            started: now.checked_sub(took).unwrap_or(now),
            client: connection.client.ip().to_canonical(),
            host: visit.name,
            place: place.map(|(place, door)| (place.clone(), *door)),
            admitted: visit.admitted,
            scheme: connection.scheme(),
            http: match request.version {
                Version::HTTP_2 => "2",
                Version::HTTP_11 => "1.1",
                _ => "1.0",
            },
            method: request.method.clone(),
            text,
            status: head.map_or(CLIENT_LEFT, |head| head.status.as_u16()),
            content_type: head.and_then(|head| head.headers.get(header::CONTENT_TYPE).cloned()),
            bytes_in: session.body_bytes_read() as u64,
            bytes_out: session.body_bytes_sent() as u64,
            took,
            upstream: visit.upstream,
            refusal: visit.refusal,
            fault: error.map(|error| {
                let side = match error.esource() {
                    ErrorSource::Upstream => "upstream",
                    ErrorSource::Downstream => "client",
                    ErrorSource::Internal | ErrorSource::Unset => "proxy",
                };
                (side, reason(error.etype()))
            }),
            websocket: visit.tunnel,
            opened: visit.opened,
            open: begins.is_some(),
        };
        if !self.shared.journal.write(Box::new(record)) {
            self.shared.metrics.log_dropped.inc();
        }
    }
}

impl Visit {
    /// What in a container its host led to, whether or not it is let through.
    fn place(&self) -> Option<(&Arc<Place>, &KitDoor)> {
        match &self.destination {
            Some(Destination::Kit { place, door }) => Some((place, door)),
            _ => None,
        }
    }

    /// Whether the proxy itself answers, with the log of a container.
    fn is_for_the_log(&self) -> bool {
        self.place()
            .is_some_and(|(_, door)| door.service == logs::SERVICE)
    }
}

/// Remove what only the proxy may say.
fn strip(request: &mut RequestHeader) {
    let found: Vec<HeaderName> = request
        .headers
        .keys()
        .filter(|name| edge::is_ours(name))
        .cloned()
        .collect();
    for name in found {
        request.remove_header(&name);
    }
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
