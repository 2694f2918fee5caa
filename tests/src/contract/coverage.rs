//! Which rows are implemented, and which of those some test calls.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Contract, Row};

/// The rows that tests called with success: an empty file for each in a directory, so that any
/// number of test processes add up.
#[derive(Debug, Clone)]
pub struct Coverage {
    directory: PathBuf,
}

impl Coverage {
    /// Kept in this directory.
    pub fn in_directory(directory: impl Into<PathBuf>) -> Coverage {
        Coverage {
            directory: directory.into(),
        }
    }

    /// Kept beside the build products of this test, for all tests of the build.
    pub fn of_this_build() -> Coverage {
        let program = std::env::current_exe().expect("a test knows its own program");
        let built = program
            .ancestors()
            .find(|path| path.ends_with("deps"))
            .and_then(Path::parent);
        Coverage::in_directory(built.unwrap_or(Path::new("target")).join("contract-called"))
    }

    /// Note that a row was called.
    pub fn called(&self, row: &Row) {
        let noted = std::fs::create_dir_all(&self.directory)
            .and_then(|()| std::fs::write(self.directory.join(&row.op), b""));
        if let Err(error) = noted {
            panic!(
                "could not note a call in {}: {error}",
                self.directory.display()
            );
        }
    }

    /// The names of all rows called since [`forget`](Coverage::forget).
    pub fn all(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten();
        entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect()
    }

    /// Start anew.
    pub fn forget(&self) {
        for op in self.all() {
            let _ = std::fs::remove_file(self.directory.join(op));
        }
    }
}

/// How much of the contract there is.
#[derive(Debug, Clone, Default)]
pub struct Census {
    pub rows: usize,
    pub implemented: BTreeSet<String>,
    /// Once implemented, by the committed list, and no longer.
    pub gone: BTreeSet<String>,
    /// Implemented, and not yet in the committed list.
    pub new: BTreeSet<String>,
    /// Implemented, and called by no test.
    pub uncalled: BTreeSet<String>,
}

impl Contract {
    /// Count. `documents` are the OpenAPI documents of all that is served, by namespace.
    pub fn census<'a>(
        &self,
        documents: impl IntoIterator<Item = (&'a str, &'a Value)>,
        coverage: &Coverage,
    ) -> Census {
        let mut implemented = BTreeSet::new();
        for (namespace, document) in documents {
            implemented.extend(self.implemented(namespace, document));
        }
        let committed = committed();
        let called = coverage.all();
        Census {
            rows: self.rows().count(),
            gone: &committed - &implemented,
            new: &implemented - &committed,
            uncalled: &implemented - &called,
            implemented,
        }
    }
}

/// The list of rows that may not disappear.
fn list() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contract/implemented.txt")
}

fn committed() -> BTreeSet<String> {
    let text = std::fs::read_to_string(list()).unwrap_or_default();
    text.lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

impl Census {
    /// Write the committed list anew, with what is new in it and without what is gone.
    pub fn commit(&self) -> std::io::Result<()> {
        let text: String = self
            .implemented
            .iter()
            .map(|op| format!("{op}\n"))
            .collect();
        std::fs::write(list(), text)
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "contract: {} of {} rows implemented",
            self.implemented.len(),
            self.rows
        )?;
        for (what, rows) in [
            ("no longer implemented", &self.gone),
            ("called by no test", &self.uncalled),
        ] {
            if !rows.is_empty() {
                let names: Vec<_> = rows.iter().map(String::as_str).collect();
                write!(f, "\n{} {what}: {}", rows.len(), names.join(", "))?;
            }
        }
        Ok(())
    }
}
