//! Exact name, wildcard, none.

use std::borrow::Cow;
use std::collections::HashMap;

/// Things found by hostname. A pattern is a name, or `*.` and a name; the star stands for exactly
/// one label (RFC 9525, section 6.3).
#[derive(Debug, Clone)]
pub struct Names<T> {
    exact: HashMap<Box<str>, T>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, T>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Names {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
        }
    }
}

impl<T> Names<T> {
    /// Let `pattern` lead to `thing`, whatever it led to before.
    pub fn insert(&mut self, pattern: &str, thing: T) {
        let pattern = canonical(pattern);
        match pattern.strip_prefix("*.") {
            Some(parent) => self.wildcard.insert(parent.into(), thing),
            None => self.exact.insert(pattern.into(), thing),
        };
    }

    /// What `host` leads to: its own entry before that of the wildcard above it.
    pub fn find(&self, host: &str) -> Option<&T> {
        let host = canonical(host);
        self.exact.get(&*host).or_else(|| {
            let (label, parent) = host.split_once('.')?;
            (!label.is_empty()).then(|| self.wildcard.get(parent))?
        })
    }

    pub fn len(&self) -> usize {
        self.exact.len() + self.wildcard.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Lower case, without the dot of the root. Allocates only where there is something to change.
pub(crate) fn canonical(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(patterns: &[&str]) -> Names<String> {
        let mut names = Names::default();
        for pattern in patterns {
            names.insert(pattern, (*pattern).to_owned());
        }
        names
    }

    #[test]
    fn exact_then_wildcard_then_none() {
        let names = names(&["api.a.test", "*.api.a.test", "x.api.a.test", "*.Upper.test"]);
        for (host, expected) in [
            ("api.a.test", Some("api.a.test")),
            ("API.A.TEST", Some("api.a.test")),
            ("api.a.test.", Some("api.a.test")),
            ("x.api.a.test", Some("x.api.a.test")),
            ("y.api.a.test", Some("*.api.a.test")),
            ("z.y.api.a.test", None),
            (".api.a.test", None),
            ("a.test", None),
            ("", None),
            (".", None),
            ("*.api.a.test", Some("*.api.a.test")),
            ("q.upper.test", Some("*.Upper.test")),
            ("upper.test", None),
        ] {
            assert_eq!(names.find(host).map(String::as_str), expected, "{host}");
        }
    }

    fn label() -> impl Strategy<Value = String> {
        "[a-c]{1,2}"
    }

    fn host() -> impl Strategy<Value = String> {
        proptest::collection::vec(label(), 1..5).prop_map(|labels| labels.join("."))
    }

    fn pattern() -> impl Strategy<Value = String> {
        (any::<bool>(), host())
            .prop_map(|(star, host)| if star { format!("*.{host}") } else { host })
    }

    /// What the words at the top say, without maps.
    fn oracle<'p>(patterns: &'p [String], host: &str) -> Option<&'p String> {
        let exact = patterns.iter().find(|pattern| *pattern == host);
        exact.or_else(|| {
            patterns.iter().find(|pattern| {
                let labels: Vec<&str> = host.split('.').collect();
                let wanted: Vec<&str> = pattern.split('.').collect();
                wanted[0] == "*" && labels.len() == wanted.len() && labels[1..] == wanted[1..]
            })
        })
    }

    proptest! {
        #[test]
        fn lookup_agrees_with_the_words(patterns in proptest::collection::vec(pattern(), 0..12), host in host()) {
            let mut names = Names::default();
            for pattern in &patterns {
                names.insert(pattern, pattern.clone());
            }
            prop_assert_eq!(names.find(&host), oracle(&patterns, &host));
        }

        #[test]
        fn case_and_the_last_dot_never_matter(patterns in proptest::collection::vec(pattern(), 0..12), host in host()) {
            let mut names = Names::default();
            for pattern in &patterns {
                names.insert(pattern, pattern.clone());
            }
            let found = names.find(&host);
            let loud = format!("{}.", host.to_ascii_uppercase());
            prop_assert_eq!(names.find(&loud), found);
        }

        #[test]
        fn no_text_panics(host in ".{0,300}") {
            names(&["*.a", "b.c"]).find(&host);
        }
    }
}
