//! A session: a shell on a pseudo-terminal that outlives those who look at it.
//!
//! One task, the [keeper](crate::keeper), owns the terminal, the shell, the scrollback and the
//! list of clients. This handle sends it orders and reads what it publishes. Nothing here knows
//! HTTP or WebSocket.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use rustix::process::Pid;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::command::{Command, Summary};
use crate::id::TerminalId;
use crate::keeper::Keeper;
use crate::pty::Size;
use crate::shell::Flavour;
use crate::ssh::{Reach, Target};
use accounts::Account;

/// Orders that may wait for the keeper; more make their senders wait.
const MAX_ORDERS: usize = 64;
/// Pieces of typed input that may wait for the keeper.
const MAX_TYPED: usize = 16;
/// Largest piece of input; a longer one is cut.
pub const MAX_TYPED_PIECE: usize = 64 << 10;
/// Commands remembered in a session's history.
pub const MAX_HISTORY: usize = 1000;

/// How a session is to be.
#[derive(Clone, Debug)]
pub struct Spec {
    pub id: TerminalId,
    pub account: Account,
    pub shell: PathBuf,
    pub directory: PathBuf,
    /// What the login environment does not have.
    pub environment: BTreeMap<String, String>,
    pub size: Size,
    pub ephemeral: bool,
    pub display: Option<String>,
    /// How long it may stand idle with nobody looking.
    pub idle: Duration,
    /// Where its files go.
    pub state: PathBuf,
    /// The machine that it is on; `shell` is then ssh(1).
    pub ssh: Option<Target>,
    /// What connects through a proxy.
    pub connector: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartSession {
    #[error("could not prepare the files of the session in {path}")]
    PrepareFiles {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not open a pseudo-terminal")]
    OpenTerminal {
        #[source]
        source: io::Error,
    },
    #[error("could not start {shell}")]
    StartShell {
        shell: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session is over")]
pub struct Over;

/// What a shell is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    /// It waits for a line.
    Prompt,
    /// It runs what somebody typed or asked for.
    Busy,
    Ended(End),
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Its shell ended with this code.
    Exited(i32),
    /// Somebody ended it.
    Closed(Close),
}

/// Why a session is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    Deleted,
    Reset,
    Idle,
}

/// What the keeper publishes.
#[derive(Clone, Debug)]
pub struct View {
    pub phase: Phase,
    pub size: Size,
    pub clients: usize,
    /// What the program calls the window.
    pub title: String,
    /// Bytes of output so far.
    pub written: u64,
    /// Commands that wait for their turn.
    pub waiting: usize,
    /// The command at work.
    pub running: Option<String>,
}

/// Where a command's output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Into pipes: every byte is known to be the command's, and which stream it came by.
    Captured,
    /// To the terminal, so that full-screen programs work; standard error to a terminal of its own.
    Split,
    /// To the terminal, all of it.
    Terminal,
}

/// A command for a session.
#[derive(Debug)]
pub struct Job {
    pub command: Arc<Command>,
    pub output: Output,
    /// For this command only.
    pub directory: Option<String>,
    /// For this command only.
    pub environment: BTreeMap<String, String>,
    pub deadline: Option<Instant>,
}

#[derive(Debug)]
pub enum Order {
    Attach {
        size: Option<Size>,
        readonly: bool,
        reply: oneshot::Sender<Attached>,
    },
    Resize {
        seat: u64,
        size: Size,
    },
    Detach {
        seat: u64,
    },
    /// Answered with the job where the session is ending and does not take it.
    Run {
        job: Box<Job>,
        reply: oneshot::Sender<Option<Box<Job>>>,
    },
    Abort {
        id: String,
        force: bool,
    },
    Close(Close),
    Scrollback(oneshot::Sender<Vec<u8>>),
    Screen(oneshot::Sender<Box<vt100::Screen>>),
}

#[derive(Debug)]
pub struct Attached {
    pub seat: u64,
    pub replay: Vec<u8>,
    pub output: mpsc::Receiver<Bytes>,
}

/// The commands of a session, newest last.
#[derive(Debug, Default)]
pub struct History(Mutex<VecDeque<Summary>>);

impl History {
    /// Note how far a command is.
    pub fn note(&self, command: &Command) {
        let summary = command.summary();
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match list
            .iter_mut()
            .rev()
            .find(|known| known.command_id == summary.command_id)
        {
            Some(known) => *known = summary,
            None => {
                if list.len() >= MAX_HISTORY {
                    list.pop_front();
                }
                list.push_back(summary);
            }
        }
    }

    /// The last `limit` commands, newest last.
    pub fn last(&self, limit: usize) -> Vec<Summary> {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.iter()
            .skip(list.len().saturating_sub(limit))
            .cloned()
            .collect()
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// A session at work.
#[derive(Debug)]
pub struct Session {
    pub id: TerminalId,
    pub user: String,
    pub shell: PathBuf,
    pub flavour: Flavour,
    pub ephemeral: bool,
    pub display: Option<String>,
    pub created: Timestamp,
    /// The shell's process.
    pub pid: Pid,
    /// The machine that it is on, where that is another: user@host:port.
    pub target: Option<String>,
    /// How commands get there.
    pub reach: Option<Arc<Reach>>,
    pub history: Arc<History>,
    orders: mpsc::Sender<Order>,
    typed: mpsc::Sender<Bytes>,
    view: watch::Receiver<View>,
}

impl Session {
    /// Start a shell and its keeper. `on_end` is called when the session is over.
    pub fn start(
        spec: Spec,
        on_end: impl FnOnce() + Send + 'static,
    ) -> Result<Session, StartSession> {
        let (orders, ordered) = mpsc::channel(MAX_ORDERS);
        let (typed, input) = mpsc::channel(MAX_TYPED);
        let view = View {
            phase: Phase::Starting,
            size: spec.size,
            clients: 0,
            title: String::new(),
            written: 0,
            waiting: 0,
            running: None,
        };
        let (publish, view) = watch::channel(view);
        let history = Arc::new(History::default());
        let keeper = Keeper::start(&spec, ordered, input, publish, history.clone())?;
        let session = Session {
            id: spec.id,
            user: spec.account.name,
            flavour: Flavour::of(&spec.shell),
            shell: spec.shell,
            ephemeral: spec.ephemeral,
            display: spec.display,
            created: Timestamp::now(),
            pid: keeper.leader(),
            target: spec.ssh.as_ref().map(Target::to_string),
            reach: keeper.reach(),
            history,
            orders,
            typed,
            view,
        };
        tokio::spawn(async move {
            keeper.run().await;
            on_end();
        });
        Ok(session)
    }

    /// What it is at now.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// What it is at, as it changes.
    pub fn watch(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// Whether commands can be run in it.
    pub fn takes_commands(&self) -> bool {
        self.flavour.takes_commands() || self.reach.is_some()
    }

    /// The name of its shell.
    pub fn shell_name(&self) -> String {
        self.shell
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    async fn order(&self, order: Order) -> Result<(), Over> {
        self.orders.send(order).await.map_err(|_| Over)
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, Over> {
        let (reply, answer) = oneshot::channel();
        self.order(order(reply)).await?;
        answer.await.map_err(|_| Over)
    }

    /// Look at it. Where a size is given and the client may type, it takes part in the size of
    /// the terminal.
    pub async fn attach(&self, size: Option<Size>, readonly: bool) -> Result<Client, Over> {
        let attached = self
            .ask(|reply| Order::Attach {
                size,
                readonly,
                reply,
            })
            .await?;
        Ok(Client {
            replay: attached.replay,
            output: attached.output,
            remote: Remote {
                seat: attached.seat,
                orders: self.orders.clone(),
            },
        })
    }

    /// Type. Waits while the program does not read.
    pub async fn write(&self, mut bytes: Bytes) -> Result<(), Over> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(MAX_TYPED_PIECE));
            self.typed.send(piece).await.map_err(|_| Over)?;
        }
        Ok(())
    }

    /// Have the shell run a command, after those that were asked for before. A session that is
    /// ending gives it back.
    pub async fn run(&self, job: Box<Job>) -> Result<(), Box<Job>> {
        let (reply, answer) = oneshot::channel();
        if let Err(mpsc::error::SendError(order)) =
            self.orders.send(Order::Run { job, reply }).await
        {
            let Order::Run { job, .. } = order else {
                unreachable!("it is what was sent")
            };
            return Err(job);
        }
        // A keeper answers every order to run, also when it ends.
        answer.await.ok().flatten().map_or(Ok(()), Err)
    }

    /// Wait until it is over.
    pub async fn over(&self) {
        let mut view = self.view.clone();
        // A keeper that is gone has ended its session.
        let _ = view
            .wait_for(|view| matches!(view.phase, Phase::Ended(_)))
            .await;
    }

    /// End a command: interrupt it, or with `force` kill it.
    pub async fn abort(&self, id: String, force: bool) -> Result<(), Over> {
        self.order(Order::Abort { id, force }).await
    }

    /// End the session and everything in it, and wait until it is over.
    pub async fn close(&self, why: Close) {
        // One that takes no more orders is ending already.
        let _ = self.order(Order::Close(why)).await;
        self.over().await;
    }

    /// The output it remembers.
    pub async fn scrollback(&self) -> Result<Vec<u8>, Over> {
        self.ask(Order::Scrollback).await
    }

    /// What is on its screen.
    pub async fn screen(&self) -> Result<Box<vt100::Screen>, Over> {
        self.ask(Order::Screen).await
    }

    /// Wait until the shell shows its first prompt; whether it did within `patience`.
    pub async fn ready(&self, patience: Duration) -> bool {
        let mut view = self.view.clone();
        let ready = view.wait_for(|view| view.phase != Phase::Starting);
        tokio::time::timeout(patience, ready)
            .await
            .is_ok_and(|view| view.is_ok())
    }

    pub fn is_over(&self) -> bool {
        self.orders.is_closed() || matches!(self.view.borrow().phase, Phase::Ended(_))
    }
}

/// Somebody who looks at a session.
#[derive(Debug)]
pub struct Client {
    /// What was shown before, to begin with.
    pub replay: Vec<u8>,
    /// What is shown from now on; ends with the session. A client that stops reading stops the
    /// program once this is full.
    pub output: mpsc::Receiver<Bytes>,
    pub remote: Remote,
}

/// The side of a client that is there to tell the session something; the client leaves with it.
#[derive(Debug)]
pub struct Remote {
    seat: u64,
    orders: mpsc::Sender<Order>,
}

impl Remote {
    pub async fn resize(&self, size: Size) -> Result<(), Over> {
        self.orders
            .send(Order::Resize {
                seat: self.seat,
                size,
            })
            .await
            .map_err(|_| Over)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // Where this finds no place, the keeper notices at its next output.
        let _ = self.orders.try_send(Order::Detach { seat: self.seat });
    }
}
