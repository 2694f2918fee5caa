//! What was typed, as a request.

use std::io::Read;
use std::path::PathBuf;

use clap::ArgMatches;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use super::tree::id;
use super::verb::{Body, Kind, Parameter, Place, Verb};

/// A request before anyone is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub method: String,
    /// The template, and what goes into it.
    pub path: String,
    pub inserts: Vec<(String, String)>,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub payload: Payload,
}

/// What a request carries.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    None,
    Json(Map<String, Value>),
    /// Bytes of this content type, streamed.
    File {
        content_type: String,
        path: PathBuf,
    },
    Stdin {
        content_type: String,
    },
}

/// A command that was used wrongly.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// What a path segment and a query value may hold as they are (RFC 3986, unreserved).
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Longest body that flags and `--body` make; larger ones are files, which are streamed.
const MAX_BODY: u64 = 16 << 20;

impl Request {
    /// The request that `matches` of the verb's command stand for.
    pub fn new(verb: &Verb, matches: &ArgMatches) -> Result<Request, Usage> {
        let mut request = Request {
            method: verb.method.clone(),
            path: verb.path.clone(),
            inserts: Vec::new(),
            query: Vec::new(),
            headers: Vec::new(),
            payload: payload(verb, matches)?,
        };
        if let Some(selector) = &verb.selector {
            let (key, value) = selector.split_once('=').unwrap_or((selector, ""));
            request.query.push((key.to_owned(), value.to_owned()));
        }
        if let Payload::Json(members) = &mut request.payload {
            members.extend(verb.fixed.iter().cloned());
        }
        for parameter in &verb.parameters {
            let Some(texts) = matches.get_many::<String>(&id(parameter)) else {
                continue;
            };
            let texts: Vec<&str> = texts.map(String::as_str).collect();
            let value = value(parameter, &texts)?;
            match parameter.place {
                Place::Path => {
                    let text = plain(&value);
                    if text.is_empty() {
                        return Err(Usage(format!("{} must not be empty", called(parameter))));
                    }
                    request.inserts.push((parameter.name.clone(), text));
                }
                Place::Query => request.set_query(&parameter.name, plain(&value)),
                Place::Header => request
                    .headers
                    .push((parameter.name.clone(), plain(&value))),
                Place::Body => {
                    if let Payload::Json(members) = &mut request.payload {
                        members.insert(parameter.name.clone(), value);
                    }
                }
            }
        }
        Ok(request)
    }

    /// A request without parameters.
    pub fn plain(method: &str, path: impl Into<String>) -> Request {
        Request {
            method: method.to_owned(),
            path: path.into(),
            inserts: Vec::new(),
            query: Vec::new(),
            headers: Vec::new(),
            payload: Payload::None,
        }
    }

    /// A request with this JSON body.
    pub fn json(method: &str, path: impl Into<String>, body: Value) -> Request {
        let Value::Object(members) = body else {
            panic!("bodies are objects: {body}")
        };
        Request {
            payload: Payload::Json(members),
            ..Request::plain(method, path)
        }
    }

    /// Set a query parameter, once.
    pub fn set_query(&mut self, name: &str, value: String) {
        self.query.retain(|(known, _)| known != name);
        self.query.push((name.to_owned(), value));
    }

    /// Path and query as they go over the wire.
    pub fn target(&self) -> String {
        let mut target = self.path.clone();
        for (name, value) in &self.inserts {
            target = target.replace(&format!("{{{name}}}"), &segment(value));
        }
        let pairs: Vec<String> = self
            .query
            .iter()
            .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
            .collect();
        if pairs.is_empty() {
            target
        } else {
            format!("{target}?{}", pairs.join("&"))
        }
    }
}

/// A value as one segment of a path. `.` and `..` would be taken for steps, so they go as `./`.
fn segment(text: &str) -> String {
    match text {
        "." | ".." => format!("{text}%2F"),
        _ => encoded(text),
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// A value as path and query hold it: lists as `a,b`, the rest as it reads.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// A parameter as the command line calls it.
fn called(parameter: &Parameter) -> String {
    match &parameter.flag {
        Some(flag) => format!("--{flag}"),
        None => parameter.name.to_uppercase(),
    }
}

/// The value that a parameter's texts stand for.
fn value(parameter: &Parameter, texts: &[&str]) -> Result<Value, Usage> {
    let name = called(parameter);
    let wrong = |what: &str, text: &str| Usage(format!("{name} takes {what}, not `{text}`"));
    let text = texts.last().copied().unwrap_or_default();
    Ok(match parameter.kind {
        Kind::Text => text.into(),
        Kind::Flag => (text == "true").into(),
        Kind::Integer => {
            let number = text
                .parse::<i64>()
                .map(Value::from)
                .or_else(|_| text.parse::<u64>().map(Value::from));
            number.map_err(|_| wrong("a whole number", text))?
        }
        Kind::Number => {
            let number = text.parse::<f64>().ok().and_then(|number| {
                // `1` stays `1`
                text.parse::<i64>()
                    .map(Value::from)
                    .ok()
                    .or_else(|| serde_json::Number::from_f64(number).map(Value::from))
            });
            number.ok_or_else(|| wrong("a number", text))?
        }
        Kind::List => {
            let mut items = Vec::new();
            for text in texts {
                match serde_json::from_str(text) {
                    Ok(Value::Array(given)) => items.extend(given),
                    _ => items.extend(
                        text.split(',')
                            .filter(|item| !item.is_empty())
                            .map(Value::from),
                    ),
                }
            }
            items.into()
        }
        Kind::Map => {
            let mut members = Map::new();
            for text in texts {
                match serde_json::from_str(text) {
                    Ok(Value::Object(given)) => members.extend(given),
                    _ => {
                        let (key, value) = text
                            .split_once('=')
                            .ok_or_else(|| wrong("KEY=VALUE or a JSON object", text))?;
                        members.insert(key.to_owned(), value.into());
                    }
                }
            }
            members.into()
        }
        Kind::Json => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
    })
}

fn payload(verb: &Verb, matches: &ArgMatches) -> Result<Payload, Usage> {
    let given = match verb.body {
        Body::None => None,
        _ => matches.get_one::<String>("body").map(String::as_str),
    };
    match &verb.body {
        Body::None => Ok(Payload::None),
        Body::Json => given
            .map_or_else(|| Ok(Map::new()), object)
            .map(Payload::Json),
        Body::Bytes(kind) => {
            let content_type = if kind.contains('*') {
                "application/octet-stream"
            } else {
                kind
            }
            .to_owned();
            Ok(match given {
                None | Some("-") => Payload::Stdin { content_type },
                Some(path) => Payload::File {
                    content_type,
                    path: path.into(),
                },
            })
        }
    }
}

/// `JSON`, `@FILE` or `-`, as a JSON object.
fn object(given: &str) -> Result<Map<String, Value>, Usage> {
    let text = match given.strip_prefix('@') {
        _ if given == "-" => read("standard input", std::io::stdin())?,
        Some(path) => {
            let file = std::fs::File::open(path);
            read(
                path,
                file.map_err(|error| Usage(format!("could not open {path}: {error}")))?,
            )?
        }
        None => given.to_owned(),
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Usage("--body takes a JSON object".to_owned())),
        Err(error) => Err(Usage(format!("--body is not JSON: {error}"))),
    }
}

fn read(name: &str, source: impl Read) -> Result<String, Usage> {
    let mut text = String::new();
    let read = source.take(MAX_BODY + 1).read_to_string(&mut text);
    read.map_err(|error| Usage(format!("could not read {name}: {error}")))?;
    if text.len() as u64 > MAX_BODY {
        return Err(Usage(format!("{name} is larger than {MAX_BODY} bytes")));
    }
    Ok(text)
}
