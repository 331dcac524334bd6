"""Traces across API, queue and worker, and the ids that lines of the log carry."""

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

from models.bundle import Bundle
from service import logs, tracing
from service.app import create_app
from service.settings import Settings
from tests.e2e.cluster import cluster
from tests.service.conftest import PixelEngine, flat, png, texture
from tests.service.postgres import PrivatePostgres
from tests.service.queue.conftest import PrivateRedis, redis_server

__all__ = ["redis_server"]  # a fixture

TRACE, ABOVE = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {
    "Content-Type": "image/png",
    "Prefer": "wait=30",
    "X-Request-ID": "plc-7",
    "traceparent": f"00-{TRACE}-{ABOVE}-01",
}


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    found = InMemorySpanExporter()
    tracing.start("test", found)
    yield found
    tracing.stop()


def test_a_trace_leads_from_the_request_through_the_queue_to_the_result(
    settings: Settings, exporter: InMemorySpanExporter
) -> None:
    with TestClient(create_app(settings, PixelEngine())) as client:
        posted = client.post("/v1/inspections", content=flat(9), headers=HEADERS).json()
        assert client.get("/v1/inspections/none").status_code == 404
    spans = {span.name: span for span in exporter.get_finished_spans()}
    names = ("POST /v1/inspections", "accept", "inspect", "infer", "conclude", "store result")
    request, accept, inspect, *inner = (spans[name] for name in names)
    assert {f"{span.context.trace_id:032x}" for span in (request, accept, inspect, *inner)} == {TRACE}
    assert f"{parent(request):016x}" == ABOVE
    assert parent(accept) == request.context.span_id
    assert parent(inspect) == accept.context.span_id
    assert {parent(span) for span in inner} == {inspect.context.span_id}
    assert request.attributes == {
        "inlier.request_id": "plc-7",
        "http.request.method": "POST",
        "http.route": "/v1/inspections",
        "http.response.status_code": 200,
    }
    said = dict(inspect.attributes or {})
    model = said.pop("inlier.model")
    assert said == {"inlier.inspection_id": posted["id"], "inlier.attempt": 1, "inlier.verdict": "REJECT"}
    assert model == posted["model"]["hash"]
    other = spans["GET /v1/inspections/{identifier}"]
    assert f"{other.context.trace_id:032x}" != TRACE
    assert not any(posted["id"] in span.name for span in spans.values())


def parent(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def test_nothing_is_traced_or_imported_unless_asked_for(settings: Settings, tmp_path: Path) -> None:
    with TestClient(create_app(settings, PixelEngine())) as client:
        posted = client.post("/v1/inspections", content=flat(1), headers=HEADERS)
        assert posted.status_code == 200
    assert tracing.current() is None
    # As where the extra is not installed.
    script = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter')):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from service import tracing\nfrom service.app import create_app\n"
        "from service.errors import StartupError\n"
        f"from service.settings import Settings\ncreate_app(Settings(data={str(tmp_path)!r}))\n"
        "with tracing.span('x') as span: span.note(a=1)\n"
        "try: tracing.start('api')\n"
        "except StartupError as error: assert 'inlier[otel]' in str(error)\n"
        "else: raise AssertionError('it started')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


class Collector:
    """Takes spans over OTLP/HTTP, as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        self.spans: dict[str, tuple[str, str, str, str]] = {}  # name -> service, trace, span, parent
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    raise AssertionError("not expected")
                said = ExportTraceServiceRequest.FromString(body)
                for group in said.resource_spans:
                    service = next(
                        a.value.string_value for a in group.resource.attributes if a.key == "service.name"
                    )
                    for span in (span for scope in group.scope_spans for span in scope.spans):
                        ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                        collector.spans[span.name] = (service, *ids)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


def test_traces_and_ids_pass_redis_into_another_process(
    tmp_path: Path,
    bundle: Bundle,
    postgres: PrivatePostgres,
    redis_server: PrivateRedis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Real processes: API and worker send to a collector over OTLP, and write their logs as JSON."""
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    flags = ("--traces", "otlp", "--log-format", "json")
    with (
        postgres.database() as url,
        cluster(tmp_path, bundle.path, url, redis_server.url, *flags) as line,
    ):
        api, worker = line.api(), line.worker()
        answer = line.post(png(texture(3)), wait_s=30)
        assert answer.status_code == 200, answer.text
        worker.stop()
        api.stop()
        written = [
            json.loads(row)
            for log in tmp_path.glob("*.log")
            for row in log.read_text().splitlines()
            if row[0] == "{"
        ]
    collector.server.shutdown()
    collector.server.server_close()
    request, accept, inspect = (
        collector.spans[name] for name in ("POST /v1/inspections", "accept", "inspect")
    )
    assert (request[0], accept[0], inspect[0]) == ("inlier-api", "inlier-api", "inlier-worker")
    assert request[1] == accept[1] == inspect[1]
    assert inspect[3] == accept[2]

    identifier, request_id = answer.json()["id"], answer.headers["x-request-id"]
    about = {line["logger"]: line for line in written if line.get("inspection_id") == identifier}
    assert {"service.middleware", "service.worker"} <= set(about)
    for entry in (about["service.middleware"], about["service.worker"]):
        assert entry["request_id"] == request_id
        assert entry["model"] == answer.json()["model"]["hash"][:12]
    assert about["service.worker"]["message"] == f"inspected: {answer.json()['verdict']}"
    assert {"uvicorn.error"} <= {line["logger"] for line in written}


def test_lines_carry_what_was_noted_and_secrets_do_not_end_lines(capsys: pytest.CaptureFixture[str]) -> None:
    record = logging.makeLogRecord({"name": "x", "levelno": 20, "levelname": "INFO", "msg": "said"})
    seen: dict[str, str] = {}

    def work(name: str) -> None:
        logs.note(inspection_id=name, model=None)
        time.sleep(0.01)
        seen[name] = logs.JsonFormatter().format(record)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: json.loads(line)["inspection_id"] for name, line in seen.items()} == {
        "one": "one",
        "two": "two",
    }
    assert "model" not in json.loads(seen["one"])
    assert "inspection_id" not in json.loads(logs.JsonFormatter().format(record))
