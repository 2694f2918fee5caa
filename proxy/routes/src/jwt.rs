//! A gate that asks for a signed token (JWT, RFC 7519): which keys, which claims, and whether one
//! is good.
//!
//! Keys are read once, when a policy is. The algorithm is the gate's, never the token's: a token
//! that names another is refused before its signature is looked at.

use std::collections::BTreeMap;

use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{AlgorithmFamily, DecodingKey, DecodingKeyKind};
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::access::{CREDENTIAL_BYTES, Carrier};

/// Keys of one gate, of which a token is tried against as many at most.
pub const KEYS: usize = 16;
/// A secret, a PEM text or a JWKS document.
pub const KEY_BYTES: usize = 32 << 10;
/// Places in which a token is looked for.
pub const SOURCES: usize = 8;
/// Claims that a token must have.
pub const CLAIMS: usize = 32;
/// By how many seconds clocks may differ.
pub const LEEWAY: u64 = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    pub const ALL: [Algorithm; 9] = [
        Algorithm::HS256,
        Algorithm::HS384,
        Algorithm::HS512,
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
    ];

    /// As tokens and keys write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::HS256 => "HS256",
            Algorithm::HS384 => "HS384",
            Algorithm::HS512 => "HS512",
            Algorithm::RS256 => "RS256",
            Algorithm::RS384 => "RS384",
            Algorithm::RS512 => "RS512",
            Algorithm::ES256 => "ES256",
            Algorithm::ES384 => "ES384",
            Algorithm::EdDSA => "EdDSA",
        }
    }

    pub fn parse(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|it| it.as_str() == name)
    }

    fn family(self) -> AlgorithmFamily {
        match self {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => AlgorithmFamily::Hmac,
            Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 => AlgorithmFamily::Rsa,
            Algorithm::ES256 | Algorithm::ES384 => AlgorithmFamily::Ec,
            Algorithm::EdDSA => AlgorithmFamily::Ed,
        }
    }
}

/// What the gate asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Jwt {
    pub algorithm: Algorithm,
    pub keys: Keys,
    /// Where a token is read, in this order: after `Bearer` in the header Authorization, as it is
    /// anywhere else.
    pub sources: Vec<Carrier>,
    /// What a token must say: text, numbers and truth values, exactly; an audience may be one of
    /// several.
    pub claims: BTreeMap<String, Value>,
}

/// How it is kept.
#[derive(Clone, Serialize, Deserialize)]
struct Written {
    alg: Algorithm,
    key: String,
    sources: Vec<Carrier>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    claims: BTreeMap<String, Value>,
}

impl From<Written> for Jwt {
    fn from(written: Written) -> Jwt {
        // What was taken once and cannot be read any more verifies nothing: the gate stays shut,
        // and the rest of the table in effect.
        let keys = Keys::read(written.alg, &written.key).unwrap_or(Keys {
            text: written.key,
            read: Vec::new(),
        });
        Jwt {
            algorithm: written.alg,
            keys,
            sources: written.sources,
            claims: written.claims,
        }
    }
}

impl From<Jwt> for Written {
    fn from(jwt: Jwt) -> Written {
        Written {
            alg: jwt.algorithm,
            key: jwt.keys.text,
            sources: jwt.sources,
            claims: jwt.claims,
        }
    }
}

/// The keys of a gate, as they were given and as they are used.
#[derive(Clone)]
pub struct Keys {
    text: String,
    read: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: Option<String>,
    key: DecodingKey,
}

/// Why a text is not a key for an algorithm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    #[error("the key is longer than {KEY_BYTES} bytes")]
    TooLong,
    #[error("the key is empty")]
    Empty,
    #[error("this is a private key: give the public one, which begins with BEGIN PUBLIC KEY")]
    Private,
    #[error("{0} takes a public key as PEM text (BEGIN PUBLIC KEY) or a JWKS document")]
    NotPem(&'static str),
    #[error("{0} takes a secret, and this is a public key: whoever knows it could sign")]
    PublicSecret(&'static str),
    #[error("the JWKS document cannot be read: {0}")]
    NotJwks(String),
    #[error("the JWKS document has no key for {0}")]
    NoKey(&'static str),
    #[error("a JWKS document may have {KEYS} keys for one gate")]
    TooManyKeys,
    #[error(
        "the key is not one for {0}: RS takes RSA of 2048 to 8192 bits, ES256 the curve P-256, ES384 P-384, EdDSA Ed25519"
    )]
    WrongKind(&'static str),
}

impl Keys {
    /// Read a secret (HS), a public key as PEM, or a JWKS document.
    pub fn read(algorithm: Algorithm, text: &str) -> Result<Keys, BadKey> {
        let name = algorithm.as_str();
        let trimmed = text.trim();
        if text.len() > KEY_BYTES {
            return Err(BadKey::TooLong);
        }
        if trimmed.is_empty() {
            return Err(BadKey::Empty);
        }
        let jwks = trimmed.starts_with('{') && trimmed.contains("\"keys\"");
        let read = if jwks {
            from_jwks(algorithm, trimmed)?
        } else if algorithm.family() == AlgorithmFamily::Hmac {
            if trimmed.starts_with("-----BEGIN") {
                return Err(BadKey::PublicSecret(name));
            }
            vec![Key {
                id: None,
                key: DecodingKey::from_secret(text.as_bytes()),
            }]
        } else {
            if trimmed.contains("PRIVATE KEY-----") {
                return Err(BadKey::Private);
            }
            if !trimmed.contains("PUBLIC KEY-----") {
                return Err(BadKey::NotPem(name));
            }
            let pem = trimmed.as_bytes();
            let key = match algorithm.family() {
                AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem),
                AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem),
                _ => DecodingKey::from_ed_pem(pem),
            };
            let key = key.map_err(|_| BadKey::WrongKind(name))?;
            if !fits(algorithm, &key) {
                return Err(BadKey::WrongKind(name));
            }
            vec![Key { id: None, key }]
        };
        Ok(Keys {
            text: text.to_owned(),
            read,
        })
    }

    /// As it was given.
    pub fn text(&self) -> &str {
        &self.text
    }
}

fn from_jwks(algorithm: Algorithm, text: &str) -> Result<Vec<Key>, BadKey> {
    let name = algorithm.as_str();
    let set: JwkSet = serde_json::from_str(text).map_err(|why| BadKey::NotJwks(why.to_string()))?;
    let usable = |jwk: &Jwk| {
        let meant = jwk
            .common
            .key_algorithm
            .is_none_or(|it| it.to_string() == name);
        let signs = !matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption));
        if !meant || !signs {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        fits(algorithm, &key).then(|| Key {
            id: jwk.common.key_id.clone(),
            key,
        })
    };
    let keys: Vec<Key> = set.keys.iter().filter_map(usable).collect();
    match keys.len() {
        0 => Err(BadKey::NoKey(name)),
        1..=KEYS => Ok(keys),
        _ => Err(BadKey::TooManyKeys),
    }
}

/// Whether a key is one of the algorithm's, by its kind and size.
fn fits(algorithm: Algorithm, key: &DecodingKey) -> bool {
    if key.family() != algorithm.family() {
        return false;
    }
    let bits = |modulus: &[u8]| {
        let modulus = &modulus[modulus.iter().take_while(|&&byte| byte == 0).count()..];
        modulus.len() * 8
    };
    match (algorithm.family(), key.kind()) {
        (AlgorithmFamily::Hmac, DecodingKeyKind::SecretOrDer(secret)) => !secret.is_empty(),
        (AlgorithmFamily::Rsa, DecodingKeyKind::SecretOrDer(der)) => {
            modulus(der).is_some_and(|it| (2_048..=8_192).contains(&bits(it)))
        }
        (AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, .. }) => {
            (2_048..=8_192).contains(&bits(n))
        }
        (AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(point)) => {
            let length = if algorithm == Algorithm::ES256 {
                65
            } else {
                97
            };
            point.len() == length && point[0] == 4
        }
        (AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(point)) => point.len() == 32,
        _ => false,
    }
}

/// The modulus of an RSA public key in DER (RFC 8017, appendix A.1.1): the first integer of a
/// sequence.
fn modulus(der: &[u8]) -> Option<&[u8]> {
    fn element(der: &[u8], tag: u8) -> Option<&[u8]> {
        let (&found, rest) = der.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            short @ 0..=0x7f => (usize::from(short), rest),
            long @ (0x81 | 0x82) => {
                let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
                let length = digits.iter().fold(0, |sum, &it| sum << 8 | usize::from(it));
                (length, rest)
            }
            _ => return None,
        };
        (found == tag).then(|| rest.get(..length)).flatten()
    }
    element(element(der, 0x30)?, 0x02)
}

impl PartialEq for Keys {
    fn eq(&self, other: &Keys) -> bool {
        self.text == other.text
    }
}

impl Eq for Keys {}

/// A secret is not for logs.
impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({} of them)", self.read.len())
    }
}

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub subject: Option<String>,
    /// In seconds since 1970.
    pub expires: Option<u64>,
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    #[error("it is longer than {CREDENTIAL_BYTES} bytes")]
    TooLong,
    #[error("it is not a token")]
    Malformed,
    #[error("it names another algorithm, or asks for something that is not understood")]
    Algorithm,
    #[error("no key has signed it")]
    Signature,
    #[error("it has expired, or is not good yet")]
    Time,
    #[error("it does not claim what it must")]
    Claims,
}

impl Jwt {
    pub fn verify(&self, token: &str, now: u64) -> Result<Verified, BadToken> {
        if token.len() > CREDENTIAL_BYTES {
            return Err(BadToken::TooLong);
        }
        // With what `none` and other unknown algorithms fail, too.
        let header = jsonwebtoken::decode_header(token).map_err(|_| BadToken::Algorithm)?;
        let named = format!("{:?}", header.alg);
        if named != self.algorithm.as_str() || header.crit.is_some() {
            return Err(BadToken::Algorithm);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(BadToken::Malformed)?;
        let (_, payload) = message.split_once('.').ok_or(BadToken::Malformed)?;
        let signature = decode(signature)?;
        let meant = |key: &&Key| match (&header.kid, &key.id) {
            (Some(asked), Some(id)) => asked == id,
            _ => true,
        };
        let signed = (self.keys.read.iter())
            .filter(meant)
            .any(|key| signed(self.algorithm, &key.key, message.as_bytes(), &signature));
        if !signed {
            return Err(BadToken::Signature);
        }
        let claims: BTreeMap<String, Value> =
            serde_json::from_slice(&decode(payload)?).map_err(|_| BadToken::Malformed)?;
        let expires = instant(&claims, "exp")?;
        let from = instant(&claims, "nbf")?;
        let over = expires.is_some_and(|it| it.saturating_add(LEEWAY) <= now);
        let early = from.is_some_and(|it| it > now.saturating_add(LEEWAY));
        if over || early {
            return Err(BadToken::Time);
        }
        let says = |(name, wanted): (&String, &Value)| match claims.get(name) {
            Some(Value::Array(several)) if name == "aud" => several.contains(wanted),
            Some(said) => equal(said, wanted),
            None => false,
        };
        if !self.claims.iter().all(says) {
            return Err(BadToken::Claims);
        }
        let subject = match claims.get("sub") {
            Some(Value::String(subject)) => Some(subject.clone()),
            _ => None,
        };
        Ok(Verified { subject, expires })
    }
}

/// 1 and 1.0 are one number.
fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || one.as_f64() == other.as_f64() && one.is_f64() != other.is_f64()
        }
        _ => one == other,
    }
}

fn decode(part: &str) -> Result<Vec<u8>, BadToken> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| BadToken::Malformed)
}

/// A claim of time: a number, with or without a fraction (RFC 7519, section 2). Anything else
/// under its name is not taken for none.
fn instant(claims: &BTreeMap<String, Value>, name: &str) -> Result<Option<u64>, BadToken> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => match (number.as_u64(), number.as_f64()) {
            (Some(seconds), _) => Ok(Some(seconds)),
            (None, Some(seconds)) if (0.0..1e15).contains(&seconds) => Ok(Some(seconds as u64)),
            _ => Err(BadToken::Time),
        },
        Some(_) => Err(BadToken::Time),
    }
}

fn signed(algorithm: Algorithm, key: &DecodingKey, message: &[u8], given: &[u8]) -> bool {
    use ring::hmac;
    let mac = |algorithm, secret: &[u8]| {
        hmac::verify(&hmac::Key::new(algorithm, secret), message, given).is_ok()
    };
    let rsa = |parameters: &'static signature::RsaParameters| match key.kind() {
        DecodingKeyKind::SecretOrDer(der) => {
            UnparsedPublicKey::new(parameters, der).verify(message, given)
        }
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            RsaPublicKeyComponents { n, e }.verify(parameters, message, given)
        }
    };
    let point = |verifier: &'static dyn signature::VerificationAlgorithm, point: &[u8]| {
        UnparsedPublicKey::new(verifier, point)
            .verify(message, given)
            .is_ok()
    };
    if key.family() != algorithm.family() {
        return false;
    }
    match (algorithm, key.kind()) {
        (Algorithm::RS256, _) => rsa(&signature::RSA_PKCS1_2048_8192_SHA256).is_ok(),
        (Algorithm::RS384, _) => rsa(&signature::RSA_PKCS1_2048_8192_SHA384).is_ok(),
        (Algorithm::RS512, _) => rsa(&signature::RSA_PKCS1_2048_8192_SHA512).is_ok(),
        (Algorithm::HS256, DecodingKeyKind::SecretOrDer(key)) => mac(hmac::HMAC_SHA256, key),
        (Algorithm::HS384, DecodingKeyKind::SecretOrDer(key)) => mac(hmac::HMAC_SHA384, key),
        (Algorithm::HS512, DecodingKeyKind::SecretOrDer(key)) => mac(hmac::HMAC_SHA512, key),
        (Algorithm::ES256, DecodingKeyKind::SecretOrDer(key)) => {
            point(&signature::ECDSA_P256_SHA256_FIXED, key)
        }
        (Algorithm::ES384, DecodingKeyKind::SecretOrDer(key)) => {
            point(&signature::ECDSA_P384_SHA384_FIXED, key)
        }
        (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(key)) => point(&signature::ED25519, key),
        _ => false,
    }
}
