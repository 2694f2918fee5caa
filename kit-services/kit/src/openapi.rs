//! The OpenAPI 3.1 face of an [`Api`].

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, get};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use crate::api::{Op, Raw, written};
use crate::health::Health;
use crate::http::{both, document};
use crate::{Access, Api, Fault, Route, Verb};

/// The document below the service's own paths and, where those leave room, at the root, too.
pub(crate) fn routes(mut router: Router, api: &Arc<Api>) -> Router {
    let mut bases = vec![api.base.as_str()];
    if !api.base.is_empty() && (api.redirects || !owns_root(api)) {
        bases.push("");
    }
    for base in bases {
        let (as_json, as_yaml) = (api.clone(), api.clone());
        let as_json = match api.redirects && !base.is_empty() {
            true => redirect(base),
            false => document("application/json", move || as_json.document().to_string()),
        };
        router = both(router, &format!("{base}/openapi.json"), as_json);
        router = both(
            router,
            &format!("{base}/openapi.yaml"),
            document("application/yaml", move || {
                yaml_serde::to_string(&as_yaml.document()).expect("a JSON value is valid YAML")
            }),
        );
    }
    router
}

/// Leads to the document at the root, wherever the root of the service is for the caller.
fn redirect(base: &str) -> MethodRouter {
    let up = "../".repeat(base.matches('/').count());
    let location = HeaderValue::try_from(format!("{up}openapi.json")).expect("plain ASCII");
    get(move || async move { (StatusCode::FOUND, [(LOCATION, location)]) })
}

/// Whether names at the root are the service's own: files, say.
fn owns_root(api: &Api) -> bool {
    let ops = api.ops.iter().map(|op| op.route.path);
    let raws = api.raws.iter().map(|raw| raw.route.path);
    api.fallback.is_some() || ops.chain(raws).any(|path| path.starts_with("/{"))
}

impl Api {
    /// The OpenAPI 3.1 document. Operations that share method and path and are told apart by a
    /// query key stand under `path?key`; methods that OpenAPI does not know under `x-method`.
    /// `x-cli` holds the words of the command line, `x-websocket` the subprotocol of a WebSocket.
    pub fn document(&self) -> Value {
        let mut paths = Map::new();
        let mut schemas = Map::new();
        for op in &self.ops {
            add(&mut paths, op.route, of_operation(self, op, &mut schemas));
        }
        for raw in &self.raws {
            add(&mut paths, raw.route, of_raw(self, raw, &mut schemas));
        }
        let health = format!("{}/health", self.base);
        if self.gate.is_none() && !paths.contains_key(&health) {
            paths.insert(health, json!({ "get": of_health(self) }));
        }
        let mut components = json!({ "responses": { "Failure": {
            "description": "What failed, which, and what next.",
            "content": { "application/json": { "schema": failure(self) } },
        } } });
        if !schemas.is_empty() {
            components["schemas"] = schemas.into();
        }
        let mut document = json!({
            "openapi": "3.1.0",
            "info": { "title": self.name, "description": self.title, "version": env!("CARGO_PKG_VERSION") },
            "x-service": self.name,
            "paths": paths,
        });
        if self.gate.is_some() {
            components["securitySchemes"] =
                json!({ "bearer": { "type": "http", "scheme": "bearer" } });
            document["security"] = json!([{ "bearer": [] }]);
        }
        document["components"] = components;
        document
    }
}

/// The health that every service has, where it does not describe its own.
fn of_health(api: &Api) -> Value {
    json!({
        "operationId": format!("{}_healthCheck", api.name),
        "summary": "How the service is.",
        "x-cli": format!("{} health", api.name),
        "responses": { "200": {
            "description": "OK",
            "content": { "application/json": { "schema": written::<Health>() } },
        } },
    })
}

/// Put an operation where its route says, under both of its verbs.
fn add(paths: &mut Map<String, Value>, route: Route, operation: Value) {
    let mut path = route.path.replace("{*", "{");
    if let Some(selector) = route.selector {
        path = format!("{path}?{selector}");
    }
    let item = paths.entry(path).or_insert_with(|| json!({}));
    for verb in [Some(route.verb), route.also].into_iter().flatten() {
        let key = match verb {
            Verb::Other(name) => format!("x-{}", name.to_ascii_lowercase()),
            usual => usual.as_str().to_ascii_lowercase(),
        };
        let mut operation = operation.clone();
        if verb != route.verb {
            operation["operationId"] = format!("{}_{key}", route.name()).into();
            if let Some(object) = operation.as_object_mut() {
                object.remove("x-cli");
            }
        }
        item[key] = operation;
    }
}

fn head(api: &Api, route: Route, doc: &str) -> Value {
    let (summary, description) = doc.split_once("\n\n").unwrap_or((doc, ""));
    let mut head = json!({ "operationId": route.name(), "summary": summary.replace('\n', " ") });
    if !description.is_empty() {
        head["description"] = description.into();
    }
    if !route.cli.is_empty() {
        head["x-cli"] = route.cli.into();
    }
    if api.gate.is_some() && route.access == Access::Open {
        head["security"] = json!([]);
    }
    head
}

fn of_operation(api: &Api, op: &Op, schemas: &mut Map<String, Value>) -> Value {
    let route = op.route;
    let mut operation = head(api, route, op.doc());
    let input = hoisted(op.input(), schemas);
    let (parameters, body) = split(route, &input);
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = body {
        let required = body.get("required").is_some();
        operation["requestBody"] =
            json!({ "required": required, "content": { "application/json": { "schema": body } } });
    }
    let mut success = json!({ "description": route.message });
    if route.status != 204 {
        let schema = wrapped(api, route, hoisted(op.reply(), schemas));
        success["content"] = json!({ "application/json": { "schema": schema } });
    }
    operation["responses"] = json!({
        route.status.to_string(): success,
        "default": { "$ref": "#/components/responses/Failure" },
    });
    operation
}

fn of_raw(api: &Api, raw: &Raw, schemas: &mut Map<String, Value>) -> Value {
    let route = raw.route;
    let mut operation = head(api, route, raw.doc);
    let input = raw
        .input
        .map_or_else(|| json!({}), |input| hoisted(&input(), schemas));
    let in_path: Vec<_> = route.path_parameters().collect();
    let mut parameters = parameters(&input, route, &in_path, |_| true);
    for name in in_path {
        if !parameters.iter().any(|parameter| parameter["name"] == name) {
            parameters.push(json!({
                "in": "path", "name": name, "required": true, "schema": { "type": "string" },
            }));
        }
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if route.body && raw.websocket.is_none() {
        operation["requestBody"] = json!({ "content": { raw.takes: {} } });
    }
    let mut success = json!({ "description": route.message });
    if route.verb != Verb::Head && !matches!(route.status, 101 | 204) {
        let content = match raw.reply {
            Some(reply) => json!({ "schema": hoisted(&reply(), schemas) }),
            None => json!({}),
        };
        success["content"] = json!({ raw.answers: content });
    }
    operation["responses"] = json!({
        route.status.to_string(): success,
        "default": { "$ref": "#/components/responses/Failure" },
    });
    if let Some(subprotocol) = raw.websocket {
        operation["x-websocket"] = json!({ "subprotocol": subprotocol });
    }
    operation
}

/// The schema of a reply as the wire carries it.
fn wrapped(api: &Api, route: Route, reply: Value) -> Value {
    let sample = (api.wire.success)(&route, Value::Null);
    let Some(envelope) = sample.as_object() else {
        return reply;
    };
    let mut properties = Map::new();
    for (key, value) in envelope {
        let schema = if value.is_null() {
            reply.clone()
        } else {
            shape(value)
        };
        properties.insert(key.clone(), schema);
    }
    let required: Vec<_> = envelope.keys().collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

/// The schema of a failure: what the wire always says is required, the rest is not.
fn failure(api: &Api) -> Value {
    let least = Fault::bad_request("");
    let most = least.clone().code("CODE").field("/field", "");
    let least = (api.wire.failure)(&least);
    let mut schema = shape(&(api.wire.failure)(&most));
    schema["required"] = least
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .collect();
    schema
}

/// A schema that a sample fits.
fn shape(sample: &Value) -> Value {
    match sample {
        Value::Null => json!({}),
        Value::Bool(_) => json!({ "type": "boolean" }),
        Value::Number(_) => json!({ "type": "integer" }),
        Value::String(_) => json!({ "type": "string" }),
        Value::Array(items) => {
            json!({ "type": "array", "items": items.first().map_or_else(|| json!({}), shape) })
        }
        Value::Object(map) => {
            let properties: Map<_, _> = map
                .iter()
                .map(|(key, value)| (key.clone(), shape(value)))
                .collect();
            json!({ "type": "object", "properties": properties })
        }
    }
}

/// The schema with what it defines for itself moved to the components of the document. Only types
/// that contain themselves define anything: all others are written in place.
fn hoisted(schema: &Value, schemas: &mut Map<String, Value>) -> Value {
    let mut schema = schema.clone();
    let mut definitions = match schema
        .as_object_mut()
        .and_then(|object| object.remove("$defs"))
    {
        Some(Value::Object(definitions)) => definitions,
        _ => Map::new(),
    };
    // a type that contains itself refers to its own schema as `#`
    let whole = schema["title"].as_str().unwrap_or("Whole").to_owned();
    let own = format!("{DEFINITIONS}{whole}");
    let mut contains_itself = false;
    each_reference(&mut schema, &mut |target| {
        if target == "#" {
            target.clone_from(&own);
            contains_itself = true;
        }
    });
    if contains_itself {
        if let Some(object) = schema.as_object_mut() {
            object.remove("title");
        }
        definitions.insert(whole, schema);
        schema = json!({ "$ref": own });
    }
    // a name may be taken by another type of another operation
    let mut names = Map::new();
    for (name, definition) in &definitions {
        let mut free = name.clone();
        for count in 2.. {
            let mut same = definition.clone();
            each_reference(&mut same, &mut |target| {
                if target.strip_prefix(DEFINITIONS) == Some(name) {
                    *target = format!("{COMPONENTS}{free}");
                }
            });
            if schemas.get(&free).is_none_or(|taken| *taken == same) {
                break;
            }
            free = format!("{name}{count}");
        }
        names.insert(name.clone(), free.into());
    }
    let mut rename = |target: &mut String| {
        let name = target
            .strip_prefix(DEFINITIONS)
            .and_then(|name| names.get(name)?.as_str());
        if let Some(name) = name {
            *target = format!("{COMPONENTS}{name}");
        }
    };
    for (name, mut definition) in definitions {
        each_reference(&mut definition, &mut rename);
        let name = names[&name].as_str().expect("names are text").to_owned();
        schemas.insert(name, definition);
    }
    each_reference(&mut schema, &mut rename);
    schema
}

const DEFINITIONS: &str = "#/$defs/";
const COMPONENTS: &str = "#/components/schemas/";

fn each_reference(schema: &mut Value, change: &mut dyn FnMut(&mut String)) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref") {
                change(target);
            }
            map.values_mut()
                .for_each(|value| each_reference(value, change));
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|value| each_reference(value, change)),
        _ => {}
    }
}

/// Parameters of path, query and headers, and the schema of what is left for the body.
fn split(route: Route, input: &Value) -> (Vec<Value>, Option<Value>) {
    let in_path: Vec<_> = route.path_parameters().collect();
    let outside = |name: &str| {
        in_path.contains(&name)
            || !route.body
            || route.query.contains(&name)
            || route.headers.contains(&name)
    };
    let parameters = parameters(input, route, &in_path, outside);
    let mut body = input.clone();
    let Some(object) = body.as_object_mut().filter(|_| route.body) else {
        return (parameters, None);
    };
    object.remove("description");
    object.remove("title");
    if let Some(required) = object.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| name.as_str().is_none_or(|name| !outside(name)));
        if required.is_empty() {
            object.remove("required");
        }
    }
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.retain(|name, _| !outside(name));
        if properties.is_empty() {
            object.remove("properties");
        }
    }
    let says_something = [
        "properties",
        "additionalProperties",
        "allOf",
        "anyOf",
        "oneOf",
        "$ref",
    ]
    .iter()
    .any(|key| object.get(*key).is_some_and(|value| *value != json!(false)));
    (parameters, says_something.then_some(body))
}

fn parameters(
    input: &Value,
    route: Route,
    in_path: &[&str],
    outside: impl Fn(&str) -> bool,
) -> Vec<Value> {
    let required: Vec<&str> = input
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let properties = input.get("properties").and_then(Value::as_object);
    properties
        .into_iter()
        .flatten()
        .filter(|(name, _)| outside(name))
        .map(|(name, schema)| {
            let place = if in_path.contains(&name.as_str()) {
                "path"
            } else if route.headers.contains(&name.as_str()) {
                "header"
            } else {
                "query"
            };
            let mut schema = schema.clone();
            let description = schema
                .as_object_mut()
                .and_then(|object| object.remove("description"));
            let mut parameter = json!({
                "in": place,
                "name": name,
                "required": place == "path" || required.contains(&name.as_str()),
                "schema": schema,
            });
            if let Some(description) = description {
                parameter["description"] = description;
            }
            if place == "query" && admits_array(&parameter["schema"]) {
                parameter["style"] = "form".into();
                parameter["explode"] = false.into();
            }
            parameter
        })
        .collect()
}

fn admits_array(schema: &Value) -> bool {
    match &schema["type"] {
        Value::String(kind) => kind == "array",
        Value::Array(kinds) => kinds.iter().any(|kind| kind == "array"),
        _ => false,
    }
}
