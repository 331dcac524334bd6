"""Dashboards are what their sources say, and every query of theirs has data from a service that runs."""

import importlib.util
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import yaml

from service.settings import Settings
from tests.deploy.prometheus import Prometheus, copy, running
from tests.deploy.test_rules import ALERTS, rules, used_metrics
from tests.service.conftest import PixelEngine, flat, make_key
from tests.service.live import live
from tests.service.receiver import Receiver
from tests.test_docs import table

GRAFANA = Path(__file__).parents[2] / "deploy/grafana"
METRICS = Path(__file__).parents[2] / "docs/metrics.md"
# What dashboards let Grafana fill in, as this test does: short spans, for a service that runs for seconds.
VARIABLES = {"$__rate_interval": "10s", "$__range": "1m"} | dict.fromkeys(
    ("$recipe", "$line", "$instance"), ".*"
)
POISON = 99
# What needs more than some seconds of traffic: hundreds of inspections, a shadow, a retraining.
QUIET = {
    "model: Drift: population-stability index",
    "model: Shadow: verdicts that differ",
    "model: Since the last retraining, by how it ended",
}


def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build", GRAFANA / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dashboards() -> dict[str, dict[str, Any]]:
    return {
        path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))
    }


def queries() -> list[tuple[str, str]]:
    """(dashboard: panel, PromQL) of everything that is asked, annotations included."""
    found = []
    for name, board in dashboards().items():
        for panel in board["panels"]:
            found += [(f"{name}: {panel['title']}", target["expr"]) for target in panel["targets"]]
        found += [(f"{name}: annotation", one["expr"]) for one in board["annotations"]["list"]]
    return found


def filled_in(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def test_dashboards_are_built_from_their_sources() -> None:
    files = {path.name: path.read_text() for path in (GRAFANA / "dashboards").iterdir()}
    assert files == build().written(), "run: python3 deploy/grafana/build.py"


def test_dashboards_are_as_grafana_wants_them() -> None:
    boards = dashboards()
    assert set(boards) == {"line", "model", "service", "workers"}
    assert len({board["uid"] for board in boards.values()}) == len(boards)
    for board in boards.values():
        taken = set()
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        for panel in board["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            taken |= cells
            for target in panel["targets"]:
                assert target["datasource"]["uid"] == "${datasource}"
    providers = yaml.safe_load((GRAFANA / "provisioning/dashboards/inlier.yml").read_text())["providers"]
    assert providers[0]["options"]["path"] == "/etc/grafana/dashboards"


@pytest.mark.promise(25)
def test_dashboards_ask_for_metrics_that_exist() -> None:
    known = {row[0] for row in table(METRICS.read_text())}
    recorded = {rule["record"] for rule in rules("record")}
    for name, expression in queries():
        assert used_metrics(expression) <= known, name
        assert set(re.findall(r"\binlier:[\w:]+", expression)) <= recorded, name


# --- against a service that runs ---


@contextmanager
def traffic(post: Callable[[int], None]) -> Iterator[None]:
    """Images of every kind, one after the other, until the end."""
    done = threading.Event()

    def run() -> None:
        number = 0
        while not done.is_set():
            post(number)
            number += 1
            done.wait(0.1)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(60)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Prometheus]:
    """A service with traffic, and Prometheus with our rules watching it every second, by an API key."""
    monkeypatch.setattr("service.gauges._BACKLOG_S", 1.0)
    monkeypatch.setattr("service.gauges._ESTIMATES_S", 1.0)
    settings = Settings(
        data=tmp_path / "data",
        max_attempts=2,
        sink_allow="127.0.0.0/8",
        log_level="error",
        shutdown_grace_s=5,
        decode_processes=0,
    )
    camera, admin = make_key(settings, "camera"), make_key(settings, "admin")
    folder = copy(tmp_path)
    (folder / "inlier.key").write_text(camera["Authorization"].removeprefix("Bearer "))
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "targets/workers.yml").write_text("[]")
    receiver = Receiver()
    receiver.start()
    with (
        live(settings, PixelEngine(poison=POISON)) as address,
        httpx.Client(base_url=address, headers=admin, timeout=60) as client,
    ):
        target = address.removeprefix("http://")
        (folder / "targets/api.yml").write_text(yaml.safe_dump([{"targets": [target]}]))
        hook = {"name": "mes", "url": receiver.url, "events": ["inspection.finished"]}
        assert client.post("/v1/webhooks", json=hook).status_code == 201
        audited = client.patch("/v1/recipes/default", json={"audit_rate": 1, "revision": 1})
        assert audited.status_code == 200, audited.text

        def post(number: int) -> None:
            value = (1, 4, 9, POISON)[number % 4] if number < 40 else (1, 4, 9)[number % 3]
            query = {"line": "A", "station": str(number % 2)}
            headers = {"Content-Type": "image/png", "Prefer": "wait=30"}
            body = client.post("/v1/inspections", params=query, content=flat(value), headers=headers).json()
            decision = {"decision": "defective" if value == 9 else "good", "expected_revision": 0}
            client.post(f"/v1/inspections/{body['id']}/reviews", json=decision)
            client.get("/v1/inspections/nothing")

        with running(folder / "prometheus.yml", tmp_path) as prometheus, traffic(post):
            yield prometheus
    receiver.stop()


@pytest.mark.promise(25)
def test_every_panel_has_data_and_every_alert_can_be_asked(watched: Prometheus) -> None:
    watched.until("inlier_ready == 1")
    asked = {name: filled_in(expression) for name, expression in queries()}
    quiet = {name: query for name, query in asked.items() if name in QUIET or name.endswith("annotation")}
    assert QUIET <= set(quiet)
    waiting = {name: query for name, query in asked.items() if name not in quiet}
    deadline = time.monotonic() + 120
    while waiting and time.monotonic() < deadline:
        waiting = {name: query for name, query in waiting.items() if not watched.query(query)}
        time.sleep(1)
    assert waiting == {}
    for query in quiet.values():
        assert watched.query(query) == []
    for alert in ALERTS.values():
        watched.query(alert["expr"])
    states = httpx.get(f"{watched.address}/api/v1/rules").json()["data"]["groups"]
    unwell = [rule["name"] for group in states for rule in group["rules"] if rule["health"] != "ok"]
    assert unwell == []
