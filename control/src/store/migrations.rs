//! The schema, as the steps that led to it. A step that has shipped is never edited.

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// Each brings the database from its place in the list to the next.
const STEPS: &[&str] = &[
    // 1
    "
CREATE TABLE node (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    username TEXT NOT NULL UNIQUE,
    email TEXT UNIQUE,
    alias TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    is_admin INTEGER NOT NULL,
    is_banned INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    rotation INTEGER NOT NULL,
    rotated_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    address TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_by_user ON sessions(user_id, created_at);
CREATE INDEX sessions_by_expiry ON sessions(expires_at);

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    hash BLOB NOT NULL UNIQUE,
    prefix TEXT NOT NULL,
    alias TEXT NOT NULL,
    public_key TEXT,
    public_storage TEXT,
    ip_whitelist TEXT NOT NULL,
    realm_ids TEXT NOT NULL,
    allow_no_realm INTEGER NOT NULL,
    permissions TEXT NOT NULL,
    vault_access INTEGER NOT NULL,
    event_access INTEGER NOT NULL,
    is_enabled INTEGER NOT NULL,
    expires_at INTEGER,
    created_by TEXT,
    depth INTEGER NOT NULL,
    last_used_at INTEGER,
    last_used_ip TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX tokens_by_user ON tokens(user_id, created_at);

CREATE TABLE projects (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users(id),
    alias TEXT NOT NULL,
    color TEXT NOT NULL,
    max_containers INTEGER,
    realm_ids TEXT NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX projects_by_user ON projects(user_id, created_at);

CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects(id),
    name TEXT NOT NULL,
    color TEXT NOT NULL,
    image TEXT,
    kit INTEGER NOT NULL,
    autostart INTEGER NOT NULL,
    environment TEXT NOT NULL,
    ssh_public_key TEXT,
    comment TEXT,
    realm_ids TEXT NOT NULL,
    wants TEXT NOT NULL,
    force INTEGER NOT NULL,
    restart_from INTEGER,
    version INTEGER NOT NULL,
    applied INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    requested_by TEXT NOT NULL,
    failure TEXT,
    made INTEGER NOT NULL,
    status TEXT NOT NULL,
    status_since INTEGER NOT NULL,
    incarnation INTEGER NOT NULL,
    started_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX containers_by_project ON containers(project_id, created_at);
CREATE UNIQUE INDEX containers_by_name ON containers(project_id, name) WHERE wants <> 'gone';
CREATE UNIQUE INDEX containers_by_key ON containers(ssh_public_key)
    WHERE ssh_public_key IS NOT NULL AND wants <> 'gone';

CREATE TABLE status_logs (
    id TEXT PRIMARY KEY,
    container_id TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,
    from_status TEXT,
    to_status TEXT NOT NULL,
    transition_time INTEGER NOT NULL,
    duration_ms INTEGER,
    triggered_by TEXT NOT NULL,
    metadata TEXT
) STRICT;
CREATE INDEX status_logs_by_container ON status_logs(container_id, transition_time);

CREATE TABLE tombstones (
    container_id TEXT PRIMARY KEY,
    buried_at INTEGER NOT NULL
) STRICT;
CREATE INDEX tombstones_by_age ON tombstones(buried_at);
",
    // 2
    "
CREATE TABLE rules (
    owner TEXT PRIMARY KEY,
    container_id TEXT REFERENCES containers(id) ON DELETE CASCADE,
    project_id TEXT REFERENCES projects(id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    document TEXT,
    updated_at INTEGER NOT NULL,
    CHECK ((container_id IS NULL) <> (project_id IS NULL))
) STRICT;
CREATE INDEX rules_by_container ON rules(container_id) WHERE container_id IS NOT NULL;
CREATE INDEX rules_by_project ON rules(project_id) WHERE project_id IS NOT NULL;

CREATE TABLE aliases (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    container_id TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,
    program TEXT NOT NULL,
    number INTEGER NOT NULL,
    target_path TEXT,
    allow_path_override INTEGER NOT NULL,
    expires_at INTEGER,
    enabled INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX aliases_by_container ON aliases(container_id, created_at);

CREATE TABLE link_keys (
    container_id TEXT PRIMARY KEY REFERENCES containers(id) ON DELETE CASCADE,
    key TEXT NOT NULL
) STRICT;

CREATE TABLE links (
    id TEXT PRIMARY KEY,
    container_id TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,
    service TEXT NOT NULL,
    instance INTEGER NOT NULL,
    methods TEXT,
    prefix TEXT,
    comment TEXT,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;
CREATE INDEX links_by_container ON links(container_id, created_at);
CREATE INDEX links_by_expiry ON links(expires_at);
",
    // 3
    "
CREATE TABLE snapshots (
    container_id TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    alias TEXT,
    state TEXT NOT NULL CHECK (state IN ('taking', 'kept', 'dropping')),
    size INTEGER,
    created_at INTEGER NOT NULL,
    last_used_at INTEGER,
    expires_at INTEGER,
    requested_by TEXT NOT NULL,
    PRIMARY KEY (container_id, name)
) STRICT;
CREATE UNIQUE INDEX snapshots_by_alias ON snapshots(container_id, alias) WHERE alias IS NOT NULL;
CREATE INDEX snapshots_by_expiry ON snapshots(expires_at) WHERE expires_at IS NOT NULL;

ALTER TABLE containers ADD COLUMN restoring TEXT;
ALTER TABLE containers ADD COLUMN last_used_snapshot TEXT;
ALTER TABLE containers ADD COLUMN source_id TEXT;
ALTER TABLE containers ADD COLUMN source_snapshot TEXT;
ALTER TABLE containers ADD COLUMN syncing INTEGER NOT NULL DEFAULT 0;
ALTER TABLE containers ADD COLUMN same_at INTEGER;
CREATE INDEX containers_by_source ON containers(source_id) WHERE source_id IS NOT NULL;
",
    // 4: what happened; it outlives what it happened to
    "
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    event_type TEXT NOT NULL,
    resource_type TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    project_id TEXT,
    container_id TEXT,
    payload TEXT NOT NULL,
    realm_ids TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX events_by_user ON events(user_id, seq);
CREATE INDEX events_by_age ON events(created_at);
",
    // 5: machines that were made before have neither
    "
ALTER TABLE containers ADD COLUMN ramdisk INTEGER NOT NULL DEFAULT 0;
ALTER TABLE containers ADD COLUMN kvm INTEGER NOT NULL DEFAULT 0;
",
    // 6: what people are told
    "
CREATE TABLE notifications (
    id TEXT PRIMARY KEY,
    user_id TEXT REFERENCES users(id) ON DELETE CASCADE,
    title TEXT NOT NULL,
    message TEXT NOT NULL,
    kind TEXT NOT NULL,
    severity TEXT NOT NULL,
    realm_ids TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER
) STRICT;
CREATE INDEX notifications_by_user ON notifications(user_id, created_at);
CREATE TABLE notification_reads (
    notification_id TEXT NOT NULL REFERENCES notifications(id) ON DELETE CASCADE,
    reader_id TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    read_at INTEGER NOT NULL,
    PRIMARY KEY (notification_id, reader_id)
) STRICT;
",
    // 7
    "
CREATE TABLE networks (
    container_id TEXT PRIMARY KEY REFERENCES containers(id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    host TEXT,
    port INTEGER,
    credentials BLOB,
    dns_servers TEXT NOT NULL,
    country TEXT,
    city TEXT,
    region TEXT,
    comment TEXT,
    enabled INTEGER NOT NULL,
    configured_at INTEGER NOT NULL
) STRICT;

CREATE TABLE firewalls (
    container_id TEXT PRIMARY KEY REFERENCES containers(id) ON DELETE CASCADE,
    rules TEXT NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
",
    // 8: machines that are kept ready, and are no container's yet
    "
CREATE TABLE prespawned (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    edition TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('making', 'ready', 'dropping')),
    memory INTEGER NOT NULL DEFAULT 0,
    since INTEGER NOT NULL
) STRICT;
ALTER TABLE containers ADD COLUMN prespawned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE containers ADD COLUMN claim TEXT CHECK (claim IN ('open', 'taken', 'spoilt'));
",
    // 9: directories that containers show one another, and what those who could see them say of it
    "
CREATE TABLE shares (
    id TEXT PRIMARY KEY,
    source_id TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    target_container_id TEXT REFERENCES containers(id) ON DELETE CASCADE,
    target_project_id TEXT REFERENCES projects(id) ON DELETE CASCADE,
    writable INTEGER NOT NULL,
    alias TEXT,
    label TEXT,
    description TEXT,
    enabled INTEGER NOT NULL,
    expires_at INTEGER,
    told TEXT NOT NULL CHECK (told IN ('nothing', 'soon', 'over')),
    failure TEXT,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CHECK ((target_container_id IS NULL) <> (target_project_id IS NULL))
) STRICT;
CREATE INDEX shares_by_source ON shares(source_id);
CREATE INDEX shares_by_target ON shares(target_container_id) WHERE target_container_id IS NOT NULL;
CREATE INDEX shares_by_project ON shares(target_project_id) WHERE target_project_id IS NOT NULL;

CREATE TABLE share_mounts (
    id TEXT NOT NULL UNIQUE,
    share_id TEXT NOT NULL REFERENCES shares(id) ON DELETE CASCADE,
    container_id TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,
    mount INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (share_id, container_id)
) STRICT;
CREATE INDEX share_mounts_by_container ON share_mounts(container_id);
",
    // 10: what a container may take of its node, where that is less than all may
    "
ALTER TABLE containers ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
",
    // 11: what people think of images
    "
CREATE TABLE image_ratings (
    user_id TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    image TEXT NOT NULL,
    rating REAL NOT NULL,
    rated_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, image)
) STRICT;
CREATE INDEX image_ratings_by_image ON image_ratings(image);
",
];

/// Bring the schema up to date, one step a transaction.
pub fn run(connection: &mut Connection) -> Result<(), StoreError> {
    let known = i64::try_from(STEPS.len()).expect("there are few steps");
    loop {
        // The version is read under the lock of the transaction: two processes may start at once.
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|source| StoreError::Migrate { from: 0, source })?;
        let from: i64 = transaction
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(|source| StoreError::Migrate { from: 0, source })?;
        if from > known {
            return Err(StoreError::TooNew { found: from, known });
        }
        let Some(step) = usize::try_from(from).ok().and_then(|from| STEPS.get(from)) else {
            return Ok(());
        };
        let wrong = |source| StoreError::Migrate { from, source };
        transaction.execute_batch(step).map_err(wrong)?;
        transaction
            .pragma_update(None, "user_version", from + 1)
            .map_err(wrong)?;
        transaction.commit().map_err(wrong)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_runs_once() {
        let mut connection = Connection::open_in_memory().unwrap();
        run(&mut connection).unwrap();
        run(&mut connection).unwrap();
        let version: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap();
        assert_eq!(version, STEPS.len() as i64);
    }

    #[test]
    fn a_newer_database_is_left_alone() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.pragma_update(None, "user_version", 999).unwrap();
        assert!(matches!(
            run(&mut connection),
            Err(StoreError::TooNew { found: 999, .. })
        ));
    }
}
