//! Making this machine's programs trust the node's private authority, and taking that back.
//!
//! | store | whose | how |
//! |---|---|---|
//! | the system's | curl, git, Python, most others | a file among its anchors, and its own command |
//! | NSS | Chromium and its relatives; each profile of Firefox | certutil(1) of NSS |
//! | Java | each Java that keeps a store of its own | keytool |
//!
//! What is put in bears a name made from the certificate, so that putting it in twice changes
//! nothing and taking it out takes out nothing else.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, ValueHint};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use crate::config::{self, Config, Person};
use crate::files;
use crate::progress::say;
use crate::state::State;

/// Where systems keep the anchors that an administrator adds, and how they are put into effect:
/// after an addition, after a removal.
const SYSTEMS: [System; 4] = [
    // Debian, Ubuntu, Alpine
    System {
        anchors: "/usr/local/share/ca-certificates",
        added: &["update-ca-certificates"],
        removed: &["update-ca-certificates", "--fresh"],
    },
    // Fedora, RHEL
    System {
        anchors: "/etc/pki/ca-trust/source/anchors",
        added: &["update-ca-trust", "extract"],
        removed: &["update-ca-trust", "extract"],
    },
    // openSUSE
    System {
        anchors: "/etc/pki/trust/anchors",
        added: &["update-ca-certificates"],
        removed: &["update-ca-certificates"],
    },
    // Arch
    System {
        anchors: "/etc/ca-certificates/trust-source/anchors",
        added: &["trust", "extract-compat"],
        removed: &["trust", "extract-compat"],
    },
];

/// Databases of browsers that share one, below a person's home.
const SHARED_DATABASES: [&str; 3] = [
    ".pki/nssdb",
    ".local/share/pki/nssdb",
    "snap/chromium/current/.pki/nssdb",
];
/// What makes the first of them where it is missing.
const CHROMIUMS: [&str; 5] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "brave-browser",
    "microsoft-edge",
];
/// Directories of Firefox's profiles, below a person's home.
const PROFILES: [&str; 3] = [
    ".mozilla/firefox",
    "snap/firefox/common/.mozilla/firefox",
    ".var/app/org.mozilla.firefox/.mozilla/firefox",
];
/// Where Javas are installed.
const JAVAS: &str = "/usr/lib/jvm";
/// The store that Debian's Javas share, and that its system store's command writes.
const SHARED_JAVA: &str = "/etc/ssl/certs/java/cacerts";
/// What a Java's own store is locked with, by convention.
const JAVA_PASSWORD: &str = "changeit";
/// Is in the state directory while the node's authority is trusted.
const MARKER: &str = "trusted";
/// Profiles and Javas that are looked at in one directory.
const MOST: usize = 64;

struct System {
    anchors: &'static str,
    added: &'static [&'static str],
    removed: &'static [&'static str],
}

pub fn command() -> clap::Command {
    let file = Arg::new("ca-cert")
        .long("ca-cert")
        .value_name("FILE")
        .value_hint(ValueHint::FilePath)
        .help("Certificate of an authority, instead of that of this machine's node");
    let remove = Arg::new("remove")
        .long("remove")
        .action(ArgAction::SetTrue)
        .help("Take it out again");
    config::options(clap::Command::new("trust").about(
        "Make this machine's programs and browsers trust the node's private authority: the system's store as \
         root, the browsers of whoever calls it, Java",
    ))
    .arg(file)
    .arg(remove)
}

pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let want = if matches.get_flag("remove") {
        Want::Out
    } else {
        Want::In
    };
    let fine = match matches.get_one::<String>("ca-cert") {
        Some(file) => settle(&Anchor::read(Path::new(file))?, want),
        None => {
            let state = State::open(&Config::load(matches)?.state)?;
            let anchor = Anchor::read(&certs::Local::certificate_path(&state.pki()))?;
            mark(&state, want);
            settle(&anchor, want)
        }
    };
    Ok(if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Remember whether a node's authority is trusted, so that what removes the node asks the stores. Who
/// may not write there, because the node is root's, has to take it out by hand.
fn mark(state: &State, want: Want) {
    let marker = state.root().join(MARKER);
    let _ = match want {
        Want::In => files::write(&marker, b"", 0o600),
        Want::Out => files::remove(&marker),
    };
}

/// Take the authority of a node out of every store that [`run`] put it into.
pub fn forget(state: &State) {
    let anchor = Anchor::read(&certs::Local::certificate_path(&state.pki()));
    if let (true, Ok(anchor)) = (state.root().join(MARKER).exists(), anchor) {
        settle(&anchor, Want::Out);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    In,
    Out,
}

/// What became of one store.
enum Done {
    Changed,
    /// It was so already.
    Same,
    /// There is nothing of the kind, or another store stands for it; why.
    Passed(String),
}

/// A certificate to be trusted.
struct Anchor {
    file: PathBuf,
    /// `hoody-` and eight digits of its SHA-256.
    name: String,
}

impl Anchor {
    fn read(file: &Path) -> anyhow::Result<Anchor> {
        let certificate = CertificateDer::from_pem_file(file)
            .with_context(|| format!("{} holds no certificate in PEM form", file.display()))?;
        let digest = Sha256::digest(&certificate);
        let name = digest.iter().take(4).map(|byte| format!("{byte:02x}"));
        Ok(Anchor {
            file: std::path::absolute(file)
                .with_context(|| format!("{} is not a path", file.display()))?,
            name: format!("hoody-{}", name.collect::<String>()),
        })
    }
}

/// Put the anchor into every store there is, or take it out, and say what became of each. Returns
/// whether nothing failed.
fn settle(anchor: &Anchor, want: Want) -> bool {
    let mut fine = true;
    let mut tell = |store: &str, done: anyhow::Result<Done>| match (done, want) {
        (Ok(Done::Changed), Want::In) => say(&format!("{store}: trusts {}", anchor.name)),
        (Ok(Done::Changed), Want::Out) => say(&format!("{store}: {} is taken out", anchor.name)),
        (Ok(Done::Same), Want::In) => say(&format!("{store}: trusted {} already", anchor.name)),
        (Ok(Done::Same), Want::Out) => say(&format!("{store}: has no {}", anchor.name)),
        (Ok(Done::Passed(why)), _) => say(&format!("{store}: {why}")),
        (Err(error), _) => {
            fine = false;
            say(&format!("{store}: failed: {error:#}"));
        }
    };
    tell("system", system(anchor, want));
    match config::person() {
        Some(person) => browsers(anchor, want, &person, &mut tell),
        None => tell("browsers", Ok(Done::Passed("HOME is not set".to_owned()))),
    }
    javas(anchor, want, &mut tell);
    fine
}

fn system(anchor: &Anchor, want: Want) -> anyhow::Result<Done> {
    let Some(system) = SYSTEMS
        .iter()
        .find(|system| Path::new(system.anchors).is_dir() && find(system.added[0]).is_some())
    else {
        return Ok(Done::Passed("no store of a known kind".to_owned()));
    };
    let place = Path::new(system.anchors).join(format!("{}.crt", anchor.name));
    if !rustix::process::geteuid().is_root() && place.exists() != (want == Want::In) {
        return Ok(Done::Passed(format!(
            "only root may change {}; run this once more with sudo",
            system.anchors
        )));
    }
    let command = match (want, place.exists()) {
        (Want::In, true) | (Want::Out, false) => return Ok(Done::Same),
        (Want::In, false) => {
            files::copy(&anchor.file, &place, 0o644)?;
            system.added
        }
        (Want::Out, true) => {
            files::remove(&place)?;
            system.removed
        }
    };
    let settled = output(Command::new(command[0]).args(&command[1..]));
    if settled.is_err() && want == Want::In {
        files::remove(&place)?; // so that the next attempt is one
    }
    settled?;
    Ok(Done::Changed)
}

fn browsers(
    anchor: &Anchor,
    want: Want,
    person: &Person,
    tell: &mut impl FnMut(&str, anyhow::Result<Done>),
) {
    let Some(certutil) = find("certutil") else {
        let why = "certutil is missing; install libnss3-tools (Debian), nss-tools (Fedora) or nss (Arch) \
                   where browsers shall trust it";
        return tell("browsers", Ok(Done::Passed(why.to_owned())));
    };
    let nss = Nss { certutil, person };
    let mut databases = Vec::new();
    for shared in SHARED_DATABASES {
        let directory = person.home.join(shared);
        if directory.join("cert9.db").exists() {
            databases.push(("Chromium", directory));
        }
    }
    if databases.is_empty() && want == Want::In && CHROMIUMS.iter().any(|name| find(name).is_some())
    {
        let directory = person.home.join(SHARED_DATABASES[0]);
        match nss.create(&directory) {
            Ok(()) => databases.push(("Chromium", directory)),
            Err(error) => tell("Chromium", Err(error)),
        }
    }
    for profiles in PROFILES {
        for profile in children(&person.home.join(profiles)) {
            if profile.join("cert9.db").exists() {
                databases.push(("Firefox", profile));
            }
        }
    }
    if databases.is_empty() {
        let why = format!("no browser's store in {}", person.home.display());
        return tell("browsers", Ok(Done::Passed(why)));
    }
    for (browser, directory) in databases {
        let store = format!("{browser} ({})", directory.display());
        tell(&store, nss.settle(&directory, anchor, want));
    }
}

/// The databases of one person's browsers, which are touched in that person's name: root's files in
/// them would lock the browser out.
struct Nss<'a> {
    certutil: PathBuf,
    person: &'a Person,
}

impl Nss<'_> {
    fn command(&self, directory: &Path, arguments: &[&str]) -> Command {
        let mut command = self.as_person(&self.certutil);
        let mut database = std::ffi::OsString::from("sql:");
        database.push(directory);
        command.args(arguments).arg("-d").arg(database);
        command
    }

    fn as_person(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("HOME", &self.person.home);
        if let Some((user, group)) = self.person.instead {
            command.uid(user).gid(group);
        }
        command
    }

    fn create(&self, directory: &Path) -> anyhow::Result<()> {
        output(
            self.as_person(Path::new("mkdir"))
                .args(["-p", "-m", "700"])
                .arg(directory),
        )?;
        output(&mut self.command(directory, &["-N", "--empty-password"]))
    }

    fn has(&self, directory: &Path, name: &str) -> anyhow::Result<bool> {
        let mut command = self.command(directory, &["-L", "-n", name]);
        let status = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        Ok(status.context("could not run certutil")?.success())
    }

    fn settle(&self, directory: &Path, anchor: &Anchor, want: Want) -> anyhow::Result<Done> {
        let is_in = self.has(directory, &anchor.name)?;
        match want {
            Want::In if !is_in => {
                // an authority for servers, and for nothing else
                let add = ["-A", "-t", "C,,", "-n", &anchor.name, "-i"];
                let mut command = self.command(directory, &[]);
                output(command.args(add).arg(&anchor.file))?;
            }
            Want::Out if is_in => {
                output(&mut self.command(directory, &["-D", "-n", &anchor.name]))?;
            }
            _ => return Ok(Done::Same),
        }
        Ok(Done::Changed)
    }
}

fn javas(anchor: &Anchor, want: Want, tell: &mut impl FnMut(&str, anyhow::Result<Done>)) {
    let mut homes = children(Path::new(JAVAS));
    homes.extend(config::java_home());
    let mut seen = Vec::new();
    for home in homes {
        let keytool = home.join("bin/keytool");
        let Ok(keystore) = home.join("lib/security/cacerts").canonicalize() else {
            continue;
        };
        if !keytool.exists() || seen.contains(&keystore) {
            continue;
        }
        let store = format!("Java ({})", keystore.display());
        tell(&store, java(&keytool, &keystore, anchor, want));
        seen.push(keystore);
    }
}

fn java(keytool: &Path, keystore: &Path, anchor: &Anchor, want: Want) -> anyhow::Result<Done> {
    if keystore == Path::new(SHARED_JAVA) {
        return Ok(Done::Passed("follows the system's store".to_owned()));
    }
    let call = |act: &str| {
        let mut command = Command::new(keytool);
        command.args([act, "-storepass", JAVA_PASSWORD, "-alias", &anchor.name]);
        command.arg("-keystore").arg(keystore);
        command
    };
    let is_in = output(&mut call("-list")).is_ok();
    if is_in == (want == Want::In) {
        return Ok(Done::Same);
    }
    let parent = keystore.parent().unwrap_or(keystore);
    if rustix::fs::access(parent, rustix::fs::Access::WRITE_OK).is_err() {
        let why = "belongs to another; run this once more with sudo";
        return Ok(Done::Passed(why.to_owned()));
    }
    match want {
        Want::In => output(
            call("-importcert")
                .args(["-noprompt", "-trustcacerts", "-file"])
                .arg(&anchor.file),
        )?,
        Want::Out => output(&mut call("-delete"))?,
    }
    Ok(Done::Changed)
}

/// Run a program; what it said is the error where it fails.
fn output(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("could not run {name}"))?;
    if !done.status.success() {
        let said = [done.stderr, done.stdout].concat();
        let said = String::from_utf8_lossy(&said);
        bail!("{name} ended with {}: {}", done.status, said.trim());
    }
    Ok(())
}

fn find(program: &str) -> Option<PathBuf> {
    config::path().find_map(|directory| {
        let file = directory.join(program);
        file.is_file().then_some(file)
    })
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut children: Vec<_> = entries.take(MOST).map(|entry| entry.path()).collect();
    children.sort();
    children
}
