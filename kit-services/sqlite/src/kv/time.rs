//! The past of keys and tables: what was when, and going back.
//!
//! A moment is a row of the history: of a key the newest at or before it. Where that row is a `gap`,
//! or where the beginning of the history was removed because it was too long, what was is not known,
//! and the answer says so instead of guessing.

use base64::Engine as _;
use kit::Fault;
use rusqlite::{OptionalExtension, Row, params};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;

use super::{Entry, Kv, Listed, PAGE, bytes, shown};
use crate::value::{BASE64, weight};

/// Keys that one rollback of a table changes, at most.
const MOST_CHANGES: usize = 10_000;
/// Keys of a gap that are named.
const NAMED_GAPS: usize = 100;
/// Timestamps above this are milliseconds: in seconds it is the year 5138.
const MILLISECONDS: i64 = 100_000_000_000;

/// The end of the moment that a timestamp names, in milliseconds: a second is over at its end.
pub fn moment(timestamp: i64) -> i64 {
    if timestamp >= MILLISECONDS {
        timestamp
    } else {
        timestamp.saturating_mul(1000).saturating_add(999)
    }
}

/// An operation on a key.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Op {
    /// Its number among those of the key, from 1.
    pub op_number: i64,
    pub operation: Change,
    /// When, in milliseconds since 1970.
    pub at: i64,
}

/// What an operation did.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Change {
    /// `set`, `delete`, `incr`, `decr`, `push`, `pop`, `remove`, `rollback`; `gap` where writes
    /// were not kept.
    pub op: String,
    /// The value before, where it is JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_value: Option<Json>,
    /// The value after, where it is JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_value: Option<Json>,
    /// The bytes before, in base64, where they are not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_old_value: Option<String>,
    /// The bytes after, in base64, where they are not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_new_value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// What a key was at a moment.
#[derive(Debug, PartialEq, Eq)]
pub enum Past {
    Held(Entry, i64),
    Absent,
    Unknown,
}

/// A key that differs between two moments.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Difference {
    pub key: String,
    /// `created`, `modified` or `deleted`.
    pub r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_value: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_value: Option<Json>,
}

/// Differences, and the keys of which something is not known.
#[derive(Debug, Default)]
pub struct Compared {
    pub changes: Vec<Difference>,
    pub created: u64,
    pub modified: u64,
    pub deleted: u64,
    pub gaps: Gaps,
    pub truncated: bool,
}

/// Keys of which something is not known.
#[derive(Debug, Default)]
pub struct Gaps {
    pub keys: Vec<String>,
    pub count: usize,
}

impl Gaps {
    fn add(&mut self, key: String) {
        self.count += 1;
        if self.keys.len() < NAMED_GAPS {
            self.keys.push(key);
        }
    }

    /// The failure that they are where nothing may be unknown.
    pub fn fault(&self) -> Fault {
        Fault::conflict(format!(
            "time-travel chain gap: what {} key(s) held is not known, because they were written \
             without history or it is gone ({}); leave them out with exclude_keys, or name others \
             with keys",
            self.count,
            self.keys.join(", ")
        ))
        .code("HISTORY_GAP")
    }
}

fn entry(row: &Row<'_>, from: usize) -> rusqlite::Result<Option<Entry>> {
    let content_type: Option<String> = row.get(from + 1)?;
    Ok(content_type.map(|content_type| Entry {
        bytes: row.get_ref(from).map(bytes).unwrap_or_default(),
        content_type,
        expires_at: row.get(from + 2).unwrap_or_default(),
    }))
}

/// A value that is JSON as it is, any other in base64.
fn split(entry: Option<&Entry>) -> (Option<Json>, Option<String>) {
    match entry {
        None => (None, None),
        Some(entry) if entry.is_json() => (Some(entry.shown()), None),
        Some(entry) => (None, Some(BASE64.encode(&entry.bytes))),
    }
}

/// Of each key the newest operation up to a moment, `?1`, and whether the key's history goes back
/// to its beginning.
const AT: &str = "
    SELECT key, max(op_number) AS op_number, min(op_number) AS first FROM {h}
    WHERE at <= ?1 GROUP BY key";

impl Kv<'_> {
    /// The operations on a key, the newest first; whether there are gaps among them; whether there
    /// are more than were asked for.
    pub fn history(&self, key: &str, limit: i64) -> Result<(Vec<Op>, bool, bool), Fault> {
        let mut left = PAGE;
        self.with(
            "SELECT op_number, at, op, value, content_type, expires_at FROM {h}
             WHERE key = ?1 ORDER BY op_number DESC LIMIT ?2",
            |select| {
                let mut rows = select.query(params![key, limit + 1])?;
                let mut found: Vec<(i64, i64, String, Option<Entry>)> = Vec::new();
                let mut cut = false;
                while let Some(row) = rows.next()? {
                    // each value is told twice, as the new one and as the old one
                    match left.checked_sub(2 * weight(row.get_ref(3)?)) {
                        Some(rest) => left = rest,
                        None => {
                            cut = true;
                            break;
                        }
                    }
                    found.push((row.get(0)?, row.get(1)?, row.get(2)?, entry(row, 3)?));
                }
                let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
                let more = cut || found.len() > wanted;
                let gaps = found.iter().any(|(_, _, op, _)| op == "gap")
                    || (!more && found.last().is_some_and(|(number, ..)| *number > 1));
                let mut operations = Vec::with_capacity(found.len());
                for (at, (number, when, op, new)) in found.iter().enumerate().take(wanted) {
                    let old = found.get(at + 1).and_then(|(.., old)| old.as_ref());
                    let (old_value, raw_old_value) = split(old);
                    let (new_value, raw_new_value) = split(new.as_ref());
                    operations.push(Op {
                        op_number: *number,
                        at: *when,
                        operation: Change {
                            op: op.clone(),
                            old_value,
                            new_value,
                            raw_old_value,
                            raw_new_value,
                            content_type: new.as_ref().or(old).map(|it| it.content_type.clone()),
                        },
                    });
                }
                Ok((operations, gaps, more))
            },
        )
    }

    /// What a key held after one of its operations.
    pub fn after(&self, key: &str, number: i64) -> Result<Option<Past>, Fault> {
        self.with(
            "SELECT op, value, content_type, expires_at FROM {h} WHERE key = ?1 AND op_number = ?2",
            |select| {
                select
                    .query_row(params![key, number], |row| {
                        let op: String = row.get(0)?;
                        Ok(match (op.as_str(), entry(row, 1)?) {
                            ("gap", _) => Past::Unknown,
                            (_, Some(entry)) => Past::Held(entry, number),
                            (_, None) => Past::Absent,
                        })
                    })
                    .optional()
            },
        )
    }

    /// What a key held at a moment.
    pub fn at(&self, key: &str, moment: i64) -> Result<Past, Fault> {
        let last = self.with(
            "SELECT max(op_number) FROM {h} WHERE key = ?1 AND at <= ?2",
            |select| select.query_row(params![key, moment], |row| row.get::<_, Option<i64>>(0)),
        )?;
        match last {
            Some(number) => Ok(match self.after(key, number)? {
                Some(Past::Held(entry, _))
                    if entry.expires_at.is_some_and(|expires| expires <= moment) =>
                {
                    Past::Absent
                }
                Some(past) => past,
                None => Past::Unknown,
            }),
            None => {
                // before the first operation that is kept
                let first = self
                    .with("SELECT min(op_number) FROM {h} WHERE key = ?1", |select| {
                        select.query_row(params![key], |row| row.get::<_, Option<i64>>(0))
                    })?;
                match first {
                    Some(1) => Ok(Past::Absent),
                    Some(_) => Ok(Past::Unknown),
                    None if self.exists(key)? => Ok(Past::Unknown),
                    None => Ok(Past::Absent),
                }
            }
        }
    }

    /// The number of a key's newest operation; 0 where it has none.
    pub fn newest(&self, key: &str) -> Result<i64, Fault> {
        self.with(
            "SELECT coalesce(max(op_number), 0) FROM {h} WHERE key = ?1",
            |select| select.query_row(params![key], |row| row.get(0)),
        )
    }

    /// Keys that a table held at a moment, in order; how many; and the gaps.
    pub fn snapshot(
        &self,
        moment: i64,
        prefix: &str,
        limit: i64,
    ) -> Result<(Vec<Listed>, i64, Gaps), Fault> {
        let end = super::after(prefix);
        let sql = format!(
            "SELECT h.key, h.value, h.content_type, h.at, h.expires_at, h.op FROM ({AT}) AS l
             JOIN {{h}} AS h ON h.key = l.key AND h.op_number = l.op_number
             WHERE h.key >= ?2 AND (?3 IS NULL OR h.key < ?3)
             AND (h.expires_at IS NULL OR h.expires_at > ?1)
             AND (h.content_type IS NOT NULL OR h.op = 'gap') ORDER BY h.key"
        );
        let mut left = PAGE;
        let mut gaps = Gaps::default();
        let mut count = 0;
        let listed = self.with(&sql, |select| {
            let mut rows = select.query(params![moment, prefix, end])?;
            let mut listed = Vec::new();
            while let Some(row) = rows.next()? {
                if row.get_ref(5)?.as_str()? == "gap" {
                    gaps.add(row.get(0)?);
                    continue;
                }
                count += 1;
                if count > limit {
                    continue;
                }
                let value = row.get_ref(1)?;
                let Some(rest) = left.checked_sub(weight(value)) else {
                    continue;
                };
                left = rest;
                let content_type: String = row.get(2)?;
                listed.push(Listed {
                    key: row.get(0)?,
                    value: shown(&bytes(value), &content_type),
                    content_type,
                    created_at: row.get(3)?,
                    updated_at: row.get(3)?,
                    expires_at: row.get(4)?,
                });
            }
            Ok(listed)
        })?;
        for key in self.forgotten(moment)? {
            gaps.add(key);
        }
        Ok((listed, count, gaps))
    }

    /// Keys whose history begins after a moment and not at its beginning, and those that were
    /// written by somebody who keeps none.
    fn forgotten(&self, moment: i64) -> Result<Vec<String>, Fault> {
        self.with(
            "SELECT key FROM {h} GROUP BY key HAVING min(at) > ?1 AND min(op_number) > 1
             UNION SELECT key FROM {t} AS t WHERE updated_at <= ?1
                AND NOT EXISTS (SELECT 1 FROM {h} AS h WHERE h.key = t.key)
             ORDER BY 1 LIMIT 10000",
            |select| {
                select
                    .query_map(params![moment], |row| row.get(0))?
                    .collect()
            },
        )
    }

    /// What differs between two moments, at most so many values of it.
    pub fn compare(
        &self,
        from: i64,
        to: i64,
        wanted: &dyn Fn(&str) -> bool,
        most: usize,
    ) -> Result<Compared, Fault> {
        let mut compared = Compared::default();
        let mut left = PAGE;
        // an operation that left the same behind changed nothing
        let sql = "
            WITH f AS (SELECT key, max(op_number) AS n FROM {h} WHERE at <= ?1 GROUP BY key),
                 l AS (SELECT key, max(op_number) AS n FROM {h} WHERE at <= ?2 GROUP BY key),
                 b AS (SELECT key, min(op_number) AS n FROM {h} GROUP BY key)
            SELECT l.key,
                   a.op, CASE WHEN a.expires_at <= ?1 THEN NULL ELSE a.content_type END, a.value,
                   z.op, CASE WHEN z.expires_at <= ?2 THEN NULL ELSE z.content_type END, z.value,
                   f.n IS NULL AND b.n > 1
            FROM l JOIN b ON b.key = l.key LEFT JOIN f ON f.key = l.key
            LEFT JOIN {h} AS a ON a.key = f.key AND a.op_number = f.n
            JOIN {h} AS z ON z.key = l.key AND z.op_number = l.n
            WHERE l.n IS NOT f.n OR a.expires_at <= ?2 ORDER BY l.key";
        self.with(sql, |select| {
            let mut rows = select.query(params![from, to])?;
            while let Some(row) = rows.next()? {
                let key: String = row.get(0)?;
                if !wanted(&key) {
                    continue;
                }
                let gap = |at: usize| -> rusqlite::Result<bool> {
                    Ok(row.get_ref(at)?.as_str_or_null()? == Some("gap"))
                };
                if gap(1)? || gap(4)? || row.get::<_, bool>(7)? {
                    compared.gaps.add(key);
                    continue;
                }
                let old: Option<String> = row.get(2)?;
                let new: Option<String> = row.get(5)?;
                let (before, after) = (row.get_ref(3)?, row.get_ref(6)?);
                let (kind, counter) = match (&old, &new) {
                    (None, None) => continue,
                    (None, Some(_)) => ("created", &mut compared.created),
                    (Some(_), None) => ("deleted", &mut compared.deleted),
                    (Some(was), Some(is)) if was == is && bytes(before) == bytes(after) => continue,
                    (Some(_), Some(_)) => ("modified", &mut compared.modified),
                };
                *counter += 1;
                let heavy = weight(before) + weight(after);
                match left.checked_sub(heavy) {
                    Some(rest) if compared.changes.len() < most => left = rest,
                    _ => {
                        compared.truncated = true;
                        continue;
                    }
                }
                compared.changes.push(Difference {
                    key,
                    r#type: kind,
                    old_value: old.map(|kind| shown(&bytes(before), &kind)),
                    new_value: new.map(|kind| shown(&bytes(after), &kind)),
                });
            }
            Ok(())
        })?;
        Ok(compared)
    }

    /// Bring a key back to what it was so many operations ago. The number of that operation, and
    /// what the key holds now.
    pub fn roll_back(&self, key: &str, steps: i64) -> Result<(i64, Option<Entry>), Fault> {
        let newest = self.newest(key)?;
        if newest == 0 {
            return Err(super::missing(key));
        }
        let target = newest - steps;
        if target < 0 {
            return Err(Fault::bad_request(format!(
                "`{key}` has {newest} operation(s); it cannot go back {steps}"
            ))
            .code("TOO_MANY_STEPS"));
        }
        let past = match target {
            0 => Some(Past::Absent),
            target => self.after(key, target)?,
        };
        let unknown = || {
            Fault::conflict(format!(
                "time-travel chain gap: what `{key}` held after its operation {target} is not \
                 known; look at its history"
            ))
            .code("HISTORY_GAP")
        };
        match past {
            None | Some(Past::Unknown) => Err(unknown()),
            Some(Past::Absent) => {
                self.remove(key, "rollback")?;
                Ok((target, None))
            }
            Some(Past::Held(entry, _)) => {
                self.put(key, &entry, "rollback")?;
                Ok((target, Some(entry)))
            }
        }
    }

    /// Bring all that is wanted back to a moment.
    pub fn roll_back_table(
        &self,
        moment: i64,
        wanted: &dyn Fn(&str) -> bool,
        dry: bool,
    ) -> Result<Compared, Fault> {
        // the difference from now to then
        let compared = self.compare(moment, self.manner.now, wanted, MOST_CHANGES)?;
        if compared.gaps.count > 0 {
            return Err(compared.gaps.fault());
        }
        let many = compared.created + compared.modified + compared.deleted;
        if many > MOST_CHANGES as u64 {
            return Err(Fault::too_large(format!(
                "{many} keys would change; a rollback changes at most {MOST_CHANGES}: name some \
                 with keys, or go back in parts"
            ))
            .code("TOO_MANY_KEYS"));
        }
        if dry {
            return Ok(compared);
        }
        let sql =
            format!("SELECT l.key, coalesce(l.op_number, 0) FROM ({AT}) AS l WHERE l.key = ?2");
        let keys = self.changed(moment, wanted)?;
        for key in keys {
            let number = self.with(&sql, |select| {
                select
                    .query_row(params![moment, key], |row| row.get::<_, i64>(1))
                    .optional()
            })?;
            let past = match number {
                None => Past::Absent,
                Some(number) => self.after(&key, number)?.unwrap_or(Past::Unknown),
            };
            match past {
                Past::Held(entry, _) if entry.expires_at.is_none_or(|at| at > self.manner.now) => {
                    self.put(&key, &entry, "rollback")?;
                }
                Past::Unknown => {
                    let mut gaps = Gaps::default();
                    gaps.add(key);
                    return Err(gaps.fault());
                }
                _ => {
                    self.remove(&key, "rollback")?;
                }
            }
        }
        Ok(compared)
    }

    /// Keys that something was done to after a moment.
    fn changed(&self, moment: i64, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<String>, Fault> {
        self.with(
            "SELECT DISTINCT key FROM {h} WHERE at > ?1 ORDER BY key",
            |select| {
                let mut rows = select.query(params![moment])?;
                let mut keys = Vec::new();
                while let Some(row) = rows.next()? {
                    let key: String = row.get(0)?;
                    if wanted(&key) {
                        keys.push(key);
                    }
                }
                Ok(keys)
            },
        )
    }
}
