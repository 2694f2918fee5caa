//! From the path of a request to a script. Pure but for looking into directories, which is an
//! argument.
//!
//! ```text
//! /hello            hello.ts          a file of that name
//! /                 index.ts          the index of a directory
//! /users/7          users/[id].ts     a name in brackets takes any one part
//! /a/b/c            [...slug].ts      and with dots all that are left
//! ```
//!
//! What is named stands before brackets, and those before dots. `.ts` stands before `.js`.

use std::collections::BTreeMap;

use kit::Fault;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::place::RelPath;

/// Places that are looked at for one request: brackets may nest, and be tried one after another.
const LOOKS: usize = 512;
/// Parts of a path that is routed.
const PARTS: usize = 32;

/// What routing asks about files.
pub trait Look {
    fn is_file(&self, path: &RelPath) -> bool;
    /// Names in a directory, with a slash behind those of directories; empty where there is none.
    fn names(&self, directory: &RelPath) -> Vec<String>;
    fn is_directory(&self, path: &RelPath) -> bool;
}

/// A script, and what the path says to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    pub path: RelPath,
    /// Parameters by name: a text, or a list for one with dots.
    pub parameters: BTreeMap<String, Value>,
}

/// The parts of a request's path, decoded. One that no name can be leads nowhere.
pub fn parts(path: &str) -> Result<Vec<String>, Fault> {
    let wrong = |why: &str| {
        Fault::bad_request(format!("the path of the request {why}")).code("INVALID_PATH")
    };
    let mut parts = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let text = percent_decode_str(part)
            .decode_utf8()
            .map_err(|_| wrong("is not UTF-8"))?;
        // clients of the usual kind encode a path as one part
        for text in text.split('/').filter(|text| !text.is_empty()) {
            if text.chars().any(char::is_control) || text.contains('\\') {
                return Err(wrong("has control characters or backslashes in it"));
            }
            if matches!(text, "." | "..") {
                return Err(wrong("leads through `.` or `..`"));
            }
            if parts.len() == PARTS {
                return Err(wrong(&format!("has more than {PARTS} parts")));
            }
            parts.push(text.to_owned());
        }
    }
    Ok(parts)
}

/// The script below `base` that answers.
pub fn resolve(look: &impl Look, base: &RelPath, parts: &[String]) -> Option<Match> {
    let mut looks = 0;
    find(look, base, parts, &mut looks).map(|(path, parameters)| Match { path, parameters })
}

type Found = (RelPath, BTreeMap<String, Value>);

fn find(look: &impl Look, at: &RelPath, parts: &[String], looks: &mut usize) -> Option<Found> {
    *looks += 1;
    if *looks > LOOKS {
        return None;
    }
    let script = |name: &str| {
        ["ts", "js"]
            .iter()
            .map(|extension| at.join(&format!("{name}.{extension}")))
            .find(|path| look.is_file(path))
    };
    let Some((first, rest)) = parts.split_first() else {
        if let Some(path) = script("index") {
            return Some((path, BTreeMap::new()));
        }
        return look.names(at).iter().find_map(|name| {
            let parameter = optional(bare(name)?)?;
            let path = at.join(name);
            Some((path, BTreeMap::from([(parameter.to_owned(), json!([]))])))
        });
    };
    if is_routable(first) {
        if rest.is_empty()
            && let Some(path) = script(first)
        {
            return Some((path, BTreeMap::new()));
        }
        let below = at.join(first);
        if look.is_directory(&below)
            && let Some(found) = find(look, &below, rest, looks)
        {
            return Some(found);
        }
    }
    let names = look.names(at);
    for name in &names {
        let Some(parameter) = bare(name).and_then(single) else {
            continue;
        };
        if rest.is_empty() {
            let path = at.join(name);
            return Some((path, BTreeMap::from([(parameter.to_owned(), json!(first))])));
        }
    }
    for name in &names {
        let Some(parameter) = name.strip_suffix('/').and_then(single) else {
            continue;
        };
        let below = at.join(name.trim_end_matches('/'));
        if let Some((path, mut parameters)) = find(look, &below, rest, looks) {
            parameters
                .entry(parameter.to_owned())
                .or_insert_with(|| json!(first));
            return Some((path, parameters));
        }
    }
    names.iter().find_map(|name| {
        let name_bare = bare(name)?;
        let parameter = rest_of(name_bare).or_else(|| optional(name_bare))?;
        let path = at.join(name);
        Some((path, BTreeMap::from([(parameter.to_owned(), json!(parts))])))
    })
}

/// Whether a part of a path may name a file: hidden files, files of the service's own, what runs
/// before and after others, and names in brackets are not asked for by name.
fn is_routable(name: &str) -> bool {
    !name.starts_with(['.', '_'])
        && !matches!(name, "pre" | "post")
        && !name.contains(['[', ']'])
        && !name.ends_with(".d")
        && RelPath::read(name).is_ok()
}

/// The name of a script's file without its ending.
fn bare(name: &str) -> Option<&str> {
    name.strip_suffix(".ts")
        .or_else(|| name.strip_suffix(".js"))
}

fn single(name: &str) -> Option<&str> {
    let inner = name.strip_prefix('[')?.strip_suffix(']')?;
    is_parameter(inner).then_some(inner)
}

fn rest_of(name: &str) -> Option<&str> {
    let inner = name.strip_prefix("[...")?.strip_suffix(']')?;
    is_parameter(inner).then_some(inner)
}

fn optional(name: &str) -> Option<&str> {
    let inner = name.strip_prefix("[[...")?.strip_suffix("]]")?;
    is_parameter(inner).then_some(inner)
}

fn is_parameter(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// The address of a script below its deployment: `/users/[id]`; none where it has none.
pub fn route_of(below: &str) -> Option<String> {
    let bare = bare(below)?;
    let mut names: Vec<&str> = bare.split('/').collect();
    for (at, name) in names.iter().enumerate() {
        let last = at + 1 == names.len();
        let bracketed = single(name).is_some()
            || (last && (rest_of(name).is_some() || optional(name).is_some()));
        if !bracketed && !is_routable(name) {
            return None;
        }
    }
    if names.last() == Some(&"index") {
        names.pop();
    }
    Some(format!("/{}", names.join("/")))
}

/// What kind of address it is: `static`, `dynamic` or `catch-all`.
pub fn kind_of(route: &str) -> &'static str {
    match route {
        _ if route.contains("[...") => "catch-all",
        _ if route.contains('[') => "dynamic",
        _ => "static",
    }
}

/// The names of an address's parameters.
pub fn parameters_of(route: &str) -> Vec<String> {
    route
        .split('/')
        .filter_map(|name| {
            single(name)
                .or_else(|| rest_of(name))
                .or_else(|| optional(name))
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    struct Tree(BTreeSet<String>);

    impl Tree {
        fn of(files: &[&str]) -> Tree {
            Tree(files.iter().map(|file| (*file).to_owned()).collect())
        }
    }

    impl Look for Tree {
        fn is_file(&self, path: &RelPath) -> bool {
            self.0.contains(path.as_str())
        }
        fn is_directory(&self, path: &RelPath) -> bool {
            let prefix = format!("{path}/");
            self.0.iter().any(|file| file.starts_with(&prefix))
        }
        fn names(&self, directory: &RelPath) -> Vec<String> {
            let prefix = match directory.is_root() {
                true => String::new(),
                false => format!("{directory}/"),
            };
            let names: BTreeSet<String> = self
                .0
                .iter()
                .filter_map(|file| file.strip_prefix(&prefix))
                .map(|rest| match rest.split_once('/') {
                    Some((name, _)) => format!("{name}/"),
                    None => rest.to_owned(),
                })
                .collect();
            names.into_iter().collect()
        }
    }

    const FILES: &[&str] = &[
        "d/index.ts",
        "d/hello.ts",
        "d/hello.js",
        "d/old.js",
        "d/users/[id].ts",
        "d/users/me.ts",
        "d/users/[id]/posts.ts",
        "d/docs/[...slug].ts",
        "d/docs/start.ts",
        "d/opt/[[...all]].js",
        "d/pre.ts",
        "d/_lib.ts",
        "d/.hidden.ts",
        "d/types.d.ts",
        "d/[a]/[b]/[c].ts",
        "d/data.json",
    ];

    #[test]
    fn paths_lead_to_scripts() {
        let tree = Tree::of(FILES);
        let base = RelPath::read("d").unwrap();
        let to = |path: &str| {
            let found = resolve(&tree, &base, &parts(path).unwrap())?;
            Some((found.path.as_str().to_owned(), json!(found.parameters)))
        };
        for (path, file, parameters) in [
            ("/", "d/index.ts", json!({})),
            ("/hello", "d/hello.ts", json!({})),
            ("/old/", "d/old.js", json!({})),
            ("/users/me", "d/users/me.ts", json!({})),
            ("/users/7", "d/users/[id].ts", json!({ "id": "7" })),
            ("/users/a%20b", "d/users/[id].ts", json!({ "id": "a b" })),
            (
                "/users/7/posts",
                "d/users/[id]/posts.ts",
                json!({ "id": "7" }),
            ),
            ("/docs/start", "d/docs/start.ts", json!({})),
            (
                "/docs/a/b",
                "d/docs/[...slug].ts",
                json!({ "slug": ["a", "b"] }),
            ),
            (
                "/docs%2Fa%2Fb",
                "d/docs/[...slug].ts",
                json!({ "slug": ["a", "b"] }),
            ),
            ("/opt", "d/opt/[[...all]].js", json!({ "all": [] })),
            ("/opt/x", "d/opt/[[...all]].js", json!({ "all": ["x"] })),
            (
                "/x/y/z",
                "d/[a]/[b]/[c].ts",
                json!({ "a": "x", "b": "y", "c": "z" }),
            ),
        ] {
            assert_eq!(to(path), Some((file.to_owned(), parameters)), "{path}");
        }
        for path in [
            "/nothing",
            "/docs",
            "/pre",
            "/_lib",
            "/.hidden",
            "/types.d",
            "/data",
            "/hello.ts",
            "/[a]",
        ] {
            assert_eq!(to(path), None, "{path}");
        }
        for path in [
            "/../x",
            "/a/%2e%2e/b",
            "/a%00b",
            "/%ff",
            "/a%5cb",
            &"/a".repeat(40),
        ] {
            assert!(parts(path).is_err(), "{path}");
        }
    }

    #[test]
    fn scripts_have_addresses() {
        for (file, route) in [
            ("index.ts", Some("/")),
            ("a/index.js", Some("/a")),
            ("users/[id].ts", Some("/users/[id]")),
            ("[...slug].ts", Some("/[...slug]")),
            ("[...slug]/x.ts", None),
            ("pre.ts", None),
            ("_x/y.ts", None),
            ("x.json", None),
        ] {
            assert_eq!(route_of(file).as_deref(), route, "{file}");
        }
    }

    #[test]
    fn brackets_that_nest_are_tried_so_often_and_no_more() {
        let mut files: Vec<String> = Vec::new();
        for name in ["a", "b", "c"] {
            files.push(format!("{}end.ts", format!("[{name}]/").repeat(12)));
        }
        let tree = Tree(files.into_iter().collect());
        let deep = vec!["x".to_owned(); 30];
        assert_eq!(resolve(&tree, &RelPath::default(), &deep), None);
    }

    proptest! {
        #[test]
        fn whatever_is_asked_leads_to_a_script_below_its_base_or_nowhere(path in "[ -~]{0,60}") {
            let tree = Tree::of(FILES);
            let base = RelPath::read("d").unwrap();
            if let Ok(parts) = parts(&path)
                && let Some(found) = resolve(&tree, &base, &parts)
            {
                prop_assert!(FILES.contains(&found.path.as_str()));
                prop_assert!(found.path.is_script());
            }
        }

        #[test]
        fn the_address_of_a_script_leads_to_it(names in proptest::collection::vec("[a-z]{1,4}", 1..5)) {
            let file = format!("{}.ts", names.join("/"));
            prop_assume!(route_of(&file).is_some());
            let tree = Tree::of(&[&file]);
            let route = route_of(&file).unwrap();
            let found = resolve(&tree, &RelPath::default(), &parts(&route).unwrap());
            prop_assert_eq!(found.map(|found| found.path.as_str().to_owned()), Some(file));
        }
    }
}
