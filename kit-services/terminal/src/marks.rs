//! What a shell says in its output that is not for the screen.
//!
//! The shell's start-up file (see [`shell`](crate::shell)) has it write marks: operating system
//! commands (ECMA-48, 8.3.89) of a private number with a secret of the session, so that a program
//! that prints one by accident or on purpose says nothing. Marks are taken out of the stream; all
//! else passes byte for byte.

/// The private number of the marks.
pub const NUMBER: u32 = 7717;

/// A sequence longer than this is no mark and no title worth knowing; it passes as it is.
const MAX_SEQUENCE: usize = 512;

/// What a shell said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It is about to show its prompt; the last command ended so.
    Prompt(i32),
    /// It took a line and is about to run it.
    Accepted,
    /// It begins the command of this number.
    Begin(u64),
    /// It ended the command of this number so.
    End(u64, i32),
}

/// A piece of the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    Output(&'a [u8]),
    Mark(Mark),
    /// A program named the window; the bytes that say so pass as output.
    Title(String),
}

/// Takes marks out of one stream.
#[derive(Debug)]
pub struct Marks {
    secret: String,
    /// The beginning of a sequence whose end was not read yet.
    held: Vec<u8>,
}

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;

impl Marks {
    pub fn new(secret: &str) -> Marks {
        Marks {
            secret: secret.to_owned(),
            held: Vec::new(),
        }
    }

    /// Cut `bytes`, which follow what was fed before, into pieces.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Piece<'_>)) {
        let joined;
        let data = if self.held.is_empty() {
            bytes
        } else {
            joined = [&std::mem::take(&mut self.held), bytes].concat();
            &joined
        };
        let output = |bytes: &[u8], each: &mut dyn FnMut(Piece<'_>)| {
            if !bytes.is_empty() {
                each(Piece::Output(bytes));
            }
        };
        let (mut start, mut at) = (0, 0);
        while let Some(offset) = data[at..].iter().position(|byte| *byte == ESC) {
            let escape = at + offset;
            match sequence(&data[escape..]) {
                Sequence::Unfinished => {
                    output(&data[start..escape], &mut each);
                    self.held = data[escape..].to_vec();
                    return;
                }
                Sequence::Other => at = escape + 1,
                Sequence::Command { body, length } => {
                    at = escape + length;
                    if let Some(mark) = self.mark(body) {
                        output(&data[start..escape], &mut each);
                        each(Piece::Mark(mark));
                        start = at;
                    } else if let Some(title) = title(body) {
                        output(&data[start..at], &mut each);
                        each(Piece::Title(title));
                        start = at;
                    }
                }
            }
        }
        output(&data[start..], &mut each);
    }

    /// What was held back, when nothing more will come.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    fn mark(&self, body: &[u8]) -> Option<Mark> {
        let mut words = std::str::from_utf8(body).ok()?.split(';');
        if words.next()?.parse() != Ok(NUMBER) || words.next()? != self.secret {
            return None;
        }
        match words.next()? {
            "P" => Some(Mark::Prompt(words.next()?.parse().ok()?)),
            "C" => Some(Mark::Accepted),
            "B" => Some(Mark::Begin(words.next()?.parse().ok()?)),
            "E" => Some(Mark::End(
                words.next()?.parse().ok()?,
                words.next()?.parse().ok()?,
            )),
            _ => None,
        }
    }
}

enum Sequence<'a> {
    /// An operating system command, all of it.
    Command {
        body: &'a [u8],
        length: usize,
    },
    /// It may become one.
    Unfinished,
    Other,
}

/// What begins at the escape that `data` begins with.
fn sequence(data: &[u8]) -> Sequence<'_> {
    match data.get(1) {
        None => return Sequence::Unfinished,
        Some(b']') => {}
        Some(_) => return Sequence::Other,
    }
    for (at, byte) in data.iter().enumerate().skip(2).take(MAX_SEQUENCE) {
        match (*byte, data.get(at + 1)) {
            (BEL, _) => {
                return Sequence::Command {
                    body: &data[2..at],
                    length: at + 1,
                };
            }
            (ESC, Some(b'\\')) => {
                return Sequence::Command {
                    body: &data[2..at],
                    length: at + 2,
                };
            }
            (ESC, None) => return Sequence::Unfinished,
            (0x00..=0x1f, _) => return Sequence::Other,
            _ => {}
        }
    }
    if data.len() < MAX_SEQUENCE {
        Sequence::Unfinished
    } else {
        Sequence::Other
    }
}

/// The window title that an operating system command sets.
fn title(body: &[u8]) -> Option<String> {
    let text = body
        .strip_prefix(b"0;")
        .or_else(|| body.strip_prefix(b"2;"))?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feed `parts` and gather output, marks and titles.
    fn read(parts: &[&[u8]]) -> (Vec<u8>, Vec<Mark>, Vec<String>) {
        let (mut output, mut marks, mut titles) = (Vec::new(), Vec::new(), Vec::new());
        let mut reader = Marks::new("abc");
        for part in parts {
            reader.feed(part, |piece| match piece {
                Piece::Output(bytes) => output.extend_from_slice(bytes),
                Piece::Mark(mark) => marks.push(mark),
                Piece::Title(title) => titles.push(title),
            });
        }
        output.extend(reader.finish());
        (output, marks, titles)
    }

    const STREAM: &[u8] = b"a\x1b]7717;abc;P;130\x07b\x1b[31mred\x1b]0;tit\xc3\xa9\x1b\\\x1b]7717;abc;E;5;-1\x1b\\c\x1b]7717;abd;P;0\x07\x1b]7717;abc;C\x07\x1b";

    #[test]
    fn marks_are_read_and_taken_out_wherever_the_stream_is_cut() {
        let want = read(&[STREAM]);
        assert_eq!(
            want.1,
            [Mark::Prompt(130), Mark::End(5, -1), Mark::Accepted]
        );
        assert_eq!(want.2, ["tit\u{e9}"]);
        let shown: &[u8] = b"ab\x1b[31mred\x1b]0;tit\xc3\xa9\x1b\\c\x1b]7717;abd;P;0\x07\x1b";
        assert_eq!(want.0, shown, "a foreign secret is output");
        for cut in 0..STREAM.len() {
            assert_eq!(
                read(&[&STREAM[..cut], &STREAM[cut..]]),
                want,
                "cut at {cut}"
            );
        }
        let single: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(read(&single), want);
    }

    #[test]
    fn endless_sequences_are_not_held() {
        let mut long = b"\x1b]0;".to_vec();
        long.resize(MAX_SEQUENCE * 2, b'x');
        let mut reader = Marks::new("abc");
        let mut shown = 0;
        for chunk in long.chunks(7) {
            reader.feed(chunk, |piece| {
                if let Piece::Output(bytes) = piece {
                    shown += bytes.len();
                }
            });
            assert!(reader.held.len() <= MAX_SEQUENCE + 7);
        }
        assert_eq!(shown + reader.held.len(), long.len());
    }

    proptest! {
        #[test]
        fn what_is_no_mark_passes_byte_for_byte(
            parts in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![
                    Just(ESC), Just(b']'), Just(BEL), Just(b'\\'), Just(b'0'), Just(b';'), any::<u8>()
                ], 0..40), 0..20)
        ) {
            let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(read(&slices).0, parts.concat());
        }
    }
}
