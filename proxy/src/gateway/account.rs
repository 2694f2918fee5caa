//! What is told of a request when it is over.

use std::sync::Arc;
use std::time::{Instant, UNIX_EPOCH};

use http::{Version, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource};
use proxy_logs::Capture;

use super::{CLIENT_LEFT, Gateway, Visit, reason};
use crate::Shared;
use crate::activity::InUse;
use crate::admin::Went;
use crate::boundary::Boundaries;
use crate::limits::RequestPermit;
use crate::lines::{Carried, End, Line};
use crate::logs::Record;
use crate::refusals::Refusal;
use crate::relay::Passed;
use crate::resolve::Destination;
use crate::trace::Trace;

/// A request until it is over, which for a tunnel is long after its answer.
pub struct Account {
    record: Option<Box<Record>>,
    started: Instant,
    went: Went,
    status: u16,
    refusal: Option<&'static str>,
    bytes_in: u64,
    bytes_out: u64,
    tunnel: bool,
    trace: Option<Trace>,
    /// What may have ended it.
    carried: Option<Arc<Carried>>,
    /// The connection to its kit.
    pub line: Option<Arc<Line>>,
    /// Of a WebSocket, where its frames end.
    pub boundaries: Option<Boundaries>,
    _permit: Option<RequestPermit>,
    _in_use: Option<InUse>,
}

impl Gateway {
    /// What there is to tell. The visit tells nothing any more.
    pub(super) fn account(
        &self,
        session: &Session,
        error: Option<&Error>,
        visit: &mut Visit,
    ) -> Account {
        let status = session
            .response_written()
            .map_or(CLIENT_LEFT, |head| head.status.as_u16());
        let went = match &visit.destination {
            Some(Destination::Control { .. }) if visit.admitted => Went::Api,
            Some(Destination::Kit { door, .. }) if visit.admitted => match door.port {
                Some(_) => Went::Port,
                None => Went::Kit,
            },
            _ => Went::Refused,
        };
        Account {
            record: visit.record(session, None, error),
            started: visit.started,
            went,
            status,
            refusal: visit.refusal,
            bytes_in: session.body_bytes_read() as u64,
            bytes_out: session.body_bytes_sent() as u64,
            tunnel: visit.tunnel,
            trace: visit.trace.take(),
            carried: visit.carried.take(),
            line: visit.line.take(),
            boundaries: visit.boundaries.take(),
            _permit: visit.permit.take(),
            _in_use: visit.in_use.take(),
        }
    }
}

impl Account {
    /// The container that it leads to.
    pub fn container(&self) -> Option<routes::Id> {
        let record = self.record.as_ref()?;
        record.place.as_ref().map(|(place, _)| place.container)
    }

    /// More has passed since.
    pub fn add(&mut self, passed: Passed, shared: &Shared) {
        self.bytes_in += passed.up;
        self.bytes_out += passed.down;
        let metrics = &shared.metrics;
        if passed.expired {
            metrics.expired.with_label_values(&["tunnel"]).inc();
        }
        match passed.fault {
            Some(("upstream", why)) => {
                let errors = &metrics.upstream_errors;
                errors.with_label_values(&[why]).inc();
            }
            Some(_) => metrics.client_aborts.inc(),
            None => {}
        }
        if let Some(record) = &mut self.record {
            record.fault = passed.fault;
            record.bytes_in = self.bytes_in;
            record.bytes_out = self.bytes_out;
        }
    }

    /// It is over: count it, and hand it to the journal.
    pub fn close(mut self, shared: &Shared) {
        let metrics = &shared.metrics;
        if let (Some(line), Some(carried)) = (&self.line, &self.carried) {
            line.leave(carried);
        }
        if let Some(end) = self.carried.as_ref().and_then(|it| it.ended()) {
            metrics.cut.inc();
            self.refusal = Some(refusal(end).code());
        }
        let taken = self.started.elapsed();
        let finished = metrics.finished(self.went);
        finished.count(self.status);
        if let Some(trace) = &self.trace {
            trace.end(self.went.name(), self.status, self.refusal);
        }
        if self.tunnel {
            metrics.tunnels.dec();
        } else {
            finished.seconds.observe(taken.as_secs_f64());
        }
        metrics.bytes_in.inc_by(self.bytes_in);
        metrics.bytes_out.inc_by(self.bytes_out);
        if let Some(mut record) = self.record {
            record.took = taken;
            record.refusal = self.refusal;
            shared.write_down(record);
        }
    }
}

/// What there is to say where something was ended before it was over.
pub(super) fn refusal(end: End) -> Refusal {
    match end {
        End::Rules | End::Gone => Refusal::AccessDenied,
        End::Way => Refusal::UnknownHost,
    }
}

impl Visit {
    /// What is written down: when it is over, or with the head of an answer that begins.
    pub(super) fn record(
        &self,
        session: &Session,
        begins: Option<&ResponseHeader>,
        error: Option<&Error>,
    ) -> Option<Box<Record>> {
        let connection = self.connection.as_ref()?;
        let request = session.req_header();
        let head = begins.or(session.response_written());
        let place = self.place();
        // The access log has no headers.
        let text = match place {
            Some(_) => {
                let kind = head.and_then(|head| head.headers.get(header::CONTENT_TYPE));
                Capture::of(request.raw_path(), &request.headers).answer(kind)
            }
            None => Capture::target_alone(request.raw_path()),
        };
        let took = self.started.elapsed();
        let now = UNIX_EPOCH.elapsed().unwrap_or_default();
        Some(Box::new(Record {
            started: now.saturating_sub(took).as_micros() as i64,
            client: connection.client_text.clone(),
            host: self.name,
            place: place.map(|(place, door)| (place.clone(), *door)),
            admitted: self.admitted,
            scheme: connection.scheme(),
            http: match request.version {
                Version::HTTP_2 => "2",
                Version::HTTP_11 => "1.1",
                _ => "1.0",
            },
            method: request.method.clone(),
            text,
            secrets: self.secrets.clone(),
            status: head.map_or(CLIENT_LEFT, |head| head.status.as_u16()),
            bytes_in: session.body_bytes_read() as u64,
            bytes_out: session.body_bytes_sent() as u64,
            took,
            upstream: self.upstream,
            refusal: self.refusal,
            fault: error.map(|error| {
                let side = match error.esource() {
                    ErrorSource::Upstream => "upstream",
                    ErrorSource::Downstream => "client",
                    ErrorSource::Internal | ErrorSource::Unset => "proxy",
                };
                (side, reason(error.etype()))
            }),
            websocket: self.tunnel,
            opened: self.opened,
            open: begins.is_some(),
        }))
    }
}

impl Shared {
    /// Hand a record to the journal.
    pub fn write_down(&self, record: Box<Record>) {
        if !self.journal.write(record) {
            self.metrics.log_dropped.inc();
        }
    }
}
