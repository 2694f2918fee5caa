//! The way of a tunnel out of Pingora.
//!
//! For as long as Pingora has a connection it holds two tasks' worth of futures, two channels and
//! two buffers for it. A tunnel needs none of them once the answer 101 is with the client, so the
//! streams of both sides, which are ours, tell Pingora of an end and take the sockets along:
//!
//! ```text
//!   client's stream                          kit's stream
//!    │ is read again after the 101: what      │
//!    │ came with the request has gone on      │
//!    │ Within ──────▶ Ready                   │
//!    │                                        │ is read again: what came with
//!    │                                        │ the answer has gone on
//!    │                              Ready ──▶ Out, and "no more comes"
//!    │      Pingora writes what it has of either side, logs, and drops both
//!    │ leaves its socket                      │ leaves its socket
//! ```
//!
//! Both are polled by the one task of their request, so that neither needs to be woken by name.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Context;

use tokio::net::UnixStream;

use crate::connection::Transport;
use crate::gateway::Account;

const WITHIN: u8 = 0;
const READY: u8 = 1;
const OUT: u8 = 2;

/// How far a connection is on its way out, and what it leaves there.
#[derive(Default)]
pub struct Passage {
    /// Whether the answer is 101.
    begun: AtomicBool,
    stage: AtomicU8,
    left: Mutex<Left>,
}

#[derive(Default)]
struct Left {
    client: Option<FromClient>,
    kit: Option<FromKit>,
    account: Option<Box<Account>>,
}

/// The side of the client, with what was read and not passed on.
pub struct FromClient {
    pub transport: Transport,
    pub unread: Vec<u8>,
}

/// The side of the kit, with what it has not taken yet.
pub struct FromKit {
    pub stream: UnixStream,
    pub kept: Vec<u8>,
}

/// All that is left of a tunnel when Pingora has gone.
pub struct Tunnel {
    pub client: FromClient,
    pub kit: FromKit,
    pub account: Box<Account>,
}

impl Passage {
    /// The answer is 101, and about to be written.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    pub fn is_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// The client's stream has nothing under way any more.
    pub fn client_is_ready(&self, cx: &Context<'_>) {
        let came = self
            .stage
            .compare_exchange(WITHIN, READY, Ordering::AcqRel, Ordering::Acquire);
        if came.is_ok() {
            cx.waker().wake_by_ref();
        }
    }

    /// Whether the kit's stream may leave, and with it the client's.
    pub fn kit_may_leave(&self) -> bool {
        let left = self
            .stage
            .compare_exchange(READY, OUT, Ordering::AcqRel, Ordering::Acquire);
        left.is_ok() || self.is_out()
    }

    /// Whether the sockets are no longer Pingora's to close.
    pub fn is_out(&self) -> bool {
        self.stage.load(Ordering::Acquire) == OUT
    }

    pub fn leave_client(&self, client: FromClient) {
        self.lock().client = Some(client);
    }

    pub fn leave_kit(&self, kit: FromKit) {
        self.lock().kit = Some(kit);
    }

    pub fn leave_account(&self, account: Box<Account>) {
        self.lock().account = Some(account);
    }

    /// The tunnel, where the connection has become one. What is left of one that failed on its way
    /// out is dropped.
    pub fn take(&self) -> Option<Tunnel> {
        let left = std::mem::take(&mut *self.lock());
        Some(Tunnel {
            client: left.client?,
            kit: left.kit?,
            account: left.account?,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Passage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passage")
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}
