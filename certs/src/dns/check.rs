//! Whether the world finds us, in words: from the root down to our own answers, as a resolver
//! goes, and what to change where it does not get there.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::answer::Transport;
use super::ask::{ask, ask_over, question, word};
use super::zone::{BadZone, ZoneSettings, name};

/// Referrals from the root to an answer. The deepest names have some ten.
const STEPS: usize = 16;
/// Servers of one zone that are tried.
const TRIES: usize = 4;
/// Name servers whose own address is looked for on the way to an answer, one inside another.
const DEPTH: usize = 3;

/// The name servers of the root (root-servers.org; they have changed twice in twenty years).
pub const ROOTS: [&str; 13] = [
    "198.41.0.4",
    "170.247.170.2",
    "192.33.4.12",
    "199.7.91.13",
    "192.203.230.10",
    "192.5.5.241",
    "192.112.36.4",
    "198.97.190.53",
    "192.36.148.17",
    "192.58.128.30",
    "193.0.14.129",
    "199.7.83.42",
    "202.12.27.33",
];

/// What should be found, and where to begin.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The zones that this node answers for.
    pub zones: Vec<ZoneSettings>,
    /// Every name that leads to this node, in those zones or not.
    pub hosts: Vec<String>,
    /// Where they should lead.
    pub addresses: Vec<IpAddr>,
    /// Ports that should take connections there, beside that for names.
    pub ports: Vec<u16>,
    /// Who is to certify the names; not looked at where nobody is named.
    pub issuer: Option<String>,
    /// The name servers to begin with, and the port of all of them.
    pub roots: Vec<IpAddr>,
    pub port: u16,
    /// For one answer.
    pub patience: Duration,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    Good,
    /// It works, and may not always.
    Doubtful,
    Wrong,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub grade: Grade,
    /// What it is about: a zone, a name, an address.
    pub about: String,
    /// How it is, in words.
    pub what: String,
    /// What to do, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Records that should be at the parent, as in a zone file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<String>,
}

/// Look at everything. Takes seconds, or minutes where nothing answers.
pub async fn check(plan: &Plan) -> Result<Vec<Finding>, BadZone> {
    let mut report = Report::default();
    let world = World { plan };
    for zone in &plan.zones {
        check_zone(&world, zone, &mut report).await?;
    }
    for host in &plan.hosts {
        check_host(&world, host, &mut report).await?;
    }
    for address in &plan.addresses {
        for port in &plan.ports {
            check_port(plan, SocketAddr::new(*address, *port), &mut report).await;
        }
    }
    Ok(report.findings)
}

#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
}

impl Report {
    fn good(&mut self, about: impl ToString, what: impl Into<String>) {
        self.add(Grade::Good, about, what, None, Vec::new());
    }

    fn wrong(&mut self, about: impl ToString, what: impl Into<String>, next: &str) {
        self.add(Grade::Wrong, about, what, Some(next), Vec::new());
    }

    fn add(
        &mut self,
        grade: Grade,
        about: impl ToString,
        what: impl Into<String>,
        next: Option<&str>,
        records: Vec<String>,
    ) {
        self.findings.push(Finding {
            grade,
            about: about.to_string(),
            what: what.into(),
            next: next.map(str::to_owned),
            records,
        });
    }
}

/// The delegation of a zone, and what answers where it leads.
async fn check_zone(
    world: &World<'_>,
    zone: &ZoneSettings,
    report: &mut Report,
) -> Result<(), BadZone> {
    let origin = name(&zone.origin)?;
    let ours = zone.servers()?;
    let records = delegation(&origin, &ours, &zone.addresses);
    let reached = match world
        .descend(&origin, RecordType::NS, Some(&origin), 0)
        .await
    {
        Ok(reached) => reached,
        Err(lost) => {
            let next = "look whether this machine reaches the internet's name servers on port 53, \
                        and whether the parent's answer";
            report.wrong(
                &origin,
                format!("whether it is delegated cannot be found out: {lost}"),
                next,
            );
            return Ok(());
        }
    };
    let delegated = reached.servers_of(&origin);
    if delegated.is_empty() {
        let said = reached.message.metadata.response_code;
        report.add(
            Grade::Wrong,
            &origin,
            format!("it is not delegated: the name servers of {} answer {said} without name servers for it", reached.cut),
            Some("add these records where the domain above is kept"),
            records,
        );
        return Ok(());
    }
    let strangers: Vec<&Name> = delegated
        .iter()
        .filter(|server| !ours.contains(server))
        .collect();
    if !strangers.is_empty() {
        let all = if strangers.len() == delegated.len() {
            "so that nobody comes here"
        } else {
            "so that only some come here"
        };
        report.add(
            Grade::Wrong,
            &origin,
            format!("it is delegated to {}, {all}", list(&strangers)),
            Some("let these be the only NS records of it where the domain above is kept"),
            records.clone(),
        );
    } else {
        report.good(&origin, format!("it is delegated to {}", list(&delegated)));
    }
    let mut places = BTreeSet::new();
    for server in delegated.iter().filter(|server| ours.contains(server)) {
        places.extend(check_server(world, zone, &origin, server, &reached, &records, report).await);
    }
    if places.is_empty() {
        places.extend(&zone.addresses);
    }
    let mut serials = BTreeSet::new();
    for place in places {
        let place = SocketAddr::new(place, world.plan.port);
        for transport in [Transport::Udp, Transport::Tcp] {
            serials.extend(check_answers(world, &origin, place, transport, report).await);
        }
    }
    if serials.len() > 1 {
        let next = "let all addresses lead to this node, or have the same zone";
        report.wrong(
            &origin,
            format!("its name servers have different serials: {serials:?}"),
            next,
        );
    }
    Ok(())
}

/// The address of one of our name servers, as the parent or its own zone has it.
async fn check_server(
    world: &World<'_>,
    zone: &ZoneSettings,
    origin: &Name,
    server: &Name,
    reached: &Reached,
    records: &[String],
    report: &mut Report,
) -> Vec<IpAddr> {
    let glue = reached.addresses_of(server);
    let is_within = origin.zone_of(server);
    let found = if is_within {
        if glue.is_empty() {
            report.add(
                Grade::Wrong,
                server,
                format!("the name servers of {} have no address for it (glue), without which nobody finds it", reached.cut),
                Some("add these records where the domain above is kept; registrars call it a host or glue record"),
                records.to_vec(),
            );
            return Vec::new();
        }
        glue
    } else {
        match world.addresses(server, 0).await {
            Ok(found) if !found.is_empty() => found,
            Ok(_) => {
                report.wrong(
                    server,
                    "it has no address",
                    "give it the addresses of this node",
                );
                return Vec::new();
            }
            Err(lost) => {
                report.wrong(
                    server,
                    format!("its address cannot be found out: {lost}"),
                    "give it the addresses of this node",
                );
                return Vec::new();
            }
        }
    };
    let wrong: Vec<&IpAddr> = found
        .iter()
        .filter(|ip| !zone.addresses.contains(ip))
        .collect();
    let missing: Vec<&IpAddr> = zone
        .addresses
        .iter()
        .filter(|ip| !found.contains(ip))
        .collect();
    if !wrong.is_empty() {
        report.add(
            Grade::Wrong,
            server,
            format!("it leads to {}, and this node is at {}", list(&wrong), list(&zone.addresses)),
            Some("correct its address where the domain above is kept, or say this node's with --dns-addresses"),
            records.to_vec(),
        );
    } else if !missing.is_empty() {
        report.add(
            Grade::Doubtful,
            server,
            format!(
                "it leads to {}, and not to {}",
                list(&found),
                list(&missing)
            ),
            Some("add the other addresses, so that both families find it"),
            records.to_vec(),
        );
    } else {
        report.good(server, format!("it leads to {}", list(&found)));
    }
    found
}

/// Whether a name server answers for the zone over one transport; its serial.
async fn check_answers(
    world: &World<'_>,
    origin: &Name,
    place: SocketAddr,
    transport: Transport,
    report: &mut Report,
) -> Option<u32> {
    let asked = question(origin, RecordType::SOA);
    let over = word(transport);
    let answer = match ask_over(transport, place, &asked, world.plan.patience).await {
        Ok(answer) => answer,
        Err(error) => {
            let port = place.port();
            let next = format!(
                "let {over} to port {port} through in the firewall and at the provider, and see in \
                 the proxy's log whether the node listens there"
            );
            report.wrong(place, with_cause(&error), &next);
            return None;
        }
    };
    let code = answer.metadata.response_code;
    let serial = answer.answers.iter().find_map(|record| match &record.data {
        RData::SOA(soa) if record.name == *origin => Some(soa.serial),
        _ => None,
    });
    match serial {
        Some(serial) if code == ResponseCode::NoError && answer.metadata.authoritative => {
            report.good(place, format!("it answers for {origin} over {over}"));
            Some(serial)
        }
        _ => {
            let next = "another name server may listen there: stop it, or let the node listen \
                        elsewhere with --dns-bind; and see that --dns-zones names the zone";
            report.wrong(
                place,
                format!("it answers {code} over {over}, and not for {origin}"),
                next,
            );
            None
        }
    }
}

/// Where a name leads, who may certify it, and whether its challenges can be seen.
async fn check_host(world: &World<'_>, host: &str, report: &mut Report) -> Result<(), BadZone> {
    let (asked, base) = match host.strip_prefix("*.") {
        Some(base) => (name(&format!("{}.{base}", probe()))?, name(base)?),
        None => (name(host)?, name(host)?),
    };
    let plan = world.plan;
    let records = address_records(host, &plan.addresses);
    match world.descend(&asked, RecordType::A, None, 0).await {
        Err(lost) => {
            report.wrong(
                host,
                format!("where it leads cannot be found out: {lost}"),
                "see what is said of its zone",
            );
            return Ok(()); // all else about it would be the same
        }
        Ok(reached) => {
            let aliases = reached.message.answers.iter();
            let alias = aliases
                .filter(|record| record.name == asked)
                .find_map(|record| match &record.data {
                    RData::CNAME(alias) => Some(&alias.0),
                    _ => None,
                });
            if let Some(alias) = alias {
                report.add(
                    Grade::Wrong,
                    host,
                    format!("it is an alias (CNAME) of {alias}: nothing else can stand at it, and who certifies follows it"),
                    Some("put addresses in its place"),
                    records,
                );
            } else {
                check_addresses(world, host, &asked, &reached, records, report).await;
            }
        }
    }
    check_challenge(world, host, &base, report).await?;
    if let Some(issuer) = &plan.issuer {
        check_issuer(world, host, &base, issuer, report).await;
    }
    Ok(())
}

async fn check_addresses(
    world: &World<'_>,
    host: &str,
    asked: &Name,
    reached: &Reached,
    records: Vec<String>,
    report: &mut Report,
) {
    let wanted = &world.plan.addresses;
    let mut found = reached.addresses_of(asked);
    if wanted.iter().any(IpAddr::is_ipv6)
        && let Ok(reached) = world.descend(asked, RecordType::AAAA, None, 0).await
    {
        found.extend(reached.addresses_of(asked));
    }
    let code = reached.message.metadata.response_code;
    let wrong: Vec<&IpAddr> = found.iter().filter(|ip| !wanted.contains(ip)).collect();
    if found.is_empty() {
        let what = match code {
            ResponseCode::NXDomain => {
                format!("it does not exist: {} says so (NXDOMAIN)", reached.cut)
            }
            code => format!(
                "it has no address: {} answers {code} without one",
                reached.cut
            ),
        };
        report.add(
            Grade::Wrong,
            host,
            what,
            Some("add these records to its zone"),
            records,
        );
    } else if !wrong.is_empty() {
        let what = format!(
            "it leads to {}, and this node is at {}",
            list(&wrong),
            list(wanted)
        );
        report.add(
            Grade::Wrong,
            host,
            what,
            Some("let these be its records"),
            records,
        );
    } else {
        report.good(host, format!("it leads to {}", list(&found)));
    }
}

/// Whether the world could see a challenge of a name. That there is none is fine.
async fn check_challenge(
    world: &World<'_>,
    host: &str,
    base: &Name,
    report: &mut Report,
) -> Result<(), BadZone> {
    let at = name(&format!("_acme-challenge.{base}"))?;
    match world.descend(&at, RecordType::TXT, None, 0).await {
        Err(lost) => {
            let next = "see what is said of its zone";
            report.wrong(host, format!("its challenges cannot be seen: {lost}"), next);
        }
        Ok(reached) => {
            let mut answers = reached.message.answers.iter();
            if answers.any(|record| record.record_type() == RecordType::CNAME) {
                report.add(
                    Grade::Doubtful,
                    host,
                    format!("{at} is an alias: challenges are looked for elsewhere"),
                    Some("take the alias away, unless challenges are shown there"),
                    Vec::new(),
                );
            }
        }
    }
    Ok(())
}

/// Whether the closest CAA records let the issuer certify a name (RFC 8659, section 3).
async fn check_issuer(
    world: &World<'_>,
    host: &str,
    base: &Name,
    issuer: &str,
    report: &mut Report,
) {
    let is_wildcard = host.starts_with("*.");
    let mut at = base.clone();
    while !at.is_root() {
        let Ok(reached) = world.descend(&at, RecordType::CAA, None, 0).await else {
            let next = "let its name servers answer: who certifies refuses where they fail";
            report.wrong(
                host,
                format!("who may certify it (CAA of {at}) cannot be found out"),
                next,
            );
            return;
        };
        let found: Vec<(&str, String)> = reached
            .message
            .answers
            .iter()
            .filter_map(|record| match &record.data {
                RData::CAA(caa) => Some((caa.tag.as_str(), issuer_of(&caa.value))),
                _ => None,
            })
            .collect();
        if !found.is_empty() {
            let of = |tag: &str| -> Vec<&String> {
                let these = found.iter().filter(|(it, _)| it.eq_ignore_ascii_case(tag));
                these.map(|(_, issuer)| issuer).collect()
            };
            let (wild, plain) = (of("issuewild"), of("issue"));
            let (tag, decides) = if is_wildcard && !wild.is_empty() {
                ("issuewild", wild)
            } else {
                ("issue", plain)
            };
            if !decides.is_empty() && !decides.iter().any(|it| it.eq_ignore_ascii_case(issuer)) {
                report.add(
                    Grade::Wrong,
                    host,
                    format!("the CAA records of {at} forbid {issuer} to certify it"),
                    Some("add this record beside them"),
                    vec![format!("{at} 3600 IN CAA 0 {tag} \"{issuer}\"")],
                );
            }
            return;
        }
        at = at.base_name();
    }
}

/// The issuer's name, without parameters.
fn issuer_of(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    text.split(';').next().unwrap_or_default().trim().to_owned()
}

async fn check_port(plan: &Plan, place: SocketAddr, report: &mut Report) {
    let next = "let TCP to it through in the firewall and at the provider, and see with `hoody \
                status` whether the node runs";
    match timeout(plan.patience, TcpStream::connect(place)).await {
        Ok(Ok(_)) => report.good(place, "it takes connections"),
        Ok(Err(error)) => report.wrong(place, format!("it takes no connections: {error}"), next),
        Err(_) => report.wrong(place, "it does not answer", next),
    }
}

/// The way from the root to an answer.
struct World<'p> {
    plan: &'p Plan,
}

/// An answer, and whose it is.
struct Reached {
    message: Message,
    /// The zone whose servers gave it.
    cut: Name,
}

impl Reached {
    /// The name servers of a zone, wherever they stand in the answer.
    fn servers_of(&self, zone: &Name) -> Vec<Name> {
        let all = self.message.answers.iter().chain(&self.message.authorities);
        all.filter(|record| record.name == *zone)
            .filter_map(|record| match &record.data {
                RData::NS(server) => Some(server.0.to_lowercase()),
                _ => None,
            })
            .collect()
    }

    fn addresses_of(&self, host: &Name) -> Vec<IpAddr> {
        addresses_in(&self.message, host)
    }
}

fn addresses_in(message: &Message, host: &Name) -> Vec<IpAddr> {
    let all = message.answers.iter().chain(&message.additionals);
    let found: BTreeSet<IpAddr> = all
        .filter(|record| record.name == *host)
        .filter_map(|record| match &record.data {
            RData::A(ip) => Some(IpAddr::V4(ip.0)),
            RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
            _ => None,
        })
        .collect();
    found.into_iter().collect()
}

impl World<'_> {
    /// Ask from the root down. Ends at the first answer that leads no deeper, or at the referral to
    /// `stop`: what the parent says of a zone.
    async fn descend(
        &self,
        asked: &Name,
        kind: RecordType,
        stop: Option<&Name>,
        depth: usize,
    ) -> Result<Reached, String> {
        let question = question(asked, kind);
        let mut cut = Name::root();
        let mut servers = self.plan.roots.clone();
        for _ in 0..STEPS {
            let message = self.ask_one_of(&cut, &servers, &question).await?;
            let referral = message
                .authorities
                .iter()
                .filter(|record| record.record_type() == RecordType::NS)
                .map(|record| record.name.to_lowercase())
                .find(|zone| zone.zone_of(asked) && zone.num_labels() > cut.num_labels());
            let reached = Reached { message, cut };
            let zone = match referral {
                Some(zone) if !reached.message.metadata.authoritative => zone,
                _ => return Ok(reached),
            };
            if stop == Some(&zone) {
                return Ok(reached);
            }
            let names = reached.servers_of(&zone);
            servers = names
                .iter()
                .flat_map(|name| reached.addresses_of(name))
                .collect();
            if servers.is_empty() && depth < DEPTH {
                for name in names.iter().take(TRIES) {
                    if let Ok(found) = Box::pin(self.addresses(name, depth + 1)).await {
                        servers.extend(found);
                    }
                }
            }
            if servers.is_empty() {
                return Err(format!(
                    "the name servers of {zone} ({}) have no address",
                    list(&names)
                ));
            }
            cut = zone;
        }
        Err(format!("there is no end after {STEPS} referrals"))
    }

    async fn addresses(&self, host: &Name, depth: usize) -> Result<Vec<IpAddr>, String> {
        let mut found = self
            .descend(host, RecordType::A, None, depth)
            .await?
            .addresses_of(host);
        if let Ok(reached) = self.descend(host, RecordType::AAAA, None, depth).await {
            found.extend(reached.addresses_of(host));
        }
        Ok(found)
    }

    async fn ask_one_of(
        &self,
        cut: &Name,
        servers: &[IpAddr],
        question: &Message,
    ) -> Result<Message, String> {
        let mut said = String::new();
        for server in servers.iter().take(TRIES) {
            let server = SocketAddr::new(*server, self.plan.port);
            let separator = if said.is_empty() { "" } else { "; " };
            match ask(server, question, self.plan.patience).await {
                Ok(answer) => match answer.metadata.response_code {
                    ResponseCode::NoError | ResponseCode::NXDomain => return Ok(answer),
                    code => write!(said, "{separator}{server} answers {code}").ok(),
                },
                Err(error) => write!(said, "{separator}{}", with_cause(&error)).ok(),
            };
        }
        Err(format!(
            "of the name servers of {cut} none has an answer ({said})"
        ))
    }
}

/// What the parent should have, as in a zone file.
fn delegation(origin: &Name, servers: &[Name], addresses: &[IpAddr]) -> Vec<String> {
    let mut records: Vec<String> = servers
        .iter()
        .map(|server| format!("{origin} 3600 IN NS {server}"))
        .collect();
    for server in servers.iter().filter(|server| origin.zone_of(server)) {
        records.extend(address_records(&server.to_string(), addresses));
    }
    records
}

/// What to type at the registrar for a zone.
pub fn records_for(zone: &ZoneSettings) -> Result<Vec<String>, BadZone> {
    Ok(delegation(
        &name(&zone.origin)?,
        &zone.servers()?,
        &zone.addresses,
    ))
}

fn address_records(host: &str, addresses: &[IpAddr]) -> Vec<String> {
    let host = host.trim_end_matches('.');
    let record = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => format!("{host}. 300 IN A {ip}"),
        IpAddr::V6(ip) => format!("{host}. 300 IN AAAA {ip}"),
    };
    addresses.iter().map(record).collect()
}

/// A label that nobody has.
fn probe() -> String {
    format!("hoody-dns-check-{:08x}", Message::query().metadata.id)
}

fn list<T: ToString>(items: &[T]) -> String {
    let words: Vec<String> = items.iter().map(ToString::to_string).collect();
    words.join(", ")
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
