//! Aliases: names of the node's own that lead into containers; and which names of other people's
//! may lead to them.
//!
//! An alias leads to one door of one container. It may have a target: a path, perhaps with a
//! query, that answers where the bare host is opened. Where other paths are not allowed the target
//! is all that there is behind the name.
//!
//! A custom domain is a name of somebody else's that DNS leads to an alias. An international one is
//! its ASCII form (`xn--…`), here as everywhere: nothing else is a hostname.

use std::borrow::Cow;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Id;
use crate::address::{ALIAS_BYTES, Address, Door, Name, Rejection, Zone};
use crate::services;

/// The longest target, path and query together.
pub const TARGET_BYTES: usize = 2_048;

/// One alias that is in force. One that is off is in no table, so that it looks like none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    pub name: Box<str>,
    pub container: Id,
    #[serde(with = "segment")]
    pub door: Door,
    /// What the bare host shows: a path, perhaps with a query. Begins with `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Box<str>>,
    /// Whether the target is all that can be asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// The millisecond since 1970 from which on it leads nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
}

/// A door as hostnames write it: `terminal-1`.
mod segment {
    use std::borrow::Cow;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::address::Door;

    pub fn serialize<S: Serializer>(door: &Door, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(door)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Door, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// The path that was asked for is not behind this alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the alias leads to one path only")]
pub struct NotBehind;

impl Alias {
    /// Whether it leads anywhere at this millisecond since 1970.
    pub fn stands(&self, now: i64) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// What to ask the container for, where a visitor asked for the path and query `asked`.
    pub fn target<'a>(&'a self, asked: &'a str) -> Result<Cow<'a, str>, NotBehind> {
        let (path, query) = asked.split_once('?').unwrap_or((asked, ""));
        let own = self.target.as_deref().unwrap_or("/");
        let (own_path, own_query) = own.split_once('?').unwrap_or((own, ""));
        let root = matches!(path, "/" | "");
        if self.target.is_none() && (root || !self.pinned) {
            return Ok(asked.into());
        }
        if !root && !self.pinned {
            return Ok(asked.into());
        }
        if !root && path != own_path {
            return Err(NotBehind);
        }
        Ok(match joined(own_query, query) {
            Cow::Borrowed("") => own_path.into(),
            query => format!("{own_path}?{query}").into(),
        })
    }
}

/// The target's query, and of the visitor's what the target does not set.
fn joined<'a>(own: &'a str, given: &'a str) -> Cow<'a, str> {
    if own.is_empty() {
        return given.into();
    }
    let key = |pair: &str| decoded(pair.split('=').next().unwrap_or_default());
    let set: Vec<Vec<u8>> = own.split('&').map(key).collect();
    let mut query = own.to_owned();
    for pair in given.split('&').filter(|pair| !pair.is_empty()) {
        if !set.contains(&key(pair)) {
            query.push('&');
            query.push_str(pair);
        }
    }
    query.into()
}

/// The bytes that a name in a query stands for: however it is written, it is the same name.
fn decoded(text: &str) -> Vec<u8> {
    let digit = |at: usize| {
        let byte = *text.as_bytes().get(at)?;
        char::from(byte).to_digit(16).map(|digit| digit as u8)
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.as_bytes().get(at) {
        at += 1;
        bytes.push(match (byte, digit(at), digit(at + 1)) {
            (b'%', Some(high), Some(low)) => {
                at += 2;
                high << 4 | low
            }
            (b'+', ..) => b' ',
            _ => byte,
        });
    }
    bytes
}

/// Last labels that are no part of the public DNS, or of none (RFC 6761, RFC 9476 and the
/// registry of special-use names): nobody owns a name below them.
const NOT_PUBLIC: &[&str] = &[
    "alt",
    "arpa",
    "example",
    "internal",
    "invalid",
    "local",
    "localhost",
    "onion",
    "test",
];

/// Whether this could be a custom domain, so that it is worth to ask DNS where it leads: a name of
/// two labels or more in a public zone, and none of the node's own. What looks like an address is
/// none, in whatever way it is written: the last label of a name begins with a letter.
pub fn may_be_custom(name: &Name, zone: &Zone) -> bool {
    let public = |name: &str| {
        let (_, last) = name.rsplit_once('.')?;
        let letter = last.starts_with(|first: char| first.is_ascii_alphabetic());
        (letter && last.len() > 1 && !NOT_PUBLIC.contains(&last)).then_some(())
    };
    Address::of(name, zone) == Err(Rejection::ForeignDomain) && public(name.as_str()).is_some()
}

/// Why a text cannot be an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error(
        "must have 3 to 61 lower-case letters, digits and hyphens, and neither begin nor end with a hyphen"
    )]
    Form,
    #[error("must not begin with `xn--`, which is how international names are written")]
    International,
    #[error("looks like the name of a container; choose one that does not begin like an id")]
    Container,
    #[error("is the name of a service; choose another, such as `my-{0}`")]
    Service(&'static str),
    #[error("is a word that the node needs itself; choose another")]
    Reserved,
}

/// Words that have a meaning as a label of their own, now or soon.
const RESERVED: &[&str] = &[
    "api",
    "containers",
    "localhost",
    "www",
    "hoody",
    "node",
    "ssh",
    "proxy",
    "desktop",
    "http",
    "https",
    "realm",
    "wildcard",
];

/// Whether an alias of this node may be called so.
pub fn check_name(name: &str, zone: &Zone) -> Result<(), BadName> {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if !ALIAS_BYTES.contains(&name.len())
        || !name.bytes().all(plain)
        || name.starts_with('-')
        || name.ends_with('-')
    {
        return Err(BadName::Form);
    }
    if name.starts_with("xn--") {
        return Err(BadName::International);
    }
    if RESERVED.contains(&name) || name == zone.node() {
        return Err(BadName::Reserved);
    }
    // `files`, and `files-1`, which is the end of a container's name.
    let stem = name.rsplit_once('-').map_or(name, |(stem, number)| {
        if number.bytes().all(|byte| byte.is_ascii_digit()) {
            stem
        } else {
            name
        }
    });
    if let Some(service) = services::find(stem) {
        return Err(BadName::Service(service.slug));
    }
    if Door::from_str(name).is_ok() {
        return Err(BadName::Reserved);
    }
    let host = format!("{name}.{}.{}", zone.node(), zone.containers());
    match Address::parse(&host, zone) {
        Ok(Address::Alias(_)) => Ok(()),
        _ => Err(BadName::Container),
    }
}

/// Why a text cannot be the target of an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    #[error("must have at most {TARGET_BYTES} bytes")]
    TooLong,
    #[error("must be a path and perhaps a query, of printable ASCII without spaces, `#` and `\\`")]
    Character,
    #[error("must be a path of this host: one `/` at its beginning, and no `.` or `..` as a part")]
    Path,
}

/// The target in its form: with a `/` before it. Nothing for an empty one.
pub fn check_target(text: &str) -> Result<Option<Box<str>>, BadTarget> {
    if text.len() > TARGET_BYTES {
        return Err(BadTarget::TooLong);
    }
    let fits =
        |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\' | b'"' | b'<' | b'>');
    if !text.bytes().all(fits) {
        return Err(BadTarget::Character);
    }
    let target = match text {
        "" | "/" => return Ok(None),
        text if text.starts_with('/') => text.to_owned(),
        text => format!("/{text}"),
    };
    let path = target.split('?').next().unwrap_or_default();
    if path.starts_with("//") || path.split('/').any(|part| matches!(part, "." | "..")) {
        return Err(BadTarget::Path);
    }
    Ok(Some(target.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(target: Option<&str>, pinned: bool) -> Alias {
        Alias {
            name: "shop".into(),
            container: Id([1; 12]),
            door: "http-3000".parse().expect("a door"),
            target: target.map(Into::into),
            pinned,
            expires: None,
        }
    }

    #[test]
    fn a_target_answers_for_the_bare_host_and_a_pinned_one_for_nothing_else() {
        let (free, pin) = (false, true);
        let cases: &[(Option<&str>, bool, &str, Option<&str>)] = &[
            (None, free, "/", Some("/")),
            (None, free, "/a?b", Some("/a?b")),
            (None, pin, "/?b=1", Some("/?b=1")),
            (None, pin, "/a", None),
            (Some("/render"), free, "/", Some("/render")),
            (Some("/render"), free, "/?x=1", Some("/render?x=1")),
            (Some("/render"), free, "", Some("/render")),
            (Some("/render"), free, "/other?x=1", Some("/other?x=1")),
            (Some("/render"), free, "/render/a", Some("/render/a")),
            (Some("/render"), pin, "/", Some("/render")),
            (Some("/render"), pin, "/render?x=1", Some("/render?x=1")),
            (Some("/render"), pin, "/render/", None),
            (Some("/render"), pin, "/render/../api/v1/exec", None),
            (Some("/render"), pin, "/%72ender", None),
            (Some("/render"), pin, "//render", None),
            (Some("/render"), pin, "*", None),
            (Some("/r?a=1"), free, "/", Some("/r?a=1")),
            (Some("/r?a=1"), pin, "/?a=2&b=3", Some("/r?a=1&b=3")),
            (Some("/r?a=1"), pin, "/r?%61=2&a&A=4", Some("/r?a=1&A=4")),
            (Some("/r?a+b=1"), pin, "/?a%20b=2&&c", Some("/r?a+b=1&c")),
            (Some("/r?a=1"), pin, "/?%=1&%6=2", Some("/r?a=1&%=1&%6=2")),
        ];
        for &(target, pinned, asked, want) in cases {
            let alias = alias(target, pinned);
            let found = alias.target(asked);
            assert_eq!(found.as_deref().ok(), want, "{target:?} {pinned} {asked}");
        }
    }

    #[test]
    fn names_that_nobody_can_own_are_no_custom_domains() {
        let zone = Zone::new("hoody.example.com", "box1").expect("a zone");
        for (name, may) in [
            ("shop.example.net", true),
            ("example.net", true),
            ("Shop.Example.NET.:8443", true),
            ("xn--mnchen-3ya.xn--p1ai", true),
            // Beside the node's own names, not below them.
            ("shop.hoody.example.com", true),
            ("hoody.example.com", true),
            ("api.hoody.example.com", false),
            ("x.api.hoody.example.com", false),
            ("containers.hoody.example.com", false),
            ("shop.box1.containers.hoody.example.com", false),
            ("shop.box2.containers.hoody.example.com", false),
            ("localhost", false),
            ("intranet", false),
            ("com", false),
            ("shop.localhost", false),
            ("printer.local", false),
            ("db.internal", false),
            ("router.home.arpa", false),
            ("shop.test", false),
            ("facebookcorewwwi.onion", false),
            ("127.0.0.1", false),
            ("127.1", false),
            ("127.0.0.0x1", false),
            ("1.2.3.4.5", false),
            ("example.c", false),
        ] {
            let name = Name::parse(name).expect("a name");
            assert_eq!(may_be_custom(&name, &zone), may, "{name}");
        }
    }

    #[test]
    fn an_alias_ends_when_it_expires() {
        let mut alias = alias(None, false);
        assert!(alias.stands(i64::MAX));
        alias.expires = Some(1_000);
        assert!(alias.stands(999) && !alias.stands(1_000));
    }

    #[test]
    fn names_are_kept_apart_from_those_of_containers_and_services() {
        let zone = Zone::new("hoody.localhost", "box1").expect("a zone");
        let hex = "0123456789abcdef01234567";
        let generated = format!("{hex}{hex}");
        for good in [
            "shop",
            "my-api",
            "a1b",
            "9-9",
            generated.as_str(),
            "my-files",
            "files-a",
        ] {
            assert_eq!(check_name(good, &zone), Ok(()), "{good}");
        }
        let named = format!("{hex}-shop");
        let kit = format!("{hex}-files-1");
        let long = "x".repeat(62);
        for (bad, why) in [
            ("ab", BadName::Form),
            ("", BadName::Form),
            ("-ab", BadName::Form),
            ("ab-", BadName::Form),
            ("Shop", BadName::Form),
            ("a.b", BadName::Form),
            ("a_b", BadName::Form),
            ("é-shop", BadName::Form),
            (long.as_str(), BadName::Form),
            ("xn--bcher-kva", BadName::International),
            (hex, BadName::Container),
            (named.as_str(), BadName::Container),
            (kit.as_str(), BadName::Container),
            ("files", BadName::Service("files")),
            ("files-1", BadName::Service("files")),
            ("workspaces", BadName::Service("agent")),
            ("n-7", BadName::Service("n")),
            ("http-80", BadName::Reserved),
            ("ssh", BadName::Reserved),
            ("desktop-1", BadName::Reserved),
            ("containers", BadName::Reserved),
            ("box1", BadName::Reserved),
        ] {
            assert_eq!(check_name(bad, &zone), Err(why), "{bad}");
        }
    }

    #[test]
    fn targets_are_paths() {
        for (given, want) in [
            ("", Ok(None)),
            ("/", Ok(None)),
            ("render", Ok(Some("/render"))),
            ("/a/b?x=/..", Ok(Some("/a/b?x=/.."))),
            ("?desktop_env=mate", Ok(Some("/?desktop_env=mate"))),
            ("//evil.example", Err(BadTarget::Path)),
            ("/a/../b", Err(BadTarget::Path)),
            ("/a b", Err(BadTarget::Character)),
            ("/a\r\nb", Err(BadTarget::Character)),
            ("/a#b", Err(BadTarget::Character)),
            ("/ü", Err(BadTarget::Character)),
        ] {
            let found = check_target(given);
            assert_eq!(
                found.as_ref().map(Option::as_deref),
                want.as_ref().map(|it| *it),
                "{given}"
            );
        }
        assert_eq!(
            check_target(&"x".repeat(TARGET_BYTES + 1)),
            Err(BadTarget::TooLong)
        );
    }

    #[test]
    fn it_is_kept_in_few_words() {
        let text = serde_json::to_string(&alias(None, false)).expect("JSON");
        assert_eq!(
            text,
            r#"{"name":"shop","container":"010101010101010101010101","door":"http-3000"}"#
        );
        for alias in [alias(None, false), alias(Some("/a?b"), true)] {
            let text = serde_json::to_string(&alias).expect("JSON");
            assert_eq!(
                serde_json::from_str::<Alias>(&text).expect("an alias"),
                alias
            );
        }
    }
}
