//! Names: whose scripts a call is about, and what a script's path may be.

use std::fmt;

use kit::{Call, Fault};

/// Longest path of a script, in bytes.
pub const PATH_BYTES: usize = 1024;
/// Longest name in it, in bytes: the file system's own.
const NAME_BYTES: usize = 255;
/// Deepest path.
const DEPTH: usize = 32;
/// Longest id of a deployment or name of a subdomain: a label of a host name.
const LABEL_BYTES: usize = 63;
/// Directories that are the service's own, and no scripts.
pub const RESERVED: [&str; 5] = ["node_modules", ".git", ".hoody-cache", "_sdk", "_hoody"];
/// The header in which the proxy says which script directory the host named.
pub const SUBDOMAIN_HEADER: &str = "x-hoody-edge-subdomain";

/// The scripts of one host: `{subdomain|default}/{exec id}` below the root.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Deployment {
    pub subdomain: String,
    pub id: String,
}

impl Deployment {
    /// Whose scripts a call is about: what it says, and where it says nothing, its host.
    pub fn of(call: &Call, id: Option<&str>, subdomain: Option<&str>) -> Result<Deployment, Fault> {
        let id = match id.map(str::trim).filter(|id| !id.is_empty()) {
            Some(id) => exec_id(id)?,
            None => call.index().to_string(),
        };
        let told = call
            .headers
            .get(SUBDOMAIN_HEADER)
            .and_then(|value| value.to_str().ok());
        let subdomain = match subdomain.map(str::trim).filter(|name| !name.is_empty()) {
            Some(name) => label(name)?,
            None => told.map(label).transpose()?.unwrap_or_default(),
        };
        let subdomain = match subdomain.as_str() {
            "" => "default".to_owned(),
            _ => subdomain,
        };
        Ok(Deployment { subdomain, id })
    }

    /// The directory of its scripts.
    pub fn directory(&self) -> RelPath {
        RelPath(format!("{}/{}", self.subdomain, self.id))
    }
}

impl fmt::Display for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.subdomain, self.id)
    }
}

fn exec_id(text: &str) -> Result<String, Fault> {
    let fine = text.len() <= LABEL_BYTES && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !fine {
        return Err(Fault::bad_request(format!(
            "`{}` is no exec id: it is 1 to {LABEL_BYTES} letters and digits",
            shorten(text)
        ))
        .code("INVALID_EXEC_ID"));
    }
    Ok(text.to_ascii_lowercase())
}

fn label(text: &str) -> Result<String, Fault> {
    let fine = text.len() <= LABEL_BYTES
        && !text.bytes().all(|byte| byte == b'.')
        && !RESERVED.contains(&text.to_ascii_lowercase().as_str())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if !fine {
        return Err(Fault::bad_request(format!(
            "`{}` is no subdomain: it is letters, digits, dots, hyphens and underscores",
            shorten(text)
        ))
        .code("INVALID_SUBDOMAIN"));
    }
    Ok(text.to_ascii_lowercase())
}

/// A path below the root of all scripts that cannot lead out of it: names without `.`, `..`, NUL
/// and line breaks, with a slash between. Empty for the root itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct RelPath(String);

impl RelPath {
    /// Read a path as a caller writes it. Slashes around it and doubled ones say nothing.
    pub fn read(text: &str) -> Result<RelPath, Fault> {
        let path = RelPath::read_any(text)?;
        let reserved = path.names().find(|name| {
            RESERVED
                .iter()
                .any(|reserved| reserved.eq_ignore_ascii_case(name))
        });
        if let Some(name) = reserved {
            return Err(Fault::forbidden(format!(
                "Path is excluded from access: `{name}` is the service's own"
            ))
            .code("PATH_EXCLUDED"));
        }
        Ok(path)
    }

    /// The same, the service's own directories included.
    pub fn read_any(text: &str) -> Result<RelPath, Fault> {
        let wrong = |why: &str| {
            Err(
                Fault::bad_request(format!("the path `{}` {why}", shorten(text)))
                    .code("INVALID_PATH"),
            )
        };
        if text.len() > PATH_BYTES {
            return wrong(&format!("is longer than {PATH_BYTES} bytes"));
        }
        if text.chars().any(char::is_control) {
            return wrong("has control characters in it");
        }
        if text.contains('\\') {
            return wrong("has a backslash in it; write `/`");
        }
        let names: Vec<&str> = text.split('/').filter(|name| !name.is_empty()).collect();
        if names.len() > DEPTH {
            return wrong(&format!("is more than {DEPTH} deep"));
        }
        for name in &names {
            if matches!(*name, "." | "..") {
                return wrong("leads through `.` or `..`");
            }
            if name.len() > NAME_BYTES {
                return wrong(&format!("has a name of more than {NAME_BYTES} bytes"));
            }
        }
        Ok(RelPath(names.join("/")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// The last name; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Without the last name.
    pub fn parent(&self) -> RelPath {
        RelPath(
            self.0
                .rsplit_once('/')
                .map(|(parent, _)| parent.to_owned())
                .unwrap_or_default(),
        )
    }

    /// This path, and a name or a path below it.
    pub fn join(&self, below: &str) -> RelPath {
        match (self.0.is_empty(), below.is_empty()) {
            (true, _) => RelPath(below.to_owned()),
            (_, true) => self.clone(),
            _ => RelPath(format!("{}/{below}", self.0)),
        }
    }

    pub fn starts_with(&self, other: &RelPath) -> bool {
        other.0.is_empty()
            || self
                .0
                .strip_prefix(&other.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// What stands after `other`, where it begins with that.
    pub fn below(&self, other: &RelPath) -> Option<&str> {
        if other.0.is_empty() {
            return Some(&self.0);
        }
        let rest = self.0.strip_prefix(&other.0)?;
        rest.strip_prefix('/')
            .or_else(|| rest.is_empty().then_some(""))
    }

    /// The ending of the last name, with its dot; empty where it has none.
    pub fn extension(&self) -> &str {
        let name = self.name();
        match name.rfind('.') {
            Some(0) | None => "",
            Some(dot) => &name[dot..],
        }
    }

    /// The path with another ending.
    pub fn with_extension(&self, extension: &str) -> RelPath {
        let bare = &self.0[..self.0.len() - self.extension().len()];
        RelPath(format!("{bare}{extension}"))
    }

    /// Whether it can be run: `.ts` or `.js`.
    pub fn is_script(&self) -> bool {
        matches!(self.extension(), ".ts" | ".js") && !self.name().ends_with(".d.ts")
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What of a text stands in a message: no control characters, and not all of a long one.
pub fn shorten(text: &str) -> String {
    const SHOWN: usize = 80;
    text.chars()
        .take(SHOWN)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_cannot_leave_the_root() {
        for (text, want) in [
            ("a.ts", "a.ts"),
            ("/a//b.ts/", "a/b.ts"),
            ("default/1/[...slug].ts", "default/1/[...slug].ts"),
            ("", ""),
        ] {
            assert_eq!(RelPath::read(text).unwrap().as_str(), want);
        }
        for text in [
            "../a",
            "a/../b",
            "a/./b",
            "a\0b",
            "a\nb",
            "a\\b",
            "node_modules/x",
            "a/.git/x",
            "x/_SDK/y",
        ] {
            assert!(RelPath::read(text).is_err(), "{text:?}");
        }
        assert!(RelPath::read(&"a/".repeat(40)).is_err());
        assert!(RelPath::read(&"a".repeat(300)).is_err());
    }

    #[test]
    fn a_deployment_is_what_is_said_or_the_host_s() {
        let mut call = Call::internal();
        call.headers
            .insert(kit::call::edge::INDEX, "7".parse().unwrap());
        let of = |id, sub| Deployment::of(&call, id, sub).map(|it| it.to_string());
        assert_eq!(of(None, None).unwrap(), "default/7");
        assert_eq!(of(Some("Blue"), Some("Api")).unwrap(), "api/blue");
        assert_eq!(of(Some(""), Some("")).unwrap(), "default/7");
        for (id, sub) in [
            (Some("a-b"), None),
            (Some("../1"), None),
            (None, Some("..")),
            (None, Some("a/b")),
            (None, Some("node_modules")),
        ] {
            assert!(of(id, sub).is_err(), "{id:?} {sub:?}");
        }
    }
}
