//! Which trace a request belongs to (W3C Trace Context, level 1).
//!
//! A request's `traceparent` and `tracestate` go on as they came. Where the span of a request is
//! wanted, that is where the log filter lets `proxy::request=debug` through, the proxy is a part
//! of the trace: it gives the kit an id of its own as the parent, and begins a trace where the
//! client has none. Where it is not, nothing of this is done.

use http::HeaderMap;
use http::header::HeaderName;
use tracing::Span;
use tracing::field::Empty;

use crate::outbound;

const PARENT: HeaderName = HeaderName::from_static("traceparent");
const STATE: HeaderName = HeaderName::from_static("tracestate");

/// A request's place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    trace: u128,
    span: u64,
    flags: u8,
}

/// The proxy's own part of a trace.
pub struct Trace {
    own: Place,
    /// Whether the trace begins here; a state that was sent along belongs to another.
    begins: bool,
    span: Span,
}

impl Trace {
    /// The span of a request, if anybody wants it.
    pub fn of(headers: &HeaderMap, method: &str) -> Option<Trace> {
        let span = tracing::debug_span!(
            target: "proxy::request",
            "request",
            trace_id = Empty,
            span_id = Empty,
            parent_id = Empty,
            method,
            kind = Empty,
            status = Empty,
            refusal = Empty,
        );
        if span.is_disabled() {
            return None;
        }
        let theirs = place(headers);
        let own = Place {
            trace: theirs.map_or_else(rand::random, |it| it.trace),
            span: rand::random::<u64>() | 1,
            flags: theirs.map_or(1, |it| it.flags),
        };
        span.record("trace_id", format_args!("{:032x}", own.trace));
        span.record("span_id", format_args!("{:016x}", own.span));
        if let Some(theirs) = theirs {
            span.record("parent_id", format_args!("{:016x}", theirs.span));
        }
        Some(Trace {
            own,
            begins: theirs.is_none(),
            span,
        })
    }

    /// Tell the kit.
    pub fn pass_on(&self, headers: &mut HeaderMap) {
        let Place { trace, span, flags } = self.own;
        if self.begins {
            headers.remove(STATE);
        }
        let parent = format!("00-{trace:032x}-{span:016x}-{flags:02x}");
        headers.insert(PARENT, outbound::text(&parent));
    }

    /// What became of the request.
    pub fn end(&self, kind: &str, status: u16, refusal: Option<&str>) {
        self.span.record("kind", kind);
        self.span.record("status", status);
        if let Some(refusal) = refusal {
            self.span.record("refusal", refusal);
        }
    }
}

/// What the one `traceparent` says; nothing where there is none or it is not valid.
fn place(headers: &HeaderMap) -> Option<Place> {
    let mut values = headers.get_all(PARENT).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => parse(value.to_str().ok()?),
        _ => None,
    }
}

/// Section 3.2.2: version, trace, parent and flags. A later version may add to them.
fn parse(text: &str) -> Option<Place> {
    fn hex(text: &str, digits: usize) -> Option<u128> {
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let plain = text.len() == digits && text.bytes().all(lower);
        plain.then(|| u128::from_str_radix(text, 16).ok())?
    }
    let mut parts = text.splitn(5, '-');
    let mut next = |digits| parts.next().and_then(|part| hex(part, digits));
    let (version, trace, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
    let more = parts.next();
    if version == 0xff || (version == 0 && more.is_some()) || trace == 0 || span == 0 {
        return None;
    }
    Some(Place {
        trace,
        span: u64::try_from(span).ok()?,
        flags: u8::try_from(flags).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_parent_is_read_as_the_standard_says() {
        let place = parse(GOOD).expect("valid");
        assert_eq!(place.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((place.span, place.flags), (0x00f0_67aa_0ba9_02b7, 1));
        assert!(parse(&format!("cc{}-more-of-it", &GOOD[2..])).is_some());
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &format!("{GOOD}0"),
            &format!("ff{}", &GOOD[2..]),
            &GOOD.to_uppercase(),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        let mut twice = HeaderMap::new();
        twice.append(PARENT, HeaderValue::from_static(GOOD));
        assert!(super::place(&twice).is_some());
        twice.append(PARENT, HeaderValue::from_static(GOOD));
        assert_eq!(super::place(&twice), None);
    }

    #[test]
    fn nobody_who_does_not_look_pays() {
        assert!(Trace::of(&HeaderMap::new(), "GET").is_none());
    }
}
