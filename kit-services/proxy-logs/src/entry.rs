//! One line of the log.

use std::borrow::Cow;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::{Capture, Scope};

/// What an entry tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A request. It is written when its answer has ended; for one that stays open, such as a
    /// WebSocket, when its answer begins.
    Request,
    /// The end of a request that stayed open.
    Response,
    /// Something that happened to the log itself: entries were lost, or it was cleared.
    Event,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Reading this log.
    Debug,
    Info,
    /// A status of 400 to 499, or entries that were lost.
    Warn,
    /// A status of 500 and above.
    Error,
}

impl Level {
    pub fn of(status: u16) -> Level {
        match status {
            500.. => Level::Error,
            400..500 => Level::Warn,
            _ => Level::Info,
        }
    }
}

/// Before the rest of an entry that has no id yet.
const UNNUMBERED: &str = "{\"id\":0,";

impl Draft<'_> {
    /// The entry without its place in a log, for a log that another process writes.
    pub fn unnumbered(&self, scope: Scope) -> String {
        let numbered = Numbered {
            id: 0,
            scope,
            draft: self,
        };
        let text = serde_json::to_string(&numbered).expect("an entry is JSON");
        let rest = text.strip_prefix(UNNUMBERED);
        rest.expect("an entry begins with its id").to_owned()
    }
}

/// What [`Draft::unnumbered`] made, with its place in a log; none where it is something else.
pub(crate) fn number(rest: &str, id: u64) -> Option<String> {
    let line = format!("{{\"id\":{id},{rest}");
    let whole = !line.contains('\n') && Head::of(line.as_bytes()).is_some_and(|it| it.id == id);
    whole.then_some(line)
}

/// Who wrote an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A service of the container; none writes here yet.
    Backend,
    /// The proxy.
    Edge,
}

/// An entry as it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogEntry {
    /// Grows with every entry of a container, not always by one.
    pub id: u64,
    /// The same for all entries of one exchange; that of the request's `traceparent`, where it had one.
    pub trace_id: String,
    /// When it began, in milliseconds since 1970.
    pub ts_ms: i64,
    /// The same (RFC 3339).
    pub ts_iso: String,
    pub kind: Kind,
    pub level: Level,
    pub project_id: String,
    pub container_id: String,
    /// The slug of the service, `http-3000` for a port, `logs` for what happened to the log.
    pub service_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The address that was asked for; values that look like secrets are `***`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<String>,
    /// 499: the client left before the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Of an exchange: `index`, `scheme`, `http`, `durationMs`, `upstreamMs`, `bytesIn`, `bytesOut`,
    /// `userAgent`, `contentType` of the answer, `headers` of the request, `refusal` (the code of the
    /// proxy's own answer), `fault`, `websocket`. Of an event: `event`, `message`.
    pub data: Map<String, Value>,
    pub source: Source,
}

/// An entry as it is handed over, before it has an id.
pub struct Draft<'a> {
    /// When it began.
    pub ts_ms: i64,
    pub ts_iso: &'a str,
    pub trace: &'a str,
    pub kind: Kind,
    pub level: Level,
    /// The slug of the service, or the port.
    pub service: &'a str,
    pub exchange: Option<Exchange<'a>>,
    pub event: Option<Event<'a>>,
}

/// A request and what became of it.
pub struct Exchange<'a> {
    pub method: &'a str,
    /// Redacted.
    pub url: &'a str,
    pub client: IpAddr,
    pub status: Option<u16>,
    pub index: Option<u32>,
    pub scheme: &'a str,
    pub http: &'a str,
    /// None while it is under way.
    pub duration_ms: Option<f64>,
    /// Until the headers of the service's answer.
    pub upstream_ms: Option<f64>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Of the answer.
    pub content_type: Option<&'a str>,
    pub refusal: Option<&'a str>,
    pub fault: Option<&'a str>,
    pub websocket: bool,
    pub text: &'a Capture,
}

/// Something that happened to the log.
#[derive(Debug, Clone, Serialize)]
pub struct Event<'a> {
    /// A stable name.
    pub event: &'a str,
    pub message: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// A draft with its place in a log, as it is written.
pub(crate) struct Numbered<'a> {
    pub id: u64,
    pub scope: Scope,
    pub draft: &'a Draft<'a>,
}

impl Serialize for Numbered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Draft { exchange, .. } = self.draft;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("traceId", self.draft.trace)?;
        map.serialize_entry("tsMs", &self.draft.ts_ms)?;
        map.serialize_entry("tsIso", self.draft.ts_iso)?;
        map.serialize_entry("kind", &self.draft.kind)?;
        map.serialize_entry("level", &self.draft.level)?;
        map.serialize_entry("projectId", &Text(self.scope.project))?;
        map.serialize_entry("containerId", &Text(self.scope.container))?;
        map.serialize_entry("serviceName", self.draft.service)?;
        if let Some(exchange) = exchange {
            map.serialize_entry("method", exchange.method)?;
            map.serialize_entry("url", exchange.url)?;
            map.serialize_entry("clientIp", &exchange.client)?;
            if let Some(status) = exchange.status {
                map.serialize_entry("status", &status)?;
            }
        }
        map.serialize_entry("source", &Source::Edge)?;
        match (exchange, &self.draft.event) {
            (Some(exchange), _) => map.serialize_entry("data", &Details(exchange))?,
            (None, Some(event)) => map.serialize_entry("data", event)?,
            (None, None) => map.serialize_entry("data", &Map::new())?,
        }
        map.end()
    }
}

struct Text<T>(T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

struct Details<'a>(&'a Exchange<'a>);

impl Serialize for Details<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Details(exchange) = self;
        let mut map = serializer.serialize_map(None)?;
        if let Some(index) = exchange.index {
            map.serialize_entry("index", &index)?;
        }
        map.serialize_entry("scheme", exchange.scheme)?;
        map.serialize_entry("http", exchange.http)?;
        if let Some(took) = exchange.duration_ms {
            map.serialize_entry("durationMs", &took)?;
        }
        if let Some(waited) = exchange.upstream_ms {
            map.serialize_entry("upstreamMs", &waited)?;
        }
        map.serialize_entry("bytesIn", &exchange.bytes_in)?;
        map.serialize_entry("bytesOut", &exchange.bytes_out)?;
        if let Some(agent) = exchange.text.header("user-agent") {
            map.serialize_entry("userAgent", &agent)?;
        }
        for (name, text) in [
            ("contentType", exchange.content_type),
            ("refusal", exchange.refusal),
            ("fault", exchange.fault),
        ] {
            if let Some(text) = text {
                map.serialize_entry(name, text)?;
            }
        }
        if exchange.websocket {
            map.serialize_entry("websocket", &true)?;
        }
        map.serialize_entry("headers", &Headers(exchange.text))?;
        map.end()
    }
}

/// Headers as an object; of a name that comes twice, the first.
struct Headers<'a>(&'a Capture);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Headers(text) = self;
        let mut map = serializer.serialize_map(None)?;
        let mut before = "";
        for (name, value) in text.headers() {
            // A map of headers keeps those of one name together.
            if name != before {
                map.serialize_entry(name, &value)?;
            }
            before = name;
        }
        map.end()
    }
}

/// What of an entry decides whether it is looked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Head<'a> {
    pub id: u64,
    #[serde(borrow, default)]
    pub trace_id: Cow<'a, str>,
    #[serde(default)]
    pub ts_ms: i64,
    pub kind: Kind,
    pub level: Level,
    #[serde(borrow)]
    pub service_name: Cow<'a, str>,
    #[serde(borrow, default)]
    pub method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub url: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub client_ip: Option<Cow<'a, str>>,
    #[serde(default)]
    pub status: Option<u16>,
    pub source: Source,
}

impl Head<'_> {
    /// None for what is no entry.
    pub fn of(line: &[u8]) -> Option<Head<'_>> {
        serde_json::from_slice(line).ok()
    }
}

/// The id that a line begins with; none for what is no line of a log.
pub(crate) fn id_of(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(b"{\"id\":")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if line.last() != Some(&b'}') || !(1..=19).contains(&digits) || rest.get(digits) != Some(&b',')
    {
        return None;
    }
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}
