//! Magic comments: what a script says about itself in its first lines.
//!
//! ```text
//! // @mode worker
//! // @timeout 5000
//! // @cors https://app.example
//! ```
//!
//! A value that cannot be used counts as not said, and is told as a warning; it never keeps a
//! script from running. The reader is pure and takes any text.

use std::collections::BTreeMap;
use std::time::Duration;

use kit::Fault;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::place::shorten;
use crate::schedule::Cron;

/// Lines from the top in which directives are looked for.
pub const WINDOW: usize = 60;
/// Longest line that is read as one.
const LINE_BYTES: usize = 2048;
/// Tokens of one script.
const TOKENS: usize = 32;
/// What stands for a secret in answers.
pub const REDACTED: &str = "[REDACTED]";
/// How long a request may take where its script does not say.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that a script may ask for.
pub const LONGEST: Duration = Duration::from_secs(15 * 60);
/// Requests of one script at once, where it does not say.
pub const CONCURRENT: usize = 64;
/// The most that it may ask for.
pub const MOST_CONCURRENT: usize = 512;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `true`, `false`; nothing is `true`.
    Flag,
    Whole(i64, i64),
    Number(f64, f64),
    /// Milliseconds, or a number with `ms`, `s` or `m`.
    Time(i64),
    Text,
    /// Words with commas between.
    List,
    Choice(&'static [&'static str]),
    /// One word that is not shown again.
    Secret,
    /// The same, and the directive may stand there several times.
    Secrets,
    Cron,
    /// A flag or a whole number.
    FlagOrWhole(i64, i64),
}

/// One directive.
pub struct Field {
    /// Its name in answers: `logLevel`.
    pub key: &'static str,
    /// Its name in a script, without the `@`: `log-level`.
    pub directive: &'static str,
    pub category: &'static str,
    pub kind: Kind,
    pub description: &'static str,
    /// What goes where it is not said.
    pub usual: fn() -> Value,
    pub example: &'static str,
}

macro_rules! field {
    ($key:literal, $directive:literal, $category:literal, $kind:expr, $usual:expr, $example:literal, $description:literal) => {
        Field {
            key: $key,
            directive: $directive,
            category: $category,
            kind: $kind,
            description: $description,
            usual: || json!($usual),
            example: $example,
        }
    };
}

/// Every directive there is.
pub const FIELDS: &[Field] = &[
    field!(
        "enabled",
        "enabled",
        "execution",
        Kind::Flag,
        true,
        "// @enabled false",
        "Whether the script answers at all; where not, its address is 404."
    ),
    field!(
        "token",
        "token",
        "execution",
        Kind::Secrets,
        Value::Null,
        "// @token s3cret",
        "A word that callers send as `Authorization: Bearer`, `X-Token` or `?token=`. May stand there several times; any one opens."
    ),
    field!(
        "mode",
        "mode",
        "execution",
        Kind::Choice(&["serverless", "worker"]),
        "serverless",
        "// @mode worker",
        "`worker` keeps what the script puts into the global scope between requests; `serverless` removes it."
    ),
    field!(
        "timeout",
        "timeout",
        "execution",
        Kind::Time(LONGEST.as_millis() as i64),
        30_000,
        "// @timeout 5000",
        "Milliseconds until an answer has to begin. A script that does not give way then is ended."
    ),
    field!(
        "concurrent",
        "concurrent",
        "execution",
        Kind::FlagOrWhole(1, MOST_CONCURRENT as i64),
        64,
        "// @concurrent 4",
        "Requests of this script at once; `false` is one. More are refused with 503 and Retry-After."
    ),
    field!(
        "websocket",
        "websocket",
        "execution",
        Kind::Flag,
        false,
        "// @websocket",
        "Whether the script takes WebSockets. It has to be a `worker`."
    ),
    field!(
        "websocketPre",
        "websocket-pre",
        "execution",
        Kind::Flag,
        true,
        "// @websocket-pre false",
        "Whether `pre` of its directory is asked before a WebSocket opens."
    ),
    field!(
        "rawBody",
        "rawBody",
        "execution",
        Kind::Flag,
        false,
        "// @rawBody",
        "Leave the request's body to the script, as a stream."
    ),
    field!(
        "awaitPromises",
        "await-promises",
        "execution",
        Kind::Flag,
        true,
        "// @await-promises",
        "Whether a returned promise is waited for. It always is."
    ),
    field!(
        "schedule",
        "schedule",
        "execution",
        Kind::Cron,
        Value::Null,
        "// @schedule */5 * * * *",
        "When the script runs by itself: five fields of cron, in UTC, or @hourly, @daily, @weekly, @monthly, @yearly."
    ),
    field!(
        "scheduleTimeout",
        "schedule-timeout",
        "execution",
        Kind::Time(LONGEST.as_millis() as i64),
        Value::Null,
        "// @schedule-timeout 60000",
        "Milliseconds that a scheduled run may take; `@timeout` where not said."
    ),
    field!(
        "logLevel",
        "log-level",
        "logging",
        Kind::Choice(&["none", "minimal", "standard", "full", "debug"]),
        "standard",
        "// @log-level full",
        "What of a script's words and requests is kept: nothing, errors, all but debug, or all."
    ),
    field!(
        "debug",
        "debug",
        "logging",
        Kind::Flag,
        false,
        "// @debug",
        "The same as `@log-level debug`."
    ),
    field!(
        "cors",
        "cors",
        "cors",
        Kind::Text,
        Value::Null,
        "// @cors https://app.example",
        "Which origins may read answers: `*`, one origin, or `none`. Where not said, the caller's is reflected."
    ),
    field!(
        "corsCredentials",
        "cors-credentials",
        "cors",
        Kind::Flag,
        Value::Null,
        "// @cors-credentials true",
        "Whether credentials may be sent across origins."
    ),
    field!(
        "corsMethods",
        "cors-methods",
        "cors",
        Kind::Text,
        "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        "// @cors-methods GET, POST",
        "Methods named in `Access-Control-Allow-Methods`."
    ),
    field!(
        "corsHeaders",
        "cors-headers",
        "cors",
        Kind::Text,
        Value::Null,
        "// @cors-headers content-type",
        "Headers named in `Access-Control-Allow-Headers`; those that were asked for where not said."
    ),
    field!(
        "corsMaxAge",
        "cors-max-age",
        "cors",
        Kind::Whole(0, 86_400),
        600,
        "// @cors-max-age 3600",
        "Seconds that a preflight is good for."
    ),
    field!(
        "ai",
        "ai",
        "ai",
        Kind::Flag,
        true,
        "// @ai false",
        "Whether `ai`, `model`, `openai`, `generateText`, `streamText` and `generateObject` are there."
    ),
    field!(
        "aiModel",
        "ai-model",
        "ai",
        Kind::Text,
        Value::Null,
        "// @ai-model provider/model",
        "The model that is meant where none is named; HOODY_AI_MODEL where not said."
    ),
    field!(
        "aiTemperature",
        "ai-temperature",
        "ai",
        Kind::Number(0.0, 2.0),
        Value::Null,
        "// @ai-temperature 0.7",
        "Temperature of the helpers of `ai`."
    ),
    field!(
        "aiMaxTokens",
        "ai-max-tokens",
        "ai",
        Kind::Whole(1, 1_000_000),
        Value::Null,
        "// @ai-max-tokens 2048",
        "Tokens that the helpers of `ai` ask for at most."
    ),
    field!(
        "aiKey",
        "ai-key",
        "ai",
        Kind::Secret,
        Value::Null,
        "// @ai-key key",
        "Key of the model's endpoint; HOODY_AI_KEY where not said."
    ),
    field!(
        "description",
        "description",
        "metadata",
        Kind::Text,
        Value::Null,
        "// @description Says hello",
        "What the script is for."
    ),
    field!(
        "tags",
        "tags",
        "metadata",
        Kind::List,
        Value::Null,
        "// @tags demo, hello",
        "Words to find it by."
    ),
    field!(
        "label",
        "label",
        "metadata",
        Kind::Text,
        Value::Null,
        "// @label greeting",
        "A name to find it by."
    ),
];

/// The directive of this name, in either spelling.
pub fn field(name: &str) -> Option<&'static Field> {
    FIELDS
        .iter()
        .find(|field| field.directive.eq_ignore_ascii_case(name) || field.key == name)
}

/// A value that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Warning {
    /// The directive, with its `@`.
    pub directive: String,
    /// What was said.
    pub value: String,
    /// Why it does not count.
    pub message: String,
}

/// What a script says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Directives {
    /// By key; secrets as they are.
    values: BTreeMap<&'static str, Value>,
    pub warnings: Vec<Warning>,
}

/// A line with a directive.
struct Said<'a> {
    line: usize,
    name: &'a str,
    value: &'a str,
}

fn said(text: &str) -> impl Iterator<Item = Said<'_>> {
    text.lines()
        .take(WINDOW)
        .enumerate()
        .filter_map(|(line, text)| {
            if text.len() > LINE_BYTES {
                return None;
            }
            let rest = text
                .trim()
                .strip_prefix("//")?
                .trim_start_matches('/')
                .trim();
            let rest = rest.strip_prefix('@')?;
            let end = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
                .unwrap_or(rest.len());
            let (name, value) = rest.split_at(end);
            let separated = value.is_empty() || value.starts_with([' ', '\t', ':', '=']);
            (separated && !name.is_empty()).then(|| Said {
                line,
                name,
                value: value.trim_start_matches([' ', '\t', ':', '=']).trim(),
            })
        })
}

impl Directives {
    /// Read the directives of a script.
    pub fn read(text: &str) -> Directives {
        let mut directives = Directives::default();
        for Said { name, value, .. } in said(text) {
            let Some(field) = field(name) else { continue };
            let warn = |message: String| Warning {
                directive: format!("@{}", field.directive),
                value: match field.kind {
                    Kind::Secret | Kind::Secrets => REDACTED.to_owned(),
                    _ => shorten(value),
                },
                message,
            };
            match parse(field.kind, value) {
                Err(message) => directives.warnings.push(warn(message)),
                Ok(read) if field.kind == Kind::Secrets => {
                    if value.split_whitespace().count() > 1 {
                        let message = "one word is read; the rest of the line is not".to_owned();
                        directives.warnings.push(warn(message));
                    }
                    let tokens = directives
                        .values
                        .entry(field.key)
                        .or_insert_with(|| json!([]));
                    match tokens.as_array_mut() {
                        Some(tokens) if tokens.len() < TOKENS => tokens.push(read),
                        _ => directives
                            .warnings
                            .push(warn(format!("{TOKENS} are read and no more"))),
                    }
                }
                Ok(read) => {
                    if directives.values.insert(field.key, read).is_some() {
                        directives
                            .warnings
                            .push(warn("said twice; the last one counts".to_owned()));
                    }
                }
            }
        }
        if directives.flag("websocket", false) && directives.mode() != "worker" {
            directives.warnings.push(Warning {
                directive: "@websocket".to_owned(),
                value: "true".to_owned(),
                message: "sockets are closed with 4400 unless the script says `@mode worker`"
                    .to_owned(),
            });
        }
        directives
    }

    /// What was said, secrets not shown.
    pub fn shown(&self) -> Map<String, Value> {
        self.values
            .iter()
            .map(|(key, value)| {
                let secret = field(key)
                    .is_some_and(|field| matches!(field.kind, Kind::Secret | Kind::Secrets));
                let value = match (secret, value) {
                    (true, Value::Array(tokens)) => json!(vec![REDACTED; tokens.len()]),
                    (true, _) => json!(REDACTED),
                    (false, value) => value.clone(),
                };
                ((*key).to_owned(), value)
            })
            .collect()
    }

    /// The same, or null where nothing was said.
    pub fn shown_or_null(&self) -> Value {
        match self.values.is_empty() {
            true => Value::Null,
            false => Value::Object(self.shown()),
        }
    }

    fn flag(&self, key: &str, usual: bool) -> bool {
        self.values
            .get(key)
            .and_then(Value::as_bool)
            .unwrap_or(usual)
    }
    pub fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).and_then(Value::as_str)
    }
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }
    fn millis(&self, key: &str) -> Option<Duration> {
        self.values
            .get(key)
            .and_then(Value::as_u64)
            .map(Duration::from_millis)
    }
    pub fn enabled(&self) -> bool {
        self.flag("enabled", true)
    }
    pub fn mode(&self) -> &str {
        self.text("mode").unwrap_or("serverless")
    }
    pub fn websocket(&self) -> bool {
        self.flag("websocket", false)
    }
    pub fn websocket_pre(&self) -> bool {
        self.flag("websocketPre", true)
    }
    pub fn raw_body(&self) -> bool {
        self.flag("rawBody", false)
    }
    pub fn ai(&self) -> bool {
        self.flag("ai", true)
    }
    pub fn timeout(&self) -> Duration {
        self.millis("timeout").unwrap_or(TIMEOUT)
    }
    pub fn schedule_timeout(&self) -> Duration {
        self.millis("scheduleTimeout")
            .unwrap_or_else(|| self.timeout())
    }
    pub fn schedule(&self) -> Option<&str> {
        self.text("schedule")
    }
    pub fn concurrent(&self) -> usize {
        match self.values.get("concurrent") {
            Some(Value::Bool(false)) => 1,
            Some(value) => value
                .as_u64()
                .and_then(|many| usize::try_from(many).ok())
                .unwrap_or(CONCURRENT),
            None => CONCURRENT,
        }
    }
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.values
            .get("token")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    }
    pub fn log_level(&self) -> &str {
        match self.flag("debug", false) {
            true => "debug",
            false => self.text("logLevel").unwrap_or("standard"),
        }
    }
    pub fn cors_credentials(&self) -> Option<bool> {
        self.values.get("corsCredentials").and_then(Value::as_bool)
    }
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.values
            .get("tags")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    }
}

fn parse(kind: Kind, text: &str) -> Result<Value, String> {
    let flag = |text: &str| match text.to_ascii_lowercase().as_str() {
        "" | "true" | "on" | "yes" | "1" => Some(true),
        "false" | "off" | "no" | "0" => Some(false),
        _ => None,
    };
    let whole = |text: &str, least: i64, most: i64| match text.parse::<i64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(json!(number)),
        _ => Err(format!("it is a whole number from {least} to {most}")),
    };
    match kind {
        Kind::Flag => flag(text)
            .map(Value::Bool)
            .ok_or_else(|| "it is true or false".to_owned()),
        Kind::Whole(least, most) => whole(text, least, most),
        Kind::FlagOrWhole(least, most) => match text.parse::<i64>() {
            Ok(_) => whole(text, least, most),
            Err(_) => flag(text).map(Value::Bool).ok_or_else(|| {
                format!("it is true, false, or a whole number from {least} to {most}")
            }),
        },
        Kind::Number(least, most) => match text.parse::<f64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(json!(number)),
            _ => Err(format!("it is a number from {least} to {most}")),
        },
        Kind::Time(most) => {
            let wrong = || format!("it is a time of 1 to {most} milliseconds: 5000, 5s or 1m");
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            let (number, unit) = text.split_at(digits);
            let factor = match unit.trim() {
                "" | "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                _ => return Err(wrong()),
            };
            number
                .parse::<i64>()
                .ok()
                .and_then(|number| number.checked_mul(factor))
                .filter(|time| (1..=most).contains(time))
                .map(|time| json!(time))
                .ok_or_else(wrong)
        }
        Kind::Text if text.is_empty() => Err("it says nothing".to_owned()),
        Kind::Text => Ok(json!(text)),
        Kind::List => {
            let words: Vec<&str> = text
                .split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .collect();
            match words.is_empty() {
                true => Err("it says nothing".to_owned()),
                false => Ok(json!(words)),
            }
        }
        Kind::Choice(some) => some
            .iter()
            .find(|one| one.eq_ignore_ascii_case(text))
            .map(|one| json!(one))
            .ok_or_else(|| format!("it is one of {}", some.join(", "))),
        Kind::Secret | Kind::Secrets => text
            .split_whitespace()
            .next()
            .map(|word| json!(word))
            .ok_or_else(|| "it says nothing".to_owned()),
        Kind::Cron => Cron::read(text)
            .map(|_| json!(text))
            .map_err(|error| error.to_string()),
    }
}

/// The text of a script with other directives: `changes` by name, null or an empty text to remove.
/// What is written reads back as it was sent, or is refused. Returns what changed, in words.
pub fn change(text: &str, changes: &Map<String, Value>) -> Result<(String, Vec<String>), Fault> {
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let mut words = Vec::new();
    for (name, value) in changes {
        let Some(field) =
            field(name).or_else(|| (name == "tokens").then(|| field("token")).flatten())
        else {
            continue;
        };
        let wanted = values_of(field, value)?;
        let whole = lines.join("\n");
        let before: Vec<(usize, String)> = said(&whole)
            .filter(|it| field.directive.eq_ignore_ascii_case(it.name) || it.name == field.key)
            .map(|it| (it.line, it.value.to_owned()))
            .collect();
        // a secret that was shown as a placeholder stays what it is
        let wanted: Vec<String> = wanted
            .into_iter()
            .enumerate()
            .map(|(at, text)| match text.as_str() {
                REDACTED => before
                    .get(at)
                    .map(|(_, kept)| kept.clone())
                    .ok_or_else(|| unresolved(field)),
                _ => Ok(text),
            })
            .collect::<Result<_, _>>()?;
        if before.iter().map(|(_, value)| value).eq(wanted.iter()) {
            continue;
        }
        words.push(match (before.is_empty(), wanted.is_empty()) {
            (true, _) => format!("added @{}", field.directive),
            (_, true) => format!("removed @{}", field.directive),
            _ => format!("changed @{}", field.directive),
        });
        let at = before
            .first()
            .map_or_else(|| header_end(&lines), |(line, _)| *line);
        for (line, _) in before.iter().rev() {
            lines.remove(*line);
        }
        for (nth, value) in wanted.iter().enumerate() {
            let line = match value.is_empty() {
                true => format!("// @{}", field.directive),
                false => format!("// @{} {value}", field.directive),
            };
            lines.insert(at + nth, line);
        }
    }
    let changed = lines.join("\n");
    let read = Directives::read(&changed);
    if let Some(warning) = read.warnings.iter().find(|warning| {
        changes.keys().any(|name| {
            field(name).is_some_and(|field| warning.directive == format!("@{}", field.directive))
        }) && warning.directive != "@websocket"
    }) {
        return Err(Fault::bad_request(format!(
            "{} cannot be `{}`: {}",
            warning.directive, warning.value, warning.message
        ))
        .code("INVALID_DIRECTIVE"));
    }
    Ok((changed, words))
}

fn unresolved(field: &Field) -> Fault {
    Fault::bad_request(format!(
        "`{REDACTED}` stands for a secret that is kept, and the script has no @{}",
        field.directive
    ))
    .code("REDACTED_SECRET_UNRESOLVED")
}

/// Directives are added below the last one, else at the top, below a `#!` line.
fn header_end(lines: &[String]) -> usize {
    let whole = lines.join("\n");
    let last = said(&whole).map(|it| it.line + 1).last();
    last.unwrap_or_else(|| usize::from(lines.first().is_some_and(|line| line.starts_with("#!"))))
}

fn values_of(field: &Field, value: &Value) -> Result<Vec<String>, Fault> {
    let one = |value: &Value| -> Result<String, Fault> {
        let text = match value {
            Value::String(text) => text.trim().to_owned(),
            Value::Bool(true) if matches!(field.kind, Kind::Flag) => "true".to_owned(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Array(words) if field.kind == Kind::List => words
                .iter()
                .filter_map(Value::as_str)
                .map(str::trim)
                .collect::<Vec<_>>()
                .join(", "),
            _ => {
                return Err(Fault::bad_request(format!(
                    "@{} cannot be {}",
                    field.directive,
                    shorten(&value.to_string())
                ))
                .code("INVALID_DIRECTIVE"));
            }
        };
        if text.contains(['\n', '\r', '\u{2028}', '\u{2029}']) || text.len() > LINE_BYTES / 2 {
            return Err(Fault::bad_request(format!(
                "@{} has to fit into one line",
                field.directive
            ))
            .code("INVALID_DIRECTIVE"));
        }
        Ok(text)
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) if text.trim().is_empty() => Ok(Vec::new()),
        Value::Array(many) if field.kind == Kind::Secrets => many.iter().map(one).collect(),
        other => Ok(vec![one(other)?]),
    }
}

/// The text of a script as others may read it: secrets replaced.
pub fn redact(text: &str) -> String {
    let secrets: Vec<usize> = secret_lines(text).map(|it| it.line).collect();
    if secrets.is_empty() {
        return text.to_owned();
    }
    let lines = text.split('\n').enumerate().map(|(at, line)| {
        if !secrets.contains(&at) {
            return line.to_owned();
        }
        let end = if line.ends_with('\r') { "\r" } else { "" };
        let name = line.find('@').map_or("", |at| &line[at + 1..]);
        let name = name
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
            .next()
            .unwrap_or_default();
        format!("// @{name} {REDACTED}{end}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Put the secrets of the text that is kept in the place of placeholders in a new one.
pub fn restore(text: &str, kept: Option<&str>) -> Result<String, Fault> {
    let wanted: Vec<(usize, &'static Field)> = secret_lines(text)
        .filter(|it| it.value.split_whitespace().next() == Some(REDACTED))
        .filter_map(|it| Some((it.line, field(it.name)?)))
        .collect();
    if wanted.is_empty() {
        return Ok(text.to_owned());
    }
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let mut used: BTreeMap<&str, usize> = BTreeMap::new();
    for (line, its) in wanted {
        let nth = used.entry(its.key).or_default();
        let value = secret_lines(kept.unwrap_or_default())
            .filter(|it| field(it.name).is_some_and(|known| known.key == its.key))
            .nth(*nth)
            .map(|it| it.value.to_owned())
            .ok_or_else(|| unresolved(its))?;
        *nth += 1;
        lines[line] = format!("// @{} {value}", its.directive);
    }
    Ok(lines.join("\n"))
}

fn secret_lines(text: &str) -> impl Iterator<Item = Said<'_>> {
    said(text).filter(|it| {
        field(it.name).is_some_and(|field| matches!(field.kind, Kind::Secret | Kind::Secrets))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_script_says_what_it_is() {
        let read = Directives::read(
            "#!x\n// @mode worker\n// @timeout 5s\n//@cors *\n// @token abc\n// @token def ghi\n// @tags a, b\n// @nothing known\n// @websocket\n// @concurrent false\nreturn 1",
        );
        assert_eq!(read.mode(), "worker");
        assert_eq!(read.timeout(), Duration::from_secs(5));
        assert_eq!(read.text("cors"), Some("*"));
        assert_eq!(read.tokens().collect::<Vec<_>>(), ["abc", "def"]);
        assert_eq!(read.tags().collect::<Vec<_>>(), ["a", "b"]);
        assert!(read.websocket() && read.concurrent() == 1);
        assert_eq!(read.warnings.len(), 1, "{:?}", read.warnings);
        assert_eq!(read.shown()["token"], json!([REDACTED, REDACTED]));
        assert!(!format!("{:?}", read.warnings).contains("ghi"));
    }

    #[test]
    fn what_cannot_be_used_is_told_and_counts_as_not_said() {
        for text in [
            "// @timeout -1",
            "// @timeout 99999999999999999999",
            "// @mode both",
            "// @concurrent 0",
            "// @schedule every day",
            "// @schedule * * * * * *",
            "// @ai-temperature 9",
            "// @enabled perhaps",
            "// @label",
        ] {
            let read = Directives::read(text);
            assert_eq!(read.warnings.len(), 1, "{text}");
            assert_eq!(read.shown_or_null(), Value::Null, "{text}");
        }
        // beyond the window, in code, or with something else in front, nothing is a directive
        let far = format!("{}// @enabled false", "\n".repeat(WINDOW));
        for text in [
            &far[..],
            "x // @enabled false",
            "/* @enabled false */",
            "// @enabledfalse",
        ] {
            assert!(Directives::read(text).enabled(), "{text}");
        }
    }

    #[test]
    fn changes_read_back_as_they_were_sent() {
        let text = "#!run\n// @mode worker\n// @token a\nreturn 1\n";
        let change = |changes: Value| change(text, changes.as_object().unwrap());
        let (made, words) =
            change(json!({ "mode": "serverless", "timeout": 5000, "label": "x" })).unwrap();
        assert_eq!(words, ["added @label", "changed @mode", "added @timeout"]);
        let read = Directives::read(&made);
        assert_eq!((read.mode(), read.text("label")), ("serverless", Some("x")));
        assert!(
            made.ends_with("return 1\n") && made.starts_with("#!run\n"),
            "{made}"
        );
        let (made, _) = change(json!({ "mode": null, "token": [REDACTED, "b"] }))
            .unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(
            Directives::read(&made).tokens().collect::<Vec<_>>(),
            ["a", "b"]
        );
        for wrong in [
            json!({ "mode": "x" }),
            json!({ "label": "a\nreturn 2" }),
            json!({ "token": ["a", REDACTED, REDACTED] }),
            json!({ "timeout": {} }),
            json!({ "schedule": "never" }),
        ] {
            assert!(change(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn secrets_do_not_leave_and_come_back() {
        let text = "// @token one\r\n// @ai-key two\nreturn '@token three'";
        let shown = redact(text);
        assert!(!shown.contains("one") && !shown.contains("two") && shown.contains("three"));
        let back = restore(&shown, Some(text)).unwrap();
        assert_eq!(Directives::read(&back), Directives::read(text));
        assert!(restore(&shown, None).is_err());
        assert!(restore(&shown, Some("// @token one")).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(?s).{0,400}") {
            let read = Directives::read(&text);
            prop_assert!(read.timeout() <= LONGEST && read.concurrent() >= 1);
            let shown = redact(&text);
            for token in read.tokens().filter(|token| token.len() > 12) {
                prop_assert!(!Directives::read(&shown).tokens().any(|it| it == token));
            }
        }

        #[test]
        fn directives_read_as_they_are_made(name in 0..FIELDS.len(), value in "[ -~]{0,40}") {
            let text = format!("// @{} {value}\nreturn 1", FIELDS[name].directive);
            let read = Directives::read(&text);
            let known = read.value(FIELDS[name].key).is_some() || !read.warnings.is_empty();
            prop_assert!(known, "{text}");
        }
    }
}
