//! Some lines of a file, found without holding them.

use std::io;

use bytes::Bytes;
use kit::Fault;

use crate::work::Wanted;

/// Most lines of one request.
const LINES: u64 = 100_000;
/// Most bytes of one request.
const BYTES: u64 = 64 << 20;
/// What is looked through at a time.
const BLOCK: usize = 256 << 10;

/// Which lines: `10-50`, `100`, `50-`, or the last twenty as `-20`. Counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    Range { first: u64, last: u64 },
    Last(u64),
}

/// Where lines are.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    pub from: u64,
    pub to: u64,
    /// Numbers of the first and the last line; for last lines only where the file was read whole.
    pub range: Option<(u64, u64)>,
    pub count: u64,
    /// Lines in the file, where the search came to its end.
    pub total: Option<u64>,
    /// A bound cut it short.
    pub truncated: bool,
}

impl Lines {
    pub fn parse(text: &str) -> Result<Lines, Fault> {
        let wrong = || {
            Fault::bad_request(format!(
                "`{text}` names no lines; write 10-50, 100, 50- or, for the last twenty, -20"
            ))
        };
        let number = |text: &str| {
            text.parse()
                .ok()
                .filter(|number: &u64| *number > 0)
                .ok_or_else(wrong)
        };
        match text.split_once('-') {
            None => number(text).map(|line| Lines::Range {
                first: line,
                last: line,
            }),
            Some(("", last)) => number(last).map(Lines::Last),
            Some((first, "")) => Ok(Lines::Range {
                first: number(first)?,
                last: u64::MAX,
            }),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    Err(wrong())
                } else {
                    Ok(Lines::Range { first, last })
                }
            }
        }
    }

    /// Find them in `len` bytes that `read` gives by offset and size. None where the file ends
    /// before the first.
    pub fn find(
        self,
        len: u64,
        read: impl Fn(u64, usize) -> io::Result<Bytes>,
        wanted: &Wanted,
    ) -> Result<Option<Found>, LinesError> {
        match self {
            Lines::Range { first, last } => forward(len, read, wanted, first, last),
            Lines::Last(count) => backward(len, read, wanted, count).map(Some),
        }
    }
}

/// Why no lines were found.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    #[error("could not read the lines")]
    Read(#[from] io::Error),
    #[error("nobody waits for the lines")]
    Unwanted,
}

fn forward(
    len: u64,
    read: impl Fn(u64, usize) -> io::Result<Bytes>,
    wanted: &Wanted,
    first: u64,
    last: u64,
) -> Result<Option<Found>, LinesError> {
    let bound = last.min(first.saturating_add(LINES - 1));
    let mut from = (first == 1).then_some(0);
    let (mut at, mut line, mut line_start) = (0, 1, 0); // the line that `at` is in, and its start
    while at < len {
        if wanted.gone() {
            return Err(LinesError::Unwanted);
        }
        let block = read(at, BLOCK)?;
        if block.is_empty() {
            break;
        }
        for newline in memchr::memchr_iter(b'\n', &block) {
            let end = at + newline as u64 + 1;
            if let Some(from) = from {
                let done = |to: u64, last_line: u64, truncated: bool| Found {
                    from,
                    to,
                    range: Some((first, last_line)),
                    count: last_line + 1 - first,
                    total: None,
                    truncated,
                };
                if end - from > BYTES {
                    let (to, last_line) = if line_start > from {
                        (line_start, line - 1)
                    } else {
                        (from + BYTES, line)
                    };
                    return Ok(Some(done(to, last_line, true)));
                }
                if line == bound {
                    return Ok(Some(done(end, line, bound < last && end < len)));
                }
            }
            line += 1;
            line_start = end;
            if line == first {
                from = Some(end);
            }
        }
        at += block.len() as u64;
        if let Some(from) = from
            && at - from > BYTES
        {
            // One line, or the last of some, is longer than all that may be sent.
            let (to, last_line) = if line_start > from {
                (line_start, line - 1)
            } else {
                (from + BYTES, line)
            };
            return Ok(Some(Found {
                from,
                to,
                range: Some((first, last_line)),
                count: last_line + 1 - first,
                total: None,
                truncated: true,
            }));
        }
    }
    let total = if line_start == at { line - 1 } else { line };
    let from = match from {
        Some(from) if first <= total || total == 0 => from,
        _ => return Ok(None),
    };
    let range = (total > 0).then_some((first, total));
    let count = if total > 0 { total + 1 - first } else { 0 };
    Ok(Some(Found {
        from,
        to: at,
        range,
        count,
        total: Some(total),
        truncated: false,
    }))
}

fn backward(
    len: u64,
    read: impl Fn(u64, usize) -> io::Result<Bytes>,
    wanted: &Wanted,
    count: u64,
) -> Result<Found, LinesError> {
    let bound = count.min(LINES);
    let (mut at, mut seen, mut start) = (len, 0, len); // lines before `start` are not counted yet
    while at > 0 {
        if wanted.gone() {
            return Err(LinesError::Unwanted);
        }
        let block_start = at.saturating_sub(BLOCK as u64);
        let block = read(block_start, (at - block_start) as usize)?;
        for newline in memchr::memrchr_iter(b'\n', &block) {
            let after = block_start + newline as u64 + 1;
            if after == len {
                continue; // it ends the last line and begins none
            }
            if len - after > BYTES {
                return Ok(last(start, len, seen, None, true));
            }
            (seen, start) = (seen + 1, after);
            if seen == bound {
                return Ok(last(start, len, seen, None, bound < count));
            }
        }
        at = block_start;
        if len - at > BYTES {
            let from = if seen == 0 { len - BYTES } else { start };
            return Ok(last(from, len, seen.max(1), None, true));
        }
    }
    let total = if len == 0 { 0 } else { seen + 1 };
    Ok(last(0, len, total, Some(total), false))
}

fn last(from: u64, to: u64, count: u64, total: Option<u64>, truncated: bool) -> Found {
    let range = total
        .filter(|total| *total > 0)
        .map(|total| (total + 1 - count, total));
    Found {
        from,
        to,
        range,
        count,
        total,
        truncated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str, lines: &str) -> Option<(String, Option<u64>)> {
        let read = |at: u64, want: usize| {
            let from = (at as usize).min(text.len());
            Ok(Bytes::copy_from_slice(
                &text.as_bytes()[from..(from + want).min(text.len())],
            ))
        };
        let found = Lines::parse(lines)
            .unwrap()
            .find(text.len() as u64, read, &Wanted::default())
            .unwrap()?;
        Some((
            text[found.from as usize..found.to as usize].to_owned(),
            found.total,
        ))
    }

    #[test]
    fn lines_are_counted_from_one_and_the_last_needs_no_newline() {
        for (text, lines, want, total) in [
            ("a\nb\nc\n", "1-2", "a\nb\n", None),
            ("a\nb\nc\n", "2", "b\n", None),
            ("a\nb\nc\n", "2-", "b\nc\n", Some(3)),
            ("a\nb\nc", "2-9", "b\nc", Some(3)),
            ("a\nb\nc", "3", "c", Some(3)),
            ("a\nb\nc\n", "-2", "b\nc\n", None),
            ("a\nb\nc", "-2", "b\nc", None),
            ("a\nb\nc\n", "-3", "a\nb\nc\n", Some(3)),
            ("a\nb\nc\n", "-9", "a\nb\nc\n", Some(3)),
            ("\n\n\n", "2", "\n", None),
            ("\n", "-1", "\n", Some(1)),
            ("", "1-5", "", Some(0)),
            ("", "-5", "", Some(0)),
        ] {
            assert_eq!(
                find(text, lines),
                Some((want.to_owned(), total)),
                "{lines} of {text:?}"
            );
        }
        assert_eq!(find("a\nb\n", "3"), None);
        assert_eq!(find("", "2"), None);
    }

    #[test]
    fn what_names_no_lines_is_refused() {
        for text in [
            "",
            "0",
            "-",
            "0-5",
            "5-2",
            "a",
            "-0",
            "1-2-3",
            "--3",
            "99999999999999999999",
        ] {
            assert!(Lines::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_line_longer_than_the_bound_is_cut() {
        let len = BYTES + 10 * BLOCK as u64;
        let read =
            |at: u64, want: usize| Ok(Bytes::from(vec![b'x'; want.min((len - at) as usize)]));
        let found = Lines::parse("1-2")
            .unwrap()
            .find(len, read, &Wanted::default())
            .unwrap()
            .unwrap();
        assert!(found.truncated && found.to - found.from == BYTES);
        let found = Lines::parse("-2")
            .unwrap()
            .find(len, read, &Wanted::default())
            .unwrap()
            .unwrap();
        assert!(found.truncated && found.to - found.from == BYTES);
    }
}
