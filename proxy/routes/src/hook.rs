//! Hooks: scripts of a container that see requests for its services before they are passed on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Hooks of one service, and of all services of one container.
pub const PER_SERVICE: usize = 8;
pub const PER_CONTAINER: usize = 32;
/// Methods, headers and groups that one hook names.
pub const METHODS: usize = 16;
pub const HEADERS: usize = 16;
pub const GROUPS: usize = 64;
/// The longest pattern of a path, in bytes.
pub const PATTERN_BYTES: usize = 512;
/// The longest time that a script may take, which it may where nothing is said, in milliseconds.
pub const TIMEOUT_MS: u32 = 30_000;

/// The hooks of a container by the slug of the service, in their order.
pub type Hooks = BTreeMap<String, Vec<Hook>>;

/// When a script is asked, and which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// 26 characters, as the API writes them.
    pub id: String,
    #[serde(default, rename = "match")]
    pub matches: Match,
    pub script: Script,
    /// The time that the script has, in milliseconds.
    pub timeout: u32,
    /// Only requests of these groups; of everybody where it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(default)]
    pub on_error: OnError,
}

/// What a request has to look like. What is not said, is met by every request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// In upper case; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// A pattern of the path: `*` stands for any part of a segment, `**` for any part of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// By name in lower case; `*` in a value stands for any text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// A script of the container's `exec` service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// The directory that it is in, as a host names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdomain: Option<String>,
    /// The index of the service that runs it.
    pub index: u32,
    /// Begins with `/`.
    pub path: String,
}

/// What becomes of a request whose hook fails, or takes too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// It passes, as if there were no hook.
    Open,
    /// It is refused.
    #[default]
    Closed,
}

/// What of a request decides about hooks.
pub struct Asked<'a> {
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
    /// The value of the first header of this name, in lower case.
    pub header: &'a dyn Fn(&str) -> Option<&'a str>,
    /// The group that the request passed the gates as, where it did as one.
    pub group: Option<&'a str>,
}

/// The first hook that a request meets.
pub fn first_match<'h>(hooks: &'h [Hook], asked: &Asked<'_>) -> Option<&'h Hook> {
    hooks.iter().find(|hook| hook.meets(asked))
}

impl Hook {
    fn meets(&self, asked: &Asked<'_>) -> bool {
        let Match {
            methods,
            path,
            headers,
        } = &self.matches;
        let group = |name: &String| asked.group == Some(name);
        (methods.is_empty() || methods.iter().any(|method| method == asked.method))
            && (self.groups.is_empty() || self.groups.iter().any(group))
            && path.as_deref().is_none_or(|path| fits(path, asked.path))
            && headers.iter().all(|(name, pattern)| {
                (asked.header)(name).is_some_and(|value| fits(&pattern.replace('*', "**"), value))
            })
    }
}

/// One step of a pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Byte(u8),
    /// Any bytes but `/`.
    Segment,
    /// Any bytes.
    Rest,
}

/// Whether a text fits a pattern. All places in the pattern that the text so far leads to are
/// kept, so the work is bounded by the product of both lengths, whatever the stars.
pub fn fits(pattern: &str, text: &str) -> bool {
    let mut steps = Vec::with_capacity(pattern.len());
    let mut bytes = pattern.bytes().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'*' {
            steps.push(Step::Byte(byte));
            continue;
        }
        let mut stars = 1;
        while bytes.next_if_eq(&b'*').is_some() {
            stars += 1;
        }
        steps.push(if stars > 1 { Step::Rest } else { Step::Segment });
    }
    // A star may stand for nothing: whoever is before it is behind it, too.
    let spread = |places: &mut Vec<bool>| {
        for at in 0..steps.len() {
            if places[at] && !matches!(steps[at], Step::Byte(_)) {
                places[at + 1] = true;
            }
        }
    };
    let mut places = vec![false; steps.len() + 1];
    places[0] = true;
    spread(&mut places);
    let mut next = vec![false; steps.len() + 1];
    for byte in text.bytes() {
        next.fill(false);
        for (at, step) in steps.iter().enumerate().filter(|(at, _)| places[*at]) {
            match step {
                Step::Byte(wanted) => next[at + 1] |= *wanted == byte,
                Step::Segment => next[at] |= byte != b'/',
                Step::Rest => next[at] = true,
            }
        }
        spread(&mut next);
        std::mem::swap(&mut places, &mut next);
    }
    places[steps.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_are_globs() {
        for (pattern, text, want) in [
            ("/", "/", true),
            ("/a", "/a", true),
            ("/a", "/a/", false),
            ("/a", "/A", false),
            ("/a*", "/abc", true),
            ("/a*", "/abc/d", false),
            ("/a/*", "/a/", true),
            ("/a/*/c", "/a/b/c", true),
            ("/a/*/c", "/a/b/b/c", false),
            ("/a/**/c", "/a/b/b/c", true),
            ("/a/**", "/a/", true),
            ("/a/**", "/a", false),
            ("/a**", "/a", true),
            ("**", "", true),
            ("*", "/", false),
            ("**.png", "/x/y.png", true),
            ("*.png", "/y.png", false),
            ("/*.png", "/y.png", true),
            ("", "", true),
            ("", "/", false),
            ("/[a].?", "/[a].?", true),
            ("/ü*", "/üx", true),
        ] {
            assert_eq!(fits(pattern, text), want, "{pattern} {text}");
        }
        // Stars after stars cost no more than others.
        let hostile = "*a".repeat(PATTERN_BYTES / 2);
        assert!(!fits(&hostile, &"a".repeat(PATTERN_BYTES / 2 - 1)));
        assert!(fits(&hostile, &"a".repeat(PATTERN_BYTES / 2)));
    }

    proptest! {
        #[test]
        fn a_text_fits_itself_and_anything_fits_two_stars(text in "[a-z/.]{0,20}", cut in 0..20_usize) {
            prop_assert!(fits(&text, &text));
            prop_assert!(fits("**", &text));
            let cut = cut.min(text.len());
            let holed = format!("{}**{}", &text[..cut], &text[cut..]);
            prop_assert!(fits(&holed, &text));
            prop_assert!(!fits(&text, &(text.clone() + "!")));
        }
    }

    fn hook(id: &str, matches: Match) -> Hook {
        Hook {
            id: id.into(),
            matches,
            script: Script {
                subdomain: None,
                index: 1,
                path: "/hook".into(),
            },
            timeout: TIMEOUT_MS,
            groups: Vec::new(),
            on_error: OnError::Closed,
        }
    }

    #[test]
    fn the_first_that_is_met_wins() {
        let on = |methods: &[&str], path: Option<&str>| Match {
            methods: methods.iter().map(|&method| method.into()).collect(),
            path: path.map(Into::into),
            headers: BTreeMap::new(),
        };
        let hooks = vec![
            Hook {
                groups: vec!["staff".into()],
                ..hook("staff", on(&[], Some("/admin/**")))
            },
            hook("writes", on(&["POST", "PUT"], None)),
            hook("admin", on(&[], Some("/admin/**"))),
            hook(
                "agents",
                Match {
                    headers: BTreeMap::from([("user-agent".into(), "curl/*".into())]),
                    ..Match::default()
                },
            ),
        ];
        let ask = |method, path, agent: Option<&'static str>, group| {
            let header = |name: &str| agent.filter(|_| name == "user-agent");
            let asked = Asked {
                method,
                path,
                header: &header,
                group,
            };
            first_match(&hooks, &asked).map(|hook| hook.id.as_str())
        };
        assert_eq!(ask("GET", "/admin/x", None, Some("staff")), Some("staff"));
        assert_eq!(ask("GET", "/admin/x", None, Some("guests")), Some("admin"));
        assert_eq!(ask("GET", "/admin/x", None, None), Some("admin"));
        assert_eq!(ask("POST", "/admin/x", None, None), Some("writes"));
        assert_eq!(ask("GET", "/", Some("curl/8.0 a/b"), None), Some("agents"));
        assert_eq!(ask("GET", "/", Some("wget"), None), None);
        assert_eq!(ask("GET", "/", None, None), None);
        assert_eq!(
            first_match(
                &[],
                &Asked {
                    method: "GET",
                    path: "/",
                    header: &|_| None,
                    group: None
                }
            ),
            None
        );
    }

    #[test]
    fn it_is_kept_in_few_words() {
        let plain = hook("x", Match::default());
        let text = serde_json::to_string(&plain).expect("JSON");
        assert_eq!(serde_json::from_str::<Hook>(&text).expect("a hook"), plain);
        let least = r#"{"id":"x","script":{"index":1,"path":"/hook"},"timeout":30000}"#;
        assert_eq!(serde_json::from_str::<Hook>(least).expect("a hook"), plain);
    }
}
