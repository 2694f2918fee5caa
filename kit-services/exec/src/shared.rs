//! What the scripts of a deployment share: values by key, kept here and told to every process that
//! runs one of them. It is gone with the kit.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde_json::{Map, Value, json};

use crate::place::Deployment;
use crate::process::Process;

/// Values of one deployment, as JSON text.
pub const BYTES: usize = 8 << 20;
/// Keys of one deployment.
const KEYS: usize = 4096;
/// Deployments with values at once.
const DEPLOYMENTS: usize = 256;
/// Longest key.
const KEY_BYTES: usize = 1024;

/// The values of all deployments.
#[derive(Debug, Default)]
pub struct Shared {
    all: Mutex<HashMap<Deployment, State>>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    values: BTreeMap<String, Arc<str>>,
    bytes: usize,
    listeners: Vec<Weak<Process>>,
}

/// A change that is not kept, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the state that scripts share has {BYTES} bytes at most")]
    Bytes,
    #[error("the state that scripts share has {KEYS} keys of {KEY_BYTES} bytes at most")]
    Keys,
    #[error("{DEPLOYMENTS} deployments have shared state, which is the limit")]
    Deployments,
}

impl Shared {
    fn map(&self) -> MutexGuard<'_, HashMap<Deployment, State>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All values, for a process that begins, which is told of changes from now on.
    pub fn join(&self, deployment: &Deployment, process: &Arc<Process>) -> Value {
        let mut all = self.map();
        let state = all.entry(deployment.clone()).or_default();
        state.listeners.retain(|it| it.strong_count() > 0);
        state.listeners.push(Arc::downgrade(process));
        json!({ "version": state.version, "values": state.values })
    }

    /// Which state the deployment is at.
    pub fn version(&self, deployment: &Deployment) -> u64 {
        self.map().get(deployment).map_or(0, |state| state.version)
    }

    /// Set a value, or with `None` remove it. `from` knows already. Returns the new version.
    pub fn set(
        &self,
        deployment: &Deployment,
        key: &str,
        text: Option<&str>,
        from: Option<u64>,
    ) -> Result<u64, Refused> {
        let mut all = self.map();
        if !all.contains_key(deployment) && all.len() >= DEPLOYMENTS {
            all.retain(|_, state| {
                !state.values.is_empty() || state.listeners.iter().any(|it| it.strong_count() > 0)
            });
            if all.len() >= DEPLOYMENTS {
                return Err(Refused::Deployments);
            }
        }
        let state = all.entry(deployment.clone()).or_default();
        let before = state
            .values
            .get(key)
            .map_or(0, |text| text.len() + key.len());
        let after = text.map_or(0, |text| text.len() + key.len());
        if state.bytes - before + after > BYTES {
            return Err(Refused::Bytes);
        }
        let fresh = before == 0 && text.is_some();
        if key.len() > KEY_BYTES || (fresh && state.values.len() >= KEYS) {
            return Err(Refused::Keys);
        }
        state.bytes = state.bytes - before + after;
        match text {
            Some(text) => state.values.insert(key.to_owned(), text.into()),
            None => state.values.remove(key),
        };
        state.version += 1;
        let news = json!({ "t": "shared", "key": key, "json": text, "version": state.version })
            .to_string();
        state.listeners.retain(|listener| match listener.upgrade() {
            Some(process) => {
                if Some(process.id) != from {
                    process.tell_line(news.clone());
                }
                true
            }
            None => false,
        });
        Ok(state.version)
    }

    /// All values of a deployment; `None` where it has none.
    pub fn get(&self, deployment: &Deployment) -> Option<Map<String, Value>> {
        let all = self.map();
        let state = all
            .get(deployment)
            .filter(|state| !state.values.is_empty())?;
        let values = state
            .values
            .iter()
            .map(|(key, text)| (key.clone(), serde_json::from_str(text).unwrap_or_default()));
        Some(values.collect())
    }

    /// Forget the values of a deployment. How many there were.
    pub fn clear(&self, deployment: &Deployment) -> usize {
        let mut all = self.map();
        let Some(state) = all.get_mut(deployment) else {
            return 0;
        };
        let many = state.values.len();
        state.values.clear();
        state.bytes = 0;
        state.version += 1;
        let news = json!({ "t": "shared", "all": {}, "version": state.version });
        for process in state.listeners.iter().filter_map(Weak::upgrade) {
            process.tell(&news);
        }
        many
    }

    /// The deployments that have values, and how many bytes those are.
    pub fn sizes(&self) -> Vec<(Deployment, usize)> {
        let all = self.map();
        all.iter()
            .filter(|(_, state)| !state.values.is_empty())
            .map(|(deployment, state)| (deployment.clone(), state.bytes))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bounded() {
        let shared = Shared::default();
        let one = Deployment {
            subdomain: "default".to_owned(),
            id: "1".to_owned(),
        };
        assert_eq!(shared.set(&one, "a", Some("1"), None), Ok(1));
        assert_eq!(shared.set(&one, "a", Some("[2]"), None), Ok(2));
        assert_eq!(shared.get(&one).unwrap()["a"], json!([2]));
        let large = format!("\"{}\"", "x".repeat(BYTES));
        assert_eq!(
            shared.set(&one, "b", Some(&large), None),
            Err(Refused::Bytes)
        );
        for nth in 1..KEYS {
            shared
                .set(&one, &format!("k{nth}"), Some("0"), None)
                .unwrap();
        }
        assert_eq!(
            shared.set(&one, "more", Some("0"), None),
            Err(Refused::Keys)
        );
        assert_eq!(shared.set(&one, "a", None, None).map(|_| ()), Ok(()));
        assert_eq!(shared.clear(&one), KEYS - 1);
        assert_eq!(shared.get(&one), None);
        for nth in 1..DEPLOYMENTS {
            let other = Deployment {
                id: nth.to_string(),
                subdomain: "x".to_owned(),
            };
            shared.set(&other, "a", Some("1"), None).unwrap();
        }
        let other = Deployment {
            id: "last".to_owned(),
            subdomain: "x".to_owned(),
        };
        // the one that was cleared makes room
        assert_eq!(shared.set(&other, "a", Some("1"), None), Ok(1));
        assert_eq!(
            shared.set(&one, "a", Some("1"), None),
            Err(Refused::Deployments)
        );
    }
}
