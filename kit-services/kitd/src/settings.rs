//! What the kit is told by whoever starts it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Where the kit stands.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Root of what the services reach: `/` in a machine, the container's directory elsewhere.
    pub root: PathBuf,
    /// Home of the ordinary user.
    pub home: PathBuf,
    /// Where services keep what has to survive a restart.
    pub state: PathBuf,
    /// Whether the kit has a whole machine to itself.
    pub machine: bool,
    /// This program, which connects ssh through proxies; none where it is another.
    pub program: Option<PathBuf>,
    /// systemd-run(1), by which the machine is restarted and shut down; none where it is not the
    /// kit's to do so.
    pub power: Option<PathBuf>,
    /// Where the runtime of scripts is: read-only, and the same for all containers.
    pub runtime: PathBuf,
    /// Variables of programs that services start, beside those of a login.
    pub environment: BTreeMap<String, String>,
}

impl Settings {
    /// In a machine of its own.
    pub fn machine() -> Self {
        Settings {
            root: "/".into(),
            home: "/home/user".into(),
            state: "/var/lib/hoody".into(),
            machine: true,
            program: None,
            power: Some("/usr/bin/systemd-run".into()),
            runtime: "/opt/hoody/deno".into(),
            environment: BTreeMap::new(),
        }
    }

    /// One process among others, with a directory for a home.
    pub fn process(home: PathBuf) -> Self {
        Settings {
            root: home.clone(),
            state: home.join(".hoody"),
            home,
            machine: false,
            program: None,
            power: None,
            runtime: "/opt/hoody/deno".into(),
            environment: BTreeMap::new(),
        }
    }
}

/// What the host says of itself, in a file that every container on it can read.
#[derive(Debug, Clone, Deserialize)]
pub struct Host {
    /// The domain below which containers have their URLs.
    pub domain: String,
    /// Whether resolvers send the domain's names to the loopback of whoever asks.
    pub local: bool,
    /// Where the proxy answers for containers.
    pub gateway: IpAddr,
    pub http_port: u16,
    pub https_port: u16,
    /// How the host reaches the web: `http_proxy` and the like.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// Where the host's file is.
pub const HOST_FILE: &str = "/opt/hoody/kit.json";

impl Host {
    /// Read the host's file; `None` where there is none.
    pub fn read(path: &Path) -> std::io::Result<Option<Host>> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
