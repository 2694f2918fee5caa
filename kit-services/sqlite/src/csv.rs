//! Comma-separated values (RFC 4180), one record at a time.
//!
//! A field without quotes that is empty is NULL, one in quotes is the empty text; so both come back.

use std::io::{self, BufRead, Write};

/// Fields of a record; SQLite has as many columns.
const FIELDS: usize = 2_000;

/// A record: NULL or text.
pub type Record = Vec<Option<String>>;

/// Records of a text.
pub struct Reader<R> {
    source: R,
    /// Lines that were read, for messages.
    pub line: u64,
    longest: usize,
}

/// What is wrong with a text, and where.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    #[error("line {line}: {what}")]
    Text { line: u64, what: &'static str },
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl<R: BufRead> Reader<R> {
    /// Read records of at most so many bytes.
    pub fn new(source: R, longest: usize) -> Reader<R> {
        Reader {
            source,
            line: 1,
            longest,
        }
    }

    fn wrong(&self, what: &'static str) -> Wrong {
        Wrong::Text {
            line: self.line,
            what,
        }
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.source.fill_buf()?.first().copied())
    }

    fn take(&mut self) -> io::Result<Option<u8>> {
        let byte = self.peek()?;
        if byte.is_some() {
            self.source.consume(1);
        }
        if byte == Some(b'\n') {
            self.line += 1;
        }
        Ok(byte)
    }

    /// The next record; none at the end. Empty lines are passed over.
    pub fn record(&mut self) -> Result<Option<Record>, Wrong> {
        loop {
            match self.peek()? {
                None => return Ok(None),
                Some(b'\n' | b'\r') => {
                    self.take()?;
                }
                Some(_) => break,
            }
        }
        let mut record = Vec::new();
        let mut bytes = 0;
        loop {
            if record.len() == FIELDS {
                return Err(self.wrong("a record has at most 2000 fields"));
            }
            let field = if self.peek()? == Some(b'"') {
                self.take()?;
                Some(self.quoted(&mut bytes)?)
            } else {
                self.plain(&mut bytes)?
            };
            record.push(field);
            match self.take()? {
                Some(b',') => {}
                None | Some(b'\n') => return Ok(Some(record)),
                Some(b'\r') if matches!(self.peek()?, None | Some(b'\n')) => {
                    self.take()?;
                    return Ok(Some(record));
                }
                Some(_) => return Err(self.wrong("something follows the quotes of a field")),
            }
        }
    }

    fn grow(&self, bytes: &mut usize) -> Result<(), Wrong> {
        *bytes += 1;
        if *bytes > self.longest {
            return Err(self.wrong("the record is too long"));
        }
        Ok(())
    }

    fn text(&self, bytes: Vec<u8>) -> Result<String, Wrong> {
        String::from_utf8(bytes).map_err(|_| self.wrong("the text is not UTF-8"))
    }

    fn quoted(&mut self, bytes: &mut usize) -> Result<String, Wrong> {
        let mut field = Vec::new();
        loop {
            match self.take()? {
                None => return Err(self.wrong("the quotes of a field are not closed")),
                Some(b'"') => {
                    if self.peek()? != Some(b'"') {
                        return self.text(field);
                    }
                    self.take()?;
                    field.push(b'"');
                }
                Some(byte) => field.push(byte),
            }
            self.grow(bytes)?;
        }
    }

    fn plain(&mut self, bytes: &mut usize) -> Result<Option<String>, Wrong> {
        let mut field = Vec::new();
        loop {
            match self.peek()? {
                None | Some(b',' | b'\n') => break,
                Some(b'"') => return Err(self.wrong("quotes stand in a field without quotes")),
                Some(b'\r') => {
                    // the end of a line, or a character like any other
                    let ahead = self.source.fill_buf()?;
                    if ahead.len() == 1 || ahead.get(1) == Some(&b'\n') {
                        break;
                    }
                    self.take()?;
                    field.push(b'\r');
                }
                Some(byte) => {
                    self.take()?;
                    field.push(byte);
                }
            }
            self.grow(bytes)?;
        }
        if field.is_empty() {
            return Ok(None);
        }
        self.text(field).map(Some)
    }
}

/// Write a record.
pub fn write<'a>(
    out: &mut impl Write,
    fields: impl IntoIterator<Item = Option<&'a str>>,
) -> io::Result<()> {
    for (at, field) in fields.into_iter().enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        match field {
            None => {}
            Some(text) if !text.is_empty() && !text.contains(['"', ',', '\n', '\r']) => {
                out.write_all(text.as_bytes())?;
            }
            Some(text) => {
                out.write_all(b"\"")?;
                out.write_all(text.replace('"', "\"\"").as_bytes())?;
                out.write_all(b"\"")?;
            }
        }
    }
    out.write_all(b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Vec<Record>, Wrong> {
        let mut reader = Reader::new(text.as_bytes(), 1000);
        let mut records = Vec::new();
        while let Some(record) = reader.record()? {
            records.push(record);
        }
        Ok(records)
    }

    #[test]
    fn records_are_read_as_they_are_written() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            read("a,b\r\n1,\"x \"\"y\"\"\n,z\"\n,\"\"\n\n3,4").unwrap(),
            [
                vec![some("a"), some("b")],
                vec![some("1"), some("x \"y\"\n,z")],
                vec![None, some("")],
                vec![some("3"), some("4")],
            ]
        );
        for (text, why) in [
            ("a,\"b", "line 1: the quotes"),
            ("a\nb\"c", "line 2: quotes stand"),
            ("\"a\"b", "line 1: something follows"),
        ] {
            let wrong = read(text).unwrap_err().to_string();
            assert!(wrong.starts_with(why), "{wrong}");
        }
        read(&"x".repeat(2000)).unwrap_err();
        read(&",".repeat(3000)).unwrap_err();
    }

    proptest! {
        #[test]
        fn whatever_is_written_comes_back(records in proptest::collection::vec(proptest::collection::vec(proptest::option::of("[a-c\",\r\n é]{0,6}"), 2..5), 0..6)) {
            let mut text = Vec::new();
            for record in &records {
                write(&mut text, record.iter().map(Option::as_deref)).unwrap();
            }
            let back = read(std::str::from_utf8(&text).unwrap()).unwrap();
            prop_assert_eq!(back, records);
        }

        #[test]
        fn no_text_panics(text in "[a\",\r\n]{0,40}") {
            let _ = read(&text);
        }
    }
}
