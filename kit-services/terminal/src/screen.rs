//! What is on a session's screen.
//!
//! The model is made when somebody first asks, from the scrollback, and dropped when nobody has
//! asked for a while: a session that nobody automates pays nothing for it.

use std::num::NonZeroU16;
use std::time::Duration;

use regex::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::pty::Size;

/// Lines above the screen that can be searched and looked at.
const SCROLLBACK_LINES: usize = 1000;
/// How long the model is kept up to date after it was last asked for.
const KEPT: Duration = Duration::from_secs(60);

pub struct Screen {
    parser: vt100::Parser,
    asked: Instant,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen")
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

fn side(length: u16) -> NonZeroU16 {
    NonZeroU16::new(length).unwrap_or(NonZeroU16::MIN)
}

impl Screen {
    /// The screen of this size after this output.
    pub fn new(size: Size, output: &[u8]) -> Screen {
        let mut parser = vt100::Parser::new(side(size.rows), side(size.columns), SCROLLBACK_LINES);
        parser.process(output);
        Screen {
            parser,
            asked: Instant::now(),
        }
    }

    pub fn show(&mut self, bytes: &[u8]) {
        self.parser.process(bytes);
    }

    pub fn resize(&mut self, size: Size) {
        self.parser
            .screen_mut()
            .set_size(side(size.rows), side(size.columns));
    }

    pub fn look(&mut self) -> &vt100::Screen {
        self.asked = Instant::now();
        self.parser.screen()
    }

    /// When it is dropped unless somebody asks again.
    pub fn expires(&self) -> Instant {
        self.asked + KEPT
    }
}

/// Which lines are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    #[default]
    Screen,
    /// The lines above the screen.
    Scrollback,
    All,
}

/// Where a cursor is; both count from 0.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct Cursor {
    pub row: u16,
    pub col: u16,
    pub visible: bool,
}

/// A stretch of cells in reverse video, which programs use to show what is selected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Highlight {
    pub row: u16,
    pub start_col: u16,
    /// The first column after it.
    pub end_col: u16,
    pub text: String,
}

/// What is on a screen.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Snapshot {
    pub terminal_id: String,
    /// The lines of the screen, without the blanks at their ends.
    pub lines: Vec<String>,
    /// The same lines with escape sequences for colours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub colored_lines: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highlights: Option<Vec<Highlight>>,
    pub cursor: Cursor,
    pub title: String,
    /// A full-screen program is shown.
    pub alternate_screen: bool,
    pub cols: u16,
    pub rows: u16,
    /// Lines above the screen.
    pub scrollback_lines: usize,
    /// How far up the lines shown begin.
    pub scroll_offset: usize,
    /// Bytes of output up to this picture; it grows when anything is shown.
    pub sequence: u64,
}

/// What to put into a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub colors: bool,
    pub highlights: bool,
    pub scroll_offset: usize,
}

impl Snapshot {
    pub fn of(
        terminal_id: String,
        title: String,
        sequence: u64,
        screen: &mut vt100::Screen,
        wanted: Wanted,
    ) -> Snapshot {
        screen.set_scrollback(wanted.scroll_offset);
        let (rows, cols) = screen.size();
        let (rows, cols) = (rows.get(), cols.get());
        let (row, col) = screen.cursor_position();
        Snapshot {
            terminal_id,
            lines: screen
                .rows(0, cols)
                .map(|line| line.trim_end().to_owned())
                .collect(),
            colored_lines: wanted
                .colors
                .then(|| screen.rows_formatted(0, cols).collect()),
            highlights: wanted.highlights.then(|| highlights(screen, rows, cols)),
            cursor: Cursor {
                row,
                col,
                visible: !screen.hide_cursor(),
            },
            title,
            alternate_screen: screen.alternate_screen(),
            cols,
            rows,
            scrollback_lines: screen.scrollback_len(),
            scroll_offset: screen.scrollback(),
            sequence,
        }
    }
}

fn highlights(screen: &vt100::Screen, rows: u16, cols: u16) -> Vec<Highlight> {
    let mut found: Vec<Highlight> = Vec::new();
    for row in 0..rows {
        for col in 0..cols {
            let Some(cell) = screen.cell(row, col).filter(|cell| cell.inverse()) else {
                continue;
            };
            let text = if cell.has_contents() {
                cell.contents()
            } else {
                " "
            };
            match found
                .last_mut()
                .filter(|last| last.row == row && last.end_col == col)
            {
                Some(last) => {
                    last.end_col += 1;
                    if !cell.is_wide_continuation() {
                        last.text += text;
                    }
                }
                None => found.push(Highlight {
                    row,
                    start_col: col,
                    end_col: col + 1,
                    text: text.to_owned(),
                }),
            }
        }
    }
    found
}

/// The lines of a scope, each with its row: 0 is the top of the screen, above it they are negative.
pub fn lines(screen: &mut vt100::Screen, scope: Scope, scroll_offset: usize) -> Vec<(i64, String)> {
    let (_, cols) = screen.size();
    let cols = cols.get();
    let mut found = Vec::new();
    if scope != Scope::Screen {
        let above = screen.scrollback_len();
        for offset in (1..=above).rev() {
            screen.set_scrollback(offset);
            let line = screen.rows(0, cols).next().unwrap_or_default();
            found.push((-i64::try_from(offset).unwrap_or(i64::MAX), line));
        }
    }
    if scope != Scope::Scrollback {
        screen.set_scrollback(scroll_offset);
        let offset = i64::try_from(screen.scrollback()).unwrap_or(0);
        found.extend(
            screen
                .rows(0, cols)
                .zip(0..)
                .map(|(line, row): (String, i64)| (row - offset, line)),
        );
    }
    screen.set_scrollback(0);
    found
}

/// A place where a pattern was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Hit {
    /// 0 is the top of the screen; lines above it are negative.
    pub row: i64,
    pub col: usize,
    /// The first column after it.
    pub end_col: usize,
    /// What was found.
    pub text: String,
    /// The line it is in.
    pub line: String,
}

/// Longest pattern, in bytes.
pub const MAX_PATTERN: usize = 1024;

/// Compile a pattern of a caller: matching takes time linear in the text.
pub fn pattern(text: &str, case_insensitive: bool) -> Result<Regex, String> {
    const COMPILED: usize = 1 << 20;
    if text.is_empty() || text.len() > MAX_PATTERN {
        return Err(format!("pattern must have 1 to {MAX_PATTERN} bytes"));
    }
    RegexBuilder::new(text)
        .case_insensitive(case_insensitive)
        .size_limit(COMPILED)
        .build()
        .map_err(|error| format!("pattern is no regular expression: {error}"))
}

/// The first `limit` places where a pattern is found.
pub fn find(lines: &[(i64, String)], pattern: &Regex, limit: usize) -> Vec<Hit> {
    let column = |line: &str, at: usize| line[..at].chars().count();
    lines
        .iter()
        .flat_map(|(row, line)| {
            pattern.find_iter(line).map(|found| Hit {
                row: *row,
                col: column(line, found.start()),
                end_col: column(line, found.end()),
                text: found.as_str().to_owned(),
                line: line.trim_end().to_owned(),
            })
        })
        .take(limit)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(output: &[u8]) -> vt100::Screen {
        Screen::new(
            Size {
                rows: 3,
                columns: 10,
            },
            output,
        )
        .look()
        .clone()
    }

    #[test]
    fn a_snapshot_says_what_is_seen() {
        let mut screen = shown(b"one\r\n\x1b[31mtwo\x1b[0m \x1b[7mhere\x1b[0m");
        let wanted = Wanted {
            colors: true,
            highlights: true,
            scroll_offset: 0,
        };
        let snapshot = Snapshot::of("1".into(), String::new(), 7, &mut screen, wanted);
        assert_eq!(snapshot.lines, ["one", "two here", ""]);
        assert!(snapshot.colored_lines.unwrap()[1].contains("\u{1b}[31mtwo"));
        let want = Highlight {
            row: 1,
            start_col: 4,
            end_col: 8,
            text: "here".into(),
        };
        assert_eq!(snapshot.highlights.unwrap(), [want]);
        assert_eq!((snapshot.cursor.row, snapshot.cursor.col), (1, 8));
    }

    #[test]
    fn lines_above_the_screen_are_found() {
        let mut screen = shown(b"aa1\r\naa2\r\naa3\r\naa4\r\naa5");
        let rows = |screen: &mut vt100::Screen, scope| {
            let pattern = pattern("AA.", true).unwrap();
            find(&lines(screen, scope, 0), &pattern, 10)
                .into_iter()
                .map(|hit| (hit.row, hit.text))
                .collect::<Vec<_>>()
        };
        let all: Vec<_> = (-2..3)
            .zip(1..)
            .map(|(row, number)| (row, format!("aa{number}")))
            .collect();
        assert_eq!(rows(&mut screen, Scope::All), all);
        assert_eq!(rows(&mut screen, Scope::Scrollback), all[..2]);
        assert_eq!(rows(&mut screen, Scope::Screen), all[2..]);
    }

    #[test]
    fn hostile_patterns_are_refused() {
        assert!(pattern("", false).is_err());
        assert!(pattern("(", false).is_err());
        assert!(pattern(&"a".repeat(2000), false).is_err());
        assert!(pattern("(a{1000}){1000}", false).is_err());
    }

    /// Bytes that steer terminals, and any others.
    fn output() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => proptest::collection::vec(any::<u8>(), 0..8),
            4 => (proptest::collection::vec(prop_oneof![Just(0_u32), 0..70_u32, Just(65_535), Just(u32::MAX)], 0..4), "[?>!]?", "[@-~]")
                .prop_map(|(parameters, private, last)| {
                    let parameters: Vec<String> = parameters.iter().map(u32::to_string).collect();
                    format!("\u{1b}[{private}{}{last}", parameters.join(";")).into_bytes()
                }),
            1 => "\u{1b}[A-Za-z0-9=>#()]{1,2}".prop_map(String::into_bytes),
            2 => "[a-z\u{4e00}-\u{4e10}\u{300}\u{200d}\u{1f600} \r\n\t]{0,40}".prop_map(String::into_bytes),
        ];
        proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn no_output_breaks_the_screen(
            first in output(), second in output(),
            (rows, columns) in (1..40_u16, 2..90_u16), (more_rows, more_columns) in (1..40_u16, 2..90_u16),
            scroll_offset in 0..50_usize,
        ) {
            let mut screen = Screen::new(Size { rows, columns }, &first);
            screen.resize(Size { rows: more_rows, columns: more_columns });
            screen.show(&second);
            let mut shown = screen.look().clone();
            let wanted = Wanted { colors: true, highlights: true, scroll_offset };
            let snapshot = Snapshot::of("1".into(), String::new(), 0, &mut shown, wanted);
            prop_assert_eq!(snapshot.lines.len(), usize::from(more_rows));
            lines(&mut shown, Scope::All, scroll_offset);
        }
    }
}
