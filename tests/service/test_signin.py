"""People: passwords, sessions, forged requests, links, the first admin, and the log of all that."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import DatabaseError
from starlette.testclient import TestClient

from service.access import passwords, signin
from service.access.browser import safe_next
from service.access.principal import SYSTEM
from service.app import create_app
from service.db.repository import audit, users
from service.db.session import Database
from service.db.tables import SessionRow, UserRow
from service.settings import Settings
from tests.service.conftest import PixelEngine, make_key

PASSWORD = "four words make one"
EVA = {"name": "eva", "password": PASSWORD}


@pytest.fixture
def locked(settings: Settings) -> Settings:
    limits = {"rate_limit_per_s": 0, "failures_per_minute": 0, "signins_per_minute": 0}
    return settings.model_copy(update={"auth": "required", **limits})


@pytest.fixture
def people(locked: Settings) -> Iterator[Database]:
    """A database in which eva is an operator."""
    locked.data.mkdir(parents=True, exist_ok=True)
    found = Database(locked.url)
    found.migrate()
    with found.write() as session:
        users.add(session, SYSTEM, "eva", "operator", passwords.hashed(PASSWORD))
    yield found
    found.close()


@pytest.fixture
def browser(locked: Settings, people: Database) -> Iterator[TestClient]:
    app = create_app(locked, PixelEngine())
    with TestClient(app, base_url="https://testserver", follow_redirects=False) as client:
        client.headers["accept"] = "text/html"
        yield client


def test_a_page_leads_to_the_sign_in_and_back(browser: TestClient, people: Database) -> None:
    asked = browser.get("/inspections?verdict=REJECT&lot=%22")
    assert asked.status_code == 303
    form = browser.get(asked.headers["location"])
    assert form.status_code == 200
    assert "<script" not in form.text
    following = re.search(r'name="next" value="([^"]+)"', form.text)
    assert following is not None
    sent = {**EVA, "next": following[1].replace("&amp;", "&")}
    entered = browser.post("/signin", data=sent)
    assert (entered.status_code, entered.headers["location"]) == (303, "/inspections?verdict=REJECT&lot=%22")
    cookie = entered.headers["set-cookie"]
    assert cookie.startswith("__Host-inlier=")
    for part in ("HttpOnly", "Secure", "Path=/", "SameSite=lax"):
        assert part in cookie
    assert "Domain" not in cookie
    page = browser.get("/inspections")
    assert "Sign out" in page.text
    assert browser.get("/v1/keys").status_code == 403  # an operator is no admin
    token = re.search(r'name="csrf" value="(\w+)"', page.text)
    assert token is not None
    out = browser.post("/signout", data={"csrf": token[1]})
    assert (out.status_code, out.headers["location"]) == (303, "/signin")
    assert browser.get("/inspections").status_code == 303
    with people.read() as session:
        assert session.query(SessionRow).count() == 0
        seen = [row.action for row in audit.page(session, audit.Wanted(target="user/eva"), 10, None)[0]]
    assert seen == ["session.close", "session.open", "users.add"]


def test_over_http_people_sign_in_on_this_machine_only(locked: Settings, people: Database) -> None:
    with TestClient(create_app(locked, PixelEngine()), base_url="http://127.0.0.1") as client:
        answer = client.post("/v1/session", json=EVA)
        assert answer.status_code == 201
        assert answer.headers["set-cookie"].startswith("inlier=")
        assert "Secure" not in answer.headers["set-cookie"]
        assert client.get("/v1/session").json()["name"] == "eva"
        client.base_url = "http://testserver"  # type: ignore[assignment]
        assert client.post("/v1/session", json=EVA).json()["type"].endswith("https-needed")


def test_changes_with_a_cookie_need_its_csrf_token(browser: TestClient) -> None:
    csrf = browser.post("/v1/session", json=EVA).json()["csrf"]
    for headers in ({}, {"X-CSRF-Token": "0" * 64}, {"X-CSRF-Token": csrf, "Sec-Fetch-Site": "cross-site"}):
        assert browser.delete("/v1/session", headers=headers).status_code == 403
    for origin in ("https://evil.example", "null"):
        headers = {"X-CSRF-Token": csrf, "Origin": origin}
        assert browser.delete("/v1/session", headers=headers).json()["type"].endswith("foreign-origin")
    assert browser.post("/signout", data={"csrf": "0" * 64}).status_code == 403
    assert browser.post("/signout", data={"csrf": csrf, "more": "x" * 70_000}).status_code == 413
    assert browser.get("/v1/session").json()["csrf"] == csrf
    good = {"X-CSRF-Token": csrf, "Origin": "https://testserver", "Sec-Fetch-Site": "same-origin"}
    assert browser.delete("/v1/session", headers=good).status_code == 204
    assert browser.get("/v1/session").status_code == 401


def test_another_site_cannot_sign_somebody_in(browser: TestClient) -> None:
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert browser.post("/signin", data=EVA, headers=foreign).status_code == 403
    assert (
        browser.post("/v1/session", json=EVA, headers={"Origin": "https://evil.example"}).status_code == 403
    )


def test_unknown_name_wrong_password_and_lock_look_alike(browser: TestClient, people: Database) -> None:
    def answer(name: str, password: str) -> tuple[int, str]:
        found = browser.post("/v1/session", json={"name": name, "password": password})
        return found.status_code, found.json().get("detail", "")

    wrong = [answer("eva", "wrong") for _ in range(5)]
    assert set(wrong) == {answer("nobody", "wrong")}
    assert wrong[0][0] == 401
    assert answer("eva", PASSWORD) == wrong[0]  # locked now, and that is not told
    with people.write() as session:
        row = users.get(session, "eva")
        assert row.failed_sign_ins == 5
        assert row.locked_until is not None
        row.locked_until = datetime.now(UTC)
    assert answer("EVA", PASSWORD)[0] == 201
    with people.read() as session:
        assert users.get(session, "eva").failed_sign_ins == 0
        refused = audit.page(session, audit.Wanted(action="session.refused"), 50, None)[0]
    assert {row.target for row in refused} == {"user/eva", "user/?"}
    assert {(row.address, bool(row.request_id)) for row in refused} == {("testclient", True)}


def test_locks_grow_up_to_a_quarter_of_an_hour() -> None:
    now = datetime.now(UTC)
    row = UserRow(failed_sign_ins=0)
    spans = []
    for _ in range(20):
        users.note_failure(row, now)
        spans.append(0.0 if row.locked_until is None else (row.locked_until - now).total_seconds())
    assert spans[:7] == [0, 0, 0, 0, 4, 8, 16]
    assert spans[-1] == 900


def test_sign_ins_of_an_address_are_limited(locked: Settings, people: Database) -> None:
    limited = locked.model_copy(update={"signins_per_minute": 3})
    with TestClient(create_app(limited, PixelEngine()), base_url="https://testserver") as client:
        statuses = [client.post("/v1/session", json=EVA | {"password": "x"}).status_code for _ in range(4)]
        assert statuses == [401, 401, 401, 429]
        assert "too many sign-ins" in client.post("/signin", data=EVA).text.lower()


@pytest.mark.parametrize("column", ["expires_at", "seen_at"])
def test_sessions_end(browser: TestClient, people: Database, column: str) -> None:
    browser.post("/v1/session", json=EVA)
    callers = browser.app.state.services.access.callers  # type: ignore[attr-defined]
    assert browser.get("/v1/session").status_code == 200  # which is noted once, beside the request
    while callers._notes:
        time.sleep(0.01)
    with people.write() as session:
        session.execute(update(SessionRow).values({column: datetime.now(UTC) - timedelta(hours=2)}))
    callers.forget()
    assert browser.get("/v1/session").status_code == 401


@pytest.mark.parametrize("change", [{"role": "admin"}, {"disabled": True}, {"password": "another long one"}])
def test_a_changed_person_is_signed_out(
    browser: TestClient, locked: Settings, change: dict[str, object]
) -> None:
    admin = make_key(locked)
    browser.post("/v1/session", json=EVA)
    assert browser.get("/v1/session").status_code == 200
    assert browser.patch("/v1/users/Eva", json=change, headers=admin).status_code == 200
    assert browser.get("/v1/session").status_code == 401
    again = browser.post("/v1/session", json=EVA).status_code
    assert again == (201 if "role" in change else 401)


def test_people_are_added_and_listed(browser: TestClient, locked: Settings) -> None:
    admin = make_key(locked)
    new = {"name": "Otto", "role": "admin", "password": PASSWORD}
    made = browser.post("/v1/users", json=new, headers=admin)
    assert (made.status_code, made.json()["name"]) == (201, "otto")
    assert browser.post("/v1/users", json=new, headers=admin).status_code == 409
    short = browser.post("/v1/users", json={**new, "name": "x", "password": "short"}, headers=admin)
    assert short.status_code == 422
    assert "short" not in short.json()["detail"]
    assert browser.patch("/v1/users/none", json={"disabled": True}, headers=admin).status_code == 404
    assert browser.patch("/v1/users/otto", json={}, headers=admin).status_code == 422
    listed = browser.get("/v1/users", headers=admin)
    assert [row["name"] for row in listed.json()] == ["eva", "otto"]
    assert "argon2" not in listed.text


def test_a_link_signs_in_once(browser: TestClient, people: Database) -> None:
    with people.write() as session:
        token = signin.link(session, SYSTEM, "eva")
    browser.cookies.set("__Host-inlier", token, domain="testserver.local")
    assert browser.get("/v1/session").status_code == 401  # a link is no session
    browser.cookies.clear()
    for _ in range(2):  # looking at it changes nothing
        assert "signs you in once" in browser.get(f"/signin?link={token}&next=/docs").text
    entered = browser.post("/signin/link", data={"link": token, "next": "/docs"})
    assert (entered.status_code, entered.headers["location"]) == (303, "/docs")
    assert browser.get("/v1/session").json()["name"] == "eva"
    assert browser.post("/signin/link", data={"link": token}, headers={"cookie": ""}).status_code == 401


def test_the_first_admin_is_made_in_the_browser(locked: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with TestClient(create_app(locked, PixelEngine()), base_url="https://testserver") as client:
        token = capsys.readouterr().err.splitlines()[-1]
        assert "First start" in client.get("/signin").text
        form = {"token": token, "name": "Eva", "password": PASSWORD}
        assert client.post("/signin/first", data={**form, "token": "inl_no"}).status_code == 401
        assert client.post("/signin/first", data={**form, "password": "short"}).status_code == 422
        assert client.post("/signin/first", data=form).status_code == 200
        assert client.get("/v1/session").json() | {"csrf": "", "expires_at": ""} == {
            "name": "eva",
            "scope": "admin",
            "kind": "user",
            "csrf": "",
            "expires_at": "",
        }
        assert client.get("/v1/users", headers={"X-API-Key": token}).status_code == 401
        client.cookies.clear()
        assert client.post("/signin/first", data=form).status_code == 401
        assert "First start" not in client.get("/signin").text


@pytest.mark.parametrize(
    ("asked", "goes"),
    [
        ("/docs?x=1", "/docs?x=1"),
        *((bad, "/inspections") for bad in ("//e", "https://e", "/\\e", "", "/a\n")),
    ],
)
def test_after_signing_in_one_stays_here(asked: str, goes: str) -> None:
    assert safe_next(asked) == goes


def test_the_audit_log_pages_and_filters(browser: TestClient, locked: Settings) -> None:
    admin = make_key(locked, "admin", "boss")
    for index in range(5):
        made = browser.post("/v1/keys", json={"name": f"k{index}", "scope": "camera"}, headers=admin)
        assert made.status_code == 201
    url, seen = "/v1/audit?who=boss&limit=2", []
    while url:
        page = browser.get(url, headers=admin).json()
        seen += [item["target"] for item in page["items"]]
        url = page["next"]
    assert seen == [f"key/k{index}" for index in (4, 3, 2, 1, 0)]
    entry = browser.get("/v1/audit?target=key/k0&action=keys.create", headers=admin).json()["items"][0]
    assert (entry["who"], entry["kind"], entry["address"]) == ("boss", "key", "testclient")
    assert entry["request_id"] == made.headers["x-request-id"] or entry["request_id"]
    assert browser.get("/v1/audit?cursor=x", headers=admin).status_code == 422
    future = browser.get("/v1/audit?since=2999-01-01T00:00:00Z", headers=admin).json()
    assert future == {"items": [], "next": None}


@pytest.mark.parametrize("change", ["UPDATE audit_log SET who = 'me'", "DELETE FROM audit_log"])
def test_the_database_itself_keeps_the_audit_log(database: Database, change: str) -> None:
    with database.write() as session:
        audit.record(session, SYSTEM, "test.made", "test/1")
    with pytest.raises(DatabaseError, match="append-only"), database.write() as session:
        session.execute(text(change))
    with database.read() as session:
        assert [row.who for row in audit.page(session, audit.Wanted(), 5, None)[0]] == ["inlier-service"]
