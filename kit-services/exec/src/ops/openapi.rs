//! Documents of people's own scripts.

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::CONTENT_TYPE;
use kit::{Call, Fault, Operation, Raw, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{deployment, existing, scoped, words};
use crate::document::{self, SPECS, Wish, companion, mistakes};
use crate::place::{Deployment, RelPath};
use crate::{Exec, WIRE};

/// The directory that `scripts`, or nothing, stands for: that of the deployment.
fn directory(exec: &Exec, deployment: &Deployment, text: Option<&str>) -> Result<RelPath, Fault> {
    match text
        .map(str::trim)
        .filter(|text| !text.is_empty() && *text != "scripts")
    {
        None => Ok(deployment.directory()),
        Some(text) => scoped(exec, deployment, text),
    }
}

fn or(text: Option<String>, usual: &str) -> String {
    text.filter(|text| !text.is_empty())
        .unwrap_or_else(|| usual.to_owned())
}

/// List the scripts that a document would be made from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct List {
    /// Directory; all scripts of the host where not given.
    directory: Option<String>,
    /// The same.
    dir: Option<String>,
    /// The script directory that a host names in front.
    subdomain: Option<String>,
    /// Whose scripts: the id in the host `exec-{id}`.
    exec_id: Option<String>,
}

/// A script in a document.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedScript {
    path: String,
    route_path: String,
    has_schema: bool,
    schema_path: Option<String>,
    size: u64,
    modified: String,
    magic_comments: Value,
}

/// Scripts and where they were looked for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Data {
    directory: String,
    total: usize,
    scripts: Vec<ListedScript>,
}

/// Scripts that a document would be made from.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Listed {
    success: bool,
    data: Data,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/exec/user-openapi/list")
        .named("listUserScripts")
        .cli("exec scripts list-user");
    type Service = Exec;
    type Reply = Listed;

    async fn run(self, exec: Exec, call: Call) -> Result<Listed, Fault> {
        let deployment = deployment(
            &call,
            [self.exec_id.as_deref(), None],
            self.subdomain.as_deref(),
        )?;
        let text = self.directory.or(self.dir);
        let directory = directory(&exec, &deployment, text.as_deref())?;
        let wish = Wish {
            directory: directory.clone(),
            recursive: true,
            ..Wish::default()
        };
        let scripts: Vec<ListedScript> = exec
            .documented(&wish)?
            .into_iter()
            .map(|it| ListedScript {
                path: it.path.to_string(),
                route_path: it.route,
                has_schema: it.schema.is_some(),
                schema_path: it.schema.map(|path| path.to_string()),
                size: it.size,
                modified: it.modified,
                magic_comments: it.directives.shown_or_null(),
            })
            .collect();
        Ok(Listed {
            success: true,
            data: Data {
                directory: directory.to_string(),
                total: scripts.len(),
                scripts,
            },
        })
    }
}

/// Make a document of scripts. It is answered, and kept nowhere.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Generate {
    /// Directory; all scripts of the host where not given.
    directory: Option<String>,
    /// The first of these, where `directory` is not given.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    directories: Value,
    /// The script directory that a host names in front.
    subdomain: Option<String>,
    /// Whose scripts: the id in the host `exec-{id}`.
    exec_id: Option<String>,
    /// Look into directories below.
    recursive: Option<bool>,
    /// File names to take: `*.ts`.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    include_patterns: Value,
    /// File names to leave out.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    exclude_patterns: Value,
    /// Title of the document.
    title: Option<String>,
    /// Description of the document.
    description: Option<String>,
    /// Version of the document.
    version: Option<String>,
    /// The address of the document's server.
    base_url: Option<String>,
}

/// Where a document comes from.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    path_count: usize,
    scan_directory: String,
    generated_at: String,
}

/// A document.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Generated {
    success: bool,
    data: Value,
    meta: Meta,
}

fn paths_in(document: &Value) -> usize {
    document["paths"].as_object().map_or(0, Map::len)
}

fn usual_url(call: &Call) -> String {
    let host = call.host().unwrap_or("localhost");
    format!("{}://{host}", call.scheme())
}

impl Operation for Generate {
    const ROUTE: Route = Route::post("/api/v1/exec/user-openapi/generate")
        .named("generateUserOpenAPI")
        .cli("exec openapi generate");
    type Service = Exec;
    type Reply = Generated;

    async fn run(self, exec: Exec, call: Call) -> Result<Generated, Fault> {
        let deployment = deployment(
            &call,
            [self.exec_id.as_deref(), None],
            self.subdomain.as_deref(),
        )?;
        let first = words(&self.directories, "directories")?.into_iter().next();
        let text = self.directory.filter(|text| !text.is_empty()).or(first);
        let wish = Wish {
            directory: directory(&exec, &deployment, text.as_deref())?,
            recursive: self.recursive.unwrap_or(true),
            include: words(&self.include_patterns, "includePatterns")?,
            exclude: words(&self.exclude_patterns, "excludePatterns")?,
            title: or(self.title, "Generated API"),
            description: or(self.description, "Auto-generated from user scripts"),
            version: or(self.version, "1.0.0"),
            base_url: or(self.base_url, &usual_url(&call)),
        };
        let document = exec.user_document(&wish)?;
        Ok(Generated {
            success: true,
            meta: Meta {
                path_count: paths_in(&document),
                scan_directory: wish.directory.to_string(),
                generated_at: crate::logs::now(),
            },
            data: document,
        })
    }
}

/// Make one document of several: of directories of scripts, of documents that are given, or both.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Merge {
    /// Directories to make documents of; `scripts` is all of the host.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    directories: Value,
    /// Documents.
    #[serde(default)]
    #[schemars(with = "Option<Vec<Map<String, Value>>>")]
    specs: Value,
    /// Title of the document.
    title: Option<String>,
    /// Description of the document.
    description: Option<String>,
    /// Version of the document.
    version: Option<String>,
    /// The script directory that a host names in front.
    subdomain: Option<String>,
    /// Whose scripts: the id in the host `exec-{id}`.
    exec_id: Option<String>,
}

/// A merged document.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Merged {
    success: bool,
    data: Value,
    /// `{sources, pathCount}`.
    meta: Value,
}

impl Operation for Merge {
    const ROUTE: Route = Route::post("/api/v1/exec/user-openapi/merge")
        .named("mergeOpenAPISpecs")
        .cli("exec openapi merge");
    type Service = Exec;
    type Reply = Merged;

    async fn run(self, exec: Exec, call: Call) -> Result<Merged, Fault> {
        let deployment = deployment(
            &call,
            [self.exec_id.as_deref(), None],
            self.subdomain.as_deref(),
        )?;
        let directories = words(&self.directories, "directories")?;
        let given = match self.specs {
            Value::Null => Vec::new(),
            Value::Array(specs) if specs.iter().all(Value::is_object) => specs,
            _ => {
                return Err(
                    Fault::bad_request("`specs` is a list of documents").code("VALIDATION_ERROR")
                );
            }
        };
        if directories.len() + given.len() > SPECS {
            return Err(Fault::bad_request(format!(
                "{SPECS} documents are merged at once, at most"
            ))
            .code("VALIDATION_ERROR"));
        }
        let mut specs = Vec::new();
        for text in &directories {
            let wish = Wish {
                directory: directory(&exec, &deployment, Some(text))?,
                recursive: true,
                ..Wish::default()
            };
            specs.push(exec.user_document(&wish)?);
        }
        specs.extend(given);
        let document = document::merge(
            &specs,
            &or(self.title, "Merged API"),
            &or(self.description, "Combined OpenAPI specification"),
            &or(self.version, "1.0.0"),
        );
        Ok(Merged {
            success: true,
            meta: json!({ "sources": specs.len(), "pathCount": paths_in(&document) }),
            data: document,
        })
    }
}

/// Read the file that describes a script.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Schema {
    /// The script.
    file: Option<String>,
    /// The same.
    path: Option<String>,
    /// The script directory that a host names in front.
    subdomain: Option<String>,
    /// Whose scripts: the id in the host `exec-{id}`.
    exec_id: Option<String>,
}

/// What describes a script.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Described(Map<String, Value>);

fn which(file: Option<String>, path: Option<String>) -> Result<String, Fault> {
    file.filter(|text| !text.is_empty())
        .or(path.filter(|text| !text.is_empty()))
        .ok_or_else(|| {
            Fault::bad_request("say which script: file, or path").code("VALIDATION_ERROR")
        })
}

impl Operation for Schema {
    const ROUTE: Route = Route::get("/api/v1/exec/user-openapi/schema")
        .named("serveSchemaFile")
        .cli("exec openapi serve-schema");
    type Service = Exec;
    type Reply = Described;

    async fn run(self, exec: Exec, call: Call) -> Result<Described, Fault> {
        let text = which(self.file, self.path)?;
        let whose = deployment(
            &call,
            [self.exec_id.as_deref(), None],
            self.subdomain.as_deref(),
        )?;
        let path = existing(&exec, &whose, &text)?;
        match exec.companion(&path)? {
            Value::Object(object) => Ok(Described(object)),
            _ => Err(Fault::new(
                http::StatusCode::UNPROCESSABLE_ENTITY,
                format!("`{}` is no object", companion(&path)),
            )
            .code("INVALID_SCHEMA")),
        }
    }
}

/// Say whether the file that describes a script is as it has to be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Validate {
    /// The script.
    file: Option<String>,
    /// The same.
    path: Option<String>,
    /// The script directory that a host names in front.
    subdomain: Option<String>,
    /// Whose scripts: the id in the host `exec-{id}`.
    exec_id: Option<String>,
}

/// Whether it is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Validated {
    success: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
    /// `{file, schema}`.
    data: Value,
}

impl Operation for Validate {
    const ROUTE: Route = Route::post("/api/v1/exec/user-openapi/validate")
        .named("validateUserSchema")
        .cli("exec validate user-schema");
    type Service = Exec;
    type Reply = Validated;

    async fn run(self, exec: Exec, call: Call) -> Result<Validated, Fault> {
        let text = which(self.file, self.path)?;
        let whose = deployment(
            &call,
            [self.exec_id.as_deref(), None],
            self.subdomain.as_deref(),
        )?;
        let path = existing(&exec, &whose, &text)?;
        let schema = companion(&path);
        let errors = match exec.companion(&path) {
            Ok(its) => mistakes(&its),
            Err(fault) => vec![fault.message],
        };
        Ok(Validated {
            success: errors.is_empty(),
            errors,
            data: json!({ "file": path.as_str(), "schema": schema.as_str() }),
        })
    }
}

/// What is served. Read from the query by hand: the answer may be YAML.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // its schema is what is used
pub struct Served {
    /// Directory; all scripts of the host where not given.
    pub dir: Option<String>,
    /// The same.
    pub directory: Option<String>,
    /// `json` or `yaml`.
    pub format: Option<String>,
    /// The script directory that a host names in front.
    pub subdomain: Option<String>,
    /// Whose scripts: the id in the host `exec-{id}`.
    pub exec_id: Option<String>,
}

/// The document of the scripts, as they are now.
pub fn serve(exec: &Exec) -> Raw {
    let exec = exec.clone();
    let handler = get(move |request: Request| {
        let exec = exec.clone();
        async move { spec(&exec, request).unwrap_or_else(|fault| kit::http::refuse(WIRE, &fault)) }
    });
    Raw::new(
        Route::get("/api/v1/exec/user-openapi/spec")
            .named("serveGeneratedSpec")
            .cli("exec openapi serve"),
        "The OpenAPI document of the scripts as they are now, as JSON or YAML.",
    )
    .replies::<Map<String, Value>>()
    .parameters::<Served>()
    .handler(handler)
}

fn spec(exec: &Exec, request: Request) -> Result<Response, Fault> {
    let (parts, _) = request.into_parts();
    let call = Call::from(parts);
    let query = kit::arguments::query_all(call.uri.query().unwrap_or_default());
    let said = |name: &str| {
        let found = query
            .iter()
            .find(|(key, value)| key == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    };
    let deployment = deployment(&call, [said("execId"), None], said("subdomain"))?;
    let wish = Wish {
        directory: directory(exec, &deployment, said("dir").or_else(|| said("directory")))?,
        recursive: true,
        title: "Generated API".to_owned(),
        description: "Auto-generated from user scripts".to_owned(),
        version: "1.0.0".to_owned(),
        base_url: usual_url(&call),
        ..Wish::default()
    };
    let document = exec.user_document(&wish)?;
    match said("format").unwrap_or("json") {
        "json" => Ok(kit::http::json(http::StatusCode::OK, &document)),
        "yaml" => {
            let text = yaml_serde::to_string(&document).map_err(|error| {
                Fault::internal(format!("the document could not be written: {error}"))
            })?;
            Ok(([(CONTENT_TYPE, "application/yaml")], text).into_response())
        }
        _ => Err(Fault::bad_request("`format` is json or yaml").code("VALIDATION_ERROR")),
    }
}
