"""`/v1/webhooks` over HTTP, down to a receiver that gets what an inspection was."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.service.conftest import PixelEngine, flat
from tests.service.receiver import Receiver


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"sink_allow": "127.0.0.1", "sink_retry_s": 0.05, "sink_attempts": 2, "sink_timeout_s": 2.0}
    )


def create(client: TestClient, url: str, **more: object) -> dict[str, object]:
    answer = client.post("/v1/webhooks", json={"name": "mes", "url": url, **more})
    assert answer.status_code == 201, answer.text
    found: dict[str, object] = answer.json()
    assert answer.headers["location"] == f"/v1/webhooks/{found['id']}"
    return found


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def items(client: TestClient, path: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = client.get(path).json()["items"]
    return found


def test_create_read_change_delete(client: TestClient) -> None:
    made = create(client, "https://mes.example/hook", events=["review.created"], recipe="bolt")
    assert str(made.pop("secret")).startswith("whsec_")
    path = f"/v1/webhooks/{made['id']}"
    shown = client.get(path).json()
    assert "secret" not in shown
    assert (shown.pop("pending"), shown.pop("dead")) == (0, 0)
    assert shown == {key: value for key, value in made.items() if key not in ("pending", "dead")}
    assert [item["name"] for item in items(client, "/v1/webhooks")] == ["mes"]

    changed = client.patch(
        path, json={"recipe": None, "enabled": False, "events": ["model.activated"]}
    ).json()
    assert (changed["recipe"], changed["enabled"], changed["events"]) == (None, False, ["model.activated"])
    assert (changed["name"], changed["secret"]) == ("mes", None)
    rotated = client.patch(path, json={"rotate_secret": True}).json()
    assert rotated["secret"].startswith("whsec_")

    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404
    assert client.delete(path).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"url": "https://10.0.0.1/x"},
        {"url": "http://169.254.169.254/latest/meta-data"},
        {"url": "http://[::1]/x"},
        {"url": "ftp://a.example/x"},
        {"url": "file:///etc/passwd"},
        {"url": "https://user:word@a.example/x"},
        {"url": "https://a.example:0/x"},
        {"url": "https://a.example:99999/x"},
        {"url": "https:///x"},
        {"url": "mqtt://a.example/topic"},
        {"kind": "mqtt", "url": "https://a.example/topic"},
        {"kind": "mqtt", "url": "mqtt://a.example/"},
        {"kind": "mqtt", "url": "mqtt://a.example/a/%23"},
        {"kind": "mqtt", "url": "mqtt://a.example/{serial}"},
        {"url": "https://a.example/x", "password": "secret"},
        {"url": "https://a.example/x", "events": []},
        {"url": "https://a.example/x", "events": ["everything"]},
        {"url": "https://a.example/x", "colour": "red"},
        {},
    ],
)
def test_what_cannot_be_sent_to_is_refused(client: TestClient, body: dict[str, object]) -> None:
    answer = client.post("/v1/webhooks", json={"name": "bad", **body})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert items(client, "/v1/webhooks") == []


def test_names_are_unique(client: TestClient) -> None:
    create(client, "https://a.example/")
    again = client.post("/v1/webhooks", json={"name": "mes", "url": "https://b.example/"})
    assert (again.status_code, again.json()["type"]) == (409, "urn:inlier:problem:name-taken")
    other = create(client, "https://b.example/", name="other")
    assert client.patch(f"/v1/webhooks/{other['id']}", json={"name": "mes"}).status_code == 409


def test_a_broker_s_password_is_never_shown(client: TestClient) -> None:
    url = "mqtts://line1@broker.example/plant/{recipe}"
    made = create(client, url, kind="mqtt", password="hidden-word")
    assert made["secret"] is None
    path = f"/v1/webhooks/{made['id']}"
    assert "hidden-word" not in client.get(path).text + client.get("/v1/webhooks").text
    assert client.patch(path, json={"rotate_secret": True}).status_code == 422
    assert client.patch(path, json={"password": "another"}).status_code == 200


def test_a_finished_inspection_is_told_and_its_signature_checks(
    client: TestClient, receiver: Receiver
) -> None:
    made = create(client, receiver.url, events=["inspection.finished", "inspection.failed"])
    answer = client.post(
        "/v1/inspections",
        content=flat(2),
        params={"serial": "S1"},
        headers={"Content-Type": "image/png", "Prefer": "wait=10"},
    )
    wait_for(lambda: len(receiver.received) == 1)
    got = receiver.received[0]
    event = json.loads(got.body)
    assert event["type"] == "inlier.inspection.finished"
    assert event["data"] == answer.json()
    key = base64.b64decode(str(made["secret"]).removeprefix("whsec_"))
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert got.headers["webhook-signature"] == f"v1,{expected}"


def test_deliveries_are_listed_given_up_and_sent_again(client: TestClient, receiver: Receiver) -> None:
    made = create(client, receiver.url)
    path = f"/v1/webhooks/{made['id']}"
    receiver.status = 400
    for value in (1, 2, 3):
        client.post("/v1/inspections", content=flat(value), headers={"Content-Type": "image/png"})
    wait_for(lambda: len(items(client, f"{path}/deliveries?status=dead")) == 3)
    assert client.get(path).json()["dead"] == 3
    dead = items(client, f"{path}/deliveries?status=dead")
    assert [item["attempts"] for item in dead] == [2, 2, 2]
    assert {item["last_error"] for item in dead} == {"answered 400"}
    first = client.get(f"{path}/deliveries?limit=2").json()
    assert [item["id"] for item in first["items"]] == [item["id"] for item in dead[:2]]
    second = client.get(f"{path}/deliveries?limit=2&cursor={first['next_cursor']}").json()
    assert ([item["id"] for item in second["items"]], second["next_cursor"]) == ([dead[2]["id"]], None)

    receiver.status = 204
    again = client.post(f"{path}/deliveries/{dead[0]['id']}/redeliver")
    assert (again.status_code, again.json()["status"]) == (202, "pending")
    wait_for(lambda: len(items(client, f"{path}/deliveries?status=delivered")) == 1)
    assert client.post(f"{path}/redeliver").json() == {"requeued": 2}
    wait_for(lambda: len(items(client, f"{path}/deliveries?status=delivered")) == 3)
    unknown = client.post(f"{path}/deliveries/{made['id']}/redeliver")
    assert unknown.status_code == 404


def test_a_test_message_says_how_it_went(client: TestClient, receiver: Receiver) -> None:
    made = create(client, receiver.url)
    good = client.post(f"/v1/webhooks/{made['id']}/test").json()
    assert (good["delivered"], good["error"]) == (True, None)
    assert json.loads(receiver.received[0].body)["type"] == "inlier.test"
    receiver.stop()
    bad = client.post(f"/v1/webhooks/{made['id']}/test").json()
    assert bad["delivered"] is False
    assert "cannot connect" in bad["error"]


def test_changes_are_in_the_audit_log_without_secrets(settings: Settings, engine: PixelEngine) -> None:
    from sqlalchemy import select

    from service.db.session import Database
    from service.db.tables import AuditRow

    with TestClient(create_app(settings, engine)) as client:
        made = create(client, "mqtts://broker.example/x", kind="mqtt", password="hidden-word")
        client.patch(f"/v1/webhooks/{made['id']}", json={"password": "hidden-two"})
        client.delete(f"/v1/webhooks/{made['id']}")
    database = Database(settings.url)
    with database.read() as session:
        rows = session.scalars(select(AuditRow).order_by(AuditRow.id)).all()
    database.close()
    ours = [row for row in rows if row.action.startswith("webhooks.")]
    assert [row.action for row in ours] == ["webhooks.create", "webhooks.change", "webhooks.delete"]
    assert "hidden" not in str([row.detail for row in ours])


def test_a_certificate_file_that_cannot_be_read_stops_the_start(
    settings: Settings, engine: PixelEngine
) -> None:
    from service.errors import StartupError

    bad = settings.model_copy(update={"sink_ca": settings.data / "no.pem"})
    with pytest.raises(StartupError, match="--sink-ca"), TestClient(create_app(bad, engine)):
        pass
