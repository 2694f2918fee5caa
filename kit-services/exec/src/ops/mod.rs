//! The operations, by group.

use axum::response::IntoResponse;
use axum::routing::{any, get};
use http::header::CONTENT_TYPE;
use kit::{Api, Fault, Raw, Route};
use serde_json::Value;

use crate::place::{Deployment, RelPath, shorten};
use crate::{Exec, WIRE, execute};

pub mod logs;
pub mod magic;
pub mod monitor;
pub mod openapi;
pub mod packages;
pub mod routes;
pub mod schedules;
pub mod scripts;
pub mod sdk;
pub mod state;
pub mod system;
pub mod templates;
pub mod validate;

/// THE list of what the service offers.
pub fn api(exec: &Exec) -> Api {
    let all = exec.clone();
    let rest = any(move |request| {
        let exec = all.clone();
        async move { execute::answer(exec, request).await }
    });
    let mut api = Api::new(
        "exec",
        "Scripts that are endpoints: TypeScript and JavaScript, each in a process of its own",
    )
    .wire(WIRE)
    .op::<scripts::List>(exec)
    .op::<scripts::Read>(exec)
    .op::<scripts::Write>(exec)
    .op::<scripts::Move>(exec)
    .op::<scripts::Delete>(exec)
    .op::<scripts::Tree>(exec)
    .op::<system::ListIds>(exec)
    .op::<system::ClearCache>(exec)
    .op::<system::Restart>(exec)
    .op::<system::RestartStatus>(exec)
    .op::<packages::ListBundled>(exec)
    .op::<packages::CheckDependencies>(exec)
    .op::<packages::InstallDependencies>(exec)
    .op::<packages::ReadJson>(exec)
    .op::<packages::InitJson>(exec)
    .op::<packages::UpdateJson>(exec)
    .op::<packages::Install>(exec)
    .op::<packages::Pin>(exec)
    .op::<packages::Compare>(exec)
    .op::<logs::List>(exec)
    .op::<logs::Read>(exec)
    .op::<logs::Search>(exec)
    .op::<logs::Clear>(exec)
    .raw(logs::stream(exec))
    .op::<magic::Read>(exec)
    .op::<magic::Schema>(exec)
    .op::<magic::Update>(exec)
    .op::<magic::BulkUpdate>(exec)
    .op::<monitor::ActiveRequests>(exec)
    .op::<monitor::Scripts>(exec)
    .op::<monitor::ScriptPerformance>(exec)
    .op::<monitor::Stats>(exec)
    .raw(monitor::prometheus(exec))
    .op::<routes::Discover>(exec)
    .op::<routes::Resolve>(exec)
    .op::<routes::Test>(exec)
    .op::<schedules::List>(exec)
    .op::<schedules::History>(exec)
    .op::<schedules::Reload>(exec)
    .op::<schedules::Trigger>(exec)
    .op::<sdk::List>(exec)
    .op::<sdk::Get>(exec)
    .op::<sdk::Import>(exec)
    .op::<sdk::Delete>(exec)
    .op::<state::Get>(exec)
    .op::<state::Set>(exec)
    .op::<state::Clear>(exec)
    .op::<templates::List>(exec)
    .op::<templates::Preview>(exec)
    .op::<templates::Generate>(exec)
    .op::<templates::Create>(exec)
    .op::<templates::Update>(exec)
    .op::<templates::Delete>(exec)
    .op::<openapi::List>(exec)
    .op::<openapi::Generate>(exec)
    .op::<openapi::Merge>(exec)
    .op::<openapi::Schema>(exec)
    .op::<openapi::Validate>(exec)
    .raw(openapi::serve(exec))
    .op::<validate::Script>(exec)
    .op::<validate::Syntax>(exec)
    .op::<validate::TypeScript>(exec)
    .op::<validate::Dependencies>(exec)
    .op::<validate::MagicComments>(exec)
    .op::<validate::ReturnType>(exec)
    .other_methods(rest.clone())
    .fallback(rest);
    for raw in raws().into_iter().chain(documents(exec)) {
        api = api.raw(raw);
    }
    api
}

/// The service's own document at the root as well, where a service with a fallback has none.
fn documents(exec: &Exec) -> [Raw; 2] {
    const DOC: &str = "The document of this service (OpenAPI 3.1).";
    let make = |exec: &Exec, yaml: bool| {
        let exec = exec.clone();
        get(move || {
            let exec = exec.clone();
            async move {
                let document = api(&exec).document();
                match yaml {
                    false => kit::http::json(http::StatusCode::OK, &document),
                    true => {
                        let text = yaml_serde::to_string(&document).unwrap_or_default();
                        ([(CONTENT_TYPE, "application/yaml")], text).into_response()
                    }
                }
            }
        })
    };
    [
        Raw::new(Route::get("/openapi.json").named("getOpenApiJson"), DOC)
            .answers("application/json")
            .handler(make(exec, false)),
        Raw::new(Route::get("/openapi.yaml").named("getOpenApiYaml"), DOC)
            .answers("application/yaml")
            .handler(make(exec, true)),
    ]
}

/// What the fallback serves.
fn raws() -> [Raw; 2] {
    const DOC: &str = "Run a script. The path leads to a file of the scripts of this host: `hello.ts` answers \
        `/hello`, `index.ts` its directory, `[id].ts` any one part, `[...slug].ts` all that are left. \
        Any method, query, headers and body are the script's.";
    [
        Raw::new(Route::get("/{path}").named("executeScript"), DOC).answers("*/*"),
        Raw::new(Route::post("/{path}").named("executeScriptWithBody"), DOC).answers("*/*"),
    ]
}

/// Whose scripts a call means: of two spellings of an id the first that says something.
pub fn deployment(
    call: &kit::Call,
    ids: [Option<&str>; 2],
    subdomain: Option<&str>,
) -> Result<Deployment, Fault> {
    let [first, second] = ids;
    let id = first.filter(|id| !id.is_empty()).or(second);
    Deployment::of(call, id, subdomain)
}

/// The path that a caller means: below its deployment, unless it begins with that; or absolute.
pub fn scoped(exec: &Exec, deployment: &Deployment, text: &str) -> Result<RelPath, Fault> {
    let root = exec.config().scripts.to_string_lossy();
    let inside = text
        .strip_prefix(&*root)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'));
    if let Some(inside) = inside {
        return RelPath::read(inside);
    }
    let path = RelPath::read(text)?;
    let home = deployment.directory();
    match path.starts_with(&home) {
        true => Ok(path),
        false => RelPath::read(home.join(path.as_str()).as_str()),
    }
}

/// The same, where a file has to be there: below the deployment first, then as it stands.
pub fn existing(exec: &Exec, deployment: &Deployment, text: &str) -> Result<RelPath, Fault> {
    let path = scoped(exec, deployment, text)?;
    if exec.root().file(&path).is_some() {
        return Ok(path);
    }
    if let Ok(plain) = RelPath::read(text)
        && exec.root().file(&plain).is_some()
    {
        return Ok(plain);
    }
    // a link says that it is one
    exec.root().facts(&path)?;
    Err(Fault::not_found(format!(
        "there is no script `{path}`; list them with GET /api/v1/exec/scripts/list"
    ))
    .code("SCRIPT_NOT_FOUND"))
}

/// A path that has to name something.
pub fn needed(path: &RelPath) -> Result<(), Fault> {
    match path.is_root() || path.names().count() == 0 {
        true => Err(Fault::bad_request("the path is empty; name a file").code("INVALID_PATH")),
        false => Ok(()),
    }
}

/// Whether a text says yes.
pub fn says_yes(text: Option<&String>) -> bool {
    text.is_some_and(|text| matches!(text.as_str(), "true" | "1" | "yes" | ""))
}

/// What may be written as JSON or as text of JSON.
pub fn object(value: &Value, name: &str) -> Result<serde_json::Map<String, Value>, Fault> {
    let wrong = || {
        Fault::bad_request(format!(
            "`{name}` is an object, or the text of one; this is `{}`",
            shorten(&value.to_string())
        ))
        .code("VALIDATION_ERROR")
    };
    match value {
        Value::Null => Ok(serde_json::Map::new()),
        Value::Object(object) => Ok(object.clone()),
        Value::String(text) if text.trim().is_empty() => Ok(serde_json::Map::new()),
        Value::String(text) => serde_json::from_str(text).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

/// What may be a list, or one, or names with commas between.
pub fn words(value: &Value, name: &str) -> Result<Vec<String>, Fault> {
    let wrong = || {
        Fault::bad_request(format!("`{name}` is a list of texts, or one text"))
            .code("VALIDATION_ERROR")
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(many) => many
            .iter()
            .map(|one| one.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect(),
        Value::String(text) if text.trim_start().starts_with('[') => {
            serde_json::from_str(text).map_err(|_| wrong())
        }
        Value::String(text) => Ok(text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()),
        _ => Err(wrong()),
    }
}
