//! Signed links: a URL that opens one service of one container for a while.
//!
//! A link is signed with a key of its container's own. The key travels with the container's place
//! in the table, so no other file has to be kept in step; it opens nothing but this container; it
//! goes when the container goes; and a new key ends all links of the container at once. A single
//! link is revoked by its id.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;

use crate::Id;

/// The query parameter that carries a link's token.
pub const PARAM: &str = "hoody_link";
/// Revoked links of one container that have not expired. Above it, the key is to be replaced.
pub const REVOKED: usize = 1_024;
/// The path that a link may be limited to.
pub const PREFIX_BYTES: usize = 512;
/// A longer text is no token: the parts have bounds of their own.
const TOKEN_BYTES: usize = 1_024;

/// What a container's links are checked with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    pub key: LinkKey,
    /// Those that are revoked, with the second since 1970 in which they would have expired.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<(LinkId, u64)>,
}

/// 256 random bits, written in hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkKey([u8; 32]);

impl LinkKey {
    pub fn new(random: [u8; 32]) -> LinkKey {
        LinkKey(random)
    }
}

/// A secret is not for logs.
impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey(…)")
    }
}

impl Serialize for LinkKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for LinkKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LinkKey, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let mut key = [0; 32];
        hex::decode_to_slice(&*text, &mut key)
            .map_err(|_| D::Error::custom("a key is 64 hexadecimal digits"))?;
        Ok(LinkKey(key))
    }
}

/// Names one link: an id like any other.
pub type LinkId = Id;

/// What one link opens, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub id: LinkId,
    pub container: Id,
    /// The slug of a service, `http` or `https`.
    pub service: String,
    /// Its index, or the port.
    pub instance: u32,
    /// The second since 1970 in which it is no longer good.
    pub expires: u64,
    pub methods: Methods,
    /// The path that everything it opens lies at or below; begins with `/`.
    pub prefix: Option<String>,
}

/// A set of methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Methods(u8);

/// A method that no link can be limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a link may be limited to GET, HEAD, OPTIONS, POST, PUT, PATCH and DELETE")]
pub struct UnknownMethod;

impl Methods {
    const NAMES: [&str; 7] = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"];
    /// Every method, those without a name here, too.
    pub const ALL: Methods = Methods(0xff);
    /// Those that change nothing (RFC 9110, section 9.2.1).
    pub const READ: Methods = Methods(0b111);

    pub fn named(names: &[&str]) -> Result<Methods, UnknownMethod> {
        names.iter().try_fold(Methods(0), |set, name| {
            let upper = name.to_ascii_uppercase();
            let at = Self::NAMES.iter().position(|it| *it == upper);
            at.map(|at| Methods(set.0 | 1 << at)).ok_or(UnknownMethod)
        })
    }

    pub fn contains(self, method: &str) -> bool {
        let at = Self::NAMES.iter().position(|name| *name == method);
        self.0 & 1 << at.unwrap_or(7) != 0
    }

    /// Those that are read only, of these.
    pub fn read_only(self) -> Methods {
        Methods(self.0 & Self::READ.0)
    }

    pub fn is_read_only(self) -> bool {
        self.0 & !Self::READ.0 == 0
    }

    /// Their names; nothing where all are.
    pub fn names(self) -> Option<Vec<&'static str>> {
        let named = |(at, name): (usize, &&'static str)| (self.0 & 1 << at != 0).then_some(*name);
        (self != Self::ALL).then(|| Self::NAMES.iter().enumerate().filter_map(named).collect())
    }
}

/// Why a token is no link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLink {
    #[error("it is not a link")]
    Malformed,
    #[error("it was not signed for this container")]
    Signature,
}

/// Why a link cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTerms {
    #[error("a path is limited to {PREFIX_BYTES} bytes")]
    LongPrefix,
    #[error(
        "a path begins with / and has neither a query, nor . or .. as a part, nor % / or \\ in a part"
    )]
    Prefix,
    #[error("a service has a name of 1 to 32 letters")]
    Service,
}

const VERSION: u8 = 1;

fn mac(key: &LinkKey, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.0).expect("a key of any length fits");
    mac.update(b"hoody link\0");
    mac.update(body);
    mac
}

impl Link {
    /// The text of the parameter.
    pub fn mint(&self, key: &LinkKey) -> Result<String, BadTerms> {
        let service = self.service.as_bytes();
        if service.is_empty() || service.len() > 32 {
            return Err(BadTerms::Service);
        }
        let prefix = self.prefix.as_deref().unwrap_or_default();
        if prefix.len() > PREFIX_BYTES {
            return Err(BadTerms::LongPrefix);
        }
        if self
            .prefix
            .as_deref()
            .is_some_and(|prefix| !is_plain(prefix))
        {
            return Err(BadTerms::Prefix);
        }
        let mut body = vec![VERSION];
        body.extend_from_slice(&self.id.0);
        body.extend_from_slice(&self.container.0);
        body.extend_from_slice(&self.instance.to_be_bytes());
        body.extend_from_slice(&self.expires.to_be_bytes());
        body.push(self.methods.0);
        body.push(service.len() as u8);
        body.extend_from_slice(service);
        body.extend_from_slice(prefix.as_bytes());
        let tag = mac(key, &body).finalize().into_bytes();
        body.extend_from_slice(&tag);
        Ok(URL_SAFE_NO_PAD.encode(body))
    }

    /// Read a token that was signed with this key. Whether it is good for a request,
    /// [`Link::allows`] says.
    pub fn verify(token: &str, key: &LinkKey) -> Result<Link, BadLink> {
        if token.len() > TOKEN_BYTES {
            return Err(BadLink::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(token)
            .map_err(|_| BadLink::Malformed)?;
        let (body, tag) = bytes.split_last_chunk::<32>().ok_or(BadLink::Malformed)?;
        // In constant time, and before anything in it is believed.
        mac(key, body)
            .verify_slice(tag)
            .map_err(|_| BadLink::Signature)?;
        Link::read(body).ok_or(BadLink::Malformed)
    }

    fn read(body: &[u8]) -> Option<Link> {
        let (&version, rest) = body.split_first()?;
        let (id, rest) = rest.split_first_chunk::<12>()?;
        let (container, rest) = rest.split_first_chunk::<12>()?;
        let (instance, rest) = rest.split_first_chunk::<4>()?;
        let (expires, rest) = rest.split_first_chunk::<8>()?;
        let (&methods, rest) = rest.split_first()?;
        let (&length, rest) = rest.split_first()?;
        let (service, prefix) = rest.split_at_checked(usize::from(length))?;
        if version != VERSION {
            return None;
        }
        Some(Link {
            id: Id(*id),
            container: Id(*container),
            service: String::from_utf8(service.to_vec()).ok()?,
            instance: u32::from_be_bytes(*instance),
            expires: u64::from_be_bytes(*expires),
            methods: Methods(methods),
            prefix: match prefix {
                [] => None,
                prefix => Some(String::from_utf8(prefix.to_vec()).ok()?),
            },
        })
    }
}

/// Whether the parts of a path can be read in one way only.
fn is_plain(path: &str) -> bool {
    path.starts_with('/')
        && !path.contains(['%', '\\', '?', '#', ' '])
        && path.bytes().all(|byte| byte.is_ascii_graphic())
        && !path.split('/').any(|part| matches!(part, "." | ".."))
        && !path.contains("//")
}

impl FromStr for LinkKey {
    type Err = hex::FromHexError;
    fn from_str(text: &str) -> Result<LinkKey, hex::FromHexError> {
        let mut key = [0; 32];
        hex::decode_to_slice(text, &mut key)?;
        Ok(LinkKey(key))
    }
}

/// What a link is held against.
#[derive(Debug, Clone, Copy)]
pub struct Use<'a> {
    pub container: Id,
    pub service: &'a str,
    pub instance: u32,
    pub method: &'a str,
    /// As it was sent, without the query.
    pub path: &'a str,
    pub now: u64,
}

/// Why a link is not good for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    #[error("the link has expired")]
    Expired,
    #[error("the link was revoked")]
    Revoked,
    #[error("the link is for something else")]
    Elsewhere,
    #[error("the link does not allow this method")]
    Method,
    #[error("the link does not reach this path")]
    Path,
}

impl Links {
    /// Whether a link, signed with the key, is still one.
    pub fn stands(&self, link: &Link, now: u64) -> Result<(), Misuse> {
        if link.expires <= now {
            return Err(Misuse::Expired);
        }
        match self.revoked.iter().any(|(id, _)| *id == link.id) {
            true => Err(Misuse::Revoked),
            false => Ok(()),
        }
    }

    /// Revoke a link, and forget those that have expired. False where there is no room: then the
    /// key is to be replaced.
    pub fn revoke(&mut self, link: LinkId, expires: u64, now: u64) -> bool {
        self.revoked.retain(|(_, until)| *until > now);
        if expires <= now || self.revoked.iter().any(|(id, _)| *id == link) {
            return true;
        }
        let room = self.revoked.len() < REVOKED;
        if room {
            self.revoked.push((link, expires));
        }
        room
    }
}

impl Link {
    /// Whether it is good for a request, apart from having been revoked.
    pub fn allows(&self, asked: &Use<'_>) -> Result<(), Misuse> {
        if self.container != asked.container
            || self.service != asked.service
            || self.instance != asked.instance
        {
            return Err(Misuse::Elsewhere);
        }
        if self.expires <= asked.now {
            return Err(Misuse::Expired);
        }
        if !self.methods.contains(asked.method) {
            return Err(Misuse::Method);
        }
        if let Some(prefix) = &self.prefix {
            // A path that two readers could read in two ways is outside.
            let within = asked
                .path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| {
                    rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/')
                });
            let escaped = reads_twice(asked.path);
            if !within || escaped {
                return Err(Misuse::Path);
            }
        }
        Ok(())
    }
}

/// Whether a path holds what an app may take for `/`, `\`, `.` or `..`.
fn reads_twice(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    ["%2e", "%2f", "%5c", "%25", "%00", "\\", "//", ";"]
        .iter()
        .any(|odd| lower.contains(odd))
        || path.split('/').any(|part| matches!(part, "." | ".."))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn key(byte: u8) -> LinkKey {
        LinkKey::new([byte; 32])
    }

    fn link() -> Link {
        Link {
            id: Id([7; 12]),
            container: Id([1; 12]),
            service: "files".into(),
            instance: 1,
            expires: NOW + 60,
            methods: Methods::ALL,
            prefix: None,
        }
    }

    fn asked() -> Use<'static> {
        Use {
            container: Id([1; 12]),
            service: "files",
            instance: 1,
            method: "GET",
            path: "/docs/a",
            now: NOW,
        }
    }

    #[test]
    fn a_token_is_believed_whole_or_not_at_all() {
        let token = link().mint(&key(1)).expect("a token");
        assert!(token.len() < 120, "{}", token.len());
        assert_eq!(Link::verify(&token, &key(1)), Ok(link()));
        assert_eq!(Link::verify(&token, &key(2)), Err(BadLink::Signature));
        for at in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).expect("text");
            assert!(Link::verify(&forged, &key(1)).is_err(), "{at}");
        }
        for cut in 0..token.len() {
            assert!(Link::verify(&token[..cut], &key(1)).is_err(), "{cut}");
        }
        for odd in ["", "=", "é", &"A".repeat(2_000)] {
            assert_eq!(Link::verify(odd, &key(1)), Err(BadLink::Malformed));
        }
    }

    #[test]
    fn a_link_opens_what_it_says() {
        let mut reads = Link {
            methods: Methods::READ,
            prefix: Some("/docs".into()),
            ..link()
        };
        let with = |change: &dyn Fn(&mut Use<'static>)| {
            let mut used = asked();
            change(&mut used);
            reads.allows(&used)
        };
        assert_eq!(with(&|_| {}), Ok(()));
        for path in [
            "/docs",
            "/docs/",
            "/docs/a/b%20c",
            "/docs/.hidden",
            "/docs/a..b",
        ] {
            assert_eq!(with(&|used| used.path = path), Ok(()), "{path}");
        }
        for path in [
            "/",
            "/docsx",
            "/Docs",
            "/other",
            "/docs/../other",
            "/docs/..",
            "/docs/%2e%2e/other",
            "/docs/%2E./x",
            "/docs%2fx",
            "/docs/..%2fother",
            "/docs/..\\other",
            "/docs//other",
            "/docs/%252e%252e/x",
            "/docs/..;/other",
            "//docs",
            "/docs/./a",
        ] {
            assert_eq!(with(&|used| used.path = path), Err(Misuse::Path), "{path}");
        }
        for method in ["HEAD", "OPTIONS"] {
            assert_eq!(with(&|used| used.method = method), Ok(()));
        }
        for method in ["POST", "PUT", "DELETE", "PROPFIND", "get"] {
            assert_eq!(
                with(&|used| used.method = method),
                Err(Misuse::Method),
                "{method}"
            );
        }
        assert_eq!(with(&|used| used.now = NOW + 60), Err(Misuse::Expired));
        assert_eq!(
            with(&|used| used.service = "terminal"),
            Err(Misuse::Elsewhere)
        );
        assert_eq!(with(&|used| used.instance = 2), Err(Misuse::Elsewhere));
        assert_eq!(
            with(&|used| used.container = Id([2; 12])),
            Err(Misuse::Elsewhere)
        );
        reads.prefix = Some("/docs/".into());
        assert_eq!(reads.allows(&asked()), Ok(()));
        let used = Use {
            method: "PROPFIND",
            ..asked()
        };
        assert_eq!(link().allows(&used), Ok(()));
    }

    #[test]
    fn methods_are_named() {
        let some = Methods::named(&["get", "POST"]).expect("methods");
        assert_eq!(some.names(), Some(vec!["GET", "POST"]));
        assert!(!some.is_read_only() && some.read_only().is_read_only());
        assert_eq!(Methods::ALL.names(), None);
        assert_eq!(Methods::ALL.read_only(), Methods::READ);
        assert_eq!(Methods::named(&["BREW"]), Err(UnknownMethod));
    }

    #[test]
    fn terms_that_cannot_be_kept_are_refused() {
        let with = |prefix: &str| {
            let prefix = Some(prefix.to_owned());
            Link { prefix, ..link() }.mint(&key(1))
        };
        assert!(with("/a/b").is_ok() && with("/").is_ok());
        for odd in [
            "", "a", "/a/../b", "/a%2f", "/a?b", "/a#b", "/a\\b", "/a b", "/é", "//a", "/.",
        ] {
            assert_eq!(with(odd), Err(BadTerms::Prefix), "{odd}");
        }
        let long = format!("/{}", "a".repeat(PREFIX_BYTES));
        assert_eq!(with(&long), Err(BadTerms::LongPrefix));
        for service in ["", &"a".repeat(33)] {
            let link = Link {
                service: service.into(),
                ..link()
            };
            assert_eq!(link.mint(&key(1)), Err(BadTerms::Service));
        }
        let widest = Link {
            service: "a".repeat(32),
            prefix: Some(format!("/{}", "a".repeat(PREFIX_BYTES - 1))),
            ..link()
        };
        let token = widest.mint(&key(1)).expect("a token");
        assert_eq!(Link::verify(&token, &key(1)), Ok(widest));
    }

    #[test]
    fn links_are_revoked_within_a_bound() {
        let mut links = Links {
            key: key(1),
            revoked: vec![],
        };
        assert_eq!(links.stands(&link(), NOW), Ok(()));
        assert!(links.revoke(link().id, link().expires, NOW));
        assert_eq!(links.stands(&link(), NOW), Err(Misuse::Revoked));
        assert_eq!(links.stands(&link(), NOW + 60), Err(Misuse::Expired));
        let id = |n: usize| {
            let mut id = Id([9; 12]);
            id.0[..8].copy_from_slice(&n.to_be_bytes());
            id
        };
        for n in 1..REVOKED {
            assert!(links.revoke(id(n), NOW + 100, NOW));
        }
        assert!(!links.revoke(id(REVOKED), NOW + 100, NOW));
        assert!(links.revoke(id(1), NOW + 100, NOW), "it is in the list");
        // The expired one makes room.
        assert!(links.revoke(id(REVOKED), NOW + 100, NOW + 60));
        assert_eq!(links.revoked.len(), REVOKED);
        let kept = serde_json::to_string(&links).expect("JSON");
        assert_eq!(serde_json::from_str::<Links>(&kept).expect("links"), links);
        assert!(!format!("{links:?}").contains("01010101"));
    }

    proptest! {
        #[test]
        fn what_is_minted_is_read(
            id in any::<[u8; 12]>(), container in any::<[u8; 12]>(), instance: u32, expires: u64,
            methods: u8, service in "[a-z]{1,32}", prefix in proptest::option::of("(/[a-z0-9._~-]{1,9}){1,5}"),
        ) {
            let link = Link {
                id: Id(id), container: Id(container), service, instance, expires,
                methods: Methods(methods), prefix,
            };
            if let Ok(token) = link.mint(&key(3)) {
                prop_assert_eq!(Link::verify(&token, &key(3)), Ok(link));
            }
        }

        #[test]
        fn any_text_is_refused(text in "\\PC{0,200}") {
            prop_assert!(Link::verify(&text, &key(3)).is_err());
        }
    }
}
