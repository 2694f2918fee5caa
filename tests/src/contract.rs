//! The wire contract as a judge: which of its rows a request belongs to, and whether the reply is
//! one that the row's clients can read.
//!
//! [`Contract::observe`] is for every reply a rig sees; [`Contract::census`] counts what is
//! implemented and what no test calls. Rows are the 964 endpoints of `contract/*.yaml`.

mod check;
mod coverage;
mod path;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, OnceLock};

use serde::Deserialize;
use serde_json::Value;

pub use check::{Reply, Violation};
pub use coverage::{Census, Coverage};
use path::Template;

/// All rows, by namespace; each file is read when a row of it is first asked for.
pub struct Contract {
    namespaces: BTreeMap<String, LazyLock<Vec<Row>, Read>>,
}

type Read = Box<dyn FnOnce() -> Vec<Row> + Send>;

/// One endpoint.
pub struct Row {
    /// Its name: `terminal.sessions.list`. The first word is the namespace.
    pub op: String,
    pub namespace: String,
    pub method: String,
    /// Other methods that clients use for the same.
    pub also: Vec<String>,
    /// `/api/v1/terminal/{terminal_id}`.
    pub path: String,
    /// What the query must have for this row, where several share a path: `key` or `key=value`.
    pub selector: Option<String>,
    /// Whether it is called without credentials.
    pub open: bool,
    /// The words of its command, `hoody` included.
    pub cli: Option<String>,
    pub operation_id: Option<String>,
    template: Template,
    /// What may answer, the usual answer first.
    answers: Vec<Answer>,
    failure: Arc<Answer>,
    /// The file that the schemas refer into.
    file: Arc<Value>,
}

/// A shape of reply.
#[derive(Debug, Default)]
struct Answer {
    status: Option<u16>,
    /// Only the class of the status is certain.
    assumed: bool,
    /// Content types; empty where there is no body.
    types: Vec<String>,
    schema: Option<Value>,
    /// Wrapped as `{statusCode, message, data}`, with these members beside.
    envelope: Option<check::Extras>,
    validator: OnceLock<jsonschema::Validator>,
}

/// A file as it is written.
#[derive(Deserialize)]
struct File {
    contract: Head,
    error: Value,
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Head {
    namespace: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    op: String,
    operation_id: Option<String>,
    cli: Option<String>,
    method: String,
    #[serde(default)]
    alt_methods: Vec<String>,
    path: String,
    query_selector: Option<String>,
    #[serde(default)]
    auth: Value,
    response: Value,
    #[serde(default)]
    stream: Option<Value>,
}

impl Contract {
    /// The contract in `tests/contract`.
    pub fn get() -> &'static Contract {
        static CONTRACT: LazyLock<Contract> = LazyLock::new(|| {
            let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("contract");
            let entries =
                std::fs::read_dir(&directory).expect("the contract is part of the sources");
            let mut namespaces = BTreeMap::new();
            for entry in entries {
                let path = entry.expect("the contract can be listed").path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "yaml")
                {
                    let namespace = path
                        .file_stem()
                        .unwrap_or_default()
                        .to_string_lossy()
                        .into_owned();
                    let rows: Read = Box::new(move || {
                        let text =
                            std::fs::read_to_string(&path).expect("the contract can be read");
                        parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
                    });
                    namespaces.insert(namespace, LazyLock::new(rows));
                }
            }
            Contract { namespaces }
        });
        &CONTRACT
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.namespaces.values().flat_map(|rows| rows.iter())
    }

    /// The rows of a namespace, sorted by name.
    pub fn rows_of(&self, namespace: &str) -> &[Row] {
        self.namespaces
            .get(namespace)
            .map_or(&[], |rows| rows.as_slice())
    }

    /// The row with this name.
    pub fn named(&self, op: &str) -> Option<&Row> {
        let namespace = op.split('.').next().unwrap_or_default();
        self.rows_of(namespace).iter().find(|row| row.op == op)
    }

    /// The row that a request belongs to. The path is a request's, with its query, or a template.
    pub fn find(&self, namespace: &str, method: &str, path_and_query: &str) -> Option<&Row> {
        let (path, query) = path_and_query
            .split_once('?')
            .unwrap_or((path_and_query, ""));
        self.rows_of(namespace)
            .iter()
            .filter(|row| row.method == method || row.also.iter().any(|also| also == method))
            .filter_map(|row| {
                let selected = match &row.selector {
                    None => 0,
                    Some(selector) if path::selects(selector, query) => 1,
                    Some(_) => return None,
                };
                let fit = row.template.fit(path, path::goes_on(namespace))?;
                Some((fit, selected, row))
            })
            .max_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)).then(b.2.op.cmp(&a.2.op)))
            .map(|(_, _, row)| row)
    }

    /// The row of an operation by its path in a document, where a selector stands behind a `?`.
    pub fn documented(&self, namespace: &str, method: &str, path: &str) -> Option<&Row> {
        let Some((path, selector)) = path.split_once('?') else {
            return self.find(namespace, method, path);
        };
        self.rows_of(namespace).iter().find(|row| {
            (row.method == method || row.also.iter().any(|also| also == method))
                && row.selector.as_deref() == Some(selector)
                && row.template.is(path)
        })
    }

    /// Judge a reply by the row it belongs to; replies outside of the contract are not judged.
    pub fn check(&self, namespace: &str, reply: &Reply<'_>) -> Result<Option<&Row>, Violation> {
        let Some(row) = self.find(namespace, reply.method, reply.path) else {
            return Ok(None);
        };
        row.judge(reply)?;
        Ok(Some(row))
    }

    /// [`check`](Contract::check), and note in `coverage` that the row was called with success.
    pub fn observe(
        &self,
        coverage: &Coverage,
        namespace: &str,
        reply: &Reply<'_>,
    ) -> Result<Option<&Row>, Violation> {
        let row = self.check(namespace, reply)?;
        if let Some(row) = row
            && (reply.status < 400 || row.answers[0].status == Some(reply.status))
        {
            coverage.called(row);
        }
        Ok(row)
    }

    /// The rows that an API serves, by its OpenAPI document and with that document among them.
    pub fn implemented(&self, namespace: &str, document: &Value) -> BTreeSet<String> {
        let served = served(document);
        self.rows_of(namespace)
            .iter()
            .filter(|row| {
                served.iter().any(|(method, path, selector)| {
                    *method == row.method && *selector == row.selector && row.template.is(path)
                })
            })
            .map(|row| row.op.clone())
            .collect()
    }
}

/// Method, path and selector of every operation of a document.
fn served(document: &Value) -> Vec<(String, String, Option<String>)> {
    let mut served = Vec::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        let (path, selector) = match path.split_once('?') {
            Some((path, selector)) => (path, Some(selector.to_owned())),
            None => (path.as_str(), None),
        };
        for method in item
            .as_object()
            .into_iter()
            .flatten()
            .map(|(method, _)| method)
        {
            let method = method
                .strip_prefix("x-")
                .unwrap_or(method)
                .to_ascii_uppercase();
            served.push((method, path.to_owned(), selector.clone()));
        }
        // the document itself stands beside the health
        if let Some(base) = path.strip_suffix("/health") {
            for name in ["openapi.json", "openapi.yaml"] {
                served.push(("GET".to_owned(), format!("{base}/{name}"), None));
            }
        }
    }
    served
}

fn parse(text: &str) -> Result<Vec<Row>, Box<dyn std::error::Error>> {
    let whole: Arc<Value> = Arc::new(yaml_serde::from_str(text)?);
    let file = File::deserialize(&*whole)?;
    let failure = Arc::new(Answer::of_failure(&file.error));
    let row = |endpoint| {
        Row::new(
            &file.contract.namespace,
            endpoint,
            failure.clone(),
            whole.clone(),
        )
    };
    let mut rows: Vec<Row> = file.endpoints.into_iter().map(row).collect();
    rows.sort_by(|a, b| a.op.cmp(&b.op));
    Ok(rows)
}

/// The namespace of the service with this slug.
pub fn namespace(slug: &str) -> &str {
    match slug {
        "n" => "notifications",
        "logs" | "proxylogs" => "proxyLogs",
        "workspaces" => "agent",
        "daemons" => "daemon",
        "control" => "api",
        same => same,
    }
}

impl Row {
    fn new(namespace: &str, endpoint: Endpoint, failure: Arc<Answer>, file: Arc<Value>) -> Row {
        let mut answers = vec![Answer::of(&endpoint.response, None)];
        for other in endpoint.response["alternatives"]
            .as_array()
            .into_iter()
            .flatten()
        {
            answers.push(Answer::of(other, answers.first()));
        }
        if endpoint.stream.is_some() {
            answers.push(Answer {
                status: Some(101),
                ..Answer::default()
            });
            let types = vec!["text/event-stream".to_owned()];
            answers.push(Answer {
                status: Some(200),
                types,
                ..Answer::default()
            });
        }
        Row {
            template: Template::parse(&endpoint.path),
            namespace: namespace.to_owned(),
            op: endpoint.op,
            method: endpoint.method,
            also: endpoint.alt_methods,
            path: endpoint.path,
            selector: endpoint.query_selector,
            open: endpoint.auth == "none",
            cli: endpoint.cli,
            operation_id: endpoint.operation_id,
            answers,
            failure,
            file,
        }
    }
}

#[cfg(test)]
mod tests;
