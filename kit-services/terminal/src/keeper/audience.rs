//! What the shell and its commands write, and those who look at it.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Keeper, LAST_WORDS, Seat, Source};
use crate::marks::{Mark, Piece};
use crate::pty::Size;
use crate::running::{self, Running, STDERR_PATIENCE};
use crate::screen::Screen;
use crate::scrollback::without_questions;
use crate::session::{Attached, Phase};

/// Output that the screen is worked out from; parsing it takes some 50 ms.
const REPLAYED_BYTES: usize = 256 << 10;
/// Pieces of output on their way to one client; with [`CHUNK`] at most 256 KiB.
const SEAT_CHUNKS: usize = 32;
/// Clients of one session.
const MAX_SEATS: usize = 64;
/// Characters of a window title.
const MAX_TITLE: usize = 256;
/// Echo withheld while a command is on its way to the shell.
const MAX_WITHHELD: usize = 64 << 10;
/// How long after a prompt a command that did not begin is typed again; the shell runs it once.
const RETYPE: Duration = Duration::from_millis(250);

impl Keeper {
    pub(super) fn attach(
        &mut self,
        size: Option<Size>,
        readonly: bool,
        reply: oneshot::Sender<Attached>,
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
    pub(super) fn reconcile(&mut self) {
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

    pub(super) fn read(&mut self, source: Source) {
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
    pub(super) fn took(&mut self, bytes: &[u8]) {
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

    pub(super) fn show(&mut self, bytes: &[u8]) {
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

    pub(super) fn heed(&mut self, mark: Mark) {
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
    pub(super) fn hand_out(&mut self) {
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
    pub(super) fn look(&mut self) -> &vt100::Screen {
        self.hand_out();
        let (size, scrollback) = (self.size, &self.scrollback);
        self.screen
            .get_or_insert_with(|| Screen::new(size, &scrollback.last(REPLAYED_BYTES)))
            .look()
    }

    pub(super) fn publish(&mut self) {
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
}
