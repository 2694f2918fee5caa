//! What leads where: the routing table, and the changes that travel from control to the proxy.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Id;
use crate::access::Policy;
use crate::domain::Alias;
use crate::hook::Hooks;
use crate::link::Links;
use crate::shards::Shards;

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
            Change::Upsert(place) => {
                self.places.insert(place.container, Arc::new(place));
            }
            Change::Remove(container) => {
                self.places.remove(&container);
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
        self.places = whole
            .places
            .into_iter()
            .map(|place| (place.container, Arc::new(place)))
            .collect();
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

    fn set(&mut self, project: Project) {
        match project.policy {
            Some(policy) => self.projects.insert(project.id, Arc::new(policy)),
            None => self.projects.remove(&project.id),
        };
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
