//! Bodies of requests that come over HTTP/2, and those that do not come any more.
//!
//! Pingora waits for the next part of such a body without a deadline, and a stream of HTTP/2 costs
//! a client nothing. So each that goes on to a kit is known here while it comes, and one of which
//! nothing came for [`crate::Limits::body`] is ended: its connection to the kit, which carries
//! nothing else, is shut down, and the client gets 408. A kit that does not take what came is no
//! fault of the client's: it holds up its stream, and with what it leaves in the window of the
//! connection all others of that connection. But a client may own the kit that it waits for, so
//! that excuses nobody for ever ([`EXCUSED`]). Neither is a stream that is meant to be silent: gRPC
//! and WebSockets are not known here.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::lines::Line;

/// A body of which nothing came for so many times the usual is ended, whoever is waited for.
const EXCUSED: u32 = 3;

/// All bodies that are coming.
#[derive(Debug)]
pub struct Uploads {
    begun: Instant,
    /// No more than there are requests, and those that ended since the last look.
    open: Mutex<Vec<Weak<Upload>>>,
}

/// One of them.
#[derive(Debug)]
pub struct Upload {
    line: Arc<Line>,
    /// Equal for all that come over one connection.
    connection: usize,
    begun: Instant,
    /// When its last part came, in milliseconds since then.
    came: AtomicU64,
    /// From when on the next one is waited for: later, where a kit was waited for first.
    waited: AtomicU64,
    late: AtomicBool,
}

impl Default for Uploads {
    fn default() -> Self {
        Uploads {
            begun: Instant::now(),
            open: Mutex::default(),
        }
    }
}

impl Uploads {
    /// Know a body from now until it is dropped. It goes on over this line.
    pub fn add(&self, line: Arc<Line>, connection: usize) -> Arc<Upload> {
        let upload = Arc::new(Upload {
            line,
            connection,
            begun: self.begun,
            came: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            late: AtomicBool::new(false),
        });
        upload.came();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push(Arc::downgrade(&upload));
        upload
    }

    /// End those of which nothing came for so long; how many.
    pub fn review(&self, patience: Duration) -> u64 {
        self.review_at(self.begun.elapsed(), patience)
    }

    /// The same at this time since the beginning.
    fn review_at(&self, now: Duration, patience: Duration) -> u64 {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let known: Vec<Arc<Upload>> = open.iter().filter_map(Weak::upgrade).collect();
        let waiting = known.iter().filter(|upload| !upload.line.is_writable());
        let waiting: HashSet<usize> = waiting.map(|upload| upload.connection).collect();
        let mut ended = 0;
        for upload in &known {
            let excused = waiting.contains(&upload.connection);
            if excused && !upload.is_overdue(&upload.came, now, EXCUSED * patience) {
                upload.wait(now); // a kit is waited for, and time begins anew after that
            } else if excused || upload.is_overdue(&upload.waited, now, patience) {
                upload.late.store(true, Ordering::Release);
                upload.line.shut();
                ended += 1;
            }
        }
        let rest = known.iter().filter(|upload| !upload.is_late());
        *open = rest.map(Arc::downgrade).collect();
        ended
    }
}

impl Upload {
    /// A part has come.
    pub fn came(&self) {
        let now = self.begun.elapsed();
        self.came.store(now.as_millis() as u64, Ordering::Relaxed);
        self.wait(now);
    }

    fn wait(&self, now: Duration) {
        self.waited.store(now.as_millis() as u64, Ordering::Relaxed);
    }

    /// Whether it was ended.
    pub fn is_late(&self) -> bool {
        self.late.load(Ordering::Acquire)
    }

    fn is_overdue(&self, since: &AtomicU64, now: Duration, patience: Duration) -> bool {
        let since = Duration::from_millis(since.load(Ordering::Relaxed));
        now.saturating_sub(since) >= patience
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream as Blocking;

    use tokio::net::UnixStream;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3_600);

    /// A line, its own end, and the other one.
    fn line() -> (Arc<Line>, Blocking, Blocking) {
        let (one, other) = Blocking::pair().expect("a pair");
        for end in [&one, &other] {
            end.set_nonblocking(true).expect("a socket");
        }
        let same = one.try_clone().expect("a socket");
        let line = Line::apart(&UnixStream::from_std(same).expect("a runtime"));
        (line.expect("a line"), one, other)
    }

    fn fill(mut end: &Blocking) {
        while end.write(&[0; 4 << 10]).is_ok() {}
    }

    /// Trap: a client whose own kit takes nothing would keep its bodies open at all others.
    #[tokio::test]
    async fn a_kit_that_takes_nothing_excuses_nobody_for_ever() {
        let uploads = Uploads::default();
        let (stuck, end, _there) = line();
        fill(&end);
        assert!(!stuck.is_writable());
        let (open, _one, _other) = line();
        let (apart, _two, _another) = line();
        let own = uploads.add(stuck, 1);
        let silent = uploads.add(open, 1);
        let elsewhere = uploads.add(apart, 2);
        let late = || [&own, &silent, &elsewhere].map(|upload| upload.is_late());
        // Bodies began within the first second of these hours.
        let slack = Duration::from_secs(60);
        assert_eq!(uploads.review_at(PATIENCE - slack, PATIENCE), 0);
        assert_eq!(uploads.review_at(PATIENCE + slack, PATIENCE), 1);
        assert_eq!(late(), [false, false, true]);
        assert_eq!(uploads.review_at(3 * PATIENCE - slack, PATIENCE), 0);
        assert_eq!(uploads.review_at(3 * PATIENCE + slack, PATIENCE), 2);
        assert_eq!(late(), [true; 3]);
    }

    /// Once the kit has read, the client has its time anew.
    #[tokio::test]
    async fn time_begins_anew_after_a_kit_was_waited_for() {
        let uploads = Uploads::default();
        let (stuck, end, mut there) = line();
        fill(&end);
        let upload = uploads.add(stuck.clone(), 1);
        assert_eq!(uploads.review_at(2 * PATIENCE, PATIENCE), 0);
        while there.read(&mut [0; 64 << 10]).is_ok() {}
        assert!(stuck.is_writable());
        let slack = Duration::from_secs(60);
        assert_eq!(uploads.review_at(3 * PATIENCE - slack, PATIENCE), 0);
        assert!(!upload.is_late());
        assert_eq!(uploads.review_at(3 * PATIENCE + slack, PATIENCE), 1);
        assert!(upload.is_late());
    }
}
