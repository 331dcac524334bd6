"""Runs as they are looked at: over HTTP, with the gate's words and report, and truthful about killed ones."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.db.repository import leases, runs
from service.db.session import Database
from service.retraining.history import history
from service.retraining.lease import Held, lease_name
from tests.service.retraining.conftest import Plant
from tests.service.test_api import assert_problem

GATE = {
    "passed": False,
    "criteria": [
        {"name": "golden", "title": "Golden set", "passed": True, "why": "as good", "value": 0.0},
        {"name": "escapes", "title": "Escape set", "passed": False, "why": "2 of 3 pass, 1 before"},
        {"name": "drift", "title": "Drift", "passed": None, "why": "no recent images"},
    ],
}


def add(database: Database, folder: Path, recipe: str = "bolt", state: str = "running", **values: Any) -> str:
    """A run that began ten minutes ago; an ended one ended five minutes ago."""
    with database.write() as session:
        row = runs.begin(session, recipe, cause="the schedule", who="x", folder=str(folder), base_hash=None)
        row.started_at = datetime.now(UTC) - timedelta(minutes=10)
        if state != "running":
            runs.end(row, state, detail=values.pop("detail", None))  # type: ignore[arg-type]
            row.finished_at = row.started_at + timedelta(minutes=5)
        for name, value in values.items():
            setattr(row, name, value)
        return row.id


def held_gate(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "gate.json").write_text(json.dumps(GATE))
    (folder / "gate.html").write_text("<h1>Gate</h1><script>alert(1)</script>")
    return folder


def test_a_refused_run_has_the_gates_words_and_its_report(client: TestClient, tmp_path: Path) -> None:
    database = client.app.state.services.database  # type: ignore[attr-defined]
    run = add(database, held_gate(tmp_path / "run"), state="rejected", step="gate")
    (item,) = client.get("/v1/training-runs").json()["items"]
    assert (item["id"], item["state"], item["duration_s"]) == (run, "rejected", 300)
    assert item["cause"] == "the schedule"
    assert [one["passed"] for one in item["gate"]["criteria"]] == [True, False, None]
    report = client.get(item["links"]["report"])
    assert report.text.startswith("<h1>Gate</h1>")
    assert "sandbox" in report.headers["content-security-policy"]
    assert "script-src" not in report.headers["content-security-policy"]  # default-src 'none' holds


def test_runs_are_filtered_and_paged(client: TestClient, tmp_path: Path) -> None:
    database = client.app.state.services.database  # type: ignore[attr-defined]
    made = [add(database, tmp_path, "bolt", "passed") for _ in range(3)]
    made += [add(database, tmp_path, "nut", "failed", detail="no images")]
    page = client.get("/v1/training-runs?limit=3").json()
    rest = client.get(f"/v1/training-runs?limit=3&cursor={page['next']}").json()
    assert [item["id"] for item in (*page["items"], *rest["items"])] == made[::-1]
    assert rest["next"] is None
    (nut,) = client.get("/v1/training-runs?state=failed").json()["items"]
    assert (nut["recipe"], nut["detail"], nut["links"]) == ("nut", "no images", {})
    assert len(client.get("/v1/training-runs?recipe=bolt").json()["items"]) == 3


def test_no_report_where_there_is_none(client: TestClient, tmp_path: Path) -> None:
    database = client.app.state.services.database  # type: ignore[attr-defined]
    gone = add(database, tmp_path / "cleared", state="rejected", step="gate")
    assert_problem(client.get(f"/v1/training-runs/{gone}/report"), 404, "no-report")
    unknown = "019ab5a0-3f2e-7c41-9d53-6a1f0c2b7e88"
    assert_problem(client.get(f"/v1/training-runs/{unknown}/report"), 404, "unknown-run")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/gate.html").symlink_to(secret)
    linked = add(database, tmp_path / "linked", state="rejected", step="gate")
    assert_problem(client.get(f"/v1/training-runs/{linked}/report"), 404, "no-report")
    assert [item["links"] for item in client.get("/v1/training-runs").json()["items"]] == [{}, {}]


@pytest.mark.parametrize("damaged", ["", "{}", "[1]", '{"passed": "perhaps", "criteria": 3}', "\xff"])
def test_a_damaged_record_of_the_gate_is_no_verdict(plant: Plant, tmp_path: Path, damaged: str) -> None:
    folder = held_gate(tmp_path / "run")
    (folder / "gate.json").write_text(damaged, encoding="latin-1")
    add(plant.database, folder, state="rejected", step="gate")
    (run,) = history(plant.database, limit=10).items
    assert (run.gate, run.report) == (None, True)


def test_a_run_whose_process_is_gone_is_no_running_one(plant: Plant, tmp_path: Path) -> None:
    add(plant.database, tmp_path)
    with Held(plant.database, "bolt") as lease:
        assert lease.taken
        found = history(plant.database, limit=10)
        assert (found.items[0].state, round(found.items[0].seconds(found.at) or 0)) == ("running", 600)
    found = history(plant.database, limit=10)
    assert (found.items[0].state, found.items[0].seconds(found.at)) == ("interrupted", None)
    with plant.database.write() as session:
        leases.acquire(session, lease_name("bolt"), "dead", -1)
    assert history(plant.database, limit=10).items[0].state == "interrupted"


def test_what_a_run_leaves_is_what_is_shown(plant: Plant) -> None:
    """The job itself writes the folder; the gate of these tests writes an empty record."""
    plant.tell(gate="the candidate is stopped by: escape set")
    outcome = plant.run(cause="drift")
    (run,) = history(plant.database, "bolt", limit=10).items
    assert (run.row.id, run.state, run.row.cause) == (outcome.run, "rejected", "drift")
    assert run.row.detail == "the candidate is stopped by: escape set"
    assert Path(run.row.folder, "gate.json").exists()
