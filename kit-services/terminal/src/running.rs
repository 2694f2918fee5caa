//! The command that a session's shell is running, and the descriptors its output comes by.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use crate::command::{Command, Stream};
use crate::marks::{Mark, Marks, Piece};
use crate::pty::{Pty, Size, Source};
use crate::session::{Job, Output};
use crate::shell::{Flavour, Script};
use crate::workdir::Workdir;
use accounts::Account;

/// Output read at once.
pub const CHUNK: usize = 8 << 10;
/// How long the end of a command may wait for the end of its standard error to come through the
/// terminal it was written to; the kernel hands it over within microseconds.
pub const STDERR_PATIENCE: Duration = Duration::from_millis(250);
/// Most that is read from a pipe after its command ended; pipes hold at most this.
const MAX_LEFT: usize = 1 << 20;

/// A command on its way through the shell.
#[derive(Debug)]
pub struct Running {
    pub command: Arc<Command>,
    pub number: u64,
    pub deadline: Option<Instant>,
    /// When it was typed at the prompt.
    pub typed: Instant,
    /// When to type it again: a prompt came in place of its begin.
    pub retype: Option<Instant>,
    /// The shell has begun it.
    pub begun: bool,
    /// What the terminal showed between typing and begin: the echo of the typed line.
    pub withheld: Vec<u8>,
    pub channels: Channels,
    /// Its exit code and until when standard error may follow.
    pub ended: Option<(i32, Instant)>,
    /// How far the ending by force is, and when to go on.
    pub stopping: Option<(Stop, Instant)>,
}

/// The steps of ending a command that does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Interrupt,
    Kill,
    KillShell,
}

/// Where its output comes from.
#[derive(Debug)]
pub enum Channels {
    Captured {
        out: Source,
        err: Source,
    },
    Split {
        err: Pty,
        marks: Marks,
        ended: bool,
        _open: OwnedFd,
    },
    Terminal,
}

/// What a channel other than the terminal gave.
#[derive(Clone, Copy, Debug)]
pub enum From {
    Out,
    Err,
}

fn name(stream: Stream, number: u64) -> String {
    match stream {
        Stream::Out => format!("{number}.out"),
        Stream::Err => format!("{number}.err"),
    }
}

impl Running {
    /// Make ready what the shell needs to run this job.
    pub fn prepare(
        job: &Job,
        number: u64,
        secret: &str,
        flavour: Flavour,
        workdir: &Workdir,
        account: &Account,
        size: Size,
    ) -> io::Result<Running> {
        let mut script = Script {
            number,
            text: &job.command.text,
            stdout: None,
            stderr: None,
            stderr_is_terminal: false,
            directory: job.directory.as_deref(),
            environment: &job.environment,
            secret,
        };
        let (channels, text) = match job.output {
            Output::Captured => {
                let (out, err) = (
                    workdir.fifo(&name(Stream::Out, number))?,
                    workdir.fifo(&name(Stream::Err, number))?,
                );
                script.stdout = Some(&out);
                script.stderr = Some(&err);
                let channels = Channels::Captured {
                    out: Source::fifo(&out)?,
                    err: Source::fifo(&err)?,
                };
                (channels, flavour.script(&script))
            }
            Output::Split => {
                let err = Pty::open(account, size)?;
                err.pass_output_through()?;
                script.stderr = Some(&err.path);
                script.stderr_is_terminal = true;
                let text = flavour.script(&script);
                // With a slave open here, the master does not end when the command closes its own.
                let open = err.slave()?;
                (
                    Channels::Split {
                        err,
                        marks: Marks::new(secret),
                        ended: false,
                        _open: open,
                    },
                    text,
                )
            }
            Output::Terminal => (Channels::Terminal, flavour.script(&script)),
        };
        workdir.write(&number.to_string(), &text)?;
        Ok(Running {
            command: job.command.clone(),
            number,
            deadline: job.deadline,
            typed: Instant::now(),
            retype: None,
            begun: false,
            withheld: Vec::new(),
            channels,
            ended: None,
            stopping: None,
        })
    }

    /// Whether what the terminal shows is this command's output.
    pub fn is_on_terminal(&self) -> bool {
        !matches!(self.channels, Channels::Captured { .. })
    }

    /// Wait until a channel other than the terminal has something; for ever where there is none.
    pub async fn readable(&self) -> From {
        let waited = match &self.channels {
            Channels::Captured { out, err } => tokio::select! {
                ready = out.readable() => ready.map(|()| From::Out),
                ready = err.readable() => ready.map(|()| From::Err),
            },
            Channels::Split { err, .. } => err.source().readable().await.map(|()| From::Err),
            Channels::Terminal => std::future::pending().await,
        };
        match waited {
            Ok(from) => from,
            Err(_) => std::future::pending().await,
        }
    }

    /// Read from a channel that had something; what is to be shown.
    pub fn read(&mut self, from: From, buffer: &mut [u8]) -> Vec<u8> {
        let source = match (&self.channels, from) {
            (Channels::Captured { out, .. }, From::Out) => out,
            (Channels::Captured { err, .. }, From::Err) => err,
            (Channels::Split { err, .. }, _) => err.source(),
            (Channels::Terminal, _) => return Vec::new(),
        };
        match source.read(buffer) {
            Ok(count) => self.took(from, &buffer[..count]),
            Err(_) => Vec::new(),
        }
    }

    fn took(&mut self, from: From, bytes: &[u8]) -> Vec<u8> {
        let (command, number) = (&self.command, self.number);
        match &mut self.channels {
            Channels::Captured { .. } => {
                let stream = if matches!(from, From::Out) {
                    Stream::Out
                } else {
                    Stream::Err
                };
                command.wrote(stream, bytes);
                bytes.to_vec()
            }
            Channels::Split { marks, ended, .. } => {
                let mut shown = Vec::new();
                marks.feed(bytes, |piece| match piece {
                    Piece::Output(bytes) => {
                        command.wrote(Stream::Err, bytes);
                        shown.extend_from_slice(bytes);
                    }
                    Piece::Mark(Mark::End(of, _)) if of == number => *ended = true,
                    Piece::Mark(_) | Piece::Title(_) => {}
                });
                shown
            }
            Channels::Terminal => Vec::new(),
        }
    }

    /// Whether all that the command wrote before its end has been read.
    pub fn is_drained(&self) -> bool {
        match &self.channels {
            Channels::Split { ended, .. } => *ended,
            _ => true,
        }
    }

    /// Read what is left now that the command has ended. Returns what is to be shown, and the
    /// pipes that processes it left behind still hold.
    pub fn drain(&mut self, workdir: &Workdir) -> (Vec<u8>, Vec<Source>) {
        let (mut shown, mut held) = (Vec::new(), Vec::new());
        let mut buffer = vec![0; CHUNK];
        match std::mem::replace(&mut self.channels, Channels::Terminal) {
            Channels::Captured { out, err } => {
                for (stream, endless) in [(Stream::Out, out), (Stream::Err, err)] {
                    // From here on the pipe ends with its last writer.
                    let source = Source::ending_fifo(&workdir.path.join(name(stream, self.number)));
                    let source = match source {
                        Ok(source) => {
                            drop(endless);
                            source
                        }
                        Err(_) => endless,
                    };
                    let mut left = 0;
                    let is_held = loop {
                        match source.read_now(&mut buffer) {
                            Ok(0) => break false,
                            Ok(count) => {
                                self.command.wrote(stream, &buffer[..count]);
                                shown.extend_from_slice(&buffer[..count]);
                                left += count;
                                if left >= MAX_LEFT {
                                    break true;
                                }
                            }
                            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                            Err(error) => break error.kind() == io::ErrorKind::WouldBlock,
                        }
                    };
                    if is_held {
                        held.push(source);
                    }
                }
            }
            Channels::Split {
                err, ended: false, ..
            } => {
                // The mark of its end did not come: take what is there.
                while let Ok(count @ 1..) = err.source().read_now(&mut buffer) {
                    self.command.wrote(Stream::Err, &buffer[..count]);
                    shown.extend_from_slice(&buffer[..count]);
                }
            }
            Channels::Split { .. } | Channels::Terminal => {}
        }
        (shown, held)
    }

    /// Remove its files.
    pub fn clean(&self, workdir: &Workdir) {
        workdir.remove(&self.number.to_string());
        if !self.begun {
            // The line that was typed may still come to the shell: it then does nothing.
            let _ = workdir.write(&self.number.to_string(), "return\n");
        }
        workdir.remove(&name(Stream::Out, self.number));
        workdir.remove(&name(Stream::Err, self.number));
    }
}

/// Go on reading a pipe that a process in the background holds, until it lets go: what it writes
/// is shown, and it is not ended by a broken pipe.
pub fn follow(source: Source, shown: mpsc::Sender<Bytes>, place: OwnedSemaphorePermit) {
    tokio::spawn(async move {
        let _place = place;
        let mut buffer = vec![0; CHUNK];
        loop {
            tokio::select! {
                ready = source.readable() => if ready.is_err() { return },
                () = shown.closed() => return,
            }
            match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    if shown
                        .send(Bytes::copy_from_slice(&buffer[..count]))
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(_) => return,
            }
        }
    });
}

/// A command's text as a terminal shows a typed line.
pub fn typed(text: &str) -> Vec<u8> {
    const SHOWN: usize = 4096;
    let mut shown = Vec::new();
    for character in text.trim_end().chars().take(SHOWN) {
        match character {
            '\n' => shown.extend_from_slice(b"\r\n"),
            '\t' => shown.push(b' '),
            character if character.is_control() => shown.push(b'?'),
            character => shown.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    shown
}

/// Bytes as a terminal shows them that adds the carriage returns.
pub fn with_returns(bytes: &[u8], shown: &mut Vec<u8>) {
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(line) => {
                shown.extend_from_slice(line);
                shown.extend_from_slice(b"\r\n");
            }
            None => shown.extend_from_slice(line),
        }
    }
}

/// The echo of a typed line with what the line stands for in its place. The line may be there
/// twice: the kernel echoes what is typed before the shell's line editor is ready, which then
/// draws it again. Where it is not there in one piece, only what it stands for is left.
pub fn retyped(echo: &[u8], line: &[u8], text: &[u8]) -> Vec<u8> {
    let find = |bytes: &[u8]| bytes.windows(line.len()).position(|window| window == line);
    let mut shown = Vec::new();
    let mut rest = echo;
    let mut is_there = false;
    while let Some(at) = find(rest) {
        shown.extend_from_slice(&rest[..at]);
        rest = &rest[at + line.len()..];
        is_there = find(rest).is_none();
        if is_there {
            shown.extend_from_slice(text);
        } else {
            rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
        }
    }
    if is_there {
        [&shown, rest].concat()
    } else {
        [text, b"\r\n"].concat()
    }
}

/// Remove the directory of sessions that a process before this one left.
pub fn forget_old(state: &Path) {
    if let Ok(entries) = std::fs::read_dir(state) {
        for entry in entries.flatten() {
            // What cannot be removed does no harm: names are never used twice.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_typed_is_never_seen() {
        let check = |echo: &str, want: &str| {
            let shown = retyped(echo.as_bytes(), b" . x", b"ls -l");
            assert_eq!(String::from_utf8(shown).unwrap(), want, "{echo:?}");
        };
        check("$  . x\r\n", "$ ls -l\r\n");
        check(
            " . x\r\n$  . x\r\n\u{1b}[?2004l\r",
            "$ ls -l\r\n\u{1b}[?2004l\r",
        );
        check("$ . \u{1b}[Kx\r\n", "ls -l\r\n");
        check("", "ls -l\r\n");
    }

    #[test]
    fn commands_are_shown_without_their_control_characters() {
        assert_eq!(typed("a\u{1b}[2J\tb\nc\n\n"), b"a?[2J b\r\nc");
    }
}
