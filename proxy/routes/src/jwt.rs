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

use crate::access::{CREDENTIAL_BYTES, Carrier, Digest};

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
        let keys = Keys::read(written.alg, &written.key).unwrap_or_else(|_| Keys {
            digest: Digest::of(&[written.key.as_bytes()]),
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
    digest: Digest,
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
            digest: Digest::of(&[text.as_bytes()]),
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
    /// Of all that it asks for.
    pub(crate) fn digest(&self) -> Digest {
        let rest = (self.algorithm, &self.sources, &self.claims);
        let rest = serde_json::to_vec(&rest).expect("a gate is JSON");
        Digest::of(&[b"jwt", self.keys.digest.bytes(), &rest])
    }

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

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use ring::rand::SystemRandom;
    use ring::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
    use ring::{hmac, signature};
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const SECRET: &str = "a secret that only two know";
    const RSA: &str = include_str!("../testdata/rsa.pem");
    const RSA_PUBLIC: &str = include_str!("../testdata/rsa.pub.pem");
    const RSA_SHORT: &str = include_str!("../testdata/rsa-1024.pub.pem");

    type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

    /// Something that signs, with its public half as PEM and as JWK.
    struct Signer {
        algorithm: Algorithm,
        sign: Sign,
        key: String,
        jwk: Value,
    }

    fn pem(prefix: &[u8], key: &[u8]) -> String {
        let der = [prefix, key].concat();
        let text = STANDARD.encode(der);
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    }

    fn unpem(text: &str) -> Vec<u8> {
        let inner: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        STANDARD.decode(inner).expect("PEM")
    }

    fn signers() -> Vec<Signer> {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut all = Vec::new();
        for (algorithm, mac) in [
            (Algorithm::HS256, hmac::HMAC_SHA256),
            (Algorithm::HS384, hmac::HMAC_SHA384),
            (Algorithm::HS512, hmac::HMAC_SHA512),
        ] {
            let key = hmac::Key::new(mac, SECRET.as_bytes());
            all.push(Signer {
                algorithm,
                sign: Box::new(move |it| hmac::sign(&key, it).as_ref().to_vec()),
                key: SECRET.into(),
                jwk: json!({ "kty": "oct", "k": b64(SECRET.as_bytes()) }),
            });
        }
        for (algorithm, padding) in [
            (Algorithm::RS256, &signature::RSA_PKCS1_SHA256),
            (Algorithm::RS384, &signature::RSA_PKCS1_SHA384),
            (Algorithm::RS512, &signature::RSA_PKCS1_SHA512),
        ] {
            let pair = RsaKeyPair::from_pkcs8(&unpem(RSA)).expect("a key");
            let (n, e) = {
                let public: ring::rsa::PublicKeyComponents<Vec<u8>> = pair.public().into();
                (public.n, public.e)
            };
            all.push(Signer {
                algorithm,
                sign: Box::new(move |it| {
                    let mut signature = vec![0; pair.public().modulus_len()];
                    pair.sign(padding, &SystemRandom::new(), it, &mut signature)
                        .expect("signed");
                    signature
                }),
                key: RSA_PUBLIC.into(),
                jwk: json!({ "kty": "RSA", "n": b64(&n), "e": b64(&e) }),
            });
        }
        let p256 = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200");
        let p384 = hex::decode("3076301006072a8648ce3d020106052b81040022036200");
        for (algorithm, kind, prefix, curve) in [
            (
                Algorithm::ES256,
                &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
                p256,
                "P-256",
            ),
            (
                Algorithm::ES384,
                &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
                p384,
                "P-384",
            ),
        ] {
            let random = SystemRandom::new();
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("a key");
            let pair = EcdsaKeyPair::from_pkcs8(kind, pkcs8.as_ref(), &random).expect("a key");
            let point = pair.public_key().as_ref().to_vec();
            let (x, y) = point[1..].split_at((point.len() - 1) / 2);
            all.push(Signer {
                algorithm,
                key: pem(&prefix.expect("hex"), &point),
                jwk: json!({ "kty": "EC", "crv": curve, "x": b64(x), "y": b64(y) }),
                sign: Box::new(move |it| pair.sign(&random, it).expect("signed").as_ref().to_vec()),
            });
        }
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key");
        let point = pair.public_key().as_ref().to_vec();
        all.push(Signer {
            algorithm: Algorithm::EdDSA,
            key: pem(
                &hex::decode("302a300506032b6570032100").expect("hex"),
                &point,
            ),
            jwk: json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(&point) }),
            sign: Box::new(move |it| pair.sign(it).as_ref().to_vec()),
        });
        all
    }

    impl Signer {
        fn token(&self, header: Value, claims: Value) -> String {
            let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let message = format!("{}.{}", part(header), part(claims));
            let signature = URL_SAFE_NO_PAD.encode((self.sign)(message.as_bytes()));
            format!("{message}.{signature}")
        }

        fn good(&self, claims: Value) -> String {
            self.token(
                json!({ "alg": self.algorithm.as_str(), "typ": "JWT" }),
                claims,
            )
        }
    }

    fn gate(algorithm: Algorithm, key: &str, claims: Value) -> Jwt {
        Jwt {
            algorithm,
            keys: Keys::read(algorithm, key).expect("a key"),
            sources: vec![Carrier::authorization()],
            claims: serde_json::from_value(claims).expect("claims"),
        }
    }

    #[test]
    fn every_algorithm_is_verified_and_opens_no_other_gate() {
        let signers = signers();
        let claims = json!({ "sub": "ann", "exp": NOW + 60 });
        assert_eq!(signers.len(), Algorithm::ALL.len());
        for signer in &signers {
            let token = signer.good(claims.clone());
            let name = signer.algorithm.as_str();
            let verified = Verified {
                subject: Some("ann".into()),
                expires: Some(NOW + 60),
            };
            let jwks = json!({ "keys": [signer.jwk] }).to_string();
            for key in [&signer.key, &jwks] {
                let gate = gate(signer.algorithm, key, json!({}));
                assert_eq!(gate.verify(&token, NOW).as_ref(), Ok(&verified), "{name}");
                // It survives being kept.
                let kept = serde_json::to_string(&gate).expect("JSON");
                let again: Jwt = serde_json::from_str(&kept).expect("a gate");
                assert_eq!(again.verify(&token, NOW).as_ref(), Ok(&verified), "{name}");
            }
            let gate = gate(signer.algorithm, &signer.key, json!({}));
            for other in &signers {
                if other.algorithm != signer.algorithm {
                    let token = other.good(claims.clone());
                    assert_eq!(gate.verify(&token, NOW), Err(BadToken::Algorithm), "{name}");
                    // The same signature under the gate's own name.
                    let renamed = other.token(json!({ "alg": name }), claims.clone());
                    let refused = gate.verify(&renamed, NOW);
                    assert_eq!(refused, Err(BadToken::Signature), "{name}");
                }
            }
            for at in [0, token.len() / 3, token.len() / 2, token.len() - 10] {
                let mut forged = token.clone().into_bytes();
                forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
                let forged = String::from_utf8(forged).expect("text");
                assert!(gate.verify(&forged, NOW).is_err(), "{name} {at}");
            }
        }
    }

    #[test]
    fn algorithms_are_not_confused() {
        let gate = gate(Algorithm::RS256, RSA_PUBLIC, json!({}));
        let claims = json!({ "sub": "root" });
        // Signed with the public key as if it were a secret.
        for key in [
            RSA_PUBLIC.as_bytes(),
            RSA_PUBLIC.trim().as_bytes(),
            &unpem(RSA_PUBLIC),
        ] {
            for mac in [hmac::HMAC_SHA256, hmac::HMAC_SHA384] {
                let key = hmac::Key::new(mac, key);
                let forger = Signer {
                    algorithm: Algorithm::HS256,
                    sign: Box::new(move |it| hmac::sign(&key, it).as_ref().to_vec()),
                    key: String::new(),
                    jwk: Value::Null,
                };
                assert_eq!(
                    gate.verify(&forger.good(claims.clone()), NOW),
                    Err(BadToken::Algorithm)
                );
                let renamed = forger.token(json!({ "alg": "RS256" }), claims.clone());
                assert_eq!(gate.verify(&renamed, NOW), Err(BadToken::Signature));
            }
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        for alg in ["none", "None", "NONE", "nOnE", "", "RS256 ", "rs256"] {
            for signature in ["", "AAAA"] {
                let token = format!(
                    "{}.{}.{signature}",
                    part(&json!({ "alg": alg })),
                    part(&claims)
                );
                assert_eq!(gate.verify(&token, NOW), Err(BadToken::Algorithm), "{alg}");
            }
        }
        let signer = &signers()[3];
        // A key that the token brings itself is not believed, and what must be understood is not.
        for header in [
            json!({ "alg": "RS256", "crit": ["exp"], "exp": 1 }),
            json!({ "alg": "RS256", "crit": ["b64"], "b64": false }),
        ] {
            assert_eq!(
                gate.verify(&signer.token(header, claims.clone()), NOW),
                Err(BadToken::Algorithm)
            );
        }
        let ed = signers().pop().expect("EdDSA");
        let other = signers().pop().expect("another key");
        let gate = self::gate(Algorithm::EdDSA, &ed.key, json!({}));
        let brought = other.token(
            json!({ "alg": "EdDSA", "jwk": other.jwk, "jku": "https://evil.example" }),
            claims,
        );
        assert_eq!(gate.verify(&brought, NOW), Err(BadToken::Signature));
    }

    #[test]
    fn time_and_claims_are_checked() {
        let signer = &signers()[0];
        let wanted =
            json!({ "iss": "https://id.example", "aud": "hoody", "admin": true, "level": 3 });
        let gate = gate(Algorithm::HS256, SECRET, wanted.clone());
        let with = |changes: Value| {
            let mut claims = wanted.clone();
            let all = claims.as_object_mut().expect("an object");
            for (name, value) in changes.as_object().expect("an object") {
                match value {
                    Value::Null => all.remove(name),
                    value => all.insert(name.clone(), value.clone()),
                };
            }
            gate.verify(&signer.good(claims), NOW).map(|it| it.expires)
        };
        assert_eq!(with(json!({})), Ok(None));
        assert_eq!(with(json!({ "aud": ["other", "hoody"] })), Ok(None));
        assert_eq!(with(json!({ "level": 3.0 })), Ok(None));
        assert_eq!(with(json!({ "exp": NOW as f64 + 0.5 })), Ok(Some(NOW)));
        assert_eq!(
            with(json!({ "exp": NOW - LEEWAY + 1 })),
            Ok(Some(NOW - LEEWAY + 1))
        );
        assert_eq!(with(json!({ "nbf": NOW + LEEWAY })), Ok(None));
        for bad in [
            json!({ "exp": NOW - LEEWAY }),
            json!({ "exp": 0 }),
            json!({ "exp": -1 }),
            json!({ "exp": "tomorrow" }),
            json!({ "exp": [NOW + 60] }),
            json!({ "nbf": NOW + LEEWAY + 1 }),
            json!({ "nbf": true }),
        ] {
            assert_eq!(with(bad.clone()), Err(BadToken::Time), "{bad}");
        }
        for bad in [
            json!({ "iss": null }),
            json!({ "iss": "https://id.example/" }),
            json!({ "iss": ["https://id.example"] }),
            json!({ "aud": null }),
            json!({ "aud": "other" }),
            json!({ "aud": [] }),
            json!({ "admin": "true" }),
            json!({ "admin": false }),
            json!({ "level": "3" }),
        ] {
            assert_eq!(with(bad.clone()), Err(BadToken::Claims), "{bad}");
        }
        let long = signer.good(json!({ "x": "x".repeat(CREDENTIAL_BYTES) }));
        assert_eq!(gate.verify(&long, NOW), Err(BadToken::TooLong));
        for odd in ["", ".", "..", "...", "a.b.c", "e30.e30.e30", "é.é.é"] {
            assert!(gate.verify(odd, NOW).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_set_of_keys_is_chosen_from_by_id() {
        let (one, two) = (signers().pop().expect("one"), signers().pop().expect("two"));
        let named = |signer: &Signer, id: &str| {
            let mut jwk = signer.jwk.clone();
            jwk["kid"] = id.into();
            jwk
        };
        let mut foreign = signers()[3].jwk.clone();
        foreign["kid"] = "rsa".into();
        let set = json!({ "keys": [named(&one, "1"), named(&two, "2"), foreign] }).to_string();
        let gate = gate(Algorithm::EdDSA, &set, json!({}));
        assert_eq!(gate.keys.read.len(), 2);
        let token = |signer: &Signer, id: Option<&str>| {
            let mut header = json!({ "alg": "EdDSA" });
            if let Some(id) = id {
                header["kid"] = id.into();
            }
            gate.verify(&signer.token(header, json!({})), NOW).is_ok()
        };
        assert!(token(&one, Some("1")) && token(&two, Some("2")) && token(&two, None));
        assert!(!token(&one, Some("2")) && !token(&one, Some("rsa")) && !token(&one, Some("")));
        let mut encrypts = named(&one, "1");
        encrypts["use"] = "enc".into();
        let only = |jwk: Value| Keys::read(Algorithm::EdDSA, &json!({ "keys": [jwk] }).to_string());
        assert_eq!(only(encrypts).err(), Some(BadKey::NoKey("EdDSA")));
        let many: Vec<Value> = (0..=KEYS).map(|id| named(&one, &id.to_string())).collect();
        let many = json!({ "keys": many }).to_string();
        assert_eq!(
            Keys::read(Algorithm::EdDSA, &many).err(),
            Some(BadKey::TooManyKeys)
        );
    }

    #[test]
    fn keys_that_fit_no_algorithm_are_refused() {
        let signers = signers();
        let (rsa, p256, p384) = (&signers[3], &signers[6], &signers[7]);
        for (algorithm, text, why) in [
            (Algorithm::HS256, "", BadKey::Empty),
            (Algorithm::HS256, RSA_PUBLIC, BadKey::PublicSecret("HS256")),
            (Algorithm::RS256, "a secret", BadKey::NotPem("RS256")),
            (Algorithm::RS256, RSA, BadKey::Private),
            (Algorithm::RS256, RSA_SHORT, BadKey::WrongKind("RS256")),
            (Algorithm::RS256, &p256.key, BadKey::WrongKind("RS256")),
            (Algorithm::ES256, &p384.key, BadKey::WrongKind("ES256")),
            (Algorithm::ES384, &p256.key, BadKey::WrongKind("ES384")),
            (Algorithm::EdDSA, &rsa.key, BadKey::WrongKind("EdDSA")),
            (Algorithm::ES256, "{\"keys\":[]}", BadKey::NoKey("ES256")),
            (
                Algorithm::HS256,
                &"x".repeat(KEY_BYTES + 1),
                BadKey::TooLong,
            ),
        ] {
            assert_eq!(Keys::read(algorithm, text).err(), Some(why), "{text:.40}");
        }
        assert!(matches!(
            Keys::read(Algorithm::RS256, "{\"keys\":1}"),
            Err(BadKey::NotJwks(_))
        ));
        // One that was kept and is no key opens nothing, and breaks nothing.
        let kept = json!({ "alg": "RS256", "key": "broken", "sources": ["header:authorization"] });
        let gate: Jwt = serde_json::from_value(kept).expect("a gate");
        assert_eq!(
            gate.verify(&rsa.good(json!({})), NOW),
            Err(BadToken::Signature)
        );
        assert!(!format!("{:?}", self::gate(Algorithm::HS256, SECRET, json!({}))).contains(SECRET));
    }
}
