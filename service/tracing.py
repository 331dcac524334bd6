"""Traces over API, queue and worker, with OpenTelemetry where asked for (`--traces otlp`, extra `otel`).

Off, it costs a comparison and nothing is imported. A trace passes the queue in the inspection's row
(`trace_parent`, as W3C Trace Context writes it), so it survives whatever the queue loses.
Where spans go is said by OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from service.errors import StartupError
from service.version import installed_version

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

Kind = Literal["internal", "server", "producer", "consumer"]
Value = str | int | float | bool


class Tracing:
    """What a process traces with; `provider` is None while nothing is traced."""

    provider: "TracerProvider | None" = None


class Span:
    """What happens within a `with span(...)`; does nothing when nothing is traced."""

    def __init__(self, inner: Any = None) -> None:
        self._inner = inner

    def note(self, **attributes: Value | None) -> None:
        """Attributes that are known now; None is left out, and `a__b` is written `a.b`."""
        if self._inner is not None:
            self._inner.set_attributes(_named(attributes))

    def name(self, name: str) -> None:
        if self._inner is not None:
            self._inner.update_name(name)


_NOTHING = Span()


def start(role: str, exporter: "SpanExporter | None" = None) -> None:
    """Trace from now on: to `exporter` at once, without one in batches over OTLP/HTTP."""
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
    except ImportError:
        raise StartupError("--traces otlp needs OpenTelemetry: pip install 'inlier[otel]'") from None
    processor: SpanProcessor
    if exporter is None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        processor = BatchSpanProcessor(OTLPSpanExporter())
    else:
        processor = SimpleSpanProcessor(exporter)
    named = {"service.name": f"inlier-{role}", "service.version": installed_version()}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(processor)
    Tracing.provider = provider


def stop() -> None:
    """Send what is left, and trace nothing more."""
    provider, Tracing.provider = Tracing.provider, None
    if provider is not None:
        provider.shutdown()


@contextmanager
def span(
    name: str, *, kind: Kind = "internal", parent: str | None = None, **attributes: Value | None
) -> Iterator[Span]:
    """A stretch of work, below the one that runs, or below `parent` (a `traceparent`) if that is given."""
    if Tracing.provider is None:
        yield _NOTHING
        return
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    above = TraceContextTextMapPropagator().extract({"traceparent": parent}) if parent else None
    tracer = Tracing.provider.get_tracer("inlier")
    of_kind = trace.SpanKind[kind.upper()]
    with tracer.start_as_current_span(name, above, of_kind, _named(attributes)) as inner:
        yield Span(inner)


def current() -> str | None:
    """The `traceparent` of the span that runs."""
    if Tracing.provider is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def _named(attributes: dict[str, Value | None]) -> dict[str, Value]:
    return {key.replace("__", "."): value for key, value in attributes.items() if value is not None}
