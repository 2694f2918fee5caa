//! Answers for people and for programs.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// How an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
    Yaml,
}

/// Columns that come first, in this order, where there are such.
const FIRST: &[&str] = &[
    "id",
    "name",
    "alias",
    "path",
    "server",
    "status",
    "state",
    "type",
    "path_type",
    "size",
];
/// Columns of a table; what else there is shows in `json` and `yaml`.
const MAX_COLUMNS: usize = 8;
/// Characters of a cell.
const MAX_CELL: usize = 60;
/// Characters of a cell that says why.
const MAX_REASON: usize = 300;

impl Format {
    pub fn of(word: &str) -> Format {
        match word {
            "json" => Format::Json,
            "yaml" => Format::Yaml,
            _ => Format::Table,
        }
    }

    /// The text of a value, with a newline at its end.
    pub fn show(self, value: &Value) -> String {
        let mut text = match self {
            Format::Json => serde_json::to_string_pretty(value).expect("a JSON value is JSON"),
            Format::Yaml => yaml_serde::to_string(value).expect("a JSON value is YAML"),
            Format::Table => table(value),
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }
}

/// A list as a table; an object as names and values, its only list as a table below.
fn table(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Array(items) => rows(items),
        Value::Object(members) => match only_list(members) {
            Some(items) => rows(items),
            None => pairs(members),
        },
        other => cell(other),
    }
}

/// The one list of an answer that is a list with something about it.
fn only_list(members: &Map<String, Value>) -> Option<&Vec<Value>> {
    let mut lists = members.values().filter_map(Value::as_array);
    let list = lists.next()?;
    let about = [
        "pagination",
        "meta",
        "total",
        "page",
        "limit",
        "offset",
        "count",
        "has_more",
        "truncated",
    ];
    let is_page = members
        .iter()
        .all(|(key, value)| value.is_array() || about.contains(&key.as_str()));
    // Of an empty list nobody knows what it is of: beside other facts it is one of them.
    let is_listing =
        !list.is_empty() && list.iter().all(Value::is_object) && !members.contains_key("id");
    (lists.next().is_none() && (is_page || is_listing)).then_some(list)
}

fn rows(items: &[Value]) -> String {
    if items.is_empty() {
        return "(none)".to_owned();
    }
    if !items.iter().all(Value::is_object) {
        return items.iter().map(cell).collect::<Vec<_>>().join("\n");
    }
    let columns = columns(items);
    let head = columns.iter().map(|name| name.to_uppercase()).collect();
    let body = items
        .iter()
        .map(|item| columns.iter().map(|name| cell(&item[*name])).collect());
    aligned(std::iter::once(head).chain(body).collect())
}

/// The names of what is worth a column: plain values, and things with a name or a reason, that are
/// there for some item.
fn columns(items: &[Value]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for (name, value) in items.iter().filter_map(Value::as_object).flatten() {
        let plain = !value.is_null()
            && !value.is_array()
            && (!value.is_object() || value["name"].is_string() || value["reason"].is_string());
        if plain && !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let place = |name: &str| {
        FIRST
            .iter()
            .position(|first| *first == name)
            .unwrap_or(FIRST.len())
    };
    names.sort_by_key(|name| place(name));
    names.truncate(MAX_COLUMNS);
    names
}

fn pairs(members: &Map<String, Value>) -> String {
    let place = |name: &str| {
        FIRST
            .iter()
            .position(|first| *first == name)
            .unwrap_or(FIRST.len())
    };
    let mut members: Vec<_> = members
        .iter()
        .filter(|(_, value)| !value.is_null())
        .collect();
    members.sort_by_key(|(name, _)| place(name));
    let width = members
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for (name, value) in members {
        let value = match value {
            Value::String(text) => visible(text),
            other => other.to_string(),
        };
        let _ = writeln!(text, "{name:width$}  {value}");
    }
    text
}

/// Lines with their cells below one another.
fn aligned(lines: Vec<Vec<String>>) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |at: usize| {
        lines
            .iter()
            .map(|line| line[at].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut padded = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(padded, "{cell:width$}  ");
        }
        text.push_str(padded.trim_end());
        text.push('\n');
    }
    text
}

fn cell(value: &Value) -> String {
    match (&value["name"], &value["reason"]) {
        (Value::String(name), _) => cut(&visible(name), MAX_CELL),
        (_, Value::String(reason)) => cut(&visible(reason), MAX_REASON),
        _ => match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => cut(&visible(text), MAX_CELL),
            other => cut(&other.to_string(), MAX_CELL),
        },
    }
}

fn cut(text: &str, most: usize) -> String {
    let text = text.replace('\n', " ");
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Text from elsewhere does not command the terminal that it is shown on.
fn visible(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && !matches!(c, '\n' | '\t') {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(value: Value, want: &str) {
        let want: String = want
            .lines()
            .map(|line| format!("{}\n", line.trim_start_matches('|')))
            .collect();
        assert_eq!(Format::Table.show(&value), want, "{value}");
    }

    #[test]
    fn a_reason_is_a_column() {
        check(
            json!([
                {"to_status": "failed", "metadata": {"reason": "the disk is full"}},
                {"to_status": "creating", "metadata": null},
            ]),
            "METADATA          TO_STATUS\nthe disk is full  failed\n-                 creating",
        );
    }

    #[test]
    fn lists_are_tables() {
        check(
            json!({
                "containers": [
                    { "id": "1", "status": "running", "name": "web", "color": null, "server": { "name": "n" } },
                    { "id": "2", "status": "stopped", "name": "database", "ai": true },
                ],
                "pagination": { "total": 2 },
            }),
            "|ID  NAME      SERVER  STATUS   AI
             |1   web       n       running  -
             |2   database  -       stopped  true"
                .replace("             |", "|")
                .as_str(),
        );
        check(json!([]), "(none)");
        check(json!({ "tasks": [] }), "(none)");
        check(
            json!({ "type": "block", "dns_servers": [], "status": "running" }),
            "status       running\ntype         block\ndns_servers  []",
        );
        check(json!(["a", 1]), "a\n1");
        check(
            json!({ "kind": "Index", "paths": [{ "name": "x", "size": 3 }] }),
            "NAME  SIZE\nx     3",
        );
    }

    #[test]
    fn objects_are_names_and_values() {
        check(
            json!({ "zone": "z", "id": "1", "tags": ["a"], "none": null }),
            "id    1\ntags  [\"a\"]\nzone  z",
        );
        check(json!("text"), "text");
        check(json!(null), "");
    }

    #[test]
    fn what_comes_from_elsewhere_cannot_command_the_terminal() {
        check(
            json!([{ "name": "a\u{1b}[2Jb\nc" }]),
            "NAME\na\u{fffd}[2Jb c",
        );
        let long = "x".repeat(100);
        check(
            json!([{ "name": long }]),
            &format!("NAME\n{}…", "x".repeat(60)),
        );
    }

    #[test]
    fn programs_get_everything() {
        let value = json!({ "a": null, "b": [1] });
        assert_eq!(
            serde_json::from_str::<Value>(&Format::Json.show(&value)).unwrap(),
            value
        );
        assert_eq!(
            yaml_serde::from_str::<Value>(&Format::Yaml.show(&value)).unwrap(),
            value
        );
    }
}
