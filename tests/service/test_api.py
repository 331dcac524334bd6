"""The HTTP contract: parameters, problems, idempotency, waiting, paging."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from models.engine import RawMap
from service.access.principal import Camera
from service.app import create_app
from service.batching import ContinuousBatcher, StaticBatcher
from service.db.tables import InspectionRow
from service.ledger import new_row
from service.metrics import Metrics
from service.middleware import RequestContext
from service.settings import Settings
from tests.service.conftest import PixelEngine, connected, flat

PNG = {"Content-Type": "image/png"}
WAIT = {**PNG, "Prefer": "wait=30"}


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    body = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, body["status"], body["type"]) == (
        status,
        status,
        f"urn:inlier:problem:{code}",
    )
    assert set(body) >= {"type", "title", "status", "detail", "instance", "request_id"}
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["instance"] == response.request.url.path
    return body


def test_metadata_in_the_query(client: TestClient) -> None:
    query = "recipe=tile&part_id=7&serial=S1&lot=L&line=A&station=c1&captured_at=2026-01-02T03:04:05%2B02:00"
    answer = client.post(f"/v1/inspections?{query}&attr.shift=night&attr.k=1", content=flat(9), headers=WAIT)
    body = answer.json()
    assert answer.status_code == 200
    assert answer.headers["location"] == f"/v1/inspections/{body['id']}"
    assert answer.headers["preference-applied"] == "wait=30"
    sent = {name: body[name] for name in ("recipe", "part_id", "serial", "lot", "line", "station")}
    assert sent == {
        "recipe": "tile", "part_id": "7", "serial": "S1", "lot": "L", "line": "A", "station": "c1",
    }  # fmt: skip
    assert body["attributes"] == {"shift": "night", "k": "1"}
    assert datetime.fromisoformat(body["captured_at"]) == datetime.fromisoformat("2026-01-02T01:04:05+00:00")
    assert client.get(answer.headers["location"]).json() == body


def test_multipart(client: TestClient) -> None:
    metadata = {"serial": "S2", "attributes": {"a": 1, "b": 2.5, "c": True, "d": None, "e": "x"}}
    answer = client.post(
        "/v1/inspections?line=A",
        files={"image": ("a.png", flat(9), "image/png")},
        data={"metadata": json.dumps(metadata)},
        headers={"Prefer": "wait=30"},
    )
    body = answer.json()
    assert answer.status_code == 200, body
    assert (body["serial"], body["line"], body["attributes"]) == ("S2", "A", metadata["attributes"])


@pytest.mark.parametrize(
    ("metadata", "where"),
    [
        ("{", "metadata"),
        ("[]", "metadata"),
        ('{"lott": "L"}', "metadata.lott"),
        ('{"lot": "a\\u0000b"}', "metadata.lot"),
        ('{"lot": "\\ud800"}', "metadata"),
        ('{"attributes": {"x": NaN}}', "metadata"),
        ('{"attributes": {"x": [1]}}', "metadata.attributes.x"),
        ('{"captured_at": "2026-01-01T00:00:00"}', "metadata.captured_at"),
        ('{"captured_at": "0001-01-01T00:00:00+14:00"}', "metadata.captured_at"),
    ],
)
def test_bad_metadata(client: TestClient, metadata: str, where: str) -> None:
    answer = client.post("/v1/inspections", files={"image": ("a.png", flat(9))}, data={"metadata": metadata})
    body = assert_problem(answer, 422, "invalid-parameters")
    assert body["errors"][0]["location"].startswith(where)


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("seriall=1", "query.seriall"),
        ("serial=1&serial=2", "query.serial"),
        ("recipe=../x", "query.recipe"),
        ("lot=%00", "query.lot"),
        ("attr.=1", "query.attributes"),
        ("captured_at=yesterday", "query.captured_at"),
    ],
)
def test_bad_query(client: TestClient, query: str, where: str) -> None:
    answer = client.post(f"/v1/inspections?{query}", content=flat(9), headers=PNG)
    assert where in json.dumps(assert_problem(answer, 422, "invalid-parameters")["errors"])


def test_unknown_profile_lists_the_known(client: TestClient) -> None:
    body = assert_problem(
        client.post("/v1/inspections?profile=best", content=flat(9), headers=PNG), 422, "unknown-profile"
    )
    assert body["profiles"] == ["fast", "paper"]
    assert (
        client.post("/v1/inspections?profile=paper", content=flat(9), headers=WAIT).json()["profile"]
        == "paper"
    )


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"files": {"picture": ("a.png", b"x")}}, "invalid-form"),
        ({"files": {"image": (None, "text")}}, "invalid-form"),
        ({"files": [("image", ("a", b"x")), ("image", ("b", b"x"))]}, "invalid-form"),
        ({"files": {"image": ("a", b"x")}, "data": {"meta": "{}"}}, "invalid-form"),
    ],
)
def test_bad_forms(client: TestClient, parts: dict[str, Any], code: str) -> None:
    assert_problem(client.post("/v1/inspections", **parts), 422, code)


def test_malformed_multipart_is_a_problem(client: TestClient) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert_problem(client.post("/v1/inspections", content=b"nonsense", headers=headers), 400, "bad-request")


def test_every_error_is_a_problem(client: TestClient) -> None:
    assert_problem(client.get("/nope"), 404, "not-found")
    assert_problem(client.get("/static/nope.css"), 404, "not-found")
    assert_problem(client.get("/v1/inspections/nope"), 404, "unknown-inspection")
    assert_problem(client.get("/v1/inspections?limit=0"), 422, "invalid-parameters")
    assert_problem(client.get("/v1/inspections?cursor=zzz"), 422, "invalid-cursor")
    assert_problem(client.get("/v1/inspections?verdikt=PASS"), 422, "invalid-parameters")
    assert_problem(client.get("/inspections?verdict=NO"), 422, "invalid-parameters")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert_problem(
        client.post("/v1/inspections", content=b"a=b", headers=form), 415, "unsupported-media-type"
    )
    not_allowed = client.delete("/v1/inspections")
    assert_problem(not_allowed, 405, "method-not-allowed")
    assert not_allowed.headers["allow"] == "GET, POST"


def test_a_bug_is_a_problem_without_details(settings: Settings) -> None:
    app = create_app(settings, PixelEngine())

    @app.get("/bug")
    async def bug(who: Camera) -> None:
        raise ZeroDivisionError("secret")

    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.get("/bug", headers={"X-Request-ID": "given-1"})
        assert assert_problem(answer, 500, "internal-error")["request_id"] == "given-1"
        assert "secret" not in answer.text


@pytest.mark.promise(9)
def test_a_broken_database_is_503_and_nothing_is_accepted(client: TestClient, settings: Settings) -> None:
    client.app.state.services.ledger.database.engine.dispose()
    (settings.data / "inlier.sqlite3").rename(settings.data / "gone")
    for suffix in ("-wal", "-shm"):
        (settings.data / f"inlier.sqlite3{suffix}").unlink(missing_ok=True)
    answer = client.post("/v1/inspections", content=flat(9), headers=WAIT)
    assert_problem(answer, 503, "database-unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert client.get("/v1/inspections").status_code == 503


def test_a_path_cannot_write_log_lines(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        client.get("/x%0a2026-01-01 INFO forged")
    assert any("forged" in record.getMessage() for record in caplog.records)
    assert not any("\n" in record.getMessage() for record in caplog.records)


@pytest.mark.promise(17)
def test_a_client_that_leaves_while_sending_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[Message] = []

    async def leaves(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientDisconnect

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/inspections", "headers": []}
    asyncio.run(RequestContext(leaves, Metrics())(scope, receive, send))
    assert sent == []
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_request_ids(client: TestClient) -> None:
    first, second = (client.get("/healthz/live").headers["x-request-id"] for _ in range(2))
    assert first != second
    bad = client.get("/healthz/live", headers={"X-Request-ID": "a b<script>"}).headers["x-request-id"]
    assert "script" not in bad


@pytest.mark.promise(4)
def test_idempotency(client: TestClient) -> None:
    headers = {**WAIT, "Idempotency-Key": "k1"}
    first = client.post("/v1/inspections?lot=1", content=flat(9), headers=headers)
    again = client.post("/v1/inspections?lot=1", content=flat(9), headers=headers)
    assert first.json() == again.json()
    assert again.headers["idempotent-replayed"] == "true"
    for query, data in (("lot=2", flat(9)), ("lot=1", flat(10))):
        answer = client.post(f"/v1/inspections?{query}", content=data, headers=headers)
        assert_problem(answer, 409, "idempotency-conflict")
    bad = client.post("/v1/inspections", content=flat(9), headers={**PNG, "Idempotency-Key": "a b"})
    assert_problem(bad, 422, "invalid-idempotency-key")
    assert len(client.get("/v1/inspections").json()["items"]) == 1


@pytest.mark.promise(4)
def test_idempotency_race(settings: Settings, record_property: Callable[[str, object], None]) -> None:
    answers, rows = race(settings)
    record_property("posts at once", len(answers))
    assert rows == 1
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1


@pytest.mark.promise(4, control=True)
def test_a_store_that_forgets_keys_would_be_noticed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(*arguments: Any, **named: Any) -> InspectionRow:
        return new_row(*arguments, **{**named, "key": None})

    monkeypatch.setattr("service.accept.new_row", forgetful)
    answers, rows = race(settings)
    assert rows > 1
    assert len({answer.json()["id"] for answer in answers}) > 1


def race(settings: Settings) -> tuple[list[httpx.Response], int]:
    """Answers to 50 posts at once of one image under one key, and how many inspections came of them."""

    async def posted() -> tuple[list[httpx.Response], int]:
        app = create_app(settings, PixelEngine(delay_s=0.01))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            headers = {**WAIT, "Idempotency-Key": "one"}
            posts = [client.post("/v1/inspections", content=flat(9), headers=headers) for _ in range(50)]
            answers = await asyncio.gather(*posts)
            listed = await client.get("/v1/inspections?limit=100")
            return list(answers), len(listed.json()["items"])

    return asyncio.run(posted())


def test_prefer_wait(client: TestClient, engine: PixelEngine) -> None:
    engine.go.clear()
    for prefer in ({}, {"Prefer": "wait=0"}, {"Prefer": "respond-async, wait=0"}, {"Prefer": "wait=soon"}):
        answer = client.post("/v1/inspections", content=flat(9), headers={**PNG, **prefer})
        assert (answer.status_code, answer.json()["verdict"]) == (202, None)
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["location"] == answer.json()["links"]["self"]
    engine.go.set()
    assert client.post("/v1/inspections", content=flat(9), headers=WAIT).status_code == 200


def test_wait_is_capped(settings: Settings) -> None:
    engine = PixelEngine()
    with connected(settings.model_copy(update={"max_wait_s": 0.05}), engine) as client:
        engine.go.clear()
        answer = client.post("/v1/inspections", content=flat(9), headers={**PNG, "Prefer": "wait=600"})
        assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=0.05")
        engine.go.set()


@pytest.mark.promise(10)
def test_full_queue_is_503_with_retry_after(settings: Settings) -> None:
    engine = PixelEngine(delay_s=0.01)
    small = settings.model_copy(update={"queue_size": 3, "queue_share": 1.0, "batch_size": 1})
    with connected(small, engine) as client:
        engine.go.clear()
        answers = [client.post("/v1/inspections", content=flat(v), headers=PNG) for v in range(5)]
        assert [answer.status_code for answer in answers] == [202, 202, 202, 503, 503]
        assert_problem(answers[-1], 503, "queue-full")
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert len(client.get("/v1/inspections").json()["items"]) == 3
        assert "inlier_queue_depth 3.0" in client.get("/metrics").text
        engine.go.set()
        assert client.post("/v1/inspections/", content=flat(1), headers=PNG).status_code == 404
        for _ in range(200):
            if client.post("/v1/inspections", content=flat(9), headers=WAIT).status_code == 200:
                return
        raise AssertionError("the queue never emptied")


@pytest.mark.promise(17)
def test_body_limit(settings: Settings, engine: PixelEngine) -> None:
    limited = settings.model_copy(update={"max_body_bytes": 10_000})
    read = 0

    def chunks() -> Any:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield bytes(1000)

    with connected(limited, engine) as client:
        assert_problem(
            client.post("/v1/inspections", content=bytes(10_001), headers=PNG), 413, "body-too-large"
        )
        assert_problem(client.post("/v1/inspections", content=chunks(), headers=PNG), 413, "body-too-large")
        form = client.post("/v1/inspections", files={"image": ("a", bytes(20_000))})
        assert_problem(form, 413, "body-too-large")
        assert client.post("/v1/inspections", content=flat(9), headers=WAIT).status_code == 200


def test_pages_are_stable_under_inserts(client: TestClient) -> None:
    ids = [client.post("/v1/inspections", content=flat(v), headers=WAIT).json()["id"] for v in range(1, 8)]
    seen, address = [], "/v1/inspections?limit=3"
    while address:
        page = client.get(address)
        seen += [item["id"] for item in page.json()["items"]]
        address = page.json()["next"]
        assert ("link" in page.headers) == (address is not None)
        client.post("/v1/inspections", content=flat(100), headers=WAIT)
    assert seen == ids[::-1]


def test_filters(client: TestClient) -> None:
    bodies = [
        client.post(f"/v1/inspections?line={line}&serial=s{value}", content=flat(value), headers=WAIT).json()
        for value, line in ((1, "A"), (5, "A"), (40, "B"), (2, "B"))
    ]

    def found(**query: Any) -> list[int]:
        items = client.get("/v1/inspections", params=query).json()["items"]
        return [int(item["score"]["raw"]) for item in items]

    assert found(line="A") == [5, 1]
    assert found(verdict="PASS") == [2, 1]
    assert found(verdict="PASS", line="B") == [2]
    assert found(serial="s40") == [40]
    assert found(status="failed") == []
    at = datetime.fromisoformat(bodies[2]["created_at"])
    later = at + timedelta(milliseconds=1)
    assert 40 in found(since=at.isoformat())
    assert 40 in found(until=later.isoformat())
    assert 40 not in found(until=at.isoformat())
    assert 40 not in found(since=later.isoformat())
    following = client.get("/v1/inspections", params={"verdict": "PASS", "limit": 1}).json()["next"]
    assert [item["verdict"] for item in client.get(following).json()["items"]] == ["PASS"]


def test_metrics_carry_no_ids(client: TestClient) -> None:
    body = client.post("/v1/inspections?serial=S77&lot=L88&line=A", content=flat(5), headers=WAIT).json()
    client.get(body["links"]["heatmap"])
    client.get(f"/nope/{body['id']}")
    text = client.get("/metrics").text
    assert 'inlier_inspections_total{line="A",recipe="default",verdict="REVIEW"} 1.0' in text
    assert 'route="/v1/inspections/{identifier}/heatmap"' in text
    for secret in (body["id"], "S77", "L88", body["image"]["sha256"]):
        assert secret not in text
    for edge in ("0.05", "0.1", "0.25", "0.5", "1.0", "2.0", "5.0", "10.0", "30.0", "60.0"):
        assert f'inlier_stage_seconds_bucket{{le="{edge}",stage="total"}}' in text


def test_label_values_are_bounded(client: TestClient) -> None:
    label = client.app.state.services.metrics.line
    values = {label(f"r{number}") for number in range(300)}
    assert len(values) == 101
    assert "other" in values


def test_openapi_declares_problems_and_body(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    post = schema["paths"]["/v1/inspections"]["post"]
    assert set(post["requestBody"]["content"]) == {"image/*", "multipart/form-data"}
    for methods in schema["paths"].values():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                if status.startswith(("4", "5")):
                    assert list(response["content"]) == ["application/problem+json"]
    names = set(schema["components"]["schemas"])
    assert {"Problem", "Metadata", "InspectionOut"} <= names
    assert "HTTPValidationError" not in names
    references = {part.split('"')[0] for part in json.dumps(schema).split("#/components/schemas/")[1:]}
    assert references <= names


class Cold(PixelEngine):
    """Takes long for its first call of each size, as runtimes that compile do; remembers who met that."""

    def __init__(self) -> None:
        super().__init__()
        self.met: list[list[int]] = []
        self._known: set[int] = set()

    def run(self, images: Any, *more: Any, **named: Any) -> list[RawMap]:
        answers = super().run(images, *more, **named)
        if len(images) not in self._known:
            self._known.add(len(images))
            self.met.append(self.batches[-1][1])
            time.sleep(0.05)
        return answers


BLANK = 128  # the value of the images of a warm-up


@pytest.mark.promise(15)
def test_no_image_meets_a_cold_engine(settings: Settings) -> None:
    assert all(set(values) == {BLANK} for values in met_cold(settings))


@pytest.mark.promise(15, control=True)
def test_without_a_warm_up_the_first_image_meets_a_cold_engine(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None: ...

    for kind in (ContinuousBatcher, StaticBatcher):
        monkeypatch.setattr(kind, "warm_up", nothing)
    assert [9] in met_cold(settings)


def met_cold(settings: Settings) -> list[list[int]]:
    """The values in each of the engine's slow first calls, from the start until one image is done."""
    engine = Cold()
    with connected(settings, engine) as client:
        assert client.get("/healthz/ready").status_code == 200
        assert client.post("/v1/inspections", content=flat(9), headers=WAIT).status_code == 200
    return engine.met


@pytest.mark.promise(15)
def test_readiness(client: TestClient) -> None:
    assert client.get("/healthz/live").json() == client.get("/healthz/ready").json() == {"status": "ok"}
    client.app.state.services.ready = False
    assert_problem(client.get("/healthz/ready"), 503, "not-ready")
    assert client.get("/healthz/live").status_code == 200
