//! Where certificates come from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use certs::acme::{LETS_ENCRYPT, LETS_ENCRYPT_STAGING};
use routes::Zone;

use super::Value;

/// Where certificates come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The private authority of this node.
    Local,
    /// A directory that speaks ACME.
    Acme,
    /// Files that somebody else makes.
    Files,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Local => "local",
            Mode::Acme => "acme",
            Mode::Files => "files",
        }
    }
}

/// What is set about certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates {
    pub mode: Mode,
    /// The directory of the files; there is one where that is the mode.
    pub files: PathBuf,
    /// Roots to trust beside the system's.
    pub root: Option<PathBuf>,
    /// What is kept of directories.
    pub store: PathBuf,
    /// The URL of the directory.
    pub directory: String,
    /// As `mailto:` URLs.
    pub contacts: Vec<String>,
    /// An external account: its key identifier and the file with its key.
    pub external: Option<(String, PathBuf)>,
}

pub(super) fn read(
    values: &BTreeMap<&'static str, Value>,
    state: &Path,
    zone: &Zone,
) -> anyhow::Result<Certificates> {
    let path = |key: &str| values.get(key).map(|value| PathBuf::from(&value.text));
    let mode = match values.get("certificates.mode") {
        None => Mode::Local,
        Some(Value { text, source }) => match text.as_str() {
            "local" => Mode::Local,
            "acme" => Mode::Acme,
            "files" => Mode::Files,
            other => {
                bail!("{source}: no mode is called `{other}`; there are local, acme and files")
            }
        },
    };
    let files = path("certificates.files");
    if mode == Mode::Files && files.is_none() {
        bail!("certificates come from files: name their directory with --certificates-files");
    }
    if mode == Mode::Acme && zone.is_local() {
        let domain = zone.api().trim_start_matches("api.");
        bail!(
            "no directory gives certificates for {domain}, which is a name of this machine alone; \
             set --domain to one of yours, or --certificates-mode to local"
        );
    }
    let directory = directory(values.get("acme.directory"), values.get("acme.staging"))?;
    let external = match (values.get("eab.id"), path("eab.key")) {
        (Some(id), Some(key)) => Some((id.text.clone(), key)),
        (None, None) => None,
        _ => bail!("--eab-id and --eab-key belong together"),
    };
    Ok(Certificates {
        mode,
        files: files.unwrap_or_default(),
        root: path("certificates.root"),
        store: path("certificates.store").unwrap_or_else(|| state.join("acme")),
        directory,
        contacts: contacts(values.get("acme.contact"))?,
        external,
    })
}

fn directory(named: Option<&Value>, staging: Option<&Value>) -> anyhow::Result<String> {
    let is_staging = match staging.map(|value| value.text.as_str()) {
        None | Some("no" | "false") => false,
        Some("yes" | "true") => true,
        Some(other) => {
            let source = staging.map_or("", |value| value.source.as_str());
            bail!("{source}: `{other}` is neither yes nor no")
        }
    };
    match (named, is_staging) {
        (Some(named), true) => bail!(
            "{} and the staging directory of Let's Encrypt are two directories; name one",
            named.text
        ),
        (None, true) => Ok(LETS_ENCRYPT_STAGING.to_owned()),
        (None, false) => Ok(LETS_ENCRYPT.to_owned()),
        (Some(Value { text, source }), false) => {
            if !text.starts_with("https://") {
                bail!("{source}: `{text}` is not an https URL, such as {LETS_ENCRYPT}");
            }
            Ok(text.clone())
        }
    }
}

fn contacts(value: Option<&Value>) -> anyhow::Result<Vec<String>> {
    let Some(Value { text, source }) = value else {
        return Ok(Vec::new());
    };
    let read = |part: &str| {
        let address = part.trim().trim_start_matches("mailto:");
        let (name, domain) = address.split_once('@').unwrap_or_default();
        if name.is_empty() || domain.is_empty() || address.contains(char::is_whitespace) {
            bail!("{source}: `{address}` is no mail address");
        }
        Ok(format!("mailto:{address}"))
    };
    text.split(',').map(read).collect()
}

impl Certificates {
    /// The external account, with its key as bytes.
    pub fn external(&self) -> anyhow::Result<Option<certs::acme::External>> {
        use base64::Engine as _;
        let Some((id, path)) = &self.external else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("could not read {}", path.display()))?;
        let text = text.trim().trim_end_matches('=');
        let key = base64::prelude::BASE64_URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .filter(|key| !key.is_empty());
        let key = key.with_context(|| {
            format!(
                "{} does not hold a key in base64url, as the directory gave it",
                path.display()
            )
        })?;
        Ok(Some(certs::acme::External {
            id: id.clone(),
            key,
        }))
    }
}
