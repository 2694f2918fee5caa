//! A certificate for servers of a measurement's own.

use std::path::Path;

/// Write `certificate.pem` and `key.pem` (ECDSA P-256) for these names into a directory, and both
/// as `both.pem`, which is what HAProxy wants.
pub fn write(directory: &Path, names: &[String]) -> anyhow::Result<()> {
    let parameters = rcgen::CertificateParams::new(names)?;
    let key = rcgen::KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?.pem();
    let key = key.serialize_pem();
    std::fs::write(directory.join("certificate.pem"), &certificate)?;
    std::fs::write(directory.join("key.pem"), &key)?;
    std::fs::write(directory.join("both.pem"), certificate + &key)?;
    Ok(())
}
