//! The direction of dependencies between the crates of this workspace.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Who may depend on whom. A crate that is not a key here may depend on none of the others.
const ALLOWED: &[(&str, &[&str])] = &[
    ("proxy", &["certs", "routes", "proxy-logs"]),
    ("proxy-logs", &["kit"]),
    ("control", &["routes", "kit"]),
    ("accounts", &["kit"]),
    ("terminal", &["accounts", "kit"]),
    ("files", &["kit"]),
    ("sqlite", &["kit"]),
    ("exec", &["accounts", "kit"]),
    ("kitd", &["kit", "terminal", "files", "sqlite", "exec"]),
    (
        "hoody",
        &[
            "certs",
            "control",
            "kit",
            "kitd",
            "proxy",
            "proxy-logs",
            "routes",
        ],
    ),
    (
        "benches",
        &[
            "certs", "control", "kit", "kitd", "proxy", "routes", "tests",
        ],
    ),
    (
        "tests",
        &[
            "certs",
            "control",
            "files",
            "kit",
            "kitd",
            "proxy",
            "proxy-logs",
            "routes",
            "terminal",
        ],
    ),
];

/// Crates that must not reach a library, however far down.
const KEPT_APART: &[(&str, &str)] = &[
    ("proxy", "rusqlite"),
    ("control", "pingora-core"),
    ("routes", "tokio"),
    ("kit", "rusqlite"),
];

#[test]
fn crates_depend_in_one_direction_only() {
    let metadata = MetadataCommand::new()
        .no_deps()
        .exec()
        .expect("cargo metadata runs");
    let ours: BTreeSet<&str> = metadata
        .packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let may: &[&str] = allowed
            .get(package.name.as_str())
            .copied()
            .unwrap_or_default();
        for dependency in &package.dependencies {
            let named = dependency.name.as_str();
            let for_tests = dependency.kind == DependencyKind::Development;
            if ours.contains(named) && !for_tests && !may.contains(&named) {
                wrong.push(format!("{} → {named}", package.name));
            }
        }
    }
    assert!(wrong.is_empty(), "not allowed: {}", wrong.join(", "));
}

#[test]
fn heavy_libraries_stay_where_they_belong() {
    let metadata = MetadataCommand::new().exec().expect("cargo metadata runs");
    let names: BTreeMap<_, _> = metadata
        .packages
        .iter()
        .map(|package| (&package.id, package.name.as_str()))
        .collect();
    let graph = metadata.resolve.as_ref().expect("cargo metadata resolves");
    for (from, library) in KEPT_APART {
        let mut seen = BTreeSet::new();
        let mut next: Vec<_> = graph
            .nodes
            .iter()
            .map(|node| &node.id)
            .filter(|id| names[id] == *from)
            .collect();
        while let Some(id) = next.pop() {
            assert!(names[id] != *library, "{from} reaches {library}");
            if !seen.insert(id) {
                continue;
            }
            let node = graph
                .nodes
                .iter()
                .find(|node| node.id == *id)
                .expect("nodes are complete");
            next.extend(
                node.deps
                    .iter()
                    .filter(|dependency| {
                        dependency
                            .dep_kinds
                            .iter()
                            .any(|kind| kind.kind == DependencyKind::Normal)
                    })
                    .map(|dependency| &dependency.pkg),
            );
        }
    }
}
