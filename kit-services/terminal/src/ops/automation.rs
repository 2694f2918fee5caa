//! Driving a terminal: typing, and looking at the screen.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::Terminal;
use crate::id::{self, Named};
use crate::keys::{self, MouseEvent, MouseModes};
use crate::ops::over;
use crate::ops::sessions::status;
use crate::screen::{self, Hit, Scope, Snapshot, Wanted};
use crate::session::{Phase, Session};

/// Typed input that the program does not read for this long is an error.
const TYPED_WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn type_in(session: &Session, bytes: Vec<u8>) -> Result<Typed, Fault> {
    let written = bytes.len();
    tokio::time::timeout(TYPED_WITHIN, session.write(Bytes::from(bytes)))
        .await
        .map_err(|_| {
            Fault::unavailable(format!(
                "the program in terminal {} does not read its input",
                session.id
            ))
            .code("INPUT_BLOCKED")
        })?
        .map_err(over(session))?;
    Ok(Typed {
        success: true,
        terminal_id: session.id.to_string(),
        bytes_written: written,
    })
}

/// What was typed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Typed {
    success: bool,
    terminal_id: String,
    bytes_written: usize,
}

fn yes() -> bool {
    true
}

/// Type text into a terminal.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Write {
    /// Terminal, 1 to 65535; the one of the host's index where none is given.
    terminal_id: Option<Named>,
    /// The text.
    input: String,
    /// Press Enter after it.
    #[serde(default = "yes")]
    enter: bool,
}

impl Operation for Write {
    const ROUTE: Route = Route::post("/api/v1/terminal/write")
        .named("writeTerminalInput")
        .cli("terminal sessions write")
        .query(&["terminal_id"]);
    type Service = Terminal;
    type Reply = Typed;

    async fn run(self, terminal: Terminal, call: Call) -> Result<Typed, Fault> {
        let session = terminal.existing(id::required(self.terminal_id.as_ref(), &call)?)?;
        let mut bytes = self.input.into_bytes();
        if self.enter {
            bytes.push(b'\r');
        }
        type_in(&session, bytes).await
    }
}

/// Press keys in a terminal: `enter`, `ctrl+c`, `arrow_up`, `x`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Press {
    /// Terminal, 1 to 65535; the one of the host's index where none is given.
    terminal_id: Option<Named>,
    /// Keys, in this order.
    #[schemars(length(max = 256))]
    keys: Option<Vec<String>>,
    /// One key.
    key: Option<String>,
}

impl Operation for Press {
    const ROUTE: Route = Route::post("/api/v1/terminal/press")
        .named("pressTerminalKeys")
        .cli("terminal sessions press")
        .query(&["terminal_id"]);
    type Service = Terminal;
    type Reply = Typed;

    async fn run(self, terminal: Terminal, call: Call) -> Result<Typed, Fault> {
        const MOST: usize = 256;
        let session = terminal.existing(id::required(self.terminal_id.as_ref(), &call)?)?;
        let keys = match (self.keys, self.key) {
            (Some(keys), None) => keys,
            (None, Some(key)) => vec![key],
            _ => return Err(Fault::bad_request("give either keys or key").code("VALIDATION_ERROR")),
        };
        if keys.is_empty() || keys.len() > MOST {
            return Err(Fault::bad_request(format!("keys must be 1 to {MOST}"))
                .field("/keys", "number of keys"));
        }
        let screen = session.screen().await.map_err(over(&session))?;
        let mut bytes = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            let key = keys::press(key, screen.application_cursor()).ok_or_else(|| {
                let key: String = key
                    .chars()
                    .take(32)
                    .filter(|character| !character.is_control())
                    .collect();
                Fault::bad_request(format!(
                    "no key `{key}`; GET /api/v1/terminal/keys lists them"
                ))
                .code("UNKNOWN_KEY")
                .field(format!("/keys/{at}"), "no such key")
            })?;
            bytes.extend(key);
        }
        type_in(&session, bytes).await
    }
}

/// Paste text into a terminal.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Paste {
    /// Terminal, 1 to 65535; the one of the host's index where none is given.
    terminal_id: Option<Named>,
    /// The text.
    text: String,
    /// Mark it as pasted where the program asked for that.
    #[serde(default = "yes")]
    bracketed: bool,
}

impl Operation for Paste {
    const ROUTE: Route = Route::post("/api/v1/terminal/paste")
        .named("pasteTerminalText")
        .cli("terminal sessions paste")
        .query(&["terminal_id"]);
    type Service = Terminal;
    type Reply = Typed;

    async fn run(self, terminal: Terminal, call: Call) -> Result<Typed, Fault> {
        let session = terminal.existing(id::required(self.terminal_id.as_ref(), &call)?)?;
        let screen = session.screen().await.map_err(over(&session))?;
        let bytes = keys::paste(&self.text, self.bracketed && screen.bracketed_paste());
        type_in(&session, bytes).await
    }
}

/// Use the mouse in a terminal.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Mouse {
    /// Terminal, 1 to 65535; the one of the host's index where none is given.
    terminal_id: Option<Named>,
    /// One event.
    event: Option<MouseEvent>,
    /// Events, in this order.
    #[schemars(length(min = 1, max = 256))]
    events: Option<Vec<MouseEvent>>,
}

impl Operation for Mouse {
    const ROUTE: Route = Route::post("/api/v1/terminal/mouse")
        .named("sendTerminalMouseEvents")
        .query(&["terminal_id"]);
    type Service = Terminal;
    type Reply = Typed;

    async fn run(self, terminal: Terminal, call: Call) -> Result<Typed, Fault> {
        const MOST: usize = 256;
        let session = terminal.existing(id::required(self.terminal_id.as_ref(), &call)?)?;
        let events = match (self.events, self.event) {
            (Some(events), None) => events,
            (None, Some(event)) => vec![event],
            _ => {
                return Err(
                    Fault::bad_request("give either event or events").code("VALIDATION_ERROR")
                );
            }
        };
        if events.is_empty() || events.len() > MOST {
            return Err(Fault::bad_request(format!("events must be 1 to {MOST}"))
                .field("/events", "number of events"));
        }
        let screen = session.screen().await.map_err(over(&session))?;
        let modes = MouseModes {
            mode: screen.mouse_protocol_mode(),
            encoding: screen.mouse_protocol_encoding(),
        };
        if modes.mode == vt100::MouseProtocolMode::None {
            return Err(Fault::conflict(
                "the program in the terminal did not ask for mouse events",
            )
            .code("NO_MOUSE"));
        }
        let mut bytes = Vec::new();
        for event in &events {
            bytes.extend(keys::mouse(event, modes).map_err(Fault::bad_request)?);
        }
        type_in(&session, bytes).await
    }
}

async fn snapshot(session: &Session, wanted: Wanted) -> Result<Snapshot, Fault> {
    let mut screen = session.screen().await.map_err(over(session))?;
    let view = session.view();
    Ok(Snapshot::of(
        session.id.to_string(),
        view.title,
        view.written,
        &mut screen,
        wanted,
    ))
}

/// What is on the screen of a terminal.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct TakeSnapshot {
    /// Terminal, 1 to 65535; the one of the host's index where none is given.
    terminal_id: Option<Named>,
    /// Add the lines with escape sequences for colours.
    #[serde(default)]
    include_colors: bool,
    /// Add the stretches in reverse video.
    #[serde(default = "yes")]
    include_highlights: bool,
    /// How many lines further up to look.
    #[serde(default)]
    scroll_offset: usize,
}

impl Operation for TakeSnapshot {
    const ROUTE: Route = Route::get("/api/v1/terminal/snapshot")
        .named("getTerminalSnapshot")
        .cli("terminal sessions snapshot");
    type Service = Terminal;
    type Reply = Snapshot;

    async fn run(self, terminal: Terminal, call: Call) -> Result<Snapshot, Fault> {
        let session = terminal.existing(id::required(self.terminal_id.as_ref(), &call)?)?;
        let wanted = Wanted {
            colors: self.include_colors,
            highlights: self.include_highlights,
            scroll_offset: self.scroll_offset,
        };
        snapshot(&session, wanted).await
    }
}

/// Find a regular expression in what a terminal shows.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Find {
    /// Terminal, 1 to 65535; the one of the host's index where none is given.
    terminal_id: Option<Named>,
    /// The expression, at most 1024 bytes.
    pattern: String,
    /// The screen, the lines above it, or both.
    #[serde(default)]
    scope: Scope,
    /// At most so many places, up to 1000; 100 where not given.
    limit: Option<usize>,
    /// Capital and small letters are the same.
    #[serde(default)]
    case_insensitive: bool,
    /// How many lines further up the screen is.
    #[serde(default)]
    scroll_offset: usize,
}

/// Where a pattern was found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Found {
    terminal_id: String,
    hits: Vec<Hit>,
    /// There may be more.
    truncated: bool,
}

fn compile(pattern: &str, case_insensitive: bool) -> Result<regex::Regex, Fault> {
    screen::pattern(pattern, case_insensitive).map_err(|why| {
        Fault::bad_request(why.clone())
            .code("INVALID_PATTERN")
            .field("/pattern", why)
    })
}

impl Operation for Find {
    const ROUTE: Route = Route::get("/api/v1/terminal/find")
        .named("findInTerminal")
        .cli("terminal sessions find");
    type Service = Terminal;
    type Reply = Found;

    async fn run(self, terminal: Terminal, call: Call) -> Result<Found, Fault> {
        const DEFAULT: usize = 100;
        const MOST: usize = 1000;
        let session = terminal.existing(id::required(self.terminal_id.as_ref(), &call)?)?;
        let pattern = compile(&self.pattern, self.case_insensitive)?;
        let limit = self.limit.unwrap_or(DEFAULT).min(MOST);
        let mut screen = session.screen().await.map_err(over(&session))?;
        let lines = screen::lines(&mut screen, self.scope, self.scroll_offset);
        let hits = screen::find(&lines, &pattern, limit);
        Ok(Found {
            terminal_id: session.id.to_string(),
            truncated: hits.len() == limit,
            hits,
        })
    }
}

/// What to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing was shown for `debounce_ms`.
    #[default]
    Stable,
    /// `pattern` is found.
    Regex,
    /// Whichever comes first.
    Either,
}

/// Wait until a terminal is quiet, or shows something.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Wait {
    /// Terminal, 1 to 65535; the one of the host's index where none is given.
    terminal_id: Option<Named>,
    #[serde(default)]
    mode: Mode,
    /// How long it must be quiet, in milliseconds, 10 to 60000; 100 where not given.
    debounce_ms: Option<u64>,
    /// Regular expression, at most 1024 bytes.
    pattern: Option<String>,
    /// When to give up, in milliseconds, 10 to 300000; 5000 where not given.
    timeout_ms: Option<u64>,
    /// Where to look for it.
    #[serde(default)]
    search_scope: Scope,
    /// Add the lines with escape sequences for colours.
    #[serde(default)]
    include_colors: bool,
    /// Add the stretches in reverse video.
    #[serde(default = "yes")]
    include_highlights: bool,
}

/// What came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Matched,
    Stable,
    Timeout,
    Exited,
}

/// How waiting ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Waited {
    status: Outcome,
    terminal_id: String,
    elapsed_ms: u128,
    /// Where the pattern was found.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    hit: Option<Hit>,
    /// What is on the screen now; null when the session is over.
    snapshot: Option<Snapshot>,
}

fn within(value: Option<u64>, default: u64, most: u64, name: &str) -> Result<Duration, Fault> {
    const LEAST: u64 = 10;
    let value = value.unwrap_or(default);
    if !(LEAST..=most).contains(&value) {
        return Err(
            Fault::bad_request(format!("{name} must be {LEAST} to {most}"))
                .field(format!("/{name}"), "out of range"),
        );
    }
    Ok(Duration::from_millis(value))
}

impl Operation for Wait {
    const ROUTE: Route = Route::post("/api/v1/terminal/wait")
        .named("waitForTerminal")
        .cli("terminal sessions wait")
        .query(&["terminal_id"]);
    type Service = Terminal;
    type Reply = Waited;

    async fn run(self, terminal: Terminal, call: Call) -> Result<Waited, Fault> {
        let begun = Instant::now();
        let session = terminal.existing(id::required(self.terminal_id.as_ref(), &call)?)?;
        let debounce = within(self.debounce_ms, 100, 60_000, "debounce_ms")?;
        let deadline = begun + within(self.timeout_ms, 5000, 300_000, "timeout_ms")?;
        let pattern = match (self.mode, self.pattern.as_deref()) {
            (Mode::Stable, _) => None,
            (_, Some(pattern)) => Some(compile(pattern, false)?),
            (_, None) => {
                return Err(Fault::bad_request("modes regex and either need a pattern")
                    .field("/pattern", "required"));
            }
        };
        let quiet = (self.mode != Mode::Regex).then_some(debounce);
        let (status, hit) = wait(
            &session,
            pattern.as_ref(),
            self.search_scope,
            quiet,
            deadline,
        )
        .await;
        let wanted = Wanted {
            colors: self.include_colors,
            highlights: self.include_highlights,
            scroll_offset: 0,
        };
        Ok(Waited {
            status,
            terminal_id: session.id.to_string(),
            elapsed_ms: begun.elapsed().as_millis(),
            hit,
            snapshot: snapshot(&session, wanted).await.ok(),
        })
    }
}

async fn wait(
    session: &Session,
    pattern: Option<&regex::Regex>,
    scope: Scope,
    quiet: Option<Duration>,
    deadline: Instant,
) -> (Outcome, Option<Hit>) {
    /// Between two looks at a screen that keeps changing.
    const LOOK: Duration = Duration::from_millis(20);
    let mut view = session.watch();
    let mut changed = Instant::now();
    loop {
        let (written, is_over) = {
            let view = view.borrow_and_update();
            (view.written, matches!(view.phase, Phase::Ended(_)))
        };
        if is_over {
            return (Outcome::Exited, None);
        }
        if let Some(pattern) = pattern {
            let Ok(mut screen) = session.screen().await else {
                return (Outcome::Exited, None);
            };
            let hit = screen::find(&screen::lines(&mut screen, scope, 0), pattern, 1).pop();
            if hit.is_some() {
                return (Outcome::Matched, hit);
            }
        }
        let until = quiet.map_or(deadline, |quiet| deadline.min(changed + quiet));
        match timeout_at(
            until,
            view.wait_for(|view| view.written != written || matches!(view.phase, Phase::Ended(_))),
        )
        .await
        {
            Ok(Ok(_)) => changed = Instant::now(),
            Ok(Err(_)) => return (Outcome::Exited, None),
            Err(_) if quiet.is_some_and(|quiet| changed + quiet <= Instant::now()) => {
                return (Outcome::Stable, None);
            }
            Err(_) => return (Outcome::Timeout, None),
        }
        if Instant::now() >= deadline {
            return (Outcome::Timeout, None);
        }
        if pattern.is_some() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The names of keys that can be pressed.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Keys {}

/// Names of keys.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KeyNames {
    keys: Vec<String>,
    /// What may stand before a key, joined by plus signs.
    modifiers: [&'static str; 4],
}

impl Operation for Keys {
    const ROUTE: Route = Route::get("/api/v1/terminal/keys")
        .named("listSupportedKeys")
        .cli("terminal automation keys");
    type Service = Terminal;
    type Reply = KeyNames;

    async fn run(self, _: Terminal, _: Call) -> Result<KeyNames, Fault> {
        Ok(KeyNames {
            keys: keys::names(),
            modifiers: ["ctrl", "alt", "shift", "meta"],
        })
    }
}

/// What automation has to know of a terminal.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct State {
    /// Terminal, 1 to 65535.
    terminal_id: Named,
}

/// The modes of a terminal.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AutomationState {
    terminal_id: String,
    /// `starting`, `ready` or `busy`.
    status: &'static str,
    /// Bytes of output so far.
    sequence: u64,
    cols: u16,
    rows: u16,
    title: String,
    alternate_screen: bool,
    bracketed_paste: bool,
    application_cursor: bool,
    /// The program asked for mouse events.
    mouse: bool,
}

impl Operation for State {
    const ROUTE: Route = Route::get("/api/v1/terminal/{terminal_id}/automation")
        .named("getSessionAutomationState")
        .cli("terminal sessions automation-state");
    type Service = Terminal;
    type Reply = AutomationState;

    async fn run(self, terminal: Terminal, call: Call) -> Result<AutomationState, Fault> {
        let session = terminal.existing(id::required(Some(&self.terminal_id), &call)?)?;
        let screen = session.screen().await.map_err(over(&session))?;
        let view = session.view();
        Ok(AutomationState {
            terminal_id: session.id.to_string(),
            status: status(&view.phase),
            sequence: view.written,
            cols: view.size.columns,
            rows: view.size.rows,
            title: view.title,
            alternate_screen: screen.alternate_screen(),
            bracketed_paste: screen.bracketed_paste(),
            application_cursor: screen.application_cursor(),
            mouse: screen.mouse_protocol_mode() != vt100::MouseProtocolMode::None,
        })
    }
}

/// How much is going on in the terminals.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Metrics {}

/// Numbers over all terminals.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AutomationMetrics {
    sessions: usize,
    clients: usize,
    /// Bytes of output of the sessions that are there.
    output_bytes: u64,
    running_commands: usize,
    queued_commands: usize,
    /// Reports of pages, since the kit started.
    client_reports: u64,
}

impl Operation for Metrics {
    const ROUTE: Route = Route::get("/api/v1/terminal/automation/metrics")
        .named("getAutomationMetrics")
        .cli("terminal automation metrics");
    type Service = Terminal;
    type Reply = AutomationMetrics;

    async fn run(self, terminal: Terminal, _: Call) -> Result<AutomationMetrics, Fault> {
        let views: Vec<_> = terminal
            .sessions()
            .iter()
            .map(|session| session.view())
            .collect();
        Ok(AutomationMetrics {
            sessions: views.len(),
            clients: views.iter().map(|view| view.clients).sum(),
            output_bytes: views.iter().map(|view| view.written).sum(),
            running_commands: views.iter().filter(|view| view.running.is_some()).count(),
            queued_commands: views.iter().map(|view| view.waiting).sum(),
            client_reports: terminal.reports().load(Ordering::Relaxed),
        })
    }
}
