//! What is written down of requests, by a thread of its own: the access log of the node, one JSON
//! object a line, and the log of each container.
//!
//! A request leaves a [`Record`] and goes on; what costs time (redacting, formatting, files) is
//! the writer's. The access log is the only place where whole ids of all containers are written
//! down. Bodies never are, and the values of query parameters that look like secrets are not.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use prometheus::IntCounter;
use proxy_logs::json::Object;
use proxy_logs::{Capture, Draft, Event, Exchange, Key, Kind, Level, Logs, Scope, Store};
use routes::Id;
use routes::address::Name;
use routes::table::{Place, Table};
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
/// While requests keep coming, the logs of containers are brought to disk this often: each is a
/// file of its own. Whoever reads or follows one sees an entry before.
const KEEP: Duration = Duration::from_millis(200);
/// Between two looks for what is too old.
const SWEEP: Duration = Duration::from_secs(600);
/// Containers whose lost records are counted apart, until they can be told.
const LOSERS: usize = 1_024;

/// Lines of the access log that are written at once, at most.
const LINES_BYTES: usize = 64 << 10;
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
    /// Microseconds since 1970.
    pub started: i64,
    /// The client's address.
    pub client: http::HeaderValue,
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
            clock: Clock::default(),
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
    /// Add a line and its end.
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Sink::Stdout(out) => out.write_all(line).and_then(|()| out.write_all(b"\n")),
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
            file: BufWriter::with_capacity(LINES_BYTES, file),
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
        self.bytes += line.len() as u64 + 1;
        self.file.write_all(line)?;
        self.file.write_all(b"\n")
    }
}

/// The thread that writes.
struct Writer {
    sink: Option<Sink>,
    logs: Logs,
    lost: Arc<Lost>,
    unwritten: IntCounter,
    line: Vec<u8>,
    clock: Clock,
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
            // What comes after a silence is kept at once.
            let mut kept: Option<Instant> = None;
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
                self.show();
                if kept.is_none_or(|kept| kept.elapsed() >= KEEP) {
                    self.flush();
                    kept = Some(Instant::now());
                }
                if ended {
                    break;
                }
                std::thread::sleep(GATHER);
            }
            self.flush();
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

    /// Bring the lines so far to where they are followed.
    fn show(&mut self) {
        if let Some(link) = &mut self.link {
            return self.logs.store().count_lost(link.flush());
        }
        self.logs.store().show();
        let done = self.sink.as_mut().map_or(Ok(()), Sink::flush);
        self.judge(done);
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
        let done = sink.line(line);
        self.judge(done);
    }

    fn write(&mut self, record: &Record) {
        let target = proxy_logs::redact::redact(&record.text.target(), &record.secrets);
        let fault = record
            .fault
            .map(|(side, reason)| format!("{side}: {reason}"));
        let time = self.clock.text(record.started);
        if let Some((place, door)) = &record.place {
            let (store, scope) = (self.logs.store(), scope(place));
            let then = |draft: &Draft<'_>| match &mut self.link {
                None => store.append(scope, draft),
                Some(link) => {
                    let entry = draft.unnumbered(scope);
                    store.count_lost(link.tell(&told(scope, entry)));
                }
            };
            drafted(store, record, door, time, &target, fault.as_deref(), then);
        }
        if !record.open && self.sink.is_some() {
            let mut line = std::mem::take(&mut self.line);
            line.clear();
            record.line(&mut line, time, &target, fault.as_deref());
            match &self.link {
                None => self.access(&line),
                Some(_) => self.leave(Told::Access(String::from_utf8_lossy(&line).into_owned())),
            }
            self.line = line;
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

/// What a container's own log has of a request.
fn drafted(
    store: &Store,
    record: &Record,
    door: &KitDoor,
    time: &str,
    target: &str,
    fault: Option<&str>,
    then: impl FnOnce(&Draft<'_>),
) {
    let with_port;
    let url = match &record.host {
        Some(host) if host.port().is_some() => {
            with_port = host.to_string();
            &[record.scheme, "://", &with_port, target][..]
        }
        Some(host) => &[record.scheme, "://", host.as_str(), target],
        None => &[target],
    };
    let with_number;
    let service = match door.port {
        Some(number) => {
            with_number = [door.service, "-", itoa::Buffer::new().format(number)].concat();
            &with_number
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
    let exchange = Exchange {
        method: cut(record.method.as_str()),
        url,
        client: text_of(&record.client),
        status: Some(record.status),
        index: door.index,
        scheme: record.scheme,
        http: record.http,
        duration: (!record.open).then_some(record.took),
        upstream: record.upstream,
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        refusal: record.refusal,
        fault,
        websocket: record.websocket,
        text: &record.text,
    };
    let draft = Draft {
        ts_ms: record.started.div_euclid(1_000),
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
    then(&draft);
}

/// The text of a header that the proxy itself has made.
fn text_of(value: &http::HeaderValue) -> &str {
    value.to_str().unwrap_or_default()
}

/// Says the time, and reckons the date once a second.
#[derive(Debug)]
struct Clock {
    second: i64,
    text: String,
}

/// A time without its fraction: `2026-11-24T18:37:09`.
const SECOND_BYTES: usize = 19;

impl Default for Clock {
    fn default() -> Self {
        Clock {
            second: i64::MIN,
            text: String::new(),
        }
    }
}

impl Clock {
    /// This microsecond since 1970 (RFC 3339).
    fn text(&mut self, micros: i64) -> &str {
        let (second, rest) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
        if second != self.second {
            let time = jiff::Timestamp::from_second(second).unwrap_or_default();
            self.text = time.to_string();
            self.second = second;
        }
        self.text.truncate(SECOND_BYTES);
        self.text.push('.');
        for unit in [100_000, 10_000, 1_000, 100, 10, 1] {
            self.text.push(char::from(b'0' + (rest / unit % 10) as u8));
        }
        self.text.push('Z');
        &self.text
    }
}

impl Record {
    /// Its line in the access log: JSON without the line feed.
    fn line(&self, out: &mut Vec<u8>, time: &str, target: &str, fault: Option<&str>) {
        let admitted = self.place.as_ref().filter(|_| self.admitted);
        let mut line = Object::open(out);
        line.text("time", time);
        line.text("client", text_of(&self.client));
        line.some_text("host", self.host.as_ref().map(Name::as_str));
        if let Some((place, door)) = admitted {
            line.hex("container", &place.container.0);
            line.hex("project", &place.project.0);
            line.text("service", door.service);
            line.some_number("index", door.index.map(u64::from));
            line.some_number("port", door.port.map(u64::from));
        }
        line.text("scheme", self.scheme);
        line.text("http", self.http);
        line.text("method", cut(self.method.as_str()));
        line.text("target", target);
        line.number("status", self.status.into());
        line.number("bytes_in", self.bytes_in);
        line.number("bytes_out", self.bytes_out);
        line.millis("duration_ms", self.took);
        if let Some(waited) = self.upstream {
            line.millis("upstream_ms", waited);
        }
        line.some_text("refusal", self.refusal);
        line.some_text("fault", fault);
        if self.websocket {
            line.yes("websocket");
        }
        line.close();
    }
}

/// The beginning of a text in ASCII.
fn cut(text: &str) -> &str {
    text.get(..WORD_BYTES).unwrap_or(text)
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
            sleep: Default::default(),
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
            started: 0,
            client: http::HeaderValue::from_static("192.0.2.1"),
            host: None,
            place: place.map(|place| (place, door)),
            admitted: true,
            scheme: "http",
            http: "1.1",
            method: http::Method::GET,
            text: Capture::target_alone(b"/"),
            secrets: Vec::new(),
            status: 200,
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
            clock: Clock::default(),
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
    fn the_clock_says_what_the_calendar_says() {
        let mut clock = Clock::default();
        for micros in [
            0,
            1,
            999_999,
            1_700_000_000_123_456,
            1_700_000_000_123_457,
            1_709_164_800_000_000,
            -1,
        ] {
            let text = clock.text(micros).to_owned();
            let read: jiff::Timestamp = text.parse().expect("a time");
            assert_eq!(read.as_microsecond(), micros, "{text}");
        }
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
            file.line(&[b'x'; 9]).expect("written");
        }
        file.file.flush().expect("flushed");
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
        assert!(size(&path) <= 100);
        assert_eq!(size(&path.with_extension("log.1")), 100);
    }
}
