//! What happens, as it happens: Socket.IO at `/api/v1/events/`, over polling and WebSockets.
//!
//! Nothing is queued for a client. Each session knows the place up to which it has seen the events
//! that the database keeps ([`crate::store::events`]), and reads on when its client takes more: a
//! poll comes, or the WebSocket has room. So a client that is slow costs nothing but its place in
//! the table; one that takes nothing for too long, or is too far behind, is let go and told why.
//!
//! Before anything is sent the caller is asked for anew: what was written after a token was revoked
//! or lost a realm is not sent to it.
//!
//! [`packet`] is the wire, pure. This is our own because the bounds are: anybody may begin a session
//! before they show a token.

pub mod packet;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode, Uri};
use kit::call::edge;
use kit::{Call, Fault};
use routes::Id;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::packet::Packet;
use crate::api::events::view;
use crate::auth::{Principal, address, broken, limiter};
use crate::control::Control;
use crate::store::events::{self, View};
use crate::{time, words};

const PATH: &str = "/api/v1/events";

/// Sessions at once. They hold a token and a place in the history; a few hundred bytes.
const SESSIONS: usize = 1024;
/// Sessions of one address.
const PER_ADDRESS: usize = 64;
/// Sessions of one account that show a token.
const PER_ACCOUNT: usize = 128;
/// A session that shows no good token by then ends.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Tokens that one session may try.
const ATTEMPTS: u32 = 4;
/// How often a client is asked whether it is there, and how long its answer may take.
const PING_EVERY: Duration = Duration::from_secs(25);
const PONG_PATIENCE: Duration = Duration::from_secs(20);
/// Packets of a client between two pings: it answers them and connects, and has no more to say.
const PACKETS: u32 = 64;
/// The largest body or message of a client: a token with room to spare.
const PAYLOAD: usize = 16 << 10;
/// Events in one answer to a poll, and between two looks at who is listening.
const BATCH: usize = 64;
/// A WebSocket that takes nothing for so long is let go.
const WRITE_PATIENCE: Duration = Duration::from_secs(20);
/// A goodbye waits so long for room.
const GOODBYE: Duration = Duration::from_secs(1);
/// Whoever is further behind reads the history instead.
const BEHIND: i64 = 10_000;
/// A caller is asked for anew this often where nothing happens.
const RECHECK: Duration = Duration::from_secs(15);
/// Packets that wait for a client, all of them answers to its own.
const OUTBOX: usize = 16;

/// The sessions of a node.
#[derive(Clone, Default)]
pub struct Streams {
    sessions: Arc<Mutex<HashMap<String, Arc<Session>>>>,
    closing: CancellationToken,
}

struct Session {
    sid: String,
    /// The request that began it: address and realm of the caller.
    call: Call,
    network: String,
    state: Mutex<Condition>,
    changed: tokio::sync::Notify,
    /// Held by the poll under way.
    polled: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Polling,
    /// A WebSocket was probed and has not taken over.
    Moving,
    Socket,
}

/// What changes of a session.
struct Condition {
    transport: Transport,
    member: Option<Member>,
    outbox: VecDeque<String>,
    born: Instant,
    heard: Instant,
    next_ping: Instant,
    /// When the ping was sent that has no answer yet.
    pinged: Option<Instant>,
    packets: u32,
    attempts: u32,
    over: bool,
}

/// Who listens.
#[derive(Clone)]
struct Member {
    token: String,
    view: View,
    /// All events up to here were sent, or are not for them.
    place: i64,
    checked: Instant,
}

/// What is next for a client.
enum Out {
    Packets(Vec<String>),
    /// These, and then nothing more.
    Last(Vec<String>),
    /// The session goes on over another transport.
    Moved,
}

/// Put the stream before the operations.
pub fn before(router: Router, control: &Control) -> Router {
    router.layer(from_fn_with_state(control.clone(), divert))
}

async fn divert(State(control): State<Control>, request: Request, next: Next) -> Response {
    if !is_stream(request.uri()) {
        return next.run(request).await;
    }
    let streams = control.streams.clone();
    streams.serve(control, request).await
}

/// The history has the same path; what tells them apart is Engine.IO's own parameter.
fn is_stream(uri: &Uri) -> bool {
    uri.path().strip_suffix('/').unwrap_or(uri.path()) == PATH && parameter(uri, "EIO").is_some()
}

fn parameter(uri: &Uri, name: &str) -> Option<String> {
    kit::arguments::query_pairs(uri.query().unwrap_or_default())
        .into_iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}

/// A failure as Engine.IO clients read it.
fn wrong(status: StatusCode, code: u8, message: &str) -> Response {
    let body = json!({ "code": code, "message": message }).to_string();
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

fn unknown_session() -> Response {
    wrong(StatusCode::BAD_REQUEST, 1, "Session ID unknown")
}

fn bad_request() -> Response {
    wrong(StatusCode::BAD_REQUEST, 3, "Bad request")
}

fn text(body: String) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=UTF-8"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, body).into_response()
}

impl Streams {
    /// End all sessions: the node stops.
    pub fn close(&self) {
        self.closing.cancel();
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many sessions there are.
    pub fn count(&self) -> usize {
        self.sessions().len()
    }

    async fn serve(self, control: Control, request: Request) -> Response {
        let uri = request.uri();
        if parameter(uri, "EIO").as_deref() != Some("4") {
            return wrong(StatusCode::BAD_REQUEST, 5, "Unsupported protocol version");
        }
        let transport = parameter(uri, "transport").unwrap_or_default();
        let session = match parameter(uri, "sid") {
            Some(sid) => match self.sessions().get(&sid) {
                Some(session) => Some(session.clone()),
                None => return unknown_session(),
            },
            None => None,
        };
        match (transport.as_str(), request.method(), session) {
            ("polling", &Method::GET, None) => match self.begin(&control, &request, false) {
                Ok(session) => text(opening(&session, true)),
                Err(refusal) => refusal,
            },
            ("polling", &Method::GET, Some(session)) => self.poll(&control, &session).await,
            ("polling", &Method::POST, Some(session)) => {
                self.take(&control, &session, request.into_body()).await
            }
            ("polling", ..) => wrong(StatusCode::BAD_REQUEST, 2, "Bad handshake method"),
            ("websocket", &Method::GET, session) => self.upgrade(control, session, request).await,
            _ => wrong(StatusCode::BAD_REQUEST, 0, "Transport unknown"),
        }
    }

    // The refusal is an answer, made once: its size costs nothing.
    #[expect(clippy::result_large_err, reason = "the refusal is the answer itself")]
    fn begin(
        &self,
        control: &Control,
        request: &Request,
        socket: bool,
    ) -> Result<Arc<Session>, Response> {
        let now = Instant::now();
        let mut call = Call::internal();
        call.uri = request.uri().clone();
        // What the proxy says of the caller; the rest would only be kept.
        for (name, value) in request.headers() {
            if name.as_str().starts_with(edge::PREFIX) {
                call.headers.append(name.clone(), value.clone());
            }
        }
        let network = limiter::network(address(&call));
        let mut sessions = self.sessions();
        sessions.retain(|_, session| !session.lock().is_stale(now));
        let of_network = sessions
            .values()
            .filter(|session| session.network == network)
            .count();
        if self.closing.is_cancelled() || sessions.len() >= SESSIONS || of_network >= PER_ADDRESS {
            control.metrics.refused_stream();
            return Err(wrong(
                StatusCode::SERVICE_UNAVAILABLE,
                4,
                "too many connections for events; close some, or try again later",
            ));
        }
        let session = Arc::new(Session {
            sid: words::url_safe(24),
            call,
            network,
            state: Mutex::new(Condition {
                transport: if socket {
                    Transport::Socket
                } else {
                    Transport::Polling
                },
                member: None,
                outbox: VecDeque::new(),
                born: now,
                heard: now,
                next_ping: now + PING_EVERY,
                pinged: None,
                packets: 0,
                attempts: 0,
                over: false,
            }),
            changed: tokio::sync::Notify::new(),
            polled: tokio::sync::Mutex::new(()),
        });
        sessions.insert(session.sid.clone(), session.clone());
        Ok(session)
    }

    fn forget(&self, session: &Session) {
        self.sessions().remove(&session.sid);
    }

    /// Answer a poll: with what there is, or once there is something.
    async fn poll(&self, control: &Control, session: &Arc<Session>) -> Response {
        let Ok(_turn) = session.polled.try_lock() else {
            // The client's two polls would tear the packets apart.
            self.end(control, session, "protocol", "two polls at once");
            return bad_request();
        };
        session.lock().heard = Instant::now();
        match self.next(control, session, Transport::Polling).await {
            Out::Packets(packets) => text(joined(&packets)),
            Out::Last(packets) => {
                self.forget(session);
                if packets.is_empty() {
                    unknown_session()
                } else {
                    text(joined(&packets))
                }
            }
            Out::Moved => text(packet::NOOP.to_owned()),
        }
    }

    /// Take what a polling client posts.
    async fn take(&self, control: &Control, session: &Arc<Session>, body: Body) -> Response {
        let Ok(bytes) = axum::body::to_bytes(body, PAYLOAD).await else {
            self.end(
                control,
                session,
                "protocol",
                "more than a client has to say",
            );
            return wrong(StatusCode::PAYLOAD_TOO_LARGE, 3, "Bad request");
        };
        let Ok(body) = std::str::from_utf8(&bytes) else {
            return bad_request();
        };
        for text in body.split(packet::SEPARATOR) {
            if !self.heard(control, session, text).await {
                return bad_request();
            }
        }
        text("ok".to_owned())
    }

    /// Take a packet of the client. False where it is none it may send, and the session is over.
    async fn heard(&self, control: &Control, session: &Arc<Session>, text: &str) -> bool {
        {
            let mut state = session.lock();
            state.heard = Instant::now();
            state.packets += 1;
            if state.packets > PACKETS {
                drop(state);
                self.end(
                    control,
                    session,
                    "protocol",
                    "more than a client has to say",
                );
                return false;
            }
        }
        match packet::read(text) {
            Some(Packet::Pong) => session.lock().pinged = None,
            Some(Packet::Nothing | Packet::Event) => {}
            Some(Packet::Connect(token)) => self.connect(control, session, token).await,
            Some(Packet::Elsewhere(namespace)) => {
                session.say(packet::refused(
                    &namespace,
                    "Invalid namespace",
                    &Value::Null,
                ));
            }
            Some(Packet::Close | Packet::Disconnect) => {
                session.lock().over = true;
                session.changed.notify_one();
            }
            Some(Packet::Probe | Packet::Upgrade) | None => {
                self.end(control, session, "protocol", "not a packet of Socket.IO 5");
                return false;
            }
        }
        true
    }

    async fn connect(&self, control: &Control, session: &Arc<Session>, token: Option<String>) {
        {
            let mut state = session.lock();
            state.attempts += 1;
            if state.member.is_some() || state.attempts > ATTEMPTS {
                drop(state);
                return self.end(control, session, "protocol", "connected too often");
            }
        }
        // Before the caller is known, so that nothing falls between.
        let place = *control.store.recorded().borrow();
        let token = token.unwrap_or_default();
        match admit(control, session, &token).await {
            Ok(view) => {
                let user = view.user;
                if self.of_account(user) >= PER_ACCOUNT {
                    control.metrics.refused_stream();
                    let message = "the account listens too often already; close some connections";
                    let data = json!({ "code": "LIMIT_REACHED", "statusCode": 429 });
                    return session.say(packet::refused("/", message, &data));
                }
                session.lock().member = Some(Member {
                    token,
                    view,
                    place,
                    checked: Instant::now(),
                });
                session.say(packet::connected(&words::url_safe(20)));
            }
            Err(fault) => {
                control.metrics.refused_stream();
                let data = json!({ "code": fault.code, "statusCode": fault.status.as_u16() });
                session.say(packet::refused("/", &fault.message, &data));
            }
        }
    }

    fn of_account(&self, user: Id) -> usize {
        let of = |session: &&Arc<Session>| {
            session
                .lock()
                .member
                .as_ref()
                .is_some_and(|member| member.view.user == user)
        };
        self.sessions().values().filter(of).count()
    }

    /// End a session and say why.
    fn end(&self, control: &Control, session: &Session, reason: &str, message: &str) {
        {
            let mut state = session.lock();
            if state.over {
                return;
            }
            state.over = true;
            if state.member.is_some() {
                let why = json!({ "type": "error", "code": reason, "message": message });
                state.outbox.push_back(packet::message(&why));
                state.outbox.push_back(packet::DISCONNECT.to_owned());
            }
        }
        control.metrics.ended_stream(reason);
        tracing::debug!(reason, message, "a stream of events is ended");
        session.changed.notify_one();
    }

    /// Wait for what is next for the client. Nothing is lost where this is dropped before its end.
    async fn next(&self, control: &Control, session: &Arc<Session>, over: Transport) -> Out {
        let mut recorded = control.store.recorded();
        loop {
            let now = Instant::now();
            let (due, member) = {
                let mut state = session.lock();
                if state.transport != over {
                    return Out::Moved;
                }
                if !state.outbox.is_empty() {
                    let packets = state.outbox.drain(..).collect();
                    return if state.over {
                        Out::Last(packets)
                    } else {
                        Out::Packets(packets)
                    };
                }
                let unanswered = state.pinged.is_some_and(|at| now >= at + PONG_PATIENCE);
                if state.over || unanswered || state.is_stranger(now) {
                    state.over = true;
                    return Out::Last(Vec::new());
                }
                if now >= state.next_ping {
                    state.next_ping = now + PING_EVERY;
                    state.pinged = Some(now);
                    state.packets = 0;
                    return Out::Packets(vec![packet::PING.to_owned()]);
                }
                (state.due(), state.member.clone())
            };
            if let Some(member) = &member {
                let newest = *recorded.borrow_and_update();
                if newest - member.place > BEHIND {
                    self.end(
                        control,
                        session,
                        "behind",
                        "too far behind; connect again and read the history of what was missed",
                    );
                    continue;
                }
                if newest > member.place || member.checked.elapsed() >= RECHECK {
                    match look(control, session, member).await {
                        Ok((packets, after)) => {
                            session.lock().member = Some(after);
                            if !packets.is_empty() {
                                return Out::Packets(packets);
                            }
                        }
                        Err(fault) => {
                            let reason = if fault.status.is_server_error() {
                                "failed"
                            } else {
                                "unauthorized"
                            };
                            self.end(control, session, reason, &fault.message);
                        }
                    }
                    continue;
                }
            }
            let recheck = member.map(|member| member.checked + RECHECK);
            let due = recheck.map_or(due, |at| at.min(due));
            tokio::select! {
                () = session.changed.notified() => {}
                _ = recorded.changed() => {}
                () = tokio::time::sleep_until(due) => {}
                () = self.closing.cancelled(), if !session.lock().over => {
                    self.end(control, session, "stopping", "the node stops; connect again in a moment");
                }
            }
        }
    }

    async fn upgrade(
        self,
        control: Control,
        session: Option<Arc<Session>>,
        request: Request,
    ) -> Response {
        if let Some(session) = &session
            && session.lock().transport != Transport::Polling
        {
            return bad_request();
        }
        let begun = match &session {
            None => match self.begin(&control, &request, true) {
                Ok(session) => Some(session),
                Err(refusal) => return refusal,
            },
            Some(_) => None,
        };
        let (mut parts, _) = request.into_parts();
        let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
            Ok(upgrade) => upgrade,
            Err(rejection) => {
                if let Some(begun) = begun {
                    self.forget(&begun);
                }
                return rejection.into_response();
            }
        };
        let fresh = begun.is_some();
        let Some(session) = begun.or(session) else {
            return unknown_session();
        };
        upgrade
            .max_message_size(PAYLOAD)
            .max_frame_size(PAYLOAD)
            .write_buffer_size(0)
            .on_upgrade(move |mut socket| async move {
                let ready = if fresh {
                    send(&mut socket, opening(&session, false)).await
                } else {
                    self.probe(&session, &mut socket).await
                };
                if ready {
                    self.pump(&control, &session, &mut socket).await;
                    self.forget(&session);
                } else if fresh {
                    self.forget(&session);
                }
            })
    }

    /// Move a session from polling to a WebSocket, once the client says so. Where it does not, the
    /// session goes on as it was.
    async fn probe(&self, session: &Arc<Session>, socket: &mut WebSocket) -> bool {
        let moved = tokio::time::timeout(CONNECT_PATIENCE, async {
            let packet = read(socket).await?;
            if packet::read(&packet) != Some(Packet::Probe) {
                return None;
            }
            {
                let mut state = session.lock();
                if state.transport != Transport::Polling {
                    return None; // another was faster
                }
                state.transport = Transport::Moving;
            }
            // The poll under way ends, so that the client may go over.
            session.changed.notify_one();
            if !send(socket, packet::PROBED.to_owned()).await {
                return Some(false);
            }
            let packet = read(socket).await;
            Some(packet.is_some_and(|packet| packet::read(&packet) == Some(Packet::Upgrade)))
        })
        .await;
        let mut state = session.lock();
        match moved {
            Ok(Some(true)) => {
                state.transport = Transport::Socket;
                true
            }
            Ok(None) => false,
            Ok(Some(false)) | Err(_) => {
                if state.transport == Transport::Moving {
                    state.transport = Transport::Polling;
                }
                false
            }
        }
    }

    async fn pump(&self, control: &Control, session: &Arc<Session>, socket: &mut WebSocket) {
        loop {
            tokio::select! {
                incoming = socket.recv() => match incoming {
                    Some(Ok(Message::Text(text))) => {
                        // What is wrong ends the session; its last words are said below.
                        self.heard(control, session, &text).await;
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {
                        session.lock().packets += 1;
                    }
                    Some(Ok(Message::Binary(_))) => {
                        self.end(control, session, "protocol", "not a packet of Socket.IO 5");
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                },
                out = self.next(control, session, Transport::Socket) => {
                    let (packets, last) = match out {
                        Out::Packets(packets) => (packets, false),
                        Out::Last(packets) => (packets, true),
                        Out::Moved => return,
                    };
                    for packet in packets {
                        if !send(socket, packet).await {
                            control.metrics.ended_stream("slow");
                            tracing::info!(client = %session.network, "a client of events took nothing for {WRITE_PATIENCE:?} and is let go");
                            return goodbye(socket, "took nothing for too long").await;
                        }
                    }
                    if last {
                        return goodbye(socket, "").await;
                    }
                }
            }
        }
    }
}

impl Session {
    fn lock(&self) -> MutexGuard<'_, Condition> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, packet: String) {
        let mut state = self.lock();
        if state.outbox.len() < OUTBOX {
            state.outbox.push_back(packet);
        } else {
            state.over = true;
        }
        drop(state);
        self.changed.notify_one();
    }
}

impl Condition {
    /// Whether it has shown no good token for too long.
    fn is_stranger(&self, now: Instant) -> bool {
        self.member.is_none() && now >= self.born + CONNECT_PATIENCE
    }

    /// Whether nobody is there any more. A WebSocket's end is seen by its own task.
    fn is_stale(&self, now: Instant) -> bool {
        self.transport == Transport::Polling
            && (now >= self.heard + PING_EVERY + PONG_PATIENCE || self.is_stranger(now))
    }

    /// When something is to be done although nothing happens.
    fn due(&self) -> Instant {
        let mut due = self.next_ping;
        if let Some(pinged) = self.pinged {
            due = due.min(pinged + PONG_PATIENCE);
        }
        if self.member.is_none() {
            due = due.min(self.born + CONNECT_PATIENCE);
        }
        due
    }
}

fn opening(session: &Session, may_upgrade: bool) -> String {
    packet::open(
        &session.sid,
        may_upgrade,
        PING_EVERY.as_millis(),
        PONG_PATIENCE.as_millis(),
        PAYLOAD,
    )
}

fn joined(packets: &[String]) -> String {
    packets.join(&packet::SEPARATOR.to_string())
}

async fn read(socket: &mut WebSocket) -> Option<String> {
    match socket.recv().await? {
        Ok(Message::Text(text)) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

/// Whether the client took it in time.
async fn send(socket: &mut WebSocket, packet: String) -> bool {
    let sent = socket.send(Message::Text(packet.into()));
    matches!(tokio::time::timeout(WRITE_PATIENCE, sent).await, Ok(Ok(())))
}

async fn goodbye(socket: &mut WebSocket, reason: &'static str) {
    let frame = CloseFrame {
        code: if reason.is_empty() { 1000 } else { 1008 },
        reason: reason.into(),
    };
    let closing = socket.send(Message::Close(Some(frame)));
    tokio::time::timeout(GOODBYE, closing).await.ok(); // it may have gone
}

/// What the bearer of a token may see.
async fn admit(control: &Control, session: &Session, token: &str) -> Result<View, Fault> {
    let mut call = session.call.clone();
    let bearer = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| Fault::unauthorized("the token holds what no token holds"))?;
    call.headers.insert(AUTHORIZATION, bearer);
    let principal = control.auth.identify(&call).await?;
    in_realm(&principal)?;
    view(&principal)
}

/// Clients connect at the host without a realm, whatever their token: one that is for some realms
/// hears of those. One that needs a realm and names none has to be told which by its address.
fn in_realm(principal: &Principal) -> Result<(), Fault> {
    let named = principal
        .token()
        .is_some_and(|token| !token.realms.is_empty());
    if principal.realm.is_none() && named {
        return Ok(());
    }
    principal.in_realm()
}

/// What a member has not seen, and the member afterwards. The events are read first and the caller
/// asked for then: whoever could not see an event when it was written is not sent it.
async fn look(
    control: &Control,
    session: &Session,
    member: &Member,
) -> Result<(Vec<String>, Member), Fault> {
    let mut member = member.clone();
    loop {
        let (view, place) = (member.view.clone(), member.place);
        let (found, upto) = control
            .store
            .read("read events for a stream", move |db| {
                events::after(db, &view, place, BATCH)
            })
            .await
            .map_err(broken)?;
        let view = admit(control, session, &member.token).await?;
        member.checked = Instant::now();
        if view != member.view {
            member.view = view;
            continue;
        }
        member.place = upto;
        return Ok((found.iter().map(told).collect(), member));
    }
}

/// An event as the stream tells it.
fn told(event: &events::Event) -> String {
    let mut data = event.payload.clone();
    data["resource_id"] = event.resource_id.clone().into();
    data["resource_type"] = event.resource.clone().into();
    data["realm_ids"] = event
        .realms
        .iter()
        .map(Id::to_string)
        .collect::<Vec<_>>()
        .into();
    packet::message(&json!({
        "type": "event",
        "event": event.kind,
        "data": data,
        "timestamp": time::text(event.at),
        "eventId": event.id.to_string(),
    }))
}
