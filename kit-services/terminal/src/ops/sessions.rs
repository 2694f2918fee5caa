//! Sessions: making, listing, ending them, and what they remember.

use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use kit::{Call, Fault, Operation, Raw, Route, Wire};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::Terminal;
use crate::command::Summary;
use crate::execute::{Opened, Wish};
use crate::id::{self, Named};
use crate::pty::Size;
use crate::scrollback;
use crate::session::{Close, Output, Phase, Session};
use crate::ssh;
use crate::system::displays;

/// Make a session, or find the one that is there.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Create {
    /// Terminal, 1 to 65535; the one of the host's index where none is given.
    terminal_id: Option<Named>,
    /// Have a number chosen, from 40000 up; such a session ends when it stands idle for five
    /// minutes, and has no display.
    #[serde(default)]
    ephemeral: bool,
    /// X display: 1 or :1.
    display: Option<String>,
    /// Shell: bash, zsh, fish, sh, any program by name or path; the user's own where not given.
    shell: Option<String>,
    /// User to run as.
    user: Option<String>,
    /// Working directory; the user's home where not given.
    cwd: Option<String>,
    /// Make the working directory where it is missing.
    #[serde(default)]
    cwd_auto_create: bool,
    /// Variables: an object.
    #[schemars(with = "Option<std::collections::BTreeMap<String, String>>")]
    env: Option<serde_json::Value>,
    /// Script to read into the shell at its start.
    startup_script: Option<String>,
    /// Columns; 80 where not given.
    cols: Option<u32>,
    /// Rows; 24 where not given.
    rows: Option<u32>,
    /// With `display`: reply when an X server answers there, or when the time is over.
    #[serde(default)]
    wait_until_display: bool,
    /// How long to wait for that, in seconds, at most 300; 300 where not given.
    wait_timeout: Option<u64>,
    /// A desktop instead of single windows; not available.
    #[serde(default)]
    desktop: bool,
    /// The desktop to start; not available.
    desktop_env: Option<String>,
    #[serde(flatten)]
    ssh: ssh::Asked,
}

/// A session as it was made or found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Created {
    /// Always `ok`.
    status: &'static str,
    terminal_id: String,
    /// Whether it was made by this call.
    created: bool,
    /// Whether the shell has shown its prompt.
    shell_ready: bool,
    /// Process of the shell.
    pid: i32,
    /// Whether it is on another machine; it is ready when the connection is up.
    is_ssh: bool,
    /// That machine: user@host:port.
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh_target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    display: Option<String>,
    /// Whether an X server answers there, where that was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    display_ready: Option<bool>,
    shell: String,
    user: String,
}

impl Operation for Create {
    const ROUTE: Route = Route::post("/api/v1/terminal/create")
        .named("createTerminal")
        .cli("terminal sessions create");
    type Service = Terminal;
    type Reply = Created;

    async fn run(self, terminal: Terminal, call: Call) -> Result<Created, Fault> {
        let target = self.ssh.read()?;
        let script = self.startup_script.filter(|script| !script.is_empty());
        if target.is_some() && script.is_some() {
            return Err(Fault::bad_request(
                "a startup script is read by a shell of this machine; with ssh_host, type to the session instead",
            )
            .field("/startup_script", "not with ssh_host"));
        }
        if self.desktop
            || self
                .desktop_env
                .as_ref()
                .is_some_and(|desktop| !desktop.is_empty())
        {
            return Err(Fault::new(
                http::StatusCode::NOT_IMPLEMENTED,
                "desktops are not available in the terminal service",
            )
            .code("DESKTOP_NOT_AVAILABLE"));
        }
        let named = self
            .terminal_id
            .as_ref()
            .map(Named::read)
            .transpose()?
            .flatten();
        let id = match named {
            Some(id) => id,
            None if self.ephemeral => terminal.next_ephemeral(),
            None => id::required(None, &call)?,
        };
        let wish = Wish {
            shell: self.shell,
            user: self.user,
            cwd: self.cwd,
            cwd_auto_create: self.cwd_auto_create,
            environment: crate::execute::environment(self.env.as_ref(), &call)?,
            display: self.display,
            size: (self.cols.is_some() || self.rows.is_some()).then(|| {
                Size::clamped(
                    self.rows.unwrap_or(Size::DEFAULT.rows.into()),
                    self.cols.unwrap_or(Size::DEFAULT.columns.into()),
                )
            }),
            ephemeral: self.ephemeral,
            ssh: target,
        };
        terminal.come_home(id);
        let (session, opened) = terminal.open(id, &wish)?;
        let takes_commands = session.takes_commands();
        if let (Opened::New, Some(script)) = (opened, script) {
            let script = script.replace('\'', "'\\''");
            terminal
                .execute(crate::execute::Request {
                    terminal: Some(id),
                    wish: Wish::default(),
                    reset: false,
                    id: None,
                    text: format!(". '{script}'"),
                    timeout: None,
                    output: Output::Terminal,
                    defer: None,
                })
                .await?;
        }
        let display_ready = match &session.display {
            Some(display) if self.wait_until_display => {
                let seconds = self.wait_timeout.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
                Some(display_answers(&terminal, display, Duration::from_secs(seconds)).await)
            }
            _ => None,
        };
        let shell_ready = takes_commands && terminal.settle(&session).await;
        Ok(Created {
            status: "ok",
            terminal_id: id.to_string(),
            created: opened == Opened::New,
            shell_ready,
            pid: session.pid.as_raw_nonzero().get(),
            is_ssh: session.target.is_some(),
            ssh_target: session.target.clone(),
            display: session.display.clone(),
            display_ready,
            shell: session.shell.to_string_lossy().into_owned(),
            user: session.user.clone(),
        })
    }
}

/// Longest wait for a display, in seconds.
const LONGEST_WAIT: u64 = 300;

/// Wait until an X server answers; whether one did in time.
async fn display_answers(terminal: &Terminal, display: &str, patience: Duration) -> bool {
    const LOOK: Duration = Duration::from_millis(100);
    let Some(sockets) = &terminal.config().displays else {
        return false;
    };
    let until = Instant::now() + patience;
    while !displays::is_up(sockets, display) {
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}

/// List the sessions.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {
    /// Commands of each session's history, newest last, at most 1000; 50 where not given.
    history_limit: Option<usize>,
    /// The same.
    history_lines: Option<usize>,
}

/// A session in the list.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Listed {
    terminal_id: String,
    shell: String,
    /// `starting`, `ready` (the shell waits for a line) or `busy`.
    status: &'static str,
    created_at: String,
    user: String,
    /// Process of the shell.
    pid: i32,
    /// Where the shell is; null where the kit may not see it.
    cwd: Option<String>,
    cols: u16,
    rows: u16,
    /// Those who look at it now.
    clients: usize,
    title: String,
    ephemeral: bool,
    /// The other machine that it is on: user@host:port.
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh_target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    display: Option<String>,
    /// Id of the command at work.
    running_command: Option<String>,
    /// Commands that wait for their turn.
    queued_commands: usize,
    command_history: Vec<Summary>,
}

fn list(session: &Session, limit: usize) -> Listed {
    let view = session.view();
    let pid = session.pid.as_raw_nonzero().get();
    Listed {
        terminal_id: session.id.to_string(),
        shell: session.shell.to_string_lossy().into_owned(),
        status: status(&view.phase),
        created_at: session.created.to_string(),
        user: session.user.clone(),
        pid,
        cwd: std::fs::read_link(format!("/proc/{pid}/cwd"))
            .ok()
            .map(|path| path.to_string_lossy().into_owned()),
        cols: view.size.columns,
        rows: view.size.rows,
        clients: view.clients,
        title: view.title,
        ephemeral: session.ephemeral,
        ssh_target: session.target.clone(),
        display: session.display.clone(),
        running_command: view.running,
        queued_commands: view.waiting,
        command_history: session.history.last(limit),
    }
}

/// What a phase is called.
pub fn status(phase: &Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Prompt => "ready",
        Phase::Busy => "busy",
        Phase::Ended(_) => "ended",
    }
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/terminal/sessions")
        .named("listTerminalSessions")
        .cli("terminal sessions list");
    type Service = Terminal;
    type Reply = Vec<Listed>;

    async fn run(self, terminal: Terminal, _: Call) -> Result<Vec<Listed>, Fault> {
        const DEFAULT: usize = 50;
        let limit = self
            .history_limit
            .or(self.history_lines)
            .unwrap_or(DEFAULT)
            .min(crate::session::MAX_HISTORY);
        Ok(terminal
            .sessions()
            .iter()
            .map(|session| list(session, limit))
            .collect())
    }
}

/// The commands that were run in a terminal, oldest first.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ListHistory {
    /// Terminal, 1 to 65535.
    terminal_id: Named,
}

/// Commands of a terminal.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TerminalHistory {
    terminal_id: String,
    history: Vec<Summary>,
    total: usize,
}

fn named(id: &Named) -> Result<crate::id::TerminalId, Fault> {
    id.read()?.ok_or_else(|| {
        Fault::bad_request("Invalid terminal_id (must be numeric 1-65535)")
            .code("INVALID_TERMINAL_ID")
    })
}

impl Operation for ListHistory {
    const ROUTE: Route = Route::get("/api/v1/terminal/history/{terminal_id}")
        .named("getTerminalHistory")
        .cli("terminal sessions history");
    type Service = Terminal;
    type Reply = TerminalHistory;

    async fn run(self, terminal: Terminal, _: Call) -> Result<TerminalHistory, Fault> {
        let session = terminal.existing(named(&self.terminal_id)?)?;
        Ok(TerminalHistory {
            terminal_id: session.id.to_string(),
            history: session.history.last(crate::session::MAX_HISTORY),
            total: session.history.len(),
        })
    }
}

/// End a session and everything that runs in it.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Delete {
    /// Terminal, 1 to 65535.
    terminal_id: Named,
}

/// A session that was ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Deleted {
    success: bool,
    terminal_id: String,
}

impl Operation for Delete {
    const ROUTE: Route = Route::delete("/api/v1/terminal/{terminal_id}")
        .named("deleteTerminalSession")
        .cli("terminal sessions delete");
    type Service = Terminal;
    type Reply = Deleted;

    async fn run(self, terminal: Terminal, _: Call) -> Result<Deleted, Fault> {
        let session = terminal.existing(named(&self.terminal_id)?)?;
        terminal.close(session.id, Close::Deleted).await;
        Ok(Deleted {
            success: true,
            terminal_id: session.id.to_string(),
        })
    }
}

/// How raw output is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The bytes, escape sequences and all, as a file.
    #[default]
    Download,
    /// What a person reads in them.
    Text,
    /// The same as a page.
    Html,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct RawOutput {
    /// Terminal, 1 to 65535; the one of the host's index where none is given.
    terminal_id: Option<Named>,
    #[serde(default)]
    format: Format,
    /// Only so many lines, from the end.
    tail: Option<usize>,
}

/// The output that a session remembers.
pub fn raw(terminal: &Terminal) -> Raw {
    let terminal = terminal.clone();
    Raw::new(
        Route::get("/api/v1/terminal/raw").named("getRawTerminalOutput").cli("terminal sessions raw-output"),
        "The output that a terminal remembers: its last mebibyte, as it was written, as text or as a page.",
    )
    .answers("application/octet-stream")
    .parameters::<RawOutput>()
    .handler(get(move |request: Request| {
        let terminal = terminal.clone();
        async move {
            match answer(terminal, request).await {
                Ok(response) => response,
                Err(fault) => kit::http::refuse(Wire::KIT, &fault),
            }
        }
    }))
}

async fn answer(terminal: Terminal, request: Request) -> Result<Response, Fault> {
    let (call, asked) = crate::socket::parameters::<RawOutput>(request.into_parts().0)?;
    let session = terminal.existing(id::required(asked.terminal_id.as_ref(), &call)?)?;
    let over = |_| {
        Fault::not_found(format!("the session of terminal {} is over", session.id))
            .code("SESSION_NOT_FOUND")
    };
    let bytes = session.scrollback().await.map_err(over)?;
    let bytes = match asked.tail {
        Some(lines) => last_lines(&bytes, lines),
        None => &bytes,
    };
    let no_store = (CACHE_CONTROL, "no-store".to_owned());
    Ok(match asked.format {
        Format::Download => {
            let name = format!("attachment; filename=\"terminal-{}.log\"", session.id);
            let headers = [
                (CONTENT_TYPE, "application/octet-stream".to_owned()),
                (CONTENT_DISPOSITION, name),
                no_store,
            ];
            (headers, bytes.to_vec()).into_response()
        }
        Format::Text => {
            let headers = [
                (CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
                no_store,
            ];
            (headers, scrollback::as_text(bytes)).into_response()
        }
        Format::Html => {
            // Output of a program must never become part of a page that runs.
            let headers = [
                (CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
                (CONTENT_SECURITY_POLICY, "default-src 'none'".to_owned()),
                no_store,
            ];
            let text = scrollback::as_text(bytes)
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;");
            let page = format!(
                "<!doctype html>\n<meta charset=utf-8>\n<title>Terminal {}</title>\n<pre>{text}</pre>\n",
                session.id
            );
            (headers, page).into_response()
        }
    })
}

/// The last `lines` lines.
fn last_lines(bytes: &[u8], lines: usize) -> &[u8] {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let ends = body
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n');
    match (
        lines,
        ends.map(|(at, _)| at + 1).nth(lines.saturating_sub(1)),
    ) {
        (0, _) => &[],
        (_, Some(start)) => &bytes[start..],
        (_, None) => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        let check = |text: &str, lines: usize, want: &str| {
            assert_eq!(
                std::str::from_utf8(last_lines(text.as_bytes(), lines)).unwrap(),
                want,
                "{text:?} {lines}"
            );
        };
        check("a\nb\nc\n", 2, "b\nc\n");
        check("a\nb\nc", 2, "b\nc");
        check("a\nb\n", 9, "a\nb\n");
        check("a\nb\n", 0, "");
        check("", 3, "");
    }
}
