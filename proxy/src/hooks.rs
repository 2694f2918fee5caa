//! Hooks: a script of the container sees a request before it is passed on, and says what becomes
//! of it.
//!
//! The script is one of the container's own `exec` service, asked by a plain HTTP `POST` with a
//! JSON body over the kit's socket. It sees what the container would see of the request, headers
//! and all but the body, and answers in one of these ways:
//!
//! ```text
//! nothing, or {"action":"pass"}                               it goes on as it is
//! {"action":"rewrite","path":"/p?q","headers":{"x-a":"1","x-b":null}}
//!                                                             it goes on with another path, and
//!                                                             with headers set (or, null, removed)
//! {"action":"redirect","location":"/login","status":302}      the visitor is sent there
//! {"action":"answer","status":403,"headers":{},"body":"no"}   this is the answer; binary bodies
//!                                                             come as "body_base64"
//! ```
//!
//! Any other answer, none in time, or a status other than 2xx is a failure, and the hook's setting
//! says whether the request then passes or is refused. What a script says is as little trusted as
//! anything else that comes out of a container.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use routes::hook::{self, Hook};
use routes::table::Place;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::upstream::{self, NoConnection};

/// Requests that wait for scripts at once, on the whole node: each holds little but its headers.
const ASKING: usize = 1024;
/// Of these, for one container: it keeps nobody else's hooks from being asked.
const ASKING_EACH: usize = 64;
/// What a script may answer.
const REPLY_BYTES: usize = 1 << 20;
/// Headers that a script may set or remove.
const HEADERS: usize = 64;

/// How many scripts are being asked, of which containers.
pub struct Asking {
    all: Arc<Semaphore>,
    each: dashmap::DashMap<routes::Id, usize>,
}

/// What a script is told.
#[derive(Debug, Serialize)]
pub struct Told<'a> {
    /// The hook's id.
    pub hook: &'a str,
    /// The service that was asked for, as its hostname names it.
    pub service: &'a str,
    /// Its index, or the port.
    pub instance: Option<u32>,
    pub method: &'a str,
    pub scheme: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    /// Without the question mark; empty where there is none.
    pub query: &'a str,
    /// Names in lower case, in the order of the request. Text that is not UTF-8 is made so.
    pub headers: Vec<(&'a str, std::borrow::Cow<'a, str>)>,
    /// The address of the client.
    pub client: Option<String>,
    /// The group that the visitor passed the gates as, and the name that was proved with it.
    pub group: Option<&'a str>,
    pub user: Option<&'a str>,
    /// Whether it asks to become a WebSocket.
    pub upgrade: bool,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Rewrite(Rewrite),
    Answer {
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
    },
}

/// What is changed before a request goes on.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Path and query.
    pub path: Option<String>,
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub removed: Vec<HeaderName>,
}

impl Rewrite {
    /// Change the headers of a request.
    pub fn headers(&self, headers: &mut HeaderMap) {
        for name in &self.removed {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// Why a script did not say what becomes of a request.
#[derive(Debug, thiserror::Error)]
pub enum HookFault {
    #[error("too many requests wait for the container's hooks")]
    Busy,
    #[error("the container's kit could not be reached")]
    Connect(#[from] NoConnection),
    #[error("the script did not answer in time")]
    Slow,
    #[error("the script's answer could not be read")]
    Read(#[source] hyper::Error),
    #[error("the script answered {0}")]
    Status(StatusCode),
    #[error("the script's answer is too long, or broke off")]
    TooLong,
    #[error("the script's answer is not what a hook says")]
    Nonsense(#[source] serde_json::Error),
    #[error("the script's answer names {0}, which a hook cannot set")]
    Forbidden(String),
    #[error("the script's answer has a bad {0}")]
    Bad(&'static str),
}

impl HookFault {
    /// A stable name for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            HookFault::Busy => "busy",
            HookFault::Connect(_) => "connect",
            HookFault::Slow => "timeout",
            HookFault::Read(_) | HookFault::TooLong => "read",
            HookFault::Status(_) => "status",
            HookFault::Nonsense(_) | HookFault::Forbidden(_) | HookFault::Bad(_) => "nonsense",
        }
    }
}

impl Asking {
    pub fn new() -> Asking {
        Asking {
            all: Arc::new(Semaphore::new(ASKING)),
            each: dashmap::DashMap::new(),
        }
    }

    /// A place among those that ask; given back when it is dropped.
    pub fn enter(self: &Arc<Asking>, container: routes::Id) -> Result<Turn, HookFault> {
        let all = self.all.clone().try_acquire_owned();
        let all = all.map_err(|_| HookFault::Busy)?;
        let mut count = self.each.entry(container).or_insert(0);
        if *count >= ASKING_EACH {
            return Err(HookFault::Busy);
        }
        *count += 1;
        Ok(Turn {
            asking: self.clone(),
            container,
            _all: all,
        })
    }
}

/// A place among those that ask.
pub struct Turn {
    asking: Arc<Asking>,
    container: routes::Id,
    _all: OwnedSemaphorePermit,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.asking.each.remove_if_mut(&self.container, |_, count| {
            *count -= 1;
            *count == 0
        });
    }
}

/// The first hook of a container for this request.
pub fn of<'p>(place: &'p Place, service: &str, asked: &hook::Asked<'_>) -> Option<&'p Hook> {
    let hooks = place.hooks.as_ref()?.get(service)?;
    hook::first_match(hooks, asked)
}

/// Ask the script.
pub async fn ask(
    asking: &Arc<Asking>,
    place: &Place,
    hook: &Hook,
    told: &Told<'_>,
) -> Result<Verdict, HookFault> {
    let _turn = asking.enter(place.container)?;
    let time = Duration::from_millis(u64::from(hook.timeout.min(hook::TIMEOUT_MS)));
    let body = serde_json::to_vec(told).expect("what a script is told is plain JSON");
    tokio::time::timeout(time, exchange(place, hook, told.host, body))
        .await
        .map_err(|_| HookFault::Slow)?
}

async fn exchange(
    place: &Place,
    hook: &Hook,
    host: &str,
    body: Vec<u8>,
) -> Result<Verdict, HookFault> {
    let mut request = Request::post(&hook.script.path)
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json")
        .header("x-hoody-edge-service", "exec")
        .header("x-hoody-edge-index", hook.script.index)
        .header("x-hoody-edge-hook", &hook.id);
    if let Some(subdomain) = &hook.script.subdomain {
        request = request.header("x-hoody-edge-subdomain", subdomain);
    }
    let request = request
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| HookFault::Bad("script path"))?;
    read(&send(place, request, REPLY_BYTES).await?)
}

/// Send the kit of a container a request of the proxy's own, over a connection of its own. Returns
/// the body of an answer that is a success and has at most so many bytes.
pub async fn send(
    place: &Place,
    request: Request<Full<Bytes>>,
    most: usize,
) -> Result<Bytes, HookFault> {
    let socket = upstream::dial(place).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .map_err(HookFault::Read)?;
    // It ends with the exchange: the sender is dropped, and what is left to read is not read.
    let connection = Connection(tokio::spawn(async move {
        let _ = connection.await; // what went wrong, the sender tells
    }));
    let response = sender
        .send_request(request)
        .await
        .map_err(HookFault::Read)?;
    let status = response.status();
    if !status.is_success() {
        return Err(HookFault::Status(status));
    }
    let body = Limited::new(response.into_body(), most);
    let body = body.collect().await.map_err(|_| HookFault::TooLong)?;
    drop(connection);
    Ok(body.to_bytes())
}

/// Aborts the task of a connection with it.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a script writes.
#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "lowercase", deny_unknown_fields)]
enum Said {
    Pass,
    Rewrite {
        #[serde(default)]
        path: Option<String>,
        #[serde(default)]
        headers: BTreeMap<String, Option<String>>,
    },
    Redirect {
        location: String,
        #[serde(default)]
        status: Option<u16>,
    },
    Answer {
        #[serde(default)]
        status: Option<u16>,
        #[serde(default)]
        headers: BTreeMap<String, Option<String>>,
        #[serde(default)]
        body: Option<String>,
        #[serde(default)]
        body_base64: Option<String>,
    },
}

fn read(text: &[u8]) -> Result<Verdict, HookFault> {
    if text.trim_ascii().is_empty() {
        return Ok(Verdict::Pass);
    }
    Ok(
        match serde_json::from_slice(text).map_err(HookFault::Nonsense)? {
            Said::Pass => Verdict::Pass,
            Said::Rewrite { path, headers } => {
                let path = path.map(path_and_query).transpose()?;
                let mut rewrite = Rewrite {
                    path,
                    ..Rewrite::default()
                };
                for (name, value) in named(headers)? {
                    match value {
                        Some(value) => rewrite.set.push((name, value)),
                        None => rewrite.removed.push(name),
                    }
                }
                Verdict::Rewrite(rewrite)
            }
            Said::Redirect { location, status } => {
                let status = match status.unwrap_or(302) {
                    it @ (301 | 302 | 303 | 307 | 308) => it,
                    _ => return Err(HookFault::Bad("status of a redirect")),
                };
                let location = value(&location).ok_or(HookFault::Bad("location"))?;
                Verdict::Answer {
                    status: StatusCode::from_u16(status).expect("it is one of those above"),
                    headers: [(header::LOCATION, location)].into_iter().collect(),
                    body: Bytes::new(),
                }
            }
            Said::Answer {
                status,
                headers,
                body,
                body_base64,
            } => {
                let status = StatusCode::from_u16(status.unwrap_or(200))
                    .ok()
                    .filter(|status| (200..600).contains(&status.as_u16()))
                    .ok_or(HookFault::Bad("status"))?;
                let body = match (body, body_base64) {
                    (Some(_), Some(_)) => return Err(HookFault::Bad("body: it has two")),
                    (text, None) => text.unwrap_or_default().into(),
                    (None, Some(text)) => STANDARD
                        .decode(text)
                        .map_err(|_| HookFault::Bad("body_base64"))?
                        .into(),
                };
                let headers = named(headers)?
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value?)));
                Verdict::Answer {
                    status,
                    headers: headers.collect(),
                    body,
                }
            }
        },
    )
}

fn path_and_query(path: String) -> Result<String, HookFault> {
    let plain = path.starts_with('/') && !path.contains('#');
    match path.parse::<http::uri::PathAndQuery>() {
        Ok(parsed) if plain && parsed.as_str() == path => Ok(path),
        _ => Err(HookFault::Bad("path")),
    }
}

type Named = Vec<(HeaderName, Option<HeaderValue>)>;

fn named(headers: BTreeMap<String, Option<String>>) -> Result<Named, HookFault> {
    if headers.len() > HEADERS {
        return Err(HookFault::Bad("number of headers"));
    }
    let mut named = Named::with_capacity(headers.len());
    for (name, text) in headers {
        let Ok(parsed) = HeaderName::try_from(&name) else {
            return Err(HookFault::Bad("name of a header"));
        };
        if is_taken(&parsed) {
            return Err(HookFault::Forbidden(name));
        }
        let value = match text {
            Some(text) => Some(value(&text).ok_or(HookFault::Bad("value of a header"))?),
            None => None,
        };
        named.push((parsed, value));
    }
    Ok(named)
}

fn value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}

/// Headers that say how a message is read or where it goes, or that are the proxy's own.
fn is_taken(name: &HeaderName) -> bool {
    const TAKEN: &[HeaderName] = &[
        header::HOST,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::EXPECT,
        header::FORWARDED,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    TAKEN.contains(name)
        || ["x-hoody-edge-", "x-forwarded-", "proxy-", "sec-websocket-"]
            .iter()
            .any(|ours| name.as_str().starts_with(ours))
        || matches!(name.as_str(), "keep-alive" | "x-real-ip")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_says_one_of_four_things() {
        assert_eq!(read(b" \n").expect("nothing"), Verdict::Pass);
        assert_eq!(
            read(br#"{"action":"pass"}"#).expect("a pass"),
            Verdict::Pass
        );
        let rewrite = read(
            br#"{"action":"rewrite","path":"/a?b=c","headers":{"x-a":"1","authorization":null}}"#,
        );
        assert_eq!(
            rewrite.expect("a rewrite"),
            Verdict::Rewrite(Rewrite {
                path: Some("/a?b=c".into()),
                set: vec![(
                    "x-a".parse().expect("a name"),
                    HeaderValue::from_static("1")
                )],
                removed: vec![header::AUTHORIZATION],
            })
        );
        let redirect = read(br#"{"action":"redirect","location":"/in"}"#).expect("a redirect");
        let Verdict::Answer {
            status, headers, ..
        } = redirect
        else {
            panic!("{redirect:?}")
        };
        assert_eq!(status.as_u16(), 302);
        assert_eq!(headers["location"], "/in");
        let answer = read(br#"{"action":"answer","status":403,"body_base64":"AP8="}"#);
        let Verdict::Answer { status, body, .. } = answer.expect("an answer") else {
            panic!("another thing")
        };
        assert_eq!((status.as_u16(), &body[..]), (403, &[0u8, 255][..]));
    }

    #[test]
    fn nothing_else_is_taken_from_it() {
        for said in [
            "pass",
            "{}",
            "[]",
            r#"{"action":"explode"}"#,
            r#"{"action":"rewrite","path":"x"}"#,
            r#"{"action":"rewrite","path":"//other\r\nx: y"}"#,
            r#"{"action":"rewrite","path":"/a#b"}"#,
            r#"{"action":"rewrite","path":"http://other/"}"#,
            r#"{"action":"rewrite","headers":{"host":"other"}}"#,
            r#"{"action":"rewrite","headers":{"Content-Length":"0"}}"#,
            r#"{"action":"rewrite","headers":{"x-hoody-edge-user":"admin"}}"#,
            r#"{"action":"rewrite","headers":{"X-Forwarded-For":"1.1.1.1"}}"#,
            r#"{"action":"rewrite","headers":{"x-a":"1\r\nx-b: 2"}}"#,
            r#"{"action":"rewrite","headers":{"x a":"1"}}"#,
            r#"{"action":"redirect","location":"/","status":200}"#,
            r#"{"action":"redirect","location":"/\r\nset-cookie: a=b"}"#,
            r#"{"action":"answer","status":101}"#,
            r#"{"action":"answer","status":1000}"#,
            r#"{"action":"answer","headers":{"transfer-encoding":"chunked"}}"#,
            r#"{"action":"answer","body":"a","body_base64":"YQ=="}"#,
            r#"{"action":"answer","body_base64":"?"}"#,
        ] {
            let answer = read(said.as_bytes());
            assert!(answer.is_err(), "{said}: {answer:?}");
        }
    }

    #[test]
    fn turns_are_given_back() {
        let asking = Arc::new(Asking::new());
        let (one, other) = (routes::Id([1; 12]), routes::Id([2; 12]));
        let held: Vec<Turn> = (0..ASKING_EACH)
            .map(|_| asking.enter(one).expect("a turn"))
            .collect();
        assert!(matches!(asking.enter(one), Err(HookFault::Busy)));
        assert!(asking.enter(other).is_ok(), "it is another's turn");
        drop(held);
        assert!(asking.each.is_empty());
        assert!(asking.enter(one).is_ok());
    }
}
