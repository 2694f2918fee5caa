//! What scripts say of themselves, and how it is changed.

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{deployment, existing, object, scoped};
use crate::Exec;
use crate::directives::{self, Directives, FIELDS, Field, Kind, WINDOW};
use crate::place::RelPath;
use crate::root::Over;

/// Files that one call changes.
const FILES: usize = 2000;

/// Read what a script says of itself.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Read {
    /// Path of the script.
    path: String,
    /// Whose scripts: the id in the host `exec-{id}`.
    #[serde(rename = "execId")]
    exec_id_camel: Option<String>,
    /// The same.
    exec_id: Option<String>,
    /// The script directory that a host names in front.
    subdomain: Option<String>,
}

/// What a script says.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Comments {
    path: String,
    resolved_path: String,
    comments: Map<String, Value>,
    warnings: Vec<directives::Warning>,
}

impl Operation for Read {
    const ROUTE: Route = Route::get("/api/v1/exec/magic-comments/read")
        .named("readMagicComments")
        .cli("exec magic-comments read");
    type Service = Exec;
    type Reply = Comments;

    async fn run(self, exec: Exec, call: Call) -> Result<Comments, Fault> {
        let whose = deployment(
            &call,
            [self.exec_id_camel.as_deref(), self.exec_id.as_deref()],
            self.subdomain.as_deref(),
        )?;
        let path = existing(&exec, &whose, &self.path)?;
        let (text, _) = exec.root().text(&path)?;
        let read = Directives::read(&text);
        Ok(Comments {
            path: self.path,
            resolved_path: path.to_string(),
            comments: read.shown(),
            warnings: read.warnings,
        })
    }
}

/// All that a script may say of itself.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Schema;

/// What goes where nothing is said.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Defaults {
    when_omitted: Value,
    runtime: Value,
    sdk_import: Value,
}

/// From where to where a number goes.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Range {
    min: f64,
    max: f64,
}

/// A directive.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SchemaField {
    key: &'static str,
    /// As it stands in a script.
    directive: String,
    category: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    enum_values: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    accepts_keywords: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<Range>,
    description: &'static str,
    defaults: Defaults,
    examples: Vec<&'static str>,
}

/// What the columns of defaults mean.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Context {
    when_omitted: &'static str,
    runtime: &'static str,
    sdk_import: &'static str,
}

/// Where the schema comes from.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Source {
    interface: &'static str,
    parser: &'static str,
    runtime_defaults: &'static str,
    sdk_import_defaults: &'static str,
}

/// Directives by category.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Categories {
    execution: Vec<&'static str>,
    logging: Vec<&'static str>,
    cors: Vec<&'static str>,
    ai: Vec<&'static str>,
    metadata: Vec<&'static str>,
}

/// All directives.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Directory {
    schema_version: &'static str,
    total_fields: usize,
    /// Lines from the top in which directives are read.
    parse_window_lines: usize,
    unknown_keys_behavior: &'static str,
    defaults_context: Context,
    source_of_truth: Source,
    categories: Categories,
    fields: Vec<SchemaField>,
}

impl Operation for Schema {
    const ROUTE: Route = Route::get("/api/v1/exec/magic-comments/schema")
        .named("getMagicCommentsSchema")
        .cli("exec magic-comments schema");
    type Service = Exec;
    type Reply = Directory;

    async fn run(self, _: Exec, _: Call) -> Result<Directory, Fault> {
        let of = |category: &str| {
            let some = FIELDS.iter().filter(|field| field.category == category);
            some.map(|field| field.key).collect()
        };
        Ok(Directory {
            schema_version: "1.0.0",
            total_fields: FIELDS.len(),
            parse_window_lines: WINDOW,
            unknown_keys_behavior: "ignored",
            defaults_context: Context {
                when_omitted: "what a script that does not say it is taken to say; null where it says nothing",
                runtime: "what goes when it runs",
                sdk_import: "what scripts say that an import makes",
            },
            source_of_truth: Source {
                interface: "exec::directives::Directives",
                parser: "exec::directives::Directives::read",
                runtime_defaults: "exec::directives::FIELDS",
                sdk_import_defaults: "none: an import says what it is asked to",
            },
            categories: Categories {
                execution: of("execution"),
                logging: of("logging"),
                cors: of("cors"),
                ai: of("ai"),
                metadata: of("metadata"),
            },
            fields: FIELDS.iter().map(shown).collect(),
        })
    }
}

fn shown(field: &'static Field) -> SchemaField {
    let (kind, range): (&str, Option<Range>) = match field.kind {
        Kind::Flag => ("boolean", None),
        Kind::Whole(min, max) => ("integer", Some((min as f64, max as f64))),
        Kind::Number(min, max) => ("number", Some((min, max))),
        Kind::Time(max) => ("duration", Some((1.0, max as f64))),
        Kind::Text => ("string", None),
        Kind::List => ("string[]", None),
        Kind::Choice(_) => ("enum", None),
        Kind::Secret => ("string", None),
        Kind::Secrets => ("string[]", None),
        Kind::Cron => ("cron", None),
        Kind::FlagOrWhole(min, max) => ("boolean|integer", Some((min as f64, max as f64))),
    }
    .map_range();
    let usual = (field.usual)();
    SchemaField {
        key: field.key,
        directive: format!("@{}", field.directive),
        category: field.category,
        kind,
        enum_values: match field.kind {
            Kind::Choice(some) => some.to_vec(),
            _ => Vec::new(),
        },
        accepts_keywords: match field.kind {
            Kind::Flag | Kind::FlagOrWhole(..) => vec!["true", "false"],
            Kind::Cron => vec!["@hourly", "@daily", "@weekly", "@monthly", "@yearly"],
            _ => Vec::new(),
        },
        range,
        description: field.description,
        defaults: Defaults {
            when_omitted: usual.clone(),
            runtime: usual,
            sdk_import: Value::Null,
        },
        examples: vec![field.example],
    }
}

trait MapRange {
    fn map_range(self) -> (&'static str, Option<Range>);
}

impl MapRange for (&'static str, Option<(f64, f64)>) {
    fn map_range(self) -> (&'static str, Option<Range>) {
        (self.0, self.1.map(|(min, max)| Range { min, max }))
    }
}

/// Change what a script says of itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Update {
    /// Path of the script.
    path: String,
    /// Directives by name, null to remove one: an object, or the text of one.
    #[schemars(with = "Option<Map<String, Value>>")]
    #[serde(default)]
    comments: Value,
    /// Tell what would change, and change nothing.
    #[serde(default, rename = "dry_run")]
    dry_run: bool,
    /// Whose scripts: the id in the host `exec-{id}`.
    exec_id: Option<String>,
    /// The same.
    #[serde(rename = "exec_id")]
    exec_id_snake: Option<String>,
    /// The script directory that a host names in front.
    subdomain: Option<String>,
}

/// What changed, or would.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Updated {
    dry_run: bool,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proposed: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated: Option<Value>,
    changes: Vec<String>,
    message: String,
}

impl Operation for Update {
    const ROUTE: Route = Route::put("/api/v1/exec/magic-comments/update")
        .named("updateMagicCommentsHandler")
        .cli("exec magic-comments update");
    type Service = Exec;
    type Reply = Updated;

    async fn run(self, exec: Exec, call: Call) -> Result<Updated, Fault> {
        let whose = deployment(
            &call,
            [self.exec_id.as_deref(), self.exec_id_snake.as_deref()],
            self.subdomain.as_deref(),
        )?;
        let path = existing(&exec, &whose, &self.path)?;
        if !path.is_script() {
            return Err(Fault::bad_request(format!(
                "`{path}` is no script: it ends in neither .ts nor .js"
            ))
            .code("NO_SCRIPT"));
        }
        let comments = object(&self.comments, "comments")?;
        let (before, after, changes) = changed(&exec, &path, &comments, self.dry_run)?;
        let message = match (self.dry_run, changes.len()) {
            (true, many) => format!("{many} directives would change"),
            (false, many) => format!("{many} directives changed"),
        };
        let (current, proposed, previous, updated) = match self.dry_run {
            true => (Some(before), Some(after), None, None),
            false => (None, None, Some(before), Some(after)),
        };
        Ok(Updated {
            dry_run: self.dry_run,
            path: self.path,
            current,
            proposed,
            previous,
            updated,
            changes,
            message,
        })
    }
}

/// Change one script: what it said, what it says, and the difference in words.
fn changed(
    exec: &Exec,
    path: &RelPath,
    comments: &Map<String, Value>,
    dry: bool,
) -> Result<(Value, Value, Vec<String>), Fault> {
    let (text, _) = exec.root().text(path)?;
    let (made, words) = directives::change(&text, comments)?;
    let before = Directives::read(&text).shown_or_null();
    let after = Directives::read(&made).shown_or_null();
    if !dry && made != text {
        exec.root().write(path, made.as_bytes(), Over::Replace)?;
        exec.reschedule(path, Some(&made));
    }
    Ok((before, after, words))
}

/// Change what many scripts say of themselves.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BulkUpdate {
    /// Directory below the scripts of the host; all of them where not given.
    directory: Option<String>,
    /// Whose scripts: the id in the host `exec-{id}`.
    exec_id: Option<String>,
    /// Directives by name, null to remove one: an object, or the text of one.
    #[schemars(with = "Option<Map<String, Value>>")]
    #[serde(default)]
    comments: Value,
    /// Only files with this ending.
    #[serde(default = "typescript")]
    extension: Option<String>,
    /// Look into directories below.
    #[serde(default = "yes")]
    recursive: Option<bool>,
    /// Tell what would change, and change nothing.
    #[serde(default, rename = "dry_run")]
    dry_run: bool,
}

fn typescript() -> Option<String> {
    Some(".ts".to_owned())
}

fn yes() -> Option<bool> {
    Some(true)
}

/// What became of many scripts, or would.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BulkUpdated {
    dry_run: bool,
    directory: String,
    #[serde(rename = "execId")]
    exec_id: String,
    recursive: bool,
    comments: Value,
    /// `{total, files: [{file, current, proposed, changes} or {file, error}]}` of a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    would_affect: Option<Value>,
    /// `{total, updated, failed, files: {updated, failed}}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Value>,
    message: String,
}

impl Operation for BulkUpdate {
    const ROUTE: Route = Route::post("/api/v1/exec/magic-comments/bulk-update")
        .named("bulkUpdateMagicComments")
        .cli("exec magic-comments bulk-update");
    type Service = Exec;
    type Reply = BulkUpdated;

    async fn run(self, exec: Exec, call: Call) -> Result<BulkUpdated, Fault> {
        let deployment = deployment(&call, [self.exec_id.as_deref(), None], None)?;
        let directory = scoped(
            &exec,
            &deployment,
            self.directory.as_deref().unwrap_or_default(),
        )?;
        let comments = object(&self.comments, "comments")?;
        let recursive = self.recursive.unwrap_or(true);
        let ending = self.extension.or_else(typescript).unwrap_or_default();
        let files: Vec<RelPath> = exec
            .root()
            .walk_files(&directory)?
            .into_iter()
            .map(|(path, _)| path)
            .filter(|path| path.is_script() && path.extension() == ending)
            .filter(|path| recursive || path.parent() == directory)
            .collect();
        if files.len() > FILES {
            return Err(Fault::bad_request(format!(
                "there are more than {FILES} scripts in `{directory}`"
            ))
            .code("TOO_MANY_SCRIPTS"));
        }
        let total = files.len();
        let (mut told, mut updated, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for file in files {
            match changed(&exec, &file, &comments, self.dry_run) {
                Ok((current, proposed, changes)) => {
                    updated.push(file.to_string());
                    told.push(json!({ "file": file.as_str(), "current": current, "proposed": proposed, "changes": changes }));
                }
                Err(fault) => {
                    failed.push(json!({ "file": file.as_str(), "error": fault.message }));
                    told.push(json!({ "file": file.as_str(), "error": fault.message }));
                }
            }
        }
        let message = match self.dry_run {
            true => format!("{total} scripts would be changed"),
            false => format!("{} of {total} scripts changed", updated.len()),
        };
        let (would_affect, results) = match self.dry_run {
            true => (Some(json!({ "total": total, "files": told })), None),
            false => {
                let counts = json!({
                    "total": total, "updated": updated.len(), "failed": failed.len(),
                    "files": { "updated": updated, "failed": failed },
                });
                (None, Some(counts))
            }
        };
        Ok(BulkUpdated {
            dry_run: self.dry_run,
            directory: directory.to_string(),
            exec_id: deployment.id,
            recursive,
            comments: Value::Object(comments),
            would_affect,
            results,
            message,
        })
    }
}
