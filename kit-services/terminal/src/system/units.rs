//! What systemd was told to supervise on this machine, beside what its packages brought.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

/// Units that are told of.
const MAX_UNITS: usize = 1024;
/// Longest unit file that is read; real ones are far below.
const MAX_UNIT_BYTES: u64 = 256 << 10;

/// A program under supervision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Program {
    /// Its unit without `.service`.
    pub name: String,
    /// Whether it is started with the machine.
    pub enabled: bool,
    /// Command line; null where the file does not say.
    pub command: Option<String>,
    /// User; the machine's root where the file does not say.
    pub user: String,
    /// What it is for, in its own words.
    pub description: Option<String>,
}

/// The services of a directory of units (systemd.unit(5)), by name. A unit that only links to one of
/// a package is told of where it is wanted by a target here.
pub fn list(directory: &Path) -> Vec<Program> {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let mut wanted: HashSet<String> = HashSet::new();
    let mut names: HashSet<String> = HashSet::new();
    for entry in entries(directory) {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name.ends_with(".wants") || name.ends_with(".requires") {
            for unit in entries(&entry.path()) {
                if let Ok(unit) = unit.file_name().into_string()
                    && unit.ends_with(".service")
                {
                    wanted.insert(unit);
                }
            }
        } else if name.ends_with(".service") && !is_masked(&entry.path()) {
            names.insert(name);
        }
        if names.len() + wanted.len() > MAX_UNITS {
            break;
        }
    }
    let mut programs: Vec<Program> = names
        .union(&wanted)
        .take(MAX_UNITS)
        .map(|name| describe(directory, name, wanted.contains(name)))
        .collect();
    programs.sort_by(|one, other| one.name.cmp(&other.name));
    programs
}

/// A unit that links to nothing must not run.
fn is_masked(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"))
}

fn describe(directory: &Path, unit: &str, enabled: bool) -> Program {
    // Where units of packages are.
    const PACKAGES: &str = "/usr/lib/systemd/system";
    // `getty@tty1.service` is made from `getty@.service`.
    let template = unit
        .split_once('@')
        .map(|(before, _)| format!("{before}@.service"));
    let text = [directory, Path::new(PACKAGES)]
        .into_iter()
        .flat_map(|directory| {
            std::iter::once(directory.join(unit))
                .chain(template.iter().map(move |name| directory.join(name)))
        })
        .find_map(|path| content(&path))
        .unwrap_or_default();
    Program {
        name: unit.trim_end_matches(".service").to_owned(),
        enabled,
        command: value(&text, "ExecStart"),
        user: value(&text, "User").unwrap_or_else(|| "root".to_owned()),
        description: value(&text, "Description"),
    }
}

fn content(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    let file = fs::File::open(path).ok()?;
    file.take(MAX_UNIT_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The last value of a key; a line that ends in a backslash goes on (systemd.syntax(7)).
fn value(text: &str, key: &str) -> Option<String> {
    let joined = text.replace("\\\n", " ");
    joined
        .lines()
        .filter_map(|line| line.trim().split_once('='))
        .filter(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().to_owned())
        .next_back()
        .filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_told_with_what_they_run() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(
            path("web.service"),
            "[Unit]\nDescription=The shop\n[Service]\nUser=www\nExecStart=/usr/bin/serve \\\n  --port 80\n",
        )
        .unwrap();
        fs::write(path("off.service"), "[Service]\nExecStart=/bin/off\n").unwrap();
        fs::write(path("a.timer"), "").unwrap();
        std::os::unix::fs::symlink("/dev/null", path("masked.service")).unwrap();
        fs::create_dir(path("multi-user.target.wants")).unwrap();
        for wanted in ["web.service", "gone.service", "a.timer"] {
            let link = path("multi-user.target.wants").join(wanted);
            std::os::unix::fs::symlink(path(wanted), link).unwrap();
        }
        let list = list(directory.path());
        let told: Vec<_> = list
            .iter()
            .map(|program| (program.name.as_str(), program.enabled))
            .collect();
        assert_eq!(told, [("gone", true), ("off", false), ("web", true)]);
        assert_eq!(
            list[2].command.as_deref(),
            Some("/usr/bin/serve    --port 80")
        );
        assert_eq!(
            (list[2].user.as_str(), list[1].user.as_str()),
            ("www", "root")
        );
        assert_eq!(list[2].description.as_deref(), Some("The shop"));
    }
}
