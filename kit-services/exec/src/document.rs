//! OpenAPI documents of people's own scripts. What a script takes and returns is in a file beside
//! it, `name.openapi.json`; a script without one is a plain `GET`.

use std::collections::BTreeMap;

use globset::{Glob, GlobSet, GlobSetBuilder};
use kit::Fault;
use serde_json::{Map, Value, json};

use crate::Exec;
use crate::directives::Directives;
use crate::place::{RelPath, shorten};
use crate::routing::{parameters_of, route_of};

/// Documents that are merged at once.
pub const SPECS: usize = 64;
/// Scripts in one document.
const SCRIPTS: usize = 2000;
/// Patterns of one call.
const PATTERNS: usize = 32;

/// How a document is made.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub directory: RelPath,
    pub recursive: bool,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub title: String,
    pub description: String,
    pub version: String,
    pub base_url: String,
}

/// A script as a document has it.
#[derive(Clone, Debug)]
pub struct Listed {
    pub path: RelPath,
    /// Its address below the deployment, with parameters in braces.
    pub route: String,
    pub schema: Option<RelPath>,
    pub directives: Directives,
    pub modified: String,
    pub size: u64,
}

fn patterns(texts: &[String], usual: &[&str]) -> Result<GlobSet, Fault> {
    let usual: Vec<String> = usual.iter().map(|text| (*text).to_owned()).collect();
    let texts = if texts.is_empty() { &usual } else { texts };
    let wrong = |text: &str, why: &str| {
        Fault::bad_request(format!(
            "the pattern `{}` cannot be read: {why}",
            shorten(text)
        ))
        .code("INVALID_PATTERN")
    };
    if texts.len() > PATTERNS {
        return Err(wrong("…", &format!("there are more than {PATTERNS}")));
    }
    let mut set = GlobSetBuilder::new();
    for text in texts {
        set.add(Glob::new(text).map_err(|error| wrong(text, &error.to_string()))?);
    }
    set.build().map_err(|error| wrong("…", &error.to_string()))
}

/// The file beside a script that describes it.
pub fn companion(path: &RelPath) -> RelPath {
    path.with_extension(".openapi.json")
}

impl Exec {
    /// The scripts that a document is made from.
    pub fn documented(&self, wish: &Wish) -> Result<Vec<Listed>, Fault> {
        let include = patterns(&wish.include, &["*.js", "*.ts"])?;
        let exclude = patterns(
            &wish.exclude,
            &["*.test.js", "*.spec.ts", "*.test.ts", "*.spec.js"],
        )?;
        let mut listed = Vec::new();
        let files = match self.root().walk_files(&wish.directory) {
            Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => Vec::new(),
            other => other?,
        };
        for (path, facts) in files {
            let below = path.below(&wish.directory).unwrap_or_default();
            let deep = below.contains('/');
            if !path.is_script()
                || (deep && !wish.recursive)
                || !include.is_match(path.name())
                || exclude.is_match(path.name())
            {
                continue;
            }
            let deployment = crate::execute::deployment_of(&path).directory();
            let Some(route) = path.below(&deployment).and_then(route_of) else {
                continue;
            };
            if listed.len() >= SCRIPTS {
                return Err(Fault::bad_request(format!(
                    "there are more than {SCRIPTS} scripts in `{}`; name a directory further down",
                    wish.directory
                ))
                .code("TOO_MANY_SCRIPTS"));
            }
            let companion = companion(&path);
            let Ok((text, _)) = self.root().text(&path) else {
                continue;
            };
            listed.push(Listed {
                route,
                schema: self.root().file(&companion).map(|_| companion),
                directives: Directives::read(&text),
                modified: facts.modified_text(),
                size: facts.size,
                path,
            });
        }
        Ok(listed)
    }

    /// The companion of a script.
    pub fn companion(&self, path: &RelPath) -> Result<Value, Fault> {
        let its = match path.name().ends_with(".openapi.json") {
            true => path.clone(),
            false => companion(path),
        };
        let (text, _) = self.root().text(&its)?;
        serde_json::from_str(&text).map_err(|error| {
            Fault::new(
                http::StatusCode::UNPROCESSABLE_ENTITY,
                format!("`{its}` is not JSON: {error}"),
            )
            .code("INVALID_SCHEMA")
        })
    }

    /// The document of some scripts.
    pub fn user_document(&self, wish: &Wish) -> Result<Value, Fault> {
        let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        let mut components = Map::new();
        let mut errors = Vec::new();
        for script in self.documented(wish)? {
            let (route, parameters) = braces(&script.route);
            let name = script
                .directives
                .text("description")
                .unwrap_or(script.path.name())
                .to_owned();
            let item = match &script.schema {
                None => plain(&name, &script, &parameters),
                Some(schema) => match self
                    .companion(schema)
                    .and_then(|its| described(&its, &name, &parameters, &mut components))
                {
                    Ok(item) => item,
                    Err(fault) => {
                        errors.push(json!({ "file": schema.as_str(), "error": fault.message }));
                        continue;
                    }
                },
            };
            paths.entry(route).or_default().extend(item);
        }
        let mut document = json!({
            "openapi": "3.0.3",
            "info": { "title": wish.title, "description": wish.description, "version": wish.version },
            "servers": [{ "url": wish.base_url }],
            "paths": paths,
        });
        if !components.is_empty() {
            document["components"] = json!({ "schemas": components });
        }
        if !errors.is_empty() {
            document["x-schema-errors"] = json!(errors);
        }
        Ok(document)
    }
}

const METHODS: [&str; 8] = [
    "get", "put", "post", "delete", "options", "head", "patch", "trace",
];

/// `/users/[id]` as a document has it, and the names in it.
fn braces(route: &str) -> (String, Vec<String>) {
    let names = parameters_of(route);
    let made: Vec<String> = route
        .split('/')
        .map(|name| match name.strip_prefix('[') {
            Some(inner) => format!(
                "{{{}}}",
                inner.trim_matches(|c| matches!(c, '[' | ']' | '.'))
            ),
            None => name.to_owned(),
        })
        .collect();
    (made.join("/"), names)
}

fn path_parameters(names: &[String]) -> Vec<Value> {
    names
        .iter()
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect()
}

fn plain(summary: &str, script: &Listed, names: &[String]) -> Map<String, Value> {
    let mut operation = json!({
        "summary": summary,
        "parameters": path_parameters(names),
        "responses": { "200": { "description": "What the script returns" } },
    });
    let tags: Vec<&str> = script.directives.tags().collect();
    if !tags.is_empty() {
        operation["tags"] = json!(tags);
    }
    Map::from_iter([("get".to_owned(), operation)])
}

/// What a companion says: a whole document, a path item, or one operation with its `method`.
fn described(
    companion: &Value,
    summary: &str,
    names: &[String],
    components: &mut Map<String, Value>,
) -> Result<Map<String, Value>, Fault> {
    let errors = mistakes(companion);
    if !errors.is_empty() {
        return Err(Fault::bad_request(errors.join("; ")).code("INVALID_SCHEMA"));
    }
    if let Some(schemas) = companion["components"]["schemas"].as_object() {
        components.extend(schemas.clone());
    }
    let item = match companion["paths"]
        .as_object()
        .and_then(|paths| paths.values().next())
    {
        Some(item) => item.clone(),
        None if METHODS
            .iter()
            .any(|method| companion.get(*method).is_some()) =>
        {
            companion.clone()
        }
        None => {
            let method = companion["method"]
                .as_str()
                .unwrap_or("get")
                .to_ascii_lowercase();
            let mut operation = companion.clone();
            if let Some(operation) = operation.as_object_mut() {
                operation.remove("method");
                operation.remove("components");
            }
            json!({ method: operation })
        }
    };
    let mut made = Map::new();
    for (method, operation) in item.as_object().into_iter().flatten() {
        if !METHODS.contains(&method.as_str()) {
            continue;
        }
        let mut operation = operation.clone();
        if operation.get("summary").is_none() {
            operation["summary"] = json!(summary);
        }
        if operation.get("responses").is_none() {
            operation["responses"] = json!({ "200": { "description": "What the script returns" } });
        }
        let mut parameters = operation["parameters"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        for parameter in path_parameters(names) {
            if !parameters
                .iter()
                .any(|it| it["name"] == parameter["name"] && it["in"] == "path")
            {
                parameters.push(parameter);
            }
        }
        operation["parameters"] = json!(parameters);
        made.insert(method.clone(), operation);
    }
    Ok(made)
}

/// What is wrong with a companion.
pub fn mistakes(companion: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    let Some(object) = companion.as_object() else {
        return vec!["it is no object".to_owned()];
    };
    if let Some(paths) = object.get("paths") {
        match paths.as_object() {
            None => errors.push("`paths` is no object".to_owned()),
            Some(paths) => {
                for (path, item) in paths {
                    if !path.starts_with('/') {
                        errors.push(format!(
                            "the path `{}` does not begin with a slash",
                            shorten(path)
                        ));
                    }
                    match item.as_object() {
                        Some(item) => operations(item, &mut errors),
                        None => errors.push(format!("`{}` is no object", shorten(path))),
                    }
                }
            }
        }
    }
    if let Some(version) = object.get("openapi")
        && !version
            .as_str()
            .is_some_and(|version| version.starts_with("3."))
    {
        errors.push("`openapi` is no version 3".to_owned());
    }
    if let Some(method) = object.get("method")
        && !method
            .as_str()
            .is_some_and(|method| METHODS.contains(&method.to_ascii_lowercase().as_str()))
    {
        errors.push("`method` is no method".to_owned());
    }
    operations(object, &mut errors);
    if let Some(responses) = object.get("responses")
        && !responses.is_object()
    {
        errors.push("`responses` is no object".to_owned());
    }
    errors
}

fn operations(item: &Map<String, Value>, errors: &mut Vec<String>) {
    for method in METHODS {
        let Some(operation) = item.get(method) else {
            continue;
        };
        let Some(operation) = operation.as_object() else {
            errors.push(format!("`{method}` is no object"));
            continue;
        };
        if let Some(parameters) = operation.get("parameters") {
            for parameter in parameters.as_array().into_iter().flatten() {
                if !parameter["name"].is_string() || !parameter["in"].is_string() {
                    errors.push(format!(
                        "a parameter of `{method}` has no `name` or no `in`"
                    ));
                }
            }
            if !parameters.is_array() {
                errors.push(format!("`{method}.parameters` is no list"));
            }
        }
        if operation.get("responses").is_some_and(|it| !it.is_object()) {
            errors.push(format!("`{method}.responses` is no object"));
        }
    }
}

/// One document out of several; what the later ones say about the same goes before.
pub fn merge(specs: &[Value], title: &str, description: &str, version: &str) -> Value {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut schemas = Map::new();
    let mut tags: Vec<Value> = Vec::new();
    for spec in specs {
        for (path, item) in spec["paths"].as_object().into_iter().flatten() {
            let item = item.as_object().cloned().unwrap_or_default();
            paths.entry(path.clone()).or_default().extend(item);
        }
        if let Some(more) = spec["components"]["schemas"].as_object() {
            schemas.extend(more.clone());
        }
        for tag in spec["tags"].as_array().into_iter().flatten() {
            if !tags.contains(tag) {
                tags.push(tag.clone());
            }
        }
    }
    let mut document = json!({
        "openapi": "3.0.3",
        "info": { "title": title, "description": description, "version": version },
        "paths": paths,
    });
    if !schemas.is_empty() {
        document["components"] = json!({ "schemas": schemas });
    }
    if !tags.is_empty() {
        document["tags"] = json!(tags);
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn companions_are_held_against_what_they_have_to_be() {
        for (text, wrong) in [
            (json!({ "get": { "summary": "x" } }), 0),
            (
                json!({ "openapi": "3.0.0", "paths": { "/x": { "get": {} } } }),
                0,
            ),
            (json!({ "method": "post", "requestBody": {} }), 0),
            (json!([]), 1),
            (json!({ "get": 5 }), 1),
            (json!({ "openapi": "2.0" }), 1),
            (json!({ "paths": { "x": 1 } }), 2),
            (json!({ "get": { "parameters": [{}] } }), 1),
        ] {
            assert_eq!(
                mistakes(&text).len(),
                wrong,
                "{text}: {:?}",
                mistakes(&text)
            );
        }
    }

    #[test]
    fn documents_are_merged() {
        let one = json!({ "paths": { "/a": { "get": { "summary": "1" } } } });
        let two = json!({ "paths": { "/a": { "post": {} }, "/b": {} }, "components": { "schemas": { "X": {} } } });
        let merged = merge(&[one, two], "t", "d", "1");
        assert_eq!(merged["paths"]["/a"].as_object().unwrap().len(), 2);
        assert!(merged["components"]["schemas"]["X"].is_object());
        assert_eq!(braces("/users/[id]/[...rest]").0, "/users/{id}/{rest}");
    }
}
