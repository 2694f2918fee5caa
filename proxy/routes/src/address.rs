//! What a hostname means.
//!
//! ```text
//! api.{domain}                                     the API
//! {realm}.api.{domain}                             the API, in one realm
//! {P}-{C}-{service}-{N}.{node}.containers.{domain} a service of container C in project P
//! {C}-{service}-{N}.{node}.containers.{domain}     the same, short
//! …-http-{port}  …-https-{port}  …-ssh  …-proxy  …-desktop-{N}
//! {subdir}.{P}-{C}-exec-{N}.{node}.containers.{domain}
//! {alias}.{node}.containers.{domain}
//! localhost.containers.{domain}                    from inside a container: this container
//! ```
//!
//! P, C and the realm are [`Id`]s. One answer for every text:
//!
//! - Case, one trailing dot and a port are ignored; the port is kept beside the name.
//! - Numbers have no leading zeros, so that every address has one canonical name.
//! - Names over 253 bytes and labels over 63 are refused, and so is every byte that is not a
//!   letter, a digit, a hyphen or a dot: an international name arrives in its ASCII form (RFC
//!   5890), and that form (`xn--…`) is an ordinary label but never an alias.
//! - A label that begins with 24 hexadecimal digits and ends there or goes on with a hyphen names
//!   a container and nothing else: an alias that looks like one is never reached.
//! - Addresses (`127.0.0.1`, `[::1]`) are names of another domain.
//!
//! Parsing neither allocates nor panics.

use std::fmt;

use crate::Id;
use crate::id::LENGTH;
use crate::services::{self, Service};

/// The longest name, without a trailing dot (RFC 1035, section 2.3.4, in its text form).
pub const NAME_BYTES: usize = 253;
/// The longest label.
pub const LABEL_BYTES: usize = 63;
/// The shortest and the longest alias.
pub const ALIAS_BYTES: std::ops::RangeInclusive<usize> = 3..=61;
/// The highest index of a service.
pub const LAST_INDEX: u32 = 65_535;

/// The names under which a node answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    api: Box<str>,
    containers: Box<str>,
    node: Box<str>,
}

/// Names that cannot make a zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadZone {
    #[error("`{name}` is not a hostname")]
    Name {
        name: String,
        #[source]
        source: Rejection,
    },
    #[error("`{node}` cannot name a node: one label, not `localhost`")]
    Node { node: String },
    #[error("the API's name `{api}` and the containers' domain `{containers}` contain one another")]
    Overlap { api: Box<str>, containers: Box<str> },
}

impl Zone {
    /// The API at `api.{domain}`, containers under `containers.{domain}`.
    pub fn new(domain: &str, node: &str) -> Result<Zone, BadZone> {
        Zone::apart(
            &format!("api.{domain}"),
            &format!("containers.{domain}"),
            node,
        )
    }

    /// The API and the containers under names of their own, such as two registrable domains.
    pub fn apart(api: &str, containers: &str, node: &str) -> Result<Zone, BadZone> {
        let name = |text: &str| match Name::parse(text) {
            Ok(name) if name.port.is_none() => Ok(Box::<str>::from(name.as_str())),
            Ok(_) => Err(BadZone::Name {
                name: text.to_owned(),
                source: Rejection::BadPort,
            }),
            Err(source) => Err(BadZone::Name {
                name: text.to_owned(),
                source,
            }),
        };
        let (api, containers) = (name(api)?, name(containers)?);
        if under(&api, &containers).is_some() || under(&containers, &api).is_some() {
            return Err(BadZone::Overlap { api, containers });
        }
        let label = name(node)?;
        if label.contains('.') || &*label == LOCAL {
            return Err(BadZone::Node {
                node: node.to_owned(),
            });
        }
        Ok(Zone {
            api,
            containers,
            node: label,
        })
    }

    pub fn api(&self) -> &str {
        &self.api
    }

    pub fn containers(&self) -> &str {
        &self.containers
    }

    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whether its names resolve to whoever asks (RFC 6761, section 6.3).
    pub fn is_local(&self) -> bool {
        [&self.api, &self.containers]
            .iter()
            .all(|name| under(name, "localhost").is_some())
    }
}

const LOCAL: &str = "localhost";

/// What stands before `suffix` in `name`, without the dot between; empty where they are the same.
fn under<'n>(name: &'n str, suffix: &str) -> Option<&'n str> {
    let rest = name.strip_suffix(suffix)?;
    if rest.is_empty() {
        Some(rest)
    } else {
        rest.strip_suffix('.')
    }
}

/// A hostname in its one spelling, with the port that stood beside it.
#[derive(Clone, Copy)]
pub struct Name {
    bytes: [u8; NAME_BYTES],
    length: u8,
    port: Option<u16>,
}

impl Name {
    /// Read what a `Host` or `:authority` field carries (RFC 9110, section 7.2).
    pub fn parse(text: &str) -> Result<Name, Rejection> {
        let text = text.as_bytes();
        if text.first() == Some(&b'[') {
            return Err(Rejection::ForeignDomain);
        }
        let (host, port) = match text.iter().rposition(|&byte| byte == b':') {
            Some(colon) => (&text[..colon], Some(port(&text[colon + 1..])?)),
            None => (text, None),
        };
        let host = host.strip_suffix(b".").unwrap_or(host);
        if host.is_empty() {
            return Err(Rejection::Empty);
        }
        if host.len() > NAME_BYTES {
            return Err(Rejection::TooLong);
        }
        let mut name = Name {
            bytes: [0; NAME_BYTES],
            length: host.len() as u8,
            port,
        };
        let bytes = &mut name.bytes[..host.len()];
        bytes.copy_from_slice(host);
        bytes.make_ascii_lowercase();
        // Seldom false, and found for all bytes faster than label by label.
        let spelled = bytes.iter().fold(true, |all, byte| {
            all & (may_be_in_label(byte) | (*byte == b'.'))
        });
        let mut begin = 0;
        for end in memchr::memchr_iter(b'.', bytes).chain([bytes.len()]) {
            let label = &bytes[begin..end];
            begin = end + 1;
            if label.len() > LABEL_BYTES {
                return Err(Rejection::TooLong);
            }
            if !spelled && !label.iter().all(may_be_in_label) {
                return Err(Rejection::BadCharacter);
            }
            if label.is_empty() || label.starts_with(b"-") || label.ends_with(b"-") {
                return Err(Rejection::BadLabel);
            }
        }
        Ok(name)
    }

    /// Lower case, without port and trailing dot.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).expect("names are ASCII")
    }

    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.as_str()),
            None => f.write_str(self.as_str()),
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

fn may_be_in_label(byte: &u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')
}

fn port(digits: &[u8]) -> Result<u16, Rejection> {
    let text = std::str::from_utf8(digits).map_err(|_| Rejection::BadPort)?;
    match number(text, 65_535) {
        Some(port) if port > 0 => Ok(port as u16),
        _ => Err(Rejection::BadPort),
    }
}

/// A number up to `most` in its one spelling.
fn number(text: &str, most: u32) -> Option<u32> {
    let spelled = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !spelled || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok().filter(|&number| number <= most)
}

/// One label of a hostname, held in place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Label {
    bytes: [u8; LABEL_BYTES],
    length: u8,
}

impl Label {
    /// `text` is a label of a [`Name`].
    fn of(text: &str) -> Label {
        let mut label = Label {
            bytes: [0; LABEL_BYTES],
            length: text.len() as u8,
        };
        label.bytes[..text.len()].copy_from_slice(text.as_bytes());
        label
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).expect("labels are ASCII")
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// What a hostname names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// The API.
    Api,
    /// The API in the realm with this id.
    Realm(Id),
    /// Something in a container.
    Container {
        /// Named in the long form; what is there must belong to it.
        project: Option<Id>,
        container: Id,
        door: Door,
    },
    /// A name that the table of aliases leads on.
    Alias(Label),
    /// The container that asks; the service is the first segment of the path.
    Local,
}

/// What in a container is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// A service of its kit.
    Kit {
        service: &'static Service,
        index: u32,
    },
    /// A script of its `exec` service in the directory `subdir`.
    Exec {
        subdir: Label,
        index: u32,
    },
    /// A port inside it.
    Port {
        scheme: Scheme,
        port: u16,
    },
    /// A desktop, which its terminal starts and its display shows.
    Desktop {
        index: u32,
    },
    Ssh,
    Proxy,
}

/// The protocol that is spoken to a port inside a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// Why a text names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Rejection {
    #[error("the name is empty")]
    Empty,
    #[error("a name has at most 253 bytes, and a label 63")]
    TooLong,
    #[error("a name is made of letters, digits, hyphens and dots")]
    BadCharacter,
    #[error("a label is not empty and neither begins nor ends with a hyphen")]
    BadLabel,
    #[error("a port is a number from 1 to 65535")]
    BadPort,
    #[error("the name is not of this domain")]
    ForeignDomain,
    #[error("the name is of this domain, but of no form that it has")]
    UnknownForm,
    #[error("the name is of another node")]
    UnknownNode,
    #[error("the name of a container goes on with a service: `-terminal-1`")]
    NoService,
    #[error("there is no such service")]
    UnknownService,
    #[error("the number after the service is missing or out of range")]
    BadIndex,
    #[error("an alias has 3 to 61 letters, digits and hyphens")]
    BadAlias,
}

impl Rejection {
    /// Whether the text is no hostname at all, whatever the zone.
    pub fn is_malformed(self) -> bool {
        matches!(
            self,
            Rejection::Empty
                | Rejection::TooLong
                | Rejection::BadCharacter
                | Rejection::BadLabel
                | Rejection::BadPort
        )
    }
}

impl Address {
    /// What `host`, as a `Host` field carries it, names in `zone`.
    pub fn parse(host: &str, zone: &Zone) -> Result<Address, Rejection> {
        Address::of(&Name::parse(host)?, zone)
    }

    /// What the name means in `zone`.
    pub fn of(name: &Name, zone: &Zone) -> Result<Address, Rejection> {
        let name = name.as_str();
        if let Some(realm) = under(name, &zone.api) {
            return match realm {
                "" => Ok(Address::Api),
                realm => Id::parse(realm.as_bytes())
                    .map(Address::Realm)
                    .ok_or(Rejection::UnknownForm),
            };
        }
        let rest = under(name, &zone.containers).ok_or(Rejection::ForeignDomain)?;
        if rest == LOCAL {
            return Ok(Address::Local);
        }
        let (labels, node) = rest.rsplit_once('.').ok_or(Rejection::UnknownForm)?;
        if node != &*zone.node {
            return Err(Rejection::UnknownNode);
        }
        match labels.rsplit_once('.') {
            None => label(labels),
            Some((subdir, label)) => script(subdir, label),
        }
    }

    /// The canonical name in `zone`.
    pub fn host<'a>(&'a self, zone: &'a Zone) -> Host<'a> {
        Host {
            address: self,
            zone,
        }
    }
}

fn label(label: &str) -> Result<Address, Rejection> {
    let Some((first, rest)) = leading_id(label) else {
        return alias(label);
    };
    let (project, container, rest) = match leading_id(rest) {
        Some((second, rest)) => (Some(first), second, rest),
        None => (None, first, rest),
    };
    Ok(Address::Container {
        project,
        container,
        door: door(rest)?,
    })
}

/// An id at the beginning, and what follows its hyphen.
fn leading_id(text: &str) -> Option<(Id, &str)> {
    let (id, rest) = text.split_at_checked(LENGTH)?;
    let rest = if rest.is_empty() {
        rest
    } else {
        rest.strip_prefix('-')?
    };
    Some((Id::parse(id.as_bytes())?, rest))
}

fn door(text: &str) -> Result<Door, Rejection> {
    match text {
        "" => return Err(Rejection::NoService),
        "ssh" => return Ok(Door::Ssh),
        "proxy" => return Ok(Door::Proxy),
        _ => {}
    }
    let (name, digits) = text.rsplit_once('-').unwrap_or((text, ""));
    let within = |first: u32, last: u32| {
        number(digits, last)
            .filter(|&number| number >= first)
            .ok_or(Rejection::BadIndex)
    };
    let at = |scheme| {
        Ok(Door::Port {
            scheme,
            port: within(1, 65_535)? as u16,
        })
    };
    match name {
        "http" => at(Scheme::Http),
        "https" => at(Scheme::Https),
        "desktop" => Ok(Door::Desktop {
            index: within(1, LAST_INDEX)?,
        }),
        name => {
            let service = services::find(name).ok_or(Rejection::UnknownService)?;
            Ok(Door::Kit {
                service,
                index: within(service.first, LAST_INDEX)?,
            })
        }
    }
}

/// The segment of a name: `terminal-1`.
impl std::str::FromStr for Door {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Door, Rejection> {
        door(text)
    }
}

fn script(subdir: &str, label: &str) -> Result<Address, Rejection> {
    match self::label(label)? {
        Address::Container {
            project,
            container,
            door: Door::Kit { service, index },
        } if service.slug == "exec" && !subdir.contains('.') => {
            let door = Door::Exec {
                subdir: Label::of(subdir),
                index,
            };
            Ok(Address::Container {
                project,
                container,
                door,
            })
        }
        _ => Err(Rejection::UnknownForm),
    }
}

fn alias(label: &str) -> Result<Address, Rejection> {
    if !ALIAS_BYTES.contains(&label.len()) || label.starts_with("xn--") {
        return Err(Rejection::BadAlias);
    }
    Ok(Address::Alias(Label::of(label)))
}

/// An address with its zone, to be written out.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    address: &'a Address,
    zone: &'a Zone,
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Zone {
            api,
            containers,
            node,
        } = self.zone;
        match self.address {
            Address::Api => f.write_str(api),
            Address::Realm(realm) => write!(f, "{realm}.{api}"),
            Address::Container {
                project,
                container,
                door,
            } => {
                if let Door::Exec { subdir, .. } = door {
                    write!(f, "{subdir}.")?;
                }
                if let Some(project) = project {
                    write!(f, "{project}-")?;
                }
                write!(f, "{container}-{door}.{node}.{containers}")
            }
            Address::Alias(alias) => write!(f, "{alias}.{node}.{containers}"),
            Address::Local => write!(f, "{LOCAL}.{containers}"),
        }
    }
}

/// The segment of the canonical name.
impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Door::Kit { service, index } => write!(f, "{}-{index}", service.slug),
            Door::Exec { index, .. } => write!(f, "exec-{index}"),
            Door::Port { scheme, port } => write!(f, "{}-{port}", scheme.as_str()),
            Door::Desktop { index } => write!(f, "desktop-{index}"),
            Door::Ssh => f.write_str("ssh"),
            Door::Proxy => f.write_str("proxy"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const P: &str = "0123456789abcdef01234567";
    const C: &str = "fedcba9876543210fedcba98";

    fn zone() -> Zone {
        Zone::new("hoody.localhost", "box1").expect("a good zone")
    }

    fn id(text: &str) -> Id {
        text.parse().expect("a good id")
    }

    fn kit(project: bool, slug: &str, index: u32) -> Address {
        let service = services::find(slug).expect("a service");
        within(project, Door::Kit { service, index })
    }

    fn within(project: bool, door: Door) -> Address {
        Address::Container {
            project: project.then(|| id(P)),
            container: id(C),
            door,
        }
    }

    #[test]
    fn hosts_mean_what_the_grammar_says() {
        let zone = zone();
        let subdir = Label::of("shop");
        let web = Door::Port {
            scheme: Scheme::Http,
            port: 8080,
        };
        let secure = Door::Port {
            scheme: Scheme::Https,
            port: 65_535,
        };
        let cases: &[(String, Result<Address, Rejection>)] = &[
            ("api.hoody.localhost".into(), Ok(Address::Api)),
            ("API.Hoody.LocalHost.:8443".into(), Ok(Address::Api)),
            (
                format!("{P}.api.hoody.localhost"),
                Ok(Address::Realm(id(P))),
            ),
            (
                format!("{}.api.hoody.localhost", P.to_uppercase()),
                Ok(Address::Realm(id(P))),
            ),
            ("x.api.hoody.localhost".into(), Err(Rejection::UnknownForm)),
            (
                format!("a.{P}.api.hoody.localhost"),
                Err(Rejection::UnknownForm),
            ),
            ("hoody.localhost".into(), Err(Rejection::ForeignDomain)),
            ("xapi.hoody.localhost".into(), Err(Rejection::ForeignDomain)),
            ("localhost".into(), Err(Rejection::ForeignDomain)),
            ("127.0.0.1:443".into(), Err(Rejection::ForeignDomain)),
            ("[::1]:443".into(), Err(Rejection::ForeignDomain)),
            ("[".into(), Err(Rejection::ForeignDomain)),
            (
                "containers.hoody.localhost".into(),
                Err(Rejection::UnknownForm),
            ),
            (
                "box1.containers.hoody.localhost".into(),
                Err(Rejection::UnknownForm),
            ),
            (
                "localhost.containers.hoody.localhost".into(),
                Ok(Address::Local),
            ),
            (
                on(&format!("{P}-{C}-terminal-1")),
                Ok(kit(true, "terminal", 1)),
            ),
            (
                on(&format!("{P}-{C}-terminal-0")),
                Ok(kit(true, "terminal", 0)),
            ),
            (on(&format!("{C}-files-2")), Ok(kit(false, "files", 2))),
            (on(&format!("{P}-{C}-files-0")), Err(Rejection::BadIndex)),
            (on(&format!("{P}-{C}-files-01")), Err(Rejection::BadIndex)),
            (on(&format!("{C}-files-65536")), Err(Rejection::BadIndex)),
            (
                on(&format!("{C}-files-99999999999")),
                Err(Rejection::BadIndex),
            ),
            (on(&format!("{P}-{C}-files")), Err(Rejection::BadIndex)),
            (on(&format!("{P}-{C}-files-x")), Err(Rejection::BadIndex)),
            (on(&format!("{C}-notifications-1")), Ok(kit(false, "n", 1))),
            (on(&format!("{P}-{C}-n-1")), Ok(kit(true, "n", 1))),
            (
                on(&format!("{P}-{C}-notifications-1")),
                Err(Rejection::TooLong),
            ),
            (on(&format!("{P}-{C}-agent-1")), Ok(kit(true, "agent", 1))),
            (on(&format!("{P}-{C}-http-8080")), Ok(within(true, web))),
            (on(&format!("{C}-https-65535")), Ok(within(false, secure))),
            (on(&format!("{C}-http-0")), Err(Rejection::BadIndex)),
            (on(&format!("{C}-http-65536")), Err(Rejection::BadIndex)),
            (on(&format!("{C}-ssh")), Ok(within(false, Door::Ssh))),
            (on(&format!("{C}-ssh-1")), Err(Rejection::UnknownService)),
            (on(&format!("{P}-{C}-proxy")), Ok(within(true, Door::Proxy))),
            (
                on(&format!("{P}-{C}-desktop-3")),
                Ok(within(true, Door::Desktop { index: 3 })),
            ),
            (on(&format!("{P}-{C}")), Err(Rejection::NoService)),
            (on(C), Err(Rejection::NoService)),
            (
                on(&format!("{P}-{C}-nothing-1")),
                Err(Rejection::UnknownService),
            ),
            (on(&format!("{P}-{C}-{C}-n-1")), Err(Rejection::TooLong)),
            (
                on(&format!("shop.{P}-{C}-exec-1")),
                Ok(within(true, Door::Exec { subdir, index: 1 })),
            ),
            (
                on(&format!("shop.{P}-{C}-files-1")),
                Err(Rejection::UnknownForm),
            ),
            (
                on(&format!("a.shop.{P}-{C}-exec-1")),
                Err(Rejection::UnknownForm),
            ),
            (on("my-shop"), Ok(Address::Alias(Label::of("my-shop")))),
            (
                on(&format!("{C}x")),
                Ok(Address::Alias(Label::of(&format!("{C}x")))),
            ),
            (on("ab"), Err(Rejection::BadAlias)),
            (on(&"a".repeat(62)), Err(Rejection::BadAlias)),
            (on("xn--mnchen-3ya"), Err(Rejection::BadAlias)),
            (on("münchen"), Err(Rejection::BadCharacter)),
            (on("a_b"), Err(Rejection::BadCharacter)),
            (on("shop-"), Err(Rejection::BadLabel)),
            (on(&"a".repeat(64)), Err(Rejection::TooLong)),
            (
                "shop.box2.containers.hoody.localhost".into(),
                Err(Rejection::UnknownNode),
            ),
            (String::new(), Err(Rejection::Empty)),
            (".".into(), Err(Rejection::Empty)),
            (":443".into(), Err(Rejection::Empty)),
            ("api.hoody.localhost..".into(), Err(Rejection::BadLabel)),
            ("api..hoody.localhost".into(), Err(Rejection::BadLabel)),
            ("api.hoody.localhost:".into(), Err(Rejection::BadPort)),
            ("api.hoody.localhost:0".into(), Err(Rejection::BadPort)),
            ("api.hoody.localhost:65536".into(), Err(Rejection::BadPort)),
            (
                "api.hoody.localhost:443:443".into(),
                Err(Rejection::BadCharacter),
            ),
            (
                "user@api.hoody.localhost".into(),
                Err(Rejection::BadCharacter),
            ),
            ("a".repeat(100_000), Err(Rejection::TooLong)),
            ("a.".repeat(127), Err(Rejection::ForeignDomain)),
        ];
        for (host, meaning) in cases {
            assert_eq!(&Address::parse(host, &zone), meaning, "{host}");
        }
    }

    fn on(labels: &str) -> String {
        format!("{labels}.box1.containers.hoody.localhost")
    }

    #[test]
    fn zones_are_checked() {
        assert!(
            Zone::new("hoody.localhost", "box1")
                .expect("good")
                .is_local()
        );
        assert!(!Zone::new("hoody.example", "box1").expect("good").is_local());
        assert!(!Zone::new("evillocalhost", "box1").expect("good").is_local());
        assert!(Zone::apart("api.a.example", "b.example", "box1").is_ok());
        for (api, containers, node) in [
            ("a.example", "b.a.example", "n"),
            ("a.b.example", "b.example", "n"),
            ("a.example", "a.example", "n"),
            ("a.example:1", "b.example", "n"),
            ("a.example", "b.example", "n.m"),
            ("a.example", "b.example", "localhost"),
            ("a.example", "b.example", ""),
            ("", "b.example", "n"),
        ] {
            assert!(
                Zone::apart(api, containers, node).is_err(),
                "{api} {containers} {node}"
            );
        }
    }

    fn any_id() -> impl Strategy<Value = Id> {
        any::<[u8; 12]>().prop_map(Id)
    }

    fn any_door() -> impl Strategy<Value = Door> {
        let scheme = prop_oneof![Just(Scheme::Http), Just(Scheme::Https)];
        prop_oneof![
            (0..services::SERVICES.len(), 1..=9999u32).prop_map(|(which, index)| Door::Kit {
                service: &services::SERVICES[which],
                index,
            }),
            ("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", 1..=LAST_INDEX).prop_map(|(subdir, index)| {
                Door::Exec {
                    subdir: Label::of(&subdir),
                    index,
                }
            }),
            (scheme, 1..=u16::MAX).prop_map(|(scheme, port)| Door::Port { scheme, port }),
            (1..=LAST_INDEX).prop_map(|index| Door::Desktop { index }),
            Just(Door::Ssh),
            Just(Door::Proxy),
        ]
    }

    fn any_address() -> impl Strategy<Value = Address> {
        prop_oneof![
            Just(Address::Api),
            Just(Address::Local),
            any_id().prop_map(Address::Realm),
            (proptest::option::of(any_id()), any_id(), any_door()).prop_map(
                |(project, container, door)| Address::Container {
                    project,
                    container,
                    door
                }
            ),
            "[g-z][a-z0-9]([a-z0-9-]{0,58}[a-z0-9])?"
                .prop_filter("an international name", |alias| {
                    ALIAS_BYTES.contains(&alias.len()) && !alias.starts_with("xn--")
                })
                .prop_map(|alias| Address::Alias(Label::of(&alias))),
        ]
    }

    proptest! {
        #[test]
        fn parse_after_display_is_the_identity(address in any_address()) {
            let zone = zone();
            let host = address.host(&zone).to_string();
            prop_assert_eq!(Address::parse(&host, &zone), Ok(address), "{}", host);
        }

        #[test]
        fn case_dot_and_port_do_not_matter(
            address in any_address(),
            flips in proptest::collection::vec(any::<bool>(), NAME_BYTES),
            dot in any::<bool>(),
            port in proptest::option::of(1..=u16::MAX),
        ) {
            let zone = zone();
            let mut host: String = address
                .host(&zone)
                .to_string()
                .chars()
                .zip(flips)
                .map(|(letter, up)| if up { letter.to_ascii_uppercase() } else { letter })
                .collect();
            if dot {
                host.push('.');
            }
            if let Some(port) = port {
                host.push_str(&format!(":{port}"));
            }
            prop_assert_eq!(Address::parse(&host, &zone), Ok(address), "{}", host);
        }

        #[test]
        fn any_text_has_one_answer(host in ".{0,300}") {
            let zone = zone();
            if let Ok(address) = Address::parse(&host, &zone) {
                let canonical = address.host(&zone).to_string();
                prop_assert_eq!(Address::parse(&canonical, &zone), Ok(address));
            }
        }

        #[test]
        fn near_misses_have_one_answer(
            labels in "([0-9a-fA-F]{23,25}-?){0,3}[a-z]{0,9}-?[0-9]{0,6}\\.?",
        ) {
            let zone = zone();
            if let Ok(address) = Address::parse(&on(&labels), &zone) {
                let canonical = address.host(&zone).to_string();
                prop_assert_eq!(Address::parse(&canonical, &zone), Ok(address));
            }
        }
    }
}
