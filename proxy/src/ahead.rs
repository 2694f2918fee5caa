//! What is read of answers before anybody takes it, and how much of that there may be.
//!
//! A kit that never reads and always writes has its requests filled with what it says, and a
//! container may be asked by hundreds at once. So what they hold is drawn from a budget of all and
//! one of each container, in parts, and given back as the parts are taken.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf as _, BytesMut};
use routes::Id;
use tokio::io::ReadBuf;

/// Held for all containers.
pub const OF_ALL_BYTES: usize = 64 << 20;
/// Held for one: four requests may be full.
pub const OF_ONE_BYTES: usize = 8 << 20;
/// Held for one request. The kit's own server (hyper) may hold 400 KiB, and a socket's buffer twice,
/// that it has to be rid of before it reads on; as much may be under way.
const OF_REQUEST_BYTES: usize = 2 << 20;
/// Drawn at once.
pub const PART_BYTES: usize = 8 << 10;

/// What is held by all.
#[derive(Debug, Default)]
pub struct Budget(Mutex<Drawn>);

#[derive(Debug, Default)]
struct Drawn {
    all: usize,
    /// Of containers that hold anything.
    of: HashMap<Id, usize>,
}

impl Budget {
    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.drawn().all
    }

    /// Draw a part, if there is one left.
    fn draw(&self, container: Id) -> bool {
        let mut drawn = self.drawn();
        let of = drawn.of.get(&container).copied().unwrap_or(0);
        if drawn.all + PART_BYTES > OF_ALL_BYTES || of + PART_BYTES > OF_ONE_BYTES {
            return false;
        }
        drawn.all += PART_BYTES;
        drawn.of.insert(container, of + PART_BYTES);
        true
    }

    fn give_back(&self, container: Id, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let mut drawn = self.drawn();
        drawn.all = drawn.all.saturating_sub(bytes);
        if let Some(of) = drawn.of.get_mut(&container) {
            *of = of.saturating_sub(bytes);
            if *of == 0 {
                drawn.of.remove(&container);
            }
        }
    }

    fn drawn(&self) -> MutexGuard<'_, Drawn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one request holds.
#[derive(Debug)]
pub struct Ahead {
    budget: Arc<Budget>,
    container: Id,
    /// Each has room for [`PART_BYTES`] when it is new, so that memory is what was drawn.
    parts: VecDeque<BytesMut>,
    bytes: usize,
}

impl Ahead {
    pub fn new(budget: Arc<Budget>, container: Id) -> Ahead {
        Ahead {
            budget,
            container,
            parts: VecDeque::new(),
            bytes: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// How much may be put in now; nothing where a budget is empty.
    pub fn room(&mut self) -> usize {
        let left = self.parts.back().map_or(0, room_in);
        if left > 0 {
            return left;
        }
        let most = OF_REQUEST_BYTES / PART_BYTES;
        if self.parts.len() >= most || !self.budget.draw(self.container) {
            return 0;
        }
        self.parts.push_back(BytesMut::with_capacity(PART_BYTES));
        PART_BYTES
    }

    /// Put this in, for which there is room.
    pub fn put(&mut self, bytes: &[u8]) {
        if let Some(part) = self.parts.back_mut() {
            part.extend_from_slice(bytes);
            self.bytes += bytes.len();
        }
    }

    /// Nothing more is put in for now.
    pub fn rest(&mut self) {
        if self.parts.back().is_some_and(|part| part.is_empty()) {
            self.parts.pop_back();
            self.budget.give_back(self.container, PART_BYTES);
        }
    }

    /// Take as much as there is room for.
    pub fn take(&mut self, buf: &mut ReadBuf<'_>) {
        while let Some(part) = self.parts.front_mut()
            && buf.remaining() > 0
        {
            let bytes = part.len().min(buf.remaining());
            buf.put_slice(&part[..bytes]);
            part.advance(bytes);
            self.bytes -= bytes;
            if part.is_empty() {
                self.parts.pop_front();
                self.budget.give_back(self.container, PART_BYTES);
            }
        }
    }
}

fn room_in(part: &BytesMut) -> usize {
    (part.capacity() - part.len()).min(PART_BYTES)
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let bytes = self.parts.len() * PART_BYTES;
        self.budget.give_back(self.container, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(ahead: &mut Ahead, bytes: usize) -> usize {
        let mut put = 0;
        while put < bytes {
            let room = ahead.room().min(bytes - put);
            if room == 0 {
                break;
            }
            ahead.put(&vec![(put / PART_BYTES) as u8; room]);
            put += room;
        }
        ahead.rest();
        put
    }

    #[test]
    fn what_is_taken_is_what_was_put_in() {
        let budget = Arc::new(Budget::default());
        let mut ahead = Ahead::new(budget.clone(), Id([1; 12]));
        let (mut put, mut taken) = (Vec::new(), Vec::new());
        for step in 0..2_000usize {
            let room = ahead.room();
            let more = vec![step as u8; room.min(1 + step * 37 % 900)];
            ahead.put(&more);
            put.extend_from_slice(&more);
            ahead.rest();
            let mut some = vec![0; step * 53 % 1_000];
            let mut some = ReadBuf::new(&mut some);
            ahead.take(&mut some);
            taken.extend_from_slice(some.filled());
            assert_eq!(ahead.len(), put.len() - taken.len());
            assert_eq!(budget.held(), ahead.parts.len() * PART_BYTES);
            assert!(budget.held() <= ahead.len() + 2 * PART_BYTES);
        }
        let mut all = vec![0; ahead.len()];
        let mut all = ReadBuf::new(&mut all);
        ahead.take(&mut all);
        taken.extend_from_slice(all.filled());
        assert!(put == taken && ahead.is_empty());
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn budgets_hold_and_everything_is_given_back() {
        let budget = Arc::new(Budget::default());
        let begin = |container| Ahead::new(budget.clone(), Id([container; 12]));
        let mut all = Vec::new();
        for container in 0..8 {
            let mut full = 0;
            for _ in 0..5 {
                let mut ahead = begin(container);
                let put = fill(&mut ahead, usize::MAX);
                assert!(put <= OF_REQUEST_BYTES);
                full += put;
                all.push(ahead);
            }
            assert_eq!(full, OF_ONE_BYTES);
        }
        assert_eq!(budget.held(), OF_ALL_BYTES);
        let mut other = begin(8);
        assert_eq!(other.room(), 0);
        // What is taken of one makes room for another.
        let mut taken = vec![0; PART_BYTES + 1];
        all[0].take(&mut ReadBuf::new(&mut taken));
        assert_eq!(fill(&mut other, usize::MAX), PART_BYTES);
        drop((all, other));
        assert_eq!(budget.held(), 0);
        assert!(budget.drawn().of.is_empty());
    }
}
