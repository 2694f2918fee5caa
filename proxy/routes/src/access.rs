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
        let text = serde_json::to_vec(self).expect("a gate is JSON");
        let digest = Digest::of(&[&text]);
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
    /// Whether it brought a credential that opened nothing.
    pub wrong: bool,
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
            Decision::Challenge(one) => asked = Some(asked.map_or(one.clone(), |it| it.or(&one))),
            Decision::Deny(denial) => return Decision::Deny(denial),
        }
    }
    match asked {
        Some(challenge) => Decision::Challenge(challenge),
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
        self.until = match (self.until, other.until) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

impl Challenge {
    fn or(&self, other: &Challenge) -> Challenge {
        Challenge {
            password: self.password | other.password,
            token: self.token | other.token,
            wrong: self.wrong | other.wrong,
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
        let mut challenge = Challenge::default();
        for group in &self.groups {
            let Some(reach) = group.reach(program) else {
                continue;
            };
            let granted = reach.contains(instance);
            match group.satisfied(evidence) {
                Satisfied::Yes(admission) if granted => return Decision::Allow(admission),
                Satisfied::Yes(_) => withheld = true,
                Satisfied::No(asked) if granted => challenge = challenge.or(&asked),
                Satisfied::No(_) => {}
            }
        }
        // A password on a program is asked for whatever holds for everybody else.
        let asks = match rule {
            Rule::Deny => challenge.password || challenge.token,
            Rule::Allow => challenge.password,
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
    /// With what could change that.
    No(Challenge),
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
        let mut challenge = Challenge::default();
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
                challenge = challenge.or(&missing);
            }
        }
        Satisfied::No(challenge)
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
