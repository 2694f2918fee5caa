//! Rows of the database as the proxy knows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use routes::Id;
use routes::domain;
use rusqlite::Connection;

use crate::publish::{Edge, Publisher, Rules};
use crate::store::aliases::Alias;
use crate::store::rules::Owner;
use crate::store::{aliases, links, rules};
use crate::time::Millis;

/// Everything that is published and not a machine.
pub fn all(db: &Connection, now: Millis) -> rusqlite::Result<Rules> {
    let mut containers: BTreeMap<Id, Edge> = BTreeMap::new();
    let mut all = Rules::default();
    for (owner, document) in rules::all(db)? {
        match owner {
            Owner::Project(id) => all.projects.push((id, Arc::new(document.policy()))),
            Owner::Container(id) => dress(containers.entry(id).or_default(), Some(&document)),
        }
    }
    for (container, checked) in links::all(db, now)? {
        containers.entry(container).or_default().links = Some(Arc::new(checked));
    }
    all.containers = containers.into_iter().collect();
    let enabled = aliases::enabled(db)?;
    all.aliases = enabled
        .iter()
        .filter_map(|alias| in_force(alias, now))
        .collect();
    Ok(all)
}

/// The rules of one container.
pub fn of_container(db: &Connection, container: Id, now: Millis) -> rusqlite::Result<Edge> {
    let kept = rules::find(db, Owner::Container(container))?;
    let mut edge = Edge {
        links: links::checked_with(db, container, now)?.map(Arc::new),
        ..Edge::default()
    };
    dress(&mut edge, kept.rules.as_ref());
    Ok(edge)
}

fn dress(edge: &mut Edge, document: Option<&crate::rules::Rules>) {
    edge.access = document.map(|document| Arc::new(document.policy()));
    edge.embedding = document
        .map(|document| document.embedding().clone())
        .unwrap_or_default();
    edge.sleep = document.map(|document| document.sleep).unwrap_or_default();
    edge.hooks = document
        .filter(|document| !document.hooks.is_empty())
        .map(|document| Arc::new(document.hooks.clone()));
}

/// An alias as it is published; nothing while it is off or over.
pub fn in_force(alias: &Alias, now: Millis) -> Option<Arc<domain::Alias>> {
    let door = match alias.program.as_str() {
        "ssh" => "ssh".to_owned(),
        program => format!("{program}-{}", alias.number),
    };
    let published = domain::Alias {
        name: alias.name.as_str().into(),
        container: alias.container,
        door: door.parse().ok()?,
        target: alias.target_path.as_deref().map(Into::into),
        pinned: !alias.allow_path_override,
        expires: alias.expires_at,
    };
    (alias.enabled && published.stands(now)).then(|| Arc::new(published))
}

/// Say of the containers that were deleted with these aliases that they are gone.
pub fn forget(publisher: &Publisher, containers: &[Id], aliases: &[String]) {
    for name in aliases {
        publisher.set_alias(name, None);
    }
    for container in containers {
        publisher.forget(*container);
    }
}
