//! Whom a client asks, and as whom: one file per profile, readable by its owner alone.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a client knows of a node. `hoody up` writes one for the node it made, `hoody login` adds
/// tokens to it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// `https://api.hoody.localhost`, with a port where it is not the scheme's.
    pub api_url: String,
    /// PEM file of the authority to trust beside those that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_cert: Option<PathBuf>,
    /// A `hdy_` token, or the access token of a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// What other versions keep here.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// Why a profile could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("a profile's name is letters, digits, `-` and `_`, not `{0}`")]
    Name(String),
    #[error("could not read the profile {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the profile {path} is not what a profile looks like")]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("could not write the profile {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The file of a profile: `{directory}/{name}.json`.
pub fn path(directory: &Path, name: &str) -> Result<PathBuf, ProfileError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || !name.chars().all(plain) {
        return Err(ProfileError::Name(name.to_owned()));
    }
    Ok(directory.join(format!("{name}.json")))
}

impl Profile {
    /// Read it; none where there is none.
    pub fn read(path: &Path) -> Result<Option<Profile>, ProfileError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(ProfileError::Read {
                    path: path.into(),
                    source,
                });
            }
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| ProfileError::Parse {
                path: path.into(),
                source,
            })
    }

    /// Keep it: all of it or, where that fails, what was there before.
    pub fn write(&self, path: &Path) -> Result<(), ProfileError> {
        let mut text = serde_json::to_vec_pretty(self).expect("a profile is plain JSON");
        text.push(b'\n');
        write(path, &text).map_err(|source| ProfileError::Write {
            path: path.into(),
            source,
        })
    }
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    let written = file
        .write_all(text)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}
