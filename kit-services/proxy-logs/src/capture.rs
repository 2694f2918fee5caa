//! What is kept of a request's text while it waits to be written: its target and its headers, in
//! one piece of memory.
//!
//! Values of headers that may be secrets are left behind here already; the target is redacted
//! when it is written, away from the request.

use std::borrow::Cow;

use http::{HeaderMap, header};

use crate::redact::{HIDDEN, TARGET_BYTES, is_told};

/// Names and values of a request's headers, in all.
const HEADER_BYTES: usize = 4_096;
/// One value.
const VALUE_BYTES: usize = 512;

/// A target, and headers as `length of name, length of value, name, value`.
#[derive(Debug, Default)]
pub struct Capture {
    bytes: Vec<u8>,
    target: usize,
}

impl Capture {
    /// Only the target.
    pub fn target_alone(target: &[u8]) -> Capture {
        let target = cut(target, TARGET_BYTES + 1);
        Capture {
            bytes: target.to_vec(),
            target: target.len(),
        }
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
            bytes,
        }
    }

    /// The path and query as it came, possibly cut: not for a log before it is redacted.
    pub fn target(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes[..self.target])
    }

    /// The headers as a log may hold them.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> + Clone {
        let mut rest = &self.bytes[self.target..];
        std::iter::from_fn(move || {
            let [name, high, low, tail @ ..] = rest else {
                return None;
            };
            let (name, tail) = tail.split_at(usize::from(*name));
            let (value, tail) = tail.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            rest = tail;
            let name = name_text(name);
            let value = String::from_utf8_lossy(value);
            // The page that a request comes from has a query of its own, which says nothing here.
            let query = match name == header::REFERER.as_str() {
                true => value.find(['?', '#']),
                false => None,
            };
            let value = match query {
                Some(query) => Cow::Owned(format!("{}?{HIDDEN}", &value[..query])),
                None => value,
            };
            Some((name, value))
        })
    }

    /// The value of one header, as a log may hold it.
    pub fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.headers()
            .find_map(|(known, value)| (known == name).then_some(value))
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
            .map(|(name, value)| format!("{name}: {value}"))
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
