//! Packages of npm.

use std::collections::BTreeMap;

use kit::{Call, Fault, Operation, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{object, words};
use crate::Exec;
use crate::packages::{PACKAGES, Spec, is_version};

fn specs(texts: &[String]) -> Result<Vec<Spec>, Fault> {
    if texts.len() > PACKAGES {
        return Err(
            Fault::bad_request(format!("{PACKAGES} packages are named at once, at most"))
                .code("TOO_MANY_PACKAGES"),
        );
    }
    texts.iter().map(|text| Spec::read(text)).collect()
}

/// List the packages that scripts find without asking for them: those that are installed.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ListBundled;

/// A package that is installed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Package {
    name: String,
    version: Option<String>,
    available: bool,
}

/// Packages.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bundled {
    total: usize,
    packages: Vec<Package>,
    all_available: bool,
}

impl Operation for ListBundled {
    const ROUTE: Route = Route::get("/api/v1/exec/dependencies/bundled")
        .named("listBundledDependencies")
        .cli("exec packages list");
    type Service = Exec;
    type Reply = Bundled;

    async fn run(self, exec: Exec, _: Call) -> Result<Bundled, Fault> {
        let mut names: BTreeMap<String, Option<String>> = exec
            .all_installed()
            .into_iter()
            .map(|(name, version)| (name, Some(version)))
            .collect();
        for name in declared(&exec.package_json()?.unwrap_or_default(), "dependencies").into_keys()
        {
            names.entry(name).or_default();
        }
        let packages: Vec<Package> = names
            .into_iter()
            .map(|(name, version)| Package {
                available: version.is_some(),
                name,
                version,
            })
            .collect();
        Ok(Bundled {
            total: packages.len(),
            all_available: packages.iter().all(|package| package.available),
            packages,
        })
    }
}

/// Say which of some packages are installed.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct CheckDependencies {
    /// Code whose imports are looked at, where `modules` is not given.
    code: Option<String>,
    /// Packages.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    modules: Value,
}

/// Which are, and which are not.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Checked {
    total: usize,
    installed: Vec<String>,
    missing: Vec<String>,
    message: String,
    details: Vec<Package>,
}

impl Operation for CheckDependencies {
    const ROUTE: Route = Route::post("/api/v1/exec/dependencies/check")
        .named("checkDependencies")
        .cli("exec packages check");
    type Service = Exec;
    type Reply = Checked;

    async fn run(self, exec: Exec, _: Call) -> Result<Checked, Fault> {
        let named = words(&self.modules, "modules")?;
        let names: Vec<String> = match (named.is_empty(), self.code) {
            (false, _) => specs(&named)?.into_iter().map(|spec| spec.name).collect(),
            (true, Some(code)) => {
                let analysis = exec.analyze(&code, "code.ts", None).await?;
                if let Some(why) = analysis.syntax {
                    return Err(
                        Fault::bad_request(format!("the code cannot be read: {why}"))
                            .code("INVALID_CODE"),
                    );
                }
                analysis.packages
            }
            (true, None) => {
                return Err(Fault::bad_request("say what to look at: code, or modules")
                    .code("VALIDATION_ERROR"));
            }
        };
        let details: Vec<Package> = names
            .into_iter()
            .map(|name| {
                let version = exec.installed(&name);
                Package {
                    available: version.is_some(),
                    name,
                    version,
                }
            })
            .collect();
        let some = |available: bool| -> Vec<String> {
            let some = details.iter().filter(|it| it.available == available);
            some.map(|it| it.name.clone()).collect()
        };
        let (installed, missing) = (some(true), some(false));
        Ok(Checked {
            total: details.len(),
            message: match (details.len(), missing.len()) {
                (0, _) => "the code asks for no packages".to_owned(),
                (_, 0) => "all are installed".to_owned(),
                (_, many) => {
                    format!("{many} are not installed; they are when a script first asks for them")
                }
            },
            installed,
            missing,
            details,
        })
    }
}

/// Install packages, and wait for it.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct InstallDependencies {
    /// One package or several: `lodash`, `axios@1.2.3`.
    #[schemars(with = "Vec<String>")]
    modules: Value,
    /// Also those that are there.
    #[serde(default)]
    force: bool,
}

/// What came of it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Installed {
    total: usize,
    installed: usize,
    failed: usize,
    installed_modules: Vec<String>,
    failed_modules: Vec<String>,
    /// `{module, status, version?, error?}` each.
    details: Vec<BTreeMap<String, Value>>,
}

impl Operation for InstallDependencies {
    const ROUTE: Route = Route::post("/api/v1/exec/dependencies/install")
        .named("installDependencies")
        .cli("exec packages add-modules");
    type Service = Exec;
    type Reply = Installed;

    async fn run(self, exec: Exec, _: Call) -> Result<Installed, Fault> {
        let wanted = specs(&words(&self.modules, "modules")?)?;
        if wanted.is_empty() {
            return Err(Fault::bad_request("name at least one package").code("VALIDATION_ERROR"));
        }
        let (mut done, mut failed, mut details) = (Vec::new(), Vec::new(), Vec::new());
        for spec in &wanted {
            let there = exec.installed(&spec.name);
            let status = match (&there, self.force, &spec.version) {
                (Some(_), false, None) => Ok("already-installed"),
                (Some(version), false, Some(wanted)) if version == wanted => {
                    Ok("already-installed")
                }
                _ => exec
                    .install(std::slice::from_ref(spec), false, true)
                    .await
                    .map(|_| "installed"),
            };
            let mut detail = BTreeMap::from([("module".to_owned(), json!(spec.text()))]);
            match status {
                Ok(status) => {
                    detail.insert("status".to_owned(), json!(status));
                    detail.insert("version".to_owned(), json!(exec.installed(&spec.name)));
                    done.push(spec.text());
                }
                Err(fault) => {
                    detail.insert("status".to_owned(), json!("failed"));
                    detail.insert("error".to_owned(), json!(fault.message));
                    failed.push(spec.text());
                }
            }
            details.push(detail);
        }
        if !done.is_empty() {
            exec.pool().leave(|_| true);
        }
        Ok(Installed {
            total: wanted.len(),
            installed: done.len(),
            failed: failed.len(),
            installed_modules: done,
            failed_modules: failed,
            details,
        })
    }
}

fn declared(package: &Map<String, Value>, group: &str) -> BTreeMap<String, String> {
    package
        .get(group)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, version)| Some((name.clone(), version.as_str()?.to_owned())))
        .collect()
}

fn group(package: &Map<String, Value>, name: &str) -> Map<String, Value> {
    package
        .get(name)
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default()
}

/// Read `package.json` of the scripts; it is made where there is none.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ReadJson;

/// `package.json`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PackageJson {
    path: String,
    content: Map<String, Value>,
    dependencies: Map<String, Value>,
    dev_dependencies: Map<String, Value>,
    scripts: Map<String, Value>,
    dependency_count: usize,
    dev_dependency_count: usize,
}

impl Operation for ReadJson {
    const ROUTE: Route = Route::get("/api/v1/exec/package/read")
        .named("readPackageJson")
        .cli("exec packages json read");
    type Service = Exec;
    type Reply = PackageJson;

    async fn run(self, exec: Exec, _: Call) -> Result<PackageJson, Fault> {
        let content = exec.package_json_or_new()?;
        let dependencies = group(&content, "dependencies");
        let dev_dependencies = group(&content, "devDependencies");
        Ok(PackageJson {
            path: exec
                .config()
                .scripts
                .join("package.json")
                .display()
                .to_string(),
            scripts: group(&content, "scripts"),
            dependency_count: dependencies.len(),
            dev_dependency_count: dev_dependencies.len(),
            dependencies,
            dev_dependencies,
            content,
        })
    }
}

/// Make a new `package.json`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct InitJson {
    /// Its name.
    #[serde(default = "name")]
    name: String,
    /// Its version.
    #[serde(default = "version")]
    version: String,
    /// Its description.
    #[serde(default = "description")]
    description: String,
    /// Replace one that is there.
    #[serde(default)]
    force: bool,
}

fn name() -> String {
    "hoody-exec-project".to_owned()
}

fn version() -> String {
    "1.0.0".to_owned()
}

fn description() -> String {
    "Hoody Exec project".to_owned()
}

/// A `package.json` that was made.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Made {
    message: &'static str,
    path: String,
    content: Map<String, Value>,
    created: bool,
}

impl Operation for InitJson {
    const ROUTE: Route = Route::post("/api/v1/exec/package/init")
        .named("initPackageJson")
        .cli("exec packages json init");
    type Service = Exec;
    type Reply = Made;

    async fn run(self, exec: Exec, _: Call) -> Result<Made, Fault> {
        let there = matches!(exec.package_json(), Ok(Some(_)) | Err(_));
        if there && !self.force {
            return Err(
                Fault::conflict("there is a package.json already; `force` replaces it")
                    .code("PACKAGE_JSON_EXISTS"),
            );
        }
        // the words that the clients of this service expect in a new one
        let content = json!({
            "name": self.name,
            "version": self.version,
            "description": self.description,
            "main": "src/index.ts",
            "scripts": { "start": "bun src/index.ts", "compile:modern": "", "build:openapi": "bun run" },
            "dependencies": {},
        });
        let content = content.as_object().cloned().unwrap_or_default();
        exec.write_package_json(&content)?;
        Ok(Made {
            message: "package.json created successfully",
            path: exec
                .config()
                .scripts
                .join("package.json")
                .display()
                .to_string(),
            content,
            created: true,
        })
    }
}

/// Change `package.json`. What is declared is installed by installing, or by the script that asks for it.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct UpdateJson {
    /// Packages by name, with versions: an object, or the text of one.
    #[serde(default)]
    #[schemars(with = "Option<Map<String, Value>>")]
    dependencies: Value,
    /// Entries of `scripts`, by name.
    #[serde(default)]
    #[schemars(with = "Option<Map<String, Value>>")]
    scripts: Value,
    /// Other fields.
    #[serde(default)]
    #[schemars(with = "Option<Map<String, Value>>")]
    metadata: Value,
    /// Packages to remove from `dependencies`.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    remove: Value,
}

/// What changed.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Updated {
    message: &'static str,
    changes: Vec<String>,
    change_count: usize,
    dependencies: Map<String, Value>,
}

impl Operation for UpdateJson {
    const ROUTE: Route = Route::post("/api/v1/exec/package/update")
        .named("updatePackageJson")
        .cli("exec packages json update");
    type Service = Exec;
    type Reply = Updated;

    async fn run(self, exec: Exec, _: Call) -> Result<Updated, Fault> {
        let _turn = exec.installs.lock().await;
        let mut package = exec.package_json_or_new()?;
        let mut dependencies = group(&package, "dependencies");
        let mut scripts = group(&package, "scripts");
        let mut changes = Vec::new();
        for (name, wanted) in object(&self.dependencies, "dependencies")? {
            let text = wanted.as_str().filter(|text| is_version(text));
            let (Some(text), Ok(spec)) = (text, Spec::read(&name)) else {
                return Err(Fault::bad_request(format!(
                    "`{}` is no package with a version: write {{\"lodash\": \"^4.17.21\"}}",
                    crate::place::shorten(&name)
                ))
                .code("INVALID_PACKAGE"));
            };
            if spec.version.is_some() {
                return Err(
                    Fault::bad_request("the version stands in the value").code("INVALID_PACKAGE")
                );
            }
            changes.push(format!("dependency {name}: {text}"));
            dependencies.insert(name, json!(text));
        }
        for name in words(&self.remove, "remove")? {
            if dependencies.remove(&name).is_some() {
                changes.push(format!("removed {name}"));
            }
        }
        for (name, command) in object(&self.scripts, "scripts")? {
            if !command.is_string() {
                return Err(Fault::bad_request("a script is a text").code("VALIDATION_ERROR"));
            }
            changes.push(format!("script {name}"));
            scripts.insert(name, command);
        }
        for (name, value) in object(&self.metadata, "metadata")? {
            if matches!(
                name.as_str(),
                "dependencies" | "devDependencies" | "scripts"
            ) {
                continue;
            }
            changes.push(format!("field {name}"));
            package.insert(name, value);
        }
        package.insert("dependencies".to_owned(), json!(dependencies));
        if !scripts.is_empty() {
            package.insert("scripts".to_owned(), json!(scripts));
        }
        exec.write_package_json(&package)?;
        Ok(Updated {
            message: "package.json updated successfully",
            change_count: changes.len(),
            changes,
            dependencies,
        })
    }
}

/// Begin to install packages, and do not wait for it; the log `exec.log` tells what came of it.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Install {
    /// Packages; those that `package.json` declares where none are named.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    packages: Value,
    /// Declare them for development.
    #[serde(default)]
    dev: bool,
    /// Declare them in `package.json`.
    #[serde(default = "yes")]
    save: bool,
    /// Also those that are there.
    #[serde(default)]
    force: bool,
}

fn yes() -> bool {
    true
}

/// An installation that has begun.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Begun {
    status: &'static str,
    command: String,
    message: String,
}

impl Operation for Install {
    const ROUTE: Route = Route::post("/api/v1/exec/package/install")
        .named("installPackages")
        .cli("exec packages install");
    type Service = Exec;
    type Reply = Begun;

    async fn run(self, exec: Exec, _: Call) -> Result<Begun, Fault> {
        let mut wanted = specs(&words(&self.packages, "packages")?)?;
        let named = !wanted.is_empty();
        if !self.force {
            wanted.retain(|spec| {
                let there = exec.installed(&spec.name);
                there.is_none() || spec.version.is_some() && spec.version != there
            });
        }
        exec.launcher()?;
        if exec.installs.try_lock().is_err() {
            return Err(
                Fault::conflict("an installation is under way; wait for its end")
                    .code("INSTALL_UNDER_WAY"),
            );
        }
        let names: Vec<String> = wanted.iter().map(Spec::text).collect();
        let command = match names.is_empty() {
            true => "deno install".to_owned(),
            false => format!("deno add {}", names.join(" ")),
        };
        let message = match (named, names.len()) {
            (true, 0) => "all of them are installed".to_owned(),
            (true, many) => format!("installing {many} packages"),
            (false, _) => "installing what package.json declares".to_owned(),
        };
        if !(named && wanted.is_empty()) {
            let (dev, save) = (self.dev, self.save);
            tokio::spawn(async move {
                match exec.install(&wanted, dev, save).await {
                    Ok(_) => {
                        exec.pool().leave(|_| true);
                    }
                    Err(fault) => exec
                        .logs()
                        .script("error", "packages", None, &fault.message),
                }
            });
        }
        Ok(Begun {
            status: "installing",
            command,
            message,
        })
    }
}

/// Declare the versions that are installed, exactly.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Pin {
    /// Packages; all that are declared where none are named.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    packages: Value,
    /// One more.
    module: Option<String>,
}

/// A package whose version cannot be pinned.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Unpinnable {
    package: String,
    reason: String,
}

/// What was pinned.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Pinned {
    message: String,
    /// `name: before → after` each.
    pinned: Vec<String>,
    count: usize,
    dependencies: Map<String, Value>,
    unpinnable: Vec<Unpinnable>,
}

impl Operation for Pin {
    const ROUTE: Route = Route::post("/api/v1/exec/package/pin")
        .named("pinVersions")
        .cli("exec packages pin");
    type Service = Exec;
    type Reply = Pinned;

    async fn run(self, exec: Exec, _: Call) -> Result<Pinned, Fault> {
        let _turn = exec.installs.lock().await;
        let mut texts = words(&self.packages, "packages")?;
        texts.extend(self.module);
        let wanted: Vec<String> = specs(&texts)?.into_iter().map(|spec| spec.name).collect();
        let mut package = exec.package_json_or_new()?;
        let mut dependencies = group(&package, "dependencies");
        let (mut pinned, mut unpinnable) = (Vec::new(), Vec::new());
        let names: Vec<String> = match wanted.is_empty() {
            true => dependencies.keys().cloned().collect(),
            false => wanted,
        };
        for name in names {
            let Some(range) = dependencies
                .get(&name)
                .and_then(Value::as_str)
                .map(str::to_owned)
            else {
                unpinnable.push(Unpinnable {
                    package: name,
                    reason: "it is not declared".to_owned(),
                });
                continue;
            };
            match exec.installed(&name) {
                None => unpinnable.push(Unpinnable {
                    package: name,
                    reason: "it is not installed".to_owned(),
                }),
                Some(version) if version == range => {}
                Some(version) => {
                    pinned.push(format!("{name}: {range} → {version}"));
                    dependencies.insert(name, json!(version));
                }
            }
        }
        package.insert("dependencies".to_owned(), json!(dependencies));
        if !pinned.is_empty() {
            exec.write_package_json(&package)?;
        }
        Ok(Pinned {
            message: format!("{} versions pinned", pinned.len()),
            count: pinned.len(),
            pinned,
            dependencies,
            unpinnable,
        })
    }
}

/// Hold what `package.json` declares against what is installed.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Compare {}

/// In numbers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Summary {
    total: usize,
    installed: usize,
    missing: usize,
    outdated: usize,
    extra: usize,
}

/// A package that is installed in another version.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Outdated {
    package: String,
    declared: String,
    installed: String,
}

/// How the two differ.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    summary: Summary,
    missing: Vec<String>,
    outdated: Vec<Outdated>,
    /// Installed, and not declared.
    extra: Vec<String>,
    all_installed: bool,
    up_to_date: bool,
}

impl Operation for Compare {
    const ROUTE: Route = Route::post("/api/v1/exec/package/compare")
        .named("comparePackages")
        .cli("exec packages compare");
    type Service = Exec;
    type Reply = Compared;

    async fn run(self, exec: Exec, _: Call) -> Result<Compared, Fault> {
        let package = exec.package_json()?.unwrap_or_default();
        let mut wanted = declared(&package, "dependencies");
        wanted.extend(declared(&package, "devDependencies"));
        let there = exec.all_installed();
        let mut missing = Vec::new();
        let mut outdated = Vec::new();
        for (name, range) in &wanted {
            match there.get(name) {
                None => missing.push(name.clone()),
                Some(version) if !fits(range, version) => outdated.push(Outdated {
                    package: name.clone(),
                    declared: range.clone(),
                    installed: version.clone(),
                }),
                Some(_) => {}
            }
        }
        let extra: Vec<String> = there
            .keys()
            .filter(|name| !wanted.contains_key(*name))
            .cloned()
            .collect();
        Ok(Compared {
            summary: Summary {
                total: wanted.len(),
                installed: wanted.len() - missing.len(),
                missing: missing.len(),
                outdated: outdated.len(),
                extra: extra.len(),
            },
            all_installed: missing.is_empty(),
            up_to_date: missing.is_empty() && outdated.is_empty(),
            missing,
            outdated,
            extra,
        })
    }
}

/// Whether a version is in a range of the usual kinds: exact, `^`, `~`, `>=`, and tags, which any is.
fn fits(range: &str, version: &str) -> bool {
    let numbers = |text: &str| -> Option<[u64; 3]> {
        let text = text.split(['-', '+']).next()?;
        let mut parts = text.split('.').map(|part| part.parse::<u64>().ok());
        let first = parts.next()??;
        Some([
            first,
            parts.next().flatten().unwrap_or(0),
            parts.next().flatten().unwrap_or(0),
        ])
    };
    let Some(have) = numbers(version) else {
        return true;
    };
    let range = range.trim();
    let split = range
        .find(|c: char| c.is_ascii_digit())
        .unwrap_or(range.len());
    let (sign, rest) = range.split_at(split);
    let Some(want) = numbers(rest) else {
        return true;
    };
    match sign.trim() {
        "" if rest.matches('.').count() < 2 => {
            have.starts_with(&want[..=rest.matches('.').count()])
        }
        "" | "=" => range.trim_start_matches('=') == version,
        "^" => {
            let fixed = want.iter().position(|number| *number > 0).unwrap_or(2);
            have >= want && have[..=fixed] == want[..=fixed]
        }
        "~" => have >= want && have[..2] == want[..2],
        ">=" => have >= want,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_ranges() {
        for (range, version, fit) in [
            ("1.2.3", "1.2.3", true),
            ("1.2.3", "1.2.4", false),
            ("^1.2.0", "1.9.0", true),
            ("^1.2.0", "2.0.0", false),
            ("^0.2.1", "0.3.0", false),
            ("~1.2.0", "1.2.9", true),
            ("~1.2.0", "1.3.0", false),
            (">=1.0.0", "2.0.0", true),
            ("1", "1.5.0", true),
            ("latest", "9.9.9", true),
        ] {
            assert_eq!(fits(range, version), fit, "{range} {version}");
        }
    }
}
