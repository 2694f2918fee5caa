//! Pairs of names and values in a query or a form.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The decoded value of the only pair with this name, spelled without escapes.
pub fn value<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    let mut found = query.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then_some(value)
    });
    match (found.next(), found.next()) {
        (Some(value), None) => Some(decode(value)),
        _ => None,
    }
}

/// Whether one of these names is in the query, with or without a value, and however it is spelled.
pub fn names(query: &str, names: &[&str]) -> bool {
    query.split('&').any(|pair| {
        let key = pair.split_once('=').map_or(pair, |(key, _)| key);
        names.contains(&&*decode(key))
    })
}

/// A value of a form (application/x-www-form-urlencoded).
fn decode(value: &str) -> Cow<'_, str> {
    if !value.contains(['%', '+']) {
        return Cow::Borrowed(value);
    }
    let spaced = value.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

/// A path and query without the parameters of these names; nothing where it has none of them.
pub fn without(target: &str, names: &[&str]) -> Option<String> {
    let (path, query) = target.split_once('?')?;
    let named = |pair: &&str| {
        let key = pair.split_once('=').map_or(*pair, |(key, _)| key);
        names.contains(&key)
    };
    query.split('&').find(named)?;
    let rest: Vec<&str> = query.split('&').filter(|pair| !named(pair)).collect();
    Some(match rest.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", rest.join("&")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_however_they_are_spelled() {
        for (query, found) in [
            ("", false),
            ("extract", true),
            ("a=1&extract=x", true),
            ("%65xtract=", true),
            ("extracts&b=extract", false),
        ] {
            assert_eq!(names(query, &["extract"]), found, "{query}");
        }
    }

    #[test]
    fn values_are_read_once_or_not_at_all() {
        for (query, expected) in [
            ("", None),
            ("token=a", Some("a")),
            ("x=1&token=a%2Bb+c", Some("a+b c")),
            ("token=", Some("")),
            ("token", None),
            ("token=a&token=b", None),
            ("%74oken=a", None),
            ("TOKEN=a", None),
        ] {
            assert_eq!(value(query, "token").as_deref(), expected, "{query}");
        }
    }

    #[test]
    fn only_named_parameters_go() {
        for (target, expected) in [
            ("/", None),
            ("/?a=1", None),
            ("/?token=1", Some("/")),
            ("/p?a=1&token=2&b", Some("/p?a=1&b")),
            ("/p?token&a=1", Some("/p?a=1")),
            ("/p?token=1&token=2", Some("/p")),
            ("/p?xtoken=1", None),
            ("/p?a=?token=1", None),
        ] {
            assert_eq!(without(target, &["token"]).as_deref(), expected, "{target}");
        }
    }
}
