//! Bodies of requests that come over HTTP/2, and those that do not come any more.
//!
//! Pingora waits for the next part of such a body without a deadline, and a stream of HTTP/2 costs
//! a client nothing. So each that goes on to a kit is known here while it comes, and one of which
//! nothing came for [`crate::Limits::body`] is ended: its connection to the kit, which carries
//! nothing else, is shut down, and the client gets 408. A kit that does not take what came is no
//! fault of the client's, and neither is a stream that is meant to be silent: gRPC and WebSockets
//! are not known here.

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
    pub fn add(&self, line: Arc<Line>) -> Arc<Upload> {
        let upload = Arc::new(Upload {
            line,
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
        let mut ended = 0;
        open.retain(|upload| {
            let Some(upload) = upload.upgrade() else {
                return false;
            };
            let late = upload.is_overdue(patience);
            if late {
                upload.late.store(true, Ordering::Release);
                upload.line.shut();
                ended += 1;
            }
            !late
        });
        if open.len() < open.capacity() / 4 {
            open.shrink_to_fit();
        }
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
        if !self.line.is_writable() {
            self.came(); // the kit is waited for, and time begins anew after that
            return false;
        }
        let now = self.begun.elapsed();
        now.saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed))) >= patience
    }
}
