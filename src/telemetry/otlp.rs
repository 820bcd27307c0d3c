//! Spans to a collector: OTLP over HTTP, protobuf, configured by the customary variables.

use std::env;
use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::{
    SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;

use super::{Hearer, Parent, trace_id};

/// Of spans that no collector hears of.
const QUIET: &str = "nomad_build::quiet";
/// For an export, in milliseconds, as the specification has it.
const TIMEOUT: u64 = 10_000;

/// What goes to the collector.
#[derive(Debug)]
pub struct Export(SdkTracerProvider);

impl Export {
    /// Sends what is left, for so long at most. Outside of the runtime, which sends it.
    pub fn end(self, within: Duration) {
        if let Err(error) = self.0.shutdown_with_timeout(within) {
            tracing::warn!(%error, "the last traces were not exported");
        }
    }
}

/// Begins to export spans, if the environment names a collector; they are sent by `runtime`.
///
/// # Errors
/// When what the environment says cannot be used.
pub fn begin(runtime: &Handle) -> io::Result<Option<(Export, Hearer)>> {
    if !is_wanted(|name| env::var(name).ok()) {
        return Ok(None);
    }
    let timeout = timeout(|name| env::var(name).ok());
    let http = reqwest::Client::builder()
        .user_agent(concat!(
            env!("CARGO_PKG_NAME"),
            "/",
            env!("CARGO_PKG_VERSION")
        ))
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::none());
    let sender = Sender {
        http: http.build().map_err(io::Error::other)?,
        runtime: runtime.clone(),
        failing: AtomicBool::new(false),
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(sender)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(timeout);
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter.build().map_err(io::Error::other)?)
        .with_resource(resource())
        .build();
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(env!("CARGO_PKG_NAME")))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false);
    // Spans of this program alone, and no events: those are what the log says.
    let ours = filter_fn(|about| {
        let target = about.target();
        let ours = target.starts_with("nomad_build") && target != QUIET;
        ours && about.is_span() && *about.level() <= Level::INFO
    });
    let ours = ours.with_max_level_hint(LevelFilter::INFO);
    Ok(Some((Export(provider), spans.with_filter(ours).boxed())))
}

/// Whether there is a collector, and traces are for it.
fn is_wanted(variable: impl Fn(&str) -> Option<String>) -> bool {
    let is = |name, word: &str| variable(name).is_some_and(|is| is.eq_ignore_ascii_case(word));
    let endpoints = [
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ];
    endpoints
        .iter()
        .any(|name| variable(name).is_some_and(|endpoint| !endpoint.is_empty()))
        && !is("OTEL_SDK_DISABLED", "true")
        && !is("OTEL_TRACES_EXPORTER", "none")
}

fn timeout(variable: impl Fn(&str) -> Option<String>) -> Duration {
    let names = [
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
    ];
    let set = names.iter().find_map(|name| variable(name)?.parse().ok());
    Duration::from_millis(set.unwrap_or(TIMEOUT))
}

/// Who sends, as the operator says; else this program.
fn resource() -> Resource {
    const NAME: &str = "service.name";
    let own = [
        KeyValue::new(NAME, env!("CARGO_PKG_NAME")),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ];
    let named = env::var("OTEL_SERVICE_NAME").ok();
    let named = named.filter(|name| !name.is_empty());
    Resource::builder_empty()
        .with_attributes(own)
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()))
        .with_attributes(named.map(|name| KeyValue::new(NAME, name)))
        .build()
}

/// Sends from the exporter's own thread, where no connection can live.
#[derive(Debug)]
struct Sender {
    http: reqwest::Client,
    runtime: Handle,
    failing: AtomicBool,
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        let sent = self
            .runtime
            .spawn(async move { http.send_bytes(request).await })
            .await?;
        self.tell(&sent);
        sent
    }
}

impl Sender {
    /// Once is enough to say.
    fn tell(&self, sent: &Result<Response<Bytes>, HttpError>) {
        let why = match sent {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("the collector answers {}", answer.status())),
            // The outer errors name the URL, which may hold a password.
            Err(error) => Some(innermost(error.as_ref()).to_string()),
        };
        match (why, &self.failing) {
            (Some(why), failing) if !failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(why, "traces cannot be exported");
            }
            (None, failing) if failing.swap(false, Ordering::Relaxed) => {
                tracing::info!("traces can be exported again");
            }
            _ => {}
        }
    }
}

fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    std::iter::successors(Some(error), |error| (*error).source())
        .last()
        .unwrap_or(error)
}

/// A span for a request, and the id of its trace; of a `quiet` one no collector hears.
pub fn request(parent: Option<&Parent>, quiet: bool) -> (Span, String) {
    let span = match quiet {
        true => tracing::info_span!(target: QUIET, "request", trace_id = Empty),
        false => tracing::info_span!("request", trace_id = Empty, otel.kind = "server"),
    };
    if let Some(parent) = parent {
        // Where nobody exports, there is no parent to set.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent.into()));
    }
    let exported = span.context().span().span_context().trace_id();
    let id = match exported {
        TraceId::INVALID => trace_id(parent),
        exported => exported.to_string(),
    };
    span.record("trace_id", tracing::field::display(&id));
    (span, id)
}

impl From<&Parent> for SpanContext {
    fn from(parent: &Parent) -> Self {
        Self::new(
            TraceId::from(parent.trace),
            SpanId::from(parent.span),
            TraceFlags::default().with_sampled(parent.sampled),
            true,
            TraceState::default(),
        )
    }
}

/// Names a span for a collector.
pub fn name(span: &Span, name: String) {
    span.context().span().update_name(name);
}

/// Sets an attribute for a collector.
pub fn note<V: Into<Value>>(span: &Span, key: &'static str, value: V) {
    span.set_attribute(key, value);
}

/// What a span is about went wrong, and this server is to blame.
pub fn fail(span: &Span) {
    span.set_status(Status::error(""));
}

/// Ends a span, whoever still holds it.
pub fn end(span: &Span) {
    span.context().span().end();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_exported_unless_somebody_says_where() {
        let wanted = |set: &[(&str, &str)]| {
            let find = |name: &str| set.iter().find(|(key, _)| *key == name);
            is_wanted(|name| find(name).map(|(_, value)| (*value).to_owned()))
        };
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        assert!(wanted(&[endpoint]));
        assert!(wanted(&[(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://c/x"
        )]));
        assert!(!wanted(&[("OTEL_SERVICE_NAME", "builds")]));
        assert!(!wanted(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]));
        assert!(!wanted(&[endpoint, ("OTEL_SDK_DISABLED", "true")]));
        assert!(!wanted(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]));
        let one = |name: &str| (name == "OTEL_EXPORTER_OTLP_TIMEOUT").then(|| "250".to_owned());
        assert_eq!(timeout(one), Duration::from_millis(250));
        assert_eq!(timeout(|_| Some("soon".into())), Duration::from_secs(10));
    }
}
