//! Whatever cookies a browser sends or a container sets, none of the proxy's own crosses, none of a
//! container's reaches another host, and all others stay as they are.
#![no_main]

#[path = "../../src/cookies.rs"]
#[allow(dead_code)]
mod cookies;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use libfuzzer_sys::fuzz_target;

fn headers(name: &HeaderName, lines: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split(|&byte| byte == b'\n').take(64) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
    headers
}

/// The names of the pairs in a request, as an application reads them: spaces around them and an
/// equals sign before them mean nothing.
fn names(values: &[HeaderValue]) -> Vec<Vec<u8>> {
    let pairs = values
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b';'));
    let name = |pair: &[u8]| {
        let start = pair
            .iter()
            .position(|byte| !(byte.is_ascii_whitespace() || *byte == b'='));
        let pair = &pair[start.unwrap_or(pair.len())..];
        let name = pair.split(|&byte| byte == b'=').next().unwrap_or_default();
        name.trim_ascii().to_ascii_lowercase()
    };
    pairs.map(name).filter(|name| !name.is_empty()).collect()
}

fn is_reserved(name: &[u8]) -> bool {
    ["__host-hoody", "__secure-hoody", "hoody_"]
        .iter()
        .any(|prefix| name.starts_with(prefix.as_bytes()))
}

fuzz_target!(|lines: &[u8]| {
    let sent = headers(&header::COOKIE, lines);
    let before: Vec<HeaderValue> = sent.get_all(header::COOKIE).iter().cloned().collect();
    let after = cookies::without_ours(&sent).unwrap_or_else(|| before.clone());
    let kept = names(&after);
    assert!(!kept.iter().any(|name| is_reserved(name)));
    let theirs: Vec<Vec<u8>> = names(&before)
        .into_iter()
        .filter(|name| !is_reserved(name))
        .collect();
    assert_eq!(kept, theirs);

    let set = headers(&header::SET_COOKIE, lines);
    let before: Vec<HeaderValue> = set.get_all(header::SET_COOKIE).iter().cloned().collect();
    let after = cookies::confined(&set).unwrap_or_else(|| before.clone());
    for value in &after {
        let mut parts = value.as_bytes().split(|&byte| byte == b';');
        let pair =
            HeaderValue::from_bytes(parts.next().unwrap_or_default()).expect("a part of a value");
        assert!(!names(&[pair]).iter().any(|name| is_reserved(name)));
        for attribute in parts {
            let name = attribute
                .split(|&byte| byte == b'=')
                .next()
                .unwrap_or_default();
            assert!(!name.trim_ascii().eq_ignore_ascii_case(b"domain"));
        }
    }
    // What is confined stays as it is.
    let mut again = HeaderMap::new();
    for value in &after {
        again.append(header::SET_COOKIE, value.clone());
    }
    assert!(cookies::confined(&again).is_none());
});
