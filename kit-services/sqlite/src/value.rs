//! Values of SQLite and what they are in JSON, there and back without losing anything.
//!
//! | SQLite | JSON |
//! |---|---|
//! | NULL | `null` |
//! | INTEGER | a number with all its digits |
//! | REAL | a number; `"Infinity"` and `"-Infinity"` as text, since JSON has no word for them |
//! | TEXT | a string; bytes that are no UTF-8 are replaced |
//! | BLOB | `{"type": "blob", "base64": ".."}` |
//!
//! Readers whose numbers are all floating point (JavaScript) ask for `typed` values, which are what
//! Hrana has: `{"type": "integer", "value": "9007199254740993"}`. Both forms are taken as
//! parameters.

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rusqlite::types::{Value as Sql, ValueRef};
use serde_json::{Number, Value as Json, json};

/// Base64 as everybody writes it, with and without padding.
pub const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The value of a column.
pub fn of(value: ValueRef<'_>) -> Sql {
    match value {
        ValueRef::Null => Sql::Null,
        ValueRef::Integer(number) => Sql::Integer(number),
        ValueRef::Real(number) => Sql::Real(number),
        ValueRef::Text(bytes) => Sql::Text(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => Sql::Blob(bytes.to_vec()),
    }
}

/// Bytes that a value takes on its way, about.
pub fn weight(value: ValueRef<'_>) -> usize {
    // what a value is in memory, whatever it holds
    const LEAST: usize = 32;
    match value {
        ValueRef::Text(bytes) => bytes.len() + LEAST,
        // base64
        ValueRef::Blob(bytes) => bytes.len() / 3 * 4 + LEAST,
        _ => LEAST,
    }
}

/// A value as plain JSON.
pub fn plain(value: Sql) -> Json {
    match value {
        Sql::Null => Json::Null,
        Sql::Integer(number) => number.into(),
        Sql::Real(number) => match Number::from_f64(number) {
            Some(number) => number.into(),
            None if number == f64::INFINITY => "Infinity".into(),
            None if number == f64::NEG_INFINITY => "-Infinity".into(),
            // SQLite itself makes NULL of it
            None => Json::Null,
        },
        Sql::Text(text) => text.into(),
        Sql::Blob(bytes) => json!({ "type": "blob", "base64": BASE64.encode(bytes) }),
    }
}

/// A value with its type.
pub fn typed(value: Sql) -> Json {
    match value {
        Sql::Null => json!({ "type": "null" }),
        Sql::Integer(number) => json!({ "type": "integer", "value": number.to_string() }),
        Sql::Real(number) => json!({ "type": "float", "value": plain(Sql::Real(number)) }),
        Sql::Text(text) => json!({ "type": "text", "value": text }),
        Sql::Blob(bytes) => plain(Sql::Blob(bytes)),
    }
}

/// The value that a parameter stands for; a sentence where it stands for none.
pub fn read(json: Json) -> Result<Sql, String> {
    Ok(match json {
        Json::Null => Sql::Null,
        Json::Bool(flag) => Sql::Integer(flag.into()),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Sql::Integer(number),
            (None, _) if number.is_u64() => {
                return Err(format!(
                    "{number} is larger than the largest integer, {}",
                    i64::MAX
                ));
            }
            (None, Some(number)) => Sql::Real(number),
            (None, None) => return Err(format!("{number} is no number that SQLite has")),
        },
        Json::String(text) => Sql::Text(text),
        Json::Object(members) => return tagged(&members),
        Json::Array(_) => {
            return Err("a list is no value; store it as text, with its JSON as a string".into());
        }
    })
}

fn tagged(members: &serde_json::Map<String, Json>) -> Result<Sql, String> {
    let text = |key: &str| members.get(key).and_then(Json::as_str);
    let value = members.get("value");
    match text("type") {
        Some("null") => Ok(Sql::Null),
        Some("integer") => value
            .and_then(|value| match value {
                Json::String(digits) => digits.parse().ok(),
                other => other.as_i64(),
            })
            .map(Sql::Integer)
            .ok_or_else(|| "an integer has its digits as a string in `value`".into()),
        Some("float") => match value {
            Some(Json::String(word)) => match word.as_str() {
                "Infinity" => Ok(Sql::Real(f64::INFINITY)),
                "-Infinity" => Ok(Sql::Real(f64::NEG_INFINITY)),
                _ => Err("a float has a number in `value`, or Infinity, or -Infinity".into()),
            },
            value => value
                .and_then(Json::as_f64)
                .map(Sql::Real)
                .ok_or_else(|| "a float has a number in `value`".into()),
        },
        Some("text") => text("value")
            .map(|text| Sql::Text(text.to_owned()))
            .ok_or_else(|| "a text has a string in `value`".into()),
        Some("blob") => text("base64")
            .and_then(|text| BASE64.decode(text).ok())
            .map(Sql::Blob)
            .ok_or_else(|| "a blob has its bytes in `base64`".into()),
        _ => Err(
            "an object is no value, but for {\"type\": \"blob\", \"base64\": ..} and the like; \
             store it as text, with its JSON as a string"
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any() -> impl Strategy<Value = Sql> {
        prop_oneof![
            Just(Sql::Null),
            proptest::num::i64::ANY.prop_map(Sql::Integer),
            Just(Sql::Integer(9_007_199_254_740_993)),
            proptest::num::f64::ANY
                .prop_filter("SQLite has none", |number| !number.is_nan())
                .prop_map(Sql::Real),
            "\\PC*".prop_map(Sql::Text),
            proptest::collection::vec(proptest::num::u8::ANY, 0..64).prop_map(Sql::Blob),
        ]
    }

    proptest! {
        #[test]
        fn typed_values_come_back_as_they_went(value in any()) {
            let text = typed(value.clone()).to_string();
            let back = read(serde_json::from_str(&text).unwrap()).unwrap();
            prop_assert_eq!(back, value);
        }

        #[test]
        fn plain_values_come_back_too_but_for_infinity(value in any()) {
            let infinite = matches!(value, Sql::Real(number) if number.is_infinite());
            let text = plain(value.clone()).to_string();
            let back = read(serde_json::from_str(&text).unwrap()).unwrap();
            prop_assert!(infinite || back == value, "{:?} is {:?}", value, back);
        }

        #[test]
        fn no_parameter_panics(text in "\\{\"type\":\"(integer|float|text|blob|null|x)\",\"(value|base64)\":(\"[a-zA-Z0-9=]*\"|[0-9]{1,25}|null)\\}") {
            if let Ok(json) = serde_json::from_str(&text) {
                let _ = read(json);
            }
        }
    }
}
