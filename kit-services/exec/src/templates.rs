//! Scripts to begin with: those that come with the service, and those that people keep.
//!
//! A template says what it is in lines `// @template name=value`, which do not become part of what
//! is made from it; `{{name}}` stands for a variable.

use std::collections::BTreeMap;

use kit::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Exec;
use crate::place::{RelPath, shorten};
use crate::root::Over;

/// Templates that people keep.
const TEMPLATES: usize = 500;
/// Largest template.
const TEMPLATE_BYTES: usize = 1 << 20;
/// Longest value of a variable.
const VALUE_BYTES: usize = 64 << 10;
const MARK: &str = "// @template ";

const BUILT_IN: &[(&str, &str)] = &[
    ("hello", include_str!("../templates/hello.ts")),
    ("rest", include_str!("../templates/rest.ts")),
    ("webhook", include_str!("../templates/webhook.ts")),
    ("sse", include_str!("../templates/sse.ts")),
    ("room", include_str!("../templates/room.ts")),
    ("schedule", include_str!("../templates/schedule.ts")),
    ("self-writing", include_str!("../templates/self-writing.ts")),
];

/// What a template says of itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Meta {
    pub name: String,
    pub category: String,
    pub tags: Vec<String>,
    pub description: String,
    /// Names of its variables.
    pub params: Vec<String>,
    pub version: String,
    pub author: String,
}

impl Default for Meta {
    fn default() -> Self {
        Meta {
            name: String::new(),
            category: "custom".to_owned(),
            tags: Vec::new(),
            description: "Custom template".to_owned(),
            params: Vec::new(),
            version: "1.0.0".to_owned(),
            author: "User".to_owned(),
        }
    }
}

/// A template.
#[derive(Clone, Debug)]
pub struct Template {
    pub meta: Meta,
    /// The code, its variables in it.
    pub code: String,
    pub built_in: bool,
}

fn read(name: &str, text: &str, built_in: bool) -> Template {
    let mut meta = Meta {
        name: name.to_owned(),
        author: if built_in { "hoody" } else { "User" }.to_owned(),
        ..Meta::default()
    };
    let mut code = String::new();
    let list = |text: &str| -> Vec<String> {
        text.split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    for line in text.split_inclusive('\n') {
        let Some((key, value)) = line
            .strip_prefix(MARK)
            .and_then(|rest| rest.split_once('='))
        else {
            code.push_str(line);
            continue;
        };
        let value = value.trim();
        match key {
            "category" => meta.category = value.to_owned(),
            "tags" => meta.tags = list(value),
            "description" => meta.description = value.to_owned(),
            "params" => meta.params = list(value),
            "version" => meta.version = value.to_owned(),
            "author" => meta.author = value.to_owned(),
            _ => {}
        }
    }
    Template {
        meta,
        code,
        built_in,
    }
}

fn write(meta: &Meta, code: &str) -> String {
    let one = |text: &str| text.replace(['\n', '\r'], " ");
    let mut text = String::new();
    for (key, value) in [
        ("category", one(&meta.category)),
        ("tags", one(&meta.tags.join(","))),
        ("description", one(&meta.description)),
        ("params", one(&meta.params.join(","))),
        ("version", one(&meta.version)),
        ("author", one(&meta.author)),
    ] {
        text.push_str(&format!("{MARK}{key}={value}\n"));
    }
    text.push_str(code);
    text
}

fn directory() -> RelPath {
    RelPath::default().join("_hoody/templates")
}

/// The name of a template that people keep.
pub fn name(text: &str) -> Result<String, Fault> {
    const NAME_BYTES: usize = 64;
    let fine = text.len() <= NAME_BYTES
        && text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric())
        && !text.contains("..")
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    match fine {
        true => Ok(text.to_owned()),
        false => Err(Fault::bad_request(format!(
            "`{}` is no name of a template: letters, digits, dots, hyphens and underscores, at most {NAME_BYTES}",
            shorten(text)
        ))
        .code("INVALID_TEMPLATE_NAME")),
    }
}

/// Put values in the place of variables. Those without a value, by name.
pub fn fill(code: &str, values: &Map<String, Value>) -> Result<String, Fault> {
    let mut made = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("{{") {
        made.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = inner.find("}}").filter(|end| {
            *end > 0
                && inner[..*end]
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        });
        match end.and_then(|end| Some((end, values.get(&inner[..end])?))) {
            Some((end, value)) => {
                let text = match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                if text.len() > VALUE_BYTES {
                    return Err(Fault::bad_request(format!(
                        "the value of `{}` is longer than {VALUE_BYTES} bytes",
                        &inner[..end]
                    ))
                    .code("INVALID_VARIABLE"));
                }
                made.push_str(&text);
                rest = &inner[end + 2..];
            }
            None => {
                made.push_str("{{");
                rest = inner;
            }
        }
    }
    made.push_str(rest);
    Ok(made)
}

impl Exec {
    /// Every template, by name.
    pub fn templates(&self, built_in: bool, own: bool) -> Result<Vec<Template>, Fault> {
        let mut all = BTreeMap::new();
        if built_in {
            for (name, text) in BUILT_IN {
                all.insert((*name).to_owned(), read(name, text, true));
            }
        }
        if own {
            for entry in self.root().list(&directory()).unwrap_or_default() {
                let Some(name) = entry.name.strip_suffix(".ts") else {
                    continue;
                };
                if let Ok((text, _)) = self.root().text(&directory().join(&entry.name)) {
                    all.insert(name.to_owned(), read(name, &text, false));
                }
            }
        }
        Ok(all.into_values().collect())
    }

    /// The template of this name.
    pub fn template(&self, wanted: &str) -> Result<Template, Fault> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == wanted) {
            return Ok(read(name, text, true));
        }
        let name = name(wanted)?;
        let (text, _) = self
            .root()
            .text(&directory().join(&format!("{name}.ts")))
            .map_err(|_| missing(&name))?;
        Ok(read(&name, &text, false))
    }

    /// Keep a template.
    pub fn keep_template(&self, meta: &Meta, code: &str, over: Over) -> Result<RelPath, Fault> {
        let name = name(&meta.name)?;
        if BUILT_IN.iter().any(|(built_in, _)| *built_in == name) {
            return Err(Fault::conflict(format!(
                "the template `{name}` comes with the service; choose another name"
            ))
            .code("TEMPLATE_BUILT_IN"));
        }
        if code.len() > TEMPLATE_BYTES {
            return Err(
                Fault::too_large(format!("a template has {TEMPLATE_BYTES} bytes at most"))
                    .code("TEMPLATE_TOO_LARGE"),
            );
        }
        let path = directory().join(&format!("{name}.ts"));
        let there = self.root().file(&path).is_some();
        match over {
            Over::Replace if !there => return Err(missing(&name)),
            Over::Keep if there => {
                return Err(
                    Fault::conflict(format!("there is a template `{name}` already"))
                        .code("TEMPLATE_EXISTS"),
                );
            }
            _ => {}
        }
        self.root().make().map_err(|error| {
            Fault::internal(format!("the directory of scripts cannot be made: {error}"))
        })?;
        self.root().make_directory(&directory())?;
        if !there && self.root().list(&directory())?.len() >= TEMPLATES {
            return Err(Fault::conflict(format!(
                "{TEMPLATES} templates are kept, which is the limit; delete some"
            ))
            .code("TOO_MANY_TEMPLATES"));
        }
        self.root()
            .write(&path, write(meta, code).as_bytes(), over)?;
        Ok(path)
    }

    /// Remove a template that people keep.
    pub fn remove_template(&self, wanted: &str) -> Result<(), Fault> {
        let name = name(wanted)?;
        if BUILT_IN.iter().any(|(built_in, _)| *built_in == name) {
            return Err(Fault::forbidden(format!(
                "the template `{name}` comes with the service and stays"
            ))
            .code("TEMPLATE_BUILT_IN"));
        }
        self.root()
            .remove(&directory().join(&format!("{name}.ts")))
            .map_err(|_| missing(&name))
    }
}

fn missing(name: &str) -> Fault {
    Fault::not_found(format!(
        "there is no template `{name}`; GET /api/v1/exec/templates/list has them"
    ))
    .code("TEMPLATE_NOT_FOUND")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_filled_and_nothing_else() {
        let values = json!({ "a": "x", "n": 5, "evil": "{{a}}" });
        let values = values.as_object().unwrap();
        for (code, want) in [
            ("{{a}}-{{n}}", "x-5"),
            ("{{missing}} {{a", "{{missing}} {{a"),
            ("{{evil}}", "{{a}}"),
            ("${{ a }}", "${{ a }}"),
        ] {
            assert_eq!(fill(code, values).unwrap(), want, "{code}");
        }
    }

    #[test]
    fn built_in_templates_say_what_they_are() {
        for (name, text) in BUILT_IN {
            let template = read(name, text, true);
            assert!(
                !template.meta.description.is_empty() && template.meta.category != "custom",
                "{name}"
            );
            assert!(!template.code.contains("@template"), "{name}");
            for param in &template.meta.params {
                assert!(
                    template.code.contains(&format!("{{{{{param}}}}}")),
                    "{name}: {param}"
                );
            }
            let again = read(name, &write(&template.meta, &template.code), false);
            assert_eq!(again.code, template.code);
        }
        assert!(name("../x").is_err() && name(".x").is_err() && name("a..b").is_err());
    }
}
