//! Requests whose container has a hook for them.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use routes::hook::{Asked, Hook, OnError};

use super::{Gateway, Visit, disguise, edge};
use crate::hooks::{self, Told, Verdict};
use crate::isolation;
use crate::refusals::Refusal;
use crate::resolve::Destination;

impl Gateway {
    /// Ask the script of the first hook that this request meets, where there is one. Whether the
    /// request has been answered.
    pub(super) async fn hooked(
        &self,
        session: &mut Session,
        visit: &mut Visit,
    ) -> pingora::Result<bool> {
        let (place, door) = match &visit.destination {
            Some(Destination::Kit { place, door, .. }) if place.hooks.is_some() => {
                (place.clone(), *door)
            }
            _ => return Ok(false),
        };
        let identity = visit.pass.as_ref().and_then(|pass| pass.identity.clone());
        let group = identity.as_ref().map(|identity| identity.group.as_str());
        let Some(hook) = find(session.req_header(), &place, door.service, group) else {
            return Ok(false);
        };
        // Nothing that was meant for the edge is shown.
        let mut shown = session.req_header().clone();
        disguise(&mut shown, visit)?;
        let target = String::from_utf8_lossy(shown.raw_path()).into_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let name = visit.name.as_ref().map(ToString::to_string);
        let connection = visit.connection.as_ref();
        let told = Told {
            hook: &hook.id,
            service: door.service,
            instance: door.port.map(u32::from).or(door.index),
            method: shown.method.as_str(),
            scheme: connection.map_or("http", |connection| connection.scheme()),
            host: name.as_deref().unwrap_or_default(),
            path,
            query,
            headers: shown
                .headers
                .iter()
                .filter(|(name, _)| !name.as_str().starts_with(edge::PREFIX))
                .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
                .collect(),
            client: connection.map(|it| it.client.ip().to_canonical().to_string()),
            group: group.filter(|group| !group.is_empty()),
            user: identity.as_ref().and_then(|it| it.user.as_deref()),
            upgrade: visit.upgrade.is_some(),
        };
        let said = hooks::ask(&self.shared.asking, &place, hook, &told).await;
        let outcome = match &said {
            Ok(Verdict::Pass) => "pass",
            Ok(Verdict::Rewrite(_)) => "rewrite",
            Ok(Verdict::Answer { .. }) => "answer",
            Err(fault) => fault.reason(),
        };
        let asked = &self.shared.metrics.hooks;
        asked.with_label_values(&[outcome]).inc();
        match said {
            Ok(Verdict::Pass) => Ok(false),
            Ok(Verdict::Rewrite(rewrite)) => {
                visit.rewrite = Some(Box::new(rewrite));
                Ok(false)
            }
            Ok(Verdict::Answer {
                status,
                headers,
                body,
            }) => {
                answer(session, status, headers, body).await?;
                Ok(true)
            }
            Err(_) if hook.on_error == OnError::Open => Ok(false),
            Err(_) => {
                self.refuse(session, visit, &Refusal::HookFailed).await?;
                Ok(true)
            }
        }
    }
}

fn find<'p>(
    request: &RequestHeader,
    place: &'p routes::table::Place,
    service: &str,
    group: Option<&str>,
) -> Option<&'p Hook> {
    let target = std::str::from_utf8(request.raw_path()).unwrap_or("/");
    let header = |name: &str| request.headers.get(name)?.to_str().ok();
    let asked = Asked {
        method: request.method.as_str(),
        path: target.split(['?', '#']).next().unwrap_or("/"),
        header: &header,
        group,
    };
    hooks::of(place, service, &asked)
}

/// Send what a script answered, as if the container had.
async fn answer(
    session: &mut Session,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
) -> pingora::Result<()> {
    let mut head = ResponseHeader::build(status, Some(headers.len() + 1))?;
    for (name, value) in &headers {
        head.append_header(name.clone(), value.clone())?;
    }
    isolation::confine(&mut head)?;
    // RFC 9110, sections 15.3.5 and 15.4.5: these have no body.
    let bare = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !bare {
        head.insert_header(header::CONTENT_LENGTH, body.len().to_string())?;
    }
    let silent = bare || body.is_empty() || session.req_header().method == Method::HEAD;
    session.set_close_on_response_before_downstream_finish(false);
    session
        .write_response_header(Box::new(head), silent)
        .await?;
    if !silent {
        session.write_response_body(Some(body), true).await?;
    }
    if session.drain_request_body().await.is_err() {
        session.set_keepalive(None);
    }
    Ok(())
}
