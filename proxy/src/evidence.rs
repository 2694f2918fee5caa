//! What a request brings to prove who sent it, as the rules ask for it.

use std::borrow::Cow;
use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, header};
use routes::Id;
use routes::access::{self, CREDENTIAL_BYTES, Evidence, Fingerprint};

use crate::query;
use crate::session::Session;

/// The query parameter in which a credential may come where no header can be set: for a
/// WebSocket of a browser, and for a page that is opened.
pub const TOKEN: &str = "token";

/// A credential outside of its usual place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    Password { username: String, password: String },
    Value(String),
}

impl Offer {
    /// The value of [`TOKEN`]: a token, or `Basic` with a user name and a password.
    pub fn of_query(query: &str) -> Option<Offer> {
        let value = query::value(query, TOKEN).filter(|it| it.len() <= CREDENTIAL_BYTES)?;
        Some(match access::basic(&value) {
            Some((username, password)) => Offer::Password { username, password },
            None => Offer::Value(value.into_owned()),
        })
    }
}

/// The evidence of one request.
pub struct Brought<'a> {
    pub address: IpAddr,
    pub now: u64,
    pub headers: &'a HeaderMap,
    pub query: &'a str,
    pub offer: Option<&'a Offer>,
    /// What the proxy's own cookie says.
    pub session: Option<&'a Session>,
    /// The id of a link that is good for the request.
    pub link: Option<&'a str>,
}

impl Evidence for Brought<'_> {
    fn address(&self) -> IpAddr {
        self.address
    }

    fn now(&self) -> u64 {
        self.now
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.get_all(name).iter();
        match (all.next(), all.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        }
    }

    fn cookie(&self, name: &str) -> Option<&str> {
        let mut all = cookies(self.headers, name);
        match (all.next(), all.next()) {
            (Some(value), None) => Some(value),
            _ => None,
        }
    }

    fn param(&self, name: &str) -> Option<Cow<'_, str>> {
        query::value(self.query, name)
    }

    fn offer(&self) -> Option<access::Offer<'_>> {
        Some(match self.offer? {
            Offer::Password { username, password } => {
                access::Offer::Password { username, password }
            }
            Offer::Value(value) => access::Offer::Value(value),
        })
    }

    fn proved(&self, gate: Fingerprint) -> Option<Option<&str>> {
        let session = self.session.filter(|session| session.expires > self.now)?;
        let mut proofs = session.proofs.iter();
        proofs.find_map(|(id, user)| (*id == Id(gate.0)).then_some(user.as_deref()))
    }

    fn link(&self) -> Option<&str> {
        self.link
    }
}

/// The values of all cookies of this name.
pub fn cookies<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    let sent = headers.get_all(header::COOKIE).iter();
    sent.filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(move |pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then_some(value)
        })
}

/// The cookies of a request without those of these names; nothing where it has none of them.
pub fn without_cookies(headers: &HeaderMap, names: &[&str]) -> Option<Vec<HeaderValue>> {
    let named = |pair: &[u8]| {
        let pair = pair.trim_ascii();
        let end = pair.iter().position(|&byte| byte == b'=');
        let key = &pair[..end.unwrap_or(pair.len())];
        names.iter().any(|name| name.as_bytes() == key)
    };
    let sent: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let pairs = |value: &'_ [u8]| value.split(|&byte| byte == b';').any(named);
    if !sent.iter().any(|value| pairs(value)) {
        return None;
    }
    let kept = sent.into_iter().filter_map(|value| {
        let pairs: Vec<&[u8]> = value
            .split(|&byte| byte == b';')
            .map(<[u8]>::trim_ascii)
            .filter(|pair| !pair.is_empty() && !named(pair))
            .collect();
        match pairs.is_empty() {
            true => None,
            false => HeaderValue::from_bytes(&pairs.join(&b"; "[..])).ok(),
        }
    });
    Some(kept.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value).expect("a value");
            headers.append(header::COOKIE, value);
        }
        headers
    }

    #[test]
    fn only_named_cookies_go() {
        let kept = |values: &[&[u8]]| {
            let kept = without_cookies(&with(values), &["key", "id"])?;
            Some(
                kept.iter()
                    .map(|it| it.as_bytes().to_vec())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(kept(&[]), None);
        assert_eq!(kept(&[b"a=1; keys=2; Key=3"]), None);
        assert_eq!(kept(&[b"key=1"]), Some(vec![]));
        assert_eq!(
            kept(&[b"a=\xe9;key=1 ; ;b=\"x\"", b"id", b"c=key=1"]),
            Some(vec![b"a=\xe9; b=\"x\"".to_vec(), b"c=key=1".to_vec()])
        );
    }

    #[test]
    fn of_two_of_a_kind_neither_counts() {
        let headers = with(&[b"a=1; b=2", b"b=3; c=4"]);
        let brought = Brought {
            address: IpAddr::from([127, 0, 0, 1]),
            now: 0,
            headers: &headers,
            query: "x=1&y=2&y=3",
            offer: None,
            session: None,
            link: None,
        };
        assert_eq!(brought.cookie("a"), Some("1"));
        assert_eq!(brought.cookie("b"), None);
        assert_eq!(brought.cookie("c"), Some("4"));
        assert_eq!(brought.param("x").as_deref(), Some("1"));
        assert_eq!(brought.param("y"), None);
        assert_eq!(brought.header("cookie"), None);
    }
}
