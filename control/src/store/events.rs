//! What happened, to what, when, and who had it happen: written in the transaction of the change
//! itself, so that there is no change without its event and no event without its change.
//!
//! An event belongs to the account whose resource it tells of and to the realms that the resource
//! was in. It outlives the resource and goes by age and by number.

use rusqlite::{Connection, OptionalExtension, Row, named_params, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use routes::Id;

use super::Realms;
use crate::time::{DAY, Millis};
use crate::words;

/// How long an event is kept.
pub const KEPT: Millis = 90 * DAY;
/// Events kept of one account; older ones go first.
pub const PER_ACCOUNT: u32 = 20_000;
/// The bound is looked after once in so many events, so that an event costs no count.
const TRIMMED_EVERY: i64 = 128;

macro_rules! kinds {
    ($($name:ident = $word:literal of $resource:ident),* $(,)?) => {
        /// What can happen.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub enum Kind { $(#[serde(rename = $word)] $name),* }

        impl Kind {
            pub const ALL: &[Kind] = &[$(Kind::$name),*];

            pub fn as_str(self) -> &'static str {
                match self { $(Kind::$name => $word),* }
            }

            /// What it happens to.
            pub fn resource(self) -> Resource {
                match self { $(Kind::$name => Resource::$resource),* }
            }
        }
    };
}

kinds! {
    ContainerCreating = "container.creating" of Container,
    ContainerRunning = "container.running" of Container,
    ContainerStopped = "container.stopped" of Container,
    ContainerFailed = "container.failed" of Container,
    ContainerDeleting = "container.deleting" of Container,
    ContainerDeleted = "container.deleted" of Container,
    ContainerAutostartEnabled = "container.autostart_enabled" of Container,
    ContainerAutostartDisabled = "container.autostart_disabled" of Container,
    ContainerRenamed = "container.renamed" of Container,
    ContainerResourceUpdated = "container.resource_updated" of Container,
    ContainerSshKeyAdded = "container.ssh_key.added" of Container,
    ContainerSshKeyRemoved = "container.ssh_key.removed" of Container,
    ContainerSnapshotCreated = "container.snapshot.created" of Container,
    ContainerSnapshotDeleted = "container.snapshot.deleted" of Container,
    ContainerSnapshotRestored = "container.snapshot.restored" of Container,
    ContainerSnapshotRenamed = "container.snapshot.renamed" of Container,
    ContainerDisplayEnabled = "container.display.enabled" of Container,
    StorageShareCreated = "storage.share.created" of StorageShare,
    StorageShareUpdated = "storage.share.updated" of StorageShare,
    StorageShareDeleted = "storage.share.deleted" of StorageShare,
    StorageShareEnabled = "storage.share.enabled" of StorageShare,
    StorageShareDisabled = "storage.share.disabled" of StorageShare,
    StorageShareExpiringSoon = "storage.share.expiring_soon" of StorageShare,
    StorageShareExpired = "storage.share.expired" of StorageShare,
    StorageShareMountChanged = "storage.share.mount_changed" of StorageShare,
    NotificationCreated = "notification.created" of Notification,
    NotificationRead = "notification.read" of Notification,
    NotificationDeleted = "notification.deleted" of Notification,
    ProjectCreated = "project.created" of Project,
    ProjectUpdated = "project.updated" of Project,
    ProjectDeleted = "project.deleted" of Project,
    ServerCreated = "server.created" of Server,
    ServerUpdated = "server.updated" of Server,
    ServerEnabled = "server.enabled" of Server,
    ServerDisabled = "server.disabled" of Server,
    ServerHealthChanged = "server.health_changed" of Server,
    ServerRentalExpiring = "server.rental_expiring" of Server,
    FirewallRuleAdded = "firewall.rule.added" of Firewall,
    FirewallRuleRemoved = "firewall.rule.removed" of Firewall,
    FirewallRuleUpdated = "firewall.rule.updated" of Firewall,
    FirewallRuleEnabled = "firewall.rule.enabled" of Firewall,
    FirewallRuleDisabled = "firewall.rule.disabled" of Firewall,
    ProxyAliasCreated = "proxy.alias.created" of ProxyAlias,
    ProxyAliasUpdated = "proxy.alias.updated" of ProxyAlias,
    ProxyAliasDeleted = "proxy.alias.deleted" of ProxyAlias,
    ProxyAliasEnabled = "proxy.alias.enabled" of ProxyAlias,
    ProxyAliasDisabled = "proxy.alias.disabled" of ProxyAlias,
    ProxyAliasExpiringSoon = "proxy.alias.expiring_soon" of ProxyAlias,
    ProxyAliasExpired = "proxy.alias.expired" of ProxyAlias,
    ProxyPermissionsUpdated = "proxy.permissions.updated" of ProxyPermissions,
    ProxyPermissionsDefaultChanged = "proxy.permissions.default_changed" of ProxyPermissions,
    ProxyPermissionsGroupAdded = "proxy.permissions.group_added" of ProxyPermissions,
    ProxyPermissionsGroupUpdated = "proxy.permissions.group_updated" of ProxyPermissions,
    ProxyPermissionsGroupRemoved = "proxy.permissions.group_removed" of ProxyPermissions,
    AuthTokenCreated = "auth.token.created" of AuthToken,
    AuthTokenUpdated = "auth.token.updated" of AuthToken,
    AuthTokenDeleted = "auth.token.deleted" of AuthToken,
    AuthTokenEnabled = "auth.token.enabled" of AuthToken,
    AuthTokenDisabled = "auth.token.disabled" of AuthToken,
    PoolMemberJoined = "pool.member.joined" of Pool,
    PoolMemberLeft = "pool.member.left" of Pool,
    PoolMemberRoleChanged = "pool.member.role_changed" of Pool,
    PoolInvited = "pool.invited" of Pool,
    PoolInvitationRevoked = "pool.invitation_revoked" of Pool,
    UserCreated = "user.created" of User,
    UserBanned = "user.banned" of User,
    UserUnbanned = "user.unbanned" of User,
    UserRoleChanged = "user.role_changed" of User,
    ActivityLogged = "activity.logged" of ActivityLog,
}

/// What events tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    Container,
    StorageShare,
    Notification,
    Project,
    Server,
    Firewall,
    ProxyAlias,
    ProxyPermissions,
    AuthToken,
    Pool,
    User,
    ActivityLog,
}

impl Resource {
    pub const ALL: &[Resource] = &[
        Resource::Container,
        Resource::StorageShare,
        Resource::Notification,
        Resource::Project,
        Resource::Server,
        Resource::Firewall,
        Resource::ProxyAlias,
        Resource::ProxyPermissions,
        Resource::AuthToken,
        Resource::Pool,
        Resource::User,
        Resource::ActivityLog,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Resource::Container => "container",
            Resource::StorageShare => "storage_share",
            Resource::Notification => "notification",
            Resource::Project => "project",
            Resource::Server => "server",
            Resource::Firewall => "firewall",
            Resource::ProxyAlias => "proxy_alias",
            Resource::ProxyPermissions => "proxy_permissions",
            Resource::AuthToken => "auth_token",
            Resource::Pool => "pool",
            Resource::User => "user",
            Resource::ActivityLog => "activity_log",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its place among all: later ones are larger, and none is given twice.
    pub seq: i64,
    pub id: Id,
    pub kind: String,
    pub resource: String,
    pub resource_id: String,
    pub user: Id,
    pub payload: Value,
    pub realms: Vec<Id>,
    pub at: Millis,
}

/// What happened, beside what it happened to.
#[derive(Debug, Clone)]
pub struct News<'a> {
    pub kind: Kind,
    /// Who had it happen: `user:admin`, `token:deploy`, `system`.
    pub by: &'a str,
    pub at: Millis,
    /// An object of what else there is to say.
    pub facts: Value,
}

fn payload(news: &News<'_>) -> Value {
    let mut payload = match &news.facts {
        Value::Object(_) => news.facts.clone(),
        _ => json!({}),
    };
    payload["triggered_by"] = news.by.into();
    payload
}

/// Record what happened to a container, or to something of it (an alias) with an id of its own.
pub fn of_container(
    connection: &Connection,
    container: Id,
    resource: Option<Id>,
    news: &News<'_>,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO events (id, event_type, resource_type, resource_id, user_id, project_id, container_id,
             payload, realm_ids, created_at)
         SELECT :id, :kind, :resource, :resource_id, projects.user_id, projects.id, containers.id,
             json_set(:payload, '$.container_id', containers.id, '$.project_id', projects.id,
                 '$.container_name', containers.name),
             containers.realm_ids, :at
         FROM containers JOIN projects ON projects.id = containers.project_id
         WHERE containers.id = :container",
        named_params! {
            ":id": words::id().to_string(),
            ":kind": news.kind.as_str(),
            ":resource": news.kind.resource().as_str(),
            ":resource_id": resource.unwrap_or(container).to_string(),
            ":payload": payload(news).to_string(),
            ":at": news.at,
            ":container": container.to_string(),
        },
    )?;
    trim(connection)
}

/// Record what happened to a project, or to something of it (a share) with an id of its own.
pub fn of_project(
    connection: &Connection,
    project: Id,
    resource: Option<Id>,
    news: &News<'_>,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO events (id, event_type, resource_type, resource_id, user_id, project_id, payload,
             realm_ids, created_at)
         SELECT :id, :kind, :resource, :resource_id, projects.user_id, projects.id,
             json_set(:payload, '$.project_id', projects.id, '$.project_alias', projects.alias),
             projects.realm_ids, :at
         FROM projects WHERE projects.id = :project",
        named_params! {
            ":id": words::id().to_string(),
            ":kind": news.kind.as_str(),
            ":resource": news.kind.resource().as_str(),
            ":resource_id": resource.unwrap_or(project).to_string(),
            ":payload": payload(news).to_string(),
            ":at": news.at,
            ":project": project.to_string(),
        },
    )?;
    trim(connection)
}

/// Record what happened to something that belongs to an account as a whole.
pub fn of_account(
    connection: &Connection,
    user: Id,
    resource: Id,
    realms: &[Id],
    news: &News<'_>,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO events (id, event_type, resource_type, resource_id, user_id, payload, realm_ids, created_at)
         VALUES (:id, :kind, :resource, :resource_id, :user, :payload, :realms, :at)",
        named_params! {
            ":id": words::id().to_string(),
            ":kind": news.kind.as_str(),
            ":resource": news.kind.resource().as_str(),
            ":resource_id": resource.to_string(),
            ":user": user.to_string(),
            ":payload": payload(news).to_string(),
            ":realms": super::to_json(&realms),
            ":at": news.at,
        },
    )?;
    trim(connection)
}

/// Now and then, drop what the account of the newest event has too many of.
fn trim(connection: &Connection) -> rusqlite::Result<()> {
    if newest(connection)? % TRIMMED_EVERY != 0 {
        return Ok(());
    }
    trim_to(connection, PER_ACCOUNT)
}

fn trim_to(connection: &Connection, most: u32) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM events WHERE seq IN (
             SELECT seq FROM (SELECT seq, row_number() OVER (PARTITION BY user_id ORDER BY seq DESC) AS place
                 FROM events) WHERE place > ?1)",
        params![most],
    )?;
    Ok(())
}

/// Drop what is older than [`KEPT`].
pub fn expire(connection: &Connection, now: Millis) -> rusqlite::Result<usize> {
    connection.execute(
        "DELETE FROM events WHERE created_at < ?1",
        params![now - KEPT],
    )
}

/// The place of the newest event.
pub fn newest(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT ifnull(max(seq), 0) FROM events")?
        .query_row([], |row| row.get(0))
}

/// What a caller may see of the events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub user: Id,
    pub realms: Realms,
    /// The kinds of resources that the caller may read.
    pub resources: Vec<Resource>,
    /// The token of the caller: of tokens it sees itself and those it made.
    pub token: Option<Id>,
}

/// Which of them a caller asks for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub kind: Option<Kind>,
    pub resource: Option<Resource>,
    pub resource_id: Option<Id>,
    pub project: Option<Id>,
    pub container: Option<Id>,
    pub since: Option<Millis>,
    pub until: Option<Millis>,
    pub id: Option<Id>,
}

/// An event is seen in the realms its resource was in, and, as long as that is there, in those
/// that it is in now: what has left a realm takes its history along.
const SEEN: &str = "events.user_id = :user
    AND events.resource_type IN (SELECT value FROM json_each(:resources))
    AND (:token IS NULL OR events.resource_type <> 'auth_token' OR events.resource_id = :token
        OR json_extract(events.payload, '$.created_by_token_id') = :token)
    AND (:realms IS NULL OR (
        EXISTS (SELECT 1 FROM json_each(events.realm_ids) mine JOIN json_each(:realms) seen
            ON mine.value = seen.value)
        AND NOT EXISTS (SELECT 1 FROM containers WHERE containers.id = events.container_id
            AND NOT EXISTS (SELECT 1 FROM json_each(containers.realm_ids) mine JOIN json_each(:realms) seen
                ON mine.value = seen.value))
        AND NOT EXISTS (SELECT 1 FROM projects WHERE projects.id = events.project_id
            AND events.container_id IS NULL
            AND NOT EXISTS (SELECT 1 FROM json_each(projects.realm_ids) mine JOIN json_each(:realms) seen
                ON mine.value = seen.value))))
    AND (:kind IS NULL OR events.event_type = :kind)
    AND (:resource IS NULL OR events.resource_type = :resource)
    AND (:resource_id IS NULL OR events.resource_id = :resource_id)
    AND (:project IS NULL OR events.project_id = :project)
    AND (:container IS NULL OR events.container_id = :container)
    AND (:since IS NULL OR events.created_at >= :since)
    AND (:until IS NULL OR events.created_at < :until)
    AND (:id IS NULL OR events.id = :id)
    AND events.seq > :after AND events.seq <= :upto";

/// Everything a query about events is told.
struct Bound(Vec<(&'static str, Box<dyn rusqlite::ToSql>)>);

impl Bound {
    fn new(view: &View, filter: &Filter, after: i64, upto: i64) -> Bound {
        let id = |id: Option<Id>| id.map(|id| id.to_string());
        let resources: Vec<&str> = view.resources.iter().map(|one| one.as_str()).collect();
        Bound(vec![
            (":user", Box::new(view.user.to_string())),
            (":resources", Box::new(super::to_json(&resources))),
            (":token", Box::new(id(view.token))),
            (":realms", Box::new(view.realms.parameter())),
            (":kind", Box::new(filter.kind.map(Kind::as_str))),
            (":resource", Box::new(filter.resource.map(Resource::as_str))),
            (":resource_id", Box::new(id(filter.resource_id))),
            (":project", Box::new(id(filter.project))),
            (":container", Box::new(id(filter.container))),
            (":since", Box::new(filter.since)),
            (":until", Box::new(filter.until)),
            (":id", Box::new(id(filter.id))),
            (":after", Box::new(after)),
            (":upto", Box::new(upto)),
        ])
    }

    fn all(&self) -> Vec<(&str, &dyn rusqlite::ToSql)> {
        self.0
            .iter()
            .map(|(name, value)| (*name, value.as_ref()))
            .collect()
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event {
        seq: row.get("seq")?,
        id: super::id(row, "id")?,
        kind: row.get("event_type")?,
        resource: row.get("resource_type")?,
        resource_id: row.get("resource_id")?,
        user: super::id(row, "user_id")?,
        payload: super::json(row, "payload")?,
        realms: super::json(row, "realm_ids")?,
        at: row.get("created_at")?,
    })
}

/// How a page of events is sorted.
#[derive(Debug, Clone, Copy)]
pub struct Sort {
    pub by_kind: bool,
    pub descending: bool,
    pub limit: u32,
    pub offset: u32,
}

/// A page of events, and how many there are.
pub fn list(
    connection: &Connection,
    view: &View,
    filter: &Filter,
    sort: Sort,
) -> rusqlite::Result<(Vec<Event>, u64)> {
    let bound = Bound::new(view, filter, 0, i64::MAX);
    let total: i64 = connection.query_row(
        &format!("SELECT count(*) FROM events WHERE {SEEN}"),
        bound.all().as_slice(),
        |row| row.get(0),
    )?;
    let direction = if sort.descending { "DESC" } else { "ASC" };
    let first = if sort.by_kind {
        "event_type"
    } else {
        "created_at"
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT * FROM events WHERE {SEEN} ORDER BY {first} {direction}, seq {direction} LIMIT {} OFFSET {}",
        sort.limit, sort.offset
    ))?;
    let page = statement
        .query_map(bound.all().as_slice(), read)?
        .collect::<Result<_, _>>()?;
    Ok((page, total.cast_unsigned()))
}

pub fn find(connection: &Connection, view: &View, id: Id) -> rusqlite::Result<Option<Event>> {
    let filter = Filter {
        id: Some(id),
        ..Filter::default()
    };
    let bound = Bound::new(view, &filter, 0, i64::MAX);
    connection
        .query_row(
            &format!("SELECT * FROM events WHERE {SEEN}"),
            bound.all().as_slice(),
            read,
        )
        .optional()
}

/// Events behind `after`, oldest first and at most `limit`, and the place up to which all were
/// looked at.
pub fn after(
    connection: &Connection,
    view: &View,
    after: i64,
    limit: usize,
) -> rusqlite::Result<(Vec<Event>, i64)> {
    let upto = newest(connection)?;
    if upto <= after {
        return Ok((Vec::new(), after));
    }
    let bound = Bound::new(view, &Filter::default(), after, upto);
    let mut statement = connection.prepare_cached(&format!(
        "SELECT * FROM events WHERE {SEEN} ORDER BY seq LIMIT {limit}"
    ))?;
    let found: Vec<Event> = statement
        .query_map(bound.all().as_slice(), read)?
        .collect::<Result<_, _>>()?;
    let seen = match found.last() {
        Some(last) if found.len() == limit => last.seq,
        _ => upto,
    };
    Ok((found, seen))
}

/// Remove events; returns how many went.
pub fn delete(connection: &Connection, view: &View, filter: &Filter) -> rusqlite::Result<usize> {
    let bound = Bound::new(view, filter, 0, i64::MAX);
    connection.execute(
        &format!("DELETE FROM events WHERE {SEEN}"),
        bound.all().as_slice(),
    )
}

/// How many events there are, of what kind and of what, and from when to when.
#[derive(Debug, Default)]
pub struct Counts {
    pub by_kind: Vec<(String, String, u64)>,
    pub oldest: Option<Millis>,
    pub newest: Option<Millis>,
}

pub fn count(connection: &Connection, view: &View, filter: &Filter) -> rusqlite::Result<Counts> {
    let bound = Bound::new(view, filter, 0, i64::MAX);
    let mut statement = connection.prepare_cached(&format!(
        "SELECT event_type, resource_type, count(*), min(created_at), max(created_at) FROM events
         WHERE {SEEN} GROUP BY event_type, resource_type"
    ))?;
    let mut rows = statement.query(bound.all().as_slice())?;
    let mut counts = Counts::default();
    while let Some(row) = rows.next()? {
        let n: i64 = row.get(2)?;
        counts
            .by_kind
            .push((row.get(0)?, row.get(1)?, n.cast_unsigned()));
        let (first, last): (Millis, Millis) = (row.get(3)?, row.get(4)?);
        counts.oldest = Some(counts.oldest.map_or(first, |oldest| oldest.min(first)));
        counts.newest = Some(counts.newest.map_or(last, |newest| newest.max(last)));
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::migrations;

    fn database() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        migrations::run(&mut connection).unwrap();
        connection
    }

    fn record(db: &Connection, user: u8, realms: &[Id], at: Millis) {
        let news = News {
            kind: Kind::AuthTokenCreated,
            by: "user:me",
            at,
            facts: json!({ "n": at }),
        };
        of_account(db, Id([user; 12]), Id([9; 12]), realms, &news).unwrap();
    }

    fn view(user: u8, realms: Realms) -> View {
        View {
            user: Id([user; 12]),
            realms,
            resources: Resource::ALL.to_vec(),
            token: None,
        }
    }

    #[test]
    fn kinds_are_written_as_they_are_read() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        for resource in Resource::ALL {
            assert_eq!(serde_json::to_value(resource).unwrap(), resource.as_str());
        }
    }

    #[test]
    fn an_account_has_so_many_and_takes_nothing_from_others() {
        let db = database();
        record(&db, 2, &[], 1);
        for at in 0..10 {
            record(&db, 1, &[], at);
        }
        trim_to(&db, 4).unwrap();
        let (mine, upto) = after(&db, &view(1, Realms::All), 0, 100).unwrap();
        assert_eq!(mine.iter().map(|e| e.at).collect::<Vec<_>>(), [6, 7, 8, 9]);
        assert_eq!(upto, 11);
        assert_eq!(
            after(&db, &view(2, Realms::All), 0, 100).unwrap().0.len(),
            1
        );
        // A place is never given twice, even where the newest event went.
        db.execute("DELETE FROM events", []).unwrap();
        record(&db, 1, &[], 3);
        assert_eq!(newest(&db).unwrap(), 12);
    }

    #[test]
    fn old_ones_go() {
        let db = database();
        record(&db, 1, &[], 0);
        record(&db, 1, &[], KEPT);
        assert_eq!(expire(&db, KEPT + 1).unwrap(), 1);
        assert_eq!(
            after(&db, &view(1, Realms::All), 0, 100).unwrap().0.len(),
            1
        );
    }

    #[test]
    fn each_view_has_its_own() {
        let db = database();
        let (a, b) = (Id([10; 12]), Id([11; 12]));
        record(&db, 1, &[a], 1);
        record(&db, 1, &[a, b], 2);
        record(&db, 1, &[], 3);
        record(&db, 2, &[a], 4);
        let check = |view: &View, want: &[Millis]| {
            let (seen, _) = after(&db, view, 0, 100).unwrap();
            assert_eq!(
                seen.iter().map(|e| e.at).collect::<Vec<_>>(),
                want,
                "{view:?}"
            );
        };
        check(&view(1, Realms::All), &[1, 2, 3]);
        check(&view(1, Realms::Within(vec![a])), &[1, 2]);
        check(&view(1, Realms::Within(vec![b])), &[2]);
        check(&view(3, Realms::All), &[]);
        let other = View {
            token: Some(Id([8; 12])),
            ..view(1, Realms::All)
        };
        check(&other, &[]);
        let itself = View {
            token: Some(Id([9; 12])),
            ..view(1, Realms::All)
        };
        check(&itself, &[1, 2, 3]);
        let blind = View {
            resources: vec![Resource::Container],
            ..view(1, Realms::All)
        };
        check(&blind, &[]);
        // Whoever looks in small steps misses nothing.
        let (first, upto) = after(&db, &view(1, Realms::All), 0, 2).unwrap();
        let (second, end) = after(&db, &view(1, Realms::All), upto, 2).unwrap();
        assert_eq!((first.len(), second.len(), end), (2, 1, 4));
    }
}
