//! The task that owns a session.
//!
//! ```text
//!            first prompt            a line is accepted, or a command is typed
//!  Starting ──────────────▶ Prompt ◀───────────────────────────▶ Busy
//!      │                      │          the next prompt           │
//!      └──────────────────────┴───────────── Ended ◀───────────────┘
//! ```
//!
//! [`audience`] is what it does with output and clients, [`commands`] how it runs commands.
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

use crate::id;
use crate::launch::Launch;
use crate::marks::Marks;
use crate::pty::{Pty, Size};
use crate::running::{CHUNK, From, Running, Stop};
use crate::screen::Screen;
use crate::scrollback::Scrollback;
use crate::session::{Close, End, History, Job, Order, Phase, Spec, StartSession, View};
use crate::shell::Flavour;
use crate::ssh::Reach;
use crate::system::processes;
use crate::workdir::Workdir;
use accounts::Account;

mod audience;
mod commands;

/// Output that a session remembers for those who come later.
const SCROLLBACK_BYTES: usize = 1 << 20;
/// Typed input that waits for the program to read.
const MAX_PENDING: usize = 256 << 10;
/// Pipes held by processes that commands left in the background.
const MAX_FOLLOWED: usize = 128;

/// How long a shell at its prompt may take to begin a command.
const BEGIN_WITHIN: Duration = Duration::from_secs(10);
/// How long a shell may take to its first prompt while a command waits for it.
const START_WITHIN: Duration = Duration::from_secs(30);
/// From hang-up to kill when a session is closed.
const UNTIL_CLOSED: Duration = Duration::from_millis(500);
/// How long output may follow the end of the shell.
const LAST_WORDS: Duration = Duration::from_millis(100);

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
    reach: Option<Arc<Reach>>,
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
    /// It came to its end in good order.
    is_ended: bool,
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
        let reach = spec
            .ssh
            .as_ref()
            .map(|target| target.prepare(&spec.shell, spec.connector.as_deref(), &workdir))
            .transpose()
            .map_err(files)?
            .map(Arc::new);
        let mut environment = spec.account.environment(&spec.environment);
        environment.insert(
            "SHELL".to_owned(),
            spec.shell.to_string_lossy().into_owned(),
        );
        environment.insert("HOODY_TERMINAL_ID".to_owned(), spec.id.to_string());
        environment.extend(flavour.environment(&workdir.path));
        environment.extend(reach.iter().flat_map(|reach| reach.environment.clone()));
        let pty = Pty::open(&spec.account, spec.size)
            .map_err(|source| StartSession::OpenTerminal { source })?;
        let launch = Launch {
            program: spec.shell.clone(),
            arguments: match &reach {
                Some(reach) => reach.session(),
                None => flavour.arguments(&workdir.path),
            },
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
            reach,
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
            // What is no shell of ours never says that it waits for a line.
            phase: if flavour.takes_commands() {
                Phase::Starting
            } else {
                Phase::Busy
            },
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
            is_ended: false,
            history,
            view,
        })
    }

    /// The process of the shell.
    pub fn leader(&self) -> Pid {
        self.leader
    }

    /// How commands get to the machine of the session, where that is another.
    pub fn reach(&self) -> Option<Arc<Reach>> {
        self.reach.clone()
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
        self.is_ended = true;
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

impl Drop for Keeper {
    /// Let nobody wait for a keeper that broke down.
    fn drop(&mut self) {
        if self.is_ended {
            return;
        }
        tracing::warn!(terminal.id = %self.name, "the keeper of terminal {} was cut short", self.name);
        let current = self.current.take().map(|running| running.command);
        for command in current
            .into_iter()
            .chain(self.queue.drain(..).map(|job| job.command))
        {
            command.fail("the session broke down");
        }
        self.view
            .send_modify(|view| view.phase = Phase::Ended(End::Exited(255)));
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
