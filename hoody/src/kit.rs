//! What the node hands to every container, read-only: the kit's program, the certificates to
//! trust, and where the node is.
//!
//! ```text
//! kit/bin/kitd    the program
//!    /deno        the runtime of scripts
//!    /ca/*.crt    the private authority, and those that this machine was told to trust
//!    /kit.json    the domain, and where the proxy answers for containers
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context, bail};
use serde::Serialize;

use crate::config::Config;
use crate::files;
use crate::state::State;

/// Where Debian keeps certificates that its administrator added.
const ADDED: &str = "/usr/local/share/ca-certificates";
/// The largest certificate file that is handed on.
const CERTIFICATE_BYTES: u64 = 1 << 20;

/// What `kit.json` says.
#[derive(Serialize)]
struct Host<'a> {
    domain: &'a str,
    local: bool,
    gateway: IpAddr,
    http_port: u16,
    https_port: u16,
    /// How this machine reaches the web, for containers that share its way out.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    environment: BTreeMap<&'static str, String>,
}

/// Bring the tree up to date. What is there already and right is not touched, so that a container
/// never sees a part of a file.
pub fn install(
    config: &Config,
    state: &State,
    ca: &str,
    gateway: Option<IpAddr>,
    environment: BTreeMap<&'static str, String>,
) -> anyhow::Result<()> {
    let kit = state.kit();
    install_program(&config.kitd, &kit.join("bin/kitd"))?;
    install_certificates(&kit.join("ca"), ca, Path::new(ADDED))?;
    let host = Host {
        domain: &config.domain,
        local: config.zone.is_local(),
        gateway: gateway.unwrap_or(Ipv4Addr::LOCALHOST.into()),
        http_port: config.http,
        https_port: config.https,
        environment,
    };
    let text = serde_json::to_vec_pretty(&host).expect("plain JSON");
    write_changed(&kit.join("kit.json"), &text)
}

/// Bring the runtime of scripts, from where `setup/deno.sh` keeps it. Without it, everything but
/// scripts works; what is missing, their service says.
pub fn install_runtime(config: &Config, state: &State) -> anyhow::Result<()> {
    let script = config.setup.join("deno.sh");
    let output = std::process::Command::new(&script)
        .arg("--cache")
        .arg(config.images.with_file_name("tools"))
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("could not run {}", script.display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", script.display(), output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let built = Path::new(text.trim());
    let to = state.kit().join("deno");
    let edition = built.file_name().unwrap_or_default().as_encoded_bytes();
    let mark = to.join("edition");
    if fs::read(&mark).is_ok_and(|before| before == edition) {
        return Ok(());
    }
    files::directory(&to, 0o755)?;
    for (name, mode) in [
        ("acorn.mjs", 0o644),
        ("acorn.LICENSE", 0o644),
        ("deno", 0o755),
    ] {
        files::copy(&built.join(name), &to.join(name), mode)?;
    }
    files::write(&mark, edition, 0o644)
}

fn install_program(from: &Path, to: &Path) -> anyhow::Result<()> {
    if !from.is_file() {
        bail!(
            "there is no kit at {}; build it, or name it with --kitd FILE",
            from.display()
        );
    }
    if same(from, to).unwrap_or(false) {
        return Ok(());
    }
    files::copy(from, to, 0o755)
}

/// Whether two files have the same contents; an error where one cannot be read.
fn same(one: &Path, other: &Path) -> std::io::Result<bool> {
    const PART: usize = 64 << 10;
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut here, mut there) = (vec![0; PART], vec![0; PART]);
    loop {
        let read = one.read(&mut here)?;
        if read == 0 {
            return Ok(true);
        }
        other.read_exact(&mut there[..read])?;
        if here[..read] != there[..read] {
            return Ok(false);
        }
    }
}

/// Have exactly these certificates in `directory`: `ca`, and a file for each found below `added`.
fn install_certificates(directory: &Path, ca: &str, added: &Path) -> anyhow::Result<()> {
    let mut wanted = BTreeMap::from([("hoody.crt".to_owned(), ca.to_owned())]);
    let mut queue = vec![added.to_owned()];
    while let Some(place) = queue.pop() {
        let Ok(entries) = fs::read_dir(&place) else {
            continue;
        }; // most machines have none
        for entry in entries.flatten() {
            let (path, kind) = (entry.path(), fs::metadata(entry.path()));
            match kind {
                Ok(kind) if kind.is_dir() && !entry.path().is_symlink() => queue.push(path),
                Ok(kind) if kind.is_file() && kind.len() <= CERTIFICATE_BYTES => {
                    if let Some((name, text)) = certificate(&path, added)
                        && text.trim() != ca.trim()
                    {
                        wanted.insert(name, text);
                    }
                }
                _ => {}
            }
        }
    }
    for (name, text) in &wanted {
        write_changed(&directory.join(name), text.as_bytes())?;
    }
    let entries = fs::read_dir(directory)
        .with_context(|| format!("could not look into {}", directory.display()))?;
    for entry in entries.flatten() {
        if entry
            .file_name()
            .to_str()
            .is_none_or(|name| !wanted.contains_key(name))
        {
            files::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// The name and text under which a certificate of this machine is handed on.
fn certificate(path: &Path, added: &Path) -> Option<(String, String)> {
    if path.extension()? != "crt" {
        return None;
    }
    let text = fs::read_to_string(path)
        .ok()
        .filter(|text| text.contains("-----BEGIN CERTIFICATE-----"))?;
    let name = path.strip_prefix(added).ok()?.to_str()?.replace('/', "-");
    Some((format!("host-{name}"), text))
}

fn write_changed(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|before| before == bytes) {
        return Ok(());
    }
    files::write(path, bytes, 0o644)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n";

    #[test]
    fn the_program_is_replaced_only_where_it_differs() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::write(&from, "one").unwrap();
        install_program(&from, &to).unwrap();
        let inode = || fs::metadata(&to).unwrap().ino();
        let (first, mode) = (inode(), fs::metadata(&to).unwrap().mode() & 0o777);
        assert_eq!(mode, 0o755);
        install_program(&from, &to).unwrap();
        assert_eq!(inode(), first);
        fs::write(&from, "two").unwrap(); // of the same length
        let running = File::open(&to).unwrap();
        install_program(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "two");
        assert_eq!(
            std::io::read_to_string(running).unwrap(),
            "one",
            "whoever has the old one keeps it"
        );
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            2,
            "no drafts stay"
        );
    }

    #[test]
    fn a_missing_program_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let error = install_program(&directory.path().join("none"), &directory.path().join("to"))
            .unwrap_err();
        assert!(error.to_string().contains("--kitd FILE"), "{error}");
    }

    #[test]
    fn certificates_follow_the_machine() {
        let directory = tempfile::tempdir().unwrap();
        let (ours, added) = (directory.path().join("ca"), directory.path().join("added"));
        fs::create_dir(&ours).unwrap();
        fs::create_dir_all(added.join("sub")).unwrap();
        fs::write(added.join("one.crt"), PEM).unwrap();
        fs::write(added.join("sub/two.crt"), PEM).unwrap();
        fs::write(added.join("own.crt"), format!("{PEM}own")).unwrap();
        fs::write(added.join("notes.txt"), PEM).unwrap();
        fs::write(added.join("binary.crt"), [0xff, 0xfe]).unwrap();
        fs::write(ours.join("stale.crt"), PEM).unwrap();
        let names = || {
            let mut names: Vec<_> = fs::read_dir(&ours)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        install_certificates(&ours, &format!("{PEM}own"), &added).unwrap();
        assert_eq!(names(), ["hoody.crt", "host-one.crt", "host-sub-two.crt"]);
        fs::remove_file(added.join("one.crt")).unwrap();
        install_certificates(&ours, PEM, &added).unwrap();
        assert_eq!(names(), ["hoody.crt", "host-own.crt"]);
    }
}
