//! What leads where: the routing table, and the changes that travel from control to the proxy.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Id;

/// Everything the proxy knows about containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Grows with every change; control numbers them.
    pub generation: u64,
    /// Shared, so that a copy of the table costs no copy of its places.
    pub places: HashMap<Id, Arc<Place>>,
}

/// Where one container is and what state it is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub container: Id,
    pub project: Id,
    /// Its name, for messages to people.
    pub name: String,
    pub state: State,
    /// Changes with every start, so that no connection outlives the machine it was made to.
    pub incarnation: u64,
    /// The directory that the container shares with the host; the kit's socket is in it. The
    /// container owns what is inside and may have replaced any of it.
    pub directory: PathBuf,
    /// The host user ids that the container's users stand for.
    pub owners: Owners,
    /// Who may embed what it serves.
    #[serde(default)]
    pub embedding: Embedding,
}

/// Who may embed what a container serves, in pages of other hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Embedding {
    /// Whether other hosts may at all. Where not, every answer says so to the browser
    /// (`Cross-Origin-Resource-Policy`, `Cross-Origin-Opener-Policy`, `frame-ancestors 'self'`).
    pub allowed: bool,
    /// The sources that may frame its pages, as `frame-ancestors` has them (CSP Level 3, section
    /// 6.4.2): `'self'`, `'none'`, `https:`, `https://app.example`, `https://*.example:8443`.
    /// None leaves it to what the container itself says; what is no source is passed over.
    pub frame_ancestors: Option<Vec<String>>,
}

impl Default for Embedding {
    fn default() -> Self {
        Embedding {
            allowed: true,
            frame_ancestors: None,
        }
    }
}

impl Embedding {
    /// Whether this is one source that may be listed in [`Embedding::frame_ancestors`].
    pub fn is_source(text: &str) -> bool {
        const LONGEST: usize = 300; // a scheme, a host of 253 letters and a port
        let letters = |text: &str, more: &[u8]| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
        };
        if matches!(text, "'self'" | "'none'" | "*") {
            return true;
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None => match text.strip_suffix(':') {
                Some(scheme) => (scheme, "x"),
                None => ("https", text),
            },
        };
        let (host, port) = match rest.split_once(':') {
            Some((host, port)) => (host, port),
            None => (rest, "*"),
        };
        let host = host.strip_prefix("*.").unwrap_or(host);
        text.len() <= LONGEST
            && letters(scheme, b"+-.")
            && letters(host, b"-.")
            && (port == "*" || port.parse::<u16>().is_ok())
    }

    /// The value of `frame-ancestors`, if its owner has set one.
    pub fn ancestors(&self) -> Option<String> {
        let listed = self.frame_ancestors.as_ref()?;
        let sources: Vec<&str> = listed
            .iter()
            .map(String::as_str)
            .filter(|source| Embedding::is_source(source))
            .collect();
        Some(match sources.is_empty() {
            true => "'none'".to_owned(),
            false => sources.join(" "),
        })
    }
}

/// A range of host user ids: `base..base + count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    pub base: u32,
    pub count: u32,
}

impl Owners {
    pub fn contains(&self, uid: u32) -> bool {
        uid.checked_sub(self.base)
            .is_some_and(|offset| offset < self.count)
    }
}

/// The name of the kit's socket in a container's directory.
pub const KIT_SOCKET: &str = "kit.sock";

/// The state of a container as far as a visitor is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Creating,
    /// Booting: its kit does not answer yet.
    Starting,
    Running,
    Paused,
    Stopping,
    Stopped,
    Failed,
}

/// One line of the feed from control to the proxy: JSON, one object a line. The proxy answers
/// each with [`Ack`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Update {
    /// The table's generation after the change.
    pub generation: u64,
    #[serde(flatten)]
    pub change: Change,
}

/// A change of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// This is all there is: the first line of every connection.
    Replace(Vec<Place>),
    Upsert(Place),
    Remove(Id),
}

/// The proxy has taken the change with this generation and written it to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    pub generation: u64,
}

impl Table {
    /// Make the change.
    pub fn apply(&mut self, update: Update) {
        self.generation = update.generation;
        match update.change {
            Change::Replace(places) => {
                self.places = places
                    .into_iter()
                    .map(|place| (place.container, Arc::new(place)))
                    .collect();
            }
            Change::Upsert(place) => {
                self.places.insert(place.container, Arc::new(place));
            }
            Change::Remove(container) => {
                self.places.remove(&container);
            }
        }
    }

    /// The container with this id, if it is in this project where one was named.
    pub fn find(&self, project: Option<Id>, container: Id) -> Option<&Arc<Place>> {
        self.places
            .get(&container)
            .filter(|place| project.is_none_or(|project| place.project == project))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(container: u8, project: u8, state: State) -> Place {
        Place {
            container: Id([container; 12]),
            project: Id([project; 12]),
            name: format!("c{container}"),
            state,
            incarnation: 1,
            directory: PathBuf::from("/run/c"),
            owners: Owners {
                base: 1_000_000,
                count: 65_536,
            },
            embedding: Embedding::default(),
        }
    }

    fn update(generation: u64, change: Change) -> Update {
        Update { generation, change }
    }

    #[test]
    fn changes_are_applied_in_order() {
        let mut table = Table::default();
        let all = vec![place(1, 9, State::Starting), place(2, 9, State::Running)];
        table.apply(update(4, Change::Replace(all)));
        table.apply(update(5, Change::Upsert(place(1, 9, State::Running))));
        table.apply(update(6, Change::Remove(Id([2; 12]))));
        table.apply(update(7, Change::Remove(Id([3; 12]))));
        assert_eq!(table.generation, 7);
        assert_eq!(table.places.len(), 1);
        assert_eq!(table.places[&Id([1; 12])].state, State::Running);
        table.apply(update(1, Change::Replace(vec![])));
        assert_eq!(
            table,
            Table {
                generation: 1,
                ..Table::default()
            }
        );
    }

    #[test]
    fn a_container_is_found_in_its_own_project_only() {
        let mut table = Table::default();
        table.apply(update(1, Change::Upsert(place(1, 9, State::Running))));
        let (container, project) = (Id([1; 12]), Id([9; 12]));
        assert!(table.find(None, container).is_some());
        assert!(table.find(Some(project), container).is_some());
        assert!(table.find(Some(Id([8; 12])), container).is_none());
        assert!(table.find(None, project).is_none());
    }

    #[test]
    fn a_line_of_the_feed_reads_as_documented() {
        let line = serde_json::to_string(&update(3, Change::Remove(Id([0xab; 12])))).expect("JSON");
        assert_eq!(
            line,
            r#"{"generation":3,"remove":"abababababababababababab"}"#
        );
        let whole = update(4, Change::Replace(vec![place(1, 9, State::Paused)]));
        let line = serde_json::to_string(&whole).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Update>(&line).expect("an update"),
            whole
        );
        let mut table = Table::default();
        table.apply(whole);
        let kept = serde_json::to_string(&table).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Table>(&kept).expect("a table"),
            table
        );
    }

    #[test]
    fn a_place_without_word_on_embedding_allows_it() {
        let mut whole = serde_json::to_value(place(1, 9, State::Running)).expect("JSON");
        whole
            .as_object_mut()
            .expect("an object")
            .remove("embedding");
        let old: Place = serde_json::from_value(whole).expect("a place");
        assert_eq!(old.embedding, Embedding::default());
        assert!(old.embedding.allowed && old.embedding.ancestors().is_none());
    }

    #[test]
    fn sources_of_frames_are_told_from_other_words() {
        for good in [
            "'self'",
            "'none'",
            "*",
            "https:",
            "https://app.example",
            "https://*.example:8443",
            "app.example",
            "app.example:*",
            "vscode-webview://id",
        ] {
            assert!(Embedding::is_source(good), "{good}");
        }
        for bad in [
            "",
            "a b",
            "a; script-src *",
            "a, b",
            "'unsafe-inline'",
            "https://a/path",
            "https://a:99999",
            "a\r\nx: y",
            "ä.example",
        ] {
            assert!(!Embedding::is_source(bad), "{bad}");
        }
        let embedding = |sources: &[&str]| Embedding {
            allowed: true,
            frame_ancestors: Some(sources.iter().map(|it| (*it).to_owned()).collect()),
        };
        let value = embedding(&["'self'", "a; b", "https://a.example"]).ancestors();
        assert_eq!(value.as_deref(), Some("'self' https://a.example"));
        assert_eq!(embedding(&[]).ancestors().as_deref(), Some("'none'"));
        assert_eq!(embedding(&["a;"]).ancestors().as_deref(), Some("'none'"));
    }

    #[test]
    fn owners_are_a_range() {
        let owners = Owners {
            base: 100,
            count: 10,
        };
        for (uid, inside) in [
            (0, false),
            (99, false),
            (100, true),
            (109, true),
            (110, false),
        ] {
            assert_eq!(owners.contains(uid), inside, "{uid}");
        }
        assert!(!Owners { base: 0, count: 0 }.contains(0));
        assert!(
            Owners {
                base: u32::MAX,
                count: u32::MAX
            }
            .contains(u32::MAX)
        );
    }
}
