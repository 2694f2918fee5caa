//! What a node shows, and until when: the list for its administrator and the metric.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// The API and its realms.
    Api,
    /// The containers of a node.
    Node,
    /// A domain of somebody's own.
    Custom,
    /// Given as files: for whatever is in them.
    File,
}

impl Class {
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Api => "api",
            Class::Node => "node",
            Class::Custom => "custom",
            Class::File => "file",
        }
    }
}

/// One certificate that there is, or should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    pub names: Vec<String>,
    pub class: Class,
    /// `local`, `acme` or `files`.
    pub mode: &'static str,
    /// When it ends; nothing where there is none yet.
    pub ends: Option<SystemTime>,
    /// When it is, or was, to be replaced next.
    pub renews: Option<SystemTime>,
    /// Why the last attempt at a new one failed.
    pub error: Option<String>,
}

/// Somebody who holds certificates.
pub trait Holdings: Send + Sync {
    fn holdings(&self) -> Vec<Holding>;

    /// For each class, the seconds that are left of the certificate that ends first; negative for
    /// one that has ended.
    fn seconds_left(&self, now: SystemTime) -> Vec<(Class, i64)> {
        let mut left = std::collections::BTreeMap::new();
        for holding in self.holdings() {
            let Some(ends) = holding.ends else { continue };
            let seconds = match ends.duration_since(now) {
                Ok(left) => left.as_secs() as i64,
                Err(over) => -(over.duration().as_secs() as i64),
            };
            let least = left.entry(holding.class).or_insert(seconds);
            *least = seconds.min(*least);
        }
        left.into_iter().collect()
    }
}
