//! The private certificate authority of one domain.
//!
//! Its certificate says that it vouches for names under that domain and for nothing else (RFC
//! 5280, section 4.2.1.10), so that whoever trusts it does not trust this machine's
//! administrator with the rest of the web.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use crate::Error;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long an authority vouches.
pub const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3652 * DAY.as_secs());
/// How long a leaf is good; browsers refuse more than 398 days.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(90 * DAY.as_secs());
/// A leaf is replaced when less than this is left: a third of its lifetime.
pub const RENEW_BEFORE: Duration = Duration::from_secs(30 * DAY.as_secs());
/// Certificates begin a little in the past, for clients whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(3600);

/// A key and the certificate that lets it vouch.
pub struct Authority {
    pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    ends: SystemTime,
}

/// The two texts an authority is kept as.
pub struct Texts {
    pub key: String,
    pub certificate: String,
}

/// Why two texts make no authority.
#[derive(Debug, PartialEq, Eq)]
pub enum Flaw {
    /// What is wrong with the key.
    Key(String),
    /// What is wrong with the certificate.
    Certificate(String),
    /// It vouches for another domain.
    Domain(String),
}

impl Authority {
    /// A new key, or the given one, vouching for names under `domain`.
    pub fn create(domain: &str, key: Option<KeyPair>, now: SystemTime) -> Result<Texts, Error> {
        let failed = |source| Error::Make {
            what: format!("an authority for {domain}"),
            source,
        };
        let key = match key {
            Some(key) => key,
            None => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?,
        };
        let mut params = CertificateParams::default();
        params.not_before = date(now - BACKDATED)?;
        params.not_after = date(now + AUTHORITY_LIFETIME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(domain.to_owned())],
            // Only kinds of names that are mentioned are constrained.
            excluded_subtrees: vec![
                GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
                GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
            ],
        });
        // Two authorities in one trust store must not have the same name.
        let id = params.key_identifier(&key);
        let id: String = id
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Hoody private CA {id}"));
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(Texts {
            key: key.serialize_pem(),
            certificate: certificate.pem(),
        })
    }

    /// Read what [`Authority::create`] made.
    pub fn read(texts: &Texts, domain: &str) -> Result<Authority, Flaw> {
        let key = read_key(&texts.key).map_err(Flaw::Key)?;
        let flaw = |what: &str| Flaw::Certificate(what.to_owned());
        let certificate = CertificateDer::from_pem_slice(texts.certificate.as_bytes())
            .map_err(|_| flaw("it holds no certificate in PEM form"))?;
        let (rest, parsed) = X509Certificate::from_der(&certificate)
            .map_err(|_| flaw("its certificate cannot be parsed"))?;
        if !rest.is_empty() || !parsed.is_ca() {
            return Err(flaw("its certificate is not one of an authority"));
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(flaw(
                "its certificate belongs to another key than the one beside it",
            ));
        }
        let permitted = permitted(&parsed);
        if permitted != [domain] {
            return Err(Flaw::Domain(permitted.join(", ")));
        }
        let ends = u64::try_from(parsed.validity().not_after.timestamp())
            .map_err(|_| flaw("its certificate ended before 1970"))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|error| Flaw::Certificate(error.to_string()))?;
        Ok(Authority {
            pem: texts.certificate.clone(),
            ends: SystemTime::UNIX_EPOCH + Duration::from_secs(ends),
            certificate: certificate.clone(),
            issuer,
        })
    }

    /// Its certificate, as a PEM text.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// When it stops vouching.
    pub fn ends(&self) -> SystemTime {
        self.ends
    }

    /// A new key and a certificate for `pattern`: a name, or `*.` and a name.
    pub fn mint(&self, pattern: &str, now: SystemTime) -> Result<Leaf, Error> {
        let failed = |source| Error::Make {
            what: format!("a certificate for {pattern}"),
            source,
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::default();
        let ends = (now + LEAF_LIFETIME).min(self.ends);
        params.not_before = date(now - BACKDATED)?;
        params.not_after = date(ends)?;
        // Names longer than a common name can be are in the list of names only.
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Hoody");
        params.subject_alt_names = vec![SanType::DnsName(pattern.try_into().map_err(failed)?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        let pem = format!("{}{}", key.serialize_pem(), certificate.pem());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Leaf::new(certificate.der().clone(), &key, pem, ends).map_err(|source| Error::Use {
            name: pattern.to_owned(),
            source,
        })
    }

    /// Read what [`Authority::mint`] made for `pattern`; says why where it is no longer of use.
    pub fn read_leaf(&self, pem: &str, pattern: &str, now: SystemTime) -> Result<Leaf, String> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| format!("no certificate in it: {error}"))?;
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| format!("no key in it: {error}"))?;
        self.vouches(&certificate, pattern, now)?;
        let (_, parsed) =
            X509Certificate::from_der(&certificate).map_err(|error| error.to_string())?;
        let ends = u64::try_from(parsed.validity().not_after.timestamp())
            .map_err(|error| error.to_string())?;
        let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(ends);
        Leaf::new(certificate.clone(), &key, pem.to_owned(), ends)
            .map_err(|error| error.to_string())
    }

    /// Whether a client that trusts this authority takes the certificate for `pattern`.
    fn vouches(
        &self,
        leaf: &CertificateDer<'_>,
        pattern: &str,
        now: SystemTime,
    ) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.certificate.clone())
            .map_err(|error| error.to_string())?;
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| error.to_string())?;
        let host = pattern.replacen('*', "any", 1);
        let host = ServerName::try_from(host).map_err(|error| error.to_string())?;
        let since = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(|error| error.to_string())?;
        verifier
            .verify_server_cert(leaf, &[], &host, &[], UnixTime::since_unix_epoch(since))
            .map(|_| ())
            .map_err(|error| error.to_string())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

/// Read the key of an authority; says what is wrong with it.
pub fn read_key(pem: &str) -> Result<KeyPair, String> {
    KeyPair::from_pem(pem).map_err(|_| "it holds no private key in PEM form".to_owned())
}

/// The DNS names below which a certificate may vouch.
fn permitted(certificate: &X509Certificate<'_>) -> Vec<String> {
    let constraints =
        certificate
            .extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::NameConstraints(constraints) => Some(constraints),
                _ => None,
            });
    let subtrees = constraints.and_then(|constraints| constraints.permitted_subtrees.as_ref());
    subtrees
        .into_iter()
        .flatten()
        .map(|subtree| match &subtree.base {
            GeneralName::DNSName(name) => (*name).to_owned(),
            other => format!("{other:?}"),
        })
        .collect()
}

/// A certificate for one name or wildcard, with its key.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub certified: Arc<CertifiedKey>,
    /// Key and certificate, as they are kept.
    pem: String,
    ends: SystemTime,
}

impl Leaf {
    fn new(
        certificate: CertificateDer<'static>,
        key: &PrivateKeyDer<'_>,
        pem: String,
        ends: SystemTime,
    ) -> Result<Leaf, rustls::Error> {
        let key = ring::sign::any_supported_type(key)?;
        let certified = CertifiedKey::new(vec![certificate], key);
        certified.keys_match()?;
        Ok(Leaf {
            certified: Arc::new(certified),
            pem,
            ends,
        })
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub fn ends(&self) -> SystemTime {
        self.ends
    }

    /// Whether it is time for the next one.
    pub fn is_due(&self, now: SystemTime) -> bool {
        now + RENEW_BEFORE >= self.ends
    }
}

/// A time as certificates have it: whole seconds, so that what is kept and what was meant agree.
fn date(time: SystemTime) -> Result<OffsetDateTime, Error> {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map(|since| since.as_secs());
    let seconds = seconds.ok().and_then(|seconds| i64::try_from(seconds).ok());
    seconds
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(Error::Clock { now: time })
}
