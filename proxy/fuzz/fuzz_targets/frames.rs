//! Frames of HTTP/2 are counted alike however their bytes are cut, what asks for nothing is bounded
//! for any client, and a connection is told by its first bytes alone.
#![no_main]

#[path = "../../src/frames.rs"]
#[allow(dead_code)]
mod frames;

/// The limits that frames are counted against.
mod config {
    pub struct Limits {
        pub h2_resets: u32,
        pub h2_idle_frames: u32,
    }
}

use std::task::{Context, Poll, Waker};

use config::Limits;
use frames::{Flood, Frames};
use libfuzzer_sys::fuzz_target;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LIMITS: Limits = Limits {
    h2_resets: 3,
    h2_idle_frames: 5,
};

/// What comes of these bytes from a client, in parts of this size.
fn received(bytes: &[u8], size: usize) -> Option<Flood> {
    let mut frames = Frames::new(&LIMITS);
    for part in PREFACE.chunks(size).chain(bytes.chunks(size)) {
        if let Err(flood) = frames.received(part) {
            return Some(flood);
        }
    }
    None
}

/// The frames in these bytes, by a reading of its own: kinds, lengths and flags.
fn listed(mut bytes: &[u8]) -> Vec<(u8, usize, u8)> {
    let mut all = Vec::new();
    while bytes.len() >= 9 {
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        all.push((bytes[3], length, bytes[4]));
        bytes = bytes.get(9 + length..).unwrap_or_default();
    }
    all
}

fn sniffed(bytes: &[u8]) -> (bool, Vec<u8>, Vec<u8>) {
    let mut rest = bytes;
    let mut context = Context::from_waker(Waker::noop());
    let told = {
        let future = std::pin::pin!(frames::sniff(&mut rest));
        match future.poll(&mut context) {
            Poll::Ready(told) => told.expect("memory does not fail"),
            Poll::Pending => unreachable!("nothing is waited for"),
        }
    };
    (told.0, told.1, rest.to_vec())
}

fuzz_target!(|bytes: &[u8]| {
    let flood = received(bytes, usize::MAX);
    for size in [1, 2, 7, 100] {
        assert_eq!(received(bytes, size), flood);
    }
    let (mut resets, mut idle) = (0, 0);
    let mut expected = None;
    for (kind, length, flags) in listed(bytes) {
        let over = match kind {
            1 => None,
            0 if length > 0 || flags & 1 != 0 => None,
            3 => {
                resets += 1;
                (resets > LIMITS.h2_resets).then_some(Flood::Resets)
            }
            _ => {
                idle += 1;
                (idle > LIMITS.h2_idle_frames).then_some(Flood::Idle)
            }
        };
        expected = expected.or(over);
    }
    assert_eq!(flood, expected);
    // What is sent never ends a connection by being counted.
    let mut outbound = Frames::new(&LIMITS);
    for part in bytes.chunks(13) {
        outbound.sent(part);
    }
    let (h2, taken, rest) = sniffed(bytes);
    assert_eq!([&taken[..], &rest].concat(), bytes);
    assert_eq!(h2, bytes.starts_with(PREFACE));
    assert!(PREFACE.starts_with(&taken));
});
