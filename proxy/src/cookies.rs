//! Cookies that cross the proxy: its own never reach a container, and a container's never reach
//! another.

use http::{HeaderMap, HeaderValue, header};

/// What the names of the proxy's own cookies begin with, in any case. A container can neither set
/// such a cookie nor read one. Every cookie of the proxy has a name that begins with one of these.
pub const RESERVED_PREFIXES: &[&str] = &["__host-hoody", "__secure-hoody", "hoody_"];

/// Whether a cookie of this name is the proxy's.
pub fn is_reserved(name: &[u8]) -> bool {
    RESERVED_PREFIXES.iter().any(|prefix| {
        name.get(..prefix.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
    })
}

/// The cookies of a request without the proxy's own; nothing where it has none of them.
pub fn without_ours(headers: &HeaderMap) -> Option<Vec<HeaderValue>> {
    let sent = headers.get_all(header::COOKIE);
    if !sent.iter().any(|it| pairs(it.as_bytes()).any(is_ours)) {
        return None;
    }
    let theirs = sent.iter().filter_map(|value| {
        let kept: Vec<&[u8]> = pairs(value.as_bytes())
            .filter(|pair| !is_ours(pair))
            .collect();
        if kept.is_empty() {
            return None;
        }
        HeaderValue::from_bytes(&kept.join(&b"; "[..])).ok()
    });
    Some(theirs.collect())
}

/// The cookies that a response sets, kept to its own host: those for a parent domain become
/// host-only, those under the proxy's names are left out. Nothing where all may stay as they are.
pub fn confined(headers: &HeaderMap) -> Option<Vec<HeaderValue>> {
    let set = headers.get_all(header::SET_COOKIE);
    let is_odd = |value: &HeaderValue| {
        is_ours(value.as_bytes()) || attributes(value.as_bytes()).any(is_domain)
    };
    if !set.iter().any(is_odd) {
        return None;
    }
    let kept = set
        .iter()
        .filter(|value| !is_ours(value.as_bytes()))
        .filter_map(|value| {
            if !attributes(value.as_bytes()).any(is_domain) {
                return Some(value.clone());
            }
            let bytes = value.as_bytes();
            let pair = bytes.split(|&byte| byte == b';').next()?;
            let rest = attributes(bytes).filter(|attribute| !is_domain(attribute));
            let parts: Vec<&[u8]> = std::iter::once(pair).chain(rest).collect();
            HeaderValue::from_bytes(&parts.join(&b';')).ok()
        });
    Some(kept.collect())
}

fn pairs(cookie: &[u8]) -> impl Iterator<Item = &[u8]> {
    cookie
        .split(|&byte| byte == b';')
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty())
}

/// What follows the pair of name and value (RFC 6265, section 5.2).
fn attributes(set_cookie: &[u8]) -> impl Iterator<Item = &[u8]> {
    set_cookie.split(|&byte| byte == b';').skip(1)
}

/// Whether a pair names a cookie of the proxy. A pair without a name is sent back as its value
/// alone, which may look like a pair: `=hoody_x=1` comes back as `hoody_x=1`.
fn is_ours(pair: &[u8]) -> bool {
    let name = pair
        .iter()
        .position(|byte| !(byte.is_ascii_whitespace() || *byte == b'='))
        .map_or(&b""[..], |start| &pair[start..]);
    is_reserved(name)
}

fn is_domain(attribute: &[u8]) -> bool {
    let name = attribute.split(|&byte| byte == b'=').next();
    name.is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(b"domain"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(
        name: header::HeaderName,
        values: &[&str],
        change: impl Fn(&HeaderMap) -> Option<Vec<HeaderValue>>,
    ) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, HeaderValue::from_str(value).expect("a value"));
        }
        let text = |value: &HeaderValue| value.to_str().expect("text").to_owned();
        match change(&headers) {
            Some(changed) => changed.iter().map(text).collect(),
            None => headers.get_all(&name).iter().map(text).collect(),
        }
    }

    #[test]
    fn a_containers_cookies_stay_on_its_host() {
        for (set, kept) in [
            ("a=1", Some("a=1")),
            ("a=1; Path=/; HttpOnly", Some("a=1; Path=/; HttpOnly")),
            ("a=1; Domain=hoody.localhost", Some("a=1")),
            ("a=1;dOmAiN = .x ;Secure", Some("a=1;Secure")),
            ("a=1; domain; Domain=x; Path=/", Some("a=1; Path=/")),
            ("a=1;\tDomain=x", Some("a=1")),
            // A cookie of that name is no attribute.
            ("Domain=x; Path=/", Some("Domain=x; Path=/")),
            ("a=1; Path=/domain", Some("a=1; Path=/domain")),
            ("hoody_gate=1", None),
            ("HOODY_gate=1; Path=/", None),
            ("  hoody_gate=1", None),
            ("__Host-hoody-gate=1; Secure", None),
            ("__hOST-hoody=1", None),
            ("__Secure-hoody=1", None),
            ("=hoody_gate=1", None),
            (" = =__Host-hoody=1", None),
            ("hoody=1", Some("hoody=1")),
            ("my_hoody_=1", Some("my_hoody_=1")),
        ] {
            let heard = through(header::SET_COOKIE, &[set, "other=2"], confined);
            let wanted: Vec<_> = kept.into_iter().chain(["other=2"]).collect();
            assert_eq!(heard, wanted, "{set}");
        }
    }

    #[test]
    fn our_cookies_are_for_us() {
        for (sent, seen) in [
            ("a=1; b=2", Some("a=1; b=2")),
            ("a=1;b=2;", Some("a=1;b=2;")),
            ("a=1; hoody_gate=x; b=2", Some("a=1; b=2")),
            ("hoody_gate=x", None),
            ("__Host-hoody-1=x;a=\"q; b=2", Some("a=\"q; b=2")),
            ("a=hoody_gate=x", Some("a=hoody_gate=x")),
            ("a=1;  =hoody_gate=x", Some("a=1")),
        ] {
            let heard = through(header::COOKIE, &[sent], without_ours);
            assert_eq!(heard, Vec::from_iter(seen), "{sent}");
        }
        let split = ["hoody_a=1", "b=2", "c=3; hoody_d=4"];
        assert_eq!(
            through(header::COOKIE, &split, without_ours),
            ["b=2", "c=3"]
        );
    }
}
