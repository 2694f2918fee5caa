//! Bodies of requests that come over HTTP/2, and those that do not come any more.
//!
//! Pingora waits for the next part of such a body without a deadline, and a stream of HTTP/2 costs
//! a client nothing. So each that goes on to a kit is known here while it comes, and one of which
//! nothing came for [`crate::Limits::body`] is ended: its connection to the kit, which carries
//! nothing else, is shut down, and the client gets 408. A kit that does not take what came is no
//! fault of the client's: it holds up its stream, and with what it leaves in the window of the
//! connection all others of that connection. Neither is a stream that is meant to be silent: gRPC
//! and WebSockets are not known here.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::lines::Line;

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
    last: AtomicU64,
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
            last: AtomicU64::new(0),
            late: AtomicBool::new(false),
        });
        upload.came();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push(Arc::downgrade(&upload));
        upload
    }

    /// End those of which nothing came for so long; how many.
    pub fn review(&self, patience: Duration) -> u64 {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let known: Vec<Arc<Upload>> = open.iter().filter_map(Weak::upgrade).collect();
        let waiting = known.iter().filter(|upload| !upload.line.is_writable());
        let waiting: HashSet<usize> = waiting.map(|upload| upload.connection).collect();
        let mut ended = 0;
        for upload in &known {
            if waiting.contains(&upload.connection) {
                upload.came(); // a kit is waited for, and time begins anew after that
            } else if upload.is_overdue(patience) {
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
        let now = self.begun.elapsed().as_millis() as u64;
        self.last.store(now, Ordering::Relaxed);
    }

    /// Whether it was ended.
    pub fn is_late(&self) -> bool {
        self.late.load(Ordering::Acquire)
    }

    fn is_overdue(&self, patience: Duration) -> bool {
        let now = self.begun.elapsed();
        now.saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed))) >= patience
    }
}
