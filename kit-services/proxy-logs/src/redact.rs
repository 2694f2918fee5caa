//! What is not written down: the values of secrets.

use std::borrow::Cow;

/// A longer path and query is cut.
pub const TARGET_BYTES: usize = 2_048;
/// Stands for a value that is not told.
pub const HIDDEN: &str = "***";

/// What in the name of a query parameter says that its value is a secret.
const SECRET: &[&str] = &[
    "token",
    "secret",
    "pass",
    "pwd",
    "key",
    "auth",
    "sig",
    "jwt",
    "cred",
    "session",
    "cookie",
    "code",
    "ticket",
    "otp",
    "claim",
    "bearer",
    "hoody_link",
];

/// Whether the value of this header, in lower case, may be written down: these say nothing secret.
/// Of all others only the name is told: a gate may take its token from any of them, and so may an
/// app.
pub fn is_told(header: &str) -> bool {
    matches!(
        header,
        "accept"
            | "accept-encoding"
            | "accept-language"
            | "access-control-request-headers"
            | "access-control-request-method"
            | "cache-control"
            | "connection"
            | "content-encoding"
            | "content-language"
            | "content-length"
            | "content-type"
            | "dnt"
            | "expect"
            | "host"
            | "if-match"
            | "if-modified-since"
            | "if-none-match"
            | "if-range"
            | "if-unmodified-since"
            | "last-event-id"
            | "origin"
            | "pragma"
            | "priority"
            | "range"
            | "referer"
            | "sec-fetch-dest"
            | "sec-fetch-mode"
            | "sec-fetch-site"
            | "sec-fetch-user"
            | "sec-websocket-version"
            | "te"
            | "traceparent"
            | "transfer-encoding"
            | "upgrade"
            | "upgrade-insecure-requests"
            | "user-agent"
            | "x-requested-with"
    )
}

/// A path and query as a log may hold them: without the values of parameters that look like
/// secrets, or are `known` to be.
pub fn redact(target: &str, known: &[String]) -> String {
    let mut shown = String::with_capacity(target.len().min(TARGET_BYTES) + 8);
    let end = target.find('#').unwrap_or(target.len());
    let (path, query) = target[..end]
        .split_once('?')
        .unwrap_or((&target[..end], ""));
    for (at, part) in path.split('/').enumerate() {
        if at > 0 {
            shown.push('/');
        }
        shown.push_str(if is_credential(part) { HIDDEN } else { part });
    }
    // Some read `;` as `&`.
    let pairs = query.split(['&', ';']).filter(|pair| !pair.is_empty());
    for (at, pair) in pairs.enumerate() {
        shown.push(if at == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name, value))
                if is_secret(name)
                    || hides_secret(value)
                    || known.iter().any(|known| known == name) =>
            {
                shown.push_str(name);
                shown.push('=');
                shown.push_str(HIDDEN);
            }
            None if is_credential(pair) => shown.push_str(HIDDEN),
            _ => shown.push_str(pair),
        }
        if shown.len() > TARGET_BYTES {
            break;
        }
    }
    if shown.len() > TARGET_BYTES {
        let cut = (0..=TARGET_BYTES)
            .rev()
            .find(|&at| shown.is_char_boundary(at))
            .unwrap_or(0);
        shown.truncate(cut);
        shown.push('…');
    }
    shown
}

fn is_secret(name: &str) -> bool {
    // A name that hides behind escapes is not given the benefit of the doubt.
    if name.contains('%') {
        return true;
    }
    let name = lower(name);
    SECRET.iter().any(|word| name.contains(word))
}

/// Whether a value carries a secret of its own: a token, or a query within the query.
fn hides_secret(value: &str) -> bool {
    if is_credential(value) {
        return true;
    }
    let Some(_) = value.find(['=', '%']) else {
        return false;
    };
    let value = lower(value);
    (value.contains('=') || value.contains("%3d") || value.contains("%253d"))
        && SECRET.iter().any(|word| value.contains(word))
}

/// Whether it looks like a token of this system or a JSON Web Token (RFC 7519), wherever it stands.
fn is_credential(text: &str) -> bool {
    text.contains("hdy_") || text.starts_with("eyJ") && text.contains('.')
}

fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        text.to_ascii_lowercase().into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_written_down() {
        let cases = [
            ("/", "/"),
            ("/a?b=c", "/a?b=c"),
            (
                "/ws?terminal_id=1&token=hdy_abc&cols=80",
                "/ws?terminal_id=1&token=***&cols=80",
            ),
            (
                "/?Access_Token=x&X-Amz-Signature=y",
                "/?Access_Token=***&X-Amz-Signature=***",
            ),
            ("/?%74oken=x", "/?%74oken=***"),
            ("/?flag&&x=1", "/?flag&x=1"),
            ("/?api_key=", "/?api_key=***"),
            ("/?a=1;token=x", "/?a=1&token=***"),
            ("/?next=%2Fcb%3Ftoken%3Dabc", "/?next=***"),
            ("/?next=/cb?token=abc", "/?next=***"),
            ("/?next=%2Fhome%3Fpage%3D2", "/?next=%2Fhome%3Fpage%3D2"),
            ("/?a=eyJhbGciOi.eyJz.c2ln", "/?a=***"),
            ("/?eyJhbGciOi.eyJz.c2ln", "/?***"),
            ("/invite/hdy_abcdef/now", "/invite/***/now"),
            ("/?a=hdy_abcdef", "/?a=***"),
            ("/a?b=c#token=x", "/a?b=c"),
            (
                "https://h.example/cb?code=1&state=2",
                "https://h.example/cb?code=***&state=2",
            ),
        ];
        for (target, shown) in cases {
            assert_eq!(redact(target, &[]), shown, "{target}");
        }
        assert_eq!(redact("/?k=1&x=2", &["k".into()]), "/?k=***&x=2");
        assert!(redact(&format!("/{}", "é".repeat(4_000)), &[]).len() <= TARGET_BYTES + 3);
    }

    #[test]
    fn headers_are_told_by_list_only() {
        for told in ["accept", "user-agent", "range", "x-requested-with"] {
            assert!(is_told(told), "{told}");
        }
        for secret in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "x-api-key",
            "x-hoody-token",
            "x-hoody-container-claim",
            "sec-websocket-protocol",
            "sec-websocket-key",
            "x-gate",
        ] {
            assert!(!is_told(secret), "{secret}");
        }
    }
}
