//! The names of a node: its name server, and other ways to show a challenge.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;

use super::{Value, addresses, port};

/// The port of name servers.
pub(super) const PORT: u16 = 53;
/// Instead of the names of those who may certify.
const ANY: &str = "any";

/// The name server of a node; there is none without zones.
#[derive(Debug, Clone)]
pub struct Dns {
    pub zones: Vec<String>,
    /// Where they were said.
    pub addresses: Option<Vec<IpAddr>>,
    pub bind: Option<Vec<IpAddr>>,
    pub port: u16,
    pub servers: Vec<String>,
    /// Who may certify, where that was said; nobody in it: whoever.
    pub issuers: Option<Vec<String>>,
}

/// Where DNS-01 challenges are shown, if it is not the node's own name server.
#[derive(Debug, Clone)]
pub struct Challenge {
    pub servers: Vec<SocketAddr>,
    pub zone: Option<String>,
    pub key: Option<PathBuf>,
    pub program: Option<PathBuf>,
}

pub(super) fn read(values: &BTreeMap<&'static str, Value>) -> anyhow::Result<(Dns, Challenge)> {
    let path = |key: &str| values.get(key).map(|value| value.text.clone().into());
    let dns = Dns {
        zones: names(values.get("dns.zones"))?,
        addresses: values.get("dns.addresses").map(addresses).transpose()?,
        bind: values.get("dns.bind").map(addresses).transpose()?,
        port: port(values.get("dns.port"), PORT)?,
        servers: names(values.get("dns.servers"))?,
        issuers: match values.get("dns.issuers") {
            None => None,
            Some(value) if value.text == ANY => Some(Vec::new()),
            named => Some(names(named)?),
        },
    };
    let challenge = Challenge {
        servers: servers(values.get("challenge.servers"))?,
        zone: names(values.get("challenge.zone"))?.into_iter().next(),
        key: path("challenge.key"),
        program: path("challenge.program"),
    };
    Ok((dns, challenge))
}

/// Names of hosts and zones, in lower case.
fn names(value: Option<&Value>) -> anyhow::Result<Vec<String>> {
    let Some(Value { text, source }) = value else {
        return Ok(Vec::new());
    };
    let parse = |part: &str| {
        let part = part.trim().trim_end_matches('.').to_ascii_lowercase();
        certs::dns::zone::name(&part).with_context(|| source.clone())?;
        Ok(part)
    };
    text.split(',').map(parse).collect()
}

/// Addresses of name servers, with a port where it is not 53.
fn servers(value: Option<&Value>) -> anyhow::Result<Vec<SocketAddr>> {
    let Some(Value { text, source }) = value else {
        return Ok(Vec::new());
    };
    let parse = |part: &str| {
        let part = part.trim();
        let alone = || {
            part.parse()
                .ok()
                .map(|ip: IpAddr| SocketAddr::new(ip, PORT))
        };
        let found = part.parse().ok().or_else(alone);
        found.with_context(|| {
            format!("{source}: `{part}` is no address like 192.0.2.1 or 192.0.2.1:53")
        })
    };
    text.split(',').map(parse).collect()
}
