"""Filters, orders, cursors and exports over HTTP."""

import csv
import io
import json
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from service.api import export
from service.api.filters import decode_cursor, encode_cursor
from service.db.repository import search
from service.db.repository.search import Position
from service.errors import InspectionError
from tests.service.conftest import flat

WAIT = {"Prefer": "wait=30", "Content-Type": "image/png"}
URL = "/v1/inspections"


@pytest.fixture
def posted(client: TestClient) -> list[dict[str, Any]]:
    """Five inspections with scores 40, 1, 9, 2 and 3 before calibration."""
    queries = [
        "line=A&serial=1&attr.shift=day&captured_at=2026-01-01T08:00:00Z",
        "line=A&serial=2&attr.shift=night&captured_at=2026-01-01T09:00:00Z",
        "line=B&serial=3&attr.shift=day&attr.tool=7",
        f"line=B&serial={quote('=1+1')}&part_id={quote('@home')}&lot={quote('-5')}&station=plain",
        "recipe=nut&serial=5",
    ]
    values = (40, 1, 9, 2, 3)
    return [
        client.post(f"{URL}?{query}", content=flat(value), headers=WAIT).json()
        for query, value in zip(queries, values, strict=True)
    ]


def serials(client: TestClient, query: str) -> list[str]:
    answer = client.get(f"{URL}?{query}")
    assert answer.status_code == 200, answer.text
    return [item["serial"] for item in answer.json()["items"]]


def test_filters(client: TestClient, posted: list[dict[str, Any]]) -> None:
    assert serials(client, "") == ["5", "=1+1", "3", "2", "1"]
    assert serials(client, "order=oldest&line=A") == ["1", "2"]
    assert serials(client, "attr.shift=day") == ["3", "1"]
    assert serials(client, "attr.shift=day&attr.tool=7") == ["3"]
    assert serials(client, "captured_since=2026-01-01T08:00:00Z&captured_until=2026-01-01T09:00:00Z") == ["1"]
    assert serials(client, f"since={quote(posted[3]['created_at'])}") == ["5", "=1+1"]
    score = posted[2]["score"]["calibrated"]
    assert serials(client, f"score_min={score}") == ["3", "1"]
    assert serials(client, f"score_max={score}&line=B") == ["=1+1", "3"]
    assert serials(client, f"model_hash={'f' * 64}&profile=fast&recipe=nut") == ["5"]
    assert serials(client, "disagreement=true") == []
    assert serials(client, "wanted=false&review_state=none&recipe=nut") == ["5"]
    assert serials(client, f"serial={quote('=1+1')}") == ["=1+1"]


def test_pages_link_to_the_next_one_with_the_same_filters(
    client: TestClient, posted: list[dict[str, Any]]
) -> None:
    found, address = [], f"{URL}?order=oldest&limit=1&disagreement=false&attr.shift=day"
    while address:
        answer = client.get(address)
        found += [item["serial"] for item in answer.json()["items"]]
        address = answer.json()["next"]
        assert ("link" in answer.headers) == (address is not None)
    assert found == ["1", "3"]


@pytest.mark.parametrize(
    "query",
    [
        *("score_min=nan", "score_max=x", "order=best", "attr.=1", "attr.a%20b=1", "attr.a=%00", "limit=501"),
        *("attr.a=1&attr.a=2", "since=2026-01-01", "model_hash=abc", "serial=", "verdict=pass"),
        "&".join(f"attr.a{number}=1" for number in range(9)),
    ],
)
def test_wrong_parameters_are_told(client: TestClient, query: str) -> None:
    for path in (URL, f"{URL}/export"):
        answer = client.get(f"{path}?{query}")
        assert answer.status_code == 422, query
        assert answer.json()["type"] == "urn:inlier:problem:invalid-parameters"


def test_cursors_belong_to_their_order() -> None:
    position = Position("0199c9f0-0000-7000-8000-000000000000", 0.1)
    assert decode_cursor("margin", encode_cursor("margin", position)) == position
    plain = Position(position.id)
    for order, wrong in (("newest", "oldest"), ("newest", "margin"), ("margin", "newest")):
        with pytest.raises(InspectionError, match="same order"):
            decode_cursor(wrong, encode_cursor(order, position if order == "margin" else plain))
    for margin in (None, float("inf"), float("nan")):
        with pytest.raises(InspectionError, match="cursor"):
            decode_cursor("margin", encode_cursor("margin", Position(position.id, margin)))


@pytest.mark.parametrize("cursor", ["", "zzz", "AAAA", "bmV3ZXN0IHggMHgx", "A" * 256])
def test_foreign_cursors_are_refused(client: TestClient, cursor: str) -> None:
    answer = client.get(f"{URL}?cursor={cursor}")
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:inlier:problem:invalid-cursor"
    assert client.get(f"{URL}?cursor=%F0%9F%98%80").status_code == 422


def test_csv_is_safe_to_open(client: TestClient, posted: list[dict[str, Any]]) -> None:
    answer = client.get(f"{URL}/export?line=B&order=oldest")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="inspections.csv"'
    third, fourth = csv.DictReader(io.StringIO(answer.text))
    assert third["serial"] == "3"
    assert float(third["score"]) == posted[2]["score"]["calibrated"]
    assert json.loads(third["attributes"]) == {"shift": "day", "tool": "7"}
    assert (fourth["serial"], fourth["part_id"], fourth["lot"], fourth["station"]) == (
        "'=1+1",
        "'@home",
        "'-5",
        "plain",
    )
    assert third["wanted"] == "false"


def test_cells() -> None:
    assert [export.cell(text) for text in ("=a", "+a", "-a", "@a", "\ta", "\ra")] == [
        *("'=a", "'+a", "'-a", "'@a", "'\ta", "'\ra")
    ]
    assert [export.cell(value) for value in (-1.5, None, True, "a=b", [1])] == [
        -1.5,
        None,
        "true",
        "a=b",
        "[1]",
    ]


def test_jsonl_holds_the_same_documents(client: TestClient, posted: list[dict[str, Any]]) -> None:
    answer = client.get(f"{URL}/export?format=jsonl&order=oldest")
    assert answer.headers["content-type"] == "application/x-ndjson"
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert found == [client.get(item["links"]["self"]).json() for item in posted]


def test_exports_of_several_portions(
    client: TestClient, posted: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.inspections._EXPORT_ROWS", 2)
    rows = list(csv.DictReader(io.StringIO(client.get(f"{URL}/export").text)))
    assert [row["serial"] for row in rows] == ["5", "'=1+1", "3", "2", "1"]
    assert client.get(f"{URL}/export?lot=none").text.count("\n") == 1


def test_the_list_page_shows_a_pause(
    client: TestClient, posted: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Nothing matches" in client.get("/inspections?line=A&station=plain").text
    for name in ("FIRST", "MOST", "PROBE", "FEW"):
        monkeypatch.setattr(search, name, 1)
    monkeypatch.setattr(search, "BUDGET_S", 0.0)
    page = client.get("/inspections?line=A&station=plain").text
    assert "can go on" in page
    assert 'rel="next"' in page
