//! Other people's APIs as scripts: from an OpenAPI document, one script for each of its addresses,
//! which passes requests on.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kit::Fault;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::Exec;
use crate::directives::{self, change};
use crate::place::{RelPath, shorten};
use crate::root::Over;

/// Addresses of one document.
const ADDRESSES: usize = 1000;
/// What is kept of each import.
const MARKER: &str = ".sdk.json";

/// An import, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Marker {
    pub source_url: String,
    /// The address that requests are passed on to.
    pub base: String,
    pub files: Vec<String>,
}

/// What an import came to.
#[derive(Debug, Default)]
pub struct Imported {
    pub new: usize,
    pub updated: usize,
    pub conflicts: usize,
    pub total: usize,
    pub base: RelPath,
    pub source_url: String,
}

/// What to import.
#[derive(Debug, Default)]
pub struct Wish {
    pub id: String,
    pub source_url: String,
    pub auth: Value,
    pub pre: Option<String>,
    pub post: Option<String>,
    pub comments: Map<String, Value>,
    pub force: bool,
}

pub fn directory(id: &str) -> RelPath {
    RelPath::default().join("default").join(id)
}

/// Where the import of this id is written down.
pub fn marker_path(id: &str) -> RelPath {
    directory(id).join(MARKER)
}

/// Which documents are imported: over HTTPS, or from a server of this container itself.
fn source(text: &str) -> Result<http::Uri, Fault> {
    let wrong = |why: &str| {
        Err(
            Fault::bad_request(format!("source_url `{}` {why}", shorten(text)))
                .code("INVALID_SOURCE_URL"),
        )
    };
    let Ok(uri) = text.parse::<http::Uri>() else {
        return wrong("is no URL");
    };
    let host = uri.host().unwrap_or_default();
    let own = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => {}
        Some("http") if own => {}
        _ => return wrong("is neither https:// nor http:// of this container's loopback"),
    }
    if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
        return wrong("has credentials in it; give them as source_auth");
    }
    Ok(uri)
}

/// The header that `source_auth` stands for.
fn authorization(auth: &Value) -> Result<Value, Fault> {
    let wrong = || {
        Err(Fault::bad_request(
            "source_auth is {\"type\":\"bearer\",\"token\":…} or {\"type\":\"basic\",\"username\":…,\"password\":…}",
        )
        .code("INVALID_SOURCE_AUTH"))
    };
    if auth.is_null() {
        return Ok(json!({}));
    }
    let text = |name: &str| {
        auth[name].as_str().filter(|text| {
            !text.is_empty() && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        })
    };
    match (
        auth["type"].as_str(),
        text("token"),
        text("username"),
        text("password"),
    ) {
        (Some("bearer"), Some(token), ..) => {
            Ok(json!({ "authorization": format!("Bearer {token}") }))
        }
        (Some("basic"), _, Some(user), Some(password)) if !user.contains(':') => {
            let pair = STANDARD.encode(format!("{user}:{password}"));
            Ok(json!({ "authorization": format!("Basic {pair}") }))
        }
        _ => wrong(),
    }
}

/// The path of the script for an address: `/users/{id}` is `users/[id].ts`.
fn script_of(address: &str) -> Option<String> {
    let mut names = Vec::new();
    for name in address.split('/').filter(|name| !name.is_empty()) {
        let made = match name
            .strip_prefix('{')
            .and_then(|name| name.strip_suffix('}'))
        {
            Some(parameter) => format!("[{parameter}]"),
            None => name.to_owned(),
        };
        let fine = made.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'[' | b']' | b'-' | b'_' | b'.')
        });
        if !fine {
            return None;
        }
        names.push(made);
    }
    let path = match names.is_empty() {
        true => "index.ts".to_owned(),
        false => format!("{}.ts", names.join("/")),
    };
    let route = crate::routing::route_of(&path)?;
    (!route.is_empty()).then_some(path)
}

fn proxy(base: &str, address: &str, item: &Map<String, Value>) -> String {
    let methods: Vec<String> = ["get", "put", "post", "delete", "patch", "head"]
        .iter()
        .filter(|method| item.contains_key(**method))
        .map(|method| method.to_uppercase())
        .collect();
    format!(
        "// Passes requests on to an imported API; made by an import, and made anew by the next.\n\
         const methods = {methods};\n\
         if (!methods.includes(req.method)) return res.status(405).json({{ error: `this address takes ${{methods.join(\", \")}}` }});\n\
         const path = {address}.replace(/\\{{([^}}]+)\\}}/g, (_, name) => encodeURIComponent(String(req.params[name] ?? \"\")));\n\
         const query = new URL(req.url, \"http://script\").search;\n\
         const headers = {{ ...req.headers }};\n\
         for (const name of [\"host\", \"connection\", \"content-length\", \"accept-encoding\"]) delete headers[name];\n\
         const reply = await fetch({base} + path + query, {{ method: req.method, headers, body: req.rawBody, signal: req.signal }});\n\
         const out = new Headers(reply.headers);\n\
         for (const name of [\"content-encoding\", \"content-length\", \"transfer-encoding\"]) out.delete(name);\n\
         return new Response(reply.body, {{ status: reply.status, headers: out }});\n",
        methods = json!(methods),
        address = json!(address),
        base = json!(base),
    )
}

/// The hash of a text, for showing whether it changed.
pub fn hash(text: &[u8]) -> String {
    let digest = Sha256::digest(text);
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl Exec {
    /// Import a document.
    pub async fn import_sdk(&self, wish: &Wish) -> Result<Imported, Fault> {
        let uri = source(&wish.source_url)?;
        let headers = authorization(&wish.auth)?;
        let text = self
            .fetch(&wish.source_url, &headers)
            .await
            .map_err(|mut fault| {
                fault.message = format!("the document could not be fetched: {}", fault.message);
                fault.status = http::StatusCode::BAD_GATEWAY;
                fault.code("SOURCE_UNREACHABLE")
            })?;
        let document: Value = serde_json::from_str(&text)
            .or_else(|_| yaml_serde::from_str(&text))
            .map_err(|_| {
                Fault::bad_request("the document is neither JSON nor YAML").code("INVALID_DOCUMENT")
            })?;
        let paths = document["paths"].as_object().ok_or_else(|| {
            Fault::bad_request("the document is no OpenAPI document: it has no `paths`")
                .code("INVALID_DOCUMENT")
        })?;
        if paths.len() > ADDRESSES {
            return Err(Fault::bad_request(format!(
                "the document has more than {ADDRESSES} addresses"
            ))
            .code("INVALID_DOCUMENT"));
        }
        let base = base_of(&document, &uri);
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for (address, item) in paths {
            let (Some(path), Some(item)) = (script_of(address), item.as_object()) else {
                continue;
            };
            let (text, _) = change(&proxy(&base, address, item), &wish.comments)?;
            if let Some(name) = directives::Directives::read(&text).warnings.first() {
                return Err(
                    Fault::bad_request(format!("{}: {}", name.directive, name.message))
                        .code("INVALID_DIRECTIVE"),
                );
            }
            files.insert(path, text);
        }
        self.keep_sdk(wish, &base, files)
    }

    fn keep_sdk(
        &self,
        wish: &Wish,
        base: &str,
        mut files: BTreeMap<String, String>,
    ) -> Result<Imported, Fault> {
        let at = directory(&wish.id);
        let scripts: Vec<String> = files.keys().cloned().collect();
        for script in &scripts {
            let parent = script.rsplit_once('/').map_or("", |(parent, _)| parent);
            for (name, text) in [("pre.js", &wish.pre), ("post.js", &wish.post)] {
                if let Some(text) = text {
                    let path = RelPath::read(parent)?.join(name);
                    files.insert(path.to_string(), text.clone());
                }
            }
        }
        self.root().make().map_err(|error| {
            Fault::internal(format!("the directory of scripts cannot be made: {error}"))
        })?;
        let before = self
            .sdk(&wish.id)
            .map(|marker| marker.files)
            .unwrap_or_default();
        let mut imported = Imported {
            total: scripts.len(),
            base: at.clone(),
            source_url: wish.source_url.clone(),
            ..Imported::default()
        };
        let mut kept = Vec::new();
        for (name, text) in &files {
            let path = RelPath::read(at.join(name).as_str())?;
            let there = self.root().text(&path).ok().map(|(text, _)| text);
            match &there {
                Some(same) if same == text => {}
                // somebody's own script is left alone
                Some(_) if !before.contains(name) && !wish.force => {
                    imported.conflicts += 1;
                    continue;
                }
                Some(_) => imported.updated += 1,
                None => imported.new += 1,
            }
            self.root().make_directory(&path.parent())?;
            self.root().write(&path, text.as_bytes(), Over::Replace)?;
            kept.push(name.clone());
        }
        let marker = Marker {
            source_url: wish.source_url.clone(),
            base: base.to_owned(),
            files: kept,
        };
        let text = serde_json::to_vec_pretty(&marker).expect("it is plain JSON");
        self.root().make_directory(&at)?;
        self.root()
            .write(&marker_path(&wish.id), &text, Over::Replace)?;
        Ok(imported)
    }

    /// What was imported under an id.
    pub fn sdk(&self, id: &str) -> Option<Marker> {
        let (text, _) = self.root().read(&marker_path(id)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Everything that was imported, by id.
    pub fn sdks(&self) -> Vec<(String, Marker)> {
        let entries = self
            .root()
            .list(&RelPath::default().join("default"))
            .unwrap_or_default();
        let ids = entries
            .into_iter()
            .filter(|entry| entry.facts.is_directory());
        ids.filter_map(|entry| Some((entry.name.clone(), self.sdk(&entry.name)?)))
            .collect()
    }

    /// Remove what was imported under an id. How many files it were.
    pub fn remove_sdk(&self, id: &str, marker: &Marker) -> Result<usize, Fault> {
        let at = directory(id);
        let mut removed = 0;
        for name in &marker.files {
            let path = RelPath::read(at.join(name).as_str())?;
            match self.root().remove(&path) {
                Ok(()) => removed += 1,
                Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.root().remove(&marker_path(id))?;
        if self
            .root()
            .walk_files(&at)
            .is_ok_and(|files| files.is_empty())
        {
            self.root().remove_tree(&at)?;
        }
        Ok(removed)
    }
}

/// Where requests go: the document's first server, seen from where the document is.
fn base_of(document: &Value, source: &http::Uri) -> String {
    let origin = format!(
        "{}://{}",
        source.scheme_str().unwrap_or("https"),
        source
            .authority()
            .map_or("", |authority| authority.as_str())
    );
    let server = document["servers"][0]["url"].as_str().unwrap_or_default();
    let server = server.trim_end_matches('/');
    match server {
        _ if server.starts_with("https://") || server.starts_with("http://") => server.to_owned(),
        _ if server.starts_with('/') => format!("{origin}{server}"),
        _ => origin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_scripts() {
        for (address, path) in [
            ("/", Some("index.ts")),
            ("/users/{id}", Some("users/[id].ts")),
            ("/a-b/c_d", Some("a-b/c_d.ts")),
            ("/../x", None),
            ("/node_modules/x", None),
            ("/a b", None),
            ("/{a}{b}", None),
            ("/_x", None),
        ] {
            assert_eq!(script_of(address).as_deref(), path, "{address}");
        }
        for wrong in [
            "ftp://x/a.json",
            "http://example.com/a.json",
            "https://a:b@c/x.json",
            "file:///etc/passwd",
            "x",
        ] {
            assert!(source(wrong).is_err(), "{wrong}");
        }
    }
}
