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
    let named = |pair: &str| {
        let key = pair
            .trim()
            .split_once('=')
            .map_or(pair.trim(), |(key, _)| key);
        names.contains(&key)
    };
    let sent: Vec<&str> = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    if !sent.iter().any(|value| value.split(';').any(named)) {
        return None;
    }
    let kept = sent.iter().filter_map(|value| {
        let pairs: Vec<&str> = value
            .split(';')
            .filter(|pair| !named(pair) && !pair.trim().is_empty())
            .map(str::trim)
            .collect();
        match pairs.is_empty() {
            true => None,
            false => HeaderValue::from_str(&pairs.join("; ")).ok(),
        }
    });
    Some(kept.collect())
}
