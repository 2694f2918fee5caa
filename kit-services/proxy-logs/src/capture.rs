//! What is kept of a request's text while it waits to be written: its target and its headers, in
//! one piece of memory.
//!
//! Values of headers that may be secrets are left behind here already; the target is redacted
//! when it is written, away from the request.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, header};

use crate::redact::{HIDDEN, TARGET_BYTES, is_told};

/// Names and values of a request's headers, in all.
const HEADER_BYTES: usize = 4_096;
/// One value.
const VALUE_BYTES: usize = 512;

/// The content type of an answer.
const TYPE_BYTES: usize = 128;

/// A target, headers as `length of name, length of value, name, value`, and after them the content
/// type of the answer.
#[derive(Debug, Default)]
pub struct Capture {
    bytes: Vec<u8>,
    /// Where the target ends, and the headers.
    target: usize,
    headers: usize,
}

impl Capture {
    /// Only the target.
    pub fn target_alone(target: &[u8]) -> Capture {
        let target = cut(target, TARGET_BYTES + 1);
        Capture {
            bytes: target.to_vec(),
            target: target.len(),
            headers: target.len(),
        }
    }

    /// Keep the content type of the answer, too.
    pub fn answer(mut self, content_type: Option<&HeaderValue>) -> Capture {
        let text = content_type.map_or(&b""[..], |it| it.as_bytes());
        self.bytes.truncate(self.headers);
        self.bytes.extend_from_slice(cut(text, TYPE_BYTES));
        self
    }

    /// The content type of the answer, if it had one.
    pub fn answered(&self) -> Option<Cow<'_, str>> {
        let text = &self.bytes[self.headers..];
        (!text.is_empty()).then(|| String::from_utf8_lossy(text))
    }

    pub fn of(target: &[u8], headers: &HeaderMap) -> Capture {
        let target = cut(target, TARGET_BYTES + 1);
        let mut bytes = Vec::with_capacity(target.len() + 768); // what a browser sends
        bytes.extend_from_slice(target);
        let most = target.len() + HEADER_BYTES;
        for (name, value) in headers {
            let name = name.as_str().as_bytes();
            let value = match is_told(name_text(name)) {
                true => cut(value.as_bytes(), VALUE_BYTES),
                false => HIDDEN.as_bytes(),
            };
            let Ok(length) = u8::try_from(name.len()) else {
                continue; // no header that anybody replays
            };
            if bytes.len() + 3 + name.len() + value.len() > most {
                break;
            }
            bytes.push(length);
            bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(value);
        }
        Capture {
            target: target.len(),
            headers: bytes.len(),
            bytes,
        }
    }

    /// The path and query as it came, possibly cut: not for a log before it is redacted.
    pub fn target(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes[..self.target])
    }

    /// The headers as a log may hold them. Values are text as far as their senders kept to it.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Cow<'_, [u8]>)> + Clone {
        self.kept().map(|(name, value)| {
            // The page that a request comes from has a query of its own, which says nothing here.
            let query = match name == header::REFERER.as_str() {
                true => value.iter().position(|byte| matches!(byte, b'?' | b'#')),
                false => None,
            };
            let value = match query {
                Some(query) => [&value[..query], b"?", HIDDEN.as_bytes()].concat().into(),
                None => value.into(),
            };
            (name, value)
        })
    }

    fn kept(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        let mut rest = &self.bytes[self.target..self.headers];
        std::iter::from_fn(move || {
            let [name, high, low, tail @ ..] = rest else {
                return None;
            };
            let (name, tail) = tail.split_at(usize::from(*name));
            let (value, tail) = tail.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            rest = tail;
            Some((name_text(name), value))
        })
    }

    /// The value of one header, as a log may hold it.
    pub fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.kept().any(|(known, _)| known == name).then_some(())?;
        let (_, value) = self.headers().find(|(known, _)| *known == name)?;
        Some(match value {
            Cow::Borrowed(value) => String::from_utf8_lossy(value),
            Cow::Owned(value) => String::from_utf8_lossy(&value).into_owned().into(),
        })
    }
}

fn name_text(name: &[u8]) -> &str {
    std::str::from_utf8(name).expect("names of headers are ASCII")
}

fn cut(bytes: &[u8], most: usize) -> &[u8] {
    &bytes[..bytes.len().min(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_holds_what_may_be_told() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("accept", "*/*"),
            ("authorization", "Bearer hdy_secret"),
            ("cookie", "a=secret"),
            ("referer", "https://h.example/p?token=secret&x=1"),
            ("x-any-gate", "secret"),
        ] {
            headers.insert(name, value.parse().expect("a value"));
        }
        let capture = Capture::of(b"/a?b=1", &headers);
        assert_eq!(capture.target(), "/a?b=1");
        let shown: Vec<String> = capture
            .headers()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(&value)))
            .collect();
        assert_eq!(
            shown,
            [
                "accept: */*",
                "authorization: ***",
                "cookie: ***",
                "referer: https://h.example/p?***",
                "x-any-gate: ***"
            ]
        );
        assert!(!String::from_utf8_lossy(&capture.bytes).contains("Bearer"));
        assert_eq!(capture.header("accept").as_deref(), Some("*/*"));
        assert_eq!(capture.header("absent"), None);
        assert_eq!(capture.answered(), None);
        let plain = HeaderValue::from_static("text/plain");
        let capture = capture.answer(Some(&plain));
        assert_eq!(capture.answered().as_deref(), Some("text/plain"));
        assert_eq!(capture.headers().count(), 5);
        let long = HeaderValue::from_str(&"x".repeat(4_000)).expect("a value");
        let capture = capture.answer(Some(&long));
        assert_eq!(capture.answered().map_or(0, |it| it.len()), TYPE_BYTES);
    }

    #[test]
    fn a_capture_is_bounded() {
        let mut headers = HeaderMap::new();
        for number in 0..200 {
            let name: http::HeaderName = format!("accept-{number}").parse().expect("a name");
            headers.insert(name, "x".repeat(400).parse().expect("a value"));
        }
        headers.insert("user-agent", "é".repeat(4_000).parse().expect("a value"));
        let long: http::HeaderName = "x".repeat(300).parse().expect("a name");
        headers.insert(long, "v".parse().expect("a value"));
        let capture = Capture::of(&[b'a'; 20_000], &headers);
        assert!(capture.bytes.len() <= TARGET_BYTES + 1 + HEADER_BYTES);
        assert!(capture.headers().count() > 10);
    }
}
