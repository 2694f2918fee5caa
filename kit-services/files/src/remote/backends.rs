//! Connections to other servers. Each is a section of rclone's file; its name is the id.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use kit::Fault;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::kinds::{self, Kind, wrong};
use super::{Remote, Running, lock, new_id, rfc3339};

/// Most backends of a computer.
const BACKENDS: usize = 128;
/// What the service keeps in a section beside rclone's parameters.
const CREATED: &str = "hoody_created";
const SLUG: &str = "hoody_type";

/// A backend as others see it: none of its parameters but where it is and for whom.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Backend {
    pub id: String,
    pub backend_type: String,
    /// Whether it answered when it was last asked; true until it is.
    pub connected: bool,
    pub created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where it is mounted.
    pub mount_paths: Vec<String>,
}

type Section = BTreeMap<String, String>;

impl Remote {
    /// Keep a new one.
    pub async fn connect(&self, kind: &Kind, given: Map<String, Value>) -> Result<String, Fault> {
        let mut parameters = kind.check(given, true)?;
        let _change = self.0.changes.lock().await;
        let running = self.running().await?;
        let sections = self.sections().await?;
        if sections.len() >= BACKENDS {
            return Err(Fault::conflict(format!(
                "there are {BACKENDS} backends, which is all there can be; disconnect one"
            ))
            .code("TOO_MANY_BACKENDS"));
        }
        let id = new_id(kind.slug);
        self.permit(kind, &running, &id, &parameters, &sections)?;
        parameters.insert(CREATED.into(), rfc3339(SystemTime::now()));
        parameters.insert(SLUG.into(), kind.slug.into());
        let secrets = secrets(&parameters);
        let create = json!({
            "name": id, "type": kind.rclone(), "parameters": parameters,
            // asks nobody for what is missing, and has passwords written as rclone keeps them
            "opt": { "nonInteractive": true, "obscure": true },
        });
        if let Err(failure) = self.call("config/create", &create).await? {
            // it is written down before it is looked at
            let _ = self.call("config/delete", &json!({ "name": id })).await;
            let mut fault = failure.fault("connect the backend", &secrets);
            (fault.status, fault.code) = (http::StatusCode::BAD_REQUEST, Some("INVALID_PARAMETER"));
            return Err(fault);
        }
        Ok(id)
    }

    /// Change parameters of one.
    pub async fn update(&self, id: &str, given: Map<String, Value>) -> Result<(), Fault> {
        let _change = self.0.changes.lock().await;
        let running = self.running().await?;
        let sections = self.sections().await?;
        let section = sections.get(id).ok_or_else(|| unknown(id))?;
        let kind = kind_of(section)?;
        let parameters = kind.check(given, false)?;
        let mut whole = section.clone();
        whole.extend(parameters.clone());
        self.permit(kind, &running, id, &parameters, &sections)?;
        let secrets = secrets(&parameters);
        let update = json!({
            "name": id, "parameters": parameters,
            "opt": { "nonInteractive": true, "obscure": true },
        });
        self.call("config/update", &update)
            .await?
            .map_err(|failure| failure.fault("change the backend", &secrets))?;
        lock(&self.0.seen).remove(id);
        self.forget().await
    }

    /// Forget one that nothing uses.
    pub async fn disconnect(&self, id: &str) -> Result<(), Fault> {
        let _change = self.0.changes.lock().await;
        let sections = self.sections().await?;
        if !sections.contains_key(id) {
            return Err(unknown(id));
        }
        if let Some(path) = self.mount_paths(id).first() {
            return Err(Fault::conflict(format!(
                "backend {id} is mounted at {path}; unmount it first"
            ))
            .code("IN_USE"));
        }
        let user = sections.iter().find(|(other, section)| {
            *other != id && references(section).is_ok_and(|names| names.contains(id))
        });
        if let Some((other, _)) = user {
            return Err(Fault::conflict(format!(
                "backend {other} stands on backend {id}; disconnect that one first"
            ))
            .code("IN_USE"));
        }
        self.call("config/delete", &json!({ "name": id }))
            .await?
            .map_err(|failure| failure.fault("disconnect the backend", &[]))?;
        lock(&self.0.seen).remove(id);
        self.forget().await
    }

    /// What rclone keeps of connections that it made is of the parameters as they were.
    async fn forget(&self) -> Result<(), Fault> {
        self.call("fscache/clear", &json!({}))
            .await?
            .map_err(|failure| failure.fault("forget the old connection", &[]))?;
        Ok(())
    }

    /// Ask the server of one whether it answers.
    pub async fn test(&self, id: &str) -> Result<Option<String>, Fault> {
        self.backend(id).await?;
        let ask = json!({ "fs": format!("{id}:"), "remote": "", "opt": { "noModTime": true, "noMimeType": true } });
        let answer = self.call("operations/list", &ask).await?;
        self.note(id, answer.is_ok());
        Ok(answer
            .err()
            .map(|failure| failure.fault("list it", &[]).message))
    }

    /// All there are, by id.
    pub async fn backends(&self) -> Result<Vec<Backend>, Fault> {
        let sections = self.sections().await?;
        Ok(sections
            .iter()
            .map(|(id, section)| self.seen_from_outside(id, section))
            .collect())
    }

    pub async fn backend(&self, id: &str) -> Result<Backend, Fault> {
        let sections = self.sections().await?;
        let section = sections.get(id).ok_or_else(|| unknown(id))?;
        Ok(self.seen_from_outside(id, section))
    }

    async fn sections(&self) -> Result<BTreeMap<String, Section>, Fault> {
        if !self.0.config.state.join("rclone.conf").exists() {
            return Ok(BTreeMap::new()); // and nothing has to be started to say so
        }
        let dump = self
            .call("config/dump", &json!({}))
            .await?
            .map_err(|failure| failure.fault("read the backends", &[]))?;
        serde_json::from_value(dump)
            .map_err(|_| Fault::internal("rclone's list of backends is none"))
    }

    fn seen_from_outside(&self, id: &str, section: &Section) -> Backend {
        let seen = lock(&self.0.seen).get(id).copied();
        let text = |names: &[&str]| {
            let found = names.iter().find_map(|name| section.get(*name));
            found
                .filter(|text| !text.is_empty())
                .map(|text| without_password(text))
        };
        Backend {
            id: id.to_owned(),
            backend_type: slug(section).to_owned(),
            connected: seen.is_none_or(|seen| seen.answered),
            created_at: section.get(CREATED).cloned().unwrap_or_default(),
            last_used: seen.map(|seen| rfc3339(seen.at)),
            server: text(&["host", "url", "endpoint", "namenode", "remote", "upstreams"]),
            user: text(&["user", "username", "account"]),
            description: text(&["description"]),
            mount_paths: self.mount_paths(id),
        }
    }

    /// Whether rclone here can do it, and whether it may.
    fn permit(
        &self,
        kind: &Kind,
        running: &Running,
        id: &str,
        parameters: &Section,
        sections: &BTreeMap<String, Section>,
    ) -> Result<(), Fault> {
        let Some(known) = running.types.get(&kind.rclone()) else {
            return Err(Fault::new(
                http::StatusCode::NOT_IMPLEMENTED,
                format!(
                    "the rclone of this computer ({}) has no type {}; install another rclone at /usr/local/bin/rclone",
                    running.version, kind.slug
                ),
            )
            .code("TYPE_MISSING"));
        };
        if let Some(name) = kinds::unknown(parameters, known) {
            let why = format!(
                "the rclone of this computer ({}) does not know it",
                running.version
            );
            return Err(wrong(name, &why));
        }
        if self.0.config.jailed {
            kind.refuse_files(parameters)?;
        }
        let named = references(parameters)?;
        for name in &named {
            if name.is_empty() {
                if self.0.config.jailed {
                    return Err(wrong(
                        "remote",
                        "this service keeps to a directory, and rclone would not; name a backend as <id>:<path>",
                    ));
                }
                continue;
            }
            let section = sections
                .get(name)
                .ok_or_else(|| wrong("remote", &format!("there is no backend {name}")))?;
            if self.0.config.jailed && slug(section) == "local" {
                return Err(wrong(
                    "remote",
                    "this service keeps to a directory, and rclone would not",
                ));
            }
        }
        if reaches(&named, id, sections) {
            return Err(wrong("remote", "it leads back to this backend"));
        }
        Ok(())
    }
}

/// Whether one of these backends stands, over others, on the one of this id.
fn reaches(from: &BTreeSet<String>, id: &str, sections: &BTreeMap<String, Section>) -> bool {
    let mut known = from.clone();
    let mut open: Vec<String> = from.iter().cloned().collect();
    while let Some(name) = open.pop() {
        if name == id {
            return true;
        }
        let further = sections
            .get(&name)
            .and_then(|section| references(section).ok());
        for next in further.unwrap_or_default() {
            if known.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    false
}

/// The backends that parameters name; an empty name is a path of this computer.
///
/// What rclone would also take, a type with its parameters in place of a name (`:sftp,ssh=...:`) and
/// parameters behind a name, would go around all that is checked here.
fn references(parameters: &Section) -> Result<BTreeSet<String>, Fault> {
    let mut names = BTreeSet::new();
    for parameter in ["remote", "upstreams"] {
        let text = parameters
            .get(parameter)
            .map(String::as_str)
            .unwrap_or_default();
        let many = parameter == "upstreams";
        if many && text.contains('"') {
            return Err(wrong(
                parameter,
                "quotes are not taken; paths in it have no spaces",
            ));
        }
        let words: Vec<&str> = match many {
            true => text.split_whitespace().collect(),
            false => vec![text],
        };
        for word in words.into_iter().filter(|word| !word.is_empty()) {
            let word = match many {
                // combine names a directory for each: dir=remote:path
                true => word
                    .split_once('=')
                    .filter(|(dir, _)| !dir.contains(':'))
                    .map_or(word, |(_, to)| to),
                false => word,
            };
            if word.starts_with('/') {
                names.insert(String::new());
                continue;
            }
            let name = word
                .split_once(':')
                .map(|(name, _)| name)
                .filter(|name| is_id(name));
            let name = name.ok_or_else(|| {
                wrong(
                    parameter,
                    "it names a backend as <id>:<path>, or is an absolute path",
                )
            })?;
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}

/// Whether a text can be the id of a backend or a mount.
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

pub fn unknown(id: &str) -> Fault {
    let id: String = id.chars().filter(|c| !c.is_control()).take(64).collect();
    Fault::not_found(format!(
        "no backend `{id}`; GET /api/v1/backends lists them"
    ))
    .code("BACKEND_NOT_FOUND")
}

fn slug(section: &Section) -> &str {
    let kept = section.get(SLUG).or_else(|| section.get("type"));
    kept.map(String::as_str).unwrap_or_default()
}

fn kind_of(section: &Section) -> Result<&'static Kind, Fault> {
    kinds::find(slug(section)).ok_or_else(|| Fault::internal("a backend has no type"))
}

/// Values that no message repeats: all but those that say where and what.
fn secrets(parameters: &Section) -> Vec<String> {
    let open = [
        "host",
        "url",
        "endpoint",
        "remote",
        "upstreams",
        "user",
        "description",
        "port",
        "type",
        CREATED,
        SLUG,
    ];
    parameters
        .iter()
        .filter(|(name, value)| !open.contains(&name.as_str()) && value.len() > 5)
        .map(|(_, value)| value.clone())
        .collect()
}

/// A URL without the password that may stand in it.
fn without_password(text: &str) -> String {
    match text.split_once("://").and_then(|(scheme, rest)| {
        let end = rest.find('/').unwrap_or(rest.len());
        let at = rest[..end].rfind('@')?;
        Some(format!("{scheme}://{}", &rest[at + 1..]))
    }) {
        Some(bare) => bare,
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(pairs: &[(&str, &str)]) -> Section {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_a_backend_stands_on_is_named_and_nothing_else_is() {
        let names = |name: &str, value: &str| {
            references(&section(&[(name, value)]))
                .map(|names| names.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(names("remote", "memory-1:a b/c").unwrap(), ["memory-1"]);
        assert_eq!(names("remote", "/srv").unwrap(), [""]);
        assert_eq!(
            names("upstreams", "a-1:x:ro b-2:y").unwrap(),
            ["a-1", "b-2"]
        );
        assert_eq!(
            names("upstreams", "one=a-1:x two=/srv").unwrap(),
            ["", "a-1"]
        );
        for evil in [
            ":local:/etc",
            ":sftp,ssh='sh -c id':",
            "a-1,bearer_token_command=id:",
            "../../etc",
            "etc",
            "A:",
            "-a:",
            "~/x",
        ] {
            assert!(names("remote", evil).is_err(), "{evil}");
            assert!(names("upstreams", &format!("x={evil}")).is_err(), "{evil}");
        }
        assert!(names("upstreams", "\"x=:local:/\"").is_err());
    }

    #[test]
    fn a_ring_of_backends_is_seen() {
        let sections: BTreeMap<_, _> = [
            ("a".to_owned(), section(&[("remote", "b:")])),
            ("b".to_owned(), section(&[("remote", "c:x")])),
            ("c".to_owned(), section(&[("type", "memory")])),
        ]
        .into();
        let from = |name: &str| BTreeSet::from([name.to_owned()]);
        assert!(reaches(&from("a"), "c", &sections) && reaches(&from("a"), "a", &sections));
        assert!(!reaches(&from("c"), "a", &sections));
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        assert_eq!(without_password("https://u:p@h/x@y"), "https://h/x@y");
        assert_eq!(without_password("https://h/x@y"), "https://h/x@y");
        assert_eq!(without_password("h"), "h");
    }
}
