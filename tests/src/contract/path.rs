//! Paths and their templates.

/// A path template, cut into segments.
#[derive(Debug)]
pub(super) struct Template(Vec<Segment>);

#[derive(Debug, PartialEq)]
enum Segment {
    Literal(String),
    Parameter,
}

/// How well a path fits a template: for each segment, whether it is the template's own word. Of
/// two templates the one whose words come first fits better.
pub(super) type Fit = Vec<bool>;

impl Template {
    pub(super) fn parse(path: &str) -> Template {
        let segment = |text: &str| {
            // Four paths of the contract write a parameter as `:name`.
            let is_braced = text.starts_with('{') && text.ends_with('}');
            if is_braced || (text.starts_with(':') && text.len() > 1) {
                Segment::Parameter
            } else {
                Segment::Literal(text.to_owned())
            }
        };
        Template(segments(path).map(segment).collect())
    }

    /// How a path fits, if it does. Where a namespace's last parameter is a path of its own it
    /// takes all segments that are left.
    pub(super) fn fit(&self, path: &str, goes_on: bool) -> Option<Fit> {
        let given: Vec<&str> = segments(path).collect();
        let rest = goes_on && self.0.last() == Some(&Segment::Parameter);
        if given.len() < self.0.len() || (given.len() > self.0.len() && !rest) {
            return None;
        }
        let fit = self
            .0
            .iter()
            .zip(&given)
            .map(|(segment, text)| match segment {
                Segment::Literal(word) => (word == text).then_some(true),
                Segment::Parameter => Some(false),
            });
        fit.collect()
    }

    /// Whether another template, whatever its parameters are called, is this one.
    pub(super) fn is(&self, template: &str) -> bool {
        Template::parse(template).0 == self.0
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.trim_matches('/').split('/')
}

/// Whether the last parameter of a path is itself a path in this namespace.
pub(super) fn goes_on(namespace: &str) -> bool {
    matches!(namespace, "files" | "pipe" | "exec" | "code")
}

/// Whether a query string has what a selector asks for.
pub(super) fn selects(selector: &str, query: &str) -> bool {
    let pairs = query
        .split('&')
        .map(|part| part.split_once('=').unwrap_or((part, "")));
    let has = |key: &str, fits: &dyn Fn(&str) -> bool| {
        // clients repeat a selector: `?extract=&extract=a.txt`; the value that is not empty counts
        let values: Vec<_> = pairs.clone().filter(|(name, _)| *name == key).collect();
        let value = values
            .iter()
            .map(|(_, value)| *value)
            .find(|value| !value.is_empty());
        !values.is_empty() && fits(value.unwrap_or_default())
    };
    match selector {
        // two labels: on the wire the key carries the file, or nothing where all is meant
        "extract" | "preview" => has(selector, &str::is_empty),
        "extract_file" => has("extract", &|value| !value.is_empty()),
        "view_file" => has("preview", &|value| !value.is_empty()),
        _ => match selector.split_once('=') {
            Some((key, wanted)) => has(key, &|value| value == wanted),
            None => has(selector, &|_| true),
        },
    }
}
