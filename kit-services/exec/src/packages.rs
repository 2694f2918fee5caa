//! Packages of npm for scripts: one `package.json` and one `node_modules` at the root of all
//! scripts. What a script imports and nobody has installed is installed before it first runs. No
//! package runs programs of its own while it is installed.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use kit::Fault;
use regex::Regex;
use serde_json::{Map, Value, json};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::Exec;
use crate::place::{RelPath, shorten};
use crate::root::Over;

/// How long an installation may take.
const INSTALL: Duration = Duration::from_secs(180);
/// Packages of one call.
pub const PACKAGES: usize = 64;
/// Installations that wait for their turn; they are one after another.
const SAID_BYTES: u64 = 64 << 10;

/// A package, and which versions of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spec {
    pub name: String,
    pub version: Option<String>,
}

impl Spec {
    /// Read `lodash`, `lodash@4`, `@scope/name@^1.2.0`. No addresses, no paths, no options.
    pub fn read(text: &str) -> Result<Spec, Fault> {
        static NAME: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(r"^(?:@[a-z0-9][a-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*$")
                .expect("a valid pattern")
        });
        let wrong = || {
            Fault::bad_request(format!(
                "`{}` names no package of npm; write `name`, `name@1.2.3` or `@scope/name@^1`",
                shorten(text)
            ))
            .code("INVALID_PACKAGE")
        };
        let text = text.trim();
        let text = text.strip_prefix("npm:").unwrap_or(text);
        let at = text.char_indices().skip(1).find(|(_, c)| *c == '@');
        let (name, version) = match at {
            Some((at, _)) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        const NAME_BYTES: usize = 214;
        let reserved = matches!(name, "node_modules" | "favicon.ico");
        if name.len() > NAME_BYTES || !NAME.is_match(name) || reserved || name.contains("..") {
            return Err(wrong());
        }
        if let Some(version) = version
            && !is_version(version)
        {
            return Err(wrong());
        }
        Ok(Spec {
            name: name.to_owned(),
            version: version.map(str::to_owned),
        })
    }

    pub fn text(&self) -> String {
        match &self.version {
            Some(version) => format!("{}@{version}", self.name),
            None => self.name.clone(),
        }
    }
}

/// A version, a range or a tag.
pub fn is_version(text: &str) -> bool {
    static VERSION: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^[\^~]?[A-Za-z0-9*][A-Za-z0-9.*+_-]*$|^[<>]=?\s*[0-9][A-Za-z0-9.+-]*$")
            .expect("a valid pattern")
    });
    text.len() <= 128 && VERSION.is_match(text)
}

fn file() -> RelPath {
    RelPath::default().join("package.json")
}

impl Exec {
    /// `package.json`, where there is one.
    pub fn package_json(&self) -> Result<Option<Map<String, Value>>, Fault> {
        let text = match self.root().text(&file()) {
            Ok((text, _)) => text,
            Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let read = serde_json::from_str(&text).map_err(|error| {
            Fault::conflict(format!(
                "package.json cannot be read: {error}; POST /api/v1/exec/package/init with `force` makes a new one"
            ))
            .code("INVALID_PACKAGE_JSON")
        });
        read.map(Some)
    }

    /// The same, made where there is none.
    pub fn package_json_or_new(&self) -> Result<Map<String, Value>, Fault> {
        match self.package_json()? {
            Some(package) => Ok(package),
            None => {
                let package = json!({
                    "name": "hoody-exec-project",
                    "version": "1.0.0",
                    "private": true,
                    "dependencies": {},
                });
                let package = package.as_object().cloned().unwrap_or_default();
                self.write_package_json(&package)?;
                Ok(package)
            }
        }
    }

    pub fn write_package_json(&self, package: &Map<String, Value>) -> Result<(), Fault> {
        let text = serde_json::to_string_pretty(package).expect("it is plain JSON") + "\n";
        self.root().make().map_err(|error| {
            Fault::internal(format!("the directory of scripts cannot be made: {error}"))
        })?;
        self.root().write(&file(), text.as_bytes(), Over::Replace)?;
        Ok(())
    }

    /// The version of a package that is installed. `node_modules` has links, which lead below it.
    pub fn installed(&self, name: &str) -> Option<String> {
        Spec::read(name).ok()?;
        let path = self
            .root()
            .path
            .join("node_modules")
            .join(name)
            .join("package.json");
        let real = path.canonicalize().ok()?;
        if !real.starts_with(self.root().path.canonicalize().ok()?) {
            return None;
        }
        const MANIFEST_BYTES: u64 = 1 << 20;
        if std::fs::metadata(&real).ok()?.len() > MANIFEST_BYTES {
            return None;
        }
        let manifest: Value = serde_json::from_slice(&std::fs::read(real).ok()?).ok()?;
        Some(manifest["version"].as_str().unwrap_or("0.0.0").to_owned())
    }

    /// Everything that is installed, by name.
    pub fn all_installed(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let top = self.root().path.join("node_modules");
        let names = |path: &std::path::Path| -> Vec<String> {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries
                .filter_map(|entry| entry.file_name().into_string().ok())
                .take(2000)
                .collect()
        };
        for name in names(&top) {
            if name.starts_with('.') {
                continue;
            }
            let some = match name.starts_with('@') {
                true => names(&top.join(&name))
                    .into_iter()
                    .map(|its| format!("{name}/{its}"))
                    .collect(),
                false => vec![name],
            };
            for name in some {
                if let Some(version) = self.installed(&name) {
                    all.insert(name, version);
                }
            }
        }
        all
    }

    /// Install packages; those that `package.json` declares where none are named. What the
    /// installer said.
    pub async fn install(&self, specs: &[Spec], dev: bool, save: bool) -> Result<String, Fault> {
        let _turn = self.installs.lock().await;
        self.package_json_or_new()?;
        let launcher = self.launcher()?;
        let mut command = match specs.is_empty() {
            true => launcher.command(&["install", "--node-modules-dir=auto"]),
            false => launcher.command(&["add", "--package-json", "--npm"]),
        };
        if !specs.is_empty() {
            if dev {
                command.arg("--dev");
            }
            if !save {
                command.arg("--no-save");
            }
            command.args(specs.iter().map(|spec| format!("npm:{}", spec.text())));
        }
        let mut child = command.spawn().map_err(|error| {
            Fault::unavailable(format!("the installer cannot be started: {error}"))
        })?;
        let pid = child.id();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let read = async {
            let mut text = String::new();
            let mut first = Vec::new();
            let mut second = Vec::new();
            if let (Some(out), Some(err)) = (out, err) {
                let (mut out, mut err) = (out.take(SAID_BYTES), err.take(SAID_BYTES));
                let _ = tokio::join!(out.read_to_end(&mut first), err.read_to_end(&mut second));
            }
            text.push_str(&String::from_utf8_lossy(&second));
            text.push_str(&String::from_utf8_lossy(&first));
            let status = child.wait().await;
            (text, status.is_ok_and(|status| status.success()))
        };
        let Ok((text, fine)) = timeout(INSTALL, read).await else {
            if let Some(pid) = pid.and_then(|pid| rustix::process::Pid::from_raw(pid as i32)) {
                let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
            }
            return Err(Fault::new(
                http::StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "the installation took longer than {} seconds",
                    INSTALL.as_secs()
                ),
            )
            .code("INSTALL_TIMEOUT"));
        };
        self.logs().script("info", "packages", None, &text);
        // whoever runs was made without them
        self.pool().forget_spare();
        if !fine {
            let why = text
                .lines()
                .rfind(|line| !line.trim().is_empty())
                .unwrap_or("it does not say why");
            return Err(Fault::new(
                http::StatusCode::BAD_GATEWAY,
                format!("the installation failed: {}", shorten_line(why)),
            )
            .code("INSTALL_FAILED"));
        }
        Ok(text)
    }
}

fn shorten_line(text: &str) -> String {
    text.chars().take(400).filter(|c| !c.is_control()).collect()
}

/// Have what a script imports be there before it runs.
pub async fn provide(exec: &Exec, path: &RelPath, text: &str) -> Result<(), Fault> {
    if !text.contains("import") && !text.contains("require") && !text.contains("from") {
        return Ok(());
    }
    let analysis = exec.analyze(text, path.as_str(), Some(path)).await?;
    let missing: Vec<String> = analysis
        .packages
        .into_iter()
        .filter(|name| exec.installed(name).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if missing.len() > PACKAGES {
        return Err(Fault::bad_request(format!(
            "the script {path} asks for more than {PACKAGES} packages that are not installed"
        ))
        .code("TOO_MANY_PACKAGES"));
    }
    let declared = exec.package_json()?.unwrap_or_default();
    let mut specs = Vec::new();
    for name in &missing {
        let mut spec = Spec::read(name)?;
        let version = ["dependencies", "devDependencies"]
            .iter()
            .find_map(|group| declared.get(*group)?.get(name)?.as_str());
        spec.version = version
            .filter(|version| is_version(version))
            .map(str::to_owned);
        specs.push(spec);
    }
    exec.install(&specs, false, true)
        .await
        .map(drop)
        .map_err(|mut fault| {
            fault.message = format!(
                "the script {path} asks for {}, which could not be installed: {}",
                missing.join(", "),
                fault.message
            );
            fault
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_names_with_versions_and_nothing_else() {
        for (text, name, version) in [
            ("lodash", "lodash", None),
            ("npm:lodash@4.17.21", "lodash", Some("4.17.21")),
            ("@scope/it@^1.2.0", "@scope/it", Some("^1.2.0")),
            ("it@latest", "it", Some("latest")),
            ("it@>=1.0.0", "it", Some(">=1.0.0")),
        ] {
            let spec = Spec::read(text).unwrap();
            assert_eq!(
                (spec.name.as_str(), spec.version.as_deref()),
                (name, version)
            );
        }
        for text in [
            "",
            "-g",
            "--allow-scripts",
            "../x",
            "a/b",
            "file:../x",
            "git+https://x/y",
            "https://x/y.tgz",
            "a b",
            "a;b",
            "a@file:../x",
            "a@npm:b",
            "a@$(x)",
            "@/x",
            "@x",
            "a\0",
            ".bin",
            "a@-x",
            "node_modules",
            "a..b",
            &"a".repeat(300),
        ] {
            assert!(Spec::read(text).is_err(), "{text:?}");
        }
    }
}
