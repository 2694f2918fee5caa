//! Other people's APIs as scripts.

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{deployment, object};
use crate::Exec;
use crate::place::RelPath;
use crate::sdk::{self, Marker};

fn id_of(text: &str, call: &Call) -> Result<String, Fault> {
    // clients of the usual kind send the name of the parameter itself, and the value in the query
    let query = kit::arguments::query_all(call.uri.query().unwrap_or_default());
    let said = query
        .iter()
        .find(|(key, _)| key == "id")
        .map(|(_, value)| value.as_str());
    let text = match text.starts_with(':') {
        true => said.unwrap_or_default(),
        false => text,
    };
    if text.is_empty() {
        return Err(Fault::bad_request("say which: the id is missing").code("VALIDATION_ERROR"));
    }
    Ok(deployment(call, [Some(text), None], None)?.id)
}

fn missing(id: &str) -> Fault {
    Fault::not_found(format!(
        "nothing was imported as `{id}`; GET /api/v1/exec/sdk/list has what was"
    ))
    .code("SDK_NOT_FOUND")
}

/// List what was imported.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List;

/// Which middleware an import has.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Middleware {
    pre: bool,
    post: bool,
}

/// An import.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Sdk {
    id: String,
    source_url: String,
    files: usize,
    middleware: Middleware,
    /// Where it is written down.
    marker: String,
}

/// Imports.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Sdks {
    sdks: Vec<Sdk>,
    total: usize,
}

fn has(marker: &Marker, name: &str) -> bool {
    marker
        .files
        .iter()
        .any(|file| file.rsplit('/').next() == Some(name))
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/exec/sdk/list")
        .named("listSDKs")
        .cli("exec sdks list");
    type Service = Exec;
    type Reply = Sdks;

    async fn run(self, exec: Exec, _: Call) -> Result<Sdks, Fault> {
        let sdks: Vec<Sdk> = exec
            .sdks()
            .into_iter()
            .map(|(id, marker)| Sdk {
                middleware: Middleware {
                    pre: has(&marker, "pre.js"),
                    post: has(&marker, "post.js"),
                },
                files: marker.files.len(),
                marker: sdk::marker_path(&id).to_string(),
                source_url: marker.source_url,
                id,
            })
            .collect();
        Ok(Sdks {
            total: sdks.len(),
            sdks,
        })
    }
}

/// Show an import.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Get {
    /// Its id.
    id: String,
}

/// A file that runs before or after the scripts of an import.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Part {
    exists: bool,
    path: Option<String>,
    hash: Option<String>,
}

/// What runs before and after.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Parts {
    pre: Part,
    post: Part,
}

/// Files of an import.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Files {
    total: usize,
    /// Of these, scripts that answer.
    endpoints: usize,
    list: Vec<String>,
}

/// An import in full.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Shown {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    source_url: String,
    path: String,
    marker: String,
    middleware: Parts,
    files: Files,
}

impl Operation for Get {
    const ROUTE: Route = Route::get("/api/v1/exec/sdk/{id}")
        .named("getSDK")
        .cli("exec sdks get");
    type Service = Exec;
    type Reply = Shown;

    async fn run(self, exec: Exec, call: Call) -> Result<Shown, Fault> {
        let id = id_of(&self.id, &call)?;
        let marker = exec.sdk(&id).ok_or_else(|| missing(&id))?;
        let part = |name: &str| {
            let file = marker
                .files
                .iter()
                .find(|file| file.rsplit('/').next() == Some(name));
            let path = file.map(|file| sdk::directory(&id).join(file));
            let bytes = path.as_ref().and_then(|path| exec.root().read(path).ok());
            Part {
                exists: bytes.is_some(),
                path: path.map(|path| path.to_string()),
                hash: bytes.map(|(bytes, _)| sdk::hash(&bytes)),
            }
        };
        Ok(Shown {
            kind: "sdk",
            path: sdk::directory(&id).to_string(),
            marker: sdk::marker_path(&id).to_string(),
            middleware: Parts {
                pre: part("pre.js"),
                post: part("post.js"),
            },
            files: Files {
                total: marker.files.len(),
                endpoints: marker.files.iter().filter(|file| is_endpoint(file)).count(),
                list: marker.files.clone(),
            },
            source_url: marker.source_url,
            id,
        })
    }
}

fn is_endpoint(file: &str) -> bool {
    !matches!(file.rsplit('/').next(), Some("pre.js" | "post.js"))
}

/// Make scripts of an OpenAPI document, one for each of its addresses, which pass requests on.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Import {
    /// Under which id; the host's where not given.
    #[serde(rename = "execId")]
    exec_id: Option<String>,
    /// The document: at https://, or at http:// of a server in this container.
    source_url: String,
    /// How to ask for it: `{"type":"bearer","token":…}` or `{"type":"basic","username":…,"password":…}`.
    #[serde(default)]
    #[schemars(with = "Option<Map<String, Value>>")]
    source_auth: Value,
    /// `{"pre":…,"post":…}`: code that runs before and after each of its scripts.
    #[serde(default)]
    #[schemars(with = "Option<Map<String, Value>>")]
    middleware: Value,
    /// Directives of each of its scripts, by name.
    #[serde(default)]
    #[schemars(with = "Option<Map<String, Value>>")]
    magic_comments: Value,
    /// Replace scripts that were not imported.
    #[serde(default)]
    force: bool,
}

/// What an import did.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Summary {
    new: usize,
    updated: usize,
    /// Scripts of somebody's own that were left alone.
    conflicts: usize,
    total: usize,
}

/// Files of an import that were made.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Made {
    endpoints: usize,
    pre: String,
    post: String,
    marker: String,
}

/// What was made.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MadeSdk {
    id: String,
    source_url: String,
    path: String,
    files: Made,
}

/// An import.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Imported {
    action: &'static str,
    summary: Summary,
    sdk: MadeSdk,
}

impl Operation for Import {
    const ROUTE: Route = Route::post("/api/v1/exec/sdk/import")
        .named("importSDK")
        .cli("exec sdks import");
    type Service = Exec;
    type Reply = Imported;

    async fn run(self, exec: Exec, call: Call) -> Result<Imported, Fault> {
        let id = deployment(&call, [self.exec_id.as_deref(), None], None)?.id;
        let middleware = object(&self.middleware, "middleware")?;
        let code = |name: &str| {
            middleware
                .get(name)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let auth = match object(&self.source_auth, "source_auth")? {
            auth if auth.is_empty() => Value::Null,
            auth => json!(auth),
        };
        let wish = sdk::Wish {
            id: id.clone(),
            source_url: self.source_url,
            auth,
            pre: code("pre"),
            post: code("post"),
            comments: object(&self.magic_comments, "magic_comments")?,
            force: self.force,
        };
        let (pre, post) = (wish.pre.is_some(), wish.post.is_some());
        let imported = exec.import_sdk(&wish).await?;
        let file = |there: bool, name: &str| match there {
            true => imported.base.join(name).to_string(),
            false => String::new(),
        };
        Ok(Imported {
            action: "imported",
            summary: Summary {
                new: imported.new,
                updated: imported.updated,
                conflicts: imported.conflicts,
                total: imported.total,
            },
            sdk: MadeSdk {
                files: Made {
                    endpoints: imported.total,
                    pre: file(pre, "pre.js"),
                    post: file(post, "post.js"),
                    marker: sdk::marker_path(&id).to_string(),
                },
                path: RelPath::to_string(&imported.base),
                source_url: imported.source_url,
                id,
            },
        })
    }
}

/// Remove an import with its scripts.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Delete {
    /// Its id.
    id: String,
}

/// What was removed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Gone {
    marker: String,
    files: usize,
    directory: String,
}

/// An import that was removed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Deleted {
    message: &'static str,
    removed: Gone,
}

impl Operation for Delete {
    const ROUTE: Route = Route::delete("/api/v1/exec/sdk/{id}")
        .named("deleteSDK")
        .cli("exec sdks delete");
    type Service = Exec;
    type Reply = Deleted;

    async fn run(self, exec: Exec, call: Call) -> Result<Deleted, Fault> {
        let id = id_of(&self.id, &call)?;
        let marker = exec.sdk(&id).ok_or_else(|| missing(&id))?;
        let files = exec.remove_sdk(&id, &marker)?;
        let directory = sdk::directory(&id);
        exec.pool()
            .leave(|script| script.path.starts_with(&directory));
        Ok(Deleted {
            message: "SDK deleted",
            removed: Gone {
                marker: sdk::marker_path(&id).to_string(),
                files,
                directory: directory.to_string(),
            },
        })
    }
}
