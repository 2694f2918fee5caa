//! HTTP/2 by its frames: a connection that begins without TLS, and one that sends more of what
//! costs nothing to send than anybody needs.
//!
//! The frames themselves are read by the h2 crate. It bounds what a connection holds; how often a
//! client may have it do something for nothing is counted here, from the nine bytes that every
//! frame begins with (RFC 9113, section 4.1).

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use crate::config::Limits;

/// What a client of HTTP/2 sends first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether a connection begins as HTTP/2 does, and the bytes that were taken from it to find out:
/// few where it does not. Waits for no byte more than is needed to tell, so that a short request
/// of HTTP/1 is answered.
pub async fn sniff(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<(bool, Vec<u8>)> {
    let mut taken = Vec::new();
    loop {
        let there = stream.fill_buf().await?;
        let rest = &PREFACE[taken.len()..];
        let common = there.len().min(rest.len());
        if common == 0 || there[..common] != rest[..common] {
            return Ok((false, taken));
        }
        taken.extend_from_slice(&there[..common]);
        stream.consume(common);
        if taken.len() == PREFACE.len() {
            return Ok((true, taken));
        }
    }
}

/// For which time the frames below are counted.
const SPAN: Duration = Duration::from_secs(10);
/// Frames about windows that one frame of a response may call for.
const WINDOWS_PER_DATA: u32 = 8;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;

/// Counts what both sides of a connection send.
#[derive(Debug)]
pub struct Frames {
    inbound: Scan,
    outbound: Scan,
    resets: Allowance,
    idle: Allowance,
}

/// A stable name for metrics of the code with which a connection ends.
pub fn fault(code: u32) -> &'static str {
    match code {
        1 => "protocol_error",
        3 => "flow_control_error",
        5 => "stream_closed",
        6 => "frame_size_error",
        9 => "compression_error",
        11 => "enhance_your_calm",
        _ => "other",
    }
}

/// What a client sent too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// Requests taken back (CVE-2023-44487).
    Resets,
    /// Frames that ask for nothing: pings, settings, priorities, empty data, windows.
    Idle,
}

impl Flood {
    /// A stable name for metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Flood::Resets => "h2_resets",
            Flood::Idle => "h2_idle_frames",
        }
    }
}

impl Frames {
    pub fn new(limits: &Limits) -> Frames {
        Frames {
            inbound: Scan {
                skip: PREFACE.len(),
                ..Scan::default()
            },
            outbound: Scan::default(),
            resets: Allowance::new(limits.h2_resets),
            idle: Allowance::new(limits.h2_idle_frames),
        }
    }

    /// These bytes came from the client.
    pub fn received(&mut self, bytes: &[u8]) -> Result<(), Flood> {
        let (resets, idle) = (&mut self.resets, &mut self.idle);
        let mut flood = Ok(());
        self.inbound.each(bytes, |frame, _| {
            let within = match frame.kind {
                // Requests and their trailers are counted where they are served.
                HEADERS => return,
                DATA if frame.length > 0 || frame.flags & END_STREAM != 0 => return,
                RST_STREAM => resets.take(Instant::now).then_some(()).ok_or(Flood::Resets),
                _ => idle.take(Instant::now).then_some(()).ok_or(Flood::Idle),
            };
            flood = flood.and(within);
        });
        flood
    }

    /// These bytes go to the client. Where they end the connection for a fault of the client's,
    /// its code (RFC 9113, section 7).
    pub fn sent(&mut self, bytes: &[u8]) -> Option<u32> {
        let idle = &mut self.idle;
        let mut fault = None;
        self.outbound.each(bytes, |frame, rest| match frame.kind {
            DATA => idle.give(WINDOWS_PER_DATA),
            GOAWAY => {
                // The last stream, and the code; both are written with the head.
                let code = rest.get(4..8).and_then(|code| code.try_into().ok());
                fault = code.map(u32::from_be_bytes).filter(|&code| code != 0);
            }
            _ => {}
        });
        fault
    }
}

/// So many in each span of time. The clock is asked only where they are used up.
#[derive(Debug)]
struct Allowance {
    most: u32,
    used: u32,
    since: Option<Instant>,
}

impl Allowance {
    fn new(most: u32) -> Allowance {
        Allowance {
            most,
            used: 0,
            since: None,
        }
    }

    fn take(&mut self, now: impl Fn() -> Instant) -> bool {
        let since = *self.since.get_or_insert_with(&now);
        if self.used >= self.most {
            let now = now();
            if now.duration_since(since) < SPAN {
                return false;
            }
            (self.used, self.since) = (0, Some(now));
        }
        self.used += 1;
        true
    }

    fn give(&mut self, back: u32) {
        self.used = self.used.saturating_sub(back);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    length: usize,
    kind: u8,
    flags: u8,
}

/// Finds the heads of frames in bytes that come in any pieces.
#[derive(Debug, Default)]
struct Scan {
    /// Until the next head.
    skip: usize,
    head: [u8; HEAD],
    filled: usize,
}

/// The head of every frame.
const HEAD: usize = 9;

impl Scan {
    fn each(&mut self, mut bytes: &[u8], mut found: impl FnMut(Frame, &[u8])) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let part = (HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + part].copy_from_slice(&bytes[..part]);
            self.filled += part;
            bytes = &bytes[part..];
            if self.filled == HEAD {
                let [high, middle, low, kind, flags, ..] = self.head;
                let length = u32::from_be_bytes([0, high, middle, low]) as usize;
                (self.skip, self.filled) = (length, 0);
                let frame = Frame {
                    length,
                    kind,
                    flags,
                };
                found(frame, bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).expect("short").to_be_bytes();
        let head = [size[1], size[2], size[3], kind, flags, 0, 0, 0, 1];
        [head.to_vec(), vec![0xaa; length]].concat()
    }

    fn frames() -> Frames {
        let limits = Limits {
            h2_resets: 3,
            h2_idle_frames: 5,
            ..Limits::default()
        };
        let mut frames = Frames::new(&limits);
        assert_eq!(frames.received(PREFACE), Ok(()));
        frames
    }

    fn sniffed(parts: &[&'static [u8]]) -> (bool, Vec<u8>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut builder = tokio_test::io::Builder::new();
            for part in parts {
                builder.read(part);
            }
            let mut stream = tokio::io::BufReader::new(builder.build());
            let (h2, taken) = sniff(&mut stream).await.expect("read");
            (h2, taken, stream.buffer().to_vec())
        })
    }

    #[test]
    fn a_connection_is_told_by_its_first_bytes() {
        let whole = PREFACE.to_vec();
        assert_eq!(sniffed(&[PREFACE]), (true, whole.clone(), vec![]));
        assert_eq!(
            sniffed(&[b"PRI * HTTP/2.0\r\n", b"\r\nSM\r\n\r\nrest"]),
            (true, whole, b"rest".to_vec())
        );
        assert_eq!(sniffed(&[b"G"]), (false, vec![], b"G".to_vec()));
        assert_eq!(
            sniffed(&[b"P", b"OST / HTTP/1.0"]),
            (false, b"P".to_vec(), b"OST / HTTP/1.0".to_vec())
        );
        assert_eq!(sniffed(&[b"PRI"]), (false, b"PRI".to_vec(), vec![]));
        assert_eq!(sniffed(&[]), (false, vec![], vec![]));
    }

    #[test]
    fn floods_are_told_from_use() {
        let mut many = frames();
        for _ in 0..100 {
            assert_eq!(many.received(&frame(HEADERS, 5, 20)), Ok(()));
            assert_eq!(many.received(&frame(DATA, 0, 20)), Ok(()));
            assert_eq!(many.received(&frame(DATA, END_STREAM, 0)), Ok(()));
        }
        for _ in 0..3 {
            assert_eq!(many.received(&frame(RST_STREAM, 0, 4)), Ok(()));
        }
        assert_eq!(many.received(&frame(RST_STREAM, 0, 4)), Err(Flood::Resets));
        for kind in [DATA, PING, 2, 4, 9, 200] {
            let mut idle = frames();
            for _ in 0..5 {
                assert_eq!(idle.received(&frame(kind, 0, 0)), Ok(()), "{kind}");
            }
            assert_eq!(
                idle.received(&frame(kind, 0, 0)),
                Err(Flood::Idle),
                "{kind}"
            );
        }
        // A reader that gets something may say so.
        let mut reading = frames();
        for _ in 0..100 {
            reading.sent(&frame(DATA, 0, 1_000));
            for _ in 0..5 {
                assert_eq!(reading.received(&frame(WINDOW_UPDATE, 0, 4)), Ok(()));
            }
        }
    }

    #[test]
    fn an_end_for_a_fault_is_noticed() {
        let mut ended = frames();
        let end = |code: u8| [frame(GOAWAY, 0, 0), vec![0, 0, 0, 1, 0, 0, 0, code]].concat();
        let end = |code| {
            let mut frame = end(code);
            frame[2] = 8;
            frame
        };
        assert_eq!(ended.sent(&[frame(DATA, 0, 3), end(0)].concat()), None);
        assert_eq!(ended.sent(&[frame(DATA, 0, 3), end(11)].concat()), Some(11));
    }

    #[test]
    fn an_allowance_comes_back_with_time() {
        let begin = Instant::now();
        let mut allowance = Allowance::new(2);
        assert!(allowance.take(|| begin) && allowance.take(|| begin));
        assert!(!allowance.take(|| begin + SPAN / 2));
        assert!(allowance.take(|| begin + SPAN));
    }

    proptest! {
        #[test]
        fn heads_are_found_in_any_pieces(
            sizes in proptest::collection::vec((0usize..300, 0u8..12), 0..20),
            cuts in proptest::collection::vec(1usize..50, 1..20),
        ) {
            let whole: Vec<u8> = sizes
                .iter()
                .flat_map(|&(length, kind)| frame(kind, 0, length))
                .collect();
            let (mut scan, mut found, mut rest) = (Scan::default(), Vec::new(), &whole[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, later) = rest.split_at((*cut).min(rest.len()));
                scan.each(part, |frame, _| found.push((frame.length, frame.kind)));
                rest = later;
            }
            prop_assert_eq!(found, sizes);
        }
    }
}
