//! Hrana over a WebSocket: any number of streams on one connection, each with its requests in
//! order. All of them end with it.

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};

use super::stream::{Running, Stream, Target, Texts, ended, error};
use super::{
    Batch, ClientMsg, Encoding, Entry, Error, MESSAGE, OF_SOCKET, Request, Response as Reply,
    ServerMsg, SocketRequest, TRANSACTION_IDLE,
};
use crate::Sqlite;
use crate::run::Budget;

/// The subprotocols, the best first.
pub const PROTOCOLS: [&str; 4] = ["hrana3-protobuf", "hrana3", "hrana2", "hrana1"];
/// Requests of one stream that wait for their turn; the client is read no further meanwhile.
const QUEUE: usize = 32;
/// Answers that wait for the client.
const ANSWERS: usize = 4;
/// How long a client may take to say hello.
const GREETING: Duration = Duration::from_secs(30);
const PING: Duration = Duration::from_secs(30);
/// A client that is not heard of for this long is gone.
const SILENCE: Duration = Duration::from_secs(90);
/// A client that takes no answer for this long is let go.
const STALLED: Duration = Duration::from_secs(60);

/// Close codes (RFC 6455, 7.4.1).
mod close {
    pub const PROTOCOL: u16 = 1002;
    pub const UNSUPPORTED: u16 = 1003;
    pub const POLICY: u16 = 1008;
}

/// Switch to it.
pub fn upgrade(sqlite: Sqlite, target: Target, upgrade: WebSocketUpgrade) -> Response {
    let Ok(permit) = sqlite.turns.sockets.clone().try_acquire_owned() else {
        let error = error(
            "TOO_MANY_SOCKETS",
            format!(
                "{} WebSockets are open; close some, or try again",
                super::SOCKETS
            ),
        );
        return super::http::refuse(Encoding::Json, StatusCode::SERVICE_UNAVAILABLE, &error);
    };
    let upgrade = upgrade
        .protocols(PROTOCOLS)
        .max_message_size(MESSAGE)
        .max_frame_size(MESSAGE);
    let encoding = match upgrade.selected_protocol().map(|name| name.as_bytes()) {
        Some(b"hrana3-protobuf") => Encoding::Protobuf,
        _ => Encoding::Json,
    };
    upgrade.on_upgrade(move |socket| serve(sqlite, target, encoding, socket, permit))
}

/// Why a connection ends.
struct Over(u16, String);

type Answers = mpsc::Sender<(Vec<u8>, OwnedSemaphorePermit)>;

async fn serve(
    sqlite: Sqlite,
    target: Target,
    encoding: Encoding,
    socket: WebSocket,
    _permit: OwnedSemaphorePermit,
) {
    let (sink, source) = socket.split();
    let (answers, waiting) = mpsc::channel(ANSWERS);
    let (over, ending) = mpsc::channel(1);
    let writer = tokio::spawn(write(encoding, sink, waiting, ending));
    let mut client = Client {
        sqlite,
        target,
        encoding,
        answers,
        streams: HashMap::new(),
        cursors: HashMap::new(),
        texts: Texts::default(),
    };
    // a writer that has ended has nobody to write to
    let mut writer = writer;
    tokio::select! {
        why = client.read(source) => {
            if let Err(why) = why {
                let _ = over.send(why).await;
            }
            drop(client); // streams end, and with the last of them the answers
            drop(over);
            let _ = timeout(STALLED, writer).await;
        }
        _ = &mut writer => {}
    }
}

async fn write(
    encoding: Encoding,
    mut sink: SplitSink<WebSocket, Message>,
    mut answers: mpsc::Receiver<(Vec<u8>, OwnedSemaphorePermit)>,
    mut ending: mpsc::Receiver<Over>,
) {
    let mut pings = tokio::time::interval_at(Instant::now() + PING, PING);
    let mut over = None;
    loop {
        let (message, _held) = tokio::select! {
            biased;
            answer = answers.recv() => match answer {
                None => {
                    // the last word, where there was one
                    over = over.or_else(|| ending.try_recv().ok());
                    break;
                }
                Some((bytes, held)) => (frame(encoding, bytes), Some(held)),
            },
            why = ending.recv(), if over.is_none() => match why {
                Some(why) => {
                    over = Some(why);
                    break;
                }
                // whoever reads has ended; what is under way is answered still
                None => {
                    over = Some(Over(1000, String::new()));
                    continue;
                }
            },
            _ = pings.tick() => (Message::Ping(Vec::new().into()), None),
        };
        match timeout(STALLED, sink.send(message)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
    let frame = over.map(|Over(code, reason)| CloseFrame {
        code,
        reason: reason.into(),
    });
    let _ = timeout(STALLED, sink.send(Message::Close(frame))).await;
}

fn frame(encoding: Encoding, bytes: Vec<u8>) -> Message {
    match encoding {
        Encoding::Protobuf => Message::Binary(bytes.into()),
        Encoding::Json => match String::from_utf8(bytes) {
            Ok(text) => Message::Text(text.into()),
            Err(broken) => Message::Binary(broken.into_bytes().into()),
        },
    }
}

/// One connection.
struct Client {
    sqlite: Sqlite,
    target: Target,
    encoding: Encoding,
    answers: Answers,
    streams: HashMap<i32, mpsc::Sender<Job>>,
    /// The stream of each cursor.
    cursors: HashMap<i32, i32>,
    texts: Texts,
}

/// What a stream is to do.
enum Job {
    Ask(i32, Request),
    Close(i32),
    OpenCursor(i32, Batch),
    FetchCursor(i32, u32),
    CloseCursor(i32),
}

impl Client {
    async fn read(&mut self, mut source: SplitStream<WebSocket>) -> Result<(), Over> {
        let mut greeted = false;
        loop {
            let patience = if greeted { SILENCE } else { GREETING };
            let message = match timeout(patience, source.next()).await {
                Err(_) if greeted => {
                    return Err(Over(close::POLICY, "nothing came for too long".into()));
                }
                Err(_) => return Err(Over(close::POLICY, "say hello first".into())),
                Ok(None | Some(Err(_)) | Some(Ok(Message::Close(_)))) => return Ok(()),
                Ok(Some(Ok(message))) => message,
            };
            let bytes = match (&message, self.encoding) {
                (Message::Text(text), Encoding::Json) => text.as_bytes(),
                (Message::Binary(bytes), Encoding::Protobuf) => &bytes[..],
                (Message::Ping(_) | Message::Pong(_), _) => continue,
                _ => {
                    let why = "JSON comes as text, Protobuf as binary frames";
                    return Err(Over(close::UNSUPPORTED, why.into()));
                }
            };
            let message = self
                .encoding
                .client(bytes)
                .map_err(|wrong| Over(close::PROTOCOL, short(wrong)))?;
            match message {
                ClientMsg::Hello => {
                    greeted = true;
                    self.say(&ServerMsg::HelloOk).await?;
                }
                ClientMsg::Request { .. } if !greeted => {
                    return Err(Over(close::PROTOCOL, "say hello first".into()));
                }
                ClientMsg::Request { id, request } => self.dispatch(id, request).await?,
            }
        }
    }

    async fn say(&self, message: &ServerMsg) -> Result<(), Over> {
        say(&self.sqlite, self.encoding, &self.answers, message)
            .await
            .map_err(|()| Over(close::POLICY, "answers are not taken".into()))
    }

    async fn fail(&self, id: i32, error: Error) -> Result<(), Over> {
        self.say(&ServerMsg::Error { id, error }).await
    }

    async fn dispatch(&mut self, id: i32, request: SocketRequest) -> Result<(), Over> {
        match request {
            SocketRequest::OpenStream(stream) => self.open(id, stream).await,
            SocketRequest::CloseStream(stream) => match self.streams.remove(&stream) {
                Some(jobs) => {
                    self.cursors.retain(|_, of| *of != stream);
                    self.send(id, &jobs, Job::Close(id)).await
                }
                None => self.fail(id, unknown(stream)).await,
            },
            // these are the connection's, whatever stream they name
            SocketRequest::Stream(_, Request::StoreSql { sql_id, sql }) => {
                match self.texts.store(sql_id, sql) {
                    Ok(()) => {
                        let response = Reply::StoreSql;
                        self.say(&ServerMsg::Ok { id, response }).await
                    }
                    Err(error) if error.code == "SQL_STORE" => {
                        Err(Over(close::PROTOCOL, short(error.message)))
                    }
                    Err(error) => self.fail(id, error).await,
                }
            }
            SocketRequest::Stream(_, Request::CloseSql { sql_id }) => {
                self.texts.close(sql_id);
                let response = Reply::CloseSql;
                self.say(&ServerMsg::Ok { id, response }).await
            }
            SocketRequest::Stream(stream, mut request) => {
                if let Err(error) = self.texts.resolve(&mut request) {
                    return self.fail(id, error).await;
                }
                self.job(id, stream, Job::Ask(id, request)).await
            }
            SocketRequest::OpenCursor {
                stream,
                cursor,
                mut batch,
            } => {
                if self.cursors.contains_key(&cursor) {
                    let why = format!("there is a cursor {cursor} already");
                    return Err(Over(close::PROTOCOL, why));
                }
                if self.cursors.len() >= OF_SOCKET {
                    let message = format!("at most {OF_SOCKET} cursors at a time; close some");
                    return self.fail(id, error("TOO_MANY_CURSORS", message)).await;
                }
                if let Err(error) = self.texts.resolve_batch(&mut batch) {
                    return self.fail(id, error).await;
                }
                self.cursors.insert(cursor, stream);
                self.job(id, stream, Job::OpenCursor(id, batch)).await
            }
            SocketRequest::FetchCursor { cursor, most } => match self.cursors.get(&cursor) {
                Some(&stream) => self.job(id, stream, Job::FetchCursor(id, most)).await,
                None => self.fail(id, no_cursor()).await,
            },
            SocketRequest::CloseCursor(cursor) => match self.cursors.remove(&cursor) {
                Some(stream) => self.job(id, stream, Job::CloseCursor(id)).await,
                None => self.fail(id, no_cursor()).await,
            },
        }
    }

    async fn open(&mut self, id: i32, stream: i32) -> Result<(), Over> {
        self.streams.retain(|_, jobs| !jobs.is_closed());
        if self.streams.contains_key(&stream) {
            let why = format!("there is a stream {stream} already");
            return Err(Over(close::PROTOCOL, why));
        }
        if self.streams.len() >= OF_SOCKET {
            let message = format!("at most {OF_SOCKET} streams at a time; close some");
            return self.fail(id, error("TOO_MANY_STREAMS", message)).await;
        }
        let (jobs, queue) = mpsc::channel(QUEUE);
        self.streams.insert(stream, jobs);
        let worker = Worker {
            sqlite: self.sqlite.clone(),
            encoding: self.encoding,
            answers: self.answers.clone(),
        };
        tokio::spawn(worker.run(self.target.clone(), id, queue));
        Ok(())
    }

    async fn job(&mut self, id: i32, stream: i32, job: Job) -> Result<(), Over> {
        match self.streams.get(&stream).cloned() {
            Some(jobs) => self.send(id, &jobs, job).await,
            None => self.fail(id, unknown(stream)).await,
        }
    }

    async fn send(&self, id: i32, jobs: &mpsc::Sender<Job>, job: Job) -> Result<(), Over> {
        match jobs.send(job).await {
            Ok(()) => Ok(()),
            Err(_) => self.fail(id, ended()).await,
        }
    }
}

fn unknown(stream: i32) -> Error {
    error(
        "STREAM_NOT_FOUND",
        format!("no stream {stream} is open; send open_stream first"),
    )
}

fn no_cursor() -> Error {
    error(
        "CURSOR_NOT_FOUND",
        "no such cursor is open; send open_cursor first",
    )
}

/// What fits into a close frame.
fn short(mut reason: String) -> String {
    const LONGEST: usize = 120;
    crate::text::cut(&mut reason, LONGEST);
    reason
}

/// Answer, once there is room for it.
async fn say(
    sqlite: &Sqlite,
    encoding: Encoding,
    answers: &Answers,
    message: &ServerMsg,
) -> Result<(), ()> {
    let bytes = encoding.server(message);
    let held = timeout(STALLED, sqlite.answers.hold(bytes.len())).await;
    let held = held.map_err(|_| ())?.map_err(|_| ())?;
    answers.send((bytes, held)).await.map_err(|_| ())
}

/// Whoever does what a stream is asked, in order.
struct Worker {
    sqlite: Sqlite,
    encoding: Encoding,
    answers: Answers,
}

/// What a stream is at.
enum State {
    Open(Stream),
    /// A cursor runs; entries that were fetched and not asked for yet.
    Cursor(Running, Vec<Entry>),
    /// It could not be opened, or is over: why.
    Over(Error),
}

impl Worker {
    async fn run(self, target: Target, id: i32, mut jobs: mpsc::Receiver<Job>) {
        let mut state = match Stream::open(&self.sqlite, &target).await {
            Ok(stream) => {
                if self.reply(id, Ok(Reply::OpenStream)).await.is_err() {
                    return;
                }
                State::Open(stream)
            }
            Err(error) => {
                if self.reply(id, Err(error.clone())).await.is_err() {
                    return;
                }
                State::Over(error)
            }
        };
        loop {
            let in_transaction =
                matches!(&state, State::Open(stream) if stream.is_in_transaction());
            let job = if in_transaction {
                match timeout(TRANSACTION_IDLE, jobs.recv()).await {
                    Ok(job) => job,
                    Err(_) => {
                        state = self.give_up(state).await;
                        continue;
                    }
                }
            } else {
                jobs.recv().await
            };
            let Some(job) = job else {
                break;
            };
            let last = matches!(job, Job::Close(_));
            let (next, id, reply) = self.work(state, job).await;
            state = next;
            if self.reply(id, reply).await.is_err() || last {
                break;
            }
        }
        // closing may wait for the disk
        if let State::Open(stream) = state {
            let _ = tokio::task::spawn_blocking(move || drop(stream)).await;
        }
    }

    /// Roll back a transaction that nobody goes on with.
    async fn give_up(&self, state: State) -> State {
        let State::Open(stream) = state else {
            return state;
        };
        drop(stream.roll_back().await);
        State::Over(error(
            "TRANSACTION_TIMEOUT",
            format!(
                "the transaction was rolled back and its stream closed, because nothing was done \
                 in it for {} s; open another one",
                TRANSACTION_IDLE.as_secs()
            ),
        ))
    }

    async fn reply(&self, id: i32, reply: Result<Reply, Error>) -> Result<(), ()> {
        let message = match reply {
            Ok(response) => ServerMsg::Ok { id, response },
            Err(error) => ServerMsg::Error { id, error },
        };
        say(&self.sqlite, self.encoding, &self.answers, &message).await
    }

    async fn work(&self, state: State, job: Job) -> (State, i32, Result<Reply, Error>) {
        match (state, job) {
            (state, Job::Close(id)) => {
                drop(state);
                (State::Over(ended()), id, Ok(Reply::CloseStream))
            }
            (State::Open(stream), Job::Ask(id, request)) => {
                let mut budget = Budget::default();
                let (back, reply) = stream.ask(&self.sqlite, request, &mut budget).await;
                let state = back.map_or_else(|| State::Over(ended()), State::Open);
                (state, id, reply)
            }
            (State::Open(stream), Job::OpenCursor(id, batch)) => {
                match Running::begin(&self.sqlite, stream, batch) {
                    Ok(running) => (
                        State::Cursor(running, Vec::new()),
                        id,
                        Ok(Reply::OpenCursor),
                    ),
                    Err(refused) => {
                        let (stream, error) = *refused;
                        (State::Open(stream), id, Err(error))
                    }
                }
            }
            (State::Cursor(mut running, mut held), Job::FetchCursor(id, most)) => {
                let most = usize::try_from(most).unwrap_or(usize::MAX).max(1);
                let mut done = false;
                if held.is_empty() {
                    match running.entries.recv().await {
                        Some(entries) => held = entries,
                        None => done = true,
                    }
                }
                let rest = held.split_off(held.len().min(most));
                let entries = held;
                let reply = Reply::FetchCursor { entries, done };
                (State::Cursor(running, rest), id, Ok(reply))
            }
            (State::Cursor(running, _), Job::CloseCursor(id)) => {
                let back = running.end(&self.sqlite).await;
                let state = back.map_or_else(|| State::Over(ended()), State::Open);
                (state, id, Ok(Reply::CloseCursor))
            }
            (state, Job::CloseCursor(id)) => (state, id, Ok(Reply::CloseCursor)),
            (State::Over(error), job) => {
                let id = id_of(&job);
                (State::Over(error.clone()), id, Err(error))
            }
            (state @ State::Cursor(..), job) => {
                let why = "a cursor is open on this stream; close it first";
                (state, id_of(&job), Err(error("CURSOR_OPEN", why)))
            }
            (state, job) => (state, id_of(&job), Err(no_cursor())),
        }
    }
}

fn id_of(job: &Job) -> i32 {
    match job {
        Job::Ask(id, _)
        | Job::Close(id)
        | Job::OpenCursor(id, _)
        | Job::FetchCursor(id, _)
        | Job::CloseCursor(id) => *id,
    }
}
