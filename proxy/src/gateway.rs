//! The life of a request: heard out, resolved, admitted, sent on, logged.

mod account;
mod hooked;
mod woken;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use routes::access::{Carrier, Challenge};
use routes::address::{Address, Name, Rejection};
use routes::link;
use routes::table::{Place, Table};

use crate::Shared;
use crate::activity::InUse;
use crate::admit::admit;
use crate::boundary::Boundaries;
use crate::connection::Connection;
use crate::cookies;
use crate::domains::NotLed;
use crate::evidence::without_cookies;
use crate::gates::{self, Outcome, Pass, Rules, SignedIn, Tried, Visitor};
use crate::hooks::Rewrite;
use crate::isolation;
use crate::limits::RequestPermit;
use crate::lines::{Carried, Line, Way};
use crate::listen::millis_now;
use crate::logs;
use crate::mount::{self, Mounted};
use crate::outbound;
use crate::query;
use crate::refusals::{Answer, Asked, Audience, Domain, Refusal};
use crate::request::{
    audience, authority, check_wire, connection, declared_length, is_bulk, is_preflight, is_stream,
    is_websocket, next_part, upgrade,
};
use crate::resolve::{Destination, KitDoor, desktop, inside, refuse_host, resolve, target};
use crate::session::Session as Remembered;
use crate::signin::{self, FORM_BYTES, Form, Reason, SIGN_IN, SIGN_OUT};
use crate::trace::Trace;
use crate::uploads::Upload;
use crate::upstream::{self, Manner};
use crate::wake;

pub use account::Account;

/// What the proxy tells a kit and control about a request. Whatever a client sends under these
/// names is removed.
mod edge {
    use http::{HeaderMap, HeaderName, HeaderValue};
    use routes::address::Name;

    use crate::connection::Connection;
    use crate::outbound;
    use crate::resolve::KitDoor;

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
    /// How the visitor passed a gate: `password`, `token`, `jwt`, `ip` or `link`. Absent where
    /// everybody may pass.
    pub const AUTH: HeaderName = HeaderName::from_static("x-hoody-edge-auth");
    /// The group of the rules that the visitor is in.
    pub const GROUP: HeaderName = HeaderName::from_static("x-hoody-edge-group");
    /// The user name, the subject of the JWT or the id of the link, in percent-encoding where it
    /// is more than visible ASCII.
    pub const USER: HeaderName = HeaderName::from_static("x-hoody-edge-user");
    /// What many applications know already.
    pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
    pub const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

    /// Whether only the proxy may say this.
    pub fn is_ours(name: &HeaderName) -> bool {
        let dashed;
        let mut name = name.as_str();
        // What none of these begins with needs no closer look.
        if !matches!(name.as_bytes().first(), Some(b'x' | b'f' | b'c' | b't')) {
            return false;
        }
        // Gateways to programs read an underscore as a hyphen.
        if name.contains('_') {
            dashed = name.replace('_', "-");
            name = &dashed;
            if matches!(name, "content-length" | "transfer-encoding") {
                return true;
            }
        }
        name.starts_with(PREFIX)
            || name.starts_with("x-forwarded-")
            || matches!(name, "forwarded" | "x-real-ip")
    }

    /// Remove what only the proxy may say.
    pub fn strip(headers: &mut HeaderMap) {
        outbound::remove(headers, is_ours);
    }

    /// Tell whoever answers what the proxy knows of the client and of the name it asked for.
    pub fn tell_client(headers: &mut HeaderMap, connection: Option<&Connection>, name: &Name) {
        let host = match name.port() {
            Some(_) => outbound::text(&name.to_string()),
            None => outbound::text(name.as_str()),
        };
        if let Some(connection) = connection {
            let scheme = HeaderValue::from_static(connection.scheme());
            headers.insert(FORWARDED_FOR, connection.client_text.clone());
            headers.insert(FORWARDED_PROTO, scheme.clone());
            headers.insert(CLIENT, connection.client_text.clone());
            headers.insert(SCHEME, scheme);
        }
        headers.insert(FORWARDED_HOST, host.clone());
        headers.insert(HOST, host.clone());
        headers.insert(http::header::HOST, host);
    }

    /// Tell a kit which of its doors was asked for.
    pub fn tell_door(headers: &mut HeaderMap, door: &KitDoor) {
        headers.insert(SERVICE, HeaderValue::from_static(door.service));
        if let Some(index) = door.index {
            headers.insert(INDEX, index.into());
        }
        if let Some(port) = door.port {
            headers.insert(PORT, port.into());
        }
        if let Some(subdir) = door.subdir {
            headers.insert(SUBDOMAIN, outbound::text(subdir.as_str()));
        }
    }
}

/// What remains of a refused request's body is read for this long, so that the answer arrives
/// before the connection ends.
const DRAIN_BODY: Duration = Duration::from_secs(2);
/// Informational answers (1xx) before the one that counts; servers send one or two.
const HINTS: u32 = 64;
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
    /// Whether the name is a custom domain.
    domain: bool,
    destination: Option<Destination>,
    /// Whether it may go there.
    admitted: bool,
    /// The number of a request that stays open, once its answer has begun.
    opened: Option<u64>,
    /// Whether the host is the API's.
    api: bool,
    permit: Option<RequestPermit>,
    manner: Manner,
    /// The protocol it asks to go on with, such as `websocket`, and whether it does.
    upgrade: Option<HeaderValue>,
    tunnel: bool,
    /// Of a WebSocket, where its frames end.
    boundaries: Option<Boundaries>,
    body_bytes: u64,
    /// Until the upstream's headers.
    upstream: Option<Duration>,
    refusal: Option<&'static str>,
    /// The right to pass, for a container that has rules.
    pass: Option<Box<Pass>>,
    /// What may end it before it is over: a change of rules, or of the alias it came by.
    carried: Option<Arc<Carried>>,
    /// The connection to its kit.
    line: Option<Arc<Line>>,
    /// Its body, while it comes over HTTP/2.
    upload: Option<Arc<Upload>>,
    /// Query parameters that carry credentials for the edge.
    secrets: Vec<String>,
    /// What a hook changes before it goes on.
    rewrite: Option<Box<Rewrite>>,
    /// Informational answers so far.
    hints: u32,
    trace: Option<Trace>,
    /// Its container is used until it is over.
    in_use: Option<InUse>,
}

/// What the request filter has found out.
enum Verdict {
    /// On to the visit's destination.
    Pass,
    Refuse(Refusal),
    /// To the same place over HTTPS.
    Redirect(String),
    /// A container's rules say something else than to pass or to refuse.
    Gate(Box<Gate>),
    /// A browser asks whether a page of another origin may call the API.
    Preflight,
    /// A directory looks whether the name is ours.
    Challenge(String),
}

/// What a gate does with a visitor itself.
enum Gate {
    /// Ask for a credential on a page.
    Page(Visitor, Challenge, Reason),
    /// Take what the page sends.
    SignIn(Visitor, Rules),
    SignOut(Visitor),
    /// A browser may send what it asks about, with a credential that the page has.
    Preflight(Visitor),
    /// Set a cookie and go on there.
    Remember {
        visitor: Visitor,
        session: Remembered,
        target: String,
    },
}

impl From<Refusal> for Verdict {
    fn from(refusal: Refusal) -> Verdict {
        Verdict::Refuse(refusal)
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    // In a box: Pingora moves it along with the session, from one future to the next.
    type CTX = Box<Visit>;

    fn new_ctx(&self) -> Box<Visit> {
        Box::new(Visit {
            started: Instant::now(),
            connection: None,
            name: None,
            domain: false,
            destination: None,
            admitted: false,
            opened: None,
            api: false,
            permit: None,
            manner: Manner::Plain,
            upgrade: None,
            tunnel: false,
            boundaries: None,
            body_bytes: 0,
            upstream: None,
            refusal: None,
            pass: None,
            carried: None,
            line: None,
            upload: None,
            secrets: Vec::new(),
            rewrite: None,
            hints: 0,
            trace: None,
            in_use: None,
        })
    }

    async fn early_request_filter(
        &self,
        session: &mut Session,
        visit: &mut Box<Visit>,
    ) -> pingora::Result<()> {
        let limits = &self.shared.config.limits;
        visit.connection = connection(session);
        if let Some(connection) = &visit.connection {
            connection.serving();
            visit.permit = connection.permit.request();
        }
        let request = session.req_header();
        visit.trace = Trace::of(&request.headers, request.method.as_str());
        visit.upgrade = upgrade(session);
        visit.manner = match &visit.upgrade {
            Some(_) => Manner::Upgrade,
            None if is_stream(session) => Manner::Streams,
            None if is_bulk(session) => Manner::Bulk,
            None => Manner::Plain,
        };
        // A WebSocket's silence is bounded by the connection, not by its reads.
        let timed = matches!(visit.manner, Manner::Plain | Manner::Bulk);
        session.set_read_timeout(timed.then_some(limits.body));
        session.set_write_timeout(Some(limits.send));
        session.set_total_drain_timeout(Some(DRAIN_BODY));
        Ok(())
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        visit: &mut Box<Visit>,
    ) -> pingora::Result<bool> {
        let verdict = match self.hear(session, visit) {
            Ok((name, Err(Rejection::ForeignDomain))) if self.shared.domains.may_lead(&name) => {
                Box::pin(self.lead(session, visit, name)).await
            }
            Ok((name, address)) => address
                .map_err(|why| Verdict::Refuse(refuse_host(why)))
                .and_then(|address| self.judge(session, visit, name, address)),
            Err(verdict) => Err(verdict),
        };
        let mut verdict = verdict.unwrap_or_else(|verdict| verdict);
        if let Verdict::Refuse(refusal) = &verdict
            && let Some(place) = wake::sleeper(refusal).cloned()
        {
            let woken = Box::pin(self.woken(session, visit, &place)).await;
            verdict = woken.unwrap_or_else(|verdict| verdict);
        }
        // What is made for each request, and moved, is as large as the largest of its ways: so
        // those that few requests take have a box of their own.
        match verdict {
            Verdict::Pass => {
                visit.admitted = true;
                if !visit.is_for_the_log()
                    && let Some((place, _)) = visit.place()
                {
                    visit.in_use = Some(self.shared.activity.begin(place.container));
                }
                if visit.is_hooked() && Box::pin(self.hooked(session, visit)).await? {
                    return Ok(true);
                }
                if visit.is_for_the_log() {
                    Box::pin(self.answer_from_log(session, visit)).await?;
                    return Ok(true);
                }
                Ok(false)
            }
            instead => {
                Box::pin(self.answer_instead(session, visit, instead)).await?;
                Ok(true)
            }
        }
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        visit: &mut Box<Visit>,
    ) -> pingora::Result<()> {
        // An empty last part would be written as the end of a chunked body, and then the end once
        // more (cloudflare/pingora#935). Before the end, nothing at all would mean the end: there
        // Pingora passes over what is empty.
        if end && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        if let (Some(boundaries), Some(part)) = (&mut visit.boundaries, &*body) {
            boundaries.up.see(part);
        }
        visit.passed();
        visit.body_bytes += body.as_ref().map_or(0, |part| part.len() as u64);
        if end {
            visit.upload = None;
        } else if let Some(upload) = &visit.upload {
            upload.came();
        }
        if visit.api && visit.body_bytes > self.shared.config.limits.api_body_bytes {
            return Error::e_explain(ErrorType::HTTPStatus(413), "the body is too large");
        }
        Ok(())
    }

    async fn upstream_peer(
        &self,
        _: &mut Session,
        visit: &mut Box<Visit>,
    ) -> pingora::Result<Box<HttpPeer>> {
        let config = &self.shared.config;
        let destination = visit
            .destination
            .as_ref()
            .expect("only admitted requests come here");
        Ok(upstream::peer(
            destination,
            visit.manner,
            visit.connection.as_deref(),
            visit.carried.is_some(),
            &self.shared.lines,
            &config.control,
            &config.limits,
        ))
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        _: bool,
        _: &HttpPeer,
        _: std::os::fd::RawFd,
        digest: Option<&Digest>,
        visit: &mut Box<Visit>,
    ) -> pingora::Result<()> {
        let Some(line) = digest.and_then(upstream::line) else {
            return Ok(());
        };
        if let Some(carried) = &visit.carried {
            line.carry(carried.clone());
        }
        if matches!(visit.manner, Manner::Plain | Manner::Bulk) {
            line.silence.begin();
        }
        visit.line = Some(line.clone());
        if session.is_http2() && visit.manner != Manner::Streams && !session.is_body_done() {
            let connection = visit.connection.as_ref();
            let connection = connection.map_or(0, |it| Arc::as_ptr(it).addr());
            visit.upload = Some(self.shared.uploads.add(line.clone(), connection));
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        visit: &mut Box<Visit>,
    ) -> pingora::Result<()> {
        let name = visit
            .name
            .as_ref()
            .expect("only admitted requests come here");
        let destination = visit
            .destination
            .as_ref()
            .expect("only admitted requests come here");
        disguise_target(request, visit)?;
        if let Destination::Kit { door, alias, .. } = destination {
            // The log has what the visitor sent; the container gets what the alias stands for.
            if let Some(alias) = alias
                && let Ok(Some(target)) = target(alias, request.raw_path())
            {
                request.set_raw_path(target.as_bytes())?;
            }
            if let (true, Some(index)) = (door.desktop, door.index) {
                let sent = String::from_utf8_lossy(request.raw_path()).into_owned();
                request.set_raw_path(desktop(index, &sent).as_bytes())?;
            }
            if let Some(path) = visit.rewrite.as_ref().and_then(|it| it.path.as_ref()) {
                request.set_raw_path(path.as_bytes())?;
            }
        }
        outbound::rewrite(request, |headers| {
            disguise_headers(headers, visit);
            if let Some(change) = &visit.rewrite {
                change.headers(headers);
            }
            headers.remove(header::CONNECTION);
            headers.remove(header::UPGRADE);
            if visit.manner == Manner::Bulk {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            if let Some(protocol) = &visit.upgrade {
                headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(header::UPGRADE, protocol.clone());
            }
            if let Some(trace) = &visit.trace {
                trace.pass_on(headers);
            }
            edge::tell_client(headers, visit.connection.as_deref(), name);
            match destination {
                Destination::Control { realm } => {
                    if let Some(realm) = realm {
                        headers.insert(edge::REALM, outbound::text(&realm.to_string()));
                    }
                }
                Destination::Kit { door, .. } => edge::tell_door(headers, door),
            }
        });
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        visit: &mut Box<Visit>,
    ) -> pingora::Result<()> {
        visit.passed();
        isolation::confine(response)?;
        self.https_only(response, visit)?;
        match &visit.destination {
            Some(Destination::Control { .. }) => isolation::open_api(response)?,
            Some(Destination::Kit { place, door, .. }) => {
                let meant = door.port.is_none() && door.service != "exec";
                isolation::embed(response, &place.embedding, meant)?;
            }
            None => {}
        }
        let switched = response.status == StatusCode::SWITCHING_PROTOCOLS;
        if switched && visit.upgrade.is_none() {
            return upstream_lies("it switches protocols unasked");
        }
        if response.status.is_informational() && !switched {
            visit.hints += 1;
            return match visit.hints > HINTS {
                true => upstream_lies("it announces without end"),
                false => Ok(()),
            };
        }
        let metrics = &self.shared.metrics;
        if visit.upstream.is_none() {
            let waited = visit.started.elapsed();
            visit.upstream = Some(waited);
            metrics.upstream.observe(waited.as_secs_f64());
        }
        let opened = response.status.is_success() && is_websocket(session.req_header());
        if (switched || opened) && !visit.tunnel {
            visit.tunnel = true;
            metrics.tunnels.inc();
            if switched && let Some(connection) = &visit.connection {
                connection.tunnel();
                let frames = has_frames(session.req_header(), response);
                visit.boundaries = frames.then(Boundaries::default);
            }
        }
        self.log_open(session, response, visit);
        Ok(())
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        visit: &mut Box<Visit>,
    ) -> pingora::Result<Option<Duration>> {
        match &visit.line {
            // A body without a length would seem to be complete.
            Some(line) if end && line.silence.has_ended() => return Err(silent()),
            Some(line) if end => line.silence.over(),
            _ => visit.passed(),
        }
        if let (Some(boundaries), Some(part)) = (&mut visit.boundaries, body) {
            boundaries.down.see(part);
        }
        Ok(None)
    }

    /// A pooled connection may end just when a request is sent over it, such as when its kit is
    /// replaced: what may be sent twice (RFC 9110, section 9.2.2) is then sent again.
    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        visit: &mut Box<Visit>,
        reused: bool,
    ) -> Box<Error> {
        if *error.esource() == ErrorSource::Upstream && visit.is_silent() {
            error = silent();
        }
        let lost = *error.esource() == ErrorSource::Upstream
            && matches!(
                error.etype(),
                ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
            );
        let repeatable = session.req_header().method.is_idempotent()
            && !session.as_ref().retry_buffer_truncated()
            && session.response_written().is_none()
            // What was cut off has to be judged again first.
            && visit.ended().is_none()
            && !visit.is_late();
        error.set_retry(reused && lost && repeatable);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        visit: &mut Box<Visit>,
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

    async fn logging(&self, session: &mut Session, error: Option<&Error>, visit: &mut Box<Visit>) {
        if let (None, true, Some(connection)) = (error, visit.tunnel, &visit.connection)
            && connection.passage.is_out()
        {
            // It goes on without Pingora, and is told about when it ends.
            let account = self.account(session, None, visit);
            if let Some(connection) = &visit.connection {
                connection.passage.leave_account(Box::new(account));
            }
            return;
        }
        self.account(session, error, visit).close(&self.shared);
        // Over HTTP/2 a connection has no time between requests that is its own.
        if !session.is_http2()
            && !visit.tunnel
            && let Some(connection) = &visit.connection
        {
            connection.idle();
        }
    }

    // The access log has every failed request.
    fn suppress_error_log(&self, _: &Session, _: &Box<Visit>, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Box<Visit>,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

impl Gateway {
    /// Hear the request out: whether it may be understood, and which name it asks for. `Err` is
    /// only the way out early.
    fn hear(
        &self,
        session: &mut Session,
        visit: &mut Visit,
    ) -> Result<(Name, Result<Address, Rejection>), Verdict> {
        let config = &self.shared.config;
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
        let tunnels = request.method == Method::CONNECT && (visit.api || !is_websocket(request));
        if tunnels || request.method == Method::TRACE {
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
        let header_count = request.headers.len();
        if header_bytes > config.limits.header_bytes || header_count > config.limits.header_count {
            return Err(Refusal::HeadersTooLarge.into());
        }
        let secured = visit.connection.as_ref().and_then(|it| it.secured.as_ref());
        if secured.is_some_and(|secured| !secured.covers(name.as_str())) {
            return Err(Refusal::Misdirected.into());
        }
        if secured.is_none() {
            let path = session.req_header().uri.path();
            if let Some(answer) = config.certificates.answer(name.as_str(), path) {
                return Err(Verdict::Challenge(answer));
            }
        }
        Ok((name, address))
    }

    /// Answer a request that does not go on to its destination.
    async fn answer_instead(
        &self,
        session: &mut Session,
        visit: &mut Visit,
        verdict: Verdict,
    ) -> pingora::Result<()> {
        match verdict {
            Verdict::Pass => Ok(()),
            Verdict::Refuse(refusal) => self.refuse(session, visit, &refusal).await,
            Verdict::Redirect(location) => {
                let mut head = ResponseHeader::build(StatusCode::PERMANENT_REDIRECT, Some(2))?;
                head.insert_header(header::LOCATION, location)?;
                head.insert_header(header::CONTENT_LENGTH, "0")?;
                session.write_response_header(Box::new(head), true).await
            }
            Verdict::Gate(gate) => match *gate {
                Gate::Page(visitor, challenge, reason) => {
                    let next = visitor.target();
                    self.ask(session, visit, &visitor, &challenge, reason, &next, None)
                        .await
                }
                Gate::SignIn(visitor, rules) => self.sign_in(session, visit, visitor, rules).await,
                Gate::SignOut(visitor) => {
                    let sessions = &self.shared.sessions;
                    visitor.sign_out(sessions, millis_now() / 1_000).await;
                    let cookie = sessions.set_cookie(None, visitor.secure);
                    self.go_on(session, &visitor, "/", Some(cookie)).await
                }
                Gate::Preflight(visitor) => self.preflight(session, &visitor).await,
                Gate::Remember {
                    visitor,
                    session: remembered,
                    target,
                } => {
                    let cookie = self.cookie(&visitor, &remembered);
                    self.go_on(session, &visitor, &target, cookie).await
                }
            },
            Verdict::Challenge(text) => {
                let mut head = ResponseHeader::build(StatusCode::OK, Some(3))?;
                head.insert_header(header::CONTENT_TYPE, "application/octet-stream")?;
                head.insert_header(header::CONTENT_LENGTH, text.len().to_string())?;
                head.insert_header(header::CACHE_CONTROL, "no-store")?;
                let bodiless = session.req_header().method == Method::HEAD;
                session
                    .write_response_header(Box::new(head), bodiless)
                    .await?;
                if !bodiless {
                    session
                        .write_response_body(Some(Bytes::from(text)), true)
                        .await?;
                }
                Ok(())
            }
            Verdict::Preflight => {
                let mut head = ResponseHeader::build(StatusCode::NO_CONTENT, Some(8))?;
                isolation::preflight(&mut head)?;
                self.https_only(&mut head, visit)?;
                session.write_response_header(Box::new(head), true).await
            }
        }
    }

    /// Say where a request goes whose name is of another domain.
    async fn lead(
        &self,
        session: &mut Session,
        visit: &mut Visit,
        name: Name,
    ) -> Result<Verdict, Verdict> {
        let address = self.follow(&name, visit).await?;
        self.judge(session, visit, name, address)
    }

    /// Where a name of another domain leads.
    async fn follow(&self, name: &Name, visit: &mut Visit) -> Result<Address, Verdict> {
        let client = visit.connection.as_ref().map(|it| it.client.ip());
        let alias = self.shared.domains.alias(name, client).await;
        let alias = alias.map_err(|why| self.not_led(name, why))?;
        visit.domain = true;
        Ok(Address::Alias(alias))
    }

    fn not_led(&self, name: &Name, why: NotLed) -> Refusal {
        let zone = &self.shared.config.zone;
        let domain = Domain {
            name: name.as_str().to_owned(),
            aliases: format!("{}.{}", zone.node(), zone.containers()),
        };
        Refusal::Domain(Box::new(domain), why)
    }

    /// Say where a request for this address goes. `Err` is only the way out early.
    fn judge(
        &self,
        session: &mut Session,
        visit: &mut Visit,
        name: Name,
        address: Address,
    ) -> Result<Verdict, Verdict> {
        let Shared { config, table, .. } = &*self.shared;
        let secured = visit.connection.as_ref().and_then(|it| it.secured.as_ref());
        if secured.is_none() && !config.zone.is_local() {
            if visit.domain && !self.leads(&address) {
                return Err(self.not_led(&name, NotLed::NoAlias).into());
            }
            let coming = || config.certificates.coming(name.as_str());
            if visit.domain
                && let Some(seconds) = coming()
            {
                return Err(Refusal::CertificateComing(seconds).into());
            }
            if visit.domain && !self.shared.domains.is_certified(name.as_str()) {
                return Err(Refusal::Uncertified(name.as_str().into()).into());
            }
            return Err(self.to_https(session.req_header(), &name));
        }
        if visit.api && is_preflight(session.req_header()) {
            return Ok(Verdict::Preflight);
        }
        let length = declared_length(session.req_header());
        if visit.api && length.is_some_and(|length| length > config.limits.api_body_bytes) {
            return Err(Refusal::BodyTooLarge.into());
        }
        let table = table.load();
        let address = match address {
            Address::Local => self.inside(session, visit, &table)?,
            other => other,
        };
        let destination = resolve(&address, &table, now).map_err(|refusal| match refusal {
            Refusal::UnknownHost if visit.domain => self.not_led(&name, NotLed::NoAlias),
            refusal => refusal,
        })?;
        // Known from here on, so that the container's log has what was not let through.
        visit.destination = Some(destination);
        self.let_in(session, visit, &name, &table)
    }

    /// Say whether a request may go on to the visit's destination. `Err` is only the way out early.
    fn let_in(
        &self,
        session: &Session,
        visit: &mut Visit,
        name: &Name,
        table: &Table,
    ) -> Result<Verdict, Verdict> {
        let Some(destination) = visit.destination.clone() else {
            return Err(Refusal::UnknownHost.into());
        };
        if let Destination::Kit { place, door, alias } = &destination {
            if let Some(rules) = Rules::of(place, table) {
                let visitor = visitor(session.req_header(), visit, name, place, door);
                self.gate(visit, visitor, rules)?;
            }
            if let Some(alias) = alias {
                target(alias, session.req_header().raw_path())?;
            }
        }
        admit(&destination)?;
        if let Destination::Kit { alias, .. } = &destination {
            let way = alias.clone().map(|alias| Way {
                alias,
                asked: session.req_header().raw_path().into(),
            });
            let exchange = visit.pass.as_ref().map(|pass| pass.exchange.clone());
            visit.carried = Carried::of(exchange, way);
        }
        Ok(Verdict::Pass)
    }

    /// Whether there is something at this address.
    fn leads(&self, address: &Address) -> bool {
        resolve(address, &self.shared.table.load(), now).is_ok()
    }

    /// A name that the world can reach is served over HTTPS, and says so where it was.
    fn https_only(&self, head: &mut ResponseHeader, visit: &Visit) -> pingora::Result<()> {
        let secured = visit
            .connection
            .as_ref()
            .is_some_and(|it| it.secured.is_some());
        if secured && !self.shared.config.zone.is_local() {
            isolation::https_only(head)?;
        }
        Ok(())
    }

    /// Hold a visitor against the rules of a container. `Err` is what becomes of it instead of
    /// passing.
    fn gate(&self, visit: &mut Visit, visitor: Visitor, rules: Rules) -> Result<(), Verdict> {
        let now = millis_now();
        visit.secrets = rules.params();
        let instead = |gate| Err(Verdict::Gate(Box::new(gate)));
        match &*visitor.path {
            SIGN_IN if visitor.method == "POST" => return instead(Gate::SignIn(visitor, rules)),
            SIGN_OUT if matches!(&*visitor.method, "GET" | "POST") => {
                // Nobody else's page signs anybody out.
                return match visitor.is_from_here() {
                    true => instead(Gate::SignOut(visitor)),
                    false => Err(Refusal::CrossOrigin.into()),
                };
            }
            _ => {}
        }
        let (outcome, tried) = gates::judge(&rules, &visitor, &self.shared.sessions, now / 1_000);
        self.count(&visitor, tried, now)?;
        match outcome {
            Outcome::Pass(_) if visitor.path == SIGN_IN => instead(Gate::Remember {
                session: Remembered::new(&[], 0),
                target: "/".to_owned(),
                visitor,
            }),
            Outcome::Pass(passed) => {
                visit.pass = Some(Box::new(passed.go_on(visitor, rules)));
                Ok(())
            }
            Outcome::Exchange { session, without } => {
                let names: Vec<&str> = without.iter().map(String::as_str).collect();
                let target = visitor.target();
                let target = query::without(&target, &names).unwrap_or(target);
                instead(Gate::Remember {
                    visitor,
                    session,
                    target,
                })
            }
            Outcome::Challenge(challenge) if visitor.navigates => {
                let reason = match tried {
                    Tried::Wrong => Reason::Wrong,
                    Tried::Right => Reason::Further,
                    Tried::Nothing => Reason::Asked,
                };
                instead(Gate::Page(visitor, challenge, reason))
            }
            // What passes without a credential is the container's to answer. What does not comes
            // with one or not at all: a browser sends no cookie along after this answer.
            Outcome::Challenge(_) if visitor.preflight().is_some() => {
                instead(Gate::Preflight(visitor))
            }
            Outcome::Challenge(challenge) => Err(Refusal::AuthenticationRequired(Asked {
                password: challenge.password,
                token: challenge.token,
                quietly: visitor.is_scripted(),
            })
            .into()),
            Outcome::Refuse(refusal) => Err(refusal.into()),
        }
    }

    /// Who has been wrong too often is not heard, right or wrong.
    fn count(&self, visitor: &Visitor, tried: Tried, now: u64) -> Result<(), Refusal> {
        if tried == Tried::Nothing {
            return Ok(());
        }
        let Shared {
            attempts, metrics, ..
        } = &*self.shared;
        if let Some(seconds) = attempts.wait(visitor.address, visitor.container, now) {
            return Err(Refusal::TooManyAttempts(seconds));
        }
        if tried == Tried::Wrong {
            metrics.wrong_credentials.inc();
            attempts.failed(visitor.address, visitor.container, now);
        }
        Ok(())
    }

    /// Let a browser send what it asks about, without cookies: the gate decides about that.
    async fn preflight(&self, session: &mut Session, visitor: &Visitor) -> pingora::Result<()> {
        let (method, headers) = visitor.preflight().unwrap_or_default();
        let mut head = ResponseHeader::build(StatusCode::NO_CONTENT, Some(6))?;
        head.insert_header(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")?;
        head.insert_header(header::ACCESS_CONTROL_ALLOW_METHODS, method)?;
        if !headers.is_empty() {
            head.insert_header(header::ACCESS_CONTROL_ALLOW_HEADERS, headers)?;
        }
        head.insert_header(header::CACHE_CONTROL, "no-store")?;
        session.write_response_header(Box::new(head), true).await?;
        if session.drain_request_body().await.is_err() {
            session.set_keepalive(None);
        }
        Ok(())
    }

    /// Take the form of a sign-in.
    async fn sign_in(
        &self,
        session: &mut Session,
        visit: &mut Visit,
        visitor: Visitor,
        rules: Rules,
    ) -> pingora::Result<()> {
        let form = match self.form(session, &visitor).await? {
            Ok(form) => form,
            Err(refusal) => return self.refuse(session, visit, &refusal).await,
        };
        let now = millis_now();
        let Form { offer, next } = form;
        let signed = gates::sign_in(&rules, &visitor, &offer, &self.shared.sessions, now / 1_000);
        let tried = match &signed {
            SignedIn::Shut(_) => Tried::Wrong,
            _ => Tried::Right,
        };
        if let Err(refusal) = self.count(&visitor, tried, now) {
            return self.refuse(session, visit, &refusal).await;
        }
        match signed {
            SignedIn::Open(remembered) => {
                let cookie = self.cookie(&visitor, &remembered);
                self.go_on(session, &visitor, &next, cookie).await
            }
            SignedIn::Further(remembered, challenge) => {
                let cookie = self.cookie(&visitor, &remembered);
                let reason = Reason::Further;
                self.ask(session, visit, &visitor, &challenge, reason, &next, cookie)
                    .await
            }
            SignedIn::Shut(challenge) => {
                let reason = Reason::Wrong;
                self.ask(session, visit, &visitor, &challenge, reason, &next, None)
                    .await
            }
            SignedIn::Refused => self.refuse(session, visit, &Refusal::AccessDenied).await,
        }
    }

    /// Read the form, if it comes from the proxy's own page.
    async fn form(
        &self,
        session: &mut Session,
        visitor: &Visitor,
    ) -> pingora::Result<Result<Form, Refusal>> {
        if !visitor.is_from_here() {
            return Ok(Err(Refusal::CrossOrigin));
        }
        let kind = visitor.headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|it| it.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            let why = "a sign-in is sent as application/x-www-form-urlencoded";
            return Ok(Err(Refusal::BadRequest(why)));
        }
        if declared_length(session.req_header()).is_some_and(|it| it > FORM_BYTES as u64) {
            return Ok(Err(Refusal::BodyTooLarge));
        }
        let mut body = Vec::new();
        let patience = self.shared.config.limits.body;
        while let Some(part) = next_part(session, patience).await? {
            if body.len() + part.len() > FORM_BYTES {
                return Ok(Err(Refusal::BodyTooLarge));
            }
            body.extend_from_slice(&part);
        }
        let why = "the form has neither a user name and password nor a token";
        Ok(Form::read(&body).ok_or(Refusal::BadRequest(why)))
    }

    /// The line that sets the cookie of a session; nothing where there is nothing to remember.
    fn cookie(&self, visitor: &Visitor, remembered: &Remembered) -> Option<String> {
        if remembered.proofs.is_empty() && remembered.link.is_none() {
            return None;
        }
        let age = remembered.expires.saturating_sub(millis_now() / 1_000);
        let sessions = &self.shared.sessions;
        let value = sessions.seal(remembered, visitor.scope())?;
        Some(sessions.set_cookie(Some((&value, age)), visitor.secure))
    }

    /// Send a browser on to a path of the same host.
    async fn go_on(
        &self,
        session: &mut Session,
        visitor: &Visitor,
        target: &str,
        cookie: Option<String>,
    ) -> pingora::Result<()> {
        // With the origin before it, no path is another host.
        let location = format!("{}{target}", visitor.origin);
        let mut head = ResponseHeader::build(StatusCode::SEE_OTHER, Some(5))?;
        head.insert_header(header::LOCATION, location)?;
        head.insert_header(header::CONTENT_LENGTH, "0")?;
        head.insert_header(header::CACHE_CONTROL, "no-store")?;
        head.insert_header(header::REFERRER_POLICY, "no-referrer")?;
        if let Some(cookie) = cookie {
            head.insert_header(header::SET_COOKIE, cookie)?;
        }
        session.write_response_header(Box::new(head), true).await?;
        if session.drain_request_body().await.is_err() {
            session.set_keepalive(None);
        }
        Ok(())
    }

    /// Answer with the page that asks for a credential.
    #[allow(clippy::too_many_arguments)]
    async fn ask(
        &self,
        session: &mut Session,
        visit: &mut Visit,
        visitor: &Visitor,
        challenge: &Challenge,
        reason: Reason,
        next: &str,
        cookie: Option<String>,
    ) -> pingora::Result<()> {
        let asked = Asked {
            password: challenge.password,
            token: challenge.token,
            quietly: true,
        };
        let refusal = Refusal::AuthenticationRequired(asked);
        let host = visitor
            .origin
            .split_once("://")
            .map_or("", |(_, host)| host);
        let mut answer = refusal.answer(Audience::Person);
        answer.body = signin::page(challenge, reason, host, next);
        answer.policy = Some(&signin::POLICY);
        self.note(session, visit, &refusal);
        // The form's origin is what tells it from others.
        self.send(session, visit, answer, "same-origin", cookie)
            .await
    }

    /// Where a container means that asks for its own `localhost`. What it asks for is then left
    /// without the segment that named the service.
    fn inside(
        &self,
        session: &mut Session,
        visit: &Visit,
        table: &Table,
    ) -> Result<Address, Refusal> {
        let client = visit.connection.as_ref().ok_or(Refusal::UnknownHost)?;
        let place = table.at(client.client.ip().to_canonical());
        let container = place.ok_or(Refusal::UnknownHost)?.container;
        let request = session.req_header_mut();
        let sent = std::str::from_utf8(request.raw_path()).map_err(|_| Refusal::UnknownService)?;
        let (door, rest) = inside(sent)?;
        let target = match rest.starts_with('/') {
            true => rest.to_owned(),
            false => format!("/{rest}"),
        };
        request
            .set_raw_path(target.as_bytes())
            .map_err(|_| Refusal::BadRequest("its target is not a URI"))?;
        Ok(Address::Container {
            project: None,
            container,
            door,
        })
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
        self.note(session, visit, refusal);
        let answer = refusal.answer(audience(session.req_header(), visit.api));
        self.send(session, visit, answer, "no-referrer", None)
            .await?;
        // A connection that is closed on unread bytes may take the answer with it.
        if !matches!(refusal, Refusal::RequestTimeout)
            && session.drain_request_body().await.is_err()
        {
            session.set_keepalive(None);
        }
        Ok(())
    }

    /// Count a refusal.
    fn note(&self, session: &mut Session, visit: &mut Visit, refusal: &Refusal) {
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
    }

    /// Send an answer of the proxy itself.
    async fn send(
        &self,
        session: &mut Session,
        visit: &Visit,
        answer: Answer,
        referrer: &'static str,
        cookie: Option<String>,
    ) -> pingora::Result<()> {
        let mut head = ResponseHeader::build(answer.status, Some(8))?;
        head.insert_header(header::CONTENT_TYPE, answer.content_type)?;
        head.insert_header(header::CONTENT_LENGTH, answer.body.len().to_string())?;
        head.insert_header(header::CACHE_CONTROL, "no-store")?;
        head.insert_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")?;
        head.insert_header(header::REFERRER_POLICY, referrer)?;
        if !answer.challenges.is_empty() {
            // A program on a page of another origin learns what is missing.
            head.insert_header(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")?;
        }
        for challenge in answer.challenges {
            head.append_header(header::WWW_AUTHENTICATE, challenge)?;
        }
        if let Some(cookie) = cookie {
            head.insert_header(header::SET_COOKIE, cookie)?;
        }
        if let Some(policy) = answer.policy {
            head.insert_header(header::CONTENT_SECURITY_POLICY, policy)?;
        }
        if let Some(seconds) = answer.retry_after {
            head.insert_header(header::RETRY_AFTER, seconds.to_string())?;
        }
        if visit.api {
            isolation::open_api(&mut head)?;
        }
        self.https_only(&mut head, visit)?;
        let bodiless = session.req_header().method == Method::HEAD;
        session
            .write_response_header(Box::new(head), bodiless)
            .await?;
        if !bodiless {
            session
                .write_response_body(Some(Bytes::from(answer.body)), true)
                .await?;
        }
        Ok(())
    }

    /// Let the service answer that shows the log of the visit's container.
    async fn answer_from_log(
        &self,
        session: &mut Session,
        visit: &mut Visit,
    ) -> pingora::Result<()> {
        let Some(Destination::Kit { place, door, .. }) = visit.destination.clone() else {
            return Ok(());
        };
        let shared = &*self.shared;
        let mut extensions = http::Extensions::new();
        extensions.insert(logs::scope(&place));
        // What the rules do not allow any more is cut off; a container that is gone ends its log
        // itself.
        let carried = visit.carried.clone();
        let stands = || {
            let table = shared.table.load();
            let Some(place) = table.places.get(&place.container) else {
                return true;
            };
            let rules = Rules::of(place, &table);
            match &carried {
                Some(carried) => carried
                    .has_to_end(&table, rules.as_ref(), millis_now())
                    .is_none(),
                None => rules.is_none(),
            }
        };
        let (connection, name) = (visit.connection.clone(), visit.name);
        let prepare = |headers: &mut HeaderMap| {
            edge::strip(headers);
            if let Some(name) = &name {
                edge::tell_client(headers, connection.as_deref(), name);
            }
            edge::tell_door(headers, &door);
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
            stands,
            shared.stopping.clone(),
            shared.config.limits.body,
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
        if let Some(record) = visit.record(session, Some(head), None) {
            self.shared.write_down(record);
        }
    }
}

impl Visit {
    /// What in a container its host led to, whether or not it is let through.
    fn place(&self) -> Option<(&Arc<Place>, &KitDoor)> {
        match &self.destination {
            Some(Destination::Kit { place, door, .. }) => Some((place, door)),
            _ => None,
        }
    }

    /// Whether its container has hooks, which may be for other requests.
    fn is_hooked(&self) -> bool {
        self.place().is_some_and(|(place, _)| place.hooks.is_some())
    }

    /// Whether the proxy itself answers, with the log of a container.
    fn is_for_the_log(&self) -> bool {
        self.place()
            .is_some_and(|(_, door)| door.service == logs::SERVICE)
    }
}

impl Visit {
    /// Whether it was ended because its body did not come any more.
    fn is_late(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.is_late())
    }

    /// Something has passed between it and its kit.
    fn passed(&self) {
        if let Some(line) = &self.line {
            line.silence.broken();
        }
    }

    /// Whether it was ended because its kit said nothing any more.
    fn is_silent(&self) -> bool {
        let line = self.line.as_ref();
        line.is_some_and(|line| line.silence.has_ended())
    }

    /// What there is to say where it was ended because rules or its alias have changed.
    fn ended(&self) -> Option<Refusal> {
        self.carried.as_ref()?.ended().map(account::refusal)
    }
}

/// Milliseconds since 1970.
fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// What the gates of a container see of a request.
fn visitor(
    request: &RequestHeader,
    visit: &Visit,
    name: &Name,
    place: &Place,
    door: &KitDoor,
) -> Visitor {
    // Of a target that is not text nothing is believed, as nothing could be taken out of it.
    let target = std::str::from_utf8(request.raw_path()).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let connection = visit.connection.as_ref();
    let scheme = connection.map_or("http", |it| it.scheme());
    Visitor {
        container: place.container,
        service: door.service,
        instance: door.port.map(u32::from).or(door.index).unwrap_or(0),
        // Without a connection nobody knows where it comes from: from nowhere that is listed.
        address: connection.map_or(Ipv4Addr::UNSPECIFIED.into(), |it| it.client.ip()),
        method: request.method.to_string(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: request.headers.clone(),
        secure: scheme == "https",
        origin: format!("{scheme}://{name}"),
        navigates: audience(request, false) == Audience::Person,
        upgrade: visit.upgrade.is_some(),
    }
}

/// Take away the headers that carried credentials for the edge, and those only.
fn keep_back(headers: &mut HeaderMap, pass: &Pass) {
    let mut named = Vec::new();
    for carrier in &pass.consumed {
        match carrier {
            Carrier::Header(name) => {
                headers.remove(name.as_str());
            }
            Carrier::Cookie(name) => named.push(name.as_str()),
            Carrier::Param(_) => {}
        }
    }
    if let Some(rest) = without_cookies(headers, &named) {
        replace(headers, &header::COOKIE, rest);
    }
}

fn without_params(request: &mut RequestHeader, names: &[&str]) -> pingora::Result<()> {
    let rest = std::str::from_utf8(request.raw_path())
        .ok()
        .and_then(|target| query::without(target, names));
    match rest {
        Some(rest) => request.set_raw_path(rest.as_bytes()),
        None => Ok(()),
    }
}

/// Say who comes in.
fn introduce(headers: &mut HeaderMap, pass: &Pass) {
    let Some(identity) = &pass.identity else {
        return;
    };
    let text = |text: &str| outbound::text(&utf8_percent_encode(text, UNUSUAL).to_string());
    headers.insert(
        edge::AUTH,
        HeaderValue::from_static(identity.method.as_str()),
    );
    if !identity.group.is_empty() {
        headers.insert(edge::GROUP, text(&identity.group));
    }
    if let Some(user) = &identity.user {
        headers.insert(edge::USER, text(user));
    }
}

/// What a header's value cannot hold, and what marks it.
const UNUSUAL: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b',').add(b'"').add(b';');

fn replace(headers: &mut HeaderMap, name: &HeaderName, values: Vec<HeaderValue>) {
    headers.remove(name);
    for value in values {
        headers.append(name.clone(), value);
    }
}

/// Whether what follows the answer are the frames of a WebSocket (RFC 6455, section 4.2.2).
fn has_frames(request: &RequestHeader, response: &ResponseHeader) -> bool {
    let is = |headers: &HeaderMap, name: HeaderName, value: &str| {
        let found = headers.get(name);
        found.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
    };
    is(&response.headers, header::UPGRADE, "websocket")
        && is(&request.headers, header::SEC_WEBSOCKET_VERSION, "13")
}

/// A kit has been waited for long enough.
fn silent() -> Box<Error> {
    Error::explain(ErrorType::ReadTimedout, "waiting for a kit").into_up()
}

/// What a kit says cannot be passed on.
fn upstream_lies(why: &'static str) -> pingora::Result<()> {
    Err(Error::explain(ErrorType::InvalidHTTPHeader, why).into_up())
}

/// Make of a request what its container may see: nothing that only the edge may say, and nothing
/// that was meant for the edge.
fn disguise(request: &mut RequestHeader, visit: &Visit) -> pingora::Result<()> {
    disguise_target(request, visit)?;
    outbound::rewrite(request, |headers| disguise_headers(headers, visit));
    Ok(())
}

fn disguise_target(request: &mut RequestHeader, visit: &Visit) -> pingora::Result<()> {
    // A link that nobody asked for goes no further either.
    if let Some(Destination::Kit { place, .. }) = &visit.destination
        && place.links.is_some()
    {
        without_params(request, &[link::PARAM])?;
    }
    let Some(pass) = &visit.pass else {
        return Ok(());
    };
    let params: Vec<&str> = pass
        .consumed
        .iter()
        .filter_map(|carrier| match carrier {
            Carrier::Param(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    without_params(request, &params)
}

fn disguise_headers(headers: &mut HeaderMap, visit: &Visit) {
    strip(headers, visit.api);
    if let Some(pass) = &visit.pass {
        keep_back(headers, pass);
        introduce(headers, pass);
    }
}

/// Remove what only the proxy may say, and what is for the proxy alone. A cookie has no meaning to
/// the API: it would let any page of this site act for whoever opens it.
fn strip(headers: &mut HeaderMap, api: bool) {
    edge::strip(headers);
    let cookies = match api {
        true => Some(Vec::new()),
        false => cookies::without_ours(headers),
    };
    if let Some(cookies) = cookies {
        replace(headers, &header::COOKIE, cookies);
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
        _ if visit.ended().is_some() => visit.ended(),
        _ if visit.is_late() => Some(Refusal::RequestTimeout),
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
