"""The OpenAPI description is true: schemathesis with every check, and proof that it would notice."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from schemathesis.checks import CHECKS
from starlette.types import ASGIApp, Receive, Scope, Send

from service.app import create_app
from service.settings import Settings
from tests.service.conftest import PixelEngine, make_key
from tests.service.live import live, serve
from tests.service.openapi.explained import EXPLAINED, unexplained
from tests.service.openapi.fuzz import Report, fuzz
from tests.service.postgres import PrivatePostgres

KEY = "schemathesis"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Asked by one client, thousands of times, at whatever rate it can."""
    (tmp_path / "bundles").mkdir()
    return Settings(
        data=tmp_path / "data",
        bundles=tmp_path / "bundles",
        log_level="error",
        shutdown_grace_s=5,
        decode_processes=0,
        max_wait_s=1,
        rate_limit_per_s=0,
        failures_per_minute=0,
        signins_per_minute=0,
    )


@pytest.fixture
def key(settings: Settings) -> dict[str, str]:
    return make_key(settings, name=KEY)


@pytest.fixture
def url(settings: Settings, key: dict[str, str]) -> Iterator[str]:
    with live(settings, PixelEngine()) as address:
        yield address


def check(url: str, key: dict[str, str], *phases: str, **options: Any) -> Report:
    own = next(one for one in httpx.get(f"{url}/v1/keys", headers=key).json() if one["name"] == KEY)
    report = fuzz(url, key, phases, spared=(KEY, own["id"]), **options)
    assert httpx.get(f"{url}/v1/keys", headers=key).status_code == 200, "the run lost its key"
    return report


def declared(url: str, key: dict[str, str]) -> set[str]:
    paths = httpx.get(f"{url}/openapi.json", headers=key).json()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def assert_explained(report: Report) -> None:
    left = unexplained(report.findings)
    if left:
        pytest.fail("\n".join(map(str, left)), pytrace=False)


@pytest.mark.promise(19)
def test_every_call_at_and_beyond_its_limits(
    url: str, key: dict[str, str], record_property: Callable[[str, object], None]
) -> None:
    """The same requests at every run: each parameter at its limits, past them, of a wrong type, missing."""
    report = check(url, key, "coverage")
    record_property("calls", report.cases)
    assert_explained(report)
    assert report.operations == declared(url, key)
    assert report.cases > 2000
    assert report.checks == set(CHECKS.get_all_names())


@pytest.mark.promise(19)
@pytest.mark.slow
def test_every_call_on_postgresql(settings: Settings, postgres: PrivatePostgres) -> None:
    """It takes no NUL in a text and no integer beyond 64 bits, which SQLite is more patient with."""
    with postgres.database() as database:
        stored = settings.model_copy(update={"database_url": database})
        key = make_key(stored, name=KEY)
        with live(stored, PixelEngine()) as url:
            assert_explained(check(url, key, "coverage"))


@pytest.mark.promise(19)
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # a large random body, shown by hypothesis
def test_random_calls_and_chains_of_calls(url: str, key: dict[str, str]) -> None:
    report = check(url, key, "fuzzing", "stateful", examples=100)
    assert_explained(report)
    assert report.cases > 5000


class Broken:
    """The service, but for one call that is answered like this."""

    def __init__(self, app: ASGIApp, call: str, status: int, body: object, headers: dict[str, str]) -> None:
        self._app, self._call, self._status = app, call, status
        self._body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._headers = {"content-type": "application/json", **headers}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or f"{scope['method']} {scope['path']}" != self._call:
            await self._app(scope, receive, send)
            return
        headers = [(name.encode(), value.encode()) for name, value in self._headers.items()]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": self._body})


@pytest.mark.promise(19, control=True)
@pytest.mark.parametrize(
    ("call", "status", "body", "headers", "noticed"),
    [
        ("GET /v1/keys", 500, {}, {}, "not_a_server_error"),
        ("GET /v1/keys", 418, {}, {}, "status_code_conformance"),
        ("GET /v1/keys", 200, [{"id": 7}], {}, "response_schema_conformance"),
        ("GET /v1/keys", 200, b"<p>", {"content-type": "text/html"}, "content_type_conformance"),
        ("GET /v1/keys", 200, [], {}, "ignored_auth"),
        ("GET /v1/audit", 200, {"items": [], "next": None}, {}, "negative_data_rejection"),
        ("GET /v1/review-queue", 422, {"type": "urn:x:y"}, {}, "positive_data_acceptance"),
        ("PUT /v1/keys", 200, [], {}, "unsupported_method"),
        ("OPTIONS /v1/keys", 405, {}, {"allow": "PUT"}, "allow_header_conformance"),
    ],
)
def test_a_call_that_is_wrong_is_noticed(
    settings: Settings,
    key: dict[str, str],
    call: str,
    status: int,
    body: object,
    headers: dict[str, str],
    noticed: str,
) -> None:
    app = Broken(create_app(settings, PixelEngine()), call, status, body, headers)
    with serve(app) as url:
        report = fuzz(url, key, ["coverage"], path=f"^{call.split()[1]}$")
    assert noticed in {found.check for found in unexplained(report.findings)}


def test_every_exception_says_why() -> None:
    assert all(one.why and one.operations for one in EXPLAINED)
