//! The headers of a request on its way to an upstream.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::RequestHeader;

/// Headers that the proxy adds, about: with room for them, a map is not rebuilt while it grows.
const ADDED: usize = 12;

/// Change the headers of a request all at once.
///
/// Pingora keeps the letters in which each name was written beside the headers, and every change
/// of one through it costs an allocation for the name and a second map. What goes to an upstream
/// is written in the usual letters instead, which mean the same (RFC 9110, section 5.1).
pub fn rewrite(request: &mut RequestHeader, change: impl FnOnce(&mut HeaderMap)) {
    let blank = RequestHeader::from(http::Request::new(()).into_parts().0);
    let whole = std::mem::replace(request, blank);
    // A target that a URI does not hold (bytes that are no UTF-8) is put back as it came.
    let target = whole.uri.path_and_query().map(|it| it.as_str().as_bytes());
    let odd = (target != Some(whole.raw_path())).then(|| whole.raw_path().to_owned());
    let mut parts = Parts::from(whole);
    parts.headers.reserve(ADDED);
    change(&mut parts.headers);
    *request = RequestHeader::from(parts);
    if let Some(target) = odd {
        request
            .set_raw_path(&target)
            .expect("it was the target before");
    }
}

/// A header's value of text that is known to be fit for one.
pub fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("names and numbers are fit for a header")
}

/// Remove the headers whose names are these.
pub fn remove(headers: &mut HeaderMap, ours: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| ours(name)).cloned() {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_changed_stays_as_it_came() {
        let targets: &[&[u8]] = &[
            b"/",
            b"/a%20b?c=d&e",
            b"/a//b/../c?",
            b"*",
            b"/\xff\xfe?\xc3\xa9",
            "/é?ü=ß".as_bytes(),
        ];
        for target in targets {
            let mut request = RequestHeader::build("GET", target, None).expect("a request");
            for (name, value) in [("X-Twice", "1"), ("Accept", "*/*"), ("X-Twice", "2")] {
                request.append_header(name, value).expect("a header");
            }
            request.set_version(http::Version::HTTP_11);
            rewrite(&mut request, |headers| {
                remove(headers, |name| name.as_str().starts_with("acc"));
                headers.insert("x-new", text("3"));
            });
            assert_eq!(request.raw_path(), *target);
            assert_eq!(request.version, http::Version::HTTP_11);
            let twice: Vec<_> = request.headers.get_all("x-twice").iter().collect();
            assert_eq!(twice, ["1", "2"]);
            assert_eq!(request.headers["x-new"], "3");
            assert!(!request.headers.contains_key("accept"));
            // As it is sent: headers that were changed past Pingora's second map would panic here.
            let mut wire = bytes::BytesMut::new();
            request.header_to_h1_wire(&mut wire);
            assert_eq!(wire.iter().filter(|byte| **byte == b'\n').count(), 3);
        }
    }
}
