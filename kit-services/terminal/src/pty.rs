//! Pseudo-terminals and the other descriptors that a session reads.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, OutputModes, Winsize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use accounts::Account;

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

impl Size {
    pub const DEFAULT: Size = Size {
        rows: 24,
        columns: 80,
    };
    /// Larger than any screen; the screen model allocates by cells.
    const MAX: u16 = 1000;

    /// A size that programs can live with, whatever a client says.
    pub fn clamped(rows: u32, columns: u32) -> Size {
        let side = |asked: u32, least: u16| {
            u16::try_from(asked)
                .unwrap_or(Self::MAX)
                .clamp(least, Self::MAX)
        };
        Size {
            rows: side(rows, 1),
            columns: side(columns, 2),
        }
    }

    /// The largest size that fits into both.
    pub fn within(self, other: Size) -> Size {
        Size {
            rows: self.rows.min(other.rows),
            columns: self.columns.min(other.columns),
        }
    }
}

/// A descriptor to read without waiting.
#[derive(Debug)]
pub struct Source(AsyncFd<OwnedFd>);

impl Source {
    #[allow(unsafe_code)] // tokio's safe constructor is deprecated, for types other than this one
    fn new(descriptor: OwnedFd) -> io::Result<Source> {
        // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives.
        Ok(Source(unsafe { AsyncFd::register(descriptor) }?))
    }

    /// A named pipe that has no end, however often its writers come and go.
    pub fn fifo(path: &Path) -> io::Result<Source> {
        Source::open(path, OFlags::RDWR)
    }

    /// A named pipe that ends when nobody has it open for writing.
    pub fn ending_fifo(path: &Path) -> io::Result<Source> {
        Source::open(path, OFlags::RDONLY)
    }

    fn open(path: &Path, access: OFlags) -> io::Result<Source> {
        let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Source::new(rustix::fs::open(path, flags, Mode::empty())?)
    }

    /// Wait until there is something to read, or an end.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await.map(drop)
    }

    /// Read what is there, after [`Source::readable`].
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_io(Interest::READABLE, |descriptor| {
            Ok(rustix::io::read(descriptor, &mut *buffer)?)
        })
    }

    /// Read what is there, asking the kernel whatever the reactor last heard.
    pub fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(self.0.get_ref(), buffer)?)
    }
}

/// The master of a pseudo-terminal.
#[derive(Debug)]
pub struct Pty {
    source: Source,
    /// Where programs find the slave.
    pub path: PathBuf,
}

impl Pty {
    /// A new pseudo-terminal that belongs to `account`.
    pub fn open(account: &Account, size: Size) -> io::Result<Pty> {
        use std::os::unix::ffi::OsStringExt;
        let master =
            rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        let path = PathBuf::from(std::ffi::OsString::from_vec(
            rustix::pty::ptsname(&master, Vec::new())?.into_bytes(),
        ));
        if account.is_other() {
            std::os::unix::fs::chown(&path, Some(account.uid), None)?;
        }
        rustix::io::ioctl_fionbio(&master, true)?;
        let pty = Pty {
            source: Source::new(master)?,
            path,
        };
        pty.resize(size)?;
        Ok(pty)
    }

    /// Its other end, to give to a program.
    pub fn slave(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(&self.path, flags, Mode::empty())?)
    }

    /// Pass output as it is written: no carriage returns added.
    pub fn pass_output_through(&self) -> io::Result<()> {
        let mut modes = rustix::termios::tcgetattr(self.master())?;
        modes.output_modes.remove(OutputModes::OPOST);
        Ok(rustix::termios::tcsetattr(
            self.master(),
            OptionalActions::Now,
            &modes,
        )?)
    }

    fn master(&self) -> impl AsFd {
        self.source.0.get_ref()
    }

    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Wait until it takes input.
    pub async fn writable(&self) -> io::Result<()> {
        self.source.0.writable().await.map(drop)
    }

    /// Type as much of `bytes` as it takes.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.source.0.try_io(Interest::WRITABLE, |master| {
            Ok(rustix::io::write(master, bytes)?)
        })
    }

    pub fn resize(&self, size: Size) -> io::Result<()> {
        let size = Winsize {
            ws_row: size.rows,
            ws_col: size.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(rustix::termios::tcsetwinsize(self.master(), size)?)
    }

    /// The process group in the foreground.
    pub fn foreground(&self) -> Option<Pid> {
        rustix::termios::tcgetpgrp(self.master()).ok()
    }
}
