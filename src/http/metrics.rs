//! What Prometheus is told. Labels are states, phases, kinds of failures, profiles, tools, and their like:
//! never an id, a name or a principal.
//!
//! Builds are looked at when somebody asks: what is there now, and what has ended since the last time.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::backend::{Health, View, Vitals};
use crate::build::record::Final;
use crate::build::{BuildId, Phase, Record, State};
use crate::config::live::Standing;
use crate::mcp::Meter;
use crate::runner::reporter::now_ms;
use crate::service::{Service, ToolError};

/// Upper bounds of the duration of a call, in seconds; waiting calls take up to a minute.
const CALL: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 20.0, 50.0, 60.0];
/// The same of a build, of one of its phases, and of its waiting for capacity.
const BUILD: [f64; 12] = [
    0.5, 1.0, 2.5, 5.0, 15.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 14_400.0,
];
/// States in which a build has not ended.
const UNFINISHED: [State; 2] = [State::Queued, State::Running];

/// What a server holds for its clients.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// Sessions of Streamable HTTP.
    pub sessions: usize,
    /// Streams of HTTP+SSE.
    pub streams: usize,
    /// Connections.
    pub connections: usize,
}

/// What is counted.
pub struct Metrics {
    registry: Registry,
    calls: HistogramVec,
    log_bytes: IntCounter,
    upload_bytes: IntCounter,
    ended: IntCounterVec,
    took: HistogramVec,
    phases: HistogramVec,
    waited: HistogramVec,
    log_lines: IntCounter,
    /// Builds whose end is counted; `None` before anybody has looked.
    seen: Mutex<Option<HashSet<BuildId>>>,
}

impl Metrics {
    /// Nothing counted yet.
    ///
    /// # Errors
    /// When two have the same name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let histogram = |name: &str, help: &str, bounds: &[f64], labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
            let histogram = HistogramVec::new(options, labels)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let calls = histogram(
            "nomad_build_tool_call_seconds",
            "How long calls of tools took, by tool and outcome: ok, or the code of the error.",
            &CALL,
            &["tool", "outcome"],
        )?;
        let took = histogram(
            "nomad_build_build_seconds",
            "How long builds took from their start to their end, by final state and profile.",
            &BUILD,
            &["state", "profile"],
        )?;
        let phases = histogram(
            "nomad_build_phase_seconds",
            "How long the phases of builds took that have ended.",
            &BUILD,
            &["phase", "profile"],
        )?;
        let waited = histogram(
            "nomad_build_queue_seconds",
            "How long builds waited for capacity before they began.",
            &BUILD,
            &["profile"],
        )?;
        let ended = Opts::new(
            "nomad_build_ended_total",
            "Builds that have ended, by final state, profile, and for those that did not succeed kind and fault of the failure; each server of a cluster counts all.",
        );
        let ended = IntCounterVec::new(ended, &["state", "profile", "kind", "fault"])?;
        let log_lines = IntCounter::new(
            "nomad_build_log_lines_total",
            "Lines of the logs of builds that have ended.",
        )?;
        let log_bytes = IntCounter::new(
            "nomad_build_log_bytes_total",
            "Bytes of logs that this server has given to clients.",
        )?;
        registry.register(Box::new(ended.clone()))?;
        registry.register(Box::new(log_lines.clone()))?;
        let upload_bytes = IntCounter::new(
            "nomad_build_upload_bytes_total",
            "Bytes of contexts that clients have uploaded, as they are kept.",
        )?;
        registry.register(Box::new(log_bytes.clone()))?;
        registry.register(Box::new(upload_bytes.clone()))?;
        Ok(Self {
            calls,
            log_bytes,
            upload_bytes,
            ended,
            took,
            phases,
            waited,
            log_lines,
            registry,
            seen: Mutex::default(),
        })
    }

    /// Everything in Prometheus' text format. While nothing is known of builds, they are left out.
    ///
    /// # Errors
    /// When nothing can be written.
    pub async fn text(
        &self,
        service: &Service,
        health: &Health,
        held: Held,
    ) -> prometheus::Result<String> {
        let views = match health.knows_builds() {
            true => known(service.census().await),
            false => None,
        };
        if let Some(views) = &views {
            self.count_ends(views);
        }
        let mut families = self.registry.gather();
        if let Some(views) = &views {
            families.extend(builds(views, now_ms())?);
        }
        families.extend(clients(held)?);
        families.extend(dependencies(health)?);
        families.extend(configuration(service.overlay())?);
        families.extend(backend(&service.vitals())?);
        // One without a value yet, as of builds where there are none, is no family for the encoder.
        families.retain(|family| !family.get_metric().is_empty());
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }

    /// Counts what has ended since the last time; what had ended before the first time is not counted.
    fn count_ends(&self, views: &[View]) {
        let ended: Vec<(&Record, &Final)> = (views.iter())
            .filter_map(|view| Some((&view.record, view.record.end.as_ref()?)))
            .collect();
        let now: HashSet<BuildId> = (ended.iter())
            .map(|(record, _)| record.id.clone())
            .collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = seen.as_ref() {
            for (record, end) in ended {
                if !before.contains(&record.id) {
                    self.count_end(record, end);
                }
            }
        }
        *seen = Some(now);
    }

    fn count_end(&self, record: &Record, end: &Final) {
        let (state, profile) = (end.state.as_str(), record.profile.as_str());
        let failure = end.failure.as_ref();
        let kind = failure.map_or("", |failure| failure.kind.as_str());
        let fault = failure.map_or("", |failure| failure.fault.as_str());
        self.ended
            .with_label_values(&[state, profile, kind, fault])
            .inc();
        self.log_lines.inc_by(end.log_lines);
        if let Some(began) = record.began {
            let took = seconds(began, end.at);
            self.took.with_label_values(&[state, profile]).observe(took);
            let waited = seconds(record.submitted, began);
            self.waited.with_label_values(&[profile]).observe(waited);
        }
        for (phase, took) in &end.phase_seconds {
            self.phases
                .with_label_values(&[phase.as_str(), profile])
                .observe(*took);
        }
    }
}

/// Builds that cannot be read are no reason to tell nothing.
fn known(views: Result<Vec<View>, ToolError>) -> Option<Vec<View>> {
    views
        .inspect_err(|error| tracing::warn!(%error, "the metrics tell nothing of builds"))
        .ok()
}

/// Between two times in milliseconds.
fn seconds(from: i64, to: i64) -> f64 {
    Duration::from_millis(u64::try_from(to - from).unwrap_or(0)).as_secs_f64()
}

/// Gauges are made anew each time: what is gone must not stay, and several may ask at once.
fn gauge(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    IntGaugeVec::new(Opts::new(name, help), labels)
}

/// The builds that there are now.
fn builds(views: &[View], now: i64) -> prometheus::Result<Vec<MetricFamily>> {
    let all = gauge(
        "nomad_build_builds",
        "Builds whose records are kept, by state and profile; each server of a cluster tells of all.",
        &["state", "profile"],
    )?;
    let running = gauge(
        "nomad_build_running",
        "Builds that run, by phase and profile.",
        &["phase", "profile"],
    )?;
    let oldest = Opts::new(
        "nomad_build_queue_oldest_seconds",
        "How long the build waits that has waited for capacity for longest, by profile.",
    );
    let oldest = GaugeVec::new(oldest, &["profile"])?;
    let mut waiting: BTreeMap<&str, f64> = BTreeMap::new();
    for view in views {
        let profile = view.record.profile.as_str();
        let state = view.state();
        all.with_label_values(&[state.as_str(), profile]).inc();
        // There from the first build of a profile on, and zero when none is in that state.
        for unfinished in UNFINISHED {
            let _ = all.with_label_values(&[unfinished.as_str(), profile]);
        }
        for phase in [Phase::Source, Phase::Build, Phase::Test, Phase::Publish] {
            let _ = running.with_label_values(&[phase.as_str(), profile]);
        }
        waiting.entry(profile).or_default();
        match state {
            State::Running => {
                let phase = view.progress.standing.phase.map_or("", Phase::as_str);
                running.with_label_values(&[phase, profile]).inc();
            }
            State::Queued => {
                let waits = seconds(view.record.submitted, now);
                waiting
                    .entry(profile)
                    .and_modify(|oldest| *oldest = oldest.max(waits));
            }
            _ => {}
        }
    }
    for (profile, seconds) in waiting {
        oldest.with_label_values(&[profile]).set(seconds);
    }
    let families = [all.collect(), running.collect(), oldest.collect()];
    Ok(families.into_iter().flatten().collect())
}

fn clients(held: Held) -> prometheus::Result<Vec<MetricFamily>> {
    let clients = gauge(
        "nomad_build_clients",
        "What this server holds for its clients: connections, sessions of Streamable HTTP, streams of HTTP+SSE.",
        &["kind"],
    )?;
    for (kind, count) in [
        ("connection", held.connections),
        ("session", held.sessions),
        ("stream", held.streams),
    ] {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        clients.with_label_values(&[kind]).set(count);
    }
    Ok(clients.collect())
}

fn dependencies(health: &Health) -> prometheus::Result<Vec<MetricFamily>> {
    let up = gauge(
        "nomad_build_dependency_up",
        "Whether what builds need is there: 1, or 0 when it or some of it is missing; /readyz says more.",
        &["dependency"],
    )?;
    for (dependency, there) in health.all() {
        up.with_label_values(&[dependency.as_str()])
            .set(there.into());
    }
    Ok(up.collect())
}

/// Where keys in Consul lie over the configuration.
fn configuration(overlay: Option<Standing>) -> prometheus::Result<Vec<MetricFamily>> {
    let valid = gauge(
        "nomad_build_config_valid",
        "Whether what Consul has is a valid configuration: 1, or 0 when it was refused and the last valid one holds.",
        &[],
    )?;
    let index = gauge(
        "nomad_build_config_index",
        "Consul's index of the configuration that holds; 0 when nothing of Consul's holds yet.",
        &[],
    )?;
    if let Some(overlay) = overlay {
        let is_valid = overlay.refused.is_empty();
        valid.with_label_values::<&str>(&[]).set(is_valid.into());
        let number = i64::try_from(overlay.index).unwrap_or(i64::MAX);
        index.with_label_values::<&str>(&[]).set(number);
    }
    let families = [valid.collect(), index.collect()];
    Ok(families.into_iter().flatten().collect())
}

fn backend(vitals: &Vitals) -> prometheus::Result<Vec<MetricFamily>> {
    let requests = Opts::new(
        "nomad_build_backend_requests_total",
        "Requests to Nomad since the start: answered, refused by it, or failed on the way or in it.",
    );
    let requests = IntCounterVec::new(requests, &["outcome"])?;
    for (outcome, count) in &vitals.requests {
        requests.with_label_values(&[*outcome]).inc_by(*count);
    }
    let silence = Opts::new(
        "nomad_build_event_silence_seconds",
        "How long ago Nomad's event stream said something; a heartbeat comes every ten seconds.",
    );
    let silence = GaugeVec::new(silence, &[])?;
    if let Some(silent) = vitals.silence {
        silence
            .with_label_values::<&str>(&[])
            .set(silent.as_secs_f64());
    }
    let families = [requests.collect(), silence.collect()];
    Ok(families.into_iter().flatten().collect())
}

impl Meter for Metrics {
    fn called(&self, tool: &str, outcome: &str, took: Duration) {
        self.calls
            .with_label_values(&[tool, outcome])
            .observe(took.as_secs_f64());
    }

    fn gave_log(&self, bytes: usize) {
        self.log_bytes.inc_by(bytes as u64);
    }

    fn took_upload(&self, bytes: u64) {
        self.upload_bytes.inc_by(bytes);
    }
}
