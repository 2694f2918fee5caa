//! What every rival is given: names, a certificate for all of them, and upstreams.

use std::path::PathBuf;

use routes::{Id, Zone};

use crate::certificate;

pub const DOMAIN: &str = "bench.localhost";
pub const NODE: &str = "box";
/// All names are in one project.
pub const PROJECT: Id = Id([0xab; 12]);
/// The hosts that requests name in turn, spread evenly over all routes. Each of ours has
/// connections of its own to its upstream, as each container has; the others share theirs.
pub const VISITED: usize = 10;
/// What a small reply has in its body.
pub const REPLY_BYTES: usize = 1024;

/// The scratch directory, gone with the measurement.
pub struct Ground {
    directory: PathBuf,
}

/// The two upstreams, each a socket in a directory of its own: the distribution's nginx for small
/// replies, which costs the least, and one of ours for bodies and tunnels.
pub const SMALL: &str = "small";
pub const LARGE: &str = "large";

impl Ground {
    pub fn prepare() -> anyhow::Result<Ground> {
        let directory = std::env::temp_dir().join(format!("hoody-edge-{}", std::process::id()));
        for part in [SMALL, LARGE] {
            std::fs::create_dir_all(directory.join(part))?;
        }
        certificate::write(&directory, &[format!("*.{NODE}.containers.{DOMAIN}")])?;
        Ok(Ground { directory })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The directory of an upstream, as a container shares one with the host.
    pub fn upstream(&self, name: &str) -> PathBuf {
        self.path(name)
    }

    pub fn socket(&self, name: &str) -> PathBuf {
        self.upstream(name).join(routes::table::KIT_SOCKET)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory); // what is left is in the temporary directory
    }
}

pub fn zone() -> Zone {
    Zone::new(DOMAIN, NODE).expect("the names are a zone")
}

/// The id of the container behind a route.
pub fn container(route: usize) -> Id {
    // Spread over the whole range, as random ids are.
    let mixed = (route as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut id = [0; 12];
    id[..8].copy_from_slice(&mixed.to_be_bytes());
    id[8..].copy_from_slice(&(route as u32).to_be_bytes());
    Id(id)
}

/// The host that leads to a route.
pub fn host(route: usize) -> String {
    format!(
        "{PROJECT}-{}-http-8080.{NODE}.containers.{DOMAIN}",
        container(route)
    )
}

/// The route whose upstream is [`LARGE`]; all others lead to [`SMALL`].
pub const LARGE_ROUTE: usize = 0;

/// The routes that are visited, of this many.
pub fn visited(routes: usize) -> Vec<usize> {
    let among = routes - 1;
    let count = VISITED.min(among);
    (0..count).map(|turn| 1 + turn * among / count).collect()
}
