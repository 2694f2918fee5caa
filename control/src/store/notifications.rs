//! The inbox: what the node has to tell people. Some is for one account, some for all.

use rusqlite::{Connection, OptionalExtension, Row, named_params, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use routes::Id;

use super::Realms;
use super::containers::Container;
use super::events::{self, Kind as EventKind, News};
use super::node;
use crate::certificates::Certificate;
use crate::time::{DAY, Millis};
use crate::words;

/// Notices of one account; older ones go first.
const PER_ACCOUNT: u32 = 500;
/// Announcements to all; older ones go first.
const ANNOUNCEMENTS: u32 = 200;
/// What is for one account goes by itself after this.
const KEPT: Millis = 30 * DAY;
/// The longest reason of a failure that a notice repeats.
const REASON: usize = 500;
/// Certificates that are told of at once; the list has all.
const AT_ONCE: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Kind {
    Maintenance,
    Announcement,
    StatusUpdate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Severity {
    Info,
    Warning,
    Error,
    Success,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    pub id: Id,
    /// Whose it is; everybody's where none.
    pub user: Option<Id>,
    pub title: String,
    pub message: String,
    pub kind: Kind,
    pub severity: Severity,
    pub realms: Vec<Id>,
    pub created_at: Millis,
    pub expires_at: Option<Millis>,
    /// When the account that asks has read it.
    pub read_at: Option<Millis>,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Notification> {
    Ok(Notification {
        id: super::id(row, "id")?,
        user: super::maybe_id(row, "user_id")?,
        title: row.get("title")?,
        message: row.get("message")?,
        kind: super::json(row, "kind")?,
        severity: super::json(row, "severity")?,
        realms: super::json(row, "realm_ids")?,
        created_at: row.get("created_at")?,
        expires_at: row.get("expires_at")?,
        read_at: row.get("read_at")?,
    })
}

pub fn insert(connection: &Connection, notification: &Notification) -> rusqlite::Result<()> {
    let user = notification.user.map(|id| id.to_string());
    connection.execute(
        "INSERT INTO notifications (id, user_id, title, message, kind, severity, realm_ids, created_at, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            notification.id.to_string(),
            user,
            notification.title,
            notification.message,
            super::to_json(&notification.kind),
            super::to_json(&notification.severity),
            super::to_json(&notification.realms),
            notification.created_at,
            notification.expires_at
        ],
    )?;
    let most = if user.is_some() {
        PER_ACCOUNT
    } else {
        ANNOUNCEMENTS
    };
    connection.execute(
        "DELETE FROM notifications WHERE user_id IS ?1 AND id NOT IN (
             SELECT id FROM notifications WHERE user_id IS ?1 ORDER BY created_at DESC, rowid DESC LIMIT ?2)",
        params![user, most],
    )?;
    Ok(())
}

/// Tell the owner of a container that nothing more is tried.
pub fn gave_up(
    connection: &Connection,
    container: &Container,
    reason: &str,
    now: Millis,
) -> rusqlite::Result<()> {
    let Some(project) = super::projects::find(connection, container.project)? else {
        return Ok(()); // it is going
    };
    let reason: String = reason.chars().take(REASON).collect();
    let notification = Notification {
        id: words::id(),
        user: Some(project.user),
        title: format!("Container `{}` failed", container.name),
        message: format!(
            "{reason}. Start it to have it tried again: `hoody containers manage {} start`",
            container.id
        ),
        kind: Kind::StatusUpdate,
        severity: Severity::Error,
        realms: container.realms.clone(),
        created_at: now,
        expires_at: Some(now + KEPT),
        read_at: None,
    };
    insert(connection, &notification)?;
    let news = News {
        kind: EventKind::NotificationCreated,
        by: "system",
        at: now,
        facts: json!({ "title": notification.title }),
    };
    let realms = &notification.realms;
    events::of_account(connection, project.user, notification.id, realms, &news)
}

/// Tell the administrator of certificates that end soon, once of each.
pub fn certificates_end(
    connection: &Connection,
    expiring: &[Certificate],
    now: Millis,
) -> rusqlite::Result<()> {
    let keys: Vec<String> = expiring.iter().map(Certificate::key).collect();
    let told = node::replace(connection, "expiring certificates", &super::to_json(&keys))?;
    let told: Vec<String> = told.map_or_else(Vec::new, |told| {
        serde_json::from_str(&told).unwrap_or_default()
    });
    let Some(administrator) = super::users::administrator(connection)? else {
        return Ok(());
    };
    let news = expiring.iter().zip(&keys);
    for (certificate, _) in news.filter(|(_, key)| !told.contains(key)).take(AT_ONCE) {
        let message: String = certificate.warning().chars().take(REASON).collect();
        let notification = Notification {
            id: words::id(),
            user: Some(administrator.id),
            title: "A certificate is about to end".to_owned(),
            message,
            kind: Kind::StatusUpdate,
            severity: Severity::Warning,
            realms: Vec::new(),
            created_at: now,
            expires_at: Some(now + KEPT),
            read_at: None,
        };
        insert(connection, &notification)?;
        let news = News {
            kind: EventKind::NotificationCreated,
            by: "system",
            at: now,
            facts: json!({ "title": notification.title, "certificate": certificate }),
        };
        events::of_account(connection, administrator.id, notification.id, &[], &news)?;
    }
    Ok(())
}

/// Whose inbox is looked into.
#[derive(Debug, Clone)]
pub struct Inbox {
    pub user: Id,
    pub realms: Realms,
    pub now: Millis,
}

const SEEN: &str =
    "(expires_at IS NULL OR expires_at > :now) AND (user_id IS NULL OR (user_id = :user
    AND (:realms IS NULL OR EXISTS (SELECT 1 FROM json_each(realm_ids) mine
        JOIN json_each(:realms) seen ON mine.value = seen.value))))";

/// All that is in an inbox, the newest first.
pub fn list(connection: &Connection, inbox: &Inbox) -> rusqlite::Result<Vec<Notification>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT notifications.*, (SELECT read_at FROM notification_reads
             WHERE notification_id = notifications.id AND reader_id = :user) AS read_at
         FROM notifications WHERE {SEEN} ORDER BY created_at DESC, rowid DESC"
    ))?;
    let given = named_params! {
        ":user": inbox.user.to_string(),
        ":realms": inbox.realms.parameter(),
        ":now": inbox.now,
    };
    statement.query_map(given, read)?.collect()
}

/// Mark as read; what was read before stays as it was. Says how many were not, or nothing where the
/// one that was named is not in the inbox.
pub fn mark(connection: &Connection, inbox: &Inbox, one: Option<Id>) -> rusqlite::Result<usize> {
    connection.execute(
        &format!(
            "INSERT INTO notification_reads (notification_id, reader_id, read_at)
             SELECT id, :user, :now FROM notifications WHERE {SEEN} AND (:one IS NULL OR id = :one)
             ON CONFLICT DO NOTHING"
        ),
        named_params! {
            ":user": inbox.user.to_string(),
            ":realms": inbox.realms.parameter(),
            ":now": inbox.now,
            ":one": one.map(|id| id.to_string()),
        },
    )
}

pub fn find(
    connection: &Connection,
    inbox: &Inbox,
    id: Id,
) -> rusqlite::Result<Option<Notification>> {
    connection
        .query_row(
            &format!(
                "SELECT notifications.*, (SELECT read_at FROM notification_reads
                     WHERE notification_id = notifications.id AND reader_id = :user) AS read_at
                 FROM notifications WHERE {SEEN} AND id = :one"
            ),
            named_params! {
                ":user": inbox.user.to_string(),
                ":realms": inbox.realms.parameter(),
                ":now": inbox.now,
                ":one": id.to_string(),
            },
            read,
        )
        .optional()
}

/// Drop what is over.
pub fn expire(connection: &Connection, now: Millis) -> rusqlite::Result<usize> {
    connection.execute(
        "DELETE FROM notifications WHERE expires_at <= ?1",
        params![now],
    )
}
