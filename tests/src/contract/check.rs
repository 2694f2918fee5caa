//! Whether a reply is one that a row's clients can read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::{Answer, Row};

/// A reply, and the request it answers.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    pub method: &'a str,
    /// Path and query of the request, or the row's template.
    pub path: &'a str,
    pub status: u16,
    pub content_type: Option<&'a str>,
    pub body: &'a [u8],
}

/// What is wrong with a reply.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{op}: {status} to {request}: {}", .faults.join("; "))]
pub struct Violation {
    /// The row.
    pub op: String,
    /// Method and path.
    pub request: String,
    pub status: u16,
    /// At most [`FAULTS`] of them.
    pub faults: Vec<String>,
}

/// So many faults of one reply are told.
pub const FAULTS: usize = 8;

impl Answer {
    /// From a `response`, or from one of its `alternatives`, which leave out what is the same.
    pub(super) fn of(response: &Value, usual: Option<&Answer>) -> Answer {
        let text = |key: &str| response.get(key).and_then(Value::as_str);
        let status = response.get("status").and_then(Value::as_u64);
        let envelope = match (text("wrap"), usual) {
            (Some("envelope"), _) => {
                let extras = response.get("envelopeExtras").and_then(Value::as_object);
                Some(
                    extras
                        .into_iter()
                        .flatten()
                        .map(|(k, v)| (k.clone(), v.clone()))
                        .collect(),
                )
            }
            (_, Some(usual)) => usual.envelope.clone(),
            _ => None,
        };
        Answer {
            status: status
                .and_then(|status| u16::try_from(status).ok())
                .or_else(|| usual.and_then(|usual| usual.status)),
            assumed: text("statusSource").is_some() || usual.is_some_and(|usual| usual.assumed),
            types: text("contentType").map_or_else(Vec::new, content_types),
            schema: response
                .get("schema")
                .filter(|schema| !schema.is_null())
                .cloned(),
            envelope,
            validator: OnceLock::new(),
        }
    }

    /// From the `error` of a file. Shapes that nobody confirmed bind nobody.
    pub(super) fn of_failure(error: &Value) -> Answer {
        let mut answer = Answer::of(error, None);
        let unconfirmed = |schema: &Value| schema.get("confirmed") == Some(&json!(false));
        if answer.schema.as_ref().is_some_and(unconfirmed) {
            answer.schema = Some(json!({ "type": "object" }));
        }
        answer
    }

    fn allows_status(&self, status: u16) -> bool {
        let Some(usual) = self.status else {
            return true;
        };
        if status == usual {
            return true;
        }
        // part of a file, and a file that the client has
        let partial = usual == 200 && matches!(status, 206 | 304);
        partial || (self.assumed && status / 100 == usual / 100)
    }

    fn allows_type(&self, content_type: Option<&str>, empty: bool) -> bool {
        match content_type {
            None => empty || self.types.iter().any(|known| known == "*/*"),
            Some(_) if self.types.is_empty() => true,
            Some(given) => self.types.iter().any(|known| match known.split_once('/') {
                Some(("*", _)) => true,
                Some((class, "*")) => given.split('/').next() == Some(class),
                _ => essence(given) == known,
            }),
        }
    }

    fn is_json(&self) -> bool {
        self.types.iter().any(|known| known == "application/json")
    }

    pub(super) fn validator(&self, row: &Row) -> &jsonschema::Validator {
        self.validator.get_or_init(|| {
            let data = self.schema.clone().unwrap_or_else(|| json!({}));
            let mut whole = match &self.envelope {
                None => data,
                Some(extras) => {
                    let mut properties = json!({
                        "statusCode": { "type": "integer" },
                        "message": { "type": "string" },
                        "data": data,
                    });
                    extras
                        .iter()
                        .for_each(|(key, schema)| properties[key] = schema.clone());
                    json!({
                        "type": "object",
                        "properties": properties,
                        "required": ["statusCode", "message", "data"],
                    })
                }
            };
            // `#/schemas/Name` points into the file
            whole = json!({ "allOf": [whole], "schemas": row.file["schemas"] });
            jsonschema::draft202012::new(&whole)
                .unwrap_or_else(|error| panic!("the schema of {} is not valid: {error}", row.op))
        })
    }
}

/// `image/png | image/jpeg`, `*/* (from sender)`: the types a contract's words allow.
fn content_types(words: &str) -> Vec<String> {
    let types: Vec<_> = words
        .split('|')
        .map(|word| essence(word.split('(').next().unwrap_or_default()).to_owned())
        .filter(|word| word.contains('/') && !word.contains(' '))
        .collect();
    if types.is_empty() {
        vec!["*/*".to_owned()]
    } else {
        types
    }
}

fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

impl Row {
    pub(super) fn judge(&self, reply: &Reply<'_>) -> Result<(), Violation> {
        let faults = if reply.status >= 400 && self.answers[0].status != Some(reply.status) {
            self.faults_of_failure(reply)
        } else {
            self.faults_of_success(reply)
        };
        if faults.is_empty() {
            return Ok(());
        }
        Err(Violation {
            op: self.op.clone(),
            request: format!("{} {}", reply.method, reply.path),
            status: reply.status,
            faults: faults.into_iter().take(FAULTS).collect(),
        })
    }

    /// Nothing, if one of the answers fits; else what is wrong by the one that comes closest.
    fn faults_of_success(&self, reply: &Reply<'_>) -> Vec<String> {
        let by_status: Vec<_> = self
            .answers
            .iter()
            .filter(|answer| answer.allows_status(reply.status))
            .collect();
        if by_status.is_empty() {
            let known: Vec<_> = self
                .answers
                .iter()
                .filter_map(|answer| answer.status)
                .map(|s| s.to_string())
                .collect();
            return vec![format!("the status is none of {}", known.join(", "))];
        }
        if matches!(reply.status, 101 | 204 | 205 | 304) || reply.method == "HEAD" {
            let empty = reply.body.is_empty();
            return if empty {
                Vec::new()
            } else {
                vec!["there is a body".to_owned()]
            };
        }
        let by_type: Vec<_> = by_status
            .iter()
            .filter(|answer| answer.allows_type(reply.content_type, reply.body.is_empty()))
            .collect();
        if by_type.is_empty() {
            let known: Vec<_> = by_status
                .iter()
                .flat_map(|answer| answer.types.clone())
                .collect();
            return vec![format!(
                "the content type {} is none of {}",
                reply.content_type.unwrap_or("(none)"),
                known.join(", ")
            )];
        }
        let mut least = None;
        for answer in by_type {
            let faults = self.faults_of_body(answer, reply);
            if faults.is_empty() {
                return faults;
            }
            least.get_or_insert(faults);
        }
        least.unwrap_or_default()
    }

    fn faults_of_failure(&self, reply: &Reply<'_>) -> Vec<String> {
        if reply.method == "HEAD" || reply.body.is_empty() {
            return Vec::new();
        }
        let failure = &self.failure;
        if !failure.allows_type(reply.content_type, false) {
            return vec![format!(
                "the content type {} of a failure is not {}",
                reply.content_type.unwrap_or("(none)"),
                failure.types.join(", ")
            )];
        }
        let mut faults = self.faults_of_body(failure, reply);
        if self.namespace == "api"
            && let Ok(body) = serde_json::from_slice::<Value>(reply.body)
            && body
                .get("statusCode")
                .is_some_and(|status| *status != json!(reply.status))
        {
            faults.push("statusCode is not the status".to_owned());
        }
        faults
    }

    fn faults_of_body(&self, answer: &Answer, reply: &Reply<'_>) -> Vec<String> {
        let says_json = reply
            .content_type
            .is_some_and(|given| essence(given) == "application/json");
        if !answer.is_json() || !says_json {
            return Vec::new();
        }
        let body: Value = match serde_json::from_slice(reply.body) {
            Ok(body) => body,
            Err(error) => return vec![format!("the body is not JSON: {error}")],
        };
        let mut faults: Vec<String> = answer
            .validator(self)
            .iter_errors(&body)
            .map(|error| {
                let place = error.instance_path().to_string();
                let place = if place.is_empty() {
                    "/".to_owned()
                } else {
                    place
                };
                clipped(&format!("{place}: {error}"))
            })
            .collect();
        if answer.envelope.is_some()
            && body
                .get("statusCode")
                .is_some_and(|status| *status != json!(reply.status))
        {
            faults.push("statusCode is not the status".to_owned());
        }
        if self.namespace != "api" && is_envelope(&body) && !answer.wants_envelope(self, &body) {
            faults.push(
                "clients take this payload for an envelope: statusCode, message and data"
                    .to_owned(),
            );
        }
        faults
    }
}

impl Answer {
    /// Whether the schema itself asks for what makes an envelope, as that of a few rows does.
    fn wants_envelope(&self, row: &Row, body: &Value) -> bool {
        let mut bare = body.clone();
        if let Some(members) = bare.as_object_mut() {
            members.remove("statusCode");
        }
        !self.validator(row).is_valid(&bare)
    }
}

/// Whether clients would unwrap a body.
fn is_envelope(body: &Value) -> bool {
    body.get("statusCode").is_some_and(Value::is_number)
        && body.get("message").is_some_and(Value::is_string)
        && body.get("data").is_some()
}

/// Messages quote what is wrong, however long it is.
fn clipped(text: &str) -> String {
    const LONGEST: usize = 300;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {})", self.op, self.method, self.path)
    }
}

pub(super) type Extras = BTreeMap<String, Value>;
