//! From the text of a request to typed arguments.
//!
//! Everything in a path or a query string is text; the operation's schema says what it stands for.

use serde_json::{Map, Value};

use crate::Fault;

/// Merge body, query and path into one object: path and query win over the body; what came in
/// headers counts as path. A key repeated
/// in the query is a list where the schema wants one; elsewhere the last value given wins.
pub fn merge(
    schema: &Value,
    body: Option<Value>,
    query: impl IntoIterator<Item = (String, String)>,
    path: impl IntoIterator<Item = (String, String)>,
) -> Result<Map<String, Value>, Fault> {
    let mut arguments = match body {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(map)) => map,
        Some(_) => {
            return Err(Fault::bad_request("the request body must be a JSON object"));
        }
    };
    let mut texts: Vec<(String, String)> = Vec::new();
    for (name, text) in query {
        let Some(property) = property(schema, &name, 0) else {
            continue;
        };
        match texts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) if Kinds::of(schema, property).array && !old.is_empty() => {
                if !text.is_empty() {
                    old.push(',');
                    old.push_str(&text);
                }
            }
            Some((_, old)) if !text.is_empty() => *old = text,
            Some(_) => {}
            None => texts.push((name, text)),
        }
    }
    for (name, text) in texts.into_iter().chain(path) {
        if let Some(property) = property(schema, &name, 0) {
            arguments.insert(name, typed(schema, property, text));
        }
    }
    Ok(arguments)
}

/// The schema of one parameter, wherever in the alternatives of the input it stands.
fn property<'a>(schema: &'a Value, name: &str, depth: usize) -> Option<&'a Value> {
    if let Some(found) = schema
        .get("properties")
        .and_then(|properties| properties.get(name))
    {
        return Some(found);
    }
    if depth > DEPTH {
        return None;
    }
    ["allOf", "anyOf", "oneOf"]
        .iter()
        .filter_map(|key| schema.get(key)?.as_array())
        .flatten()
        .find_map(|part| property(part, name, depth + 1))
}

/// How deep alternatives and references are followed; references can be circular.
const DEPTH: usize = 8;

/// What the text stands for under this schema; the text itself where nothing else fits.
fn typed(root: &Value, schema: &Value, text: String) -> Value {
    let kinds = Kinds::of(root, schema);
    if kinds.integer
        && let Ok(number) = text.parse::<i64>()
    {
        return number.into();
    }
    if kinds.integer
        && let Ok(number) = text.parse::<u64>()
    {
        return number.into();
    }
    if kinds.number
        && let Ok(number) = text.parse::<f64>()
        && number.is_finite()
    {
        return number.into();
    }
    if kinds.boolean {
        match text.as_str() {
            "true" | "1" | "" => return true.into(),
            "false" | "0" => return false.into(),
            _ => {}
        }
    }
    if kinds.string {
        return text.into();
    }
    if kinds.null && text.is_empty() {
        return Value::Null;
    }
    if (kinds.array || kinds.object)
        && let Ok(value) = serde_json::from_str::<Value>(&text)
        && ((value.is_array() && kinds.array) || (value.is_object() && kinds.object))
    {
        return value;
    }
    if kinds.array {
        let item = schema.get("items").unwrap_or(&Value::Null);
        return text
            .split(',')
            .filter(|part| !part.is_empty())
            .map(|part| typed(root, item, part.to_owned()))
            .collect();
    }
    text.into()
}

/// Which JSON types a schema admits.
#[derive(Default)]
struct Kinds {
    integer: bool,
    number: bool,
    boolean: bool,
    string: bool,
    array: bool,
    object: bool,
    null: bool,
}

impl Kinds {
    fn of(root: &Value, schema: &Value) -> Kinds {
        let mut kinds = Kinds::default();
        kinds.gather(root, schema, 0);
        kinds
    }

    fn gather(&mut self, root: &Value, schema: &Value, depth: usize) {
        if depth > DEPTH {
            return;
        }
        match schema.get("type") {
            Some(Value::String(kind)) => self.admit(kind),
            Some(Value::Array(list)) => {
                list.iter()
                    .filter_map(Value::as_str)
                    .for_each(|kind| self.admit(kind));
            }
            _ => {}
        }
        for key in ["anyOf", "oneOf", "allOf"] {
            for part in schema
                .get(key)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                self.gather(root, part, depth + 1);
            }
        }
        if schema.get("enum").is_some() || schema.get("const").is_some_and(Value::is_string) {
            self.string = true;
        }
        if let Some(target) = schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|reference| root.pointer(reference.strip_prefix('#')?))
        {
            self.gather(root, target, depth + 1);
        }
    }

    fn admit(&mut self, kind: &str) {
        match kind {
            "integer" => self.integer = true,
            "number" => self.number = true,
            "boolean" => self.boolean = true,
            "string" => self.string = true,
            "array" => self.array = true,
            "object" => self.object = true,
            "null" => self.null = true,
            _ => {}
        }
    }
}

/// Decode a query string: every pair, in order.
pub fn query_all(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(name), decode(value))
        })
        .collect()
}

/// Decode a query string; of a repeated key the last value that is not empty wins.
pub fn query_pairs(query: &str) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (name, value) in query_all(query) {
        match pairs.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) if !value.is_empty() => *old = value,
            Some(_) => {}
            None => pairs.push((name, value)),
        }
    }
    pairs
}

fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced)
        .decode_utf8_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: Value, text: &str, want: Value) {
        let schema = json!({ "properties": { "x": schema } });
        let merged = merge(&schema, None, [("x".to_owned(), text.to_owned())], []).unwrap();
        assert_eq!(merged["x"], want, "{text} under {schema}");
    }

    #[test]
    fn text_becomes_what_the_schema_says() {
        check(json!({ "type": "integer" }), "42", json!(42));
        check(json!({ "type": "integer" }), "forty", json!("forty"));
        check(json!({ "type": ["integer", "null"] }), "42", json!(42));
        check(
            json!({ "type": "integer" }),
            "18446744073709551615",
            json!(u64::MAX),
        );
        check(json!({ "type": "number" }), "1.5", json!(1.5));
        check(json!({ "type": "string" }), "42", json!("42"));
        check(json!({ "type": "boolean" }), "true", json!(true));
        check(json!({ "type": "boolean" }), "", json!(true));
        check(json!({ "type": "boolean" }), "no", json!("no"));
        check(
            json!({ "type": "array", "items": { "type": "integer" } }),
            "1,2",
            json!([1, 2]),
        );
        check(
            json!({ "type": "array", "items": { "type": "string" } }),
            "[\"a,b\"]",
            json!(["a,b"]),
        );
        check(json!({ "type": "array" }), "a,b", json!(["a", "b"]));
        check(
            json!({ "anyOf": [{ "enum": ["a"] }, { "type": "null" }] }),
            "a",
            json!("a"),
        );
    }

    #[test]
    fn query_wins_over_body_and_path_over_query() {
        let schema =
            json!({ "properties": { "a": { "type": "string" }, "b": { "type": "string" } } });
        let merged = merge(
            &schema,
            Some(json!({ "a": "body", "b": "body" })),
            [("a".into(), "query".into()), ("b".into(), "query".into())],
            [("a".into(), "path".into())],
        )
        .unwrap();
        assert_eq!(Value::from(merged), json!({ "a": "path", "b": "query" }));
    }

    #[test]
    fn repeated_keys_of_a_list_add_up() {
        let schema = json!({ "properties": { "x": { "type": ["array", "null"], "items": { "type": "integer" } } } });
        let merged = merge(&schema, None, query_all("x=1&x=2,3&x="), []).unwrap();
        assert_eq!(merged["x"], json!([1, 2, 3]));
    }

    #[test]
    fn parameters_are_found_in_alternatives() {
        let schema = json!({ "oneOf": [
            { "properties": { "a": { "type": "string" } } },
            { "properties": { "b": { "type": "integer" } } },
        ] });
        let merged = merge(&schema, None, query_all("b=7&c=8"), []).unwrap();
        assert_eq!(Value::from(merged), json!({ "b": 7 }));
    }

    #[test]
    fn repeated_keys_keep_the_last_value_given() {
        assert_eq!(
            query_pairs("zip=a%2Fb&zip=&x=1+2"),
            [
                ("zip".to_owned(), "a/b".to_owned()),
                ("x".to_owned(), "1 2".to_owned())
            ]
        );
    }
}
