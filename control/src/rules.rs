//! The rules of a container or a project as its document: who may reach what, and which scripts
//! see requests first.
//!
//! A document is JSON that people and programs write; here it is read, checked, changed and shown.
//! What of it the proxy works with, [`Rules::policy`] and [`Rules::hooks`] say. Secrets are taken
//! in and never shown: where one stood, a shown document has [`REDACTED`], and a document that is
//! sent back with it keeps what was there.
//!
//! ```json
//! {
//!   "groups": {
//!     "staff": [
//!       { "type": "password", "username": "ann", "password": "…", "salt": "…" },
//!       { "all": [ { "type": "ip", "range": "192.0.2.0/24, 2001:db8::/32" },
//!                  { "type": "token", "header": "x-api-key", "value": "…" } ] }
//!     ]
//!   },
//!   "permissions": { "staff": { "terminal": true, "http": [3000, 8080], "display": "1-4" } },
//!   "default": "deny",
//!   "enable_proxy": true
//! }
//! ```
//!
//! A group is one way in, or a list of ways of which one is enough; `all` joins what has to be
//! fulfilled together. Groups are asked in the order of their names.

use std::collections::BTreeMap;

use routes::access::{self, Carrier, Gate, Group, Password, Policy, Program, Reach, Rule, Token};
use routes::hook::{self, Hook, Hooks};
use routes::jwt::{self, Algorithm, Jwt, Keys};
use routes::sleep::{Idle, IdleAct, Sleep};
use routes::table::{Embedding, SOURCES};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What stands in place of a secret.
pub const REDACTED: &str = "[REDACTED]";
/// A document as it is kept, in bytes.
pub const BYTES: usize = 256 << 10;
/// User names, salts, passwords and values of tokens.
const TEXT: usize = 1024;
/// Minutes after which an idle container is put to sleep where its owner does not say.
const IDLE_USUAL: u32 = 30;
/// The most that its owner may say: a month.
const IDLE_MOST: u32 = 30 * 24 * 60;
/// The version of the form of documents.
pub const SCHEMA: u32 = 1;
/// What hooks cannot be on: what is not a service of a container's kit.
pub const WITHOUT_HOOKS: [&str; 5] = ["logs", "proxy", "workspaces", "cdp", "ssh"];

/// A document as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    pub enabled: bool,
    pub default: Rule,
    /// By name: any one of these ways in, of which each takes all of its gates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    groups: BTreeMap<String, Vec<Vec<Gate>>>,
    /// By group and by program as it was written: which instances.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    permissions: BTreeMap<String, BTreeMap<String, Value>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hooks: Hooks,
    /// Who may embed what a container serves.
    #[serde(default, skip_serializing_if = "Embedding::is_default")]
    embedding: Embedding,
    /// What wakes a container, and when it sleeps.
    #[serde(default, skip_serializing_if = "Sleep::is_default")]
    pub sleep: Sleep,
}

impl Default for Rules {
    /// What holds where there is no document, and what the first change of one begins with.
    fn default() -> Self {
        Rules {
            enabled: true,
            default: Rule::Allow,
            groups: BTreeMap::new(),
            permissions: BTreeMap::new(),
            hooks: Hooks::new(),
            embedding: Embedding::default(),
            sleep: Sleep::default(),
        }
    }
}

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Wrong {
    /// A JSON pointer into the document: `/groups/staff`.
    pub place: String,
    pub message: String,
}

fn wrong(place: impl Into<String>, message: impl Into<String>) -> Wrong {
    Wrong {
        place: place.into(),
        message: message.into(),
    }
}

/// What is not in a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    #[error("no group `{0}`; set it with `groups/{0}/password`, `/token`, `/jwt` or `/ip`")]
    Group(String),
    #[error("no permissions of group `{0}`")]
    Permissions(String),
    #[error("group `{group}` has no permission for `{program}`")]
    Program { group: String, program: String },
    #[error("no hook {0}; list them with `hoody containers proxy hooks list`")]
    Hook(String),
}

/// One gate as documents write it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Written {
    Password {
        username: String,
        password: String,
        #[serde(default = "sha256")]
        algorithm: String,
        salt: String,
    },
    Token {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        header: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cookie: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        param: Option<String>,
        value: String,
    },
    Jwt {
        /// A secret, a public key as PEM, or a JWKS document.
        secret: String,
        algorithm: String,
        sources: Vec<String>,
        #[serde(default, skip_serializing_if = "Map::is_empty")]
        claims: Map<String, Value>,
    },
    Ip {
        range: Ranges,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Ranges {
    /// One network, or several with commas between.
    Text(String),
    List(Vec<String>),
}

fn sha256() -> String {
    "sha256".to_owned()
}

/// Names of groups: `^[A-Za-z0-9_-]{1,50}$`.
pub fn is_group(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=50).contains(&name.len()) && name.bytes().all(plain)
}

/// Read one gate. `known` are the ways that the group had, for what is redacted in it.
fn gate(value: &Value, place: &str, known: &[Vec<Gate>]) -> Result<Gate, Wrong> {
    let kind = value
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if kind == "hoody-identity" {
        let message = "`hoody-identity` needs a public identity service, which this node has not; use password, token, jwt or ip";
        return Err(wrong(place, message));
    }
    if !["password", "token", "jwt", "ip"].contains(&kind) {
        let message = format!("`type` must be password, token, jwt or ip, not `{kind}`");
        return Err(wrong(place, message));
    }
    let written: Written = serde_json::from_value(value.clone())
        .map_err(|error| wrong(place, format!("is no gate of type {kind}: {error}")))?;
    let short = |name: &str, text: &str| {
        if text.is_empty() || text.len() > TEXT || text.contains('\0') {
            let message = format!("`{name}` must have 1 to {TEXT} bytes, none of them zero");
            return Err(wrong(format!("{place}/{name}"), message));
        }
        Ok(())
    };
    let kept = |fits: &dyn Fn(&Gate) -> bool| {
        let message = format!(
            "{REDACTED} stands for a secret that is kept, and there is none here; send the secret"
        );
        known
            .iter()
            .flatten()
            .find(|gate| fits(gate))
            .cloned()
            .ok_or_else(|| wrong(place, message))
    };
    match written {
        Written::Password {
            username,
            password,
            algorithm,
            salt,
        } => {
            short("username", &username)?;
            short("password", &password)?;
            short("salt", &salt)?;
            if username.contains(':') {
                let message = "`username` must not hold a colon: HTTP Basic ends the name there";
                return Err(wrong(format!("{place}/username"), message));
            }
            if algorithm != "sha256" {
                let message = format!("`algorithm` must be sha256, not `{algorithm}`");
                return Err(wrong(format!("{place}/algorithm"), message));
            }
            if password == REDACTED {
                return kept(
                    &|gate| matches!(gate, Gate::Password(it) if it.username == username && it.salt == salt),
                );
            }
            Ok(Gate::Password(Password::new(&username, &salt, &password)))
        }
        Written::Token {
            header,
            cookie,
            param,
            value,
        } => {
            short("value", &value)?;
            let carrier = match (header, cookie, param) {
                (Some(name), None, None) => Carrier::header(&name),
                (None, Some(name), None) => Carrier::cookie(&name),
                (None, None, Some(name)) => Carrier::param(&name),
                _ => {
                    let message =
                        "exactly one of `header`, `cookie` and `param` must say where the token is";
                    return Err(wrong(place, message));
                }
            };
            let carrier = carrier.map_err(|_| {
                wrong(place, "the header, cookie or parameter has a name that cannot carry a token: it is not a word of HTTP, or HTTP or the proxy needs it")
            })?;
            if value == REDACTED {
                return kept(&|gate| matches!(gate, Gate::Token(it) if it.carrier == carrier));
            }
            Ok(Gate::Token(Token::new(carrier, &value)))
        }
        Written::Jwt {
            secret,
            algorithm,
            sources,
            claims,
        } => jwt_gate(place, &secret, &algorithm, &sources, claims, &kept),
        Written::Ip { range } => networks(place, &range),
    }
}

/// Finds a gate that the group had, for the secret that stands redacted in the new one.
type Kept<'a> = &'a dyn Fn(&dyn Fn(&Gate) -> bool) -> Result<Gate, Wrong>;

fn jwt_gate(
    place: &str,
    secret: &str,
    algorithm: &str,
    sources: &[String],
    claims: Map<String, Value>,
    kept: Kept<'_>,
) -> Result<Gate, Wrong> {
    let Some(named) = Algorithm::parse(algorithm) else {
        let all = Algorithm::ALL.map(Algorithm::as_str).join(", ");
        let message = format!("`algorithm` must be one of {all}, not `{algorithm}`");
        return Err(wrong(format!("{place}/algorithm"), message));
    };
    if sources.is_empty() || sources.len() > jwt::SOURCES {
        let message = format!("`sources` must name 1 to {} places", jwt::SOURCES);
        return Err(wrong(format!("{place}/sources"), message));
    }
    let sources = sources
        .iter()
        .map(|source| source.parse())
        .collect::<Result<Vec<Carrier>, _>>()
        .map_err(|error| wrong(format!("{place}/sources"), error.to_string()))?;
    let plain = |value: &Value| match value {
        Value::String(text) => text.len() <= TEXT,
        Value::Number(_) | Value::Bool(_) => true,
        _ => false,
    };
    if claims.len() > jwt::CLAIMS
        || !claims
            .iter()
            .all(|(name, value)| name.len() <= TEXT && plain(value))
    {
        let message = format!(
            "`claims` must be at most {} texts, numbers and truth values",
            jwt::CLAIMS
        );
        return Err(wrong(format!("{place}/claims"), message));
    }
    let claims = claims.into_iter().collect();
    if secret == REDACTED {
        let Gate::Jwt(known) = kept(
            &|gate| matches!(gate, Gate::Jwt(it) if it.algorithm == named && it.sources == sources),
        )?
        else {
            return Err(wrong(place, "is no gate of type jwt"));
        };
        return Ok(Gate::Jwt(Box::new(Jwt { claims, ..*known })));
    }
    let keys = Keys::read(named, secret)
        .map_err(|error| wrong(format!("{place}/secret"), error.to_string()))?;
    Ok(Gate::Jwt(Box::new(Jwt {
        algorithm: named,
        keys,
        sources,
        claims,
    })))
}

fn networks(place: &str, ranges: &Ranges) -> Result<Gate, Wrong> {
    let texts: Vec<&str> = match ranges {
        Ranges::Text(text) => text.split(',').map(str::trim).collect(),
        Ranges::List(list) => list.iter().map(|text| text.trim()).collect(),
    };
    if texts.is_empty() || texts.len() > access::NETWORKS {
        let message = format!("`range` must name 1 to {} networks", access::NETWORKS);
        return Err(wrong(format!("{place}/range"), message));
    }
    let network = |text: &&str| {
        // An address alone is a network of one.
        let one = text.parse::<std::net::IpAddr>().map(Into::into);
        one.or_else(|_| text.parse()).map_err(|_| {
            let message = format!(
                "`{text}` must be an address or a network, such as 192.0.2.0/24 or 2001:db8::/32"
            );
            wrong(format!("{place}/range"), message)
        })
    };
    texts
        .iter()
        .map(network)
        .collect::<Result<_, _>>()
        .map(Gate::Ip)
}

/// Read a group: one gate, or a list of ways, each of them a gate or `{"all": [gate, …]}`.
fn ways(value: &Value, place: &str, known: &[Vec<Gate>]) -> Result<Vec<Vec<Gate>>, Wrong> {
    let one = std::slice::from_ref(value);
    let listed = value.as_array().map_or(one, Vec::as_slice);
    let few = |list: &[Value], place: &str| match list.len() {
        1..=access::WAYS => Ok(()),
        _ => {
            let message = format!("must have 1 to {} gates", access::WAYS);
            Err(wrong(place, message))
        }
    };
    few(listed, place)?;
    let mut ways = Vec::with_capacity(listed.len());
    for (at, way) in listed.iter().enumerate() {
        let place = match value {
            Value::Array(_) => format!("{place}/{at}"),
            _ => place.to_owned(),
        };
        ways.push(match way.get("all").and_then(Value::as_array) {
            Some(all) => {
                few(all, &place)?;
                let gates = all
                    .iter()
                    .enumerate()
                    .map(|(at, one)| gate(one, &format!("{place}/all/{at}"), known));
                gates.collect::<Result<_, _>>()?
            }
            None => vec![gate(way, &place, known)?],
        });
    }
    Ok(ways)
}

/// Which instances an access value allows.
pub fn reach(value: &Value) -> Result<Reach, String> {
    const WORDS: &str =
        "must be true, false, `*`, a number, a list of numbers, or ranges such as `1-4,8`";
    let number = |value: &Value| {
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.filter(|&number| number <= 65_535).ok_or(WORDS)
    };
    let ranges = match value {
        Value::Bool(true) => return Ok(Reach::All),
        Value::Bool(false) => return Ok(Reach::None),
        Value::String(text) if text == "*" => return Ok(Reach::All),
        Value::Number(_) => vec![number(value).map(|one| (one, one))?],
        Value::Array(list) => list
            .iter()
            .map(|one| number(one).map(|one| (one, one)))
            .collect::<Result<_, _>>()?,
        Value::String(text) => text
            .split(',')
            .map(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let end = |text: &str| text.trim().parse::<u16>().map(u32::from);
                match (end(first), end(last)) {
                    (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
                    _ => Err(WORDS),
                }
            })
            .collect::<Result<_, _>>()?,
        _ => return Err(WORDS.to_owned()),
    };
    if ranges.len() > access::RANGES {
        return Err(format!(
            "must name at most {} instances or ranges",
            access::RANGES
        ));
    }
    Ok(Reach::Only(ranges))
}

fn program(name: &str, place: &str) -> Result<Program, Wrong> {
    Program::parse(name).ok_or_else(|| {
        let known: Vec<&str> = routes::services::SERVICES
            .iter()
            .map(|service| service.slug)
            .collect();
        let message = format!(
            "no program `{name}`; there are {}, http, https, ssh and *",
            known.join(", ")
        );
        wrong(place, message)
    })
}

impl Rules {
    /// Read a whole document, in place of `self`.
    pub fn replaced(
        &self,
        groups: &Map<String, Value>,
        permissions: &Map<String, Value>,
        default: Option<Rule>,
        enabled: Option<bool>,
    ) -> Result<Rules, Wrong> {
        let mut rules = Rules {
            enabled: enabled.unwrap_or(true),
            // Who writes a whole document and does not say, wants it shut.
            default: default.unwrap_or(Rule::Deny),
            groups: BTreeMap::new(),
            permissions: BTreeMap::new(),
            hooks: self.hooks.clone(),
            embedding: self.embedding.clone(),
            sleep: self.sleep,
        };
        for (name, value) in groups {
            let known = self.groups.get(name).map_or(&[][..], Vec::as_slice);
            rules.put_group(name, value, known)?;
        }
        for (group, programs) in permissions {
            let place = format!("/permissions/{group}");
            let Value::Object(programs) = programs else {
                return Err(wrong(place, "must be an object of programs"));
            };
            for (name, access) in programs {
                rules.put_permission(group, name, access, &format!("{place}/{name}"))?;
            }
        }
        rules.check()?;
        Ok(rules)
    }

    fn put_group(&mut self, name: &str, value: &Value, known: &[Vec<Gate>]) -> Result<(), Wrong> {
        let place = format!("/groups/{name}");
        if !is_group(name) {
            let message = "the name of a group must have 1 to 50 letters, digits, `_` and `-`";
            return Err(wrong(place, message));
        }
        let ways = ways(value, &place, known)?;
        self.groups.insert(name.to_owned(), ways);
        if self.groups.len() > access::GROUPS {
            let message = format!("a document may have {} groups", access::GROUPS);
            return Err(wrong("/groups", message));
        }
        Ok(())
    }

    fn put_permission(
        &mut self,
        group: &str,
        name: &str,
        access: &Value,
        place: &str,
    ) -> Result<(), Wrong> {
        if !self.groups.contains_key(group) {
            return Err(wrong(place, Missing::Group(group.to_owned()).to_string()));
        }
        let canonical = program(name, place)?;
        reach(access).map_err(|message| wrong(place, message))?;
        let programs = self.permissions.entry(group.to_owned()).or_default();
        // One program has one rule, whatever it was called.
        programs.retain(|known, _| Program::parse(known).as_ref() != Some(&canonical));
        programs.insert(name.to_owned(), access.clone());
        if programs.len() > access::GRANTS {
            let message = format!("a group may name {} programs", access::GRANTS);
            return Err(wrong(place, message));
        }
        Ok(())
    }

    /// Whether it is within its bounds as a whole.
    pub fn check(&self) -> Result<(), Wrong> {
        let bytes = serde_json::to_vec(self).map_or(usize::MAX, |text| text.len());
        if bytes > BYTES {
            let message =
                format!("the document has {bytes} bytes as it is kept, and may have {BYTES}");
            return Err(wrong("", message));
        }
        // A hook for a group that is gone would see nobody's requests, and nobody would know.
        for hook in self.hooks.values().flatten() {
            if let Some(name) = hook.groups.iter().find(|name| !self.has_group(name)) {
                let message = format!(
                    "hook {} is for the group `{name}`; delete the hook first",
                    hook.id
                );
                return Err(wrong("/hooks", message));
            }
        }
        Ok(())
    }

    /// Set a group to one gate.
    pub fn set_group(&mut self, name: &str, gate: &Value) -> Result<(), Wrong> {
        let known = self.groups.get(name).cloned().unwrap_or_default();
        self.put_group(name, gate, &known).map_err(|mut wrong| {
            // The parameters of the request are those of the gate.
            if let Some(rest) = wrong.place.strip_prefix(&format!("/groups/{name}/")) {
                wrong.place = format!("/{rest}");
            }
            wrong
        })
    }

    pub fn remove_group(&mut self, name: &str) -> Result<(), Missing> {
        self.permissions.remove(name);
        match self.groups.remove(name) {
            Some(_) => Ok(()),
            None => Err(Missing::Group(name.to_owned())),
        }
    }

    pub fn has_group(&self, name: &str) -> bool {
        self.groups.contains_key(name)
    }

    pub fn set_permission(&mut self, group: &str, name: &str, access: &Value) -> Result<(), Wrong> {
        reach(access).map_err(|message| wrong("/access", message))?;
        self.put_permission(group, name, access, "/program")
    }

    pub fn remove_permissions(&mut self, group: &str) -> Result<(), Missing> {
        match self.permissions.remove(group) {
            Some(_) => Ok(()),
            None => Err(Missing::Permissions(group.to_owned())),
        }
    }

    pub fn remove_permission(&mut self, group: &str, name: &str) -> Result<(), Missing> {
        let missing = || Missing::Program {
            group: group.to_owned(),
            program: name.to_owned(),
        };
        let programs = self
            .permissions
            .get_mut(group)
            .ok_or_else(|| Missing::Permissions(group.to_owned()))?;
        let asked = Program::parse(name).ok_or_else(missing)?;
        let before = programs.len();
        programs.retain(|known, _| Program::parse(known).as_ref() != Some(&asked));
        if programs.len() == before {
            return Err(missing());
        }
        if programs.is_empty() {
            self.permissions.remove(group);
        }
        Ok(())
    }

    /// Every group, and how many gates it has.
    pub fn groups(&self) -> impl Iterator<Item = (&str, usize)> {
        self.groups
            .iter()
            .map(|(name, ways)| (name.as_str(), ways.iter().map(Vec::len).sum()))
    }

    /// Every program that the document says something about, by its canonical name.
    pub fn services(&self) -> Vec<String> {
        let programs = self.permissions.values().flat_map(BTreeMap::keys);
        let mut all: Vec<String> = programs
            .filter_map(|name| Some(Program::parse(name)?.as_str().to_owned()))
            .chain(self.hooks.keys().cloned())
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// What each group may reach of a program, as it was written.
    pub fn permissions_of(&self, asked: &Program) -> Map<String, Value> {
        let mut found = Map::new();
        for (group, programs) in &self.permissions {
            let of = |name: &str| {
                let mut programs = programs.iter();
                programs.find_map(|(known, access)| {
                    let known = Program::parse(known)?;
                    (known.as_str() == name).then(|| access.clone())
                })
            };
            if let Some(access) = of(asked.as_str()).or_else(|| of(access::ANY)) {
                found.insert(group.clone(), access);
            }
        }
        found
    }

    /// The groups as they are shown: without secrets.
    pub fn shown_groups(&self) -> Map<String, Value> {
        let way = |way: &Vec<Gate>| match &way[..] {
            [one] => shown(one),
            all => json!({ "all": all.iter().map(shown).collect::<Vec<_>>() }),
        };
        self.groups
            .iter()
            .map(|(name, ways)| {
                let value = match &ways[..] {
                    [one] => way(one),
                    ways => ways.iter().map(way).collect(),
                };
                (name.clone(), value)
            })
            .collect()
    }

    pub fn shown_permissions(&self) -> Map<String, Value> {
        self.permissions
            .iter()
            .map(|(group, programs)| (group.clone(), json!(programs)))
            .collect()
    }

    pub fn embedding(&self) -> &Embedding {
        &self.embedding
    }

    /// Say whether pages of other hosts may embed what is served.
    pub fn allow_embedding(&mut self, allowed: bool) {
        self.embedding.allowed = allowed;
    }

    /// Say which sources may frame its pages, none of them where the list is empty; with nothing,
    /// leave it to what is served.
    pub fn set_frame_ancestors(&mut self, sources: Option<Vec<String>>) -> Result<(), Wrong> {
        const PLACE: &str = "/frame_ancestors";
        let listed = sources.as_deref().unwrap_or_default();
        if listed.len() > SOURCES {
            let message = format!("must name at most {SOURCES} sources");
            return Err(wrong(PLACE, message));
        }
        for (at, source) in listed.iter().enumerate() {
            if !Embedding::is_source(source) {
                let message = "must be a source such as `https://app.example`, `https://*.example:8443`, `https:` or `'self'`: no path, no space, no other word";
                return Err(wrong(format!("{PLACE}/{at}"), message));
            }
        }
        if listed.len() > 1 && listed.iter().any(|source| source == "'none'") {
            let message = "`'none'` stands alone; an empty list says the same";
            return Err(wrong(PLACE, message));
        }
        self.embedding.frame_ancestors = sources;
        Ok(())
    }

    /// Say what becomes of a container that nobody needs: what is not named stays, `None` as an act
    /// is to stay on.
    pub fn set_idle(
        &mut self,
        act: Option<Option<IdleAct>>,
        minutes: Option<u32>,
    ) -> Result<(), Wrong> {
        let before = self.sleep.idle;
        let act = act.unwrap_or(before.map(|idle| idle.act));
        if minutes.is_some_and(|minutes| !(1..=IDLE_MOST).contains(&minutes)) {
            let message = format!("must be 1 to {IDLE_MOST}");
            return Err(wrong("/idle_minutes", message));
        }
        if act.is_none() && minutes.is_some() {
            let message =
                "has no meaning while `idle_action` is `never`; set that to `pause` or `stop`";
            return Err(wrong("/idle_minutes", message));
        }
        let minutes = minutes.or(before.map(|idle| idle.minutes));
        self.sleep.idle = act.map(|act| Idle {
            act,
            minutes: minutes.unwrap_or(IDLE_USUAL),
        });
        Ok(())
    }

    /// What the proxy decides by.
    pub fn policy(&self) -> Policy {
        let groups = self.groups.iter().map(|(name, ways)| {
            let programs = self.permissions.get(name).into_iter().flatten();
            Group {
                name: name.clone(),
                ways: ways.clone(),
                grants: programs
                    .filter_map(|(name, access)| Some((Program::parse(name)?, reach(access).ok()?)))
                    .collect(),
            }
        });
        Policy {
            enabled: self.enabled,
            default: self.default,
            services: BTreeMap::new(),
            groups: groups.collect(),
        }
    }

    /// How many hooks there are.
    pub fn hook_count(&self) -> usize {
        self.hooks.values().map(Vec::len).sum()
    }

    /// Insert a hook; at the end where no position is given.
    pub fn add_hook(
        &mut self,
        service: &str,
        hook: Hook,
        position: Option<usize>,
    ) -> Result<usize, Wrong> {
        self.groups_exist(&hook)?;
        if self.hook_count() >= hook::PER_CONTAINER {
            let message = format!(
                "a container may have {} hooks; delete some",
                hook::PER_CONTAINER
            );
            return Err(wrong("", message));
        }
        let hooks = self.hooks.entry(service.to_owned()).or_default();
        if hooks.len() >= hook::PER_SERVICE {
            let message = format!(
                "a service may have {} hooks; delete some",
                hook::PER_SERVICE
            );
            return Err(wrong("", message));
        }
        let at = position.unwrap_or(hooks.len()).min(hooks.len());
        hooks.insert(at, hook);
        Ok(at)
    }

    fn groups_exist(&self, hook: &Hook) -> Result<(), Wrong> {
        match hook
            .groups
            .iter()
            .find(|name| !self.groups.contains_key(*name))
        {
            Some(name) => Err(wrong(
                "/applies_to/groups",
                Missing::Group(name.clone()).to_string(),
            )),
            None => Ok(()),
        }
    }

    /// A hook with its position.
    pub fn hook(&self, service: &str, id: &str) -> Result<(usize, &Hook), Missing> {
        let hooks = self.hooks.get(service).map_or(&[][..], Vec::as_slice);
        let mut hooks = hooks.iter().enumerate();
        hooks
            .find(|(_, hook)| hook.id == id)
            .ok_or_else(|| Missing::Hook(id.to_owned()))
    }

    /// Write a hook anew; its id stays.
    pub fn put_hook(&mut self, service: &str, mut hook: Hook, id: &str) -> Result<usize, Wrong> {
        self.groups_exist(&hook)?;
        let (at, known) = self
            .hook(service, id)
            .map_err(|missing| wrong("/hookId", missing.to_string()))?;
        hook.id = known.id.clone();
        if let Some(hooks) = self.hooks.get_mut(service) {
            hooks[at] = hook;
        }
        Ok(at)
    }

    pub fn move_hook(&mut self, service: &str, id: &str, to: usize) -> Result<usize, Missing> {
        let (at, _) = self.hook(service, id)?;
        let Some(hooks) = self.hooks.get_mut(service) else {
            return Err(Missing::Hook(id.to_owned()));
        };
        let hook = hooks.remove(at);
        let to = to.min(hooks.len());
        hooks.insert(to, hook);
        Ok(to)
    }

    pub fn remove_hook(&mut self, service: &str, id: &str) -> Result<(), Missing> {
        let (at, _) = self.hook(service, id)?;
        if let Some(hooks) = self.hooks.get_mut(service) {
            hooks.remove(at);
            if hooks.is_empty() {
                self.hooks.remove(service);
            }
        }
        Ok(())
    }

    /// Remove all hooks of a service and say how many there were.
    pub fn clear_hooks(&mut self, service: &str) -> usize {
        self.hooks.remove(service).map_or(0, |hooks| hooks.len())
    }
}

/// A gate without its secret. Public keys are shown.
fn shown(gate: &Gate) -> Value {
    let written = match gate {
        Gate::Password(it) => Written::Password {
            username: it.username.clone(),
            password: REDACTED.to_owned(),
            algorithm: sha256(),
            salt: it.salt.clone(),
        },
        Gate::Token(it) => {
            let (mut header, mut cookie, mut param) = (None, None, None);
            match &it.carrier {
                Carrier::Header(name) => header = Some(name.clone()),
                Carrier::Cookie(name) => cookie = Some(name.clone()),
                Carrier::Param(name) => param = Some(name.clone()),
            }
            Written::Token {
                header,
                cookie,
                param,
                value: REDACTED.to_owned(),
            }
        }
        Gate::Jwt(it) => {
            // A JWKS document may hold more than the public parts.
            let secret = match it.keys.text().trim_start().starts_with("-----BEGIN") {
                true => it.keys.text(),
                false => REDACTED,
            };
            Written::Jwt {
                secret: secret.to_owned(),
                algorithm: it.algorithm.as_str().to_owned(),
                sources: it.sources.iter().map(ToString::to_string).collect(),
                claims: it.claims.clone().into_iter().collect(),
            }
        }
        Gate::Ip(networks) => {
            let texts: Vec<String> = networks.iter().map(ToString::to_string).collect();
            Written::Ip {
                range: Ranges::Text(texts.join(", ")),
            }
        }
    };
    serde_json::to_value(written).expect("gates are plain JSON")
}

#[cfg(test)]
mod tests;
