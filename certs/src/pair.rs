//! A certificate from outside, with its key: the texts that files and directories hold.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use crate::names::canonical;

/// A chain, its key, and what the first certificate says of itself.
#[derive(Debug, Clone)]
pub struct Pair {
    pub certified: Arc<CertifiedKey>,
    /// The DNS names it is for, in lower case; a wildcard begins with `*.`.
    pub names: Vec<String>,
    pub begins: SystemTime,
    pub ends: SystemTime,
}

impl Pair {
    /// Read a chain and a key in PEM form, which may be the same text. Says what is wrong.
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Pair, String> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("its certificates are not PEM: {error}"))?;
        let leaf = chain.first().ok_or("it holds no certificate")?;
        let (names, begins, ends) = facts(leaf)?;
        if names.is_empty() {
            return Err("its certificate is for no DNS name".to_owned());
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| format!("it holds no private key in PEM form: {error}"))?;
        let key = ring::sign::any_supported_type(&key)
            .map_err(|error| format!("its key is of no use: {error}"))?;
        let certified = CertifiedKey::new(chain, key);
        certified
            .keys_match()
            .map_err(|_| "its certificate belongs to another key".to_owned())?;
        Ok(Pair {
            certified: Arc::new(certified),
            names,
            begins,
            ends,
        })
    }

    /// Whether it is for all of these names, wildcards as they are written.
    pub fn is_for(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.names.contains(name))
    }

    /// Its first certificate.
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.certified.cert[0]
    }
}

/// Names, beginning and end.
fn facts(leaf: &CertificateDer<'_>) -> Result<(Vec<String>, SystemTime, SystemTime), String> {
    let (_, parsed) = X509Certificate::from_der(leaf)
        .map_err(|error| format!("its certificate cannot be parsed: {error}"))?;
    let mut names = Vec::new();
    for extension in parsed.extensions() {
        if let ParsedExtension::SubjectAlternativeName(list) = extension.parsed_extension() {
            for name in &list.general_names {
                if let GeneralName::DNSName(name) = name {
                    names.push(canonical(name).into_owned());
                }
            }
        }
    }
    let time = |seconds: i64| {
        u64::try_from(seconds)
            .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
            .map_err(|_| "its certificate is of before 1970".to_owned())
    };
    let validity = parsed.validity();
    Ok((
        names,
        time(validity.not_before.timestamp())?,
        time(validity.not_after.timestamp())?,
    ))
}
