//! What a container may not say about other hosts, and who may embed what it serves.
//!
//! Every hostname is an origin of its own. A response speaks for its own host alone: whatever in
//! its headers reaches further is taken out.

use std::sync::LazyLock;

use http::header::{
    self, ALT_SVC, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, SET_COOKIE,
    STRICT_TRANSPORT_SECURITY, X_FRAME_OPTIONS,
};
use pingora::http::ResponseHeader;
use routes::table::Embedding;

use crate::cookies;

/// What only the proxy may say.
static FOREIGN: LazyLock<[HeaderName; 7]> = LazyLock::new(|| {
    [
        // A worker for more than its own directory: it would outlive what put it there.
        HeaderName::from_static("service-worker-allowed"),
        // Empties what a person's browser keeps for the whole site.
        HeaderName::from_static("clear-site-data"),
        // Another server, or another port, for this name.
        ALT_SVC,
        // Reports about connections to this name, to anybody.
        HeaderName::from_static("nel"),
        HeaderName::from_static("report-to"),
        // Reaches to all names below, and outlives the container.
        STRICT_TRANSPORT_SECURITY,
        HeaderName::from_static("public-key-pins"),
    ]
});

/// A year, for this name alone: the names below it are other people's.
const HSTS: &str = "max-age=31536000";

static OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
static RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
static CSP_REPORT_ONLY: HeaderName = header::CONTENT_SECURITY_POLICY_REPORT_ONLY;

/// Take out of a response what reaches further than its own host.
pub fn confine(response: &mut ResponseHeader) -> pingora::Result<()> {
    // Most answers have nothing of this: one look at each name finds that out.
    let (mut foreign, mut cookies) = (false, false);
    for name in response.headers.keys() {
        foreign |= FOREIGN.contains(name);
        cookies |= name == SET_COOKIE;
    }
    if foreign {
        for name in FOREIGN.iter() {
            response.remove_header(name);
        }
    }
    if cookies && let Some(cookies) = cookies::confined(&response.headers) {
        replace(response, &SET_COOKIE, cookies)?;
    }
    Ok(())
}

/// Say that this name is served over HTTPS only.
pub fn https_only(response: &mut ResponseHeader) -> pingora::Result<()> {
    response.insert_header(STRICT_TRANSPORT_SECURITY, HSTS)
}

/// Say who may embed it. `meant` for what is made to be embedded, such as the pages of the kit;
/// the embedding of an application is the application's own affair unless its owner says otherwise.
pub fn embed(
    response: &mut ResponseHeader,
    embedding: &Embedding,
    meant: bool,
) -> pingora::Result<()> {
    if !embedding.allowed {
        response.insert_header(OPENER_POLICY.clone(), "same-origin")?;
        response.insert_header(RESOURCE_POLICY.clone(), "same-origin")?;
        return frame_ancestors(response, "'self'");
    }
    if let Some(ancestors) = embedding.ancestors() {
        frame_ancestors(response, &ancestors)?;
    }
    if meant && !response.headers.contains_key(&RESOURCE_POLICY) {
        // A page that wants isolation for itself may embed only what says this.
        response.insert_header(RESOURCE_POLICY.clone(), "cross-origin")?;
    }
    Ok(())
}

/// Replace whatever the response says about its ancestors. Policies add up, so a directive of its
/// own would forbid what its owner allows.
fn frame_ancestors(response: &mut ResponseHeader, sources: &str) -> pingora::Result<()> {
    response.remove_header(&X_FRAME_OPTIONS);
    for name in [&CONTENT_SECURITY_POLICY, &CSP_REPORT_ONLY] {
        let said = response.headers.get_all(name).iter();
        let kept = said
            .filter_map(|policies| without_ancestors(policies.as_bytes()))
            .collect();
        replace(response, name, kept)?;
    }
    let policy = format!("frame-ancestors {sources}");
    response.append_header(CONTENT_SECURITY_POLICY, policy)?;
    Ok(())
}

/// The policies of one header without what they say about ancestors; nothing where nothing is left.
fn without_ancestors(policies: &[u8]) -> Option<HeaderValue> {
    let policies: Vec<Vec<u8>> = policies
        .split(|&byte| byte == b',')
        .map(|policy| {
            let rest: Vec<&[u8]> = policy
                .split(|&byte| byte == b';')
                .map(<[u8]>::trim_ascii)
                .filter(|directive| {
                    let mut words = directive.split(u8::is_ascii_whitespace);
                    let name = words.next().unwrap_or_default();
                    !name.is_empty() && !name.eq_ignore_ascii_case(b"frame-ancestors")
                })
                .collect();
            rest.join(&b"; "[..])
        })
        .filter(|policy| !policy.is_empty())
        .collect();
    if policies.is_empty() {
        return None;
    }
    HeaderValue::from_bytes(&policies.join(&b", "[..])).ok()
}

/// Let the pages of any origin read an answer of the API. They bring their own token: what a
/// browser would add by itself, a cookie, has no meaning there, and is asked for by nobody.
pub fn open_api(response: &mut ResponseHeader) -> pingora::Result<()> {
    response.remove_header(&header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
    response.insert_header(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")?;
    response.insert_header(header::ACCESS_CONTROL_EXPOSE_HEADERS, "*")
}

/// Seconds for which a browser remembers the answer to [`preflight`]; more than two hours it would not.
const PREFLIGHT_AGE: &str = "7200";

/// What the pages of any origin may send to the API.
pub fn preflight(response: &mut ResponseHeader) -> pingora::Result<()> {
    open_api(response)?;
    response.insert_header(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
    )?;
    // The star does not stand for this one (Fetch, section 3.2.4).
    response.insert_header(header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, *")?;
    response.insert_header(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE)
}

fn replace(
    response: &mut ResponseHeader,
    name: &HeaderName,
    values: Vec<HeaderValue>,
) -> pingora::Result<()> {
    response.remove_header(name);
    for value in values {
        response.append_header(name.clone(), value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_policy_says_about_ancestors_goes() {
        for (policy, rest) in [
            ("frame-ancestors 'none'", None),
            ("Frame-Ancestors\t'none' ;", None),
            (
                "default-src 'self'; frame-ancestors 'none'; img-src *",
                Some("default-src 'self'; img-src *"),
            ),
            (
                "frame-ancestors 'none', script-src 'self'; frame-ancestors x",
                Some("script-src 'self'"),
            ),
            ("img-src frame-ancestors", Some("img-src frame-ancestors")),
        ] {
            let heard = without_ancestors(policy.as_bytes());
            let heard = heard.as_ref().map(|it| it.to_str().expect("text"));
            assert_eq!(heard, rest, "{policy}");
        }
    }
}
