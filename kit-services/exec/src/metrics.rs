//! How often scripts were asked, how long they took, and what is under way.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;

use crate::logs::now;

/// Scripts that are counted; the one that was asked longest ago goes first.
const SCRIPTS: usize = 1000;
/// Durations and errors of one script that are remembered.
const DURATIONS: usize = 256;
const ERRORS: usize = 10;
/// Minutes of requests that rates are made of.
const MINUTES: u64 = 15;

/// A request that is under way.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Active {
    pub execution_id: String,
    pub script_path: String,
    pub hostname: String,
    pub client_ip: String,
    pub method: String,
    /// Path and query of the request; values of the query are not shown.
    pub url: String,
    pub started_at: String,
    /// Milliseconds since then.
    pub duration: u64,
    #[serde(skip)]
    begun: Option<Instant>,
    #[serde(skip)]
    pub socket: bool,
}

/// WebSockets of a script.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sockets {
    pub opened: u64,
    pub closed: u64,
    pub normal_closes: u64,
    pub abnormal_closes: u64,
    pub mean_session_ms: f64,
    pub max_session_ms: u64,
}

#[derive(Debug, Default)]
struct Counts {
    total: u64,
    success: u64,
    errors: u64,
    sum_ms: f64,
    max_ms: f64,
    recent: VecDeque<f64>,
    sockets: Sockets,
    active: usize,
    active_sockets: usize,
    failures: VecDeque<RecentError>,
    first: String,
    last: String,
    touched: Option<Instant>,
    hostname: String,
}

/// A request that went wrong.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecentError {
    pub timestamp: String,
    pub status_code: u16,
    pub message: String,
    pub execution_id: String,
}

/// Requests of a script, in numbers.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Http {
    pub total: u64,
    pub success: u64,
    pub errors: u64,
    pub mean_duration_ms: f64,
    pub p50_duration_ms: f64,
    pub p95_duration_ms: f64,
    pub max_duration_ms: f64,
}

/// A script, in numbers.
#[derive(Clone, Debug)]
pub struct ScriptNumbers {
    pub path: String,
    pub hostname: String,
    pub http: Http,
    pub recent: Vec<f64>,
    pub sockets: Sockets,
    pub active: usize,
    pub active_sockets: usize,
    pub failures: Vec<RecentError>,
    pub first: String,
    pub last: String,
}

/// All numbers. Since the service started.
#[derive(Debug)]
pub struct Metrics(Mutex<All>);

#[derive(Debug)]
struct All {
    begun: Instant,
    total: u64,
    success: u64,
    errors: u64,
    /// Requests in each of the last minutes, by the minute since the start.
    minutes: VecDeque<(u64, u64)>,
    sockets: Sockets,
    fires: u64,
    fire_errors: u64,
    fires_active: u64,
    dropped: u64,
    scripts: HashMap<String, Counts>,
    active: BTreeMap<u64, Active>,
    next: u64,
}

/// Everything in numbers.
#[derive(Debug, Clone)]
pub struct Totals {
    pub uptime: Duration,
    pub total: u64,
    pub success: u64,
    pub errors: u64,
    pub active: usize,
    pub active_sockets: usize,
    pub per_minute: [f64; 3],
    pub sockets: Sockets,
    pub fires: u64,
    pub fire_errors: u64,
    pub fires_active: u64,
    pub dropped: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics(Mutex::new(All {
            begun: Instant::now(),
            total: 0,
            success: 0,
            errors: 0,
            minutes: VecDeque::new(),
            sockets: Sockets::default(),
            fires: 0,
            fire_errors: 0,
            fires_active: 0,
            dropped: 0,
            scripts: HashMap::new(),
            active: BTreeMap::new(),
            next: 0,
        }))
    }
}

impl Metrics {
    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins; the number is for [`end`](Metrics::end).
    pub fn begin(&self, mut active: Active) -> u64 {
        let mut all = self.all();
        all.next += 1;
        let id = all.next;
        let minute = all.begun.elapsed().as_secs() / 60;
        match all.minutes.back_mut() {
            Some((last, count)) if *last == minute => *count += 1,
            _ => all.minutes.push_back((minute, 1)),
        }
        while all.minutes.len() as u64 > MINUTES {
            all.minutes.pop_front();
        }
        if all.scripts.len() >= SCRIPTS && !all.scripts.contains_key(&active.script_path) {
            let oldest = all
                .scripts
                .iter()
                .filter(|(_, counts)| counts.active == 0)
                .min_by_key(|(_, counts)| counts.touched)
                .map(|(path, _)| path.clone());
            if let Some(oldest) = oldest {
                all.scripts.remove(&oldest);
                all.dropped += 1;
            }
        }
        let stamp = now();
        let counts = all.scripts.entry(active.script_path.clone()).or_default();
        if counts.first.is_empty() {
            counts.first.clone_from(&stamp);
        }
        counts.last.clone_from(&stamp);
        counts.touched = Some(Instant::now());
        counts.hostname.clone_from(&active.hostname);
        counts.active += 1;
        active.started_at = stamp;
        active.begun = Some(Instant::now());
        all.active.insert(id, active);
        id
    }

    /// The request became a WebSocket.
    pub fn upgraded(&self, id: u64) {
        let mut all = self.all();
        let Some(path) = all.active.get_mut(&id).map(|active| {
            active.socket = true;
            active.script_path.clone()
        }) else {
            return;
        };
        all.sockets.opened += 1;
        if let Some(counts) = all.scripts.get_mut(&path) {
            counts.sockets.opened += 1;
            counts.active -= 1;
            counts.active_sockets += 1;
        }
    }

    /// A request ended, or a WebSocket. How long it took.
    pub fn end(&self, id: u64, status: u16, failure: Option<&str>) -> Duration {
        let mut all = self.all();
        let Some(active) = all.active.remove(&id) else {
            return Duration::ZERO;
        };
        let took = active
            .begun
            .map(|begun| begun.elapsed())
            .unwrap_or_default();
        let millis = took.as_secs_f64() * 1000.0;
        if active.socket {
            all.sockets.count(took, failure.is_none());
            if let Some(counts) = all.scripts.get_mut(&active.script_path) {
                counts.sockets.count(took, failure.is_none());
                counts.active_sockets -= 1;
            }
            return took;
        }
        let fine = status < 500;
        all.total += 1;
        match fine {
            true => all.success += 1,
            false => all.errors += 1,
        }
        if let Some(counts) = all.scripts.get_mut(&active.script_path) {
            counts.active = counts.active.saturating_sub(1);
            counts.total += 1;
            counts.sum_ms += millis;
            counts.max_ms = counts.max_ms.max(millis);
            counts.recent.push_back(millis);
            if counts.recent.len() > DURATIONS {
                counts.recent.pop_front();
            }
            counts.last = now();
            match fine {
                true => counts.success += 1,
                false => {
                    counts.errors += 1;
                    counts.failures.push_back(RecentError {
                        timestamp: now(),
                        status_code: status,
                        message: failure.unwrap_or("the script answered so").to_owned(),
                        execution_id: active.execution_id,
                    });
                    if counts.failures.len() > ERRORS {
                        counts.failures.pop_front();
                    }
                }
            }
        }
        took
    }

    /// A scheduled run begins.
    pub fn fire(&self) {
        let mut all = self.all();
        all.fires += 1;
        all.fires_active += 1;
    }

    /// A scheduled run ended.
    pub fn fired(&self, fine: bool) {
        let mut all = self.all();
        all.fires_active -= 1;
        all.fire_errors += u64::from(!fine);
    }

    /// What is under way.
    pub fn active(&self) -> Vec<Active> {
        let all = self.all();
        all.active
            .values()
            .cloned()
            .map(|mut active| {
                let took = active
                    .begun
                    .map(|begun| begun.elapsed())
                    .unwrap_or_default();
                active.duration = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                active
            })
            .collect()
    }

    pub fn is_busy(&self) -> bool {
        let all = self.all();
        !all.active.is_empty() || all.fires_active > 0
    }

    pub fn totals(&self) -> Totals {
        let all = self.all();
        let minute = all.begun.elapsed().as_secs() / 60;
        let within = |many: u64| {
            let sum: u64 = all
                .minutes
                .iter()
                .filter(|(at, _)| at + many > minute)
                .map(|(_, count)| count)
                .sum();
            sum as f64 / many as f64
        };
        Totals {
            uptime: all.begun.elapsed(),
            total: all.total,
            success: all.success,
            errors: all.errors,
            active: all.active.values().filter(|it| !it.socket).count(),
            active_sockets: all.active.values().filter(|it| it.socket).count(),
            per_minute: [within(1), within(5), within(15)],
            sockets: all.sockets.clone(),
            fires: all.fires,
            fire_errors: all.fire_errors,
            fires_active: all.fires_active,
            dropped: all.dropped,
        }
    }

    pub fn scripts(&self) -> Vec<ScriptNumbers> {
        let all = self.all();
        all.scripts
            .iter()
            .map(|(path, counts)| counts.numbers(path))
            .collect()
    }

    pub fn script(&self, path: &str) -> Option<ScriptNumbers> {
        self.all()
            .scripts
            .get(path)
            .map(|counts| counts.numbers(path))
    }
}

impl Sockets {
    fn count(&mut self, took: Duration, normal: bool) {
        let millis = took.as_secs_f64() * 1000.0;
        self.mean_session_ms =
            (self.mean_session_ms * self.closed as f64 + millis) / (self.closed + 1) as f64;
        self.max_session_ms = self.max_session_ms.max(millis as u64);
        self.closed += 1;
        match normal {
            true => self.normal_closes += 1,
            false => self.abnormal_closes += 1,
        }
    }
}

impl Counts {
    fn numbers(&self, path: &str) -> ScriptNumbers {
        let mut sorted: Vec<f64> = self.recent.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let last = sorted.len().saturating_sub(1);
            sorted
                .get((last as f64 * part).round() as usize)
                .copied()
                .unwrap_or_default()
        };
        let round = |millis: f64| (millis * 1000.0).round() / 1000.0;
        ScriptNumbers {
            path: path.to_owned(),
            hostname: self.hostname.clone(),
            http: Http {
                total: self.total,
                success: self.success,
                errors: self.errors,
                mean_duration_ms: round(self.sum_ms / self.total.max(1) as f64),
                p50_duration_ms: round(at(0.5)),
                p95_duration_ms: round(at(0.95)),
                max_duration_ms: round(self.max_ms),
            },
            recent: self.recent.iter().map(|millis| round(*millis)).collect(),
            sockets: self.sockets.clone(),
            active: self.active,
            active_sockets: self.active_sockets,
            failures: self.failures.iter().cloned().collect(),
            first: self.first.clone(),
            last: self.last.clone(),
        }
    }
}

impl Active {
    pub fn new(
        execution_id: String,
        script_path: String,
        hostname: String,
        client_ip: String,
        method: String,
        url: String,
    ) -> Active {
        Active {
            execution_id,
            script_path,
            hostname,
            client_ip,
            method,
            url,
            started_at: String::new(),
            duration: 0,
            begun: None,
            socket: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active(path: &str) -> Active {
        let text = || "x".to_owned();
        Active::new(text(), path.to_owned(), text(), text(), text(), text())
    }

    #[test]
    fn requests_are_counted_and_tables_bounded() {
        let metrics = Metrics::default();
        for nth in 0..SCRIPTS + 10 {
            let id = metrics.begin(active(&nth.to_string()));
            assert!(metrics.is_busy());
            metrics.end(id, if nth % 2 == 0 { 200 } else { 500 }, None);
        }
        let totals = metrics.totals();
        assert_eq!((totals.total, totals.errors), (1010, 505));
        assert_eq!((metrics.scripts().len(), totals.dropped), (SCRIPTS, 10));
        assert!(!metrics.is_busy());
        for _ in 0..DURATIONS * 2 {
            let id = metrics.begin(active("one"));
            metrics.end(id, 502, Some("why"));
        }
        let one = metrics.script("one").unwrap();
        assert_eq!((one.recent.len(), one.failures.len()), (DURATIONS, ERRORS));
        let id = metrics.begin(active("socket"));
        metrics.upgraded(id);
        assert_eq!(metrics.totals().active_sockets, 1);
        metrics.end(id, 101, None);
        assert_eq!(metrics.script("socket").unwrap().sockets.normal_closes, 1);
    }
}
