//! Which addresses there are, and where one leads.

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::scoped;
use crate::Exec;
use crate::directives::Directives;
use crate::execute::Files;
use crate::place::{Deployment, RelPath};
use crate::routing::{self, kind_of, parameters_of, route_of};

/// Paths of one call.
const PATHS: usize = 500;

/// List the addresses of scripts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Discover {
    /// Directory below the scripts of the host.
    #[serde(default)]
    base_dir: String,
    /// Add what scripts say of themselves.
    #[serde(default)]
    include_metadata: bool,
    /// Whose scripts: a host, or a script directory.
    hostname: Option<String>,
    /// The id, where the host does not say.
    exec_id: Option<String>,
}

/// An address.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// The address, below the host: `/users/[id]`.
    route: String,
    /// The script.
    file: String,
    /// `static`, `dynamic` or `catch-all`.
    #[serde(rename = "type")]
    kind: &'static str,
    params: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
}

/// Addresses.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    base_dir: String,
    count: usize,
    routes: Vec<Address>,
}

fn deployment(hostname: Option<&str>, id: Option<&str>, call: &Call) -> Result<Deployment, Fault> {
    match hostname.map(str::trim).filter(|name| !name.is_empty()) {
        Some(hostname) => super::state::deployment(hostname, id, call),
        None => super::deployment(call, [id, None], None),
    }
}

impl Operation for Discover {
    const ROUTE: Route = Route::post("/api/v1/exec/route/discover")
        .named("discoverRoutes")
        .cli("exec routes discover");
    type Service = Exec;
    type Reply = Addresses;

    async fn run(self, exec: Exec, call: Call) -> Result<Addresses, Fault> {
        let deployment = deployment(self.hostname.as_deref(), self.exec_id.as_deref(), &call)?;
        let base = scoped(&exec, &deployment, &self.base_dir)?;
        let files = match exec.root().walk_files(&base) {
            Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => Vec::new(),
            other => other?,
        };
        let home = deployment.directory();
        let mut routes = Vec::new();
        for (path, _) in files {
            let Some(route) = path
                .is_script()
                .then(|| path.below(&home))
                .flatten()
                .and_then(route_of)
            else {
                continue;
            };
            let metadata = self.include_metadata.then(|| {
                let text = exec
                    .root()
                    .text(&path)
                    .map(|(text, _)| text)
                    .unwrap_or_default();
                Directives::read(&text).shown_or_null()
            });
            routes.push(Address {
                kind: kind_of(&route),
                params: parameters_of(&route),
                file: path.to_string(),
                metadata,
                route,
            });
        }
        Ok(Addresses {
            base_dir: base.to_string(),
            count: routes.len(),
            routes,
        })
    }
}

/// Say which script a path leads to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resolve {
    /// Path of a request: `/users/7`.
    path: String,
    /// Whose scripts: a host, or a script directory.
    hostname: Option<String>,
    /// The id, where the host does not say.
    exec_id: Option<String>,
}

/// Where a path leads.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resolved {
    matched: bool,
    path: String,
    hostname: String,
    exec_id: Option<String>,
    /// The script, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    script_path: Option<String>,
    /// What the path says to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<Value>,
    tried_directories: Vec<String>,
}

fn lead(exec: &Exec, deployment: &Deployment, path: &str) -> Result<Resolved, Fault> {
    let bare = path.split(['?', '#']).next().unwrap_or_default();
    let parts = routing::parts(bare)?;
    let base = deployment.directory();
    let found = routing::resolve(&Files(exec.root()), &base, &parts);
    Ok(Resolved {
        matched: found.is_some(),
        path: path.to_owned(),
        hostname: deployment.subdomain.clone(),
        exec_id: Some(deployment.id.clone()),
        params: found.as_ref().map(|found| json!(found.parameters)),
        script_path: found.map(|found| found.path.to_string()),
        tried_directories: vec![RelPath::to_string(&base)],
    })
}

impl Operation for Resolve {
    const ROUTE: Route = Route::post("/api/v1/exec/route/resolve")
        .named("resolveRoute")
        .cli("exec routes resolve");
    type Service = Exec;
    type Reply = Resolved;

    async fn run(self, exec: Exec, call: Call) -> Result<Resolved, Fault> {
        let deployment = deployment(self.hostname.as_deref(), self.exec_id.as_deref(), &call)?;
        lead(&exec, &deployment, &self.path)
    }
}

/// Say which scripts paths lead to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Test {
    /// Paths of requests.
    paths: Vec<String>,
    /// Whose scripts: a host, or a script directory.
    hostname: Option<String>,
    /// The id, where the host does not say.
    exec_id: Option<String>,
}

/// Where paths lead.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tested {
    tested: usize,
    matched: usize,
    not_matched: usize,
    results: Vec<Resolved>,
}

impl Operation for Test {
    const ROUTE: Route = Route::post("/api/v1/exec/route/test")
        .named("testRoute")
        .cli("exec routes test");
    type Service = Exec;
    type Reply = Tested;

    async fn run(self, exec: Exec, call: Call) -> Result<Tested, Fault> {
        if self.paths.len() > PATHS {
            return Err(
                Fault::bad_request(format!("{PATHS} paths are tested at once, at most"))
                    .code("VALIDATION_ERROR"),
            );
        }
        let deployment = deployment(self.hostname.as_deref(), self.exec_id.as_deref(), &call)?;
        let results: Vec<Resolved> = self
            .paths
            .iter()
            .map(|path| lead(&exec, &deployment, path))
            .collect::<Result<_, _>>()?;
        let matched = results.iter().filter(|it| it.matched).count();
        Ok(Tested {
            tested: results.len(),
            matched,
            not_matched: results.len() - matched,
            results,
        })
    }
}
