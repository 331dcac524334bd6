"""What a quality engineer does over HTTP: recipes, limits, reviews."""

import time
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.service.conftest import PixelEngine, flat
from tests.service.test_api import WAIT, assert_problem

GOOD, ASKED, BAD = 3, 5, 9  # gray values that PASS, need a person, and are rejected


@pytest.fixture
def bolt(client: TestClient) -> TestClient:
    """A service with the recipe `bolt`."""
    assert client.post("/v1/recipes", json={"name": "bolt"}).status_code == 201
    return client


def post(client: TestClient, value: int, recipe: str = "bolt", **parameters: str) -> dict[str, Any]:
    answer = client.post(
        "/v1/inspections", params={"recipe": recipe, **parameters}, content=flat(value), headers=WAIT
    )
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


# --- recipes ---


def test_a_recipe_lives(client: TestClient) -> None:
    made = client.post("/v1/recipes", json={"name": "nut", "product": "M6", "reasons": ["dent"]})
    assert (made.status_code, made.headers["location"], made.headers["etag"]) == (
        201,
        "/v1/recipes/nut",
        '"1"',
    )
    assert client.get("/v1/recipes/nut").json() == made.json()
    changed = client.patch("/v1/recipes/nut", json={"audit_rate": 0.5}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.json()["audit_rate"], changed.json()["product"]) == (200, 0.5, "M6")
    assert_problem(
        client.patch("/v1/recipes/nut", json={"product": None, "revision": 1}), 409, "revision-conflict"
    )
    assert client.patch("/v1/recipes/nut", json={"product": None, "revision": 2}).json()["product"] is None
    assert client.delete("/v1/recipes/nut").json()["archived_at"] is not None
    assert [each["name"] for each in client.get("/v1/recipes").json()["items"]] == ["default"]
    refused = client.post("/v1/inspections?recipe=nut", content=flat(3), headers=WAIT)
    assert_problem(refused, 422, "recipe-archived")
    restored = client.patch("/v1/recipes/nut", json={"archived": False, "revision": 4})
    assert restored.json()["archived_at"] is None
    assert post(client, GOOD, "nut")["verdict"] == "PASS"


def test_recipes_page(client: TestClient) -> None:
    for name in ("a", "b", "c"):
        client.post("/v1/recipes", json={"name": name})
    first = client.get("/v1/recipes?limit=2").json()
    second = client.get(first["next"]).json()
    names = [each["name"] for each in first["items"] + second["items"]]
    assert (names, second["next"]) == (["a", "b", "c", "default"], None)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/recipes", {"name": "bolt"}, 409, "recipe-exists"),
        ("POST", "/v1/recipes", {"name": "a b"}, 422, "invalid-parameters"),
        ("POST", "/v1/recipes", {"name": "x", "profile": "none"}, 422, "unknown-profile"),
        ("POST", "/v1/recipes", {"name": "x", "reasons": ["a", "a"]}, 422, "invalid-parameters"),
        ("POST", "/v1/recipes", {"name": "x", "attributes_schema": {"type": "?"}}, 422, "invalid-schema"),
        ("PATCH", "/v1/recipes/bolt", {"product": "x"}, 428, "revision-required"),
        ("PATCH", "/v1/recipes/bolt", {"audit_rate": 2, "revision": 1}, 422, "invalid-parameters"),
        ("PATCH", "/v1/recipes/none", {"product": "x", "revision": 1}, 404, "unknown-recipe"),
        ("GET", "/v1/recipes/none", None, 404, "unknown-recipe"),
        ("GET", "/v1/recipes/a%00b", None, 422, "invalid-parameters"),
        ("DELETE", "/v1/recipes/default", None, 409, "recipe-needed"),
        ("GET", "/v1/recipes/none/thresholds", None, 404, "unknown-recipe"),
        ("GET", "/v1/recipes/bolt/thresholds?profile=none", None, 422, "unknown-profile"),
        ("GET", f"/v1/recipes/bolt/thresholds?model={'0' * 64}", None, 404, "unknown-model"),
        ("GET", "/v1/recipes/bolt/thresholds/9/verdicts", None, 404, "unknown-version"),
    ],
)
def test_what_cannot_be_done_is_said(
    bolt: TestClient, method: str, path: str, body: Any, status: int, code: str
) -> None:
    assert_problem(bolt.request(method, path, json=body), status, code)


def test_metadata_must_match_the_recipes_schema(bolt: TestClient) -> None:
    schema = {"properties": {"shift": {"enum": ["early", "late"]}}, "required": ["shift"]}
    bolt.patch("/v1/recipes/bolt", json={"attributes_schema": schema, "revision": 1})
    bad = bolt.post("/v1/inspections?recipe=bolt&attr.shift=noon", content=flat(3), headers=WAIT)
    body = assert_problem(bad, 422, "attributes-mismatch")
    assert body["errors"][0]["location"] == "attributes.shift"
    assert post(bolt, GOOD, **{"attr.shift": "late"})["attributes"] == {"shift": "late"}
    assert bolt.get("/v1/inspections?recipe=bolt").json()["items"][1:] == []  # the refused one is not there


def test_strict_recipes(settings: Settings, engine: PixelEngine) -> None:
    with TestClient(create_app(settings.model_copy(update={"strict_recipes": True}), engine)) as client:
        refused = client.post("/v1/inspections?recipe=nut", content=flat(3), headers=WAIT)
        assert assert_problem(refused, 422, "unknown-recipe")["recipes"] == ["default"]
        assert client.post("/v1/inspections", content=flat(3), headers=WAIT).status_code == 200


# --- limits ---


def test_limits_are_previewed_set_and_decide_from_then_on(bolt: TestClient) -> None:
    assert post(bolt, ASKED)["verdict"] == "REVIEW"
    base = bolt.get("/v1/recipes/bolt/thresholds").json()
    assert (base["current"]["review"], base["current"]["reject"]) == (3.0, 5.0)
    version = base["current"]["version"]
    wanted = {"review": 1.0, "reject": 3.5}
    preview = bolt.post("/v1/recipes/bolt/thresholds/preview", json=wanted).json()
    assert (preview["based_on"], preview["inspections"]) == (version, 1)
    assert preview["flips"]["kinds"] == {"REVIEW->REJECT": 1}
    assert preview["reject_rate"]["value"] == 1.0
    assert preview["escape"]["value"] is None
    assert preview["escape"]["reason"]
    made = bolt.post("/v1/recipes/bolt/thresholds", json={**wanted, "why": "tighter", "based_on": version})
    assert (made.status_code, made.json()["version"]) == (201, version + 1)
    stale = bolt.post("/v1/recipes/bolt/thresholds", json={**wanted, "why": "again", "based_on": version})
    assert_problem(stale, 409, "version-conflict")
    now = post(bolt, ASKED)
    assert (now["verdict"], now["thresholds"]["version"]) == ("REJECT", version + 1)
    back = bolt.post(
        f"/v1/recipes/bolt/thresholds/{version}/restore", json={"why": "too tight", "based_on": version + 1}
    )
    assert (back.status_code, back.json()["review"]) == (201, 3.0)
    history = bolt.get("/v1/recipes/bolt/thresholds").json()["history"]
    assert [each["version"] for each in history] == [version + 2, version + 1, version]
    view = bolt.get(f"/v1/recipes/bolt/thresholds/{version + 1}/verdicts?changed=true").json()
    assert [(each["decided"], each["reevaluated"]) for each in view["items"]] == [("REVIEW", "REJECT")]
    assert view["next"] is None


def test_flips_and_views_page(bolt: TestClient) -> None:
    ids = [post(bolt, ASKED)["id"] for _ in range(5)]
    body: dict[str, Any] = {"review": 1.0, "reject": 2.0, "flips_limit": 2}
    seen: list[str] = []
    while True:
        flips = bolt.post("/v1/recipes/bolt/thresholds/preview", json=body).json()["flips"]
        seen += [each["id"] for each in flips["items"]]
        assert flips["total"] == 5
        if flips["next"] is None:
            break
        body["flips_cursor"] = flips["next"]
    assert seen == ids[::-1]
    first = bolt.get("/v1/recipes/bolt/thresholds/1/verdicts?limit=3").json()
    rest = bolt.get(f"/v1/recipes/bolt/thresholds/1/verdicts?limit=3&cursor={first['next']}").json()
    assert [each["id"] for each in first["items"] + rest["items"]] == ids[::-1]


@pytest.mark.parametrize(
    "body",
    [
        {"review": 5.0, "reject": 3.0, "why": "x", "based_on": 0},
        {"review": 1.0, "reject": 3.0, "based_on": 0},
        {"review": 1.0, "reject": 3.0, "why": "  ", "based_on": 0},
        {"review": 1.0, "reject": 3.0, "why": "x"},
    ],
)
def test_limits_that_cannot_be(bolt: TestClient, body: dict[str, Any]) -> None:
    assert_problem(bolt.post("/v1/recipes/bolt/thresholds", json=body), 422, "invalid-parameters")


def test_suggestions(bolt: TestClient) -> None:
    found = bolt.post("/v1/recipes/bolt/thresholds/suggest", json={"reject_rate": 0.001}).json()
    assert found["recommended"]["source"] == "bundle"
    assert found["recommended"]["reject"] == pytest.approx(3.0902, abs=1e-3)
    wrong = bolt.post("/v1/recipes/bolt/thresholds/suggest", json={"reject_rate": 0.1, "review_rate": 0.01})
    assert_problem(wrong, 422, "invalid-parameters")


# --- reviews ---


def test_a_review_by_http(bolt: TestClient) -> None:
    identifier = post(bolt, BAD)["id"]
    path = f"/v1/inspections/{identifier}/reviews"
    body = {"decision": "good", "reason": "dust", "comment": "only dust", "expected_revision": 0}
    made = bolt.post(path, json=body)
    assert (made.status_code, made.json()["state"], made.json()["disagreement"]) == (201, "good", True)
    assert_problem(bolt.post(path, json=body), 409, "revision-conflict")
    shown = bolt.get(f"/v1/inspections/{identifier}").json()
    assert (shown["review"]["state"], shown["review"]["revision"]) == ("good", 1)
    assert shown["links"]["reviews"] == path
    assert shown["verdict"] == "REJECT"
    undone = bolt.post(path, json={"decision": "withdrawn", "expected_revision": 1}).json()
    assert (undone["state"], undone["revision"]) == ("none", 2)
    assert [each["decision"] for each in bolt.get(path).json()["items"]] == ["good", "withdrawn"]


def test_the_queue_and_a_claim_by_http(bolt: TestClient) -> None:
    bolt.patch("/v1/recipes/bolt", json={"audit_rate": 0.0, "revision": 1})
    identifier = post(bolt, ASKED)["id"]
    post(bolt, BAD)
    queue = bolt.get("/v1/review-queue?recipe=bolt").json()
    assert ([each["id"] for each in queue["items"]], queue["open"], queue["audits"]) == ([identifier], 1, 0)
    claimed = bolt.post(f"/v1/inspections/{identifier}/claim").json()
    assert claimed["claimed_by"]
    assert bolt.get(f"/v1/inspections/{identifier}").json()["review"]["claimed_by"] == claimed["claimed_by"]
    assert bolt.delete(f"/v1/inspections/{identifier}/claim").json()["claimed_by"] is None
    bolt.post(f"/v1/inspections/{identifier}/reviews", json={"decision": "unsure", "expected_revision": 0})
    assert bolt.get("/v1/review-queue").json()["open"] == 0


def test_audits_are_drawn_at_the_recipes_rate(bolt: TestClient) -> None:
    bolt.patch("/v1/recipes/bolt", json={"audit_rate": 1.0, "revision": 1})
    deadline = time.monotonic() + 60  # processes follow a change of a recipe within seconds
    while not (shown := post(bolt, GOOD))["review"]["audit"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert (shown["verdict"], shown["review"]["audit"], shown["review"]["wanted"]) == ("PASS", True, True)
