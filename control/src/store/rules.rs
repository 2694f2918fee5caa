//! Documents of rules: one of a container, one of a project.

use rusqlite::{Connection, OptionalExtension, Row, params};

use routes::Id;

use crate::rules::Rules;
use crate::time::Millis;

/// What a document is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    Container(Id),
    Project(Id),
}

impl Owner {
    pub fn id(self) -> Id {
        match self {
            Owner::Container(id) | Owner::Project(id) => id,
        }
    }
}

/// A document and its version. Versions of one owner grow, over deletions too, so that none names
/// two documents; where there is no document, the version is 0.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kept {
    pub version: u64,
    pub rules: Option<Rules>,
}

fn rules(row: &Row<'_>) -> rusqlite::Result<Option<Rules>> {
    match row.get::<_, Option<String>>("document")? {
        Some(_) => super::json(row, "document").map(Some),
        None => Ok(None),
    }
}

pub fn find(connection: &Connection, owner: Owner) -> rusqlite::Result<Kept> {
    let found = connection
        .query_row(
            "SELECT version, document FROM rules WHERE owner = ?1",
            params![owner.id().to_string()],
            |row| Ok((row.get::<_, i64>("version")?, rules(row)?)),
        )
        .optional()?;
    Ok(match found {
        Some((version, Some(rules))) => Kept {
            version: version.cast_unsigned(),
            rules: Some(rules),
        },
        _ => Kept::default(),
    })
}

/// Write a document, or with nothing delete it, and say what is there now.
pub fn put(
    connection: &Connection,
    owner: Owner,
    rules: Option<&Rules>,
    now: Millis,
) -> rusqlite::Result<Kept> {
    let (container, project) = match owner {
        Owner::Container(id) => (Some(id.to_string()), None),
        Owner::Project(id) => (None, Some(id.to_string())),
    };
    connection.execute(
        "INSERT INTO rules (owner, container_id, project_id, version, document, updated_at)
         VALUES (?1, ?2, ?3, 1, ?4, ?5)
         ON CONFLICT (owner) DO UPDATE SET version = version + 1, document = ?4, updated_at = ?5",
        params![
            owner.id().to_string(),
            container,
            project,
            rules.map(super::to_json),
            now
        ],
    )?;
    find(connection, owner)
}

/// Every document there is.
pub fn all(connection: &Connection) -> rusqlite::Result<Vec<(Owner, Rules)>> {
    let mut statement = connection.prepare_cached(
        "SELECT container_id, project_id, document FROM rules WHERE document IS NOT NULL",
    )?;
    let rows = statement.query_map([], |row| {
        let container = super::maybe_id(row, "container_id")?.map(Owner::Container);
        let owner = match (container, super::maybe_id(row, "project_id")?) {
            (None, Some(project)) => Some(Owner::Project(project)),
            (container, _) => container,
        };
        Ok(owner.zip(rules(row)?))
    })?;
    rows.filter_map(Result::transpose).collect()
}
