//! What is counted, and how it is written for Prometheus.

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use routes::sleep::Said;

use crate::container::{Status, Step};
use crate::prespawn::Standing;

/// The counters of one control plane.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    containers: IntGaugeVec,
    steps: HistogramVec,
    failures: IntCounterVec,
    /// Machines in the runtime that the database knows nothing of.
    pub strangers: IntGauge,
    /// Sweeps over all containers, by their end: `ok` or `failed`.
    pub sweeps: IntCounterVec,
    /// Changes of the routing table that the proxy has taken.
    pub published: prometheus::IntCounter,
    wakes: IntCounterVec,
    tasks: IntGaugeVec,
    streams: IntGauge,
    stream_ends: IntCounterVec,
    pub policies: IntCounterVec,
    kept: IntGaugeVec,
    kept_bytes: IntGauge,
    claims: IntCounterVec,
    claim_seconds: Histogram,
    shares: IntGaugeVec,
    share_runs: IntCounterVec,
}

const HOW: &str = "metrics are declared with valid names";

impl Metrics {
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let containers = IntGaugeVec::new(
            Opts::new("hoody_containers", "Containers by status"),
            &["status"],
        )
        .expect(HOW);
        let buckets = vec![0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
        let steps = HistogramVec::new(
            HistogramOpts::new(
                "hoody_step_seconds",
                "Time that a step of the reconciler took",
            )
            .buckets(buckets),
            &["step"],
        )
        .expect(HOW);
        let failures = IntCounterVec::new(
            Opts::new(
                "hoody_step_failures_total",
                "Steps of the reconciler that failed",
            ),
            &["step", "kind"],
        )
        .expect(HOW);
        let strangers = IntGauge::new(
            "hoody_strangers",
            "Machines that the database knows nothing of",
        )
        .expect(HOW);
        let sweeps = IntCounterVec::new(
            Opts::new("hoody_sweeps_total", "Looks at all containers"),
            &["end"],
        )
        .expect(HOW);
        let policies = IntCounterVec::new(
            Opts::new(
                "hoody_policies_total",
                "Times that what all containers may reach was brought to the runtime",
            ),
            &["end"],
        )
        .expect(HOW);
        let shares = IntGaugeVec::new(
            Opts::new(
                "hoody_shares",
                "Directories that containers see of one another, or should and do not",
            ),
            &["state"],
        )
        .expect(HOW);
        let share_runs = IntCounterVec::new(
            Opts::new(
                "hoody_share_runs_total",
                "Times that what containers see of one another was brought to the runtime",
            ),
            &["end"],
        )
        .expect(HOW);
        let published = prometheus::IntCounter::new(
            "hoody_published_total",
            "Changes of the routing table that the proxy has taken",
        )
        .expect(HOW);
        let wakes = IntCounterVec::new(
            Opts::new(
                "hoody_wakes_total",
                "Containers that were waited for, by what was said of them",
            ),
            &["said"],
        )
        .expect(HOW);
        let streams =
            IntGauge::new("hoody_event_streams", "Connections that listen to events").expect(HOW);
        let stream_ends = IntCounterVec::new(
            Opts::new(
                "hoody_event_stream_ends_total",
                "Connections that listened to events and were refused or let go",
            ),
            &["reason"],
        )
        .expect(HOW);
        let tasks = IntGaugeVec::new(
            Opts::new("hoody_tasks", "Containers that the reconciler is at"),
            &["state"],
        )
        .expect(HOW);
        let kept = IntGaugeVec::new(
            Opts::new(
                "hoody_prespawn_machines",
                "Machines that are kept ready: how many there should be, and how many can be claimed",
            ),
            &["image", "kit", "state"],
        )
        .expect(HOW);
        let kept_bytes = IntGauge::new(
            "hoody_prespawn_bytes",
            "Memory that machines hold which are kept ready",
        )
        .expect(HOW);
        let claims = IntCounterVec::new(
            Opts::new(
                "hoody_prespawn_claims_total",
                "New containers that could have had a machine that was kept ready, by whether they had",
            ),
            &["result"],
        )
        .expect(HOW);
        let claim_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "hoody_prespawn_claim_seconds",
                "Time from asking for a container to its running, on a machine that was kept ready",
            )
            .buckets(vec![
                0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5,
            ]),
        )
        .expect(HOW);
        for result in ["hit", "missed"] {
            claims.with_label_values(&[result]).inc_by(0);
        }
        let all: [Box<dyn prometheus::core::Collector>; 17] = [
            Box::new(kept.clone()),
            Box::new(kept_bytes.clone()),
            Box::new(claims.clone()),
            Box::new(claim_seconds.clone()),
            Box::new(tasks.clone()),
            Box::new(streams.clone()),
            Box::new(stream_ends.clone()),
            Box::new(containers.clone()),
            Box::new(steps.clone()),
            Box::new(failures.clone()),
            Box::new(strangers.clone()),
            Box::new(sweeps.clone()),
            Box::new(published.clone()),
            Box::new(wakes.clone()),
            Box::new(policies.clone()),
            Box::new(shares.clone()),
            Box::new(share_runs.clone()),
        ];
        for metric in all {
            registry.register(metric).expect(HOW);
        }
        Metrics {
            registry,
            containers,
            steps,
            failures,
            strangers,
            sweeps,
            published,
            wakes,
            tasks,
            streams,
            stream_ends,
            policies,
            kept,
            kept_bytes,
            claims,
            claim_seconds,
            shares,
            share_runs,
        }
    }

    /// How the machines are that are kept ready.
    pub fn kept(&self, standing: &Standing) {
        for pool in &standing.pools {
            let kit = if pool.kind.kit { "yes" } else { "no" };
            for (state, n) in [("wanted", pool.size), ("ready", pool.ready)] {
                let n = i64::try_from(n).unwrap_or(i64::MAX);
                self.kept
                    .with_label_values(&[&*pool.kind.image, kit, state])
                    .set(n);
            }
        }
        let bytes = i64::try_from(standing.memory).unwrap_or(i64::MAX);
        self.kept_bytes.set(bytes);
    }

    /// A new container was given a machine that was kept ready, or was not.
    pub fn claim(&self, hit: bool) {
        let result = if hit { "hit" } else { "missed" };
        self.claims.with_label_values(&[result]).inc();
    }

    /// A container runs on a machine that was kept ready, so long after it was asked for.
    pub fn claimed(&self, seconds: f64) {
        self.claim_seconds.observe(seconds);
    }

    pub fn step(&self, step: Step, seconds: f64) {
        self.steps
            .with_label_values(&[step.as_str()])
            .observe(seconds);
    }

    /// A step failed; `kind` is `transient` or `permanent`.
    pub fn failed(&self, step: Step, kind: &str) {
        self.failures
            .with_label_values(&[step.as_str(), kind])
            .inc();
    }

    /// A container was waited for.
    pub fn woken(&self, said: Said) {
        let said = match said {
            Said::Waking | Said::Noted => "waking",
            Said::No => "no",
            Said::Later(_) => "later",
        };
        self.wakes.with_label_values(&[said]).inc();
    }

    /// A connection for events was refused.
    pub fn refused_stream(&self) {
        self.ended_stream("refused");
    }

    /// A connection for events was let go, for one of a few reasons.
    pub fn ended_stream(&self, reason: &str) {
        self.stream_ends.with_label_values(&[reason]).inc();
    }

    /// How many containers the reconciler takes a step for, and how many wait.
    pub fn tasks(&self, running: usize, waiting: usize) {
        for (state, n) in [("running", running), ("waiting", waiting)] {
            let n = i64::try_from(n).unwrap_or(i64::MAX);
            self.tasks.with_label_values(&[state]).set(n);
        }
    }

    /// Shares were brought to the runtime: how many directories are seen, and how many should be and
    /// are not.
    pub fn shares(&self, mounted: usize, missing: usize, well: bool) {
        for (state, n) in [("mounted", mounted), ("missing", missing)] {
            let n = i64::try_from(n).unwrap_or(i64::MAX);
            self.shares.with_label_values(&[state]).set(n);
        }
        let end = if well { "ok" } else { "failed" };
        self.share_runs.with_label_values(&[end]).inc();
    }

    /// Everything, in the text format of Prometheus.
    pub fn text(&self, census: &[(Status, u64)], streams: usize) -> String {
        self.streams.set(i64::try_from(streams).unwrap_or(i64::MAX));
        for status in Status::ALL {
            let n = census
                .iter()
                .find(|(of, _)| *of == status)
                .map_or(0, |(_, n)| *n);
            self.containers
                .with_label_values(&[status.as_str()])
                .set(i64::try_from(n).unwrap_or(i64::MAX));
        }
        let mut out = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(%error, "could not write the metrics");
        }
        String::from_utf8(out).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_written() {
        let metrics = Metrics::new();
        metrics.step(Step::Start, 0.3);
        metrics.failed(Step::Start, "transient");
        let text = metrics.text(&[(Status::Running, 3)], 0);
        assert!(
            text.contains("hoody_containers{status=\"running\"} 3"),
            "{text}"
        );
        assert!(
            text.contains("hoody_containers{status=\"failed\"} 0"),
            "{text}"
        );
        assert!(
            text.contains("hoody_step_failures_total{kind=\"transient\",step=\"start\"} 1"),
            "{text}"
        );
    }
}
