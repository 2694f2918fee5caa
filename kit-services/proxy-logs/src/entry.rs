//! One line of the log.

use std::borrow::Cow;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::json::Object;
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

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Request => "request",
            Kind::Response => "response",
            Kind::Event => "event",
        }
    }
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
    fn as_str(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }

    pub fn of(status: u16) -> Level {
        match status {
            500.. => Level::Error,
            400..500 => Level::Warn,
            _ => Level::Info,
        }
    }
}

/// Before the rest of an entry that has no id yet.
const UNNUMBERED: &[u8] = b"{\"id\":0,";

impl Draft<'_> {
    /// The entry without its place in a log, for a log that another process writes.
    pub fn unnumbered(&self, scope: Scope) -> String {
        let numbered = Numbered {
            id: 0,
            scope,
            draft: self,
        };
        let mut line = Vec::with_capacity(1_024);
        numbered.write(&mut line);
        let rest = line.split_off(UNNUMBERED.len());
        debug_assert_eq!(line, UNNUMBERED);
        String::from_utf8(rest).expect("JSON is text")
    }
}

/// Add to `out` what [`Draft::unnumbered`] made, with its place in a log; false where that is no
/// entry.
pub(crate) fn number(out: &mut Vec<u8>, rest: &str, id: u64) -> bool {
    let start = out.len();
    out.extend_from_slice(b"{\"id\":");
    out.extend_from_slice(itoa::Buffer::new().format(id).as_bytes());
    out.push(b',');
    out.extend_from_slice(rest.as_bytes());
    let line = &out[start..];
    !rest.contains('\n') && Head::of(line).is_some_and(|it| it.id == id)
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
    /// The scheme and authority, if one is known, and the path and query; redacted.
    pub url: &'a [&'a str],
    /// An address.
    pub client: &'a str,
    pub status: Option<u16>,
    pub index: Option<u32>,
    pub scheme: &'a str,
    pub http: &'a str,
    /// None while it is under way.
    pub duration: Option<Duration>,
    /// Until the headers of the service's answer.
    pub upstream: Option<Duration>,
    pub bytes_in: u64,
    pub bytes_out: u64,
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

impl Numbered<'_> {
    /// Add it to `out`, as JSON: what [`LogEntry`] reads.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Draft {
            exchange, event, ..
        } = self.draft;
        let mut entry = Object::open(out);
        entry.number("id", self.id); // the first: see `id_of`
        entry.text("traceId", self.draft.trace);
        entry.number("tsMs", self.draft.ts_ms.max(0).unsigned_abs());
        entry.text("tsIso", self.draft.ts_iso);
        entry.text("kind", self.draft.kind.as_str());
        entry.text("level", self.draft.level.as_str());
        entry.hex("projectId", &self.scope.project.0);
        entry.hex("containerId", &self.scope.container.0);
        entry.text("serviceName", self.draft.service);
        if let Some(exchange) = exchange {
            entry.text("method", exchange.method);
            entry.joined("url", exchange.url);
            entry.text("clientIp", exchange.client);
            entry.some_number("status", exchange.status.map(u64::from));
        }
        entry.text("source", "edge");
        entry.other("data", |out| match (exchange, event) {
            (Some(exchange), _) => exchange.details(out),
            (None, Some(event)) => {
                serde_json::to_writer(out, event).expect("an event is JSON");
            }
            (None, None) => Object::open(out).close(),
        });
        entry.close();
    }
}

impl Exchange<'_> {
    fn details(&self, out: &mut Vec<u8>) {
        let mut data = Object::open(out);
        data.some_number("index", self.index.map(u64::from));
        data.text("scheme", self.scheme);
        data.text("http", self.http);
        if let Some(took) = self.duration {
            data.millis("durationMs", took);
        }
        if let Some(waited) = self.upstream {
            data.millis("upstreamMs", waited);
        }
        data.number("bytesIn", self.bytes_in);
        data.number("bytesOut", self.bytes_out);
        data.some_text("userAgent", self.text.header("user-agent").as_deref());
        data.some_text("contentType", self.text.answered().as_deref());
        data.some_text("refusal", self.refusal);
        data.some_text("fault", self.fault);
        if self.websocket {
            data.yes("websocket");
        }
        data.other("headers", |out| {
            let mut headers = Object::open(out);
            let mut before = "";
            for (name, value) in self.text.headers() {
                // A map of headers keeps those of one name together; the first is told.
                if name != before {
                    headers.header(name, &value);
                }
                before = name;
            }
            headers.close();
        });
        data.close();
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
