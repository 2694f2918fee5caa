//! What the log holds, counted.

use std::collections::BTreeMap;
use std::io;

use schemars::JsonSchema;
use serde::Serialize;

use crate::Scope;
use crate::entry::{Head, Kind, Level};
use crate::log::View;

/// Names that are counted apart; ports can be many, methods anything.
const NAMES: usize = 256;
const OTHERS: &str = "other";

/// How many entries there are of what.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    pub total: u64,
    pub by_level: BTreeMap<&'static str, u64>,
    /// The container's own project.
    pub by_project: BTreeMap<String, u64>,
    /// The container itself.
    pub by_container: BTreeMap<String, u64>,
    pub by_service: BTreeMap<String, u64>,
    pub by_kind: BTreeMap<&'static str, u64>,
    pub by_method: BTreeMap<String, u64>,
    /// By the class of the status: `2xx`.
    pub by_status: BTreeMap<&'static str, u64>,
    /// When the oldest entry was made, in milliseconds since 1970.
    pub oldest_ms: Option<i64>,
    pub newest_ms: Option<i64>,
}

/// Count all entries of a log.
pub fn count(view: &View, scope: Scope) -> io::Result<Stats> {
    let mut stats = Stats::default();
    view.each(|line| {
        if let Some(head) = Head::of(line) {
            stats.add(&head);
        }
    })?;
    if stats.total > 0 {
        let names = [
            (&mut stats.by_project, scope.project),
            (&mut stats.by_container, scope.container),
        ];
        for (counts, key) in names {
            counts.insert(key.to_string(), stats.total);
        }
    }
    Ok(stats)
}

impl Stats {
    fn add(&mut self, head: &Head<'_>) {
        self.total += 1;
        self.oldest_ms.get_or_insert(head.ts_ms);
        self.newest_ms = Some(head.ts_ms);
        let level = match head.level {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        let kind = match head.kind {
            Kind::Request => "request",
            Kind::Response => "response",
            Kind::Event => "event",
        };
        *self.by_level.entry(level).or_default() += 1;
        *self.by_kind.entry(kind).or_default() += 1;
        named(&mut self.by_service, &head.service_name);
        if let Some(method) = &head.method {
            named(&mut self.by_method, method);
        }
        let class = match head.status {
            Some(100..200) => "1xx",
            Some(200..300) => "2xx",
            Some(300..400) => "3xx",
            Some(400..500) => "4xx",
            Some(_) => "5xx",
            None => return,
        };
        *self.by_status.entry(class).or_default() += 1;
    }
}

fn named(counts: &mut BTreeMap<String, u64>, name: &str) {
    if let Some(count) = counts.get_mut(name) {
        *count += 1;
    } else {
        let name = if counts.len() < NAMES { name } else { OTHERS };
        *counts.entry(name.to_owned()).or_default() += 1;
    }
}
