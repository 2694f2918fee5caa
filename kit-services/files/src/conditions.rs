//! Validators and the requests that depend on them (RFC 9110, section 13), and ranges
//! (section 14).

use std::time::{Duration, SystemTime};

use http::header::{
    ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
    RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use rustix::fs::Stat;

use crate::entry::{modified, size};

/// What tells one state of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validator {
    /// A strong entity tag, with its quotes.
    pub etag: String,
    pub modified: SystemTime,
}

/// What the conditions of a request come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Do what was asked.
    Proceed,
    /// 304: the caller has it already.
    NotModified,
    /// 412: it is not what the caller thinks it is.
    Failed,
}

impl Validator {
    pub fn of(stat: &Stat) -> Validator {
        let (inode, size, seconds, nanos) =
            (stat.st_ino, size(stat), stat.st_mtime, stat.st_mtime_nsec);
        Validator {
            etag: format!("\"{inode:x}-{size:x}-{seconds:x}.{nanos:x}\""),
            modified: modified(stat),
        }
    }

    pub fn write(&self, headers: &mut HeaderMap) {
        let etag = HeaderValue::from_str(&self.etag).expect("an etag is hex digits and dashes");
        headers.insert(ETAG, etag);
        let date = httpdate::fmt_http_date(self.modified);
        headers.insert(
            LAST_MODIFIED,
            HeaderValue::from_str(&date).expect("a date is ASCII"),
        );
    }

    /// Whether a range may be served: without `If-Range`, or with one that fits.
    pub fn same_range(&self, headers: &HeaderMap) -> bool {
        match text(headers, &IF_RANGE) {
            None => true,
            Some(tag) if tag.starts_with('"') || tag.starts_with("W/") => tag == self.etag,
            Some(date) => httpdate::parse_http_date(date).is_ok_and(|date| date == self.seconds()),
        }
    }

    fn seconds(&self) -> SystemTime {
        let since = self
            .modified
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
    }
}

/// Weigh the conditions of a request against what is there; `safe` for GET and HEAD.
pub fn weigh(headers: &HeaderMap, there: Option<&Validator>, safe: bool) -> Verdict {
    let date = |name| text(headers, name).and_then(|text| httpdate::parse_http_date(text).ok());
    if let Some(tags) = text(headers, &IF_MATCH) {
        if !there.is_some_and(|there| listed(tags, &there.etag, Weak::Refused)) {
            return Verdict::Failed;
        }
    } else if let (Some(date), Some(there)) = (date(&IF_UNMODIFIED_SINCE), there)
        && there.seconds() > date
    {
        return Verdict::Failed;
    }
    if let Some(tags) = text(headers, &IF_NONE_MATCH) {
        return match there.is_some_and(|there| listed(tags, &there.etag, Weak::Taken)) {
            false => Verdict::Proceed,
            true if safe => Verdict::NotModified,
            true => Verdict::Failed,
        };
    }
    match (date(&IF_MODIFIED_SINCE), there) {
        (Some(date), Some(there)) if safe && there.seconds() <= date => Verdict::NotModified,
        _ => Verdict::Proceed,
    }
}

#[derive(PartialEq, Eq)]
enum Weak {
    Taken,
    Refused,
}

fn listed(tags: &str, etag: &str, weak: Weak) -> bool {
    tags.split(',').map(str::trim).any(|tag| {
        tag == "*" || tag == etag || weak == Weak::Taken && tag.strip_prefix("W/") == Some(etag)
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Which bytes of a file are asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Span {
    Whole,
    /// From the first to before the second, never empty.
    Part(u64, u64),
    /// 416: none of them exist.
    Beyond,
}

/// The range of a request. One range is served; several, or what makes no sense, is answered
/// with the whole, as RFC 9110 allows.
pub fn span(headers: &HeaderMap, len: u64) -> Span {
    let Some(range) = text(headers, &RANGE).and_then(|text| text.trim().strip_prefix("bytes="))
    else {
        return Span::Whole;
    };
    let Some((first, last)) = range.split_once('-') else {
        return Span::Whole;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(first.trim()), number(last.trim())) {
        (None, Some(tail)) if first.trim().is_empty() => {
            if tail == 0 || len == 0 {
                Span::Beyond
            } else {
                Span::Part(len - tail.min(len), len)
            }
        }
        (Some(start), last_byte) if last_byte.is_some() || last.trim().is_empty() => {
            match last_byte {
                Some(end) if end < start => Span::Whole,
                _ if start >= len => Span::Beyond,
                Some(end) => Span::Part(start, end.saturating_add(1).min(len)),
                None => Span::Part(start, len),
            }
        }
        _ => Span::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn ranges_are_within_the_file() {
        for (range, len, want) in [
            ("bytes=0-0", 10, Span::Part(0, 1)),
            ("bytes=2-5", 10, Span::Part(2, 6)),
            ("bytes=2-", 10, Span::Part(2, 10)),
            ("bytes=-3", 10, Span::Part(7, 10)),
            ("bytes=-30", 10, Span::Part(0, 10)),
            ("bytes=5-999", 10, Span::Part(5, 10)),
            ("bytes=0-18446744073709551615", 10, Span::Part(0, 10)),
            ("bytes=0-99999999999999999999", 10, Span::Part(0, 10)),
            ("bytes=10-", 10, Span::Beyond),
            ("bytes=-0", 10, Span::Beyond),
            ("bytes=0-", 0, Span::Beyond),
            ("bytes=5-2", 10, Span::Whole),
            ("bytes=0-1,4-5", 10, Span::Whole),
            ("bytes=-", 10, Span::Whole),
            ("bytes=a-b", 10, Span::Whole),
            ("bytes=+1-2", 10, Span::Whole),
            ("lines=1-2", 10, Span::Whole),
        ] {
            assert_eq!(
                span(&headers(&[(RANGE, range)]), len),
                want,
                "{range} of {len}"
            );
        }
    }

    #[test]
    fn conditions_are_weighed_in_the_order_of_the_standard() {
        let there = Validator {
            etag: "\"a\"".to_owned(),
            modified: SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_500),
        };
        let (same, earlier) = (
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:36 GMT",
        );
        let check = |pairs: &[(HeaderName, &str)], there: Option<&Validator>, safe, want| {
            assert_eq!(weigh(&headers(pairs), there, safe), want, "{pairs:?}");
        };
        let t = Some(&there);
        check(&[], t, true, Verdict::Proceed);
        check(
            &[(IF_NONE_MATCH, "\"b\", W/\"a\"")],
            t,
            true,
            Verdict::NotModified,
        );
        check(&[(IF_NONE_MATCH, "\"b\"")], t, true, Verdict::Proceed);
        check(&[(IF_NONE_MATCH, "*")], t, false, Verdict::Failed);
        check(&[(IF_NONE_MATCH, "*")], None, false, Verdict::Proceed);
        check(&[(IF_MATCH, "\"a\"")], t, false, Verdict::Proceed);
        check(&[(IF_MATCH, "W/\"a\"")], t, false, Verdict::Failed);
        check(&[(IF_MATCH, "*")], None, false, Verdict::Failed);
        check(&[(IF_MODIFIED_SINCE, same)], t, true, Verdict::NotModified);
        check(&[(IF_MODIFIED_SINCE, earlier)], t, true, Verdict::Proceed);
        check(&[(IF_MODIFIED_SINCE, same)], t, false, Verdict::Proceed);
        check(&[(IF_UNMODIFIED_SINCE, earlier)], t, false, Verdict::Failed);
        check(&[(IF_UNMODIFIED_SINCE, same)], t, false, Verdict::Proceed);
        check(
            &[(IF_NONE_MATCH, "\"b\""), (IF_MODIFIED_SINCE, same)],
            t,
            true,
            Verdict::Proceed,
        );
    }
}
