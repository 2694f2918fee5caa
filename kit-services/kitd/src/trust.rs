//! Making the container trust the host's private certificate authorities.

use std::io::Write;
use std::path::Path;

/// Where the host puts the certificates, one PEM file each.
pub const OFFERED: &str = "/opt/hoody/ca";
/// The bundle that programs read.
pub const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Where Debian's `update-ca-certificates` looks when it makes the bundle anew.
pub const LOCAL: &str = "/usr/local/share/ca-certificates";

/// Add each offered certificate to the bundle and to what the bundle is made from, where it is
/// not there yet. Returns how many were added.
pub fn install(offered: &Path, bundle: &Path, local: &Path) -> std::io::Result<usize> {
    let entries = match std::fs::read_dir(offered) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let known = match std::fs::read_to_string(bundle) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let mut added = 0;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "crt") {
            continue;
        }
        let certificate = std::fs::read_to_string(&path)?;
        let certificate = certificate.trim();
        if certificate.is_empty() || known.contains(certificate) {
            continue;
        }
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(bundle)?;
        let gap = if known.is_empty() || known.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        writeln!(file, "{gap}{certificate}")?;
        if let (Ok(()), Some(name)) = (std::fs::create_dir_all(local), path.file_name()) {
            std::fs::write(local.join(name), format!("{certificate}\n"))?;
        }
        added += 1;
    }
    Ok(added)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_added_once() {
        let root = tempfile::tempdir().unwrap();
        let (offered, bundle, local) = (
            root.path().join("ca"),
            root.path().join("bundle.crt"),
            root.path().join("local"),
        );
        std::fs::create_dir(&offered).unwrap();
        std::fs::write(
            offered.join("host.crt"),
            "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        std::fs::write(offered.join("notes.txt"), "not a certificate").unwrap();
        std::fs::write(&bundle, "old").unwrap();
        assert_eq!(install(&offered, &bundle, &local).unwrap(), 1);
        assert_eq!(install(&offered, &bundle, &local).unwrap(), 0);
        let text = std::fs::read_to_string(&bundle).unwrap();
        assert!(text.starts_with("old\n-----BEGIN"), "{text}");
        assert_eq!(text.matches("BEGIN").count(), 1);
        assert!(local.join("host.crt").exists());
    }

    #[test]
    fn a_host_without_certificates_is_fine() {
        let root = tempfile::tempdir().unwrap();
        let nowhere = root.path().join("ca");
        assert_eq!(
            install(&nowhere, &root.path().join("b"), &root.path().join("l")).unwrap(),
            0
        );
    }
}
