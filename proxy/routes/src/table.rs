//! What leads where: the routing table, and the changes that travel from control to the proxy.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Id;
use crate::access::Policy;
use crate::domain::Alias;
use crate::hook::Hooks;
use crate::link::Links;
use crate::shards::Shards;
use crate::sleep::Sleep;

/// Everything the proxy knows about containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Grows with every change; control numbers them.
    pub generation: u64,
    /// Shared, like all that follows: a copy of the table costs no copy of what is in it.
    pub places: Shards<Id, Arc<Place>>,
    /// The rules of projects; those of a container are in its place.
    #[serde(default, skip_serializing_if = "Shards::is_empty")]
    pub projects: Shards<Id, Arc<Policy>>,
    /// The aliases that are in force, by their names.
    #[serde(default, skip_serializing_if = "Shards::is_empty")]
    pub aliases: Shards<Box<str>, Arc<Alias>>,
    /// The containers by where their requests come from.
    #[serde(default, skip_serializing_if = "Shards::is_empty")]
    addresses: Shards<IpAddr, Id>,
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
    /// The container's own rules; nothing where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Arc<Policy>>,
    /// What its signed links are checked with; nothing while it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<Arc<Links>>,
    /// What sees its requests first; nothing where it has no hooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Arc<Hooks>>,
    /// Where its own requests come from: what tells it apart at the name `localhost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Who may embed what it serves.
    #[serde(default, skip_serializing_if = "Embedding::is_default")]
    pub embedding: Embedding,
    /// What wakes it, and when it sleeps.
    #[serde(default, skip_serializing_if = "Sleep::is_default")]
    pub sleep: Sleep,
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

/// Sources that may be listed in [`Embedding::frame_ancestors`]: more would make a header that
/// clients refuse.
pub const SOURCES: usize = 32;

impl Embedding {
    /// Whether it says nothing.
    pub fn is_default(&self) -> bool {
        *self == Embedding::default()
    }

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
    /// This is all there is, and no project has rules: a first line of a connection.
    Replace(Vec<Place>),
    /// This is all there is: a first line of a connection.
    Whole(Whole),
    Upsert(Place),
    Remove(Id),
    /// The rules of a project.
    Project(Project),
    /// An alias is in force, in place of any of its name.
    Alias(Alias),
    /// No alias of this name is.
    NoAlias(Box<str>),
}

/// A whole table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whole {
    pub places: Vec<Place>,
    #[serde(default)]
    pub projects: Vec<Project>,
    #[serde(default)]
    pub aliases: Vec<Alias>,
}

/// The rules of one project; without a policy, it has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    pub id: Id,
    #[serde(default)]
    pub policy: Option<Policy>,
}

impl Change {
    /// Whether nothing of what was known before remains.
    pub fn replaces(&self) -> bool {
        matches!(self, Change::Replace(_) | Change::Whole(_))
    }
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
            Change::Replace(places) => self.replace(Whole {
                places,
                ..Whole::default()
            }),
            Change::Whole(whole) => self.replace(whole),
            Change::Upsert(place) => self.put(place),
            Change::Remove(container) => {
                if let Some(place) = self.places.remove(&container) {
                    self.forget(&place);
                }
            }
            Change::Project(project) => self.set(project),
            Change::Alias(alias) => {
                self.aliases.insert(alias.name.clone(), Arc::new(alias));
            }
            Change::NoAlias(name) => {
                self.aliases.remove(&name);
            }
        }
    }

    fn replace(&mut self, whole: Whole) {
        (self.places, self.addresses) = (Shards::default(), Shards::default());
        for place in whole.places {
            self.put(place);
        }
        self.projects = Shards::default();
        for project in whole.projects {
            self.set(project);
        }
        self.aliases = whole
            .aliases
            .into_iter()
            .map(|alias| (alias.name.clone(), Arc::new(alias)))
            .collect();
    }

    fn put(&mut self, place: Place) {
        let (container, address) = (place.container, place.address);
        if let Some(before) = self.places.insert(container, Arc::new(place)) {
            self.forget(&before);
        }
        if let Some(address) = address {
            self.addresses.insert(address, container);
        }
    }

    /// Nothing comes from where this was any more, unless another is there by now.
    fn forget(&mut self, place: &Place) {
        if let Some(address) = place.address
            && self.addresses.get(&address) == Some(&place.container)
        {
            self.addresses.remove(&address);
        }
    }

    fn set(&mut self, project: Project) {
        match project.policy {
            Some(policy) => self.projects.insert(project.id, Arc::new(policy)),
            None => self.projects.remove(&project.id),
        };
    }

    /// All of it, as one change.
    pub fn whole(&self) -> Change {
        Change::Whole(Whole {
            places: self.places.values().map(|it| Place::clone(it)).collect(),
            projects: self
                .projects
                .iter()
                .map(|(&id, policy)| Project {
                    id,
                    policy: Some(Policy::clone(policy)),
                })
                .collect(),
            aliases: self.aliases.values().map(|it| Alias::clone(it)).collect(),
        })
    }

    /// What makes this of the table that was `before`. What leaves an address comes before what
    /// moves there.
    pub fn changes_since(&self, before: &Table) -> Vec<Change> {
        let mut changes = Vec::new();
        for id in self.places.changed_since(&before.places) {
            if !self.places.contains_key(id) {
                changes.push(Change::Remove(*id));
            }
        }
        for id in self.places.changed_since(&before.places) {
            if let Some(place) = self.places.get(id) {
                changes.push(Change::Upsert(Place::clone(place)));
            }
        }
        for &id in self.projects.changed_since(&before.projects) {
            let policy = self.projects.get(&id).map(|policy| Policy::clone(policy));
            changes.push(Change::Project(Project { id, policy }));
        }
        for name in self.aliases.changed_since(&before.aliases) {
            changes.push(match self.aliases.get(name) {
                Some(alias) => Change::Alias(Alias::clone(alias)),
                None => Change::NoAlias(name.clone()),
            });
        }
        changes
    }

    /// The container whose requests come from this address.
    pub fn at(&self, address: IpAddr) -> Option<&Arc<Place>> {
        self.places.get(self.addresses.get(&address)?)
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
            access: None,
            links: None,
            hooks: None,
            address: None,
            embedding: Embedding::default(),
            sleep: Sleep::default(),
        }
    }

    fn alias(name: &str) -> Alias {
        Alias {
            name: name.into(),
            container: Id([1; 12]),
            door: "files-1".parse().expect("a door"),
            target: None,
            pinned: false,
            expires: None,
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
    fn one_table_is_made_of_another_by_its_changes() {
        let policy = || Some(Policy::open());
        let project = |id, policy| {
            Change::Project(Project {
                id: Id([id; 12]),
                policy,
            })
        };
        let made = |changes: Vec<Change>| {
            let mut table = Table::default();
            for (at, change) in changes.into_iter().enumerate() {
                table.apply(update(at as u64 + 1, change));
            }
            table.generation = 9;
            table
        };
        let mut moved = place(2, 9, State::Running);
        moved.address = Some(IpAddr::from([10, 0, 0, 1]));
        let mut there = place(1, 9, State::Running);
        there.address = moved.address;
        let tables = [
            Table::default(),
            made(vec![
                Change::Upsert(there),
                project(1, policy()),
                project(2, policy()),
                Change::Alias(alias("shop")),
            ]),
            made(vec![
                Change::Upsert(moved),
                project(2, policy()),
                Change::Alias(alias("blog")),
            ]),
        ];
        for before in &tables {
            for after in &tables {
                let mut table = before.clone();
                for change in after.changes_since(before) {
                    table.apply(update(after.generation, change));
                }
                table.generation = after.generation;
                assert_eq!(table, *after);
                assert!(after.changes_since(&table).is_empty());
                table.apply(update(after.generation, after.whole()));
                assert_eq!(table, *after);
            }
        }
    }

    #[test]
    fn aliases_come_and_go_by_their_names() {
        let mut table = Table::default();
        table.apply(update(1, Change::Alias(alias("shop"))));
        let moved = Alias {
            container: Id([2; 12]),
            ..alias("shop")
        };
        table.apply(update(2, Change::Alias(moved.clone())));
        table.apply(update(3, Change::NoAlias("blog".into())));
        assert_eq!(*table.aliases["shop"], moved);
        table.apply(update(4, Change::NoAlias("shop".into())));
        assert!(table.aliases.is_empty());
        table.apply(update(5, Change::Alias(alias("shop"))));
        table.apply(update(6, Change::Replace(vec![])));
        assert!(table.aliases.is_empty(), "what replaces, replaces all");
    }

    #[test]
    fn a_container_is_found_where_it_is_now() {
        let at = |container, last| Place {
            address: Some(IpAddr::from([10, 0, 0, last])),
            ..place(container, 9, State::Running)
        };
        let found = |table: &Table, last| {
            let place = table.at(IpAddr::from([10, 0, 0, last]));
            place.map(|place| place.container.0[0])
        };
        let mut table = Table::default();
        table.apply(update(1, Change::Replace(vec![at(1, 1), at(2, 2)])));
        assert_eq!((found(&table, 1), found(&table, 2)), (Some(1), Some(2)));
        // One moves to where another is still said to be, which then goes.
        table.apply(update(2, Change::Upsert(at(1, 2))));
        table.apply(update(3, Change::Remove(Id([2; 12]))));
        assert_eq!((found(&table, 1), found(&table, 2)), (None, Some(1)));
        table.apply(update(4, Change::Upsert(place(1, 9, State::Stopped))));
        assert_eq!(found(&table, 2), None);
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
    fn projects_have_rules_until_they_have_none() {
        let (id, other) = (Id([9; 12]), Id([8; 12]));
        let project = |id, policy| Change::Project(Project { id, policy });
        let mut table = Table::default();
        table.apply(update(1, project(id, Some(Policy::open()))));
        table.apply(update(2, project(other, Some(Policy::open()))));
        table.apply(update(3, project(other, None)));
        assert_eq!(
            table.projects,
            [(id, Arc::new(Policy::open()))].into_iter().collect()
        );
        let whole = Whole {
            places: vec![place(1, 9, State::Running)],
            projects: vec![Project {
                id: other,
                policy: Some(Policy::open()),
            }],
            aliases: vec![alias("shop"), alias("blog")],
        };
        table.apply(update(4, Change::Whole(whole)));
        assert!(table.projects.contains_key(&other) && !table.projects.contains_key(&id));
        table.apply(update(5, Change::Replace(vec![])));
        assert!(table.projects.is_empty() && table.places.is_empty());
    }

    /// What a proxy kept, or control sent, before there were rules.
    #[test]
    fn older_tables_and_lines_still_read() {
        let place = r#"{"container":"010101010101010101010101","project":"090909090909090909090909","name":"c1","state":"running","incarnation":1,"directory":"/run/c","owners":{"base":1,"count":2}}"#;
        let kept = format!(r#"{{"generation":3,"places":{{"010101010101010101010101":{place}}}}}"#);
        let table: Table = serde_json::from_str(&kept).expect("a table");
        assert_eq!(table.places[&Id([1; 12])].access, None);
        // And what has no rules is written as it was.
        assert_eq!(serde_json::to_string(&table).expect("JSON"), kept);
        let line = format!(r#"{{"generation":3,"replace":[{place}]}}"#);
        let line: Update = serde_json::from_str(&line).expect("a line");
        assert!(line.change.replaces());
    }

    #[test]
    fn a_place_without_word_on_embedding_allows_it() {
        let mut whole = serde_json::to_value(place(1, 9, State::Running)).expect("JSON");
        let whole_object = whole.as_object_mut().expect("an object");
        assert!(
            whole_object.remove("embedding").is_none(),
            "what is usual is not written"
        );
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
