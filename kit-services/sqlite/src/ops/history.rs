//! The history of statements.

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Sqlite;
use crate::history::{Entry, KEPT, Stats as Totals};
use crate::name::Name;

/// Entries of one reply, where the caller does not say.
const LIMIT: i64 = 100;

impl Sqlite {
    /// What the history calls a database: the file that a name leads to.
    async fn kept_as(&self, db: &str) -> Result<String, Fault> {
        let name = Name::parse(db)?;
        Ok(self.store.find(&name).await?.place.shown.clone())
    }
}

/// List what was asked of a database.
///
/// The newest statement comes first. Statements are kept without their values: literals are `?`,
/// and comments are gone. The newest 1000 of a database are kept.
#[derive(Deserialize, JsonSchema)]
pub struct List {
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
    /// Most entries, at most 1000; 100 where not given.
    #[schemars(extend("default" = 100, "maximum" = 1000))]
    limit: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
pub struct Listed {
    history: Vec<Entry>,
    /// Entries of this reply.
    count: usize,
    /// Entries in the history.
    total: i64,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/sqlite/history")
        .named("getQueryHistory")
        .cli("db history list");
    type Service = Sqlite;
    type Reply = Listed;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Listed, Fault> {
        let db = sqlite.kept_as(&self.db).await?;
        let limit = match self.limit {
            None | Some(0) => LIMIT,
            Some(limit) if limit < 0 => return Err(super::wrong("limit", "it is not negative")),
            Some(limit) => limit.min(KEPT),
        };
        let history = sqlite.history.clone();
        sqlite
            .store
            .aside(move || {
                let (history, total) = history.list(&db, limit)?;
                Ok(Listed {
                    count: history.len(),
                    history,
                    total,
                })
            })
            .await
    }
}

/// Clear what was asked of a database.
#[derive(Deserialize, JsonSchema)]
pub struct Clear {
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Cleared {
    success: bool,
    /// Entries that were removed.
    deleted: usize,
}

impl Operation for Clear {
    const ROUTE: Route = Route::delete("/api/v1/sqlite/history")
        .named("clearQueryHistory")
        .cli("db history clear");
    type Service = Sqlite;
    type Reply = Cleared;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Cleared, Fault> {
        let db = sqlite.kept_as(&self.db).await?;
        let history = sqlite.history.clone();
        sqlite
            .store
            .aside(move || {
                Ok(Cleared {
                    success: true,
                    deleted: history.clear(&db)?,
                })
            })
            .await
    }
}

/// Remove one entry of the history.
#[derive(Deserialize, JsonSchema)]
pub struct DeleteEntry {
    /// The `id` of the entry.
    index: i64,
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Deleted {
    success: bool,
    deleted: bool,
}

impl Operation for DeleteEntry {
    const ROUTE: Route = Route::delete("/api/v1/sqlite/history/{index}")
        .named("deleteHistoryEntry")
        .cli("db history delete");
    type Service = Sqlite;
    type Reply = Deleted;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Deleted, Fault> {
        let db = sqlite.kept_as(&self.db).await?;
        let (history, id) = (sqlite.history.clone(), self.index);
        let deleted = sqlite.store.aside(move || history.delete(&db, id)).await?;
        if !deleted {
            return Err(Fault::not_found(format!(
                "no entry {id} in the history of `{}`; list them with GET /api/v1/sqlite/history",
                self.db
            ))
            .code("ENTRY_NOT_FOUND"));
        }
        Ok(Deleted {
            success: true,
            deleted: true,
        })
    }
}

/// Count what was asked of a database.
#[derive(Deserialize, JsonSchema)]
pub struct Stats {
    /// Name of the database, or its path below `/hoody/databases`.
    db: String,
}

impl Operation for Stats {
    const ROUTE: Route = Route::get("/api/v1/sqlite/history/stats")
        .named("getHistoryStats")
        .cli("db history stats");
    type Service = Sqlite;
    type Reply = Totals;

    async fn run(self, sqlite: Sqlite, _: Call) -> Result<Totals, Fault> {
        let db = sqlite.kept_as(&self.db).await?;
        let history = sqlite.history.clone();
        sqlite.store.aside(move || history.stats(&db)).await
    }
}
