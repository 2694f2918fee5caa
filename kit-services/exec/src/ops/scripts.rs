//! Scripts as files: list, read, write, move, delete.

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{deployment, existing, needed, says_yes, scoped};
use crate::Exec;
use crate::directives::{self, Directives};
use crate::place::{Deployment, RelPath, shorten};
use crate::root::{Entry, Over};

/// Deepest tree that is shown.
const TREE_DEPTH: u32 = 32;

/// List scripts: those of the host that is called, where nothing else is said.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {
    /// Directory below the scripts of the host.
    dir: Option<String>,
    /// Part of a name.
    filter: Option<String>,
    /// `true` adds size and time.
    metadata: Option<String>,
    /// Only scripts with this `@label`.
    label: Option<String>,
    /// Only scripts with one of these `@tags`, with commas between.
    tags: Option<String>,
    /// Only scripts of this `@mode`.
    mode: Option<String>,
    /// Only scripts that answer (`true`), or that do not.
    enabled: Option<String>,
    /// Only scripts that take WebSockets (`true`), or that do not.
    websocket: Option<String>,
    /// `true` looks into directories below.
    recursive: Option<String>,
    /// `true` adds what scripts say of themselves.
    include_comments: Option<String>,
    /// Whose scripts: the id in the host `exec-{id}`.
    #[serde(rename = "execId")]
    exec_id_camel: Option<String>,
    /// The same.
    exec_id: Option<String>,
    /// The script directory that a host names in front.
    subdomain: Option<String>,
}

/// Filters as they were asked for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Filters {
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    websocket: Option<String>,
}

/// A script in a list.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedScript {
    name: String,
    /// Below the root of all scripts.
    path: String,
    is_directory: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modified: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    magic_comments: Option<Value>,
}

/// Scripts.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Scripts {
    directory: String,
    count: usize,
    recursive: bool,
    filters: Filters,
    scripts: Vec<ListedScript>,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/exec/scripts/list")
        .named("listScripts")
        .cli("exec scripts list");
    type Service = Exec;
    type Reply = Scripts;

    async fn run(self, exec: Exec, call: Call) -> Result<Scripts, Fault> {
        let deployment = deployment(
            &call,
            [self.exec_id_camel.as_deref(), self.exec_id.as_deref()],
            self.subdomain.as_deref(),
        )?;
        let directory = scoped(&exec, &deployment, self.dir.as_deref().unwrap_or_default())?;
        let filtered = self.label.is_some()
            || self.tags.is_some()
            || self.mode.is_some()
            || self.enabled.is_some()
            || self.websocket.is_some();
        let recursive = says_yes(self.recursive.as_ref()) || filtered;
        let entries: Vec<(RelPath, crate::root::Facts)> = match recursive {
            true => match exec.root().walk_files(&directory) {
                Err(error) if is_missing(&error) && self.dir.is_none() => Vec::new(),
                other => other?,
            },
            false => match exec.root().list(&directory) {
                Err(error) if is_missing(&error) && self.dir.is_none() => Vec::new(),
                other => other?
                    .into_iter()
                    .filter(|entry| entry.facts.is_file() || entry.facts.is_directory())
                    .map(|Entry { name, facts }| (directory.join(&name), facts))
                    .filter(|(path, _)| RelPath::read(path.as_str()).is_ok())
                    .collect(),
            },
        };
        let wanted = self.filter.as_deref().unwrap_or_default();
        let (facts_too, comments_too) = (
            says_yes(self.metadata.as_ref()),
            says_yes(self.include_comments.as_ref()) || filtered,
        );
        let mut scripts = Vec::new();
        for (path, facts) in entries {
            if path.name().starts_with('.') || !path.as_str().contains(wanted) {
                continue;
            }
            let mut comments = None;
            if comments_too && path.is_script() {
                let Ok((text, _)) = exec.root().text(&path) else {
                    continue;
                };
                let read = Directives::read(&text);
                if filtered && !self.fits(&read) {
                    continue;
                }
                comments = Some(read.shown_or_null());
            } else if filtered {
                continue;
            }
            scripts.push(ListedScript {
                name: path.name().to_owned(),
                is_directory: facts.is_directory(),
                size: facts_too.then_some(facts.size),
                modified: facts_too.then(|| facts.modified_text()),
                magic_comments: comments,
                path: path.to_string(),
            });
        }
        Ok(Scripts {
            directory: directory.to_string(),
            count: scripts.len(),
            recursive,
            filters: Filters {
                label: self.label,
                tags: self.tags,
                mode: self.mode,
                enabled: self.enabled,
                websocket: self.websocket,
            },
            scripts,
        })
    }
}

impl List {
    fn fits(&self, read: &Directives) -> bool {
        let is = |text: &Option<String>, value: bool| {
            text.as_ref()
                .is_none_or(|text| says_yes(Some(text)) == value)
        };
        self.label
            .as_deref()
            .is_none_or(|label| read.text("label") == Some(label))
            && self.mode.as_deref().is_none_or(|mode| read.mode() == mode)
            && self.tags.as_deref().is_none_or(|tags| {
                tags.split(',')
                    .any(|tag| read.tags().any(|its| its == tag.trim()))
            })
            && is(&self.enabled, read.enabled())
            && is(&self.websocket, read.websocket())
    }
}

fn is_missing(error: &crate::root::FileError) -> bool {
    error.errno() == Some(rustix::io::Errno::NOENT)
}

/// Read a script. Secrets in it (`@token`, `@ai-key`) are shown as `[REDACTED]`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Read {
    /// Path below the scripts of the host.
    path: String,
    /// Whose scripts: the id in the host `exec-{id}`.
    #[serde(rename = "execId")]
    exec_id_camel: Option<String>,
    /// The same.
    exec_id: Option<String>,
    /// The script directory that a host names in front.
    subdomain: Option<String>,
}

/// What a file is.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    size: u64,
    created: String,
    modified: String,
    is_directory: bool,
    extension: String,
}

/// A script.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadScript {
    path: String,
    /// Below the root of all scripts.
    resolved_path: String,
    content: String,
    /// What the script says of itself; null where it says nothing.
    magic_comments: Value,
    metadata: Metadata,
}

impl Operation for Read {
    const ROUTE: Route = Route::get("/api/v1/exec/scripts/read")
        .named("readScript")
        .cli("exec scripts read");
    type Service = Exec;
    type Reply = ReadScript;

    async fn run(self, exec: Exec, call: Call) -> Result<ReadScript, Fault> {
        let whose = deployment(
            &call,
            [self.exec_id_camel.as_deref(), self.exec_id.as_deref()],
            self.subdomain.as_deref(),
        )?;
        let path = existing(&exec, &whose, &self.path)?;
        let (text, facts) = exec.root().text(&path)?;
        let comments = match path.is_script() {
            true => Directives::read(&text).shown_or_null(),
            false => Value::Null,
        };
        Ok(ReadScript {
            path: self.path,
            content: match path.is_script() {
                true => directives::redact(&text),
                false => text,
            },
            magic_comments: comments,
            metadata: Metadata {
                size: facts.size,
                created: facts.changed_text(),
                modified: facts.modified_text(),
                is_directory: false,
                extension: path.extension().to_owned(),
            },
            resolved_path: path.to_string(),
        })
    }
}

/// Write a script, whole or not at all. It answers at its address at once.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Write {
    /// Path below the scripts of the host: `hello.ts`, `users/[id].ts`.
    path: String,
    /// The text. `[REDACTED]` in the place of a secret keeps the one that is there.
    content: String,
    /// Make directories that are missing.
    #[serde(default = "yes")]
    create_dirs: bool,
    /// Refuse what cannot be read as TypeScript, JavaScript or JSON.
    #[serde(default = "yes")]
    validate: bool,
    /// Refuse where something has the name already.
    #[serde(default)]
    if_not_exists: bool,
    /// Whose scripts: the id in the host `exec-{id}`.
    exec_id: Option<String>,
    /// The same.
    #[serde(rename = "exec_id")]
    exec_id_snake: Option<String>,
    /// The script directory that a host names in front.
    subdomain: Option<String>,
}

fn yes() -> bool {
    true
}

/// What became of a script's schedule.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ScheduleAction {
    /// `registered`, `updated`, `removed` or `rejected`.
    action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A script that was written.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Written {
    path: String,
    resolved_path: String,
    created: bool,
    updated: bool,
    size: usize,
    modified: String,
    validated: bool,
    /// Always null: files of variables are read when a script starts.
    env: Option<std::collections::BTreeMap<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<ScheduleAction>,
    /// Why directives of the script do not count.
    warnings: Vec<directives::Warning>,
}

impl Operation for Write {
    const ROUTE: Route = Route::post("/api/v1/exec/scripts/write")
        .named("writeScript")
        .cli("exec scripts write");
    type Service = Exec;
    type Reply = Written;

    async fn run(self, exec: Exec, call: Call) -> Result<Written, Fault> {
        let ids = [self.exec_id.as_deref(), self.exec_id_snake.as_deref()];
        let whose = named_anywhere(&call, ids, self.subdomain.as_deref())?;
        let path = scoped(&exec, &whose, &self.path)?;
        needed(&path)?;
        if path.name().starts_with('.') {
            return Err(Fault::bad_request(format!(
                "`{path}` is a hidden file, which scripts are not"
            ))
            .code("INVALID_PATH"));
        }
        let there = exec.root().text(&path).ok().map(|(text, _)| text);
        let text = match path.is_script() {
            true => directives::restore(&self.content, there.as_deref())?,
            false => self.content,
        };
        if self.validate {
            validate(&exec, &path, &text).await?;
        }
        exec.root().make().map_err(|error| {
            Fault::internal(format!("the directory of scripts cannot be made: {error}"))
        })?;
        if self.create_dirs {
            exec.root().make_directory(&path.parent())?;
        }
        let over = match self.if_not_exists {
            true => Over::Keep,
            false => Over::Replace,
        };
        let replaced = exec.root().write(&path, text.as_bytes(), over)?;
        let schedule = exec.reschedule(&path, Some(&text));
        let facts = exec.root().facts(&path)?;
        let warnings = match path.is_script() {
            true => Directives::read(&text).warnings,
            false => Vec::new(),
        };
        Ok(Written {
            path: self.path,
            resolved_path: path.to_string(),
            created: !replaced,
            updated: replaced,
            size: text.len(),
            modified: facts.modified_text(),
            validated: self.validate,
            env: None,
            schedule: schedule.map(|(action, reason)| ScheduleAction {
                action: action.to_owned(),
                reason,
            }),
            warnings,
        })
    }
}

/// Whose scripts a call means: what the query says stands before what the body says.
fn named_anywhere(
    call: &Call,
    [id, alias]: [Option<&str>; 2],
    subdomain: Option<&str>,
) -> Result<Deployment, Fault> {
    let query = kit::arguments::query_all(call.uri.query().unwrap_or_default());
    let said = |name: &str| {
        query
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    };
    let id = said("execId").or_else(|| said("exec_id")).or(id);
    deployment(call, [id, alias], said("subdomain").or(subdomain))
}

/// Refuse what the runtime could not read.
async fn validate(exec: &Exec, path: &RelPath, text: &str) -> Result<(), Fault> {
    let refuse = |why: &str| {
        let mut fault = Fault::bad_request(format!("Script validation failed: {why}"))
            .code("SCRIPT_VALIDATION_FAILED");
        fault.body = Some(json!({
            "error": fault.message,
            "code": "SCRIPT_VALIDATION_FAILED",
            "timestamp": crate::logs::now(),
            "details": { "path": path.as_str(), "validation": { "valid": false, "error": why } },
        }));
        Err(fault)
    };
    if path.extension() == ".json" {
        return match serde_json::from_str::<Value>(text) {
            Ok(_) => Ok(()),
            Err(error) => refuse(&format!("Invalid JSON: {error}")),
        };
    }
    if !path.is_script() {
        return Ok(());
    }
    let analysis = exec.analyze(text, path.as_str(), None).await?;
    match analysis.typescript.or(analysis.syntax) {
        Some(why) => refuse(&why),
        None => Ok(()),
    }
}

/// Give a script another path, and with it another address.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Move {
    /// Path of the script.
    from: String,
    /// Its new path.
    to: String,
    /// Replace what is there.
    #[serde(default)]
    overwrite: bool,
    /// Whose scripts: the id in the host `exec-{id}`.
    exec_id: Option<String>,
    /// The same.
    #[serde(rename = "exec_id")]
    exec_id_snake: Option<String>,
    /// The script directory that a host names in front.
    subdomain: Option<String>,
}

/// A script that was moved.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Moved {
    moved: bool,
    from: String,
    to: String,
    resolved_from: String,
    resolved_to: String,
    size: u64,
}

impl Operation for Move {
    const ROUTE: Route = Route::post("/api/v1/exec/scripts/move")
        .named("moveScript")
        .cli("exec scripts move");
    type Service = Exec;
    type Reply = Moved;

    async fn run(self, exec: Exec, call: Call) -> Result<Moved, Fault> {
        let ids = [self.exec_id.as_deref(), self.exec_id_snake.as_deref()];
        let deployment = named_anywhere(&call, ids, self.subdomain.as_deref())?;
        let from = existing(&exec, &deployment, &self.from)?;
        let to = scoped(&exec, &deployment, &self.to)?;
        needed(&to)?;
        let facts = exec.root().facts(&from)?;
        if exec.root().facts(&to).is_ok_and(|there| !there.is_file()) {
            return Err(
                Fault::conflict(format!("`{to}` is there, and no file")).code("ALREADY_EXISTS")
            );
        }
        exec.root().make_directory(&to.parent())?;
        let over = match self.overwrite {
            true => Over::Replace,
            false => Over::Keep,
        };
        exec.root().rename(&from, &to, over)?;
        exec.reschedule(&from, None);
        if let Ok((text, _)) = exec.root().text(&to) {
            exec.reschedule(&to, Some(&text));
        }
        exec.pool()
            .leave(|script| script.path == from || script.path == to);
        Ok(Moved {
            moved: true,
            from: self.from,
            to: self.to,
            resolved_from: from.to_string(),
            resolved_to: to.to_string(),
            size: facts.size,
        })
    }
}

/// Delete a script. Requests that it has are ended by it; new ones are 404.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Delete {
    /// Path of the script.
    path: String,
    /// Has to be `true`.
    confirm: Option<String>,
    /// Whose scripts: the id in the host `exec-{id}`.
    #[serde(rename = "execId")]
    exec_id_camel: Option<String>,
    /// The same.
    exec_id: Option<String>,
    /// The script directory that a host names in front.
    subdomain: Option<String>,
}

/// A script that was deleted.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deleted {
    deleted: bool,
    path: String,
    resolved_path: String,
    size: u64,
}

impl Operation for Delete {
    const ROUTE: Route = Route::delete("/api/v1/exec/scripts/delete")
        .named("deleteScript")
        .cli("exec scripts delete");
    type Service = Exec;
    type Reply = Deleted;

    async fn run(self, exec: Exec, call: Call) -> Result<Deleted, Fault> {
        if self.confirm.as_deref() != Some("true") {
            return Err(
                Fault::bad_request("confirm=true parameter required for safety")
                    .code("CONFIRMATION_REQUIRED"),
            );
        }
        let whose = deployment(
            &call,
            [self.exec_id_camel.as_deref(), self.exec_id.as_deref()],
            self.subdomain.as_deref(),
        )?;
        let path = existing(&exec, &whose, &self.path)?;
        let facts = exec.root().facts(&path)?;
        exec.root().remove(&path)?;
        exec.reschedule(&path, None);
        exec.pool().leave(|script| script.path == path);
        Ok(Deleted {
            deleted: true,
            path: self.path,
            resolved_path: path.to_string(),
            size: facts.size,
        })
    }
}

/// Scripts as a tree.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tree {
    /// Directory to begin at, below the scripts of the host.
    #[serde(default)]
    base_dir: String,
    /// Directories below each other that are shown, at most 32.
    #[serde(default = "ten")]
    max_depth: u32,
    /// Add size, time, and what scripts say of themselves.
    #[serde(default)]
    include_metadata: bool,
    /// Whose scripts: the id in the host `exec-{id}`.
    exec_id: Option<String>,
    /// The same.
    #[serde(rename = "exec_id")]
    exec_id_snake: Option<String>,
    /// The script directory that a host names in front.
    subdomain: Option<String>,
}

fn ten() -> u32 {
    10
}

/// A tree of scripts.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grown {
    base_dir: String,
    /// `{name, path, type, children?, size?, modified?, magicComments?}` each.
    tree: Vec<std::collections::BTreeMap<String, Value>>,
}

impl Operation for Tree {
    const ROUTE: Route = Route::post("/api/v1/exec/scripts/tree")
        .named("getScriptTree")
        .cli("exec scripts tree");
    type Service = Exec;
    type Reply = Grown;

    async fn run(self, exec: Exec, call: Call) -> Result<Grown, Fault> {
        let ids = [self.exec_id.as_deref(), self.exec_id_snake.as_deref()];
        let whose = named_anywhere(&call, ids, self.subdomain.as_deref())?;
        let base = scoped(&exec, &whose, &self.base_dir)?;
        let mut left = crate::root::ENTRIES;
        let depth = self.max_depth.min(TREE_DEPTH);
        let tree = match exec.root().facts(&base) {
            Err(error) if is_missing(&error) && self.base_dir.is_empty() => Vec::new(),
            Err(error) => return Err(error.into()),
            Ok(_) => grow(&exec, &base, depth, self.include_metadata, &mut left)?,
        };
        Ok(Grown {
            base_dir: base.to_string(),
            tree,
        })
    }
}

type Branch = std::collections::BTreeMap<String, Value>;

fn grow(
    exec: &Exec,
    at: &RelPath,
    depth: u32,
    facts_too: bool,
    left: &mut usize,
) -> Result<Vec<Branch>, Fault> {
    let mut tree = Vec::new();
    for entry in exec.root().list(at)? {
        let path = at.join(&entry.name);
        let shown = entry.facts.is_file() || entry.facts.is_directory();
        if !shown || entry.name.starts_with('.') || RelPath::read(path.as_str()).is_err() {
            continue;
        }
        *left = left.checked_sub(1).ok_or_else(|| {
            Fault::new(
                http::StatusCode::UNPROCESSABLE_ENTITY,
                format!(
                    "there is too much below `{}`; name a directory further down",
                    shorten(at.as_str())
                ),
            )
            .code("TOO_MANY_ENTRIES")
        })?;
        let mut branch = Branch::from([
            ("name".to_owned(), json!(entry.name)),
            ("path".to_owned(), json!(path.as_str())),
            (
                "type".to_owned(),
                json!(if entry.facts.is_directory() {
                    "directory"
                } else {
                    "file"
                }),
            ),
        ]);
        if facts_too {
            branch.insert("size".to_owned(), json!(entry.facts.size));
            branch.insert("modified".to_owned(), json!(entry.facts.modified_text()));
            if path.is_script()
                && let Ok((text, _)) = exec.root().text(&path)
            {
                let comments = Directives::read(&text).shown_or_null();
                branch.insert("magicComments".to_owned(), comments);
            }
        }
        if entry.facts.is_directory() {
            let children = match depth {
                0 | 1 => Vec::new(),
                _ => grow(exec, &path, depth - 1, facts_too, left)?,
            };
            branch.insert("children".to_owned(), json!(children));
        }
        tree.push(branch);
    }
    Ok(tree)
}
