//! Ids from names: wherever a container, project or server is asked for by id, its name will do.

use anyhow::bail;
use serde_json::Value;

use super::node::Node;
use super::request::{Payload, Request};
use super::verb::Verb;

/// A list is looked through for so many pages.
const MAX_PAGES: u32 = 200;
/// Things on a page.
const PAGE: u32 = 100;

/// What a container's hosts are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub project: String,
    pub server: String,
    pub status: String,
}

/// The kinds of things that have names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Container,
    Project,
    Server,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Container => "container",
            Kind::Project => "project",
            Kind::Server => "server",
        }
    }

    fn list(self) -> &'static str {
        match self {
            Kind::Container => "/api/v1/containers/",
            Kind::Project => "/api/v1/projects/",
            Kind::Server => "/api/v1/servers",
        }
    }

    /// The kind that a path parameter after this segment, or any parameter of this name, stands for.
    fn of(segment: &str, name: &str) -> Option<Kind> {
        match (segment, name) {
            ("containers", _) | (_, "container_id" | "containerId" | "target_container_id") => {
                Some(Kind::Container)
            }
            ("projects", _) | (_, "project_id" | "projectId" | "target_project_id") => {
                Some(Kind::Project)
            }
            ("servers", _) | (_, "server_id" | "serverId" | "target_server_id") => {
                Some(Kind::Server)
            }
            _ => None,
        }
    }
}

/// Put ids where names were given.
pub async fn resolve(node: &Node, verb: &Verb, request: &mut Request) -> anyhow::Result<()> {
    if verb.service.is_some() {
        return Ok(());
    }
    let segments: Vec<&str> = verb.path.split('/').collect();
    for (name, value) in &mut request.inserts {
        let at = segments
            .iter()
            .position(|segment| *segment == format!("{{{name}}}"));
        let before = at
            .and_then(|at| segments.get(at.checked_sub(1)?))
            .copied()
            .unwrap_or_default();
        if let Some(kind) = Kind::of(before, name) {
            *value = id(node, kind, value).await?;
        }
    }
    for (name, value) in &mut request.query {
        if let Some(kind) = Kind::of("", name) {
            *value = id(node, kind, value).await?;
        }
    }
    if let Payload::Json(members) = &mut request.payload {
        for (name, value) in members {
            if let (Some(kind), Some(text)) = (Kind::of("", name), value.as_str()) {
                *value = id(node, kind, text).await?.into();
            }
        }
    }
    Ok(())
}

/// The container with this name or id.
pub async fn container(node: &Node, text: &str) -> anyhow::Result<Container> {
    let found = if is_id(text) {
        node.api(Request::plain("GET", format!("/api/v1/containers/{text}")))
            .await?
    } else {
        find(node, Kind::Container, text).await?
    };
    Container::of(&found)
}

impl Container {
    /// From what the API says of it.
    pub fn of(value: &Value) -> anyhow::Result<Container> {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        let server =
            text("server_name").or_else(|| value["server"]["name"].as_str().map(str::to_owned));
        match (text("id"), text("project_id"), server) {
            (Some(id), Some(project), Some(server)) => Ok(Container {
                name: text("name").unwrap_or_else(|| id.clone()),
                status: text("status").unwrap_or_default(),
                id,
                project,
                server,
            }),
            _ => bail!("the API did not say where the container is; it may not be placed yet"),
        }
    }
}

async fn id(node: &Node, kind: Kind, text: &str) -> anyhow::Result<String> {
    if is_id(text) {
        return Ok(text.to_owned());
    }
    let found = find(node, kind, text).await?;
    match found["id"].as_str() {
        Some(id) => Ok(id.to_owned()),
        None => bail!("the API gave no id for the {} `{text}`", kind.word()),
    }
}

/// The one thing of this name.
async fn find(node: &Node, kind: Kind, text: &str) -> anyhow::Result<Value> {
    let mut found = Vec::new();
    for page in 1..=MAX_PAGES {
        let mut request = Request::plain("GET", kind.list());
        if kind != Kind::Server {
            request.set_query("page", page.to_string());
            request.set_query("limit", PAGE.to_string());
        }
        let data = node.api(request).await?;
        let things = items(&data);
        found.extend(things.iter().filter_map(|thing| named(kind, thing, text)));
        let pages = data["pagination"]["totalPages"].as_u64().unwrap_or(1);
        if things.is_empty() || u64::from(page) >= pages {
            break;
        }
    }
    one(kind, text, found)
}

/// What is found, if it is one thing.
fn one(kind: Kind, text: &str, mut found: Vec<Value>) -> anyhow::Result<Value> {
    let word = kind.word();
    match found.len() {
        0 => bail!("no {word} `{text}`; list them with `hoody {word}s list`"),
        1 => Ok(found.remove(0)),
        _ => {
            let them: Vec<String> = found
                .iter()
                .map(|thing| {
                    let id = thing["id"].as_str().unwrap_or_default();
                    match thing["project_alias"].as_str() {
                        Some(project) => format!("{id} in project `{project}`"),
                        None => id.to_owned(),
                    }
                })
                .collect();
            bail!(
                "{} {word}s are called `{text}`; use the id: {}",
                found.len(),
                them.join(", ")
            )
        }
    }
}

/// The thing to use where this one is called so. A rental stands for the server it rents.
fn named(kind: Kind, thing: &Value, text: &str) -> Option<Value> {
    let called = |thing: &Value| ["name", "alias"].iter().any(|key| thing[*key] == text);
    if called(thing) {
        return Some(thing.clone());
    }
    (kind == Kind::Server && called(&thing["server"])).then(|| thing["server"].clone())
}

/// The things in a list's answer: the answer itself, or its only list.
pub(super) fn items(data: &Value) -> Vec<Value> {
    match data {
        Value::Array(items) => items.clone(),
        Value::Object(members) => members
            .values()
            .find_map(Value::as_array)
            .cloned()
            .unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// Whether a text is an id: 24 lower-case hexadecimal digits.
pub(super) fn is_id(text: &str) -> bool {
    text.parse::<routes::Id>().is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_find_things() {
        let server = json!({ "id": "rental", "server": { "id": "s", "name": "node1" } });
        assert_eq!(
            named(Kind::Server, &server, "node1"),
            Some(json!({ "id": "s", "name": "node1" }))
        );
        assert_eq!(
            named(Kind::Project, &json!({ "alias": "demo" }), "demo"),
            Some(json!({ "alias": "demo" }))
        );
        assert_eq!(
            named(Kind::Container, &json!({ "name": "web" }), "we"),
            None
        );
    }

    #[test]
    fn what_is_not_there_or_not_alone_is_said() {
        let error = one(Kind::Container, "web", vec![]).unwrap_err().to_string();
        assert_eq!(
            error,
            "no container `web`; list them with `hoody containers list`"
        );
        let two = vec![
            json!({ "id": "a", "project_alias": "x" }),
            json!({ "id": "b", "project_alias": "y" }),
        ];
        let error = one(Kind::Container, "web", two).unwrap_err().to_string();
        assert_eq!(
            error,
            "2 containers are called `web`; use the id: a in project `x`, b in project `y`"
        );
    }

    #[test]
    fn parameters_stand_for_kinds() {
        for (segment, name, kind) in [
            ("containers", "id", Some(Kind::Container)),
            ("projects", "id", Some(Kind::Project)),
            ("", "server_id", Some(Kind::Server)),
            ("", "target_project_id", Some(Kind::Project)),
            ("", "target_container_id", Some(Kind::Container)),
            ("", "target_server_id", Some(Kind::Server)),
            ("tokens", "id", None),
        ] {
            assert_eq!(Kind::of(segment, name), kind, "{segment} {name}");
        }
    }

    #[test]
    fn a_container_knows_its_host() {
        let value = json!({ "id": "c", "name": "web", "project_id": "p", "server_name": "node1", "status": "running" });
        assert_eq!(Container::of(&value).unwrap().server, "node1");
        assert!(Container::of(&json!({ "id": "c" })).is_err());
    }
}
