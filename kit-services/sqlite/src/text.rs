//! SQL as text: its words, a form without values for the history, and where a statement ends.

/// What a piece of SQL is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Space,
    Comment,
    Word,
    /// A name in quotes.
    Quoted,
    /// Text, a number or a blob, as it stands in the statement.
    Literal,
    /// `?`, `?1`, `:name`, `@name`, `$name`.
    Parameter,
    Semicolon,
    Other,
}

/// The pieces of a text, one after the other; together they are the text.
pub fn pieces(sql: &str) -> impl Iterator<Item = (Kind, &str)> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        let (kind, length) = next(rest)?;
        let (piece, after) = rest.split_at(length);
        rest = after;
        Some((kind, piece))
    })
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$') || !character.is_ascii()
}

/// The bytes up to the first character that does not fit.
fn while_fits(text: &str, fits: impl Fn(char) -> bool) -> usize {
    text.find(|character| !fits(character))
        .unwrap_or(text.len())
}

fn next(rest: &str) -> Option<(Kind, usize)> {
    let first = rest.chars().next()?;
    let bytes = rest.as_bytes();
    Some(match first {
        _ if first.is_ascii_whitespace() => {
            (Kind::Space, while_fits(rest, |c| c.is_ascii_whitespace()))
        }
        '-' if bytes.get(1) == Some(&b'-') => {
            (Kind::Comment, rest.find('\n').unwrap_or(rest.len()))
        }
        '/' if bytes.get(1) == Some(&b'*') => (
            Kind::Comment,
            rest[2..].find("*/").map_or(rest.len(), |at| at + 4),
        ),
        '\'' => (Kind::Literal, quoted(rest, '\'')),
        'x' | 'X' if bytes.get(1) == Some(&b'\'') => (Kind::Literal, 1 + quoted(&rest[1..], '\'')),
        '"' | '`' => (Kind::Quoted, quoted(rest, first)),
        '[' => (Kind::Quoted, rest.find(']').map_or(rest.len(), |at| at + 1)),
        ';' => (Kind::Semicolon, 1),
        '?' => (
            Kind::Parameter,
            1 + while_fits(&rest[1..], |c| c.is_ascii_digit()),
        ),
        ':' | '@' | '$' | '#' => (Kind::Parameter, 1 + while_fits(&rest[1..], is_word)),
        '0'..='9' => (Kind::Literal, number(rest)),
        '.' if bytes.get(1).is_some_and(u8::is_ascii_digit) => (Kind::Literal, number(rest)),
        _ if is_word(first) => (Kind::Word, while_fits(rest, is_word)),
        _ => (Kind::Other, first.len_utf8()),
    })
}

/// How long a piece in quotes is; a quote in it is written twice.
fn quoted(text: &str, quote: char) -> usize {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == quote {
            match characters.peek() {
                Some((_, next)) if *next == quote => {
                    characters.next();
                }
                _ => return at + quote.len_utf8(),
            }
        }
    }
    text.len()
}

/// `12`, `1.5e-3`, `0xff`, `1_000`; letters that follow belong to it, whatever SQLite says to them.
fn number(text: &str) -> usize {
    let mut before = ' ';
    for (at, character) in text.char_indices() {
        let sign = matches!(character, '+' | '-') && matches!(before, 'e' | 'E');
        if !(is_word(character) || character == '.' || sign) {
            return at;
        }
        before = character;
    }
    text.len()
}

/// The first word of a statement, in capitals; empty where it begins otherwise.
pub fn first_word(sql: &str) -> String {
    pieces(sql)
        .find(|(kind, _)| !matches!(kind, Kind::Space | Kind::Comment | Kind::Semicolon))
        .filter(|(kind, _)| *kind == Kind::Word)
        .map(|(_, word)| word.to_ascii_uppercase())
        .unwrap_or_default()
}

/// Whether there is nothing in it to run.
pub fn is_empty(sql: &str) -> bool {
    pieces(sql).all(|(kind, _)| matches!(kind, Kind::Space | Kind::Comment | Kind::Semicolon))
}

/// The statement without what it is about: literals become `?`, comments go, spaces shrink. At
/// most `longest` bytes of it, with `…` at the end where there was more.
pub fn without_values(sql: &str, longest: usize) -> String {
    let mut plain = String::new();
    for (kind, piece) in pieces(sql) {
        match kind {
            Kind::Space | Kind::Comment => {
                if !plain.is_empty() && !plain.ends_with(' ') {
                    plain.push(' ');
                }
            }
            Kind::Literal => plain.push('?'),
            _ => plain.push_str(piece),
        }
        if plain.len() > longest {
            cut(&mut plain, longest);
            plain.push('…');
            return plain;
        }
    }
    plain.truncate(plain.trim_end().len());
    plain
}

/// Cut a text to at most so many bytes, between two characters.
pub fn cut(text: &mut String, longest: usize) {
    let mut end = text.len().min(longest);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

/// A message of SQLite's without what it quotes of a statement, and without numbers and text.
pub fn without_quotes(message: &str, longest: usize) -> String {
    let mut plain = String::new();
    for (at, part) in message.split('"').enumerate() {
        // every second one stands in quotes, and the last may be open
        if at % 2 == 1 {
            plain.push('…');
        } else {
            plain.push_str(part);
        }
    }
    without_values(&plain, longest)
}

/// Finds the ends of statements in text that comes in pieces, as SQLite's own shell does: a
/// semicolon ends one, unless it is in quotes, in a comment, or in the body of a trigger.
#[derive(Debug, Default)]
pub struct Splitter {
    statement: String,
    lexer: Lexer,
    state: State,
    word: String,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Lexer {
    #[default]
    Plain,
    Quote(char),
    Line,
    Block,
    /// A star in a block comment.
    Star,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    Normal,
    Explain,
    Create,
    Trigger,
    Semicolon,
    End,
}

impl Splitter {
    /// Take one character. A statement, where it ends with it.
    pub fn push(&mut self, character: char) -> Option<String> {
        let before = self.statement.chars().next_back();
        self.statement.push(character);
        match self.lexer {
            Lexer::Quote(quote) => {
                if character == quote {
                    self.lexer = Lexer::Plain;
                }
                return None;
            }
            Lexer::Line => {
                if character == '\n' {
                    self.lexer = Lexer::Plain;
                }
                return None;
            }
            Lexer::Block | Lexer::Star => {
                self.lexer = match (self.lexer, character) {
                    (Lexer::Star, '/') => Lexer::Plain,
                    (_, '*') => Lexer::Star,
                    _ => Lexer::Block,
                };
                return None;
            }
            Lexer::Plain => {}
        }
        if is_word(character) {
            self.word.push(character);
            return None;
        }
        self.end_of_word();
        match (before, character) {
            (Some('-'), '-') => self.lexer = Lexer::Line,
            (Some('/'), '*') => self.lexer = Lexer::Block,
            (_, '\'' | '"' | '`') => {
                self.step("?");
                self.lexer = Lexer::Quote(character);
            }
            (_, '[') => {
                self.step("?");
                self.lexer = Lexer::Quote(']');
            }
            (_, ';') => {
                self.state = match self.state {
                    State::Trigger | State::Semicolon => State::Semicolon,
                    _ => State::Start,
                };
                if self.state == State::Start {
                    return Some(std::mem::take(&mut self.statement));
                }
            }
            // the first half of a comment is told when the second comes
            (_, '-' | '/') => {}
            _ if character.is_whitespace() => {}
            _ => self.step("?"),
        }
        None
    }

    /// Bytes that wait for the end of their statement.
    pub fn waiting(&self) -> usize {
        self.statement.len()
    }

    /// What is left at the end.
    pub fn rest(self) -> String {
        self.statement
    }

    fn end_of_word(&mut self) {
        if !self.word.is_empty() {
            let word = std::mem::take(&mut self.word);
            self.step(&word.to_ascii_uppercase());
        }
    }

    fn step(&mut self, word: &str) {
        use State as S;
        self.state = match (self.state, word) {
            (S::Start, "EXPLAIN") => S::Explain,
            (S::Start | S::Explain, "CREATE") => S::Create,
            (S::Explain, "QUERY" | "PLAN") => S::Explain,
            (S::Create, "TEMP" | "TEMPORARY") => S::Create,
            (S::Create, "TRIGGER") => S::Trigger,
            (S::Semicolon, "END") => S::End,
            (S::Trigger | S::Semicolon | S::End, _) => S::Trigger,
            _ => S::Normal,
        };
    }
}

/// All statements of a text; what is empty is left out.
pub fn statements(sql: &str) -> Vec<String> {
    let mut splitter = Splitter::default();
    let mut found: Vec<String> = sql.chars().filter_map(|c| splitter.push(c)).collect();
    found.push(splitter.rest());
    found.retain(|statement| !is_empty(statement));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_left_out() {
        for (sql, plain) in [
            (
                "INSERT INTO users VALUES (1, 'hunter2', x'00ff', 1.5e-3)",
                "INSERT INTO users VALUES (?, ?, ?, ?)",
            ),
            (
                "SELECT \"a b\", [c], `d` FROM t WHERE x='it''s' AND y=:y -- the key is s3cr3t",
                "SELECT \"a b\", [c], `d` FROM t WHERE x=? AND y=:y",
            ),
            ("SELECT /* hunter2 */ 1\n\n  + 2", "SELECT ? + ?"),
            ("SELECT 'never ends", "SELECT ?"),
            ("SELECT t1.x FROM t1", "SELECT t1.x FROM t1"),
            ("SELECT .5, 0xff, ?1, @a, $b", "SELECT ?, ?, ?1, @a, $b"),
        ] {
            assert_eq!(without_values(sql, 1000), plain);
        }
        assert_eq!(without_values("SELECT äöü", 9), "SELECT ä…");
        assert_eq!(
            without_quotes("unrecognized token: \"'s3cr3t\" at 12", 100),
            "unrecognized token: … at ?"
        );
        assert_eq!(without_quotes("near \"s3cr3t", 100), "near …");
    }

    #[test]
    fn statements_end_where_they_do() {
        for (sql, want) in [
            ("SELECT 1; SELECT 2", vec!["SELECT 1;", " SELECT 2"]),
            (
                "SELECT ';'; -- ; not here\nSELECT \";\"",
                vec!["SELECT ';';", " -- ; not here\nSELECT \";\""],
            ),
            ("SELECT /* ; **/ [;] ; ;; ", vec!["SELECT /* ; **/ [;] ;"]),
            (
                "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; SELECT 2; END; SELECT 3;",
                vec![
                    "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; SELECT 2; END;",
                    " SELECT 3;",
                ],
            ),
            (
                "CREATE TEMP TRIGGER x BEGIN DELETE FROM \"end\"; END;",
                vec!["CREATE TEMP TRIGGER x BEGIN DELETE FROM \"end\"; END;"],
            ),
            (
                "EXPLAIN QUERY PLAN SELECT 1;SELECT 2;",
                vec!["EXPLAIN QUERY PLAN SELECT 1;", "SELECT 2;"],
            ),
            ("SELECT 5-2;SELECT 6/3;", vec!["SELECT 5-2;", "SELECT 6/3;"]),
            (" -- nothing\n ; ", vec![]),
        ] {
            assert_eq!(statements(sql), want, "{sql}");
        }
    }

    #[test]
    fn the_first_word_is_found_behind_comments() {
        assert_eq!(first_word(" /* x */ -- y\n vacuum into 'z'"), "VACUUM");
        assert_eq!(first_word("'select'"), "");
        assert_eq!(first_word(""), "");
    }

    proptest! {
        #[test]
        fn pieces_are_the_text(sql in "\\PC{0,60}|[-/*'\"`\\[\\];:?@$ xX0-9a-zé.\n]{0,60}") {
            let together: String = pieces(&sql).map(|(_, piece)| piece).collect();
            prop_assert_eq!(together, sql);
        }

        #[test]
        fn no_text_in_quotes_is_kept(secret in "[a-z0-9;*/ -]{6,20}") {
            let sql = format!("SELECT x FROM t WHERE a = '{secret}' AND b = x'{secret}'");
            let plain = without_values(&sql, 1000);
            prop_assert_eq!(plain, "SELECT x FROM t WHERE a = ? AND b = ?");
        }

        #[test]
        fn statements_are_the_text(sql in "[-/*'\"\\[\\]; \nA-Z]{0,80}") {
            let mut splitter = Splitter::default();
            let mut together: String = sql.chars().filter_map(|c| splitter.push(c)).collect();
            together.push_str(&splitter.rest());
            prop_assert_eq!(together, sql);
        }
    }
}
