//! Which names there are, and what stands at them.
//!
//! A name exists where something stands at it or beneath it (RFC 4592, section 2.2.2: empty
//! non-terminals exist). A name that does not exist is answered by the wildcard right beneath its
//! closest encloser, where there is one, and by nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use hickory_proto::rr::rdata::{A, AAAA, CAA, NS, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Seconds that others may keep an address. A node that moves is found anew after it.
const ADDRESS_TTL: u32 = 300;
/// Seconds for NS, SOA and CAA.
const APEX_TTL: u32 = 3_600;
/// Seconds that others may keep that there is nothing (RFC 2308, section 5).
const NEGATIVE_TTL: u32 = 60;
/// Challenges change from one question to the next.
const CHALLENGE_TTL: u32 = 1;
/// Seconds between looks of secondaries, of which there are none.
const REFRESH: i32 = 3_600;
const RETRY: i32 = 600;
const EXPIRE: i32 = 604_800;
/// The longest name in the form of the wire (RFC 1035, section 3.1).
pub const WIRE_BYTES: usize = 255;

/// What one delegated zone is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneSettings {
    /// `node-1.containers.example.com`
    pub origin: String,
    /// The names that lead to this node: `api.example.com`, `*.node-1.containers.example.com`.
    /// Those outside of the zone are left out.
    pub hosts: Vec<String>,
    /// Where they lead.
    pub addresses: Vec<IpAddr>,
    /// The names of the zone's name servers, as the parent has them. Those within the zone get the
    /// addresses, too. `ns` in the zone where there are none.
    pub servers: Vec<String>,
    /// Who certifies names of the zone (RFC 8659); nothing is said where there are none.
    pub issuers: Vec<String>,
}

impl ZoneSettings {
    /// The names of the zone's name servers; there is one at least.
    pub fn servers(&self) -> Result<Vec<Name>, BadZone> {
        match &*self.servers {
            [] => Ok(vec![name(&format!("ns.{}", self.origin))?.to_lowercase()]),
            servers => servers
                .iter()
                .map(|text| Ok(name(text)?.to_lowercase()))
                .collect(),
        }
    }
}

/// Why there is no such zone.
#[derive(Debug, thiserror::Error)]
pub enum BadZone {
    #[error("`{0}` is not a name")]
    Name(String),
    #[error("the zone {0} has no addresses: name those of this machine")]
    NoAddresses(String),
    #[error("the zones {0} and {1} are the same")]
    Twice(String, String),
}

/// The text values of challenges, by the lower-case name they stand at.
pub type Challenges = BTreeMap<String, BTreeSet<String>>;

/// A name in the form of the wire, in lower case: every suffix that starts at a label is the key
/// of an ancestor.
pub type Key = Box<[u8]>;

/// Records of one type at one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub kind: RecordType,
    pub ttl: u32,
    pub data: Vec<RData>,
}

/// What stands at a name; empty for a name that only has others beneath it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    sets: Vec<Set>,
}

impl Node {
    fn put(&mut self, kind: RecordType, ttl: u32, data: RData) {
        match self.sets.iter_mut().find(|set| set.kind == kind) {
            Some(set) if set.data.contains(&data) => {}
            Some(set) => set.data.push(data),
            None => self.sets.push(Set {
                kind,
                ttl,
                data: vec![data],
            }),
        }
    }
}

/// What a question finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'z> {
    /// Records of the type.
    Set(&'z Set),
    /// The name exists, and nothing of the type stands there (NODATA).
    Nothing,
    /// There is no such name (NXDOMAIN).
    NoName,
}

/// One zone as it is now.
#[derive(Debug, Clone)]
pub struct Zone {
    origin: Name,
    key: Key,
    nodes: HashMap<Key, Node>,
    /// The challenges, and the names above them. They are apart from the names that stay: a name
    /// beneath a wildcard that begins to exist would no longer be answered by it, and neither
    /// would those around it (RFC 4592, section 2.2.1), so that a challenge for one host would
    /// take the addresses of others away.
    shown: HashMap<Key, Node>,
    /// The SOA as it stands beside a negative answer.
    negative: Record,
}

impl Zone {
    /// The zone with these challenges in it.
    pub fn build(
        settings: &ZoneSettings,
        challenges: &Challenges,
        serial: u32,
    ) -> Result<Zone, BadZone> {
        if settings.addresses.is_empty() {
            return Err(BadZone::NoAddresses(settings.origin.clone()));
        }
        let origin = name(&settings.origin)?.to_lowercase();
        let servers = settings.servers()?;
        let soa = RData::SOA(SOA::new(
            servers[0].clone(),
            name(&format!("hostmaster.{origin}"))?,
            serial,
            REFRESH,
            RETRY,
            EXPIRE,
            NEGATIVE_TTL,
        ));
        let mut zone = Zone {
            key: key(&origin),
            nodes: HashMap::new(),
            shown: HashMap::new(),
            negative: Record::from_rdata(origin.clone(), NEGATIVE_TTL, soa.clone()),
            origin,
        };
        let apex = zone.node(&zone.key.clone());
        apex.put(RecordType::SOA, APEX_TTL, soa);
        for server in &servers {
            apex.put(RecordType::NS, APEX_TTL, RData::NS(NS(server.clone())));
        }
        for issuer in &settings.issuers {
            // Without the dot of the root: who certifies compares the text (RFC 8659, section 4.2).
            let mut issuer = name(issuer)?;
            issuer.set_fqdn(false);
            let caa = CAA::new_issue(false, Some(issuer), Vec::new());
            apex.put(RecordType::CAA, APEX_TTL, RData::CAA(caa));
        }
        let hosts = settings.hosts.iter().map(|host| name(host));
        for host in hosts.chain(servers.into_iter().map(Ok)) {
            let host = key(&host?);
            if !zone.holds(&host) {
                continue;
            }
            let node = zone.node(&host);
            for address in &settings.addresses {
                match *address {
                    IpAddr::V4(ip) => node.put(RecordType::A, ADDRESS_TTL, RData::A(A(ip))),
                    IpAddr::V6(ip) => {
                        node.put(RecordType::AAAA, ADDRESS_TTL, RData::AAAA(AAAA(ip)))
                    }
                }
            }
        }
        for (at, values) in challenges {
            let at = key(&name(at)?);
            if zone.holds(&at) {
                zone.challenge(&at, values);
            }
        }
        Ok(zone)
    }

    /// Put challenges at a name.
    fn challenge(&mut self, at: &[u8], values: &BTreeSet<String>) {
        let apex = self.key.len();
        for above in suffixes(at).skip(1).take_while(|above| above.len() >= apex) {
            self.shown.entry(above.into()).or_default();
        }
        let node = self.shown.entry(at.into()).or_default();
        for value in values {
            let text = TXT::from_bytes(vec![value.as_bytes()]);
            node.put(RecordType::TXT, CHALLENGE_TTL, RData::TXT(text));
        }
    }

    /// The node of a name; it and those above it exist from now on.
    fn node(&mut self, at: &[u8]) -> &mut Node {
        let apex = self.key.len();
        for above in suffixes(at).skip(1).take_while(|above| above.len() >= apex) {
            if !self.nodes.contains_key(above) {
                self.nodes.insert(above.into(), Node::default());
            }
        }
        self.nodes.entry(at.into()).or_default()
    }

    pub fn origin(&self) -> &Name {
        &self.origin
    }

    /// The SOA beside an answer that says that there is nothing (RFC 2308, section 3).
    pub fn negative(&self) -> &Record {
        &self.negative
    }

    /// Whether a name is the zone's or beneath it.
    pub fn holds(&self, at: &[u8]) -> bool {
        suffixes(at).any(|suffix| *suffix == *self.key)
    }

    /// What stands at a name of this zone.
    pub fn find(&self, at: &[u8], kind: RecordType) -> Found<'_> {
        self.pick(at, |set| set.kind == kind)
    }

    /// Something that stands at a name, of whatever type.
    pub fn find_any(&self, at: &[u8]) -> Found<'_> {
        self.pick(at, |_| true)
    }

    fn pick(&self, at: &[u8], wanted: impl Fn(&Set) -> bool) -> Found<'_> {
        let shown = self.shown.get(at);
        let node = self.nodes.get(at).or_else(|| self.wildcard(at));
        let sets = [shown, node]
            .into_iter()
            .flatten()
            .flat_map(|node| &node.sets);
        match sets.into_iter().find(|set| wanted(set)) {
            Some(set) => Found::Set(set),
            None if shown.is_some() || node.is_some() => Found::Nothing,
            None => Found::NoName,
        }
    }

    /// The wildcard that answers for a name that does not exist.
    fn wildcard(&self, at: &[u8]) -> Option<&Node> {
        let encloser = suffixes(at)
            .skip(1)
            .find(|above| self.nodes.contains_key(*above))?;
        self.nodes.get(&beneath(encloser))
    }
}

/// Every zone that is answered for, and when it was made.
#[derive(Debug, Default)]
pub struct Zones {
    /// The deepest first, so that of two that hold a name the closer one is found.
    zones: Vec<Zone>,
}

impl Zones {
    pub fn build(
        settings: &[ZoneSettings],
        challenges: &Challenges,
        serial: u32,
    ) -> Result<Zones, BadZone> {
        let build = |settings| Zone::build(settings, challenges, serial);
        let mut zones: Vec<Zone> = settings.iter().map(build).collect::<Result<_, _>>()?;
        zones.sort_by_key(|zone| std::cmp::Reverse(zone.key.len()));
        for (at, zone) in zones.iter().enumerate() {
            if let Some(other) = zones[..at].iter().find(|other| other.key == zone.key) {
                return Err(BadZone::Twice(
                    other.origin.to_string(),
                    zone.origin.to_string(),
                ));
            }
        }
        Ok(Zones { zones })
    }

    /// The zone that a name is in.
    pub fn of(&self, at: &[u8]) -> Option<&Zone> {
        self.zones.iter().find(|zone| zone.holds(at))
    }
}

/// A whole name from its text, with or without the dot of the root.
pub fn name(text: &str) -> Result<Name, BadZone> {
    let bad = || BadZone::Name(text.to_owned());
    let mut name = Name::from_ascii(text).map_err(|_| bad())?;
    if name.is_root() || text.is_empty() {
        return Err(bad());
    }
    name.set_fqdn(true);
    Ok(name)
}

/// A name as it is looked up.
pub fn key(name: &Name) -> Key {
    let mut key = Vec::with_capacity(WIRE_BYTES);
    for label in name.iter() {
        key.push(label.len() as u8);
        key.extend(label.iter().map(u8::to_ascii_lowercase));
    }
    key.push(0);
    key.into()
}

/// A name, the one above it, and so on up to the root.
fn suffixes(at: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(at);
    std::iter::from_fn(move || {
        let this = rest?;
        let label = usize::from(*this.first()?);
        rest = (label > 0).then(|| this.get(label + 1..)).flatten();
        Some(this)
    })
}

/// The wildcard right beneath a name.
fn beneath(at: &[u8]) -> Key {
    [b"\x01*", at].concat().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(origin: &str, hosts: &[&str]) -> ZoneSettings {
        ZoneSettings {
            origin: origin.to_owned(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            servers: Vec::new(),
            issuers: vec!["ca.test".to_owned()],
        }
    }

    fn find<'z>(zone: &'z Zone, at: &str, kind: RecordType) -> Found<'z> {
        zone.find(&key(&name(at).unwrap()), kind)
    }

    fn word(found: Found<'_>) -> &'static str {
        match found {
            Found::Set(_) => "records",
            Found::Nothing => "nothing",
            Found::NoName => "no name",
        }
    }

    fn challenges(list: &[(&str, &str)]) -> Challenges {
        let mut challenges = Challenges::new();
        for (at, value) in list {
            let values = challenges.entry((*at).to_owned()).or_default();
            values.insert((*value).to_owned());
        }
        challenges
    }

    #[test]
    fn every_kind_of_name_has_its_answer() {
        let settings = settings(
            "example.com",
            &[
                "api.example.com",
                "*.api.example.com",
                "n.containers.example.com",
                "*.n.containers.example.com",
                "elsewhere.example.org",
            ],
        );
        let shown = challenges(&[
            ("_acme-challenge.n.containers.example.com", "one"),
            ("_acme-challenge.n.containers.example.com", "two"),
            ("_acme-challenge.elsewhere.example.org", "no"),
        ]);
        let zone = Zone::build(&settings, &shown, 7).unwrap();
        use RecordType as Type;
        for (at, kind, expected) in [
            ("example.com", Type::SOA, "records"),
            ("example.com", Type::NS, "records"),
            ("example.com", Type::CAA, "records"),
            ("example.com", Type::A, "nothing"),
            ("ns.example.com", Type::AAAA, "records"),
            ("api.example.com", Type::A, "records"),
            ("API.Example.COM", Type::A, "records"),
            ("api.example.com", Type::TXT, "nothing"),
            ("x.api.example.com", Type::A, "records"),
            ("y.x.api.example.com", Type::AAAA, "records"), // the star stands for more than one
            ("*.api.example.com", Type::A, "records"),
            ("containers.example.com", Type::A, "nothing"), // an empty non-terminal
            ("m.containers.example.com", Type::A, "no name"),
            ("n.containers.example.com", Type::A, "records"),
            ("p-c-exec-1.n.containers.example.com", Type::A, "records"),
            ("p-c-exec-1.n.containers.example.com", Type::MX, "nothing"),
            (
                "_acme-challenge.n.containers.example.com",
                Type::TXT,
                "records",
            ),
            ("_acme-challenge.api.example.com", Type::TXT, "nothing"), // by the wildcard
            ("_acme-challenge.example.com", Type::TXT, "no name"),
            ("www.example.com", Type::A, "no name"),
        ] {
            assert_eq!(word(find(&zone, at, kind)), expected, "{at} {kind}");
        }
        let Found::Set(texts) = find(&zone, "_acme-challenge.n.containers.example.com", Type::TXT)
        else {
            panic!("they were put there");
        };
        assert_eq!(texts.data.len(), 2);
        let Found::Set(caa) = find(&zone, "example.com", Type::CAA) else {
            panic!("an issuer was named");
        };
        let RData::CAA(caa) = &caa.data[0] else {
            panic!("it is of its type");
        };
        assert_eq!((caa.tag.as_str(), &*caa.value), ("issue", &b"ca.test"[..]));
        assert!(!zone.holds(&key(&name("example.org").unwrap())));
        assert!(!zone.holds(&key(&name("badexample.com").unwrap())));
    }

    #[test]
    fn the_closer_of_two_zones_answers() {
        let zones = Zones::build(
            &[
                settings("example.com", &["api.example.com"]),
                settings("n.example.com", &["*.n.example.com"]),
            ],
            &Challenges::new(),
            1,
        )
        .unwrap();
        for (at, origin) in [
            ("x.n.example.com", Some("n.example.com.")),
            ("n.example.com", Some("n.example.com.")),
            ("api.example.com", Some("example.com.")),
            ("com", None),
            ("example.net", None),
        ] {
            let zone = zones.of(&key(&name(at).unwrap()));
            assert_eq!(
                zone.map(|zone| zone.origin().to_string()).as_deref(),
                origin,
                "{at}"
            );
        }
    }

    #[test]
    fn bad_zones_are_refused() {
        let mut none = settings("example.com", &[]);
        none.addresses.clear();
        let twice = [settings("a.test", &[]), settings("A.test.", &[])];
        for (settings, words) in [
            (&[none][..], "no addresses"),
            (&[settings("a..b", &[])], "not a name"),
            (&[settings(".", &[])], "not a name"),
            (&[settings("a.test", &["x y.a.test", ""])], "not a name"),
            (&twice, "are the same"),
        ] {
            let error = Zones::build(settings, &Challenges::new(), 1).expect_err(words);
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    fn label() -> impl Strategy<Value = String> {
        prop_oneof![4 => "[ab]", 1 => Just("*".to_owned())]
    }

    fn below() -> impl Strategy<Value = String> {
        proptest::collection::vec(label(), 1..5)
            .prop_map(|labels| format!("{}.z.test", labels.join(".")))
    }

    /// RFC 1034, section 4.3.2, and RFC 4592 in words, over a list of owners.
    fn oracle(owners: &[String], at: &str) -> &'static str {
        let exists = |at: &str| {
            owners
                .iter()
                .any(|owner| owner == at || owner.ends_with(&format!(".{at}")))
        };
        let answer = |at: &str| {
            if owners.iter().any(|owner| owner == at) {
                "records"
            } else {
                "nothing"
            }
        };
        if exists(at) {
            return answer(at);
        }
        let mut encloser = at;
        while !exists(encloser) {
            encloser = encloser.split_once('.').expect("the origin exists").1;
        }
        let wildcard = format!("*.{encloser}");
        if exists(&wildcard) {
            answer(&wildcard)
        } else {
            "no name"
        }
    }

    proptest! {
        #[test]
        fn lookups_agree_with_the_words_of_the_standard(
            hosts in proptest::collection::vec(below(), 0..8),
            asked in below(),
        ) {
            let list: Vec<&str> = hosts.iter().map(String::as_str).collect();
            let zone = Zone::build(&settings("z.test", &list), &Challenges::new(), 1).unwrap();
            let mut owners = hosts.clone();
            owners.push("ns.z.test".to_owned());
            prop_assert_eq!(word(find(&zone, &asked, RecordType::A)), oracle(&owners, &asked));
        }

        #[test]
        fn a_challenge_takes_no_address_away(
            hosts in proptest::collection::vec(below(), 0..6),
            shown in proptest::collection::vec(below(), 0..6),
            asked in below(),
        ) {
            let list: Vec<&str> = hosts.iter().map(String::as_str).collect();
            let settings = settings("z.test", &list);
            let pairs: Vec<(&str, &str)> = shown.iter().map(|at| (at.as_str(), "v")).collect();
            let without = Zone::build(&settings, &Challenges::new(), 1).unwrap();
            let with = Zone::build(&settings, &challenges(&pairs), 1).unwrap();
            let before = find(&without, &asked, RecordType::A);
            let after = find(&with, &asked, RecordType::A);
            match before {
                Found::Set(_) => prop_assert_eq!(before, after),
                // What did not exist may now have something beneath it, and no address.
                _ => prop_assert_ne!(word(after), "records"),
            }
            for at in &shown {
                prop_assert_eq!(word(find(&with, at, RecordType::TXT)), "records");
            }
        }

        #[test]
        fn any_bytes_are_looked_up_without_panic(at in proptest::collection::vec(any::<u8>(), 0..300)) {
            let zone = Zone::build(&settings("z.test", &["*.z.test"]), &Challenges::new(), 1).unwrap();
            zone.find(&at, RecordType::A);
            zone.holds(&at);
        }
    }
}
