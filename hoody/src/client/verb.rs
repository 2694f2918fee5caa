//! An operation as its document describes it.

use serde_json::Value;

/// One command.
#[derive(Debug, Clone)]
pub struct Verb {
    /// `["containers", "list"]`.
    pub words: Vec<String>,
    pub summary: String,
    pub description: String,
    /// The kit service it is for; none for the API.
    pub service: Option<String>,
    pub method: String,
    /// `/api/v1/containers/{id}`.
    pub path: String,
    /// What the query must hold for this operation, where several share a path.
    pub selector: Option<String>,
    pub parameters: Vec<Parameter>,
    /// What the body says whatever is typed.
    pub fixed: Vec<(String, Value)>,
    pub body: Body,
}

/// One parameter.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// As the wire calls it.
    pub name: String,
    /// As the command line calls it, without its dashes; none where it goes by its position.
    pub flag: Option<String>,
    pub place: Place,
    pub required: bool,
    pub kind: Kind,
    pub choices: Vec<String>,
    pub about: String,
}

/// Where a parameter travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Path,
    Query,
    Header,
    Body,
}

/// What a parameter's text stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Flag,
    Integer,
    Number,
    /// A list; the flag may be repeated.
    List,
    /// A map of texts: `KEY=VALUE`, repeated, or a JSON object.
    Map,
    /// Anything: JSON, or text where it is none.
    Json,
}

/// What a request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    None,
    /// A JSON object.
    Json,
    /// Bytes of this content type, from a file or from standard input.
    Bytes(String),
}

/// Flags that every command has, or many: a parameter of such a name gets another.
const TAKEN: &[&str] = &[
    "api-url",
    "body",
    "ca-cert",
    "config",
    "container",
    "help",
    "index",
    "out-file",
    "output",
    "profile",
    "token",
    "wait-for",
];

/// The verbs of a document: every operation that has words, except WebSockets.
pub fn all(service: Option<&str>, document: &Value) -> Vec<Verb> {
    let paths = document["paths"].as_object();
    let mut verbs = Vec::new();
    for (path, item) in paths.into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            let Some(words) = operation["x-cli"].as_str() else {
                continue;
            };
            if operation.get("x-websocket").is_some() {
                continue;
            }
            let method = method
                .strip_prefix("x-")
                .unwrap_or(method)
                .to_ascii_uppercase();
            verbs.extend(spread(verb(service, words, &method, path, operation)));
        }
    }
    verbs
}

fn verb(service: Option<&str>, words: &str, method: &str, path: &str, operation: &Value) -> Verb {
    let (path, selector) = match path.split_once('?') {
        Some((path, selector)) => (path, Some(selector.to_owned())),
        None => (path, None),
    };
    let text = |key: &str| operation[key].as_str().unwrap_or_default().to_owned();
    let mut parameters: Vec<Parameter> = operation["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(of_parameter)
        .collect();
    // positions follow the path
    parameters.sort_by_key(|parameter| match parameter.place {
        Place::Path => path.find(&format!("{{{}}}", parameter.name)),
        _ => Some(usize::MAX),
    });
    let content = operation["requestBody"]["content"].as_object();
    let body = match content.and_then(|content| content.iter().next()) {
        None => Body::None,
        // any JSON at all is sent as it comes: it need not be an object
        Some((kind, media)) if kind == "application/json" && media.get("schema").is_some() => {
            parameters.extend(of_body(&media["schema"], &parameters));
            Body::Json
        }
        Some((kind, _)) => Body::Bytes(kind.clone()),
    };
    // Of two spellings of one name, as `execId` and `exec_id`, the first is the flag.
    let mut flags = std::collections::HashSet::new();
    parameters.retain(|parameter| match &parameter.flag {
        Some(flag) => flags.insert(flag.clone()),
        None => true,
    });
    Verb {
        words: words.split_whitespace().map(str::to_owned).collect(),
        summary: text("summary"),
        description: text("description"),
        service: service.map(str::to_owned),
        method: method.to_owned(),
        path: path.to_owned(),
        selector,
        parameters,
        fixed: Vec::new(),
        body,
    }
}

fn of_parameter(parameter: &Value) -> Option<Parameter> {
    let place = match parameter["in"].as_str()? {
        "path" => Place::Path,
        "query" => Place::Query,
        "header" => Place::Header,
        _ => return None,
    };
    let name = parameter["name"].as_str()?;
    Some(Parameter {
        name: name.to_owned(),
        flag: (place != Place::Path).then(|| flag(name)),
        place,
        required: parameter["required"] == true,
        kind: kind(&parameter["schema"]),
        choices: choices(&parameter["schema"]),
        about: parameter["description"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    })
}

fn of_body(schema: &Value, known: &[Parameter]) -> Vec<Parameter> {
    let required = |name: &str| {
        schema["required"]
            .as_array()
            .is_some_and(|names| names.iter().any(|known| known == name))
    };
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties
        .filter(|(name, _)| !known.iter().any(|parameter| parameter.name == **name))
        .map(|(name, schema)| Parameter {
            name: name.clone(),
            flag: Some(flag(name)),
            place: Place::Body,
            required: required(name),
            kind: kind(schema),
            choices: choices(schema),
            about: schema["description"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        })
        .collect()
}

/// `server_id` and `serverId` are `--server-id`.
fn flag(name: &str) -> String {
    let mut flag = String::new();
    for c in name.chars() {
        match c {
            '_' | '.' | ' ' => flag.push('-'),
            c if c.is_ascii_uppercase() => {
                if !flag.is_empty() && !flag.ends_with('-') {
                    flag.push('-');
                }
                flag.push(c.to_ascii_lowercase());
            }
            c => flag.push(c),
        }
    }
    if TAKEN.contains(&flag.as_str()) {
        format!("with-{flag}")
    } else {
        flag
    }
}

fn kind(schema: &Value) -> Kind {
    let mut kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let mut either = Vec::new();
    for key in ["anyOf", "oneOf", "allOf"] {
        either.extend(schema[key].as_array().into_iter().flatten().map(kind));
    }
    kinds.retain(|kind| *kind != "null");
    match kinds[..] {
        ["boolean"] => Kind::Flag,
        ["integer"] => Kind::Integer,
        ["number"] => Kind::Number,
        ["array"] => Kind::List,
        ["object"] if holds_texts(schema) => Kind::Map,
        ["string"] => Kind::Text,
        [] if !either.is_empty() => {
            either.retain(|kind| *kind != Kind::Json);
            either.dedup();
            if let [only] = either[..] {
                only
            } else {
                Kind::Json
            }
        }
        [] if !choices(schema).is_empty() => Kind::Text,
        _ => Kind::Json,
    }
}

/// Whether an object is a map of texts, whatever its keys.
fn holds_texts(schema: &Value) -> bool {
    let patterns = schema["patternProperties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(_, value)| value);
    let mut values = patterns
        .chain(schema.get("additionalProperties"))
        .filter(|value| value.is_object());
    schema["properties"].is_null() && values.any(|value| kind(value) == Kind::Text)
}

fn choices(schema: &Value) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let listed = schema["enum"]
        .as_array()
        .into_iter()
        .flatten()
        .chain(schema.get("const"));
    found.extend(listed.filter_map(|value| value.as_str().map(str::to_owned)));
    for key in ["anyOf", "oneOf"] {
        for part in schema[key]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|part| part["type"] != "null")
        {
            let part = choices(part);
            if part.is_empty() {
                return Vec::new(); // anything goes by that way
            }
            found.extend(part);
        }
    }
    found
}

/// `containers manage ID start` is also `containers start ID`; a new container's project is named
/// by a flag.
fn spread(mut verb: Verb) -> Vec<Verb> {
    if verb.is(super::containers::CREATE) {
        for parameter in verb
            .parameters
            .iter_mut()
            .filter(|parameter| parameter.place == Place::Path)
        {
            parameter.flag = Some("project".to_owned());
            parameter.about = "Project of the container: its id or alias".to_owned();
        }
        for parameter in verb
            .parameters
            .iter_mut()
            .filter(|parameter| parameter.name == "server_id")
        {
            parameter.required = false; // where there is one only, it is that one
            parameter.about =
                "Server to make it on: its id or name; the only one where there is one".to_owned();
        }
        return vec![verb];
    }
    match verb.words.first().map(String::as_str) {
        Some("snapshots") => return of_snapshots(verb),
        Some("network" | "firewall") => return vec![of_a_container(verb)],
        Some("storage") => return of_storage(of_a_container(verb)),
        _ => {}
    }
    if !verb.is(&["containers", "manage"]) {
        return vec![verb];
    }
    let Some(operation) = verb
        .parameters
        .iter()
        .find(|parameter| parameter.name == "operation")
    else {
        return vec![verb];
    };
    let short = operation.choices.iter().map(|choice| {
        let mut short = verb.clone();
        short.words = vec!["containers".to_owned(), choice.clone()];
        short.summary = match choice.as_str() {
            "force-stop" => "Turn a container off at once.".to_owned(),
            other => format!("{}{} a container.", other[..1].to_uppercase(), &other[1..]),
        };
        short.description = String::new();
        short.path = verb.path.replace("{operation}", choice);
        short
            .parameters
            .retain(|parameter| parameter.name != "operation");
        short
    });
    let mut verbs: Vec<Verb> = short.collect();
    verbs.push(verb);
    verbs
}

/// Commands of what a container has, whose name says nothing of it, name it by a flag.
fn of_a_container(mut verb: Verb) -> Verb {
    let mut path = verb.parameters.iter_mut();
    if let Some(container) = path.find(|it| it.place == Place::Path && it.name == "id") {
        container.flag = Some("container".to_owned());
        container.about = "Container: its id or name".to_owned();
    }
    verb
}

/// `toggle-mount SHARE --mount` is also `mount SHARE`, and `toggle-mount SHARE --mount=false` is
/// `unmount SHARE`.
fn of_storage(verb: Verb) -> Vec<Verb> {
    if !verb.is(&["storage", "incoming", "toggle-mount"]) {
        return vec![verb];
    }
    let short = |word: &str, wanted: bool, summary: &str| {
        let mut short = verb.clone();
        short.words = ["storage", "incoming", word].map(str::to_owned).to_vec();
        short.summary = summary.to_owned();
        short.description = String::new();
        short
            .parameters
            .retain(|parameter| parameter.name != "mount");
        short.fixed = vec![("mount".to_owned(), wanted.into())];
        short
    };
    vec![
        short("mount", true, "See a share that is for a container."),
        short(
            "unmount",
            false,
            "See a share no more that is for a container.",
        ),
        verb,
    ]
}

/// Commands of snapshots name the container, and the snapshot, by flags; `update-alias` is also
/// `alias`.
fn of_snapshots(mut verb: Verb) -> Vec<Verb> {
    for parameter in verb
        .parameters
        .iter_mut()
        .filter(|parameter| parameter.place == Place::Path)
    {
        let (flag, about) = match parameter.name.as_str() {
            "id" => ("container", "Container: its id or name"),
            _ => ("name", "Snapshot: its name or alias"),
        };
        parameter.flag = Some(flag.to_owned());
        parameter.about = about.to_owned();
    }
    let mut verbs = vec![verb];
    if verbs[0].is(&["snapshots", "update-alias"]) {
        let mut short = verbs[0].clone();
        short.words = vec!["snapshots".to_owned(), "alias".to_owned()];
        verbs.push(short);
    }
    verbs
}

impl Verb {
    /// Whether it is the command of these words.
    pub fn is(&self, words: &[&str]) -> bool {
        self.words == words
    }
}
