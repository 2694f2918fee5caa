//! Code that is looked at and not run.

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::Exec;
use crate::directives::{self, Directives, WINDOW};
use crate::packages::Spec;

/// Look at a script in every way: can it be read, is what it asks for installed, what does it say of
/// itself.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Script {
    /// The code.
    code: String,
    /// `typescript` where not given, or `javascript`.
    language: Option<String>,
    /// `.ts` or `.js`, instead.
    extension: Option<String>,
}

/// What came of it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Looked {
    valid: bool,
    /// `{syntax, typescript, dependencies, magicComments, magicCommentWarnings, normalized, transformations}`.
    results: Value,
    message: String,
}

impl Operation for Script {
    const ROUTE: Route = Route::post("/api/v1/exec/validate/script")
        .named("validateScript")
        .cli("exec validate script");
    type Service = Exec;
    type Reply = Looked;

    async fn run(self, exec: Exec, _: Call) -> Result<Looked, Fault> {
        let plain = self.language.as_deref() == Some("javascript")
            || self
                .extension
                .as_deref()
                .is_some_and(|it| it.ends_with("js"));
        let path = if plain { "code.js" } else { "code.ts" };
        let analysis = exec.analyze(&self.code, path, None).await?;
        let syntax = match &analysis.syntax {
            None => json!({ "valid": true, "message": "the syntax is valid" }),
            Some(why) => json!({ "valid": false, "error": why }),
        };
        let typescript = match (&analysis.typescript, &analysis.javascript, plain) {
            (_, _, true) => Value::Null,
            (Some(why), ..) => json!({ "valid": false, "error": why }),
            (None, made, _) => {
                json!({ "valid": true, "transpiledLength": made.as_ref().map_or(0, String::len) })
            }
        };
        let invalid: Vec<&String> = analysis
            .packages
            .iter()
            .filter(|name| !Spec::read(name).is_ok_and(|spec| spec.version.is_none()))
            .collect();
        let missing: Vec<&String> = analysis
            .packages
            .iter()
            .filter(|name| exec.installed(name).is_none())
            .collect();
        let read = Directives::read(&self.code);
        let valid = analysis.syntax.is_none() && missing.is_empty();
        Ok(Looked {
            valid,
            message: match (valid, &analysis.syntax) {
                (true, _) => "the script is valid".to_owned(),
                (false, Some(why)) => format!("the script cannot be read: {why}"),
                (false, None) => format!(
                    "{} packages are not installed; they are when the script first runs",
                    missing.len()
                ),
            },
            results: json!({
                "syntax": syntax,
                "typescript": typescript,
                "dependencies": {
                    "total": analysis.packages.len(),
                    "installed": analysis.packages.len() - missing.len(),
                    "missing": missing.len(),
                    "missingModules": missing,
                    "invalidModules": invalid,
                    "allInstalled": missing.is_empty(),
                },
                "magicComments": read.shown_or_null(),
                "magicCommentWarnings": read.warnings,
                "normalized": analysis.normalized,
                "transformations": analysis.transformations,
            }),
        })
    }
}

/// Say whether code can be read as JavaScript, or as TypeScript.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Syntax {
    /// The code.
    code: String,
}

/// Whether it can.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyntaxSeen {
    valid: bool,
    message: String,
    code_length: usize,
    normalized: bool,
    transformations: Vec<String>,
}

impl Operation for Syntax {
    const ROUTE: Route = Route::post("/api/v1/exec/validate/syntax")
        .named("validateSyntax")
        .cli("exec validate syntax");
    type Service = Exec;
    type Reply = SyntaxSeen;

    async fn run(self, exec: Exec, _: Call) -> Result<SyntaxSeen, Fault> {
        let analysis = exec.analyze(&self.code, "code.ts", None).await?;
        Ok(SyntaxSeen {
            valid: analysis.syntax.is_none(),
            message: analysis
                .syntax
                .unwrap_or_else(|| "the syntax is valid".to_owned()),
            code_length: self.code.len(),
            normalized: analysis.normalized,
            transformations: analysis.transformations,
        })
    }
}

/// Make JavaScript of TypeScript: types are removed, not checked.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct TypeScript {
    /// The code.
    code: String,
}

/// JavaScript.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transpiled {
    valid: bool,
    javascript: String,
    original_length: usize,
    transpiled_length: usize,
    normalized: bool,
    transformations: Vec<String>,
    message: &'static str,
}

impl Operation for TypeScript {
    const ROUTE: Route = Route::post("/api/v1/exec/validate/typescript")
        .named("validateTypeScript")
        .cli("exec validate types");
    type Service = Exec;
    type Reply = Transpiled;

    async fn run(self, exec: Exec, _: Call) -> Result<Transpiled, Fault> {
        let analysis = exec.analyze(&self.code, "code.ts", None).await?;
        if let Some(why) = analysis.typescript.or(analysis.syntax) {
            return Err(
                Fault::bad_request(format!("the code is no TypeScript: {why}"))
                    .code("INVALID_TYPESCRIPT"),
            );
        }
        let javascript = analysis.javascript.unwrap_or_default();
        Ok(Transpiled {
            valid: true,
            original_length: self.code.len(),
            transpiled_length: javascript.len(),
            javascript,
            normalized: analysis.normalized,
            transformations: analysis.transformations,
            message: "TypeScript validation successful",
        })
    }
}

/// Say which packages code asks for, and whether they are installed.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Dependencies {
    /// The code.
    code: String,
}

/// Packages of code.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DependenciesSeen {
    total_modules: usize,
    all_installed: bool,
    missing_count: usize,
    missing_modules: Vec<String>,
    /// `{name, installed, version}` each.
    dependencies: Vec<Value>,
    message: String,
    install_command: Option<String>,
}

impl Operation for Dependencies {
    const ROUTE: Route = Route::post("/api/v1/exec/validate/dependencies")
        .named("validateDependencies")
        .cli("exec validate dependencies");
    type Service = Exec;
    type Reply = DependenciesSeen;

    async fn run(self, exec: Exec, _: Call) -> Result<DependenciesSeen, Fault> {
        let analysis = exec.analyze(&self.code, "code.ts", None).await?;
        if let Some(why) = analysis.syntax {
            return Err(
                Fault::bad_request(format!("the code cannot be read: {why}")).code("INVALID_CODE"),
            );
        }
        let mut missing = Vec::new();
        let mut dependencies = Vec::new();
        for name in analysis.packages {
            let version = exec.installed(&name);
            dependencies
                .push(json!({ "name": name, "installed": version.is_some(), "version": version }));
            if version.is_none() {
                missing.push(name);
            }
        }
        Ok(DependenciesSeen {
            total_modules: dependencies.len(),
            all_installed: missing.is_empty(),
            missing_count: missing.len(),
            message: match (dependencies.len(), missing.len()) {
                (0, _) => "the code asks for no packages".to_owned(),
                (_, 0) => "all are installed".to_owned(),
                (_, many) => {
                    format!("{many} are not installed; they are when the script first runs")
                }
            },
            install_command: (!missing.is_empty()).then(|| {
                format!(
                    "hoody exec packages add-modules --modules {}",
                    missing.join(",")
                )
            }),
            missing_modules: missing,
            dependencies,
        })
    }
}

/// Say what a script says of itself.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct MagicComments {
    /// The code.
    code: String,
}

/// A type that a script says it returns.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReturnTypeSeen {
    definition: String,
    mode: &'static str,
    location: String,
}

/// What a script says.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MagicSeen {
    magic_comments: Option<Map<String, Value>>,
    warnings: Vec<directives::Warning>,
    /// `type Return = …` among its first lines.
    return_type: Option<ReturnTypeSeen>,
    message: String,
}

impl Operation for MagicComments {
    const ROUTE: Route = Route::post("/api/v1/exec/validate/magic-comments")
        .named("validateMagicComments")
        .cli("exec validate magic-comments");
    type Service = Exec;
    type Reply = MagicSeen;

    async fn run(self, _: Exec, _: Call) -> Result<MagicSeen, Fault> {
        let read = Directives::read(&self.code);
        let shown = read.shown();
        Ok(MagicSeen {
            message: match (shown.len(), read.warnings.len()) {
                (0, 0) => "the script says nothing of itself".to_owned(),
                (many, 0) => format!("{many} directives count"),
                (many, some) => {
                    format!("{many} directives count, {some} do not as they are written")
                }
            },
            magic_comments: (!shown.is_empty()).then_some(shown),
            warnings: read.warnings,
            return_type: return_type(&self.code),
        })
    }
}

fn return_type(code: &str) -> Option<ReturnTypeSeen> {
    code.lines()
        .take(WINDOW)
        .enumerate()
        .find_map(|(at, line)| {
            let line = line.trim();
            let line = line.strip_prefix("export ").unwrap_or(line);
            let definition = line
                .strip_prefix("type Return =")
                .or_else(|| line.strip_prefix("type ReturnType ="))?;
            Some(ReturnTypeSeen {
                definition: definition.trim().trim_end_matches(';').to_owned(),
                mode: "type",
                location: format!("line {}", at + 1),
            })
        })
}

/// Hold a value against a type: primitives, literals, arrays, tuples, objects, unions, intersections,
/// `Record`, `Array`, `Promise`, `Partial`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReturnType {
    /// The type: `{ id: number; name?: string }[]`.
    type_definition: String,
    /// The value.
    value: Value,
}

/// Whether it fits.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    valid: bool,
    /// `{path, expected, actual, message}` each.
    errors: Vec<Map<String, Value>>,
    type_definition: String,
    parsed_type: Map<String, Value>,
    message: String,
}

impl Operation for ReturnType {
    const ROUTE: Route = Route::post("/api/v1/exec/validate/return-type")
        .named("validateReturnType")
        .cli("exec validate return-type");
    type Service = Exec;
    type Reply = Held;

    async fn run(self, exec: Exec, _: Call) -> Result<Held, Fault> {
        let answer = exec
            .hold_against_type(&self.type_definition, &self.value)
            .await?;
        let errors: Vec<Map<String, Value>> =
            serde_json::from_value(answer["errors"].clone()).unwrap_or_default();
        Ok(Held {
            valid: errors.is_empty(),
            message: match errors.len() {
                0 => "the value fits".to_owned(),
                many => format!("the value does not fit in {many} places"),
            },
            errors,
            type_definition: self.type_definition,
            parsed_type: answer["type"].as_object().cloned().unwrap_or_default(),
        })
    }
}
