//! What is written down of requests, by a thread of its own: the access log of the node, one JSON
//! object a line, and the log of each container.
//!
//! A request leaves a [`Record`] and goes on; what costs time (redacting, formatting, files) is
//! the writer's. The access log is the only place where whole ids of all containers are written
//! down. Bodies never are, and the values of query parameters that look like secrets are not.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use prometheus::IntCounter;
use proxy_logs::{Capture, Draft, Event, Exchange, Key, Kind, Level, Logs, Scope};
use routes::Id;
use routes::address::Name;
use routes::table::{Place, Table};
use serde::Serialize;
use tracing::error;

use crate::config::{AccessLog, Config};
use crate::elders::{Link, Told};
use crate::handover;
use crate::resolve::KitDoor;

/// The slug of the service that serves them.
pub const SERVICE: &str = "logs";
/// Records that wait to be written. Where the disk is slower than that, records are dropped and
/// counted: a log never holds up a request.
const QUEUE: usize = 8_192;
/// How long the writer lets records gather before it looks again: to wake it for each would cost
/// the request more than all else that is done for the log.
const GATHER: Duration = Duration::from_millis(20);
/// Between two looks for what is too old.
const SWEEP: Duration = Duration::from_secs(600);
/// Containers whose lost records are counted apart, until they can be told.
const LOSERS: usize = 1_024;

/// What a client or a container may say of itself in a line, beside what [`Capture`] bounds.
const WORD_BYTES: usize = 128;

/// The id of a container or project as its log has it.
pub fn key(id: Id) -> Key {
    Key(id.0)
}

/// An entry for the process that writes.
fn told(scope: Scope, entry: String) -> Told {
    Told::Entry {
        project: Id(scope.project.0),
        container: Id(scope.container.0),
        entry,
    }
}

/// Whose log a place's requests are in.
pub fn scope(place: &Place) -> Scope {
    Scope {
        project: key(place.project),
        container: key(place.container),
    }
}

/// The logs of the containers in the table.
pub fn of_containers(config: &Config, table: Arc<ArcSwap<Table>>) -> Logs {
    Logs::new(
        config.container_logs.clone(),
        config.limits.container_logs.clone(),
        move |container| table.load().places.contains_key(&Id(container.0)),
    )
}

/// One request: when it is over, or when the answer begins of one that stays open.
#[derive(Debug)]
pub struct Record {
    pub started: jiff::Timestamp,
    pub client: IpAddr,
    pub host: Option<Name>,
    /// What the host led to in a container, whether or not it was let through.
    pub place: Option<(Arc<Place>, KitDoor)>,
    /// It led to the proxy's own answer or further: the access log then has the container, too.
    pub admitted: bool,
    pub scheme: &'static str,
    pub http: &'static str,
    pub method: http::Method,
    pub text: Capture,
    /// Query parameters that carry credentials for the edge.
    pub secrets: Vec<String>,
    /// 499: the client left before the answer.
    pub status: u16,
    pub content_type: Option<http::HeaderValue>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub took: Duration,
    /// Until the upstream's headers.
    pub upstream: Option<Duration>,
    /// The code of the proxy's own answer.
    pub refusal: Option<&'static str>,
    /// What went wrong, and on which side.
    pub fault: Option<(&'static str, &'static str)>,
    pub websocket: bool,
    /// The number that its first record was given, where it has one.
    pub opened: Option<u64>,
    /// Whether this is the first of two records.
    pub open: bool,
}

/// One line of the access log.
#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    client: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    scheme: &'static str,
    http: &'static str,
    method: &'a str,
    target: &'a str,
    status: u16,
    bytes_in: u64,
    bytes_out: u64,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    websocket: bool,
}

/// Where requests are written down.
#[derive(Debug)]
pub struct Journal {
    sender: SyncSender<Message>,
    lost: Arc<Lost>,
    opened: AtomicU64,
}

/// What the writer is told.
#[derive(Debug)]
enum Message {
    Record(Box<Record>),
    /// By a proxy that was before this one.
    Told(Box<Told>),
    /// Another process writes from now on; say so when all before this is written.
    Resign(Box<(Link, tokio::sync::oneshot::Sender<()>)>),
}

/// Between two tries to tell the writer something, where it is behind.
const BEHIND: Duration = Duration::from_millis(5);

/// Records that there was no room for, by container: told in its log when there is room again.
#[derive(Debug, Default)]
struct Lost {
    any: AtomicU64,
    by: Mutex<HashMap<Id, (Arc<Place>, u64)>>,
}

/// The log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("could not open the access log {path}")]
pub struct OpenLog {
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

impl Journal {
    /// Open the logs and start their writer, which ends when the journal is dropped. `unwritten`
    /// counts entries of containers that the disk did not take. The writer begins when the
    /// `predecessor` has ended.
    pub fn open(
        log: &AccessLog,
        most_bytes: u64,
        logs: Logs,
        unwritten: IntCounter,
        predecessor: Option<UnixStream>,
    ) -> Result<(Journal, JoinHandle<()>), OpenLog> {
        let sink = match log {
            AccessLog::Off => None,
            AccessLog::Stdout => Some(Sink::Stdout(io::stdout())),
            AccessLog::File(path) => {
                let file = LogFile::open(path, most_bytes).map_err(|source| OpenLog {
                    path: path.clone(),
                    source,
                })?;
                Some(Sink::File(file))
            }
        };
        let (sender, records) = sync_channel(QUEUE);
        let lost = Arc::new(Lost::default());
        let writer = Writer {
            sink,
            logs,
            lost: lost.clone(),
            unwritten,
            line: Vec::with_capacity(1_024),
            broken: false,
            link: None,
        };
        let begin = move || {
            if let Some(predecessor) = predecessor {
                handover::until_resigned(predecessor);
                writer.logs.store().take_over();
            }
            writer.run(&records);
        };
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(begin)
            .map_err(|source| OpenLog {
                path: "(thread)".into(),
                source,
            })?;
        let journal = Journal {
            sender,
            lost,
            opened: AtomicU64::new(0),
        };
        Ok((journal, thread))
    }

    /// A number for a request that will leave two records.
    pub fn number(&self) -> u64 {
        self.opened.fetch_add(1, Ordering::Relaxed)
    }

    /// Write a request down; false where the writer is behind.
    pub fn write(&self, record: Box<Record>) -> bool {
        use std::sync::mpsc::TrySendError;
        match self.sender.try_send(Message::Record(record)) {
            Ok(()) => true,
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => {
                if let Message::Record(record) = message {
                    self.lost.add(&record);
                }
                false
            }
        }
    }

    /// Write down what another proxy tells; it waits while the writer is behind.
    pub async fn tell(&self, told: Told) {
        self.send(Message::Told(Box::new(told))).await;
    }

    /// Write no more: when this returns all is on disk that came before, and what comes after goes
    /// over the link.
    pub async fn resign(&self, link: Link) {
        let (done, resigned) = tokio::sync::oneshot::channel();
        self.send(Message::Resign(Box::new((link, done)))).await;
        // An error is a writer that has ended.
        let _ = resigned.await;
    }

    async fn send(&self, mut message: Message) {
        use std::sync::mpsc::TrySendError;
        while let Err(TrySendError::Full(back)) = self.sender.try_send(message) {
            message = back;
            tokio::time::sleep(BEHIND).await;
        }
    }
}

impl Lost {
    fn add(&self, record: &Record) {
        let Some((place, _)) = &record.place else {
            return;
        };
        let mut by = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        if by.len() >= LOSERS && !by.contains_key(&place.container) {
            return;
        }
        by.entry(place.container)
            .or_insert_with(|| (place.clone(), 0))
            .1 += 1;
        self.any.store(1, Ordering::Release);
    }

    fn take(&self) -> Vec<(Arc<Place>, u64)> {
        if self.any.swap(0, Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let mut by = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *by).into_values().collect()
    }
}

enum Sink {
    Stdout(io::Stdout),
    File(LogFile),
}

impl Sink {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Sink::Stdout(out) => out.write_all(line),
            Sink::File(file) => file.line(line),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::Stdout(out) => out.flush(),
            Sink::File(file) => file.file.flush(),
        }
    }
}

struct LogFile {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    most: u64,
}

impl LogFile {
    fn open(path: &Path, most: u64) -> io::Result<LogFile> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let bytes = file.metadata()?.len();
        Ok(LogFile {
            path: path.to_owned(),
            file: BufWriter::new(file),
            bytes,
            most,
        })
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes >= self.most {
            self.file.flush()?;
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, old)?;
            *self = LogFile::open(&self.path, self.most)?;
        }
        self.bytes += line.len() as u64;
        self.file.write_all(line)
    }
}

/// The thread that writes.
struct Writer {
    sink: Option<Sink>,
    logs: Logs,
    lost: Arc<Lost>,
    unwritten: IntCounter,
    line: Vec<u8>,
    /// The access log failed last time.
    broken: bool,
    /// To the process that writes, where it is another one by now.
    link: Option<Link>,
}

impl Writer {
    fn run(mut self, records: &Receiver<Message>) {
        let mut swept = SystemTime::now();
        self.logs.store().sweep(swept);
        let mut unwritten = 0;
        loop {
            // Asleep until something comes, then awake as long as it keeps coming.
            let first = match records.recv_timeout(SWEEP) {
                Ok(record) => Some(record),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut some = first.is_some();
            if let Some(message) = first {
                self.hear(message);
            }
            let mut ended = false;
            while some {
                some = false;
                loop {
                    match records.try_recv() {
                        Ok(message) => {
                            some = true;
                            self.hear(message);
                        }
                        Err(TryRecvError::Empty) => break,
                        Err(TryRecvError::Disconnected) => {
                            ended = true;
                            break;
                        }
                    }
                }
                self.flush();
                if ended {
                    break;
                }
                std::thread::sleep(GATHER);
            }
            let all = self.logs.store().lost();
            self.unwritten.inc_by(all - unwritten);
            unwritten = all;
            let now = SystemTime::now();
            if now
                .duration_since(swept)
                .is_ok_and(|passed| passed >= SWEEP)
            {
                swept = now;
                self.logs.store().sweep(now);
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        for (place, count) in self.lost.take() {
            let message = format!(
                "{count} requests are missing here: they came faster than they could be written down"
            );
            let event = Event {
                event: "lost",
                message: message.into(),
                count: Some(count),
            };
            let (store, scope) = (self.logs.store(), scope(&place));
            match &self.link {
                None => store.note(scope, Level::Warn, event),
                Some(_) => {
                    let entry = store.unnumbered_note(scope, Level::Warn, event);
                    self.leave(told(scope, entry));
                }
            }
        }
        if let Some(link) = &mut self.link {
            return self.logs.store().count_lost(link.flush());
        }
        self.logs.store().flush();
        let done = self.sink.as_mut().map_or(Ok(()), Sink::flush);
        self.judge(done);
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Record(record) => self.write(&record),
            Message::Told(told) => match (&self.link, *told) {
                (Some(_), told) => self.leave(told),
                (None, Told::Access(line)) => self.access(line.as_bytes()),
                (
                    None,
                    Told::Entry {
                        project,
                        container,
                        entry,
                    },
                ) => {
                    let scope = Scope {
                        project: key(project),
                        container: key(container),
                    };
                    self.logs.store().append_unnumbered(scope, &entry);
                }
            },
            Message::Resign(resign) => {
                self.flush();
                self.logs.store().resign();
                let (link, done) = *resign;
                self.link = Some(link);
                // An error is somebody who did not wait.
                let _ = done.send(());
            }
        }
    }

    /// Leave this to the process that writes.
    fn leave(&mut self, told: Told) {
        if let Some(link) = &mut self.link {
            self.logs.store().count_lost(link.tell(&told));
        }
    }

    /// Add a line to the access log.
    fn access(&mut self, line: &[u8]) {
        let Some(sink) = &mut self.sink else {
            return;
        };
        let done = sink.line(line).and_then(|()| sink.line(b"\n"));
        self.judge(done);
    }

    fn write(&mut self, record: &Record) {
        let time = record.started.to_string();
        let target = proxy_logs::redact::redact(&record.text.target(), &record.secrets);
        let fault = record
            .fault
            .map(|(side, reason)| format!("{side}: {reason}"));
        if !record.open && self.sink.is_some() {
            self.line.clear();
            let line = record.line(&time, &target, fault.as_deref());
            serde_json::to_writer(&mut self.line, &line).expect("a record is JSON");
            let line = std::mem::take(&mut self.line);
            match &self.link {
                None => self.access(&line),
                Some(_) => self.leave(Told::Access(String::from_utf8_lossy(&line).into_owned())),
            }
            self.line = line;
        }
        if let Some((place, door)) = &record.place {
            self.tell(record, place, door, &time, &target, fault.as_deref());
        }
    }

    /// Write into the container's own log.
    fn tell(
        &mut self,
        record: &Record,
        place: &Place,
        door: &KitDoor,
        time: &str,
        target: &str,
        fault: Option<&str>,
    ) {
        let store = self.logs.store();
        let (mut url, mut service) = (String::with_capacity(160 + target.len()), String::new());
        if let Some(host) = &record.host {
            let _ = write!(url, "{}://{host}", record.scheme);
        }
        url.push_str(target);
        let service = match door.port {
            Some(port) => {
                let _ = write!(service, "{}-{port}", door.service);
                &service
            }
            None => door.service,
        };
        let given = record.text.header("traceparent");
        let given = given.as_deref().and_then(trace_of).map(str::to_owned);
        let trace = match (given, record.opened) {
            (Some(given), _) => given,
            (None, Some(number)) => store.trace_of(number),
            (None, None) => store.trace(),
        };
        let own = door.service == SERVICE && record.status < 400;
        let content_type = record.content_type.as_ref();
        let exchange = Exchange {
            method: cut(record.method.as_str()),
            url: &url,
            client: record.client,
            status: Some(record.status),
            index: door.index,
            scheme: record.scheme,
            http: record.http,
            duration_ms: (!record.open).then(|| millis(record.took)),
            upstream_ms: record.upstream.map(millis),
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            content_type: content_type.and_then(|it| it.to_str().ok()).map(cut),
            refusal: record.refusal,
            fault,
            websocket: record.websocket,
            text: &record.text,
        };
        let draft = Draft {
            ts_ms: record.started.as_millisecond(),
            ts_iso: time,
            trace: &trace,
            kind: match (record.opened, record.open) {
                (Some(_), false) => Kind::Response,
                _ => Kind::Request,
            },
            level: if own {
                Level::Debug
            } else {
                Level::of(record.status)
            },
            service,
            exchange: Some(exchange),
            event: None,
        };
        let scope = scope(place);
        match &self.link {
            None => store.append(scope, &draft),
            Some(_) => {
                let entry = draft.unnumbered(scope);
                self.leave(told(scope, entry));
            }
        }
    }

    /// A failure of the access log is said once, and again after it has worked meanwhile.
    fn judge(&mut self, done: io::Result<()>) {
        match done {
            Ok(()) => self.broken = false,
            Err(error) if !self.broken => {
                self.broken = true;
                error!(%error, "could not write the access log");
            }
            Err(_) => {}
        }
    }
}

impl Record {
    fn line<'a>(&'a self, time: &'a str, target: &'a str, fault: Option<&'a str>) -> Line<'a> {
        let admitted = self.place.as_ref().filter(|_| self.admitted);
        let (place, door) = (admitted.map(|it| &it.0), admitted.map(|it| &it.1));
        Line {
            time,
            client: self.client,
            host: self.host.as_ref().map(Name::as_str),
            container: place.map(|place| place.container),
            project: place.map(|place| place.project),
            service: door.map(|door| door.service),
            index: door.and_then(|door| door.index),
            port: door.and_then(|door| door.port),
            scheme: self.scheme,
            http: self.http,
            method: cut(self.method.as_str()),
            target,
            status: self.status,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration_ms: millis(self.took),
            upstream_ms: self.upstream.map(millis),
            refusal: self.refusal,
            fault,
            websocket: self.websocket,
        }
    }
}

/// The beginning of a text in ASCII.
fn cut(text: &str) -> &str {
    text.get(..WORD_BYTES).unwrap_or(text)
}

/// To a microsecond.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

/// The trace id of a `traceparent` (W3C Trace Context, section 3.2.2).
fn trace_of(header: &str) -> Option<&str> {
    let mut parts = header.split('-');
    let (_, trace) = (parts.next()?, parts.next()?);
    let is_one = trace.len() == 32
        && trace
            .bytes()
            .all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
        && trace.bytes().any(|it| it != b'0');
    is_one.then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_id_is_taken_from_its_header() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let cases = [
            (format!("00-{id}-00f067aa0ba902b7-01"), Some(id)),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), None),
            (format!("00-{}-1-01", id.to_uppercase()), None),
            ("***".to_owned(), None),
            (String::new(), None),
        ];
        for (header, expected) in cases {
            assert_eq!(trace_of(&header), expected, "{header}");
        }
    }

    fn place(id: u8) -> Arc<Place> {
        Arc::new(Place {
            container: Id([id; 12]),
            project: Id([9; 12]),
            name: "web".into(),
            state: routes::table::State::Running,
            incarnation: 1,
            directory: "/run/c".into(),
            owners: routes::table::Owners { base: 0, count: 0 },
            access: None,
            links: None,
            hooks: None,
            address: None,
            embedding: Default::default(),
        })
    }

    fn record(place: Option<Arc<Place>>) -> Box<Record> {
        let door = KitDoor {
            service: "files",
            index: Some(1),
            port: None,
            subdir: None,
            desktop: false,
        };
        Box::new(Record {
            started: jiff::Timestamp::UNIX_EPOCH,
            client: "192.0.2.1".parse().expect("an address"),
            host: None,
            place: place.map(|place| (place, door)),
            admitted: true,
            scheme: "http",
            http: "1.1",
            method: http::Method::GET,
            text: Capture::target_alone(b"/"),
            secrets: Vec::new(),
            status: 200,
            content_type: None,
            bytes_in: 0,
            bytes_out: 0,
            took: Duration::ZERO,
            upstream: None,
            refusal: None,
            fault: None,
            websocket: false,
            opened: None,
            open: false,
        })
    }

    /// The lines of a container's log on disk.
    fn lines(directory: &Path, id: u8) -> Vec<serde_json::Value> {
        let mut lines = Vec::new();
        for file in std::fs::read_dir(directory.join(Id([id; 12]).to_string()))
            .into_iter()
            .flatten()
        {
            let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
            lines.extend(
                text.lines()
                    .map(|line| serde_json::from_str(line).expect("JSON")),
            );
        }
        lines
    }

    #[test]
    fn what_there_is_no_room_for_is_counted_and_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let logs = Logs::new(
            directory.path().to_owned(),
            proxy_logs::Limits::default(),
            |_| true,
        );
        // A queue of one, and a writer that is behind.
        let (sender, records) = sync_channel(1);
        let lost = Arc::new(Lost::default());
        let journal = Journal {
            sender,
            lost: lost.clone(),
            opened: AtomicU64::new(0),
        };
        assert!(journal.write(record(Some(place(1)))));
        for _ in 0..3 {
            assert!(!journal.write(record(Some(place(1)))));
        }
        assert!(!journal.write(record(Some(place(2)))));
        assert!(!journal.write(record(None)), "it is in no container's log");
        drop(journal);
        let writer = Writer {
            sink: None,
            logs,
            lost,
            unwritten: IntCounter::new("x", "x").expect("a name"),
            line: Vec::new(),
            broken: false,
            link: None,
        };
        writer.run(&records);
        let told = lines(directory.path(), 1);
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[0]["kind"], "request");
        assert_eq!(told[1]["level"], "warn");
        assert_eq!(
            (&told[1]["data"]["event"], &told[1]["data"]["count"]),
            (&"lost".into(), &3.into())
        );
        assert_eq!(lines(directory.path(), 2)[0]["data"]["count"], 1);
    }

    #[test]
    fn losers_are_bounded() {
        let lost = Lost::default();
        for number in 0..LOSERS as u32 + 10 {
            let mut place = Place::clone(&place(1));
            place.container.0[..4].copy_from_slice(&number.to_be_bytes());
            lost.add(&record(Some(Arc::new(place))));
        }
        assert_eq!(lost.take().len(), LOSERS);
        assert!(lost.take().is_empty());
    }

    #[test]
    fn the_file_is_bounded() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("logs/access.log");
        let mut file = LogFile::open(&path, 100).expect("a file");
        for _ in 0..50 {
            file.line(&[b'x'; 10]).expect("written");
        }
        file.file.flush().expect("flushed");
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
        assert!(size(&path) <= 100);
        assert_eq!(size(&path.with_extension("log.1")), 100);
    }
}
