//! Paths into JSON documents: `prefs.theme`, `items[0].name`, `items.0.name`, `$.a["b.c"]`.

use kit::Fault;
use serde_json::{Map, Value};

/// Steps of a path, at most.
const DEEPEST: usize = 64;

/// A path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// A member, or a number that is an index where there is a list.
    Name(String),
    Index(usize),
}

fn wrong(message: &str) -> Fault {
    Fault::bad_request(format!("invalid parameter `path`: {message}")).code("INVALID_PATH")
}

impl Path {
    /// Read one; the empty path and `$` are the whole document.
    pub fn parse(text: &str) -> Result<Path, Fault> {
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        let mut first = true;
        while !rest.is_empty() {
            if steps.len() == DEEPEST {
                return Err(wrong(&format!("it has at most {DEEPEST} steps")));
            }
            if let Some(inside) = rest.strip_prefix('[') {
                let (step, after) = bracket(inside)?;
                steps.push(step);
                rest = after;
            } else {
                let name = match rest.strip_prefix('.') {
                    Some(after) => after,
                    None if first => rest,
                    None => return Err(wrong("steps are parted by dots: a.b[0]")),
                };
                let end = name.find(['.', '[']).unwrap_or(name.len());
                if end == 0 {
                    return Err(wrong("a step is empty; write a.b[0]"));
                }
                steps.push(Step::Name(name[..end].to_owned()));
                rest = &name[end..];
            }
            first = false;
        }
        Ok(Path(steps))
    }

    /// What is there.
    pub fn get<'v>(&self, document: &'v Value) -> Option<&'v Value> {
        self.0
            .iter()
            .try_fold(document, |value, step| match (value, step) {
                (Value::Object(members), Step::Name(name)) => members.get(name),
                (Value::Array(items), step) => items.get(step.index()?),
                _ => None,
            })
    }

    /// Put something there; objects on the way are made where there is nothing.
    pub fn set(&self, document: &mut Value, new: Value) -> Result<(), Fault> {
        *self.place(document)? = new;
        Ok(())
    }

    /// The place it leads to, made where there is nothing.
    pub fn place<'v>(&self, document: &'v mut Value) -> Result<&'v mut Value, Fault> {
        let mut here = document;
        for step in &self.0 {
            if here.is_null() {
                *here = match step {
                    Step::Name(_) => Value::Object(Map::new()),
                    Step::Index(_) => Value::Array(Vec::new()),
                };
            }
            here = match here {
                Value::Object(members) => match step {
                    Step::Name(name) => members.entry(name.clone()).or_insert(Value::Null),
                    Step::Index(index) => {
                        return Err(leads_nowhere(&format!("[{index}] of an object")));
                    }
                },
                Value::Array(items) => {
                    let index = step
                        .index()
                        .ok_or_else(|| leads_nowhere(&format!("`{}` of a list", step.text())))?;
                    if index > items.len() {
                        return Err(leads_nowhere(&format!(
                            "[{index}] of a list of {}",
                            items.len()
                        )));
                    }
                    if index == items.len() {
                        items.push(Value::Null);
                    }
                    &mut items[index]
                }
                _ => {
                    return Err(leads_nowhere(&format!(
                        "`{}` of a plain value",
                        step.text()
                    )));
                }
            };
        }
        Ok(here)
    }
}

fn leads_nowhere(what: &str) -> Fault {
    Fault::conflict(format!("the path leads to {what}")).code("PATH_CONFLICT")
}

impl Step {
    fn index(&self) -> Option<usize> {
        match self {
            Step::Index(index) => Some(*index),
            Step::Name(name) => name.parse().ok(),
        }
    }
    fn text(&self) -> String {
        match self {
            Step::Index(index) => format!("[{index}]"),
            Step::Name(name) => name.clone(),
        }
    }
}

/// What stands in brackets, and what comes after them.
fn bracket(inside: &str) -> Result<(Step, &str), Fault> {
    if inside.starts_with('"') {
        // as JSON has it
        let mut names = serde_json::Deserializer::from_str(inside).into_iter::<String>();
        let name = match names.next() {
            Some(Ok(name)) => name,
            _ => return Err(wrong("a name in brackets is a JSON string: a[\"b.c\"]")),
        };
        let rest = &inside[names.byte_offset()..];
        return match rest.strip_prefix(']') {
            Some(after) => Ok((Step::Name(name), after)),
            None => Err(wrong("a bracket is not closed")),
        };
    }
    let (digits, after) = inside
        .split_once(']')
        .ok_or_else(|| wrong("a bracket is not closed"))?;
    let index = digits
        .parse()
        .map_err(|_| wrong("in brackets stands an index, or a name in quotes"))?;
    Ok((Step::Index(index), after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_into_documents() {
        let document = json!({ "prefs": { "theme": "dark", "a.b": 1 }, "items": [{ "n": 1 }, 2], "0": "zero" });
        for (path, want) in [
            ("prefs.theme", json!("dark")),
            ("$.prefs.theme", json!("dark")),
            ("prefs[\"a.b\"]", json!(1)),
            ("items[0].n", json!(1)),
            ("items.0.n", json!(1)),
            ("$.items[1]", json!(2)),
            ("0", json!("zero")),
            ("", document.clone()),
            ("$", document.clone()),
        ] {
            assert_eq!(
                Path::parse(path).unwrap().get(&document),
                Some(&want),
                "{path}"
            );
        }
        for path in [
            "nothing",
            "items[2]",
            "items.x",
            "prefs.theme.x",
            "prefs[0]",
        ] {
            assert_eq!(Path::parse(path).unwrap().get(&document), None, "{path}");
        }
        for path in [
            "a..b",
            ".",
            "a.",
            "a[",
            "a[x]",
            "a[-1]",
            "a[\"b]",
            "[0]x",
            &"a.".repeat(99),
        ] {
            Path::parse(path).unwrap_err();
        }
    }

    #[test]
    fn what_is_set_is_there() {
        let mut document = json!({});
        Path::parse("a.b[0].c")
            .unwrap()
            .set(&mut document, json!(1))
            .unwrap();
        assert_eq!(document, json!({ "a": { "b": [{ "c": 1 }] } }));
        for path in ["a[0]", "a.b[2]", "a.b.x", "a.b[0].c.d"] {
            let fault = Path::parse(path)
                .unwrap()
                .set(&mut document, json!(1))
                .unwrap_err();
            assert_eq!(fault.status, 409, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_parses_can_be_set_and_read_back(text in "[a-c0-2.\\[\\]\"$]{0,12}") {
            if let Ok(path) = Path::parse(&text) {
                let mut document = Value::Null;
                if path.set(&mut document, json!(7)).is_ok() {
                    proptest::prop_assert_eq!(path.get(&document), Some(&json!(7)));
                }
            }
        }
    }
}
