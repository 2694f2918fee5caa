//! Who may reach what: the rules of a container or a project, and the decision over them.
//!
//! A [`Policy`] is what one document says. Its [`Group`]s are alternatives: a group is satisfied
//! by any one of its ways in, a way by all of its gates together, and a satisfied group opens the
//! programs that it grants. Who satisfies no group that says something about a program gets what
//! the document says for everybody else. The documents of a container and of its project both
//! have to allow.
//!
//! Everything here is pure: what a request brings is asked of an [`Evidence`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::jwt::Jwt;
use crate::services;

/// Groups of one document.
pub const GROUPS: usize = 64;
/// Ways into one group, and gates of one way.
pub const WAYS: usize = 16;
/// Programs that one group names.
pub const GRANTS: usize = 64;
/// Ranges of indexes or ports that one grant names.
pub const RANGES: usize = 64;
/// Networks of one gate.
pub const NETWORKS: usize = 256;
/// Programs with a default of their own.
pub const SERVICES: usize = 64;
/// A longer credential is refused unread. Basic credentials, tokens and JWTs are far shorter.
pub const CREDENTIAL_BYTES: usize = 8 << 10;

/// What one document, of a container or of a project, says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// False refuses everything, whatever else it says.
    pub enabled: bool,
    /// For who satisfies no group that says something about the program.
    pub default: Rule,
    /// Programs for which another default holds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<Program, Rule>,
    /// In the order of the document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    Allow,
    Deny,
}

/// Somebody, known by how they prove it, and what is open to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub name: String,
    /// Any one of these ways in; of a way, all gates. No way and a way without gates let nobody in.
    pub ways: Vec<Vec<Gate>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub grants: BTreeMap<Program, Reach>,
}

/// The canonical name of a program: a service's slug, `http`, `https`, `ssh`, or `*` for all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Program(String);

/// What stands for every program.
pub const ANY: &str = "*";

impl Program {
    /// Fold a name and its aliases into one. Nothing for a name that is no program.
    pub fn parse(name: &str) -> Option<Program> {
        let name = name.to_ascii_lowercase();
        let known = match name.as_str() {
            ANY | "http" | "https" | "ssh" => name.as_str(),
            "tty" | "ttyd" | "t" => "terminal",
            "d" => "display",
            "w" => "watch",
            "notification" => "n",
            "f" => "files",
            "e" => "exec",
            "b" => "browser",
            "log" | "l" => "logs",
            "note" => "notes",
            other => services::find(other)?.slug,
        };
        Some(Program(known.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which instances of a program: its indexes, or the ports of `http` and `https`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    All,
    None,
    /// Ranges with both ends in them.
    Only(Vec<(u32, u32)>),
}

impl Reach {
    pub fn contains(&self, instance: u32) -> bool {
        match self {
            Reach::All => true,
            Reach::None => false,
            Reach::Only(ranges) => ranges
                .iter()
                .any(|&(first, last)| (first..=last).contains(&instance)),
        }
    }
}

/// One thing to prove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// HTTP Basic (RFC 7617).
    Password(Password),
    /// A value that both sides know.
    Token(Token),
    Jwt(Box<Jwt>),
    /// To come from one of these networks.
    Ip(Vec<IpNet>),
}

/// A user name and the hash of a password: `SHA-256(salt ‖ password)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Password {
    pub username: String,
    pub salt: String,
    pub hash: Digest,
}

impl Password {
    /// From a password in clear, or from its salted hash as 64 lower-case hexadecimal digits.
    pub fn new(username: &str, salt: &str, given: &str) -> Password {
        let hash = given
            .parse()
            .unwrap_or_else(|_| Digest::of(&[salt.as_bytes(), given.as_bytes()]));
        Password {
            username: username.to_owned(),
            salt: salt.to_owned(),
            hash,
        }
    }

    /// Takes the same time whichever of the two is wrong.
    fn admits(&self, username: &str, password: &str) -> bool {
        let user =
            Digest::of(&[username.as_bytes()]).equals(&Digest::of(&[self.username.as_bytes()]));
        let pass = Digest::of(&[self.salt.as_bytes(), password.as_bytes()]).equals(&self.hash);
        user & pass
    }
}

/// A shared value, of which only the digest is kept, and where it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub carrier: Carrier,
    pub digest: Digest,
}

impl Token {
    pub fn new(carrier: Carrier, value: &str) -> Token {
        Token {
            carrier,
            digest: Digest::of(&[value.as_bytes()]),
        }
    }

    fn admits(&self, value: &str) -> bool {
        let whole = Digest::of(&[value.as_bytes()]).equals(&self.digest);
        // `Authorization: Bearer <value>`, where only the value was configured.
        let bearer = self.carrier.is_authorization()
            && bearer(value)
                .is_some_and(|value| Digest::of(&[value.as_bytes()]).equals(&self.digest));
        whole | bearer
    }
}

/// What follows the scheme of a Bearer credential (RFC 6750).
pub(crate) fn bearer(value: &str) -> Option<&str> {
    let (scheme, rest) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
}

/// The place in a request that carries a credential. Header names are in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    Header(String),
    Cookie(String),
    /// A parameter of the query.
    Param(String),
}

/// Not the name of a place that can carry a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a source is header:NAME, cookie:NAME or param:NAME, with a name of the letters that HTTP allows there"
)]
pub struct NotACarrier;

impl Carrier {
    pub const AUTHORIZATION: &str = "authorization";
    /// Headers that say how a message is read or where it goes, or that are the proxy's own: to
    /// take one of them away would change the request.
    const TAKEN: &[&str] = &[
        "host",
        "cookie",
        "connection",
        "upgrade",
        "transfer-encoding",
        "content-length",
        "te",
        "trailer",
        "keep-alive",
        "expect",
        "forwarded",
        "origin",
        "x-real-ip",
    ];

    pub fn header(name: &str) -> Result<Carrier, NotACarrier> {
        let name = name.to_ascii_lowercase();
        let taken = Self::TAKEN.contains(&name.as_str())
            || ["x-hoody-edge-", "x-forwarded-", "sec-", "proxy-"]
                .iter()
                .any(|ours| name.starts_with(ours));
        if taken || !is_token(&name) {
            return Err(NotACarrier);
        }
        Ok(Carrier::Header(name))
    }

    pub fn cookie(name: &str) -> Result<Carrier, NotACarrier> {
        is_token(name)
            .then(|| Carrier::Cookie(name.to_owned()))
            .ok_or(NotACarrier)
    }

    pub fn param(name: &str) -> Result<Carrier, NotACarrier> {
        // Names that mean the same with and without escapes.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        let fits = !name.is_empty() && name.len() <= 128 && name.bytes().all(plain);
        fits.then(|| Carrier::Param(name.to_owned()))
            .ok_or(NotACarrier)
    }

    pub fn authorization() -> Carrier {
        Carrier::Header(Self::AUTHORIZATION.to_owned())
    }

    pub fn is_authorization(&self) -> bool {
        matches!(self, Carrier::Header(name) if name == Self::AUTHORIZATION)
    }
}

/// A token of HTTP (RFC 9110, section 5.6.2).
fn is_token(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.len() <= 128 && name.bytes().all(fits)
}

impl FromStr for Carrier {
    type Err = NotACarrier;

    /// `header:Name`, `cookie:Name` or `param:Name`.
    fn from_str(text: &str) -> Result<Carrier, NotACarrier> {
        match text.split_once(':') {
            Some(("header", name)) => Carrier::header(name),
            Some(("cookie", name)) => Carrier::cookie(name),
            Some(("param", name)) => Carrier::param(name),
            _ => Err(NotACarrier),
        }
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Carrier::Header(name) => write!(f, "header:{name}"),
            Carrier::Cookie(name) => write!(f, "cookie:{name}"),
            Carrier::Param(name) => write!(f, "param:{name}"),
        }
    }
}

impl Serialize for Carrier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Carrier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Carrier, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// A SHA-256 digest, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 64 lower-case hexadecimal digits")]
pub struct NotADigest;

impl Digest {
    /// Of these parts, one after the other.
    pub fn of(parts: &[&[u8]]) -> Digest {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update(part);
        }
        Digest(hasher.finalize().into())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes the same time whatever differs.
    fn equals(&self, other: &Digest) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a secret was made from is not for logs.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

impl FromStr for Digest {
    type Err = NotADigest;
    fn from_str(text: &str) -> Result<Digest, NotADigest> {
        let mut digest = [0; 32];
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        match lower && hex::decode_to_slice(text, &mut digest).is_ok() {
            true => Ok(Digest(digest)),
            false => Err(NotADigest),
        }
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Names a gate by all that it asks for: a gate that changes is another gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 12]);

impl Gate {
    pub fn fingerprint(&self) -> Fingerprint {
        // The length of what comes first tells where the second begins.
        let digest = match self {
            Gate::Password(gate) => Digest::of(&[
                b"password",
                &gate.username.len().to_be_bytes(),
                gate.username.as_bytes(),
                &gate.hash.0,
                gate.salt.as_bytes(),
            ]),
            Gate::Token(gate) => Digest::of(&[
                b"token",
                &gate.digest.0,
                gate.carrier.to_string().as_bytes(),
            ]),
            Gate::Jwt(gate) => gate.digest(),
            Gate::Ip(networks) => {
                let networks = serde_json::to_vec(networks).expect("networks are JSON");
                Digest::of(&[b"ip", &networks])
            }
        };
        Fingerprint(std::array::from_fn(|at| digest.0[at]))
    }

    /// How it is asked for; nothing for what nobody can bring.
    fn scheme(&self) -> Option<Scheme> {
        match self {
            Gate::Password(_) => Some(Scheme::Password),
            Gate::Token(_) | Gate::Jwt(_) => Some(Scheme::Token),
            Gate::Ip(_) => None,
        }
    }
}

// ---- what a request brings

/// What a request brings to prove who sent it.
pub trait Evidence {
    /// Where it comes from.
    fn address(&self) -> IpAddr;
    /// Seconds since 1970.
    fn now(&self) -> u64;
    /// The value of the only header of this name, in lower case.
    fn header(&self, name: &str) -> Option<&str>;
    /// The value of the only cookie of this name.
    fn cookie(&self, name: &str) -> Option<&str>;
    /// The value of the only query parameter of this name.
    fn param(&self, name: &str) -> Option<Cow<'_, str>>;
    /// A credential that is not where its gate reads it: in the form of a sign-in, or in the
    /// parameter that stands in where no header can be set.
    fn offer(&self) -> Option<Offer<'_>>;
    /// What was proved before, with the name that was used.
    fn proved(&self, gate: Fingerprint) -> Option<Option<&str>>;
    /// The id of the signed link that it was made with, where that is good for this request.
    fn link(&self) -> Option<&str>;
}

/// A credential outside of its usual place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer<'a> {
    Password {
        username: &'a str,
        password: &'a str,
    },
    /// A token or a JWT.
    Value(&'a str),
}

// ---- what comes out

/// What is to become of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Allow(Admission),
    Challenge(Challenge),
    Deny(Denial),
}

/// The right to pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    /// Who passes; nothing where everybody may.
    pub identity: Option<Identity>,
    /// Where the credentials are that were meant for the edge and go no further.
    pub consumed: Vec<Carrier>,
    /// What was proved, for a session to remember. Addresses are looked at every time.
    pub proofs: Vec<Proof>,
    /// Whether something that was proved before has opened a gate.
    pub remembered: bool,
    /// Whether an [`Offer`] has.
    pub offered: bool,
    /// Whether a credential that came with this request has.
    pub fresh: bool,
    /// When the credential ends, in seconds since 1970.
    pub until: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    pub gate: Fingerprint,
    pub user: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The group; empty for a link.
    pub group: String,
    pub method: Method,
    /// The user name, the subject of a JWT, or the id of a link.
    pub user: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Password,
    Token,
    Jwt,
    Ip,
    Link,
}

impl Method {
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Password => "password",
            Method::Token => "token",
            Method::Jwt => "jwt",
            Method::Ip => "ip",
            Method::Link => "link",
        }
    }
}

/// What could open it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Challenge {
    pub password: bool,
    /// A token or a JWT.
    pub token: bool,
    /// Whether it brought a credential that did not open what it was tried on.
    pub wrong: bool,
    /// Whether it brought one that opened something, which was not enough.
    pub fresh: bool,
    /// What is proved so far.
    pub proofs: Vec<Proof>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// Cut off by a document that is not enabled.
    Disabled,
    /// The rules say no, and no credential would change that.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Password,
    Token,
}

/// Whether the documents leave the container reachable at all. A container whose own document is
/// enabled is not cut off by its project's.
pub fn enabled(project: Option<&Policy>, container: Option<&Policy>) -> bool {
    match (container, project) {
        (Some(container), _) => container.enabled,
        (None, Some(project)) => project.enabled,
        (None, None) => true,
    }
}

/// Decide about a request for an instance of a program: an index, or a port of `http` and
/// `https`.
pub fn decide(
    project: Option<&Policy>,
    container: Option<&Policy>,
    program: &str,
    instance: u32,
    evidence: &dyn Evidence,
) -> Decision {
    if !enabled(project, container) {
        return Decision::Deny(Denial::Disabled);
    }
    if let Some(link) = evidence.link() {
        return Decision::Allow(Admission {
            identity: Some(Identity {
                group: String::new(),
                method: Method::Link,
                user: Some(link.to_owned()),
            }),
            ..Admission::default()
        });
    }
    let mut all = Admission::default();
    let mut asked: Option<Challenge> = None;
    // The container's identity is told rather than its project's.
    for policy in [container, project].into_iter().flatten() {
        match policy.decide(program, instance, evidence) {
            Decision::Allow(one) => all.join(one),
            Decision::Challenge(one) => asked.get_or_insert_default().join(one),
            Decision::Deny(denial) => return Decision::Deny(denial),
        }
    }
    match asked {
        Some(mut challenge) => {
            challenge.fresh |= all.fresh;
            challenge.remember(all.proofs);
            Decision::Challenge(challenge)
        }
        None => Decision::Allow(all),
    }
}

impl Admission {
    fn join(&mut self, other: Admission) {
        self.identity = self.identity.take().or(other.identity);
        for carrier in other.consumed {
            if !self.consumed.contains(&carrier) {
                self.consumed.push(carrier);
            }
        }
        for proof in other.proofs {
            if !self.proofs.contains(&proof) {
                self.proofs.push(proof);
            }
        }
        self.remembered |= other.remembered;
        self.offered |= other.offered;
        self.fresh |= other.fresh;
        self.until = match (self.until, other.until) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

impl Challenge {
    fn join(&mut self, other: Challenge) {
        self.password |= other.password;
        self.token |= other.token;
        self.wrong |= other.wrong;
        self.fresh |= other.fresh;
        self.remember(other.proofs);
    }

    fn remember(&mut self, proofs: Vec<Proof>) {
        for proof in proofs {
            if !self.proofs.contains(&proof) {
                self.proofs.push(proof);
            }
        }
    }
}

impl Policy {
    /// One that lets everybody in.
    pub fn open() -> Policy {
        Policy {
            enabled: true,
            default: Rule::Allow,
            services: BTreeMap::new(),
            groups: Vec::new(),
        }
    }

    fn rule(&self, program: &str) -> Rule {
        // The map is small, and a program's name need not be allocated to be found.
        let of = |name: &str| {
            let mut services = self.services.iter();
            services.find_map(|(program, rule)| (program.as_str() == name).then_some(*rule))
        };
        of(program).or_else(|| of(ANY)).unwrap_or(self.default)
    }

    /// What this document says alone, whether enabled or not.
    fn decide(&self, program: &str, instance: u32, evidence: &dyn Evidence) -> Decision {
        let rule = self.rule(program);
        let mut withheld = false;
        let mut guarded = false;
        let mut challenge = Challenge::default();
        for group in &self.groups {
            let Some(reach) = group.reach(program) else {
                continue;
            };
            let granted = reach.contains(instance);
            match group.satisfied(evidence) {
                Satisfied::Yes(admission) if granted => return Decision::Allow(admission),
                Satisfied::Yes(_) => withheld = true,
                Satisfied::No { asked, guarded: by } if granted => {
                    challenge.join(asked);
                    guarded |= by;
                }
                Satisfied::No { .. } => {}
            }
        }
        // A password on a program is asked for whatever holds for everybody else.
        let asks = match rule {
            Rule::Deny => challenge.password || challenge.token,
            Rule::Allow => guarded,
        };
        match (asks, rule) {
            (true, _) => Decision::Challenge(challenge),
            (false, Rule::Allow) if !withheld => Decision::Allow(Admission::default()),
            (false, _) => Decision::Deny(Denial::Refused),
        }
    }
}

enum Satisfied {
    Yes(Admission),
    No {
        /// What could change that.
        asked: Challenge,
        /// Whether a password is part of it.
        guarded: bool,
    },
}

impl Group {
    /// What it says about a program; nothing where it says nothing.
    fn reach(&self, program: &str) -> Option<&Reach> {
        let of = |name: &str| {
            let mut grants = self.grants.iter();
            grants.find_map(|(program, reach)| (program.as_str() == name).then_some(reach))
        };
        of(program).or_else(|| of(ANY))
    }

    fn satisfied(&self, evidence: &dyn Evidence) -> Satisfied {
        let mut asked = Challenge::default();
        let mut guarded = false;
        for way in &self.ways {
            let mut all = Admission::default();
            let mut missing = Challenge::default();
            let mut open = !way.is_empty();
            let mut hopeless = way.is_empty();
            for gate in way {
                match gate.open(evidence) {
                    Opened::Yes(mut one) => {
                        if let Some(identity) = &mut one.identity {
                            identity.group.clone_from(&self.name);
                        }
                        // A name says more than an address.
                        let told = |it: &Identity| it.method != Method::Ip;
                        if one.identity.as_ref().is_some_and(told)
                            && all.identity.as_ref().is_some_and(|it| !told(it))
                        {
                            all.identity = None;
                        }
                        all.join(one);
                    }
                    Opened::No { wrong } => {
                        open = false;
                        match gate.scheme() {
                            Some(Scheme::Password) => missing.password = true,
                            Some(Scheme::Token) => missing.token = true,
                            None => hopeless = true,
                        }
                        missing.wrong |= wrong;
                    }
                }
            }
            if open {
                return Satisfied::Yes(all);
            }
            if !hopeless {
                missing.fresh |= all.fresh;
                missing.remember(all.proofs);
                asked.join(missing);
                guarded |= way.iter().any(|gate| matches!(gate, Gate::Password(_)));
            }
        }
        Satisfied::No { asked, guarded }
    }
}

enum Opened {
    Yes(Admission),
    No { wrong: bool },
}

impl Gate {
    fn open(&self, evidence: &dyn Evidence) -> Opened {
        let shut = |wrong| Opened::No { wrong };
        let passed = |method, user: Option<String>| Admission {
            identity: Some(Identity {
                group: String::new(),
                method,
                user,
            }),
            ..Admission::default()
        };
        let method = match self {
            Gate::Ip(networks) => {
                let address = evidence.address().to_canonical();
                return match networks.iter().any(|network| network.contains(&address)) {
                    true => Opened::Yes(passed(Method::Ip, None)),
                    false => shut(false),
                };
            }
            Gate::Password(_) => Method::Password,
            Gate::Token(_) => Method::Token,
            Gate::Jwt(_) => Method::Jwt,
        };
        let fingerprint = self.fingerprint();
        let proved =
            |user: Option<String>, carrier: Option<Carrier>, until: Option<u64>| Admission {
                proofs: vec![Proof {
                    gate: fingerprint,
                    user: user.clone(),
                }],
                offered: carrier.is_none(),
                fresh: true,
                consumed: Vec::from_iter(carrier),
                until,
                ..passed(method, user)
            };
        let mut wrong = false;
        match self {
            Gate::Password(gate) => {
                let authorization = evidence.header(Carrier::AUTHORIZATION);
                if let Some((username, password)) = authorization.and_then(basic) {
                    if gate.admits(&username, &password) {
                        let carrier = Some(Carrier::authorization());
                        return Opened::Yes(proved(Some(username), carrier, None));
                    }
                    wrong = true;
                }
                if let Some(Offer::Password { username, password }) = evidence.offer() {
                    if gate.admits(username, password) {
                        return Opened::Yes(proved(Some(username.to_owned()), None, None));
                    }
                    wrong = true;
                }
            }
            Gate::Token(gate) => {
                if let Some(value) = read(evidence, &gate.carrier) {
                    if value.len() <= CREDENTIAL_BYTES && gate.admits(&value) {
                        return Opened::Yes(proved(None, Some(gate.carrier.clone()), None));
                    }
                    wrong = true;
                }
                if let Some(Offer::Value(value)) = evidence.offer() {
                    if value.len() <= CREDENTIAL_BYTES && gate.admits(value) {
                        return Opened::Yes(proved(None, None, None));
                    }
                    wrong = true;
                }
            }
            Gate::Jwt(gate) => {
                let now = evidence.now();
                for carrier in &gate.sources {
                    let Some(value) = read(evidence, carrier) else {
                        continue;
                    };
                    let value = match carrier.is_authorization() {
                        true => bearer(&value),
                        false => Some(&*value),
                    };
                    // Another scheme of Authorization is another credential.
                    let Some(value) = value else { continue };
                    if let Ok(token) = gate.verify(value, now) {
                        let carrier = Some(carrier.clone());
                        return Opened::Yes(proved(token.subject, carrier, token.expires));
                    }
                    wrong = true;
                }
                if let Some(Offer::Value(value)) = evidence.offer() {
                    if let Ok(token) = gate.verify(value, now) {
                        return Opened::Yes(proved(token.subject, None, token.expires));
                    }
                    wrong = true;
                }
            }
            Gate::Ip(_) => {}
        }
        match evidence.proved(fingerprint) {
            Some(user) => Opened::Yes(Admission {
                remembered: true,
                // A session that is renewed keeps it.
                proofs: vec![Proof {
                    gate: fingerprint,
                    user: user.map(str::to_owned),
                }],
                ..passed(method, user.map(str::to_owned))
            }),
            None => shut(wrong),
        }
    }
}

fn read<'a>(evidence: &'a dyn Evidence, carrier: &Carrier) -> Option<Cow<'a, str>> {
    match carrier {
        Carrier::Header(name) => evidence.header(name).map(Cow::Borrowed),
        Carrier::Cookie(name) => evidence.cookie(name).map(Cow::Borrowed),
        Carrier::Param(name) => evidence.param(name),
    }
}

/// The user name and password of a Basic credential.
pub fn basic(value: &str) -> Option<(String, String)> {
    if value.len() > CREDENTIAL_BYTES {
        return None;
    }
    let (scheme, coded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(coded.trim()).ok()?).ok()?;
    let (username, password) = pair.split_once(':')?;
    Some((username.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Brought {
        address: Option<&'static str>,
        headers: HashMap<&'static str, String>,
        cookies: HashMap<&'static str, String>,
        params: HashMap<&'static str, String>,
        offer: Option<(Option<&'static str>, &'static str)>,
        proved: Vec<Fingerprint>,
        link: Option<&'static str>,
    }

    impl Evidence for Brought {
        fn address(&self) -> IpAddr {
            let address = self.address.unwrap_or("203.0.113.9");
            address.parse().expect("an address")
        }
        fn now(&self) -> u64 {
            1_800_000_000
        }
        fn header(&self, name: &str) -> Option<&str> {
            self.headers.get(name).map(String::as_str)
        }
        fn cookie(&self, name: &str) -> Option<&str> {
            self.cookies.get(name).map(String::as_str)
        }
        fn param(&self, name: &str) -> Option<Cow<'_, str>> {
            self.params.get(name).map(|it| it.as_str().into())
        }
        fn offer(&self) -> Option<Offer<'_>> {
            self.offer.map(|(username, secret)| match username {
                Some(username) => Offer::Password {
                    username,
                    password: secret,
                },
                None => Offer::Value(secret),
            })
        }
        fn proved(&self, gate: Fingerprint) -> Option<Option<&str>> {
            self.proved.contains(&gate).then_some(Some("remembered"))
        }
        fn link(&self) -> Option<&str> {
            self.link
        }
    }

    fn with_basic(user: &str, password: &str) -> Brought {
        let coded = STANDARD.encode(format!("{user}:{password}"));
        with_header("authorization", format!("Basic {coded}"))
    }

    fn with_header(name: &'static str, value: impl Into<String>) -> Brought {
        Brought {
            headers: [(name, value.into())].into(),
            ..Brought::default()
        }
    }

    fn from(address: &'static str) -> Brought {
        Brought {
            address: Some(address),
            ..Brought::default()
        }
    }

    fn password() -> Gate {
        Gate::Password(Password::new("ann", "salt", "secret"))
    }

    fn token(carrier: &str) -> Gate {
        Gate::Token(Token::new(carrier.parse().expect("a carrier"), "t0ken"))
    }

    fn ip(networks: &[&str]) -> Gate {
        let networks = networks.iter().map(|it| it.parse().expect("a network"));
        Gate::Ip(networks.collect())
    }

    fn group(name: &str, ways: Vec<Vec<Gate>>, grants: &[(&str, Reach)]) -> Group {
        let grants = grants
            .iter()
            .map(|(name, reach)| (Program::parse(name).expect("a program"), reach.clone()));
        Group {
            name: name.to_owned(),
            ways,
            grants: grants.collect(),
        }
    }

    fn policy(default: Rule, groups: Vec<Group>) -> Policy {
        Policy {
            default,
            groups,
            ..Policy::open()
        }
    }

    fn all(program: &str) -> [(&str, Reach); 1] {
        [(program, Reach::All)]
    }

    fn on(policy: &Policy, program: &str, instance: u32, brought: &Brought) -> String {
        shown(&decide(None, Some(policy), program, instance, brought))
    }

    fn shown(decision: &Decision) -> String {
        match decision {
            Decision::Allow(admission) => match &admission.identity {
                Some(identity) => format!(
                    "{} by {} as {}",
                    identity.group,
                    identity.method.as_str(),
                    identity.user.as_deref().unwrap_or("-")
                ),
                None => "anybody".into(),
            },
            Decision::Challenge(challenge) => {
                let mut asked = String::from("asked");
                for (is, name) in [
                    (challenge.password, " password"),
                    (challenge.token, " token"),
                    (challenge.wrong, " again"),
                    (challenge.fresh, " more"),
                ] {
                    asked.push_str(if is { name } else { "" });
                }
                asked
            }
            Decision::Deny(Denial::Disabled) => "cut off".into(),
            Decision::Deny(Denial::Refused) => "refused".into(),
        }
    }

    #[test]
    fn groups_are_alternatives_and_the_rest_is_the_default() {
        let policy = policy(
            Rule::Deny,
            vec![
                group("people", vec![vec![password()]], &all("terminal")),
                group(
                    "robots",
                    vec![vec![token("header:x-key")]],
                    &[
                        ("files", Reach::All),
                        ("http", Reach::Only(vec![(8_000, 8_999), (3_000, 3_000)])),
                    ],
                ),
                group(
                    "office",
                    vec![vec![ip(&["192.0.2.0/24", "2001:db8::/32"])]],
                    &[("*", Reach::All), ("sqlite", Reach::None)],
                ),
            ],
        );
        let key = || with_header("x-key", "t0ken");
        for (brought, program, instance, expected) in [
            (
                with_basic("ann", "secret"),
                "terminal",
                1,
                "people by password as ann",
            ),
            (
                with_basic("ann", "wrong"),
                "terminal",
                1,
                "asked password again",
            ),
            (
                with_basic("bob", "secret"),
                "terminal",
                1,
                "asked password again",
            ),
            (with_basic("ann", "secret"), "files", 1, "asked token"),
            (Brought::default(), "terminal", 1, "asked password"),
            (key(), "files", 1, "robots by token as -"),
            (key(), "http", 8_080, "robots by token as -"),
            (key(), "http", 3_000, "robots by token as -"),
            // It is somebody, whose ports end there.
            (key(), "http", 9_000, "refused"),
            (
                with_header("x-key", "t0ken "),
                "files",
                1,
                "asked token again",
            ),
            (
                with_header("x-key", "wrong"),
                "files",
                1,
                "asked token again",
            ),
            (key(), "cron", 1, "refused"),
            (from("192.0.2.200"), "terminal", 1, "office by ip as -"),
            (from("::ffff:192.0.2.200"), "cron", 1, "office by ip as -"),
            (from("2001:db8:1::5"), "http", 1, "office by ip as -"),
            (from("2001:db9::5"), "cron", 1, "refused"),
            (from("192.0.3.1"), "cron", 1, "refused"),
            // An entry of its own holds before the one for all.
            (from("192.0.2.200"), "sqlite", 1, "refused"),
        ] {
            assert_eq!(
                on(&policy, program, instance, &brought),
                expected,
                "{program}-{instance}"
            );
        }
        // The first group of the document that lets in.
        let mut both = with_basic("ann", "secret");
        both.address = Some("192.0.2.1");
        assert_eq!(
            on(&policy, "terminal", 1, &both),
            "people by password as ann"
        );
    }

    #[test]
    fn a_default_to_allow_still_asks_for_a_password() {
        let policy = policy(
            Rule::Allow,
            vec![
                group("people", vec![vec![password()]], &all("terminal")),
                group(
                    "robots",
                    vec![vec![token("header:x-key")]],
                    &[("files", Reach::All), ("cron", Reach::None)],
                ),
            ],
        );
        for (brought, program, expected) in [
            (Brought::default(), "terminal", "asked password"),
            (
                with_header("authorization", "Bearer app"),
                "terminal",
                "asked password",
            ),
            (
                with_basic("ann", "wrong"),
                "terminal",
                "asked password again",
            ),
            (
                with_basic("ann", "secret"),
                "terminal",
                "people by password as ann",
            ),
            (Brought::default(), "files", "anybody"),
            (with_header("x-key", "wrong"), "files", "anybody"),
            (
                with_header("x-key", "t0ken"),
                "files",
                "robots by token as -",
            ),
            (Brought::default(), "cron", "anybody"),
            (with_header("x-key", "t0ken"), "cron", "refused"),
            (with_basic("ann", "secret"), "http", "anybody"),
        ] {
            assert_eq!(on(&policy, program, 1, &brought), expected, "{program}");
        }
    }

    #[test]
    fn programs_may_have_defaults_of_their_own() {
        let named = |name: &str| Program::parse(name).expect("a program");
        let mut rules = policy(Rule::Deny, vec![]);
        rules.services.insert(named("notifications"), Rule::Allow);
        assert_eq!(on(&rules, "n", 1, &Brought::default()), "anybody");
        assert_eq!(on(&rules, "files", 1, &Brought::default()), "refused");
        rules.default = Rule::Allow;
        rules.services.insert(named("*"), Rule::Deny);
        assert_eq!(on(&rules, "n", 1, &Brought::default()), "anybody");
        assert_eq!(on(&rules, "files", 1, &Brought::default()), "refused");
    }

    #[test]
    fn gates_of_one_way_are_needed_together() {
        let inside = || ip(&["192.0.2.0/24"]);
        let ways = vec![
            vec![inside(), password()],
            vec![password(), token("header:x-key")],
        ];
        let policy = policy(Rule::Deny, vec![group("g", ways, &all("*"))]);
        let brought = |address, mut brought: Brought| {
            brought.address = Some(address);
            brought
        };
        let both = || {
            let mut both = with_basic("ann", "secret");
            both.headers.insert("x-key", "t0ken".into());
            both
        };
        for (brought, expected) in [
            (
                brought("192.0.2.1", with_basic("ann", "secret")),
                "g by password as ann",
            ),
            (
                brought("198.51.100.1", with_basic("ann", "secret")),
                "asked token more",
            ),
            (brought("198.51.100.1", both()), "g by password as ann"),
            (
                brought("192.0.2.1", with_header("x-key", "t0ken")),
                "asked password more",
            ),
            (
                brought("192.0.2.1", Brought::default()),
                "asked password token",
            ),
        ] {
            assert_eq!(on(&policy, "cron", 1, &brought), expected);
        }
        // What no credential can open is not asked for.
        let ways = vec![vec![inside(), password()]];
        let policy = self::policy(Rule::Deny, vec![group("g", ways, &all("*"))]);
        let outside = brought("198.51.100.1", with_basic("ann", "secret"));
        assert_eq!(on(&policy, "cron", 1, &outside), "refused");
        for nothing in [vec![], vec![vec![]]] {
            let policy = self::policy(Rule::Deny, vec![group("g", nothing, &all("*"))]);
            assert_eq!(on(&policy, "cron", 1, &Brought::default()), "refused");
        }
    }

    #[test]
    fn a_project_and_its_container_both_have_to_allow() {
        let container = policy(
            Rule::Deny,
            vec![group("people", vec![vec![password()]], &all("*"))],
        );
        let project = policy(
            Rule::Deny,
            vec![group(
                "robots",
                vec![vec![token("header:x-key")]],
                &all("*"),
            )],
        );
        let ask = |project: &Policy, container: &Policy, brought: &Brought| {
            shown(&decide(Some(project), Some(container), "cron", 1, brought))
        };
        let key = with_header("x-key", "t0ken");
        let basic = with_basic("ann", "secret");
        let mut both = with_basic("ann", "secret");
        both.headers.insert("x-key", "t0ken".into());
        assert_eq!(
            ask(&project, &container, &both),
            "people by password as ann"
        );
        assert_eq!(ask(&project, &container, &basic), "asked token more");
        assert_eq!(ask(&project, &container, &key), "asked password more");
        assert_eq!(
            ask(&project, &container, &Brought::default()),
            "asked password token"
        );
        assert_eq!(
            ask(&policy(Rule::Deny, vec![]), &container, &basic),
            "refused"
        );
        assert_eq!(
            shown(&decide(Some(&project), None, "cron", 1, &key)),
            "robots by token as -"
        );
        assert_eq!(shown(&decide(None, None, "cron", 1, &key)), "anybody");
        let Decision::Allow(admission) = decide(Some(&project), Some(&container), "cron", 1, &both)
        else {
            panic!("it was allowed");
        };
        let consumed = [Carrier::authorization(), Carrier::Header("x-key".into())];
        assert_eq!(admission.consumed, consumed);
        assert_eq!(admission.proofs.len(), 2);
    }

    #[test]
    fn what_is_not_enabled_is_cut_off() {
        let off = Policy {
            enabled: false,
            ..Policy::open()
        };
        let on = Policy::open();
        let link = Brought {
            link: Some("l"),
            ..Brought::default()
        };
        for (project, container, expected) in [
            (Some(&off), None, "cut off"),
            (Some(&off), Some(&off), "cut off"),
            (Some(&on), Some(&off), "cut off"),
            (None, Some(&off), "cut off"),
            // Its own document says that it is reachable.
            (Some(&off), Some(&on), "anybody"),
        ] {
            assert_eq!(
                shown(&decide(project, container, "cron", 1, &Brought::default())),
                expected
            );
            let by_link = if expected == "cut off" {
                expected
            } else {
                " by link as l"
            };
            assert_eq!(
                shown(&decide(project, container, "cron", 1, &link)),
                by_link
            );
        }
        let shut = policy(Rule::Deny, vec![]);
        assert_eq!(self::on(&shut, "cron", 1, &link), " by link as l");
    }

    #[test]
    fn only_what_opened_a_gate_is_kept_back() {
        let gates = |gate: Gate| policy(Rule::Deny, vec![group("g", vec![vec![gate]], &all("*"))]);
        let consumed = |gate: Gate, brought: &Brought| match decide(
            None,
            Some(&gates(gate)),
            "cron",
            1,
            brought,
        ) {
            Decision::Allow(admission) => (admission.consumed, admission.offered),
            other => panic!("{other:?}"),
        };
        let cookie = Brought {
            cookies: [("key", "t0ken".to_owned())].into(),
            ..Brought::default()
        };
        assert_eq!(
            consumed(token("cookie:key"), &cookie),
            (vec![Carrier::Cookie("key".into())], false)
        );
        let param = Brought {
            params: [("key", "t0ken".to_owned())].into(),
            ..Brought::default()
        };
        assert_eq!(
            consumed(token("param:key"), &param),
            (vec![Carrier::Param("key".into())], false)
        );
        for value in ["t0ken", "Bearer t0ken", "bearer  t0ken"] {
            let brought = with_header("authorization", value);
            let taken = consumed(token("header:Authorization"), &brought);
            assert_eq!(taken, (vec![Carrier::authorization()], false));
        }
        let offered = Brought {
            offer: Some((None, "t0ken")),
            ..with_header("x-key", "app's own")
        };
        assert_eq!(consumed(token("header:x-key"), &offered), (vec![], true));
        let offered = Brought {
            offer: Some((Some("ann"), "secret")),
            ..with_header("authorization", "Bearer app")
        };
        assert_eq!(consumed(password(), &offered), (vec![], true));
        // A session opens it, and the app's credential goes on.
        let session = Brought {
            proved: vec![password().fingerprint()],
            ..with_header("authorization", "Bearer app")
        };
        assert_eq!(consumed(password(), &session), (vec![], false));
    }

    #[test]
    fn a_gate_that_changes_is_another_gate() {
        let before = password().fingerprint();
        assert_eq!(before, password().fingerprint());
        let jwt = |claims: &str| {
            let text = format!(
                r#"{{"jwt":{{"alg":"HS256","key":"k","sources":["header:authorization"],"claims":{claims}}}}}"#
            );
            serde_json::from_str::<Gate>(&text)
                .expect("a gate")
                .fingerprint()
        };
        assert_eq!(jwt("{}"), jwt("{}"));
        assert_ne!(jwt("{}"), jwt(r#"{"sub":"ann"}"#));
        for other in [
            Gate::Password(Password::new("ann", "salt", "other")),
            Gate::Password(Password::new("ann", "other", "secret")),
            Gate::Password(Password::new("bob", "salt", "secret")),
            token("header:x"),
        ] {
            assert_ne!(before, other.fingerprint());
        }
        let rules = policy(
            Rule::Deny,
            vec![group(
                "g",
                vec![vec![Gate::Password(Password::new("ann", "salt", "other"))]],
                &all("*"),
            )],
        );
        let session = Brought {
            proved: vec![before],
            ..Brought::default()
        };
        assert_eq!(on(&rules, "cron", 1, &session), "asked password");
    }

    #[test]
    fn a_password_may_come_hashed() {
        let hash = Digest::of(&[b"salt", b"secret"]).to_string();
        assert_eq!(hash.len(), 64);
        assert_eq!(
            Password::new("ann", "salt", &hash),
            Password::new("ann", "salt", "secret")
        );
        assert!(
            Password::new("ann", "salt", &hash.to_uppercase())
                != Password::new("ann", "salt", "secret")
        );
        // Computed with sha256sum.
        assert_eq!(
            Password::new("u", "pepper", "hunter2").hash.to_string(),
            "ca458f67a1e64e60f40414c062c57abbfc1d41b5d0c30cd07d12704540067f21"
        );
        let shown = format!("{:?}", Password::new("ann", "salt", "secret"));
        assert!(!shown.contains(&hash), "{shown}");
    }

    #[test]
    fn names_of_programs_and_carriers_are_folded_or_refused() {
        for (name, slug) in [
            ("Files", Some("files")),
            ("notifications", Some("n")),
            ("workspaces", Some("agent")),
            ("proxylogs", Some("logs")),
            ("tty", Some("terminal")),
            ("*", Some("*")),
            ("HTTPS", Some("https")),
            ("web", None),
            ("", None),
            ("desktop", None),
        ] {
            assert_eq!(
                Program::parse(name).as_ref().map(Program::as_str),
                slug,
                "{name}"
            );
        }
        for (text, shown) in [
            ("header:X-Key", Some("header:x-key")),
            ("cookie:Key", Some("cookie:Key")),
            ("param:a_b", Some("param:a_b")),
            ("param:a%62", None),
            ("header:", None),
            ("header:a b", None),
            ("header:Cookie", None),
            ("header:host", None),
            ("header:X-Hoody-Edge-User", None),
            ("header:x-forwarded-for", None),
            ("header:Sec-Fetch-Mode", None),
            ("x-key", None),
            ("body:x", None),
        ] {
            let read = text.parse::<Carrier>().ok().map(|it| it.to_string());
            assert_eq!(read.as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn odd_basic_credentials_are_none() {
        let coded = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(basic(&coded("a:b:c")), Some(("a".into(), "b:c".into())));
        assert_eq!(basic(&coded(":")), Some((String::new(), String::new())));
        let long = coded(&format!("a:{}", "b".repeat(CREDENTIAL_BYTES)));
        for odd in [
            "Basic",
            "Basic ",
            "Basic !",
            "Bearer YTpi",
            &coded("ab"),
            "Basic //8=",
            &long,
        ] {
            assert_eq!(basic(odd), None, "{odd:.40}");
        }
    }

    fn any_gate() -> impl Strategy<Value = Gate> {
        prop_oneof![
            Just(password()),
            Just(token("header:x-key")),
            Just(token("header:authorization")),
            Just(ip(&["192.0.2.0/24"])),
            Just(ip(&["2001:db8::/32", "10.0.0.0/8"])),
        ]
    }

    fn any_policy() -> impl Strategy<Value = Policy> {
        let reach = prop_oneof![
            Just(Reach::All),
            Just(Reach::None),
            Just(Reach::Only(vec![(1, 2), (8_000, 9_000)]))
        ];
        let program = prop_oneof![Just("*"), Just("files"), Just("http")];
        let program = program.prop_map(|name| Program::parse(name).expect("a program"));
        let ways = proptest::collection::vec(proptest::collection::vec(any_gate(), 0..3), 0..3);
        let grants = proptest::collection::btree_map(program, reach, 0..3);
        let group = ("[a-z]{1,4}", ways, grants).prop_map(|(name, ways, grants)| Group {
            name,
            ways,
            grants,
        });
        let rule = prop_oneof![Just(Rule::Allow), Just(Rule::Deny)];
        (any::<bool>(), rule, proptest::collection::vec(group, 0..4)).prop_map(
            |(enabled, default, groups)| Policy {
                enabled,
                default,
                groups,
                services: BTreeMap::new(),
            },
        )
    }

    fn any_brought() -> impl Strategy<Value = (bool, bool, bool)> {
        any::<(bool, bool, bool)>()
    }

    proptest! {
        #[test]
        fn decisions_keep_their_promises(
            container in proptest::option::of(any_policy()),
            project in proptest::option::of(any_policy()),
            (basic, key, inside) in any_brought(),
            program in prop_oneof![Just("files"), Just("http"), Just("cron")],
            instance in prop_oneof![Just(1u32), Just(8_080), Just(9_999)],
        ) {
            let mut brought = if basic { with_basic("ann", "secret") } else { Brought::default() };
            if key {
                brought.headers.insert("x-key", "t0ken".into());
            }
            brought.address = Some(if inside { "192.0.2.7" } else { "203.0.113.7" });
            let (project, container) = (project.as_ref(), container.as_ref());
            let decision = decide(project, container, program, instance, &brought);
            // Together they allow what each of them allows, and never more.
            let open = |policy: &Policy| Policy { enabled: true, ..policy.clone() };
            let alone = |policy: Option<&Policy>| {
                policy.is_none_or(|policy| matches!(decide(None, Some(&open(policy)), program, instance, &brought), Decision::Allow(_)))
            };
            let expected = enabled(project, container) && alone(project) && alone(container);
            prop_assert_eq!(matches!(decision, Decision::Allow(_)), expected);
            match &decision {
                Decision::Allow(admission) => {
                    // What was kept back was there.
                    for carrier in &admission.consumed {
                        prop_assert!(read(&brought, carrier).is_some());
                    }
                    prop_assert_eq!(admission.fresh, !admission.consumed.is_empty());
                    // And what it proved opens the same door again, with nothing else.
                    let again = Brought {
                        address: brought.address,
                        proved: admission.proofs.iter().map(|proof| proof.gate).collect(),
                        ..Brought::default()
                    };
                    let again = decide(project, container, program, instance, &again);
                    prop_assert!(matches!(again, Decision::Allow(_)));
                }
                Decision::Challenge(challenge) => prop_assert!(challenge.password || challenge.token),
                Decision::Deny(denial) => prop_assert_eq!(*denial == Denial::Disabled, !enabled(project, container)),
            }
            for policy in [project, container].into_iter().flatten() {
                let text = serde_json::to_string(policy).expect("JSON");
                prop_assert_eq!(&serde_json::from_str::<Policy>(&text).expect("a policy"), policy);
            }
        }
    }
}
