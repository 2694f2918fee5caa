//! Rules of a container's firewall: what callers write, and what it means. Pure.
//!
//! Of a direction's rules the first that fits decides, in the order in which they were added; what
//! no rule fits passes. A [`Rule`] is text as it was given; a [`Filter`] is what the text means, in
//! numbers alone, so that nothing of the text reaches the packet filter.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rules of one direction of a container. Each packet may be held against all of them.
pub const RULES: usize = 100;
/// All rules of a container together, as JSON.
pub const BYTES: usize = 64 << 10;
/// Ports, ranges or networks that one field lists.
const LISTED: usize = 16;
const DESCRIPTION: usize = 255;
const PORTS: usize = 64;
const PEERS: usize = 512;
const ICMP: usize = 8;

/// What becomes of a packet that a rule fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Allow,
    /// Refused, and its sender is told.
    Reject,
    /// Lost without a word.
    Drop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Icmp4,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Enabled,
    /// Kept, and without effect.
    Disabled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Connections to the machine.
    Ingress,
    /// Connections of the machine.
    Egress,
}

/// A rule as it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub action: Action,
    pub protocol: Protocol,
    pub description: String,
    /// The other end: networks with commas between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// `80`, `8000-8100`, or several with commas between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<String>,
    #[serde(default)]
    pub state: State,
}

/// The rules of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    pub ingress: Vec<Rule>,
    pub egress: Vec<Rule>,
}

/// What a rule means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub action: Action,
    pub kind: Kind,
    /// Any where there are none.
    pub peers: Vec<Ipv4Net>,
}

/// Which packets, their other end aside; any where a list is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Tcp { from: Vec<Ports>, to: Vec<Ports> },
    Udp { from: Vec<Ports>, to: Vec<Ports> },
    Icmp { kind: Option<u8>, code: Option<u8> },
}

pub type Ports = RangeInclusive<u16>;

/// The rules of a machine that have an effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    pub ingress: Vec<Filter>,
    pub egress: Vec<Filter>,
}

/// A field of a rule that says nothing that can be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Wrong {
    pub field: Field,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Description,
    Peer,
    DestinationPort,
    SourcePort,
    IcmpType,
    IcmpCode,
}

impl Direction {
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }
}

impl Field {
    /// What the field is called in a rule of this direction.
    pub fn name(self, direction: Direction) -> &'static str {
        match (self, direction) {
            (Field::Description, _) => "description",
            (Field::Peer, Direction::Ingress) => "source",
            (Field::Peer, Direction::Egress) => "destination",
            (Field::DestinationPort, _) => "destination_port",
            (Field::SourcePort, _) => "source_port",
            (Field::IcmpType, _) => "icmp_type",
            (Field::IcmpCode, _) => "icmp_code",
        }
    }
}

impl Rules {
    pub fn of(&self, direction: Direction) -> &Vec<Rule> {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    pub fn of_mut(&mut self, direction: Direction) -> &mut Vec<Rule> {
        match direction {
            Direction::Ingress => &mut self.ingress,
            Direction::Egress => &mut self.egress,
        }
    }

    pub fn count(&self) -> usize {
        self.ingress.len() + self.egress.len()
    }

    /// What they take in the database.
    pub fn bytes(&self) -> usize {
        serde_json::to_string(self).map_or(0, |text| text.len())
    }

    /// What is to be done.
    pub fn filters(&self) -> Result<Filters, Wrong> {
        let enabled = |rules: &[Rule]| {
            rules
                .iter()
                .filter(|rule| rule.state == State::Enabled)
                .map(Rule::filter)
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Filters {
            ingress: enabled(&self.ingress)?,
            egress: enabled(&self.egress)?,
        })
    }
}

impl Filters {
    pub fn is_empty(&self) -> bool {
        self.ingress.is_empty() && self.egress.is_empty()
    }
}

impl Rule {
    /// What it means.
    pub fn filter(&self) -> Result<Filter, Wrong> {
        let wrong = |field, message: String| Wrong { field, message };
        if self.description.chars().count() > DESCRIPTION {
            let message = format!("must have up to {DESCRIPTION} characters");
            return Err(wrong(Field::Description, message));
        }
        let peers = match &self.peer {
            None => Vec::new(),
            Some(text) => networks(text).map_err(|message| wrong(Field::Peer, message))?,
        };
        let ports = |field, text: &Option<String>| match text {
            None => Ok(Vec::new()),
            Some(text) => ports(text).map_err(|message| wrong(field, message)),
        };
        let number = |field, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => plain_number::<u8>(text, ICMP)
                .map(Some)
                .ok_or_else(|| wrong(field, "must be a number from 0 to 255".to_owned())),
        };
        let to = ports(Field::DestinationPort, &self.destination_port)?;
        let from = ports(Field::SourcePort, &self.source_port)?;
        let (kind, code) = (
            number(Field::IcmpType, &self.icmp_type)?,
            number(Field::IcmpCode, &self.icmp_code)?,
        );
        let kind = match self.protocol {
            Protocol::Icmp4 => {
                for (field, text) in [
                    (Field::DestinationPort, &self.destination_port),
                    (Field::SourcePort, &self.source_port),
                ] {
                    if text.is_some() {
                        return Err(wrong(field, "ICMP has no ports".to_owned()));
                    }
                }
                if code.is_some() && kind.is_none() {
                    let message = "has a meaning with `icmp_type` alone".to_owned();
                    return Err(wrong(Field::IcmpCode, message));
                }
                Kind::Icmp { kind, code }
            }
            Protocol::Tcp | Protocol::Udp => {
                for (field, set) in [
                    (Field::IcmpType, kind.is_some()),
                    (Field::IcmpCode, code.is_some()),
                ] {
                    if set {
                        return Err(wrong(field, "belongs to rules of ICMP".to_owned()));
                    }
                }
                match self.protocol {
                    Protocol::Tcp => Kind::Tcp { from, to },
                    _ => Kind::Udp { from, to },
                }
            }
        };
        Ok(Filter {
            action: self.action,
            kind,
            peers,
        })
    }

    /// Whether both do the same; what they are called and whether they are on aside.
    pub fn does_as(&self, other: &Rule) -> bool {
        self.filter().is_ok() && self.filter() == other.filter()
    }
}

/// A number without a sign or blanks.
fn plain_number<T: std::str::FromStr>(text: &str, most: usize) -> Option<T> {
    let plain = !text.is_empty() && text.len() <= most && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

/// Ports and ranges with commas between.
fn ports(text: &str) -> Result<Vec<Ports>, String> {
    let wrong = || {
        format!(
            "`{text}` must be a port such as 443, a range such as 8000-8100, or several with commas between"
        )
    };
    let all: Vec<&str> = text.split(',').map(str::trim).collect();
    if text.len() > PORTS || all.len() > LISTED {
        return Err(format!(
            "must have up to {PORTS} characters and {LISTED} parts"
        ));
    }
    let mut ports = Vec::with_capacity(all.len());
    for part in all {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: u16 = plain_number(first, 5).ok_or_else(wrong)?;
        let last: u16 = plain_number(last, 5).ok_or_else(wrong)?;
        if first == 0 || first > last {
            return Err(wrong());
        }
        ports.push(first..=last);
    }
    Ok(ports)
}

/// Networks with commas between.
fn networks(text: &str) -> Result<Vec<Ipv4Net>, String> {
    let all: Vec<&str> = text.split(',').map(str::trim).collect();
    if text.len() > PEERS || all.len() > LISTED {
        return Err(format!(
            "must have up to {PEERS} characters and {LISTED} networks"
        ));
    }
    let mut networks = Vec::with_capacity(all.len());
    for part in all {
        let network: Option<Ipv4Net> = match part.contains('/') {
            true => part.parse().ok(),
            false => part.parse::<Ipv4Addr>().ok().map(Ipv4Net::from),
        };
        let network = network.ok_or_else(|| {
            format!("`{part}` must be an IPv4 network such as 192.0.2.0/24; machines have no IPv6")
        })?;
        networks.push(network.trunc());
    }
    Ok(networks)
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn rule(action: Action, protocol: Protocol) -> Rule {
        Rule {
            action,
            protocol,
            description: "a rule".to_owned(),
            peer: None,
            destination_port: None,
            source_port: None,
            icmp_type: None,
            icmp_code: None,
            state: State::Enabled,
        }
    }

    fn tcp(peer: Option<&str>, to: Option<&str>) -> Rule {
        Rule {
            peer: peer.map(str::to_owned),
            destination_port: to.map(str::to_owned),
            ..rule(Action::Drop, Protocol::Tcp)
        }
    }

    #[test]
    fn text_becomes_numbers() {
        let filter = tcp(Some("10.1.2.3/8, 192.0.2.7"), Some("80,8000-8100"))
            .filter()
            .unwrap();
        assert_eq!(
            filter.peers,
            [
                "10.0.0.0/8".parse().unwrap(),
                "192.0.2.7/32".parse().unwrap()
            ]
        );
        assert_eq!(
            filter.kind,
            Kind::Tcp {
                from: vec![],
                to: vec![80..=80, 8000..=8100]
            }
        );
        let ping = Rule {
            icmp_type: Some("8".to_owned()),
            ..rule(Action::Allow, Protocol::Icmp4)
        };
        assert_eq!(
            ping.filter().unwrap().kind,
            Kind::Icmp {
                kind: Some(8),
                code: None
            }
        );
    }

    #[test]
    fn what_means_nothing_is_refused_where_it_stands() {
        let field = |rule: Rule| rule.filter().unwrap_err().field;
        for ports in [
            "", "0", "65536", "80-", "-80", "90-80", "80;drop", "80 }", "+80", "80,,81", "http",
        ] {
            assert_eq!(
                field(tcp(None, Some(ports))),
                Field::DestinationPort,
                "{ports}"
            );
        }
        for peer in [
            "",
            "10.0.0.0/33",
            "::/0",
            "example.com",
            "10.0.0.0/8 accept",
            "10.0.0.0/8,",
            "10.0.0.1\naccept",
        ] {
            assert_eq!(field(tcp(Some(peer), None)), Field::Peer, "{peer}");
        }
        let many = vec!["1"; LISTED + 1].join(",");
        assert_eq!(field(tcp(None, Some(&many))), Field::DestinationPort);
        let mut icmp = rule(Action::Drop, Protocol::Icmp4);
        icmp.source_port = Some("1".to_owned());
        assert_eq!(field(icmp.clone()), Field::SourcePort);
        icmp.source_port = None;
        icmp.icmp_code = Some("0".to_owned());
        assert_eq!(field(icmp.clone()), Field::IcmpCode);
        icmp.icmp_type = Some("256".to_owned());
        assert_eq!(field(icmp), Field::IcmpType);
        let mut udp = rule(Action::Drop, Protocol::Udp);
        udp.icmp_type = Some("8".to_owned());
        assert_eq!(field(udp), Field::IcmpType);
    }

    #[test]
    fn rules_that_are_off_have_no_effect() {
        let off = Rule {
            state: State::Disabled,
            ..tcp(None, None)
        };
        let rules = Rules {
            ingress: vec![off],
            egress: vec![tcp(None, Some("25"))],
        };
        let filters = rules.filters().unwrap();
        assert!(filters.ingress.is_empty());
        assert_eq!(filters.egress.len(), 1);
    }
}
