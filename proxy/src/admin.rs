//! What happened, how often, as Prometheus reads it. Labels are classes of things, never ids.

use std::convert::Infallible;
use std::sync::Arc;

use certs::Holdings;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::Shared;

/// The counters of one proxy.
pub struct Metrics {
    registry: Registry,
    /// Finished requests by what became of them.
    finished: [Finished; Went::ALL.len()],
    /// Seconds from a request's headers to the upstream's.
    pub upstream: Histogram,
    pub bytes_in: IntCounter,
    pub bytes_out: IntCounter,
    pub refusals: IntCounterVec,
    pub upstream_errors: IntCounterVec,
    pub client_aborts: IntCounter,
    pub connections: IntGauge,
    pub accepted: IntCounterVec,
    /// Connections closed unserved, by the reason.
    pub dropped: IntCounterVec,
    /// Connections closed because their client took too long, by what it was in.
    pub expired: IntCounterVec,
    /// HTTP/2 connections closed because their client sent too much for nothing, by what.
    pub floods: IntCounterVec,
    /// HTTP/2 connections ended for a fault of their client's, by its code.
    pub h2_faults: IntCounterVec,
    pub tunnels: IntGauge,
    pub table_generation: IntGauge,
    pub table_places: IntGauge,
    pub feed_connected: IntGauge,
    pub log_dropped: IntCounter,
    pub container_log_lost: IntCounter,
    /// Exchanges that were ended because the rules no longer allow them.
    pub cut: IntCounter,
    /// Requests that a hook's script was asked about, by what came of it.
    pub hooks: IntCounterVec,
    pub wrong_credentials: IntCounter,
    /// Requests that wait for a container to wake.
    pub held: IntGauge,
    /// Bytes of answers that are held because their kits do not read on.
    pub read_ahead: IntGauge,
    /// Names that were looked up because they could be custom domains, by what came of it.
    pub domain_lookups: IntCounterVec,
    /// Seconds left of the certificate of a class that ends first.
    certificates: IntGaugeVec,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Went {
    Api,
    Kit,
    Port,
    Refused,
}

impl Went {
    const ALL: [Went; 4] = [Went::Api, Went::Kit, Went::Port, Went::Refused];

    /// A stable name.
    pub fn name(self) -> &'static str {
        match self {
            Went::Api => "api",
            Went::Kit => "kit",
            Went::Port => "port",
            Went::Refused => "refused",
        }
    }
}

/// The finished requests of one kind. All that is counted for every request is found once: to look
/// it up by its labels each time costs more than to count.
pub struct Finished {
    /// By the class of the status.
    classes: [IntCounter; CLASSES.len()],
    /// From a request's headers to its end; WebSockets apart.
    pub seconds: Histogram,
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl Finished {
    pub fn count(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, CLASSES.len());
        self.classes[class - 1].inc();
    }
}

/// Upper bounds in seconds, from a local hit to a long poll.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

impl Metrics {
    pub fn new() -> Metrics {
        let registry = Registry::new_custom(Some("hoody_proxy".into()), None)
            .expect("the prefix is not empty");
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help).expect("the name is valid");
            registry
                .register(Box::new(counter.clone()))
                .expect("the name is new");
            counter
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters =
                IntCounterVec::new(Opts::new(name, help), labels).expect("the names are valid");
            registry
                .register(Box::new(counters.clone()))
                .expect("the name is new");
            counters
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help).expect("the name is valid");
            registry
                .register(Box::new(gauge.clone()))
                .expect("the name is new");
            gauge
        };
        let seconds =
            |name: &str, help: &str| HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        let durations = HistogramVec::new(
            seconds("request_seconds", "From a request's headers to its end."),
            &["kind"],
        )
        .expect("the names are valid");
        registry
            .register(Box::new(durations.clone()))
            .expect("the name is new");
        let upstream = Histogram::with_opts(seconds(
            "upstream_seconds",
            "From a request's headers to those of the upstream's answer.",
        ))
        .expect("the name is valid");
        registry
            .register(Box::new(upstream.clone()))
            .expect("the name is new");
        let certificates = IntGaugeVec::new(
            Opts::new(
                "certificate_seconds_left",
                "Until the certificate of a class that ends first ends; negative afterwards.",
            ),
            &["class"],
        )
        .expect("the names are valid");
        registry
            .register(Box::new(certificates.clone()))
            .expect("the name is new");
        let requests = counters("requests_total", "Finished requests.", &["kind", "status"]);
        Metrics {
            certificates,
            finished: Went::ALL.map(|went| Finished {
                classes: CLASSES.map(|class| requests.with_label_values(&[went.name(), class])),
                seconds: durations.with_label_values(&[went.name()]),
            }),
            upstream,
            bytes_in: counter("request_bytes_total", "Bytes of request bodies."),
            bytes_out: counter("response_bytes_total", "Bytes of response bodies."),
            refusals: counters("refusals_total", "Answers of the proxy itself.", &["code"]),
            upstream_errors: counters(
                "upstream_errors_total",
                "Failures of kits and control.",
                &["reason"],
            ),
            client_aborts: counter("client_aborts_total", "Clients that left before the end."),
            connections: gauge("connections", "Open connections of clients."),
            accepted: counters("connections_total", "Accepted connections.", &["scheme"]),
            dropped: counters(
                "connections_dropped_total",
                "Connections closed before a request.",
                &["reason"],
            ),
            expired: counters(
                "connections_expired_total",
                "Connections closed because their client took too long.",
                &["phase"],
            ),
            floods: counters(
                "connections_flooded_total",
                "HTTP/2 connections closed because their client sent too much for nothing.",
                &["reason"],
            ),
            h2_faults: counters(
                "h2_faults_total",
                "HTTP/2 connections ended for a fault of their client's.",
                &["code"],
            ),
            tunnels: gauge("websockets", "Open WebSockets."),
            table_generation: gauge("table_generation", "Generation of the routing table."),
            table_places: gauge("table_containers", "Containers in the routing table."),
            feed_connected: gauge("feed_connected", "Whether control is connected."),
            log_dropped: counter("access_log_dropped_total", "Lines the log had no room for."),
            hooks: counters(
                "hooks_total",
                "Requests that a hook's script was asked about.",
                &["outcome"],
            ),
            domain_lookups: counters(
                "domain_lookups_total",
                "Names that were looked up because they could be custom domains.",
                &["result"],
            ),
            container_log_lost: counter(
                "container_log_lost_total",
                "Entries that no log of a container has on disk.",
            ),
            cut: counter("cut_total", "Exchanges ended by a change of rules."),
            wrong_credentials: counter("wrong_credentials_total", "Credentials that were wrong."),
            held: gauge(
                "held_requests",
                "Requests that wait for a container to wake.",
            ),
            read_ahead: gauge(
                "read_ahead_bytes",
                "Memory for answers of kits that do not read on.",
            ),
            registry,
        }
    }

    pub fn finished(&self, went: Went) -> &Finished {
        &self.finished[went as usize]
    }

    /// Show what another part counts, too.
    pub fn add(&self, counters: Box<dyn prometheus::core::Collector>) {
        self.registry
            .register(counters)
            .expect("its names are its own, and it is added once");
    }

    fn text(&self, holdings: Option<&dyn Holdings>) -> Vec<u8> {
        self.certificates.reset();
        let now = std::time::SystemTime::now();
        for (class, left) in holdings.iter().flat_map(|it| it.seconds_left(now)) {
            let gauge = self.certificates.with_label_values(&[class.as_str()]);
            gauge.set(left);
        }
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("memory takes everything");
        text
    }
}

/// Readers served at once.
const READERS: usize = 16;

/// Serve `GET /metrics` and `GET /health`.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let readers = Arc::new(Semaphore::new(READERS));
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = readers.clone().try_acquire_owned() else {
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let answer = answer(&request, &shared);
                async move { Ok::<_, Infallible>(answer) }
            });
            // A reader that leaves is none of our business.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(std::time::Duration::from_secs(10))
                .serve_connection(TokioIo::new(socket), service)
                .await;
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let (status, body) = match request.uri().path() {
        "/metrics" => (
            StatusCode::OK,
            shared
                .metrics
                .text(shared.config.certificates.holdings.as_deref()),
        ),
        "/health" => (StatusCode::OK, b"ok\n".to_vec()),
        _ => (StatusCode::NOT_FOUND, b"metrics are at /metrics\n".to_vec()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, kind);
    response
}
