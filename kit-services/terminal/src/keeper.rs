//! The task that owns a session.
//!
//! ```text
//!            first prompt            a line is accepted, or a command is typed
//!  Starting ──────────────▶ Prompt ◀───────────────────────────▶ Busy
//!      │                      │          the next prompt           │
//!      └──────────────────────┴───────────── Ended ◀───────────────┘
//! ```
//!
//! The keeper reads the terminal only while every client has room for what it would read. So a
//! client that stops reading stops the program, and nothing piles up here. Input and orders do
//! not wait for output: an interrupt reaches a program that cannot write.

use std::collections::VecDeque;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal};
use tokio::process::Child;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::account::Account;
use crate::id;
use crate::launch::Launch;
use crate::marks::{Mark, Marks, Piece};
use crate::pty::{Pty, Size};
use crate::running::{self, CHUNK, From, Running, STDERR_PATIENCE, Stop};
use crate::screen::Screen;
use crate::scrollback::{Scrollback, without_questions};
use crate::session::{Attached, Close, End, History, Job, Order, Phase, Spec, StartSession, View};
use crate::shell::Flavour;
use crate::system::processes;
use crate::workdir::Workdir;

/// Output that a session remembers for those who come later.
const SCROLLBACK_BYTES: usize = 1 << 20;
/// Pieces of output on their way to one client; with [`CHUNK`] at most 256 KiB.
const SEAT_CHUNKS: usize = 32;
/// Clients of one session.
const MAX_SEATS: usize = 64;
/// Typed input that waits for the program to read.
const MAX_PENDING: usize = 256 << 10;
/// Commands that wait for their turn.
const MAX_QUEUE: usize = 1024;
/// Pipes held by processes that commands left in the background.
const MAX_FOLLOWED: usize = 128;
/// Characters of a window title.
const MAX_TITLE: usize = 256;
/// Echo withheld while a command is on its way to the shell.
const MAX_WITHHELD: usize = 64 << 10;

/// How long a half-typed line is left alone before a command takes the prompt.
const TYPING: Duration = Duration::from_millis(300);
/// How long the prompt may take to come back after a half-typed line was cancelled.
const SETTLING: Duration = Duration::from_secs(1);
/// How often to look whether the shell is in the foreground again.
const FOREGROUND: Duration = Duration::from_millis(50);
/// How long after a prompt a command that did not begin is typed again; the shell runs it once.
const RETYPE: Duration = Duration::from_millis(250);
/// How long a shell at its prompt may take to begin a command.
const BEGIN_WITHIN: Duration = Duration::from_secs(10);
/// How long a shell may take to its first prompt while a command waits for it.
const START_WITHIN: Duration = Duration::from_secs(30);
/// From interrupt to kill, and from kill to killing the shell.
const UNTIL_KILL: Duration = Duration::from_millis(500);
/// From hang-up to kill when a session is closed.
const UNTIL_CLOSED: Duration = Duration::from_millis(500);
/// How long output may follow the end of the shell.
const LAST_WORDS: Duration = Duration::from_millis(100);

const INTERRUPT: u8 = 0x03;
const ENTER: u8 = b'\r';

/// A client's place.
#[derive(Debug)]
struct Seat {
    id: u64,
    output: mpsc::Sender<Bytes>,
    readonly: bool,
    size: Option<Size>,
}

#[derive(Debug)]
pub struct Keeper {
    name: String,
    secret: String,
    account: Account,
    flavour: Flavour,
    idle: Duration,
    workdir: Workdir,
    pty: Pty,
    child: Child,
    leader: Pid,
    marks: Option<Marks>,
    buffer: Vec<u8>,

    scrollback: Scrollback,
    screen: Option<Screen>,
    seats: Vec<Seat>,
    next_seat: u64,
    /// Output of this round, not yet handed out.
    outbox: Vec<u8>,

    orders: mpsc::Receiver<Order>,
    typed: mpsc::Receiver<Bytes>,
    /// Input the terminal did not take yet.
    pending: VecDeque<u8>,

    phase: Phase,
    started: Instant,
    size: Size,
    title: String,
    written: u64,
    /// When something was last typed at the prompt that is still there.
    half_typed: Option<Instant>,
    typed_ahead: bool,
    /// Until when the prompt is waited for after a half-typed line was cancelled.
    settling: Option<Instant>,
    /// When to try again to start the next command.
    again: Option<Instant>,
    quiet_since: Instant,

    queue: VecDeque<Job>,
    current: Option<Running>,
    number: u64,
    followed: Arc<Semaphore>,
    strays: (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>),

    closing: Option<(Close, Instant)>,
    exit: Option<(ExitStatus, Instant)>,
    hung_up: bool,
    /// Nobody is left who could send orders.
    unattended: bool,
    history: Arc<History>,
    view: watch::Sender<View>,
}

/// What happened.
enum Event {
    Order(Order),
    NoOrders,
    Typed(Bytes),
    Writable,
    Output(Source),
    Room,
    Exited(io::Result<ExitStatus>),
    Time,
}

/// Where output can be read.
enum Source {
    Terminal,
    Command(From),
    Stray(Bytes),
}

impl Keeper {
    pub fn start(
        spec: &Spec,
        orders: mpsc::Receiver<Order>,
        typed: mpsc::Receiver<Bytes>,
        view: watch::Sender<View>,
        history: Arc<History>,
    ) -> Result<Keeper, StartSession> {
        let secret = id::fresh();
        let flavour = Flavour::of(&spec.shell);
        let files = |source| StartSession::PrepareFiles {
            path: spec.state.clone(),
            source,
        };
        let workdir = Workdir::create(&spec.state, &spec.account).map_err(files)?;
        for (name, content) in flavour.files(&workdir.path, &secret) {
            workdir.write(name, &content).map_err(files)?;
        }
        let mut environment = spec.account.environment(&spec.environment);
        environment.insert(
            "SHELL".to_owned(),
            spec.shell.to_string_lossy().into_owned(),
        );
        environment.insert("HOODY_TERMINAL_ID".to_owned(), spec.id.to_string());
        environment.extend(flavour.environment(&workdir.path));
        let pty = Pty::open(&spec.account, spec.size)
            .map_err(|source| StartSession::OpenTerminal { source })?;
        let launch = Launch {
            program: spec.shell.clone(),
            arguments: flavour.arguments(&workdir.path),
            account: spec.account.clone(),
            environment,
            directory: spec.directory.clone(),
        };
        let start = |source| StartSession::StartShell {
            shell: spec.shell.clone(),
            source,
        };
        let child = launch.on_terminal(&pty).map_err(start)?;
        let leader = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
            .expect("a child that was not waited for has an id");
        let now = Instant::now();
        Ok(Keeper {
            name: spec.id.to_string(),
            marks: Some(Marks::new(&secret)),
            secret,
            account: spec.account.clone(),
            flavour,
            idle: spec.idle,
            workdir,
            pty,
            child,
            leader,
            buffer: vec![0; CHUNK],
            scrollback: Scrollback::new(SCROLLBACK_BYTES),
            screen: None,
            seats: Vec::new(),
            next_seat: 0,
            outbox: Vec::new(),
            orders,
            typed,
            pending: VecDeque::new(),
            phase: Phase::Starting,
            started: now,
            size: spec.size,
            title: String::new(),
            written: 0,
            half_typed: None,
            typed_ahead: false,
            settling: None,
            again: None,
            quiet_since: now,
            queue: VecDeque::new(),
            current: None,
            number: 0,
            followed: Arc::new(Semaphore::new(MAX_FOLLOWED)),
            strays: mpsc::channel(1),
            closing: None,
            exit: None,
            hung_up: false,
            unattended: false,
            history,
            view,
        })
    }

    /// The process of the shell.
    pub fn leader(&self) -> Pid {
        self.leader
    }

    /// Keep the session until it is over.
    pub async fn run(mut self) {
        tracing::debug!(terminal.id = %self.name, pid = %self.leader.as_raw_nonzero(), "began terminal {}", self.name);
        loop {
            let event = self.next().await;
            self.handle(event);
            self.tick();
            self.start_next();
            self.hand_out();
            self.publish();
            if self.is_done() {
                break;
            }
        }
        self.end().await;
    }

    /// Wait for what happens next.
    async fn next(&mut self) -> Event {
        let wake = self.wake();
        let is_exited = self.exit.is_some();
        let Keeper {
            orders,
            typed,
            pty,
            child,
            seats,
            current,
            strays,
            pending,
            outbox,
            hung_up,
            unattended,
            ..
        } = self;
        let (pty, seats) = (&*pty, &*seats);
        let timer = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            order = orders.recv(), if !*unattended => order.map_or(Event::NoOrders, Event::Order),
            status = child.wait(), if !is_exited => Event::Exited(status),
            _ = pty.writable(), if !pending.is_empty() && !*hung_up => Event::Writable,
            Some(bytes) = typed.recv(), if pending.len() < MAX_PENDING => Event::Typed(bytes),
            () = timer => Event::Time,
            () = room(seats), if !outbox.is_empty() => Event::Room,
            source = output(pty, *hung_up, current.as_ref(), &mut strays.1, seats) => Event::Output(source),
        }
    }

    /// The next time at which something is due.
    fn wake(&self) -> Option<Instant> {
        let current = self.current.as_ref();
        let times = [
            self.again.filter(|_| !self.queue.is_empty()),
            self.queue.iter().filter_map(|job| job.deadline).min(),
            (self.phase == Phase::Starting && !self.queue.is_empty())
                .then_some(self.started + START_WITHIN),
            current.and_then(|running| running.deadline.filter(|_| running.stopping.is_none())),
            current.and_then(|running| (!running.begun).then_some(running.typed + BEGIN_WITHIN)),
            current.and_then(|running| running.retype),
            current
                .and_then(|running| running.stopping)
                .map(|(_, at)| at),
            current
                .and_then(|running| running.ended)
                .map(|(_, until)| until),
            self.closing
                .filter(|_| self.exit.is_none())
                .map(|(_, at)| at),
            self.exit.map(|(_, until)| until),
            (self.seats.is_empty() && self.closing.is_none())
                .then_some(self.quiet_since + self.idle),
            self.screen.as_ref().map(Screen::expires),
        ];
        times.into_iter().flatten().min()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Order(order) => self.obey(order),
            // Nobody is left who could ask for anything: the kit is going down.
            Event::NoOrders => {
                self.unattended = true;
                self.close(Close::Deleted);
            }
            Event::Typed(bytes) => self.take_typed(&bytes),
            Event::Writable => self.type_pending(),
            Event::Output(source) => self.read(source),
            Event::Exited(status) => {
                // A wait that fails leaves the end unknown; the session is over all the same.
                let status = status.unwrap_or_else(|_| ExitStatus::from_raw(255 << 8));
                self.exit = Some((status, Instant::now() + LAST_WORDS));
            }
            Event::Room | Event::Time => {}
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Attach {
                size,
                readonly,
                reply,
            } => self.attach(size, readonly, reply),
            Order::Resize { seat, size } => {
                if let Some(seat) = self.seats.iter_mut().find(|known| known.id == seat) {
                    seat.size = Some(size);
                }
                self.reconcile();
            }
            Order::Detach { seat } => {
                self.seats.retain(|known| known.id != seat);
                self.quiet_since = Instant::now();
                self.reconcile();
            }
            Order::Run { job, reply } => {
                // What was typed before comes before.
                while let Ok(bytes) = self.typed.try_recv() {
                    self.take_typed(&bytes);
                }
                let refused = self.enqueue(job);
                drop(reply.send(refused));
            }
            Order::Abort { id, force } => self.abort(&id, force),
            Order::Close(why) => self.close(why),
            // Whoever asked may have gone.
            Order::Scrollback(reply) => drop(reply.send(self.scrollback.all())),
            Order::Screen(reply) => drop(reply.send(Box::new(self.look().clone()))),
        }
    }

    // ---- clients and output ----

    fn attach(
        &mut self,
        size: Option<Size>,
        readonly: bool,
        reply: tokio::sync::oneshot::Sender<Attached>,
    ) {
        self.seats.retain(|seat| !seat.output.is_closed());
        if self.seats.len() >= MAX_SEATS {
            return; // the asker sees the reply dropped
        }
        self.hand_out();
        // What is still in the outbox is not in the scrollback either: it comes later.
        let (output, receiver) = mpsc::channel(SEAT_CHUNKS);
        let seat = self.next_seat;
        self.next_seat += 1;
        let attached = Attached {
            seat,
            replay: without_questions(&self.scrollback.all()),
            output: receiver,
        };
        if reply.send(attached).is_ok() {
            self.seats.push(Seat {
                id: seat,
                output,
                readonly,
                size,
            });
            self.reconcile();
        }
    }

    /// Fit the terminal to its clients: the smallest of those who may type, so that each of them
    /// sees all of it; the smallest of all where nobody may type. With nobody there it stays.
    fn reconcile(&mut self) {
        let typists = || {
            self.seats
                .iter()
                .filter(|seat| !seat.readonly)
                .filter_map(|seat| seat.size)
        };
        let viewers = || self.seats.iter().filter_map(|seat| seat.size);
        let Some(size) = typists()
            .reduce(Size::within)
            .or_else(|| viewers().reduce(Size::within))
        else {
            return;
        };
        if size == self.size {
            return;
        }
        self.size = size;
        if let Err(error) = self.pty.resize(size) {
            tracing::debug!(%error, terminal.id = %self.name, "could not resize terminal {}", self.name);
        }
        if let Some(Running {
            channels: running::Channels::Split { err, .. },
            ..
        }) = &self.current
        {
            // The terminal of standard error is only ever asked for its size by chance.
            let _ = err.resize(size);
        }
        if let Some(screen) = &mut self.screen {
            screen.resize(size);
        }
    }

    fn read(&mut self, source: Source) {
        match source {
            Source::Terminal => match self.pty.source().read(&mut self.buffer) {
                Ok(0) => self.hung_up = true,
                Ok(count) => {
                    let bytes = self.buffer[..count].to_vec();
                    self.took(&bytes);
                    if let Some((_, until)) = &mut self.exit {
                        *until = Instant::now() + LAST_WORDS;
                    }
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                // The terminal of a program that is gone answers EIO.
                Err(_) => self.hung_up = true,
            },
            Source::Command(from) => {
                if let Some(running) = &mut self.current {
                    let shown = running.read(from, &mut self.buffer);
                    running::with_returns(&shown, &mut self.outbox);
                    self.end_if_drained();
                }
            }
            Source::Stray(bytes) => running::with_returns(&bytes, &mut self.outbox),
        }
    }

    /// Take what the terminal said.
    fn took(&mut self, bytes: &[u8]) {
        let mut marks = self.marks.take().expect("it is put back below");
        marks.feed(bytes, |piece| match piece {
            Piece::Output(bytes) => self.show(bytes),
            Piece::Title(title) => {
                self.title = title
                    .chars()
                    .take(MAX_TITLE)
                    .filter(|c| !c.is_control())
                    .collect()
            }
            Piece::Mark(mark) => self.heed(mark),
        });
        self.marks = Some(marks);
    }

    fn show(&mut self, bytes: &[u8]) {
        match &mut self.current {
            Some(running) if !running.begun => {
                running.withheld.extend_from_slice(bytes);
                if running.withheld.len() > MAX_WITHHELD {
                    self.outbox.append(&mut running.withheld);
                }
            }
            Some(running) => {
                if running.is_on_terminal() && running.ended.is_none() {
                    running.command.wrote_to_terminal(bytes);
                }
                self.outbox.extend_from_slice(bytes);
            }
            None => self.outbox.extend_from_slice(bytes),
        }
    }

    fn heed(&mut self, mark: Mark) {
        match mark {
            Mark::Prompt(code) => {
                match &mut self.current {
                    // It was interrupted, or returned past its end.
                    Some(running) if running.begun && running.ended.is_none() => {
                        self.end_command(code)
                    }
                    Some(running) if !running.begun && running.command.is_aborted() => {
                        self.fail_command("it was aborted before it began");
                    }
                    // The line that was to begin it was lost, or this is the prompt of one before.
                    Some(running) if !running.begun => {
                        running.retype = Some(Instant::now() + RETYPE)
                    }
                    _ => {}
                }
                self.phase = Phase::Prompt;
                self.half_typed = std::mem::take(&mut self.typed_ahead).then(Instant::now);
                self.settling = None;
                self.again = None;
            }
            Mark::Accepted => {
                if self.current.is_none() && self.phase == Phase::Prompt {
                    self.phase = Phase::Busy;
                    self.half_typed = None;
                }
            }
            Mark::Begin(number) => {
                let Some(running) = self
                    .current
                    .as_mut()
                    .filter(|running| running.number == number)
                else {
                    return;
                };
                running.begun = true;
                running.retype = None;
                running.command.start();
                self.phase = Phase::Busy;
                self.half_typed = None;
                let echo = std::mem::take(&mut running.withheld);
                let line = self.flavour.trigger(number).into_bytes();
                let text = running::typed(&running.command.text);
                self.outbox.extend(running::retyped(&echo, &line, &text));
                self.history.note(&running.command);
            }
            Mark::End(number, code) => {
                if let Some(running) = &mut self.current
                    && running.number == number
                    && running.begun
                {
                    running.ended = Some((code, Instant::now() + STDERR_PATIENCE));
                    self.end_if_drained();
                }
            }
        }
    }

    /// Give the clients what was shown, if all of them have room.
    fn hand_out(&mut self) {
        if self.seats.iter().any(|seat| seat.output.is_closed()) {
            self.seats.retain(|seat| !seat.output.is_closed());
            self.reconcile();
        }
        if self.outbox.is_empty() || self.seats.iter().any(|seat| seat.output.capacity() == 0) {
            return;
        }
        let bytes = Bytes::from(std::mem::take(&mut self.outbox));
        self.scrollback.push(&bytes);
        self.written += bytes.len() as u64;
        self.quiet_since = Instant::now();
        if let Some(screen) = &mut self.screen {
            screen.show(&bytes);
        }
        for seat in &self.seats {
            // There is room; a client that has just gone is let go at the next round.
            let _ = seat.output.try_send(bytes.clone());
        }
    }

    /// What is on the screen, which is worked out from the scrollback when first asked for.
    fn look(&mut self) -> &vt100::Screen {
        self.hand_out();
        let (size, scrollback) = (self.size, &self.scrollback);
        self.screen
            .get_or_insert_with(|| Screen::new(size, &scrollback.all()))
            .look()
    }

    fn publish(&mut self) {
        let running = self.current.as_ref().map(|running| &running.command.id);
        self.view.send_if_modified(|view| {
            let is_same = view.phase == self.phase
                && view.size == self.size
                && view.clients == self.seats.len()
                && view.title == self.title
                && view.written == self.written
                && view.waiting == self.queue.len()
                && view.running.as_ref() == running;
            if !is_same {
                view.phase = self.phase.clone();
                view.size = self.size;
                view.clients = self.seats.len();
                view.title.clone_from(&self.title);
                view.written = self.written;
                view.waiting = self.queue.len();
                view.running = running.cloned();
            }
            !is_same
        });
    }

    // ---- input ----

    fn take_typed(&mut self, bytes: &[u8]) {
        self.pending.extend(bytes);
        self.quiet_since = Instant::now();
        if self.phase == Phase::Prompt {
            self.half_typed = Some(Instant::now());
        } else {
            self.typed_ahead = true;
        }
        self.type_pending();
    }

    fn type_pending(&mut self) {
        while !self.pending.is_empty() {
            let (front, _) = self.pending.as_slices();
            match self.pty.write(front) {
                Ok(0) => return,
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.pending.clear();
                    self.hung_up = true;
                    return;
                }
            }
        }
        self.pending.shrink_to(CHUNK);
    }

    // ---- commands ----

    /// Take a job into the queue; given back where the session is ending.
    fn enqueue(&mut self, job: Box<Job>) -> Option<Box<Job>> {
        if self.closing.is_some() || self.exit.is_some() {
            return Some(job);
        }
        self.history.note(&job.command);
        if self.queue.len() >= MAX_QUEUE {
            job.command.fail(format!(
                "{MAX_QUEUE} commands wait in this terminal already"
            ));
            self.history.note(&job.command);
        } else {
            self.queue.push_back(*job);
        }
        None
    }

    /// Start the command whose turn it is, when the shell waits for a line.
    fn start_next(&mut self) {
        if self.current.is_some()
            || self.closing.is_some()
            || self.exit.is_some()
            || self.phase != Phase::Prompt
        {
            return;
        }
        let now = Instant::now();
        while !self.queue.is_empty() {
            if let Some(until) = self.settling.filter(|until| *until > now) {
                self.again = Some(until);
                return;
            }
            if self.pty.foreground() != Some(self.leader) {
                self.again = Some(now + FOREGROUND);
                return;
            }
            if let Some(at) = self.half_typed {
                if at + TYPING > now {
                    self.again = Some(at + TYPING);
                    return;
                }
                self.half_typed = None;
                self.settling = Some(now + SETTLING);
                self.again = self.settling;
                self.pending.push_back(INTERRUPT);
                self.type_pending();
                return;
            }
            self.settling = None;
            let job = self.queue.pop_front().expect("it is not empty");
            self.number += 1;
            let prepared = Running::prepare(
                &job,
                self.number,
                &self.secret,
                self.flavour,
                &self.workdir,
                &self.account,
                self.size,
            );
            match prepared {
                Ok(running) => {
                    self.current = Some(running);
                    self.phase = Phase::Busy;
                    self.type_trigger();
                    return;
                }
                Err(error) => {
                    job.command
                        .fail(format!("could not prepare the command: {error}"));
                    self.history.note(&job.command);
                }
            }
        }
    }

    /// Type the line that begins the command at work.
    fn type_trigger(&mut self) {
        self.pending
            .extend(self.flavour.trigger(self.number).as_bytes());
        self.pending.push_back(ENTER);
        self.type_pending();
    }

    fn end_if_drained(&mut self) {
        if let Some(running) = &self.current
            && let Some((code, until)) = running.ended
            && (running.is_drained() || until <= Instant::now())
        {
            self.end_command(code);
        }
    }

    /// The command at work ended with this code.
    fn end_command(&mut self, code: i32) {
        if let Some(running) = self.put_down() {
            running.command.complete(code);
            self.history.note(&running.command);
        }
    }

    /// Take what is left of the command at work.
    fn put_down(&mut self) -> Option<Running> {
        let mut running = self.current.take()?;
        self.outbox.append(&mut running.withheld);
        let (shown, held) = running.drain(&self.workdir);
        running::with_returns(&shown, &mut self.outbox);
        for source in held {
            // Beyond the bound a pipe is closed, and who writes to it next is told so.
            if let Ok(place) = self.followed.clone().try_acquire_owned() {
                running::follow(source, self.strays.0.clone(), place);
            }
        }
        running.clean(&self.workdir);
        Some(running)
    }

    fn fail_command(&mut self, message: &str) {
        if let Some(running) = self.put_down() {
            running.command.fail(message);
            self.history.note(&running.command);
        }
    }

    fn abort(&mut self, id: &str, force: bool) {
        if let Some(at) = self.queue.iter().position(|job| job.command.id == id) {
            let job = self.queue.remove(at).expect("it was found there");
            job.command.note_abort();
            job.command.fail("it was aborted before it began");
            self.history.note(&job.command);
        } else if let Some(running) = self
            .current
            .as_mut()
            .filter(|running| running.command.id == id)
        {
            running.command.note_abort();
            if !running.begun {
                // As a key, which has the terminal forget the line that was typed.
                self.pending.push_back(INTERRUPT);
                self.type_pending();
            } else if force {
                self.stop(Stop::Kill);
            } else {
                self.interrupt();
            }
        }
    }

    /// Interrupt whatever is in the foreground.
    fn interrupt(&self) {
        // In the foreground is a program's group, or the shell's own while it runs builtins.
        let group = self.pty.foreground().unwrap_or(self.leader);
        let _ = rustix::process::kill_process_group(group, Signal::INT);
    }

    /// Go to this step of ending the command at work.
    fn stop(&mut self, step: Stop) {
        let Some(running) = &mut self.current else {
            return;
        };
        let next = Instant::now() + UNTIL_KILL;
        running.stopping = Some((step, next));
        match step {
            Stop::Interrupt => self.interrupt(),
            Stop::Kill => {
                let group = self.pty.foreground().unwrap_or(self.leader);
                if group == self.leader {
                    // What the shell runs in its own group goes; the shell gets an interrupt.
                    for stat in processes::of_session(self.leader) {
                        let is_shell = stat.pid == self.leader.as_raw_nonzero().get();
                        if stat.group == group.as_raw_nonzero().get() && !is_shell {
                            processes::signal(stat.pid, Signal::KILL);
                        }
                    }
                    self.interrupt();
                } else {
                    let _ = rustix::process::kill_process_group(group, Signal::KILL);
                }
            }
            Stop::KillShell => {
                tracing::warn!(terminal.id = %self.name, "killed the shell of terminal {}, which did not let go of a command", self.name);
                let _ = rustix::process::kill_process(self.leader, Signal::KILL);
            }
        }
    }

    // ---- time and end ----

    /// Do what is due.
    fn tick(&mut self) {
        let now = Instant::now();
        self.again = self.again.filter(|at| *at > now);
        self.expire_queue(now);
        if let Some(running) = &self.current {
            let is_late = running.deadline.is_some_and(|deadline| deadline <= now);
            if !running.begun
                && (running.typed + BEGIN_WITHIN <= now || (is_late && running.stopping.is_none()))
            {
                if is_late {
                    running.command.note_timeout();
                }
                self.fail_command("the shell did not take the command");
            } else if is_late && running.stopping.is_none() {
                running.command.note_timeout();
                self.stop(Stop::Interrupt);
            } else if let Some((step, at)) = running.stopping
                && at <= now
            {
                self.stop(if step == Stop::Interrupt {
                    Stop::Kill
                } else {
                    Stop::KillShell
                });
            }
        }
        if let Some(running) = &mut self.current
            && running.retype.is_some_and(|at| at <= now)
        {
            running.retype = None;
            self.type_trigger();
        }
        self.end_if_drained();
        if let Some((_, at)) = self.closing
            && at <= now
            && self.exit.is_none()
        {
            processes::signal_session(self.leader, Signal::KILL);
            // In the case that it is not in its session's list any more.
            let _ = rustix::process::kill_process(self.leader, Signal::KILL);
            self.closing = self.closing.map(|(why, _)| (why, now + UNTIL_CLOSED));
        }
        if self
            .screen
            .as_ref()
            .is_some_and(|screen| screen.expires() <= now)
        {
            self.screen = None;
        }
        if self.seats.is_empty() && self.closing.is_none() && self.quiet_since + self.idle <= now {
            if self.queue.is_empty()
                && self.current.is_none()
                && processes::of_session(self.leader).len() <= 1
            {
                self.close(Close::Idle);
            } else {
                self.quiet_since = now;
            }
        }
    }

    fn expire_queue(&mut self, now: Instant) {
        let is_stuck = self.phase == Phase::Starting && self.started + START_WITHIN <= now;
        let mut at = 0;
        while at < self.queue.len() {
            let is_late = self.queue[at]
                .deadline
                .is_some_and(|deadline| deadline <= now);
            if !is_late && !is_stuck {
                at += 1;
                continue;
            }
            let job = self
                .queue
                .remove(at)
                .expect("the index is below the length");
            if is_late {
                job.command.note_timeout();
                job.command.fail("its time was over before its turn came");
            } else {
                job.command
                    .fail("the shell did not come to its first prompt");
            }
            self.history.note(&job.command);
        }
    }

    fn close(&mut self, why: Close) {
        if self.closing.is_some() || self.exit.is_some() {
            return;
        }
        self.closing = Some((why, Instant::now() + UNTIL_CLOSED));
        for signal in [Signal::HUP, Signal::CONT] {
            processes::signal_session(self.leader, signal);
        }
    }

    fn is_done(&self) -> bool {
        self.exit
            .is_some_and(|(_, until)| self.hung_up || until <= Instant::now())
    }

    /// Leave nothing behind.
    async fn end(mut self) {
        let code = self.exit.map_or(255, |(status, _)| exit_code(status));
        if let Some(rest) = self.marks.as_mut().map(Marks::finish) {
            self.show(&rest);
        }
        let last = self.put_down();
        self.orders.close();
        while let Ok(order) = self.orders.try_recv() {
            if let Order::Run { job, reply } = order {
                drop(reply.send(Some(job)));
            }
        }
        if let Some((_, until)) = self.closing {
            self.clear(until).await;
            processes::signal_session(self.leader, Signal::KILL);
            self.clear(Instant::now() + UNTIL_CLOSED).await;
        }
        self.hand_out();
        self.publish();
        tracing::debug!(terminal.id = %self.name, code, "ended terminal {}", self.name);
        let end = self
            .closing
            .map_or(End::Exited(code), |(why, _)| End::Closed(why));
        let (view, queue, closing) = (
            self.view.clone(),
            std::mem::take(&mut self.queue),
            self.closing,
        );
        // Whoever hears of the end finds nothing left; a caller whose command ended the session
        // hears of it last, and finds it ended.
        drop(self);
        view.send_modify(|view| {
            view.phase = Phase::Ended(end);
            view.clients = 0;
        });
        if let Some(running) = last {
            match closing {
                Some(_) => running.command.fail("the terminal was closed while it ran"),
                // The command was one that ends the shell.
                None if running.begun => running.command.complete(code),
                None => running
                    .command
                    .fail("the shell ended before the command began"),
            }
        }
        for job in queue {
            job.command.fail("the terminal ended before its turn came");
        }
    }
}

impl Keeper {
    /// Wait until nothing of the session is left.
    async fn clear(&self, until: Instant) {
        const LOOK: Duration = Duration::from_millis(10);
        while Instant::now() < until && !processes::of_session(self.leader).is_empty() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The code of an end as shells have it.
pub fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Wait until every client has room.
async fn room(seats: &[Seat]) {
    for seat in seats {
        // A client that is gone needs no room.
        let _ = seat.output.reserve().await;
    }
}

/// Wait until every client has room and there is output for them.
async fn output(
    pty: &Pty,
    hung_up: bool,
    current: Option<&Running>,
    strays: &mut mpsc::Receiver<Bytes>,
    seats: &[Seat],
) -> Source {
    room(seats).await;
    let command = async {
        match current {
            // Before its begin, what it wrote would be shown before the line that asked for it.
            Some(running) if running.begun => running.readable().await,
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = pty.source().readable(), if !hung_up => Source::Terminal,
        from = command => Source::Command(from),
        Some(bytes) = strays.recv() => Source::Stray(bytes),
    }
}
