//! The output that a session remembers, and what of it may be shown again.

use std::collections::VecDeque;

/// The last bytes of a stream, up to a bound.
#[derive(Debug)]
pub struct Scrollback {
    bytes: VecDeque<u8>,
    limit: usize,
}

/// A cut goes to the next line end when there is one within this many bytes.
const LINE_BYTES: usize = 4096;

impl Scrollback {
    pub fn new(limit: usize) -> Scrollback {
        Scrollback {
            bytes: VecDeque::new(),
            limit,
        }
    }

    /// Remember `bytes`, and forget the oldest ones beyond the bound.
    pub fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(self.limit)..];
        let excess = (self.bytes.len() + bytes.len()).saturating_sub(self.limit);
        if excess > 0 {
            // Forget an eighth at a time, so that a full scrollback does not cut at every write.
            let least = excess.max(self.limit / 8).min(self.bytes.len());
            let line = self
                .bytes
                .range(least..)
                .take(LINE_BYTES)
                .position(|byte| *byte == b'\n');
            self.bytes.drain(..least + line.map_or(0, |at| at + 1));
        }
        self.bytes.extend(bytes);
    }

    /// About the last `limit` bytes, from the beginning of a line.
    pub fn last(&self, limit: usize) -> Vec<u8> {
        let least = self.bytes.len().saturating_sub(limit);
        let line = self
            .bytes
            .range(least..)
            .take(LINE_BYTES)
            .position(|byte| *byte == b'\n');
        let start = if least == 0 {
            0
        } else {
            least + line.map_or(0, |at| at + 1)
        };
        self.bytes.range(start..).copied().collect()
    }

    /// All of it, oldest first.
    pub fn all(&self) -> Vec<u8> {
        let (front, back) = self.bytes.as_slices();
        [front, back].concat()
    }
}

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;
const ENQ: u8 = 0x05;

/// `bytes` without what makes a terminal answer or ring.
///
/// A terminal that is shown old output must not answer the questions in it: its answers would be
/// typed into whatever runs now.
pub fn without_questions(bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            BEL | ENQ => at += 1,
            ESC => {
                let length = escape(&bytes[at..]);
                let sequence = &bytes[at..at + length];
                if !asks(sequence) {
                    kept.extend_from_slice(sequence);
                }
                at += length;
            }
            _ => {
                let plain = bytes[at..]
                    .iter()
                    .position(|byte| matches!(*byte, BEL | ENQ | ESC))
                    .unwrap_or(bytes.len() - at);
                kept.extend_from_slice(&bytes[at..at + plain]);
                at += plain;
            }
        }
    }
    kept
}

/// The length of the escape sequence that `bytes` begins with.
fn escape(bytes: &[u8]) -> usize {
    let end = match bytes.get(1) {
        Some(b'[') => bytes
            .iter()
            .skip(2)
            .position(|byte| !(0x20..=0x3f).contains(byte))
            // A control character or escape ends it early and is not part of it.
            .map(|at| at + 2 + usize::from(bytes[at + 2] >= 0x40)),
        Some(b']' | b'P' | b'X' | b'^' | b'_') => {
            bytes.iter().enumerate().skip(2).find_map(|(at, byte)| {
                match (*byte, bytes.get(at + 1)) {
                    (BEL, _) => Some(at + 1),
                    (ESC, Some(b'\\')) => Some(at + 2),
                    (ESC, _) => Some(at),
                    _ => None,
                }
            })
        }
        Some(_) => Some(2),
        None => Some(1),
    };
    end.unwrap_or(bytes.len())
}

/// Whether a terminal answers this escape sequence (ECMA-48; xterm's control sequences).
fn asks(sequence: &[u8]) -> bool {
    let body = sequence.get(2..).unwrap_or_default();
    match sequence.get(1) {
        Some(b'Z') => true,
        Some(b'[') => {
            let (parameters, last) = match body.split_last() {
                Some((last, parameters)) => (parameters, *last),
                None => return false,
            };
            match last {
                b'c' | b'n' | b'x' => true,
                b'q' => parameters.starts_with(b">"),
                b'p' => parameters.ends_with(b"$"),
                b'u' => parameters.starts_with(b"?"),
                b'm' => parameters.starts_with(b"?"),
                b't' => {
                    matches!(
                        parameters,
                        b"11" | b"13" | b"14" | b"15" | b"16" | b"18" | b"19" | b"20" | b"21"
                    ) || parameters.starts_with(b"14;")
                        || parameters.starts_with(b"13;")
                }
                b'y' | b'w' => parameters.contains(&b'*') || parameters.ends_with(b"$"),
                _ => false,
            }
        }
        Some(b']') => {
            let body = body
                .strip_suffix(b"\x1b\\")
                .or_else(|| body.strip_suffix(b"\x07"))
                .unwrap_or(body);
            body.ends_with(b";?") || body.starts_with(b"52;")
        }
        Some(b'P') => body.starts_with(b"$q") || body.starts_with(b"+q"),
        _ => false,
    }
}

/// What a person would read in `bytes`: no escape sequences, no carriage returns before line ends.
pub fn as_text(bytes: &[u8]) -> String {
    let mut kept = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            ESC => at += escape(&bytes[at..]),
            b'\r' => {
                let is_followed = bytes
                    .get(at + 1)
                    .is_some_and(|next| !matches!(next, b'\n' | b'\r'));
                if is_followed && kept.last().is_some_and(|last| *last != b'\n') {
                    kept.push(b'\r');
                }
                at += 1;
            }
            0x08 => {
                kept.pop();
                at += 1;
            }
            byte => {
                if byte >= 0x20 || matches!(byte, b'\n' | b'\t') {
                    kept.push(byte);
                }
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_keeps_the_last_bytes_and_begins_at_a_line() {
        let mut scrollback = Scrollback::new(1000);
        for line in 0..1000 {
            scrollback.push(format!("line {line}\n").as_bytes());
            assert!(scrollback.all().len() <= 1000);
        }
        let text = String::from_utf8(scrollback.all()).unwrap();
        assert!(
            text.starts_with("line ") && text.ends_with("line 999\n"),
            "{text}"
        );
        assert_eq!(scrollback.last(20), b"line 998\nline 999\n");
        assert_eq!(scrollback.last(5000), scrollback.all());
        scrollback.push(&[b'x'; 5000]);
        assert_eq!(scrollback.all(), [b'x'; 1000]);
    }

    #[test]
    fn questions_are_left_out_and_drawing_is_not() {
        let check = |bytes: &[u8], want: &[u8]| {
            assert_eq!(
                without_questions(bytes).escape_ascii().to_string(),
                want.escape_ascii().to_string()
            );
        };
        check(b"a\x1b[6nb\x1b[cc\x1b[>cd\x1b[?6ne", b"abcde");
        check(
            b"\x1b[31mred\x1b[0m\x1b[2J\x1b[?1049h\x1b[1;1H",
            b"\x1b[31mred\x1b[0m\x1b[2J\x1b[?1049h\x1b[1;1H",
        );
        check(
            b"\x1b]11;?\x07x\x1b]10;?\x1b\\y\x1b]0;title\x07",
            b"xy\x1b]0;title\x07",
        );
        check(b"\x1bP+q544e\x1b\\x\x1b[>0qy\x1b[?2026$pz\x1b[18t", b"xyz");
        check(b"\x07\x05bell", b"bell");
        check(
            b"\x1b[22;0;0t\x1b[4:3m\x1b[2 q",
            b"\x1b[22;0;0t\x1b[4:3m\x1b[2 q",
        );
        check(b"cut\x1b[12", b"cut\x1b[12");
        check(b"cut\x1b]0;never", b"cut\x1b]0;never");
    }

    #[test]
    fn text_is_what_a_person_reads() {
        assert_eq!(
            as_text(b"\x1b[31mred\x1b[0m\r\n\x1b]0;t\x07\rab\x08c\r\n"),
            "red\nac\n"
        );
        assert_eq!(as_text(b"10%\r20%\r\n"), "10%\r20%\n");
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_grows(
            bytes in proptest::collection::vec(prop_oneof![
                Just(ESC), Just(b'['), Just(b']'), Just(BEL), Just(b'\\'), Just(b'c'), Just(b'?'), any::<u8>()
            ], 0..200)
        ) {
            prop_assert!(without_questions(&bytes).len() <= bytes.len());
            let twice = without_questions(&without_questions(&bytes));
            prop_assert!(twice.len() <= bytes.len());
            as_text(&bytes);
        }
    }
}
