//! What Prometheus is told.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Encoder, HistogramOpts, HistogramVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::mcp::Meter;
use crate::service::{Service, ToolError};

/// Upper bounds of the duration of a call, in seconds; waiting calls take up to a minute.
const SECONDS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 20.0, 50.0, 60.0];

/// What is counted.
pub struct Metrics {
    registry: Registry,
    calls: HistogramVec,
}

impl Metrics {
    /// Nothing counted yet.
    ///
    /// # Errors
    /// When two have the same name.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let calls = HistogramOpts::new(
            "nomad_build_tool_call_seconds",
            "How long calls of tools took, by tool and outcome: ok, or the code of the error.",
        );
        let calls = HistogramVec::new(calls.buckets(SECONDS.to_vec()), &["tool", "outcome"])?;
        registry.register(Box::new(calls.clone()))?;
        Ok(Self { registry, calls })
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    /// When the backend does not answer, or nothing can be written.
    pub async fn text(&self, service: &Service) -> Result<String, ToolError> {
        let mut counts: BTreeMap<(&str, String), i64> = BTreeMap::new();
        for (state, profile) in service.census().await? {
            *counts.entry((state, profile)).or_default() += 1;
        }
        // Made anew each time: what is gone must not stay, and several may ask at once.
        let builds = Opts::new(
            "nomad_build_builds",
            "Builds whose records are kept, by state and profile; each server of a cluster tells of all.",
        );
        let builds =
            IntGaugeVec::new(builds, &["state", "profile"]).map_err(ToolError::internal)?;
        for ((state, profile), count) in &counts {
            builds.with_label_values(&[*state, profile]).set(*count);
        }
        let mut families = self.registry.gather();
        families.extend(builds.collect());
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&families, &mut text)
            .map_err(ToolError::internal)?;
        String::from_utf8(text).map_err(ToolError::internal)
    }
}

impl Meter for Metrics {
    fn called(&self, tool: &str, outcome: &str, took: Duration) {
        self.calls
            .with_label_values(&[tool, outcome])
            .observe(took.as_secs_f64());
    }
}
