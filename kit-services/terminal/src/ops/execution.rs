//! Running commands.

use std::collections::BTreeMap;
use std::time::Duration;

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::Terminal;
use crate::command::{CommandResult, Status};
use crate::execute::{self, Defer, Request, Wish};
use crate::id::{self, Named};
use crate::session::Output;
use crate::ssh;

/// Run a shell command, in a terminal or on its own.
///
/// In a terminal it runs in the terminal's shell, after the commands that were asked for before:
/// the working directory, variables and functions it leaves are there for the next one, and those
/// who look at the terminal see it. With `ephemeral=true` it runs in a shell of its own.
///
/// With `wait` (the default) the reply comes when the command has ended, and its standard output
/// and error are exact. Without, the reply comes at once, the command's output goes to the
/// terminal so that full-screen programs work, and the result can be asked for by `command_id`.
///
/// In a session on another machine it runs there, over the session's connection, in a shell of its
/// own: what it changes is not there for the next one, and it is not seen in the terminal.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Execute {
    /// Terminal to run in, 1 to 65535; made when missing. 0 means none.
    terminal_id: Option<Named>,
    /// Run in a shell of its own, which ends with the command.
    #[serde(default)]
    ephemeral: bool,
    /// Begin when the process of this id has ended; the reply then comes at once.
    defer_pid: Option<i32>,
    /// When that process started, in ticks since boot; another start is another process.
    defer_start_time_ticks: Option<String>,
    /// How long to wait for that process, in milliseconds; 60000 where not given.
    defer_timeout_ms: Option<u64>,
    /// How often to look for it, in milliseconds, at least 10; 50 where not given.
    defer_poll_ms: Option<u64>,
    /// End the session that is there and begin a new one.
    #[serde(default)]
    reset: bool,
    /// Directory to run in. A new session stays there; otherwise it is for this command.
    cwd: Option<String>,
    /// Make that directory where it is missing.
    #[serde(default)]
    cwd_auto_create: bool,
    /// Shell of a new session: bash, zsh, fish, sh or a path; the user's own where not given.
    shell: Option<String>,
    /// User of a new session.
    user: Option<String>,
    /// The command in base64, in place of `command`.
    cmd: Option<String>,
    /// Variables: an object in the body, or NAME=value in the query, as often as wanted. A new
    /// session keeps them; otherwise they are for this command.
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    env: Option<Value>,
    /// Do not wait for the display; there is nothing that waits for it.
    #[serde(default, rename = "skip_display_wait")]
    _skip_display_wait: bool,
    /// How long to wait for the display, in seconds.
    #[serde(rename = "display_wait_timeout")]
    _display_wait_timeout: Option<u32>,
    /// X display of a new session: 1 or :1.
    display: Option<String>,
    #[serde(flatten)]
    ssh: ssh::Asked,
    /// The command line.
    #[serde(default)]
    command: String,
    /// Id for the command; one is made where not given.
    id: Option<Named>,
    /// Seconds after which the command is ended; 0 is never.
    timeout: Option<i64>,
    /// Reply when the command has ended.
    wait: Option<bool>,
    /// Run on the terminal itself, with both streams: as if typed. Where not given, commands that
    /// are waited for write into pipes, and others to the terminal.
    tty: Option<bool>,
}

impl Operation for Execute {
    const ROUTE: Route = Route::post("/api/v1/terminal/execute")
        .named("executeCommand")
        .cli("terminal sessions exec")
        .query(&[
            "terminal_id",
            "ephemeral",
            "defer_pid",
            "defer_start_time_ticks",
            "defer_timeout_ms",
            "defer_poll_ms",
            "reset",
            "cwd_auto_create",
            "shell",
            "user",
            "cmd",
            "skip_display_wait",
            "display_wait_timeout",
            "display",
            "ssh_host",
            "ssh_user",
            "ssh_port",
            "ssh_password",
            "ssh_key",
            "socks5_host",
            "socks5_port",
            "socks5_user",
            "socks5_pass",
        ]);
    type Service = Terminal;
    type Reply = CommandResult;

    async fn run(self, terminal: Terminal, call: Call) -> Result<CommandResult, Fault> {
        let defer = self.defer()?;
        let wait = self.wait.unwrap_or(true) && defer.is_none();
        let output = match (self.tty, wait) {
            (Some(true), _) => Output::Terminal,
            (Some(false), _) | (None, true) => Output::Captured,
            (None, false) => Output::Split,
        };
        let text = match self.cmd.as_deref().filter(|_| self.command.is_empty()) {
            Some(encoded) => execute::decode(encoded)?,
            None => self.command,
        };
        // The index of the host names a terminal only for those who want one.
        let named = if self.ephemeral {
            self.terminal_id
                .as_ref()
                .map(Named::read)
                .transpose()?
                .flatten()
        } else {
            id::wanted(self.terminal_id.as_ref(), &call)?
        };
        let request = Request {
            terminal: named,
            wish: Wish {
                shell: self.shell,
                user: self.user,
                cwd: self.cwd.filter(|cwd| !cwd.is_empty()),
                cwd_auto_create: self.cwd_auto_create,
                environment: execute::environment(self.env.as_ref(), &call)?,
                display: self.display,
                size: None,
                ephemeral: self.ephemeral,
                ssh: self.ssh.read()?,
            },
            reset: self.reset,
            id: self.id.map(|id| match id {
                Named::Number(number) => number.to_string(),
                Named::Text(text) => text,
            }),
            text,
            timeout: execute::timeout(self.timeout)?,
            output,
            defer,
        };
        let command = terminal.execute(request).await?;
        if wait {
            command.finished().await;
        }
        Ok(command.result())
    }
}

impl Execute {
    fn defer(&self) -> Result<Option<Defer>, Fault> {
        const LONGEST: u64 = 24 * 60 * 60 * 1000;
        let Some(pid) = self.defer_pid else {
            return Ok(None);
        };
        if pid <= 0 {
            return Err(Fault::bad_request("defer_pid must be a process id")
                .field("/defer_pid", "not above 0"));
        }
        let started = self
            .defer_start_time_ticks
            .as_deref()
            .filter(|ticks| !ticks.is_empty());
        let started = started.map(str::parse).transpose().map_err(|_| {
            Fault::bad_request("defer_start_time_ticks must be a number")
                .field("/defer_start_time_ticks", "no number")
        })?;
        Ok(Some(Defer {
            pid,
            started,
            timeout: Duration::from_millis(self.defer_timeout_ms.unwrap_or(60_000).min(LONGEST)),
            poll: Duration::from_millis(self.defer_poll_ms.unwrap_or(50).clamp(10, 60_000)),
        }))
    }
}

fn unknown(id: &str) -> Fault {
    let id: String = id
        .chars()
        .take(64)
        .filter(|character| !character.is_control())
        .collect();
    Fault::not_found(format!(
        "no command `{id}`: it was never asked for, its result was forgotten, or the kit was restarted since"
    ))
    .code("COMMAND_NOT_FOUND")
}

/// How far a command is, and what it wrote so far.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct GetResult {
    /// Id of the command.
    command_id: String,
}

impl Operation for GetResult {
    const ROUTE: Route = Route::get("/api/v1/terminal/result/{command_id}")
        .named("getCommandResult")
        .cli("terminal sessions command-result");
    type Service = Terminal;
    type Reply = CommandResult;

    async fn run(self, terminal: Terminal, _: Call) -> Result<CommandResult, Fault> {
        let command = terminal
            .commands()
            .get(&self.command_id)
            .ok_or_else(|| unknown(&self.command_id))?;
        Ok(command.result())
    }
}

/// End a command.
///
/// It is interrupted, as Ctrl-C does, or killed. The reply comes when it has ended, or after a
/// second with how far it is.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Abort {
    /// Id of the command.
    command_id: String,
    /// Kill it instead.
    #[serde(default)]
    force: bool,
}

impl Operation for Abort {
    const ROUTE: Route = Route::post("/api/v1/terminal/execute/{command_id}/abort")
        .named("postTerminalExecuteAbort")
        .cli("terminal sessions abort");
    type Service = Terminal;
    type Reply = CommandResult;

    async fn run(self, terminal: Terminal, _: Call) -> Result<CommandResult, Fault> {
        const PATIENCE: Duration = Duration::from_secs(1);
        let command = terminal
            .commands()
            .get(&self.command_id)
            .ok_or_else(|| unknown(&self.command_id))?;
        if command.is_finished() {
            let mut body = serde_json::to_value(command.result()).expect("a result is plain JSON");
            let message = format!("command {} has ended already", command.id);
            body["error"] = "Conflict".into();
            body["message"] = message.clone().into();
            return Err(Fault::conflict(message).with_body(body));
        }
        if command.status() == Status::Pending {
            command.note_abort();
            command.fail("it was aborted before it began");
        } else if !terminal.one_shots().abort(&command.id, self.force)
            && let Some(session) = terminal.session(command.terminal)
        {
            // A session that is over has ended its commands.
            let _ = session.abort(command.id.clone(), self.force).await;
        }
        // Either way the caller learns how far it is.
        let _ = tokio::time::timeout(PATIENCE, command.finished()).await;
        Ok(command.result())
    }
}
