"""Who gets in where: every route against every kind of caller, keys through their life, limits and hosts."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from service.access.access import Access
from service.access.principal import SYSTEM
from service.access.rates import Rates
from service.access.routes import PUBLIC, declarations
from service.app import create_app
from service.db.repository import keys
from service.db.session import Database
from service.db.tables import ApiKeyRow
from service.errors import StartupError
from service.review import overview
from service.settings import Settings
from tests.service.conftest import PixelEngine, flat, make_key

NOBODY = ("nobody", "wrong key", "expired key", "revoked key")
REACHES = {"camera": {"camera"}, "operator": {"camera", "operator"}, "admin": {"camera", "operator", "admin"}}


@pytest.fixture
def locked(settings: Settings) -> Settings:
    limits = {"rate_limit_per_s": 0, "failures_per_minute": 0}
    return settings.model_copy(update={"auth": "required", **limits})


@pytest.fixture
def app_client(locked: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(locked, PixelEngine()), follow_redirects=False) as client:
        yield client


@pytest.fixture
def database(locked: Settings) -> Iterator[Database]:
    locked.data.mkdir(parents=True, exist_ok=True)
    found = Database(locked.url)
    found.migrate()
    yield found
    found.close()


def callers(settings: Settings, database: Database) -> dict[str, dict[str, str]]:
    found = {scope: make_key(settings, scope) for scope in REACHES}
    found |= {"nobody": {}, "wrong key": {"Authorization": "Bearer inl_wrong"}}
    for name, column in (("expired key", "expires_at"), ("revoked key", "revoked_at")):
        found[name] = make_key(settings, "admin", name.replace(" ", "-"))
        with database.write() as session:
            change = update(ApiKeyRow).where(ApiKeyRow.name == name.replace(" ", "-"))
            session.execute(change.values({column: datetime.now(UTC) - timedelta(seconds=1)}))
    return found


@pytest.mark.promise(20)
def test_every_route_lets_in_whom_it_declares_and_nobody_else(
    app_client: TestClient,
    locked: Settings,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    monkeypatch.setattr(overview, "_STREAM_S", 0)  # the client reads every answer to its end
    known = callers(locked, database)
    routes = [route for route in declarations(app_client.app) if route.path != "/static"]
    assert len(routes) > 20
    wrong = []
    record_property("routes", len(routes))
    record_property("callers", len(known))
    for route in routes:
        assert route.scope is not None, f"{route.path} declares no scope"
        path = re.sub(r"\{[^}]+\}", "none", route.path)
        for method in route.methods:
            for name, headers in known.items():
                answer = app_client.request(method, path, headers=headers)
                refused = answer.status_code if answer.status_code in (401, 403) else None
                if route.scope == "public":
                    expected = None
                elif name in NOBODY:
                    expected = 401
                else:
                    expected = None if route.scope in REACHES[name] else 403
                if refused != expected:
                    wrong.append((method, path, name, answer.status_code, answer.text))
                if refused:
                    assert answer.headers["content-type"] == "application/problem+json"
                    assert answer.json()["status"] == refused
                if refused == 401:
                    assert answer.headers["www-authenticate"].startswith("Bearer ")
    assert wrong == []


@pytest.mark.promise(20)
def test_public_routes_are_few_and_exist(app_client: TestClient) -> None:
    public = {
        f"{method} {route.path}"
        for route in declarations(app_client.app)
        if route.scope == "public"
        for method in route.methods or {"*"}
    }
    assert public == PUBLIC


@pytest.mark.promise(20, control=True)
@pytest.mark.parametrize("auth", ["required", "off"])
def test_a_route_that_declares_nothing_is_closed_to_everybody(locked: Settings, auth: str) -> None:
    app = create_app(locked.model_copy(update={"auth": auth}), PixelEngine())

    @app.get("/open")
    async def forgotten() -> str:
        return "secret"

    app.router.routes.append(Route("/plain", lambda request: None))
    app.mount("/folder", Mount("/inner", routes=[]))
    with TestClient(app, headers=make_key(locked)) as client:
        for path in ("/open", "/plain", "/folder/x"):
            answer = client.get(path)
            assert (answer.status_code, "not-declared" in answer.json()["type"]) == (403, True), path
        # One that is added later is not even found.
        app.get("/late")(forgotten)
        assert client.get("/late").status_code == 404


def test_a_key_lives_is_rotated_and_revoked(
    app_client: TestClient, locked: Settings, database: Database
) -> None:
    admin = make_key(locked)
    body = {"name": "cam1", "scope": "camera"}
    made = app_client.post("/v1/keys", json=body, headers=admin)
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    key = made.json()["key"]
    assert len(key) >= 4 + 43
    assert app_client.post("/v1/keys", json=body, headers=admin).status_code == 409
    camera = {"X-API-Key": key}
    posted = app_client.post(
        "/v1/inspections", content=flat(9), headers={**camera, "Content-Type": "image/png"}
    )
    assert posted.status_code == 202
    assert app_client.get("/v1/session", headers=camera).json()["name"] == "cam1"

    second = app_client.post("/v1/keys/cam1/rotate", json={"overlap_hours": 1}, headers=admin).json()["key"]
    for valid in (key, second):
        answer = app_client.get("/v1/inspections", headers={"Authorization": f"bearer {valid}"})
        assert answer.status_code == 200
    assert app_client.post("/v1/keys/cam1/rotate", json={}, headers=admin).status_code == 409

    listed = [row for row in app_client.get("/v1/keys", headers=admin).json() if row["name"] == "cam1"]
    assert [row["valid"] for row in listed] == [True, True]
    assert listed[0]["expires_at"] is not None
    assert "key" not in listed[0]
    for row in listed:
        assert app_client.delete(f"/v1/keys/{row['id']}", headers=admin).json()["valid"] is False
    for ended in (key, second):
        assert app_client.get("/v1/inspections", headers={"X-API-Key": ended}).status_code == 401
    assert app_client.post("/v1/keys/cam1/rotate", json={}, headers=admin).status_code == 404
    past = {**body, "expires_at": "2020-01-01T00:00:00Z"}
    assert app_client.post("/v1/keys", json=past, headers=admin).status_code == 422

    stored = database.engine.raw_connection().cursor().execute("SELECT hash FROM api_keys").fetchall()
    assert (hashlib.sha256(key.encode()).hexdigest(),) in stored


def test_last_use_is_noted_once_a_minute(locked: Settings, database: Database) -> None:
    header = make_key(locked, "camera", "cam")

    def used() -> datetime | None:
        with database.read() as session:
            return keys.named(session, "cam")[0].last_used_at

    assert used() is None
    with TestClient(create_app(locked, PixelEngine()), headers=header) as client:
        client.get("/v1/session")
        deadline = time.monotonic() + 10
        while used() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        first = used()
        for _ in range(20):
            client.get("/v1/session")
    assert first is not None
    assert used() == first


def test_a_cached_key_ends_when_it_expires(locked: Settings, database: Database) -> None:
    with database.write() as session:
        ends = datetime.now(UTC) + timedelta(seconds=2.5)
        _, key = keys.create(session, SYSTEM, "short", "camera", ends)
    with TestClient(create_app(locked, PixelEngine()), headers={"X-API-Key": key}) as client:
        while datetime.now(UTC) < ends:
            assert client.get("/v1/session").status_code == 200 or datetime.now(UTC) >= ends
            time.sleep(0.1)
        assert client.get("/v1/session").status_code == 401


def test_auth_off_is_for_loopback_only(settings: Settings) -> None:
    open_ = settings.model_copy(update={"host": "0.0.0.0"})
    with pytest.raises(StartupError, match="loopback"), TestClient(create_app(open_, PixelEngine())):
        pass
    with TestClient(create_app(settings, PixelEngine())) as client:
        assert client.get("/v1/session").json() == {
            "name": "anybody",
            "scope": "admin",
            "kind": "system",
            "csrf": None,
            "expires_at": None,
        }
        evil = {"Origin": "https://evil.example"}
        assert client.post("/v1/keys", json={"name": "x", "scope": "admin"}, headers=evil).status_code == 403


def test_metrics_may_be_public(locked: Settings) -> None:
    public = locked.model_copy(update={"public_metrics": True})
    with TestClient(create_app(public, PixelEngine())) as client:
        assert client.get("/metrics").status_code == 200
        assert client.get("/docs").status_code == 401


def test_rates_are_buckets() -> None:
    clock = [0.0]
    rates = Rates(2.0, 3.0, now=lambda: clock[0])
    assert [rates.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert rates.take("b") == 0.0
    clock[0] = 0.5
    assert [rates.take("a"), rates.take("a")] == [0.0, 0.5]
    assert [Rates(0.0, 0.0).take("a") for _ in range(100)] == [0.0] * 100


def test_a_caller_that_asks_too_often_waits_and_others_do_not(locked: Settings) -> None:
    limited = locked.model_copy(update={"rate_limit_per_s": 5.0, "failures_per_minute": 5.0})
    busy, quiet = make_key(limited, "camera"), make_key(limited, "camera")
    with TestClient(create_app(limited, PixelEngine())) as client:
        answers = [client.get("/v1/session", headers=busy) for _ in range(40)]
        late = next(answer for answer in answers if answer.status_code == 429)
        assert int(late.headers["retry-after"]) >= 1
        assert late.json()["type"].endswith("too-many-requests")
        assert client.get("/v1/session", headers=quiet).status_code == 200
        wrong = [client.get("/v1/session", headers={"X-API-Key": "x"}).status_code for _ in range(20)]
        assert wrong[0] == 401
        assert wrong[-1] == 429
        assert client.get("/v1/session", headers=quiet).status_code == 200  # from the same address
        assert {client.get("/healthz/live").status_code for _ in range(40)} == {200}


@pytest.mark.parametrize(
    ("listed", "host", "status"),
    [
        (None, "127.0.0.1:8000", 200),
        (None, "localhost", 200),
        (None, "[::1]:8000", 200),
        (None, "evil.example", 400),
        (None, "", 400),
        ("inlier.plant,*.lines", "inlier.plant:443", 200),
        ("inlier.plant,*.lines", "a.lines", 200),
        ("inlier.plant,*.lines", "lines", 400),
        ("inlier.plant,*.lines", "localhost", 400),
        ("*", "anything", 200),
    ],
)
def test_only_known_hosts_are_answered(
    settings: Settings, listed: str | None, host: str, status: int
) -> None:
    named = settings.model_copy(update={"allowed_hosts": listed})
    with TestClient(create_app(named, PixelEngine())) as client:
        assert client.get("/v1/session", headers={"Host": host}).status_code == status
        assert client.get("/healthz/ready", headers={"Host": host}).status_code == 200


def test_security_headers(locked: Settings) -> None:
    app = create_app(locked, PixelEngine())
    with TestClient(app) as client:
        headers = client.get("/signin").headers
        assert "unsafe-inline" not in headers["content-security-policy"]
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["permissions-policy"].startswith("camera=()")
        assert "strict-transport-security" not in headers
        client.base_url = "https://testserver"  # type: ignore[assignment]
        assert "max-age" in client.get("/signin").headers["strict-transport-security"]


def test_the_first_start_prints_a_token_until_there_is_an_admin(
    locked: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    def start() -> str:
        with TestClient(create_app(locked, PixelEngine())):
            pass
        return capsys.readouterr().err

    lines = start().splitlines()
    token = {"Authorization": f"Bearer {lines[-1]}"}
    assert lines[-1].startswith("inl_")
    with TestClient(create_app(locked, PixelEngine())) as client:
        assert client.get("/v1/session", headers=token).json()["scope"] == "admin"
        camera = client.post("/v1/keys", json={"name": "cam", "scope": "camera"}, headers=token)
        assert camera.status_code == 201
        assert client.get("/v1/users", headers=token).status_code == 200
        admin = client.post("/v1/keys", json={"name": "boss", "scope": "admin"}, headers=token).json()["key"]
        assert client.get("/v1/users", headers=token).status_code == 401
        assert client.get("/v1/users", headers={"X-API-Key": admin}).status_code == 200
        assert (
            client.get("/v1/audit", headers={"X-API-Key": admin}).json()["items"][-1]["who"] == "first-start"
        )
    capsys.readouterr()
    assert "inl_" not in start()


def test_access_refuses_before_anything_is_opened(settings: Settings, database: Database) -> None:
    with pytest.raises(StartupError, match="--host"):
        Access(database, settings.model_copy(update={"host": "::"}))
