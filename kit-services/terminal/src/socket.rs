//! The `tty` WebSocket: a session in a browser.
//!
//! The first byte of a frame says what it is. From the client: `0` input, `1` with JSON
//! `{columns, rows}` the client's size, `2` and `3` pause and resume; a frame that is a JSON object
//! itself is the greeting `{columns, rows}`, or a resize where it says `"command": "1"`. From the
//! server, always in binary frames: `0` output, `1` title, `3` the terminal's number, `4` the
//! shell's name.
//!
//! A client that pauses or does not read holds up the program once 256 KiB are on their way to it.
//! One that takes nothing for a minute, or does not answer for a minute and a half, is let go; it
//! may come back and is shown what it missed.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Request};
use axum::response::Response;
use axum::routing::get;
use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::request::Parts;
use kit::{Call, Fault, Raw, Route, Wire};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::Terminal;
use crate::execute::{self, Wish};
use crate::id::{self, Named, TerminalId};
use crate::pty::Size;
use crate::session::{End, Output, Over, Phase, Remote, Session, View};
use crate::ssh;

/// The WebSocket subprotocol.
pub const PROTOCOL: &str = "tty";
/// Largest frame of a client.
const MAX_FRAME: usize = 1 << 20;
/// Largest frame to a client.
const MAX_SENT: usize = 64 << 10;
/// How long a client may take to say its size; one that says nothing gets the usual size.
const GREETING: Duration = Duration::from_secs(1);
const PING: Duration = Duration::from_secs(30);
/// A client that is not heard of for this long is gone.
const SILENCE: Duration = Duration::from_secs(90);
/// A client that takes no frame for this long is let go, so that the program goes on.
const STALLED: Duration = Duration::from_secs(60);

/// Close codes. Clients come back after those below 4000 only.
mod close {
    /// The shell ended.
    pub const EXITED: u16 = 4000;
    /// Somebody ended the session.
    pub const CLOSED: u16 = 4001;
    /// The session could not be started.
    pub const FAILED: u16 = 4002;
    /// RFC 6455, 7.4.1, and the registry it opens.
    pub const TRY_AGAIN: u16 = 1013;
}

/// Connect to a terminal.
#[derive(Debug, Deserialize, JsonSchema)]
struct Connect {
    /// Terminal, 1 to 65535; made when missing. The one of the host's index where none is given.
    terminal_id: Option<Named>,
    /// Look without typing.
    #[serde(default)]
    readonly: bool,
    /// Working directory of a new session.
    cwd: Option<String>,
    /// Make that directory where it is missing.
    #[serde(default)]
    cwd_auto_create: bool,
    /// Shell of a new session.
    shell: Option<String>,
    /// User of a new session.
    user: Option<String>,
    /// Command to run once connected, in base64.
    cmd: Option<String>,
    /// Variable of a new session, as NAME=value; may be repeated.
    #[serde(rename = "env")]
    _env: Option<String>,
    /// X display of a new session.
    display: Option<String>,
    /// End the session that is there and begin a new one.
    #[serde(default)]
    reset: bool,
    /// Process to attach to; not available.
    pid: Option<i64>,
    #[serde(flatten)]
    ssh: ssh::Asked,
}

pub fn raw(terminal: &Terminal) -> Raw {
    let terminal = terminal.clone();
    Raw::new(
        Route::get("/api/v1/terminal/ws")
            .named("connectTerminalWebSocket")
            .cli("terminal sessions connect"),
        "Look at a terminal and type, over a WebSocket. Any number of clients may share one.",
    )
    .websocket(PROTOCOL)
    .parameters::<Connect>()
    .handler(get(move |request: Request| {
        let terminal = terminal.clone();
        async move {
            match upgrade(terminal, request).await {
                Ok(response) => response,
                Err(fault) => kit::http::refuse(Wire::KIT, &fault),
            }
        }
    }))
}

/// The call behind a raw route, and its parameters.
pub fn parameters<T: DeserializeOwned + JsonSchema>(parts: Parts) -> Result<(Call, T), Fault> {
    let schema = schemars::schema_for!(T).to_value();
    let pairs = kit::arguments::query_pairs(parts.uri.query().unwrap_or_default());
    let merged = kit::arguments::merge(&schema, None, pairs, [])?;
    let asked = serde_json::from_value(merged.into()).map_err(|error| {
        Fault::bad_request(format!("invalid parameters: {error}")).code("VALIDATION_ERROR")
    })?;
    Ok((Call::from(parts), asked))
}

/// What a client wants to be connected to.
struct Wanted {
    id: TerminalId,
    wish: Wish,
    readonly: bool,
    reset: bool,
    command: Option<String>,
}

async fn upgrade(terminal: Terminal, request: Request) -> Result<Response, Fault> {
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|rejection| {
            Fault::new(
                http::StatusCode::UPGRADE_REQUIRED,
                format!("connect with a WebSocket: {rejection}"),
            )
        })?;
    let (call, asked) = parameters::<Connect>(parts)?;
    if asked.pid.is_some() {
        return Err(Fault::new(
            http::StatusCode::NOT_IMPLEMENTED,
            "attaching to a process by its id is not available; connect to its terminal",
        ));
    }
    let wanted = Wanted {
        id: id::required(asked.terminal_id.as_ref(), &call)?,
        wish: Wish {
            shell: asked.shell,
            user: asked.user,
            cwd: asked.cwd,
            cwd_auto_create: asked.cwd_auto_create,
            environment: execute::environment(None, &call)?,
            display: asked.display,
            size: None,
            ephemeral: false,
            ssh: asked.ssh.read()?,
        },
        readonly: asked.readonly,
        reset: asked.reset,
        command: asked
            .cmd
            .filter(|cmd| !cmd.is_empty())
            .map(|cmd| execute::decode(&cmd))
            .transpose()?,
    };
    if wanted.reset || terminal.session(wanted.id).is_none() {
        // What cannot be had is refused while there is a status to say so with.
        terminal.grant(&wanted.wish)?;
    }
    Ok(upgrade
        .protocols([PROTOCOL])
        .max_message_size(MAX_FRAME)
        .max_frame_size(MAX_FRAME)
        .on_upgrade(move |socket| serve(terminal, socket, wanted)))
}

type Sender = SplitSink<WebSocket, Message>;
type Receiver = SplitStream<WebSocket>;

/// A frame of a client.
#[derive(Debug, PartialEq, Eq)]
enum Frame {
    Size(Size),
    Input(Bytes),
    Pause,
    Resume,
    /// Something this server does not know.
    Other,
}

#[derive(Deserialize)]
struct Dimensions {
    columns: Option<f64>,
    rows: Option<f64>,
}

impl Frame {
    fn read(bytes: &Bytes) -> Frame {
        match bytes.first() {
            Some(b'0') => Frame::Input(bytes.slice(1..)),
            Some(b'1') => Frame::size(&bytes[1..]),
            Some(b'{') => Frame::size(bytes),
            Some(b'2') => Frame::Pause,
            Some(b'3') => Frame::Resume,
            _ => Frame::Other,
        }
    }

    fn size(json: &[u8]) -> Frame {
        let Ok(Dimensions {
            columns: Some(columns),
            rows: Some(rows),
        }) = serde_json::from_slice(json)
        else {
            return Frame::Other;
        };
        // A conversion of floats saturates; what is no size becomes the least one.
        Frame::Size(Size::clamped(rows as u32, columns as u32))
    }
}

fn payload(message: Message) -> Option<Bytes> {
    match message {
        Message::Text(text) => Some(text.into()),
        Message::Binary(bytes) => Some(bytes),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => None,
    }
}

async fn serve(terminal: Terminal, socket: WebSocket, wanted: Wanted) {
    let (mut sender, mut receiver) = socket.split();
    let first = greeting(&mut receiver).await;
    let size = match &first {
        Greeting::Gone => return,
        Greeting::Frame(Frame::Size(size)) => Some(*size),
        Greeting::Frame(_) | Greeting::Silent => None,
    };
    let session = match open(&terminal, &wanted, size).await {
        Ok(session) => session,
        Err(fault) => return bye(&mut sender, close::FAILED, &fault.message).await,
    };
    let Ok(client) = session.attach(size, wanted.readonly).await else {
        return bye(
            &mut sender,
            close::TRY_AGAIN,
            "the session is over, or has too many clients",
        )
        .await;
    };
    if let Some(command) = &wanted.command {
        run(&terminal, &session, command).await;
    }
    let view = session.watch();
    let (pause, paused) = watch::channel(false);
    let mut input = Input {
        session: &session,
        remote: &client.remote,
        readonly: wanted.readonly,
        pause,
    };
    if let Greeting::Frame(frame) = first
        && input.take(frame).await.is_err()
    {
        return;
    }
    let show = async {
        let told = tell(&mut sender, &session, &client.replay).await;
        match told {
            Ok(()) => show(&mut sender, client.output, view, paused).await,
            Err(gone) => Err(gone),
        }
    };
    let listen = async {
        while let Ok(Some(Ok(message))) = timeout(SILENCE, receiver.next()).await {
            if matches!(message, Message::Close(_)) {
                return;
            }
            if let Some(bytes) = payload(message)
                && input.take(Frame::read(&bytes)).await.is_err()
            {
                // The session is over; the other side says so.
                std::future::pending::<()>().await;
            }
        }
    };
    let end = tokio::select! {
        end = show => end.ok(),
        () = listen => None,
    };
    if let Some(end) = end {
        let (code, reason) = match end {
            End::Exited(code) => (close::EXITED, format!("the shell ended with code {code}")),
            End::Closed(why) => (
                close::CLOSED,
                format!("the session was ended: {why:?}").to_lowercase(),
            ),
        };
        bye(&mut sender, code, &reason).await;
    }
}

enum Greeting {
    Frame(Frame),
    Silent,
    Gone,
}

/// The first frame of a client.
async fn greeting(receiver: &mut Receiver) -> Greeting {
    let until = Instant::now() + GREETING;
    loop {
        match tokio::time::timeout_at(until, receiver.next()).await {
            Err(_) => return Greeting::Silent,
            Ok(None | Some(Err(_) | Ok(Message::Close(_)))) => return Greeting::Gone,
            Ok(Some(Ok(message))) => {
                if let Some(bytes) = payload(message) {
                    return Greeting::Frame(Frame::read(&bytes));
                }
            }
        }
    }
}

async fn open(
    terminal: &Terminal,
    wanted: &Wanted,
    size: Option<Size>,
) -> Result<std::sync::Arc<Session>, Fault> {
    if wanted.reset {
        terminal
            .close(wanted.id, crate::session::Close::Reset)
            .await;
        terminal.come_home(wanted.id);
    }
    let wish = Wish {
        size,
        ..wanted.wish.clone()
    };
    terminal.open(wanted.id, &wish).map(|(session, _)| session)
}

/// Run a command in the terminal as if it were typed.
async fn run(terminal: &Terminal, session: &Session, text: &str) {
    if session.flavour.takes_commands() {
        let request = execute::Request {
            terminal: Some(session.id),
            wish: Wish::default(),
            reset: false,
            id: None,
            text: text.to_owned(),
            timeout: None,
            output: Output::Terminal,
            defer: None,
        };
        if let Err(fault) = terminal.execute(request).await {
            tracing::debug!(terminal.id = %session.id, %fault, "could not run the command of a client");
        }
    } else {
        // A session that is over will say so itself.
        let _ = session.write(Bytes::from(format!("{text}\r"))).await;
    }
}

/// What a client sends into its session.
struct Input<'a> {
    session: &'a Session,
    remote: &'a Remote,
    readonly: bool,
    pause: watch::Sender<bool>,
}

impl Input<'_> {
    async fn take(&mut self, frame: Frame) -> Result<(), Over> {
        match frame {
            Frame::Input(bytes) if !self.readonly => self.session.write(bytes).await,
            Frame::Size(size) => self.remote.resize(size).await,
            Frame::Pause => {
                self.pause.send_replace(true);
                Ok(())
            }
            Frame::Resume => {
                self.pause.send_replace(false);
                Ok(())
            }
            Frame::Input(_) | Frame::Other => Ok(()),
        }
    }
}

/// The client is gone, or takes nothing.
struct Gone;

async fn send(sender: &mut Sender, message: Message) -> Result<(), Gone> {
    match timeout(STALLED, sender.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Gone),
    }
}

async fn send_frame(sender: &mut Sender, command: u8, payload: &[u8]) -> Result<(), Gone> {
    let mut frame = BytesMut::with_capacity(payload.len() + 1);
    frame.extend_from_slice(&[command]);
    frame.extend_from_slice(payload);
    send(sender, Message::Binary(frame.freeze())).await
}

/// What a client is told first.
async fn tell(sender: &mut Sender, session: &Session, replay: &[u8]) -> Result<(), Gone> {
    send_frame(sender, b'3', session.id.to_string().as_bytes()).await?;
    send_frame(sender, b'4', session.shell_name().as_bytes()).await?;
    for piece in replay.chunks(MAX_SENT) {
        send_frame(sender, b'0', piece).await?;
    }
    Ok(())
}

/// Show a client what happens, until the session is over.
async fn show(
    sender: &mut Sender,
    mut output: mpsc::Receiver<Bytes>,
    mut view: watch::Receiver<View>,
    mut paused: watch::Receiver<bool>,
) -> Result<End, Gone> {
    let mut ping = tokio::time::interval_at(Instant::now() + PING, PING);
    let mut title = String::new();
    let mut frame = Vec::new();
    loop {
        let now = view.borrow_and_update().title.clone();
        if now != title {
            title = now;
            send_frame(sender, b'1', title.as_bytes()).await?;
        }
        let is_paused = *paused.borrow_and_update();
        tokio::select! {
            received = output.recv(), if !is_paused => {
                let Some(bytes) = received else { break };
                frame.clear();
                frame.extend_from_slice(&bytes);
                while frame.len() < MAX_SENT && let Ok(more) = output.try_recv() {
                    frame.extend_from_slice(&more);
                }
                send_frame(sender, b'0', &frame).await?;
            }
            // The other end lives as long as this connection.
            _ = paused.changed() => {}
            changed = titled(&mut view, &title) => if changed.is_err() { break },
            _ = ping.tick() => send(sender, Message::Ping(Bytes::new())).await?,
        }
    }
    while let Ok(bytes) = output.try_recv() {
        send_frame(sender, b'0', &bytes).await?;
    }
    let end = view
        .wait_for(|view| matches!(view.phase, Phase::Ended(_)))
        .await;
    match end.map(|view| view.phase.clone()) {
        Ok(Phase::Ended(end)) => Ok(end),
        _ => Err(Gone),
    }
}

/// Wait until the window is called otherwise, or the session is over.
async fn titled(
    view: &mut watch::Receiver<View>,
    title: &str,
) -> Result<(), watch::error::RecvError> {
    view.wait_for(|view| view.title != title).await.map(drop)
}

/// Close a connection.
async fn bye(sender: &mut Sender, code: u16, reason: &str) {
    const LONGEST: usize = 123; // RFC 6455, 5.5: 125 bytes with the code
    let mut end = reason.len().min(LONGEST);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let frame = CloseFrame {
        code,
        reason: reason[..end].into(),
    };
    // It may be gone already.
    let _ = timeout(
        Duration::from_secs(1),
        sender.send(Message::Close(Some(frame))),
    )
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_in_all_their_spellings() {
        let check = |text: &str, want: Frame| {
            assert_eq!(Frame::read(&Bytes::copy_from_slice(text.as_bytes())), want)
        };
        let size = Frame::Size(Size {
            rows: 30,
            columns: 100,
        });
        let same = || {
            Frame::Size(Size {
                rows: 30,
                columns: 100,
            })
        };
        check(
            r#"{"command":"{","columns":100,"rows":30,"token":"x"}"#,
            size,
        );
        check(r#"{"command":"1","columns":100,"rows":30}"#, same());
        check(r#"1{"columns":100,"rows":30}"#, same());
        check("0ls\r", Frame::Input(Bytes::from_static(b"ls\r")));
        check("0", Frame::Input(Bytes::new()));
        check("2", Frame::Pause);
        check("3", Frame::Resume);
        for other in ["", "1", "1{}", "{", "{\"columns\":\"x\"}", "9", "\u{1}"] {
            check(other, Frame::Other);
        }
        check(
            r#"{"columns":-5,"rows":1e99}"#,
            Frame::Size(Size {
                rows: 1000,
                columns: 2,
            }),
        );
    }
}
