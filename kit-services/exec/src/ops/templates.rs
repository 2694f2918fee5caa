//! Scripts to begin with.

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{deployment, needed, object, scoped};
use crate::Exec;
use crate::root::Over;
use crate::templates::{Meta, Template, fill};

/// List templates.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct List {
    /// Only of this category: `api`, `utility`, `custom`.
    category: Option<String>,
    /// Those that come with the service.
    #[serde(default = "yes")]
    include_builtin: bool,
    /// Those that people keep.
    #[serde(default = "yes")]
    include_custom: bool,
}

fn yes() -> bool {
    true
}

/// A template in a list.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Listed {
    name: String,
    /// `builtin` or `custom`.
    #[serde(rename = "type")]
    kind: &'static str,
    metadata: Meta,
}

/// Templates.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Templates {
    count: usize,
    templates: Vec<Listed>,
}

impl Operation for List {
    const ROUTE: Route = Route::get("/api/v1/exec/templates/list")
        .named("listTemplates")
        .cli("exec templates list");
    type Service = Exec;
    type Reply = Templates;

    async fn run(self, exec: Exec, _: Call) -> Result<Templates, Fault> {
        let wanted = self.category.filter(|category| !category.is_empty());
        let templates: Vec<Listed> = exec
            .templates(self.include_builtin, self.include_custom)?
            .into_iter()
            .filter(|it| {
                wanted
                    .as_ref()
                    .is_none_or(|wanted| it.meta.category == *wanted)
            })
            .map(|it| Listed {
                name: it.meta.name.clone(),
                kind: if it.built_in { "builtin" } else { "custom" },
                metadata: it.meta,
            })
            .collect();
        Ok(Templates {
            count: templates.len(),
            templates,
        })
    }
}

/// Show what a template becomes.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Preview {
    /// Its name.
    name: String,
    /// Values of its variables: the text of an object.
    variables: Option<String>,
}

/// A template and what it becomes.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    name: String,
    metadata: Meta,
    code: String,
    original_code: String,
    substituted: bool,
}

/// A preview.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Previewed {
    template: Shown,
}

impl Operation for Preview {
    const ROUTE: Route = Route::get("/api/v1/exec/templates/preview")
        .named("previewTemplate")
        .cli("exec templates preview");
    type Service = Exec;
    type Reply = Previewed;

    async fn run(self, exec: Exec, _: Call) -> Result<Previewed, Fault> {
        let values = object(&json!(self.variables), "variables")?;
        let Template { meta, code, .. } = exec.template(&self.name)?;
        let filled = fill(&code, &values)?;
        Ok(Previewed {
            template: Shown {
                name: meta.name.clone(),
                metadata: meta,
                substituted: filled != code,
                code: filled,
                original_code: code,
            },
        })
    }
}

/// Make a script of a template.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Generate {
    /// Its name.
    name: String,
    /// Values of its variables.
    #[serde(default)]
    #[schemars(with = "Option<Map<String, Value>>")]
    variables: Value,
    /// Where to save it, below the scripts of the host.
    output_path: Option<String>,
    /// Save it.
    #[serde(default)]
    save_file: bool,
}

/// What was made.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Generated {
    generated: bool,
    template: String,
    code: String,
    saved: bool,
    path: Option<String>,
    variables: Map<String, Value>,
}

impl Operation for Generate {
    const ROUTE: Route = Route::post("/api/v1/exec/templates/generate")
        .named("generateFromTemplate")
        .cli("exec templates generate");
    type Service = Exec;
    type Reply = Generated;

    async fn run(self, exec: Exec, call: Call) -> Result<Generated, Fault> {
        let variables = object(&self.variables, "variables")?;
        let template = exec.template(&self.name)?;
        let code = fill(&template.code, &variables)?;
        let path = match (self.save_file, &self.output_path) {
            (false, _) => None,
            (true, path) => {
                let usual = format!("{}.ts", template.meta.name);
                let text = path
                    .as_deref()
                    .filter(|path| !path.is_empty())
                    .unwrap_or(&usual);
                let path = scoped(&exec, &deployment(&call, [None, None], None)?, text)?;
                needed(&path)?;
                exec.root().make().map_err(|error| {
                    Fault::internal(format!("the directory of scripts cannot be made: {error}"))
                })?;
                exec.root().make_directory(&path.parent())?;
                exec.root().write(&path, code.as_bytes(), Over::Keep)?;
                exec.reschedule(&path, Some(&code));
                Some(path.to_string())
            }
        };
        Ok(Generated {
            generated: true,
            template: template.meta.name,
            code,
            saved: path.is_some(),
            path,
            variables,
        })
    }
}

/// Keep a template of your own.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Create {
    /// Letters, digits, dots, hyphens and underscores, at most 64.
    name: String,
    /// The code; `{{name}}` stands for a variable.
    code: String,
    /// Category, tags, description, params, version, author.
    #[serde(default)]
    metadata: Option<Meta>,
}

/// A template that is kept.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Created {
    created: bool,
    name: String,
    path: String,
    metadata: Meta,
}

impl Operation for Create {
    const ROUTE: Route = Route::post("/api/v1/exec/templates/create-custom")
        .named("createCustomTemplate")
        .cli("exec templates create");
    type Service = Exec;
    type Reply = Created;

    async fn run(self, exec: Exec, _: Call) -> Result<Created, Fault> {
        let meta = Meta {
            name: self.name.clone(),
            ..self.metadata.unwrap_or_default()
        };
        let path = exec.keep_template(&meta, &self.code, Over::Keep)?;
        Ok(Created {
            created: true,
            name: self.name,
            path: path.to_string(),
            metadata: meta,
        })
    }
}

/// The name in the path; clients of the usual kind send `:name` there, and the name in the query.
fn name_of(text: String, call: &Call) -> String {
    match text.starts_with(':') {
        false => text,
        true => {
            let query = kit::arguments::query_all(call.uri.query().unwrap_or_default());
            let said = query.into_iter().find(|(key, _)| key == "name");
            said.map(|(_, value)| value).unwrap_or_default()
        }
    }
}

/// Change a template of your own.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Update {
    /// Its name.
    name: String,
    /// The code; what is there where not given.
    code: Option<String>,
    /// What to change of category, tags, description, params, version, author.
    #[serde(default)]
    #[schemars(with = "Option<Map<String, Value>>")]
    metadata: Value,
}

/// A template that was changed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Updated {
    updated: bool,
    name: String,
    metadata: Meta,
}

impl Operation for Update {
    const ROUTE: Route = Route::put("/api/v1/exec/templates/update-custom/{name}")
        .named("updateCustomTemplate")
        .cli("exec templates update");
    type Service = Exec;
    type Reply = Updated;

    async fn run(self, exec: Exec, call: Call) -> Result<Updated, Fault> {
        let name = name_of(self.name, &call);
        let before = exec.template(&name)?;
        let mut meta = json!(before.meta);
        for (key, value) in object(&self.metadata, "metadata")? {
            meta[key] = value;
        }
        let mut meta: Meta = serde_json::from_value(meta).map_err(|error| {
            Fault::bad_request(format!("the metadata cannot be read: {error}"))
                .code("VALIDATION_ERROR")
        })?;
        meta.name.clone_from(&name);
        let code = self.code.unwrap_or(before.code);
        exec.keep_template(&meta, &code, Over::Replace)?;
        Ok(Updated {
            updated: true,
            name,
            metadata: meta,
        })
    }
}

/// Remove a template of your own.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Delete {
    /// Its name.
    name: String,
}

/// A template that was removed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Deleted {
    deleted: bool,
    name: String,
}

impl Operation for Delete {
    const ROUTE: Route = Route::delete("/api/v1/exec/templates/delete-custom/{name}")
        .named("deleteCustomTemplate")
        .cli("exec templates delete");
    type Service = Exec;
    type Reply = Deleted;

    async fn run(self, exec: Exec, call: Call) -> Result<Deleted, Fault> {
        let name = name_of(self.name, &call);
        exec.remove_template(&name)?;
        Ok(Deleted {
            deleted: true,
            name,
        })
    }
}
