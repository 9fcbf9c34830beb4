//! Exports traces to an OpenTelemetry collector (OTLP over HTTP).
//!
//! The standard variables of OpenTelemetry configure it: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`,
//! `OTEL_TRACES_SAMPLER` and so on. Without an endpoint nothing is recorded.

use opentelemetry::{
    Context, Value,
    trace::{SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceState, TracerProvider as _},
};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::{Level, Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use crate::trace::{self, Current, Parent, TraceId};

/// The target of the exported span of a request. The log has another span, with fewer fields.
pub(crate) const TARGET: &str = "todo_server::otel";

/// Whether a span is exported: that of a request, or of a call of the store.
fn is_exported(metadata: &Metadata<'_>) -> bool {
    let has_target = match metadata.target() {
        "todo_core::store" => *metadata.level() <= Level::DEBUG,
        target => target == TARGET,
    };
    has_target && metadata.is_span()
}

/// Records and sends spans, if the environment has an endpoint.
#[derive(Debug)]
pub(crate) struct Exporter(Option<SdkTracerProvider>);

impl Exporter {
    /// Reads the variables of OpenTelemetry.
    pub(crate) fn from_environment() -> Result<Self, String> {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let endpoint = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"].into_iter().any(is_set);
        let disabled = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
        if !endpoint || disabled {
            return Ok(Self(None));
        }
        let exporter =
            SpanExporter::builder().with_http().build().map_err(|error| format!("cannot export traces: {error}"))?;
        let mut resource = Resource::builder();
        if !is_set("OTEL_SERVICE_NAME") {
            resource = resource.with_service_name("todo-server");
        }
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        Ok(Self(Some(provider)))
    }

    /// The layer that passes spans to the exporter, if there is one.
    pub(crate) fn layer<S>(&self) -> Option<impl Layer<S> + use<S>>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let tracer = self.0.as_ref()?.tracer("todo-server");
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false);
        Some(layer.with_filter(filter_fn(is_exported)))
    }

    /// Sends the remaining spans.
    pub(crate) async fn finish(self) {
        if let Some(provider) = self.0 {
            let ended = tokio::task::spawn_blocking(move || provider.shutdown()).await;
            if let Ok(Err(error)) = ended {
                tracing::warn!(%error, "cannot send the last traces");
            }
        }
    }
}

/// The exported span of a request and its trace; `None` if requests are not exported.
pub(crate) fn begin(
    parent: Option<Parent>,
    states: &http::HeaderMap,
    method: &str,
    route: &str,
) -> Option<(Span, Current)> {
    let span =
        tracing::info_span!(target: TARGET, "request", otel.name = format!("{method} {route}"), otel.kind = "server");
    if span.is_disabled() {
        return None;
    }
    if let Some(parent) = parent {
        let caller = SpanContext::new(
            parent.trace.0.into(),
            SpanId::from_bytes(parent.span.to_be_bytes()),
            TraceFlags::new(parent.flags),
            true,
            state(states),
        );
        // This fails only for spans that have been used.
        let _ = span.set_parent(Context::new().with_remote_span_context(caller));
    }
    span.set_attribute("http.request.method", method.to_owned());
    span.set_attribute("http.route", route.to_owned());
    let context = span.context();
    let own = context.span().span_context().clone();
    let current = Current {
        trace: TraceId(u128::from_be_bytes(own.trace_id().to_bytes())),
        span: Some(u64::from_be_bytes(own.span_id().to_bytes())),
        flags: own.trace_flags().to_u8(),
        state: trace::forwarded_state(own.trace_state().header()),
    };
    Some((span, current))
}

/// The `tracestate` of the request. One that is invalid or too long is ignored.
fn state(headers: &http::HeaderMap) -> TraceState {
    let list = trace::state(headers);
    list.and_then(|list| list.to_str().ok()?.parse().ok()).unwrap_or_default()
}

/// Adds the outcome of the request to its exported span.
pub(crate) fn end(span: &Span, status: http::StatusCode) {
    span.set_attribute("http.response.status_code", Value::I64(status.as_u16().into()));
    if status.is_server_error() {
        span.set_status(Status::error(""));
    }
}
