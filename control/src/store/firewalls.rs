//! The rules of containers' firewalls.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use routes::Id;

use crate::firewall::Rules;
use crate::time::Millis;

/// The rules of a container; none where it never had any.
pub fn find(connection: &Connection, container: Id) -> rusqlite::Result<Rules> {
    let found = connection
        .query_row(
            "SELECT rules FROM firewalls WHERE container_id = ?1",
            params![container.to_string()],
            |row| super::json(row, "rules"),
        )
        .optional()?;
    Ok(found.unwrap_or_default())
}

pub fn put(
    connection: &Connection,
    container: Id,
    rules: &Rules,
    now: Millis,
) -> rusqlite::Result<()> {
    if rules.count() == 0 {
        connection.execute(
            "DELETE FROM firewalls WHERE container_id = ?1",
            params![container.to_string()],
        )?;
        return Ok(());
    }
    connection.execute(
        "INSERT INTO firewalls (container_id, rules, updated_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (container_id) DO UPDATE SET rules = ?2, updated_at = ?3",
        params![container.to_string(), super::to_json(rules), now],
    )?;
    Ok(())
}

/// The rules of every container that has any.
pub fn all(connection: &Connection) -> rusqlite::Result<BTreeMap<Id, Rules>> {
    let mut statement = connection.prepare_cached("SELECT container_id, rules FROM firewalls")?;
    statement
        .query_map([], |row| {
            Ok((super::id(row, "container_id")?, super::json(row, "rules")?))
        })?
        .collect()
}
