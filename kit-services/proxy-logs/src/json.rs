//! JSON (RFC 8259) of one line of a log, written piece by piece.
//!
//! A line is written for every request, and most of what is in it are known names and plain text,
//! which need not be looked at for what has to be escaped.

use std::time::Duration;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// An object that is being written.
pub struct Object<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

impl<'o> Object<'o> {
    pub fn open(out: &'o mut Vec<u8>) -> Object<'o> {
        out.push(b'{');
        Object { out, empty: true }
    }

    pub fn close(self) {
        self.out.push(b'}');
    }

    /// Begin a member: a name of plain letters, which needs no escapes.
    #[inline]
    fn name(&mut self, name: &'static str) {
        debug_assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        );
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    #[inline]
    pub fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        text(self.out, value);
    }

    /// A text, if there is one.
    #[inline]
    pub fn some_text(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// A text that is written in parts.
    #[inline]
    pub fn joined(&mut self, name: &'static str, parts: &[&str]) {
        self.name(name);
        self.out.push(b'"');
        for part in parts {
            escaped(self.out, part);
        }
        self.out.push(b'"');
    }

    /// Bytes as hexadecimal digits.
    #[inline]
    pub fn hex(&mut self, name: &'static str, bytes: &[u8]) {
        self.name(name);
        self.out.push(b'"');
        for byte in bytes {
            self.out.extend_from_slice(&hex(*byte));
        }
        self.out.push(b'"');
    }

    #[inline]
    pub fn number(&mut self, name: &'static str, value: u64) {
        self.name(name);
        number(self.out, value);
    }

    /// A number, if there is one.
    #[inline]
    pub fn some_number(&mut self, name: &'static str, value: Option<u64>) {
        if let Some(value) = value {
            self.number(name, value);
        }
    }

    /// Milliseconds, to a microsecond.
    #[inline]
    pub fn millis(&mut self, name: &'static str, value: Duration) {
        self.name(name);
        let micros = value.as_micros() as u64;
        number(self.out, micros / 1_000);
        let rest = (micros % 1_000) as u16;
        self.out.push(b'.');
        for unit in [100, 10, 1] {
            self.out.push(b'0' + (rest / unit % 10) as u8);
        }
    }

    /// A member that says yes.
    #[inline]
    pub fn yes(&mut self, name: &'static str) {
        self.name(name);
        self.out.extend_from_slice(b"true");
    }

    /// A member that `write` writes.
    #[inline]
    pub fn other(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        self.name(name);
        write(self.out);
    }

    /// A header: its name is a token (RFC 9110, section 5.6.2), its value any bytes.
    #[inline]
    pub fn header(&mut self, name: &str, value: &[u8]) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":\"");
        match is_plain(value) {
            true => self.out.extend_from_slice(value),
            false => escaped(self.out, &String::from_utf8_lossy(value)),
        }
        self.out.push(b'"');
    }
}

/// A byte as two hexadecimal digits.
pub fn hex(byte: u8) -> [u8; 2] {
    [
        DIGITS[usize::from(byte >> 4)],
        DIGITS[usize::from(byte & 15)],
    ]
}

#[inline]
fn text(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    escaped(out, value);
    out.push(b'"');
}

/// Whether it is ASCII without anything to escape. Without a way out early, it takes many bytes at
/// once.
#[inline]
fn is_plain(value: &[u8]) -> bool {
    let odd = |byte: u8| (byte < b' ') | (byte == b'"') | (byte == b'\\') | (byte >= 0x80);
    value
        .iter()
        .fold(0u8, |found, byte| found | u8::from(odd(*byte)))
        == 0
}

/// Section 7: quotation marks, backslashes and control characters are escaped.
#[inline]
fn escaped(out: &mut Vec<u8>, value: &str) {
    match is_plain(value.as_bytes()) {
        true => out.extend_from_slice(value.as_bytes()),
        false => escape(out, value),
    }
}

#[cold]
fn escape(out: &mut Vec<u8>, value: &str) {
    let special = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
    let mut rest = value.as_bytes();
    while let Some(at) = rest.iter().position(special) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&hex(byte));
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

#[inline]
fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            name in any::<String>(),
            value in any::<String>(),
            count in any::<u64>(),
            bytes in any::<[u8; 12]>(),
            micros in 0..u64::from(u32::MAX),
        ) {
            let mut out = Vec::new();
            let mut object = Object::open(&mut out);
            object.text("text", &value);
            object.joined("joined", &[&value, "\n\"", &name]);
            object.number("count", count);
            object.hex("hex", &bytes);
            object.millis("took", Duration::from_micros(micros));
            object.yes("yes");
            object.some_text("none", None);
            object.other("inner", |out| {
                let mut inner = Object::open(out);
                inner.header("x-y", value.as_bytes());
                inner.close();
            });
            object.close();
            let read: Value = serde_json::from_slice(&out).expect("JSON");
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let expected = json!({
                "text": value, "joined": format!("{value}\n\"{name}"), "count": count,
                "hex": hex, "took": micros as f64 / 1_000.0, "yes": true, "inner": { "x-y": value },
            });
            prop_assert!(read["took"].is_f64());
            prop_assert_eq!(read, expected);
            prop_assert!(!out.contains(&b'\n'), "it is one line");
        }
    }

    #[test]
    fn what_is_no_text_is_made_one() {
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        object.header("x", b"a\xffb\x01");
        object.close();
        assert_eq!(out, "{\"x\":\"a\u{fffd}b\\u0001\"}".as_bytes());
    }

    #[test]
    fn an_object_may_be_empty() {
        let mut out = Vec::new();
        Object::open(&mut out).close();
        assert_eq!(out, b"{}");
    }
}
