//! From what a caller asks for to where it runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use kit::{Call, Fault};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::Terminal;
use crate::command::{AddCommand, Command};
use crate::id::{self, TerminalId};
use crate::launch;
use crate::oneshot::OneShot;
use crate::pty::Size;
use crate::session::{Close, Job, Output, Session, Spec};
use crate::ssh::{self, Target};
use crate::system::processes::Stat;
use crate::workdir::Workdir;
use accounts::{Account, is_variable};

/// Longest command.
const MAX_COMMAND: usize = 4 << 20;
/// Variables of one request, and the bytes of all their names and values.
const MAX_VARIABLES: usize = 512;
const MAX_VARIABLE_BYTES: usize = 256 << 10;
/// Longest timeout: a year.
const MAX_TIMEOUT: u64 = 366 * 24 * 60 * 60;
/// How long the shell of a new session may take before a caller is told that it is not ready.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// How a session should be, as callers say it.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub shell: Option<String>,
    pub user: Option<String>,
    pub cwd: Option<String>,
    pub cwd_auto_create: bool,
    pub environment: BTreeMap<String, String>,
    pub display: Option<String>,
    pub size: Option<Size>,
    pub ephemeral: bool,
    /// On this machine instead.
    pub ssh: Option<Target>,
}

/// A wish that can be had.
#[derive(Debug)]
pub struct Granted {
    pub account: Account,
    pub shell: PathBuf,
    pub directory: PathBuf,
    pub environment: BTreeMap<String, String>,
    pub display: Option<String>,
}

/// Set a command going after another process has ended.
#[derive(Clone, Copy, Debug)]
pub struct Defer {
    pub pid: i32,
    pub started: Option<u64>,
    pub timeout: Duration,
    pub poll: Duration,
}

/// A command as asked for.
#[derive(Debug)]
pub struct Request {
    pub terminal: Option<TerminalId>,
    pub wish: Wish,
    pub reset: bool,
    pub id: Option<String>,
    pub text: String,
    pub timeout: Option<Duration>,
    pub output: Output,
    pub defer: Option<Defer>,
}

impl Terminal {
    /// Check a wish against the machine.
    pub fn grant(&self, wish: &Wish) -> Result<Granted, Fault> {
        let account = self.account(wish.user.as_deref())?;
        let mut environment = self.config().environment.clone();
        environment.extend(wish.environment.clone());
        let display = wish
            .display
            .as_deref()
            .filter(|display| !display.is_empty())
            .map(display)
            .transpose()?;
        match &display {
            Some(display) if !wish.ephemeral => {
                environment.insert("DISPLAY".to_owned(), display.clone());
            }
            _ => {}
        }
        // The shell and the directory of a session on another machine are that machine's.
        let (shell, cwd) = match &wish.ssh {
            Some(_) => (ssh::program(&account, &environment)?, None),
            None => (
                self.shell(wish.shell.as_deref(), &account, &environment)?,
                wish.cwd.as_deref(),
            ),
        };
        let directory = directory(cwd, &account, wish.cwd_auto_create)?;
        Ok(Granted {
            account,
            shell,
            directory,
            environment,
            display,
        })
    }

    fn shell(
        &self,
        wanted: Option<&str>,
        account: &Account,
        environment: &BTreeMap<String, String>,
    ) -> Result<PathBuf, Fault> {
        let path = account.search_path(environment);
        if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) {
            let name = if wanted.contains('/') {
                wanted.to_owned()
            } else {
                wanted.to_lowercase()
            };
            return launch::find(&name, &path).ok_or_else(|| {
                let wanted: String = wanted
                    .chars()
                    .take(64)
                    .filter(|c| !c.is_control())
                    .collect();
                Fault::bad_request(format!(
                    "no shell `{wanted}` in this machine; install it, or name one of /etc/shells"
                ))
                .code("UNKNOWN_SHELL")
            });
        }
        let login = self
            .config()
            .default_shell
            .clone()
            .unwrap_or_else(|| account.shell.clone());
        let is_usable = |shell: &Path| {
            let name = shell
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            !matches!(name, "nologin" | "false" | "sync")
        };
        [login.to_string_lossy().as_ref(), "/bin/bash", "/bin/sh"]
            .into_iter()
            .filter(|shell| is_usable(Path::new(shell)))
            .find_map(|shell| launch::find(shell, &path))
            .ok_or_else(|| {
                Fault::unavailable(
                    "this machine has no shell: neither /bin/bash nor /bin/sh is there",
                )
            })
    }

    /// The session of this terminal, started as wished where there is none.
    pub fn open(&self, id: TerminalId, wish: &Wish) -> Result<(Arc<Session>, Opened), Fault> {
        if let Some(session) = self.session(id) {
            return Ok((session, Opened::Found));
        }
        match wish.ssh {
            Some(_) => self.come_home(id),
            None => self.not_lost(id)?,
        }
        let granted = self.grant(wish)?;
        self.start(Spec {
            id,
            account: granted.account,
            shell: granted.shell,
            directory: granted.directory,
            environment: granted.environment,
            size: wish.size.unwrap_or(Size::DEFAULT),
            ephemeral: wish.ephemeral,
            display: granted.display.filter(|_| !wish.ephemeral),
            idle: if wish.ephemeral {
                self.config().ephemeral_idle
            } else {
                self.config().idle
            },
            state: self.config().state.clone(),
            ssh: wish.ssh.clone(),
            connector: self.config().connector.clone(),
        })
    }

    /// Do what was asked for; the command is known by its id from now on.
    pub async fn execute(&self, request: Request) -> Result<Arc<Command>, Fault> {
        let text = check_text(&request.text)?;
        let id = match &request.id {
            Some(id) => custom_id(id)?,
            None => id::fresh(),
        };
        let deadline = request.timeout.map(|timeout| Instant::now() + timeout);
        if request.wish.ephemeral {
            let granted = self.grant(&request.wish)?;
            let terminal = request.terminal.unwrap_or_else(|| self.next_ephemeral());
            let command = Command::new(id, terminal, text, true, &self.commands().budget);
            self.commands().add(&command)?;
            let mut environment = granted.account.environment(&granted.environment);
            environment.insert(
                "SHELL".to_owned(),
                granted.shell.to_string_lossy().into_owned(),
            );
            environment.insert("HOODY_TERMINAL_ID".to_owned(), terminal.to_string());
            let mut shot = OneShot {
                command: command.clone(),
                account: granted.account,
                arguments: vec!["-c".into(), command.text.clone().into()],
                program: granted.shell,
                directory: granted.directory,
                environment,
                deadline,
                files: None,
            };
            if let Some(target) = &request.wish.ssh
                && let Err(error) = self.send_away(&mut shot, target, &request.wish)
            {
                let message = format!("could not prepare ssh: {error}");
                command.fail(message.clone());
                return Err(Fault::internal(message));
            }
            let shots = self.one_shots();
            match request.defer {
                None => shots.run(shot),
                Some(defer) => after(defer, command.clone(), async move { shots.run(shot) }),
            }
            return Ok(command);
        }
        let terminal = request.terminal.ok_or_else(|| {
            Fault::bad_request("terminal_id parameter required, unless ephemeral=true")
                .code("INVALID_TERMINAL_ID")
        })?;
        if request.reset {
            self.close(terminal, Close::Reset).await;
            self.come_home(terminal);
        }
        let command = Command::new(id, terminal, text, false, &self.commands().budget);
        let (session, opened) = self.open_for_commands(terminal, &request.wish)?;
        if let Some(reach) = session.reach.clone() {
            self.commands().add(&command)?;
            let shot = self.over_there(&session, &reach, &command, &request, deadline)?;
            let shots = self.one_shots();
            match request.defer {
                None => shots.run(shot),
                Some(defer) => after(defer, command.clone(), async move { shots.run(shot) }),
            }
            return Ok(command);
        }
        let job = self.job(&command, &request, &session, opened, deadline)?;
        self.commands().add(&command)?;
        match request.defer {
            None => self.hand_over(session, job, request).await?,
            Some(defer) => {
                let service = self.clone();
                after(defer, command.clone(), async move {
                    if let Err(fault) = service.hand_over(session, job, request).await {
                        tracing::debug!(%fault, "a command that waited for a process could not be run");
                    }
                });
            }
        }
        Ok(command)
    }

    /// Have a command that needs no session run on another machine.
    fn send_away(&self, shot: &mut OneShot, target: &Target, wish: &Wish) -> std::io::Result<()> {
        let workdir = Workdir::create(&self.config().state, &shot.account)?;
        let connector = self.config().connector.as_deref();
        let reach = target.prepare(&shot.program, connector, &workdir)?;
        shot.arguments = reach.command(&shot.command.text, &wish.environment, wish.cwd.as_deref());
        shot.environment.extend(reach.environment);
        shot.files = Some(workdir);
        Ok(())
    }

    /// A command for a session on another machine: it goes over the session's connection, and runs
    /// in a shell of its own there.
    fn over_there(
        &self,
        session: &Arc<Session>,
        reach: &ssh::Reach,
        command: &Arc<Command>,
        request: &Request,
        deadline: Option<Instant>,
    ) -> Result<OneShot, Fault> {
        let account = self.account(Some(&session.user))?;
        let mut environment = account.environment(&self.config().environment);
        environment.extend(reach.environment.clone());
        session.history.note(command);
        let (history, noted) = (session.history.clone(), command.clone());
        tokio::spawn(async move {
            noted.finished().await;
            history.note(&noted);
        });
        Ok(OneShot {
            command: command.clone(),
            directory: directory(None, &account, false)?,
            account,
            program: reach.program.clone(),
            arguments: reach.command(
                &command.text,
                &request.wish.environment,
                request.wish.cwd.as_deref(),
            ),
            environment,
            deadline,
            files: None,
        })
    }

    fn open_for_commands(
        &self,
        terminal: TerminalId,
        wish: &Wish,
    ) -> Result<(Arc<Session>, Opened), Fault> {
        let (session, opened) = self.open(terminal, wish)?;
        if session.takes_commands() {
            return Ok((session, opened));
        }
        Err(Fault::conflict(format!(
            "terminal {terminal} runs {}, which takes no commands; type to it with write, press or paste",
            session.shell_name()
        ))
        .code("NOT_A_SHELL"))
    }

    /// What a session is to do. A new session begins as wished and stays so; in one that was
    /// there, only this command is as wished.
    fn job(
        &self,
        command: &Arc<Command>,
        request: &Request,
        session: &Session,
        opened: Opened,
        deadline: Option<Instant>,
    ) -> Result<Box<Job>, Fault> {
        let (directory, environment) = match opened {
            Opened::New => (None, BTreeMap::new()),
            Opened::Found => (
                request
                    .wish
                    .cwd
                    .as_deref()
                    .map(|cwd| self.visit(cwd, session, &request.wish))
                    .transpose()?,
                request.wish.environment.clone(),
            ),
        };
        Ok(Box::new(Job {
            command: command.clone(),
            output: request.output,
            directory,
            environment,
            deadline,
        }))
    }

    /// Give a job to its session, or to the next one where that is just ending.
    async fn hand_over(
        &self,
        mut session: Arc<Session>,
        mut job: Box<Job>,
        request: Request,
    ) -> Result<(), Fault> {
        const TRIES: usize = 3;
        for _ in 0..TRIES {
            match session.run(job).await {
                Ok(()) => return Ok(()),
                Err(refused) => job = refused,
            }
            session.over().await;
            let opened;
            (session, opened) = self
                .open_for_commands(session.id, &request.wish)
                .inspect_err(|fault| {
                    job.command.fail(fault.message.clone());
                })?;
            job = self.job(&job.command, &request, &session, opened, job.deadline)?;
        }
        job.command
            .fail("its terminal kept ending before the command began");
        Ok(())
    }

    /// A directory for one command of a session.
    fn visit(&self, cwd: &str, session: &Session, wish: &Wish) -> Result<String, Fault> {
        let account = self.account(Some(&session.user))?;
        let path = if cwd.starts_with(['/', '~']) {
            directory(Some(cwd), &account, wish.cwd_auto_create)?
        } else {
            let now = std::fs::read_link(format!("/proc/{}/cwd", session.pid.as_raw_nonzero()))
                .unwrap_or_else(|_| account.home.clone());
            existing(
                check_path(cwd, &now.join(cwd))?,
                &account,
                wish.cwd_auto_create,
            )?
        };
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| Fault::bad_request("cwd is not UTF-8"))
    }

    /// Wait until the shell of a session is there, so far as a caller should wait for that.
    pub async fn settle(&self, session: &Session) -> bool {
        const LOOK: Duration = Duration::from_millis(50);
        let Some(reach) = &session.reach else {
            return session.ready(READY_WITHIN).await;
        };
        let connected = async {
            while !reach.is_connected() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = connected => true,
            () = session.over() => false,
            () = tokio::time::sleep(READY_WITHIN) => false,
        }
    }
}

/// Whether a session was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    Found,
    New,
}

impl From<AddCommand> for Fault {
    fn from(error: AddCommand) -> Fault {
        match error {
            AddCommand::InUse { .. } => {
                Fault::conflict(error.to_string()).code("COMMAND_ID_IN_USE")
            }
            AddCommand::TooMany { .. } => Fault::unavailable(error.to_string())
                .code("TOO_MANY_COMMANDS")
                .retry_after(Duration::from_secs(1)),
        }
    }
}

/// Run `then` when the process named by `defer` has ended.
fn after(defer: Defer, command: Arc<Command>, then: impl Future<Output = ()> + Send + 'static) {
    command.hold();
    tokio::spawn(async move {
        let until = Instant::now() + defer.timeout;
        let is_there = || {
            Stat::of(defer.pid).is_some_and(|stat| {
                !stat.is_zombie() && defer.started.is_none_or(|started| started == stat.started)
            })
        };
        while is_there() {
            if Instant::now() >= until {
                command.note_timeout();
                return command.fail(format!("process {} did not end in time", defer.pid));
            }
            tokio::select! {
                () = tokio::time::sleep(defer.poll) => {}
                () = command.finished() => return,
            }
        }
        if !command.is_finished() {
            command.release();
            then.await;
        }
    });
}

fn check_text(text: &str) -> Result<String, Fault> {
    if text.trim().is_empty() {
        return Err(Fault::bad_request("Missing 'command' field")
            .code("MISSING_COMMAND")
            .field("/command", "required"));
    }
    if text.len() > MAX_COMMAND {
        return Err(Fault::too_large(format!(
            "the command is longer than {MAX_COMMAND} bytes"
        )));
    }
    if text.contains('\0') {
        return Err(Fault::bad_request("a command cannot contain a zero byte")
            .field("/command", "zero byte"));
    }
    Ok(text.to_owned())
}

fn custom_id(id: &str) -> Result<String, Fault> {
    const LONGEST: usize = 64;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if id.is_empty() || id.len() > LONGEST || !id.bytes().all(is_plain) {
        return Err(Fault::bad_request(format!(
            "id must be 1 to {LONGEST} letters, digits, hyphens or underscores"
        ))
        .field("/id", "invalid"));
    }
    Ok(id.to_owned())
}

/// A `timeout` in seconds; 0 is none.
pub fn timeout(seconds: Option<i64>) -> Result<Option<Duration>, Fault> {
    match seconds.unwrap_or(0) {
        0 => Ok(None),
        seconds => u64::try_from(seconds)
            .ok()
            .filter(|seconds| *seconds <= MAX_TIMEOUT)
            .map(|seconds| Some(Duration::from_secs(seconds)))
            .ok_or_else(|| {
                Fault::bad_request(format!("timeout must be 0 to {MAX_TIMEOUT} seconds"))
                    .field("/timeout", "out of range")
            }),
    }
}

/// Decode a command in base64, of either alphabet, with or without padding.
pub fn decode(text: &str) -> Result<String, Fault> {
    let wrong = |why: String| {
        Fault::bad_request(format!("cmd is not base64 of UTF-8 text: {why}"))
            .code("INVALID_BASE64")
            .field("/cmd", why)
    };
    let bytes = decode_bytes(text).map_err(|error| wrong(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))
}

/// Decode base64 of either alphabet, with or without padding.
pub fn decode_bytes(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const ENGINE: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    // A plus sign arrives as a space when the caller did not encode it.
    let standard: String = text
        .trim_matches(['\r', '\n', '\t'])
        .chars()
        .map(|character| match character {
            ' ' | '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    ENGINE.decode(standard)
}

/// The variables of a request: an object in the body, or `env=NAME=value` as often as wanted.
pub fn environment(body: Option<&Value>, call: &Call) -> Result<BTreeMap<String, String>, Fault> {
    let empty = Map::new();
    let object = match body {
        Some(Value::Object(object)) => object,
        _ => &empty,
    };
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (name, value) in object {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Null => continue,
            _ => {
                return Err(Fault::bad_request(format!(
                    "variable {name} is neither text nor number"
                ))
                .field("/env", "invalid"));
            }
        };
        pairs.push((name.clone(), value));
    }
    let query = call.uri.query().unwrap_or_default();
    for text in query
        .split('&')
        .filter_map(|part| part.strip_prefix("env="))
        .filter(|text| !text.is_empty())
    {
        let (_, text) = kit::arguments::query_pairs(&format!("env={text}"))
            .pop()
            .expect("one pair was given");
        let (name, value) = text.split_once('=').ok_or_else(|| {
            Fault::bad_request("env must be NAME=value").field("/env", "no equals sign")
        })?;
        pairs.push((name.to_owned(), value.to_owned()));
    }
    check_variables(&pairs)?;
    Ok(pairs.into_iter().collect())
}

fn check_variables(pairs: &[(String, String)]) -> Result<(), Fault> {
    let wrong = |message: String| Err(Fault::bad_request(message).field("/env", "invalid"));
    if pairs.len() > MAX_VARIABLES {
        return wrong(format!("more than {MAX_VARIABLES} variables"));
    }
    if pairs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum::<usize>()
        > MAX_VARIABLE_BYTES
    {
        return wrong(format!(
            "the variables have more than {MAX_VARIABLE_BYTES} bytes"
        ));
    }
    for (name, value) in pairs {
        if !is_variable(name) {
            let name: String = name.chars().take(64).filter(|c| !c.is_control()).collect();
            return wrong(format!("`{name}` cannot name a variable"));
        }
        if value.contains('\0') {
            return wrong(format!("the value of {name} contains a zero byte"));
        }
    }
    Ok(())
}

/// An X display as programs want it: `:1` for `1`.
fn display(text: &str) -> Result<String, Fault> {
    let number = text.strip_prefix(':').unwrap_or(text);
    if number.is_empty()
        || number.len() > 16
        || !number
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return Err(
            Fault::bad_request("display must be a number such as 1 or :1")
                .field("/display", "invalid"),
        );
    }
    Ok(format!(":{number}"))
}

/// The directory that a caller means: absolute, or beneath the home of the account.
fn directory(cwd: Option<&str>, account: &Account, create: bool) -> Result<PathBuf, Fault> {
    let Some(cwd) = cwd.filter(|cwd| !cwd.is_empty()) else {
        let home = &account.home;
        return Ok(if home.is_dir() {
            home.clone()
        } else {
            PathBuf::from("/")
        });
    };
    let path = match cwd.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            account.home.join(rest.trim_start_matches('/'))
        }
        _ => account.home.join(cwd),
    };
    existing(check_path(cwd, &path)?, account, create)
}

fn check_path(cwd: &str, path: &Path) -> Result<PathBuf, Fault> {
    const LONGEST: usize = 4095; // PATH_MAX
    if cwd.contains('\0') || path.as_os_str().len() > LONGEST {
        return Err(Fault::bad_request("cwd is no path")
            .code("INVALID_CWD")
            .field("/cwd", "no path"));
    }
    Ok(path.to_owned())
}

fn existing(path: PathBuf, account: &Account, create: bool) -> Result<PathBuf, Fault> {
    let shown = path.display();
    match std::fs::metadata(&path) {
        Ok(meta) if meta.is_dir() => Ok(path),
        Ok(_) => {
            Err(Fault::bad_request(format!("cwd {shown} is not a directory")).code("INVALID_CWD"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && create => {
            make(&path, account).map_err(|error| {
                Fault::bad_request(format!("could not make cwd {shown}: {error}"))
                    .code("INVALID_CWD")
            })?;
            Ok(path)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Fault::bad_request(
            format!("cwd {shown} is not there; pass cwd_auto_create=true to have it made"),
        )
        .code("CWD_NOT_FOUND")),
        Err(error) => Err(
            Fault::bad_request(format!("cwd {shown} cannot be used: {error}")).code("INVALID_CWD"),
        ),
    }
}

/// Make a directory and those above it, as the account's own.
fn make(path: &Path, account: &Account) -> std::io::Result<()> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|ancestor| !ancestor.exists())
        .collect();
    for directory in missing.into_iter().rev() {
        match std::fs::create_dir(directory) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) => {}
            Ok(()) if account.is_other() => {
                std::os::unix::fs::lchown(directory, Some(account.uid), Some(account.gid))?;
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_in_all_its_spellings() {
        for text in [
            "bHM/IC1sYT4+",
            "bHM_IC1sYT4-",
            "bHM/IC1sYT4 ",
            "bHM/IC1sYT4+\n",
        ] {
            assert_eq!(decode(text).unwrap(), "ls? -la>>", "{text}");
        }
        assert_eq!(decode("bHM=").unwrap(), "ls");
        assert_eq!(decode("bHM").unwrap(), "ls");
        for wrong in ["b", "!!!!", "/////w==", "bHM\0"] {
            assert!(decode(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn displays_are_numbers() {
        assert_eq!(display("1").unwrap(), ":1");
        assert_eq!(display(":10.0").unwrap(), ":10.0");
        for wrong in ["host:1", "", ":", "1;rm", "99999999999999999999"] {
            assert!(display(wrong).is_err(), "{wrong}");
        }
    }
}
