"""What must be true afterwards: nothing lost, dashboards with data, alerts come and gone, a whole backup."""

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import create_engine, text

from deploy.ops_test.line import ONE_THREAD, Line, command
from deploy.ops_test.load import Posted
from deploy.ops_test.prometheus import Prometheus
from deploy.processes import ROOT, started

VARIABLES = {"$__rate_interval": "10s", "$__range": "10m", "$recipe": ".*", "$line": ".*", "$instance": ".*"}
# What this line need not have: a shadow, a retraining, hundreds of inspections, dead letters.
QUIET = {
    "model: Drift: population-stability index",
    "model: Shadow: verdicts that differ",
    "model: Since the last retraining, by how it ended",
    "workers: Given up, an hour",
}


def rows(database_url: str) -> dict[str, tuple[str, str, str]]:
    """(status, idempotency key, image) by id."""
    engine = create_engine(database_url)
    try:
        with engine.connect() as connection:
            query = text("SELECT id, status, idempotency_key, image_sha256 FROM inspections")
            return {row[0]: (row[1], row[2], row[3]) for row in connection.execute(query)}
    finally:
        engine.dispose()


def settled(database_url: str, patience_s: float = 120.0) -> dict[str, tuple[str, str, str]]:
    """The rows once all have ended; RuntimeError if some do not."""
    deadline = time.monotonic() + patience_s
    while True:
        found = rows(database_url)
        waiting = [key for key, row in found.items() if row[0] in ("queued", "running")]
        if not waiting:
            return found
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(waiting)} inspections do not end: {waiting[:3]}")
        time.sleep(0.5)


def lost(line: Line, posted: Sequence[Posted]) -> dict[str, int]:
    """How the accepted ended; `missing` and `doubled` must be 0, and so must `images missing`."""
    found = settled(line.database_url)
    blobs = line.folder / "data/blobs"
    stored = {path.name.split(".")[0] for path in blobs.rglob("*") if path.is_file()}
    counted = Counter(row[0] for row in found.values())
    keys = Counter(row[1] for row in found.values())
    return {
        "accepted": len(posted),
        **counted,
        "missing": len({one.id for one in posted} - found.keys()),
        "doubled": sum(count > 1 for key, count in keys.items() if key),
        "images missing": len({row[2] for row in found.values()} - stored),
    }


def panels(prometheus: Prometheus, start: float) -> tuple[int, list[str]]:
    """How many queries the dashboards ask, and those that had no data at any time since `start`."""
    asked, empty = 0, []
    for path in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                expression = target["expr"]
                for variable, value in VARIABLES.items():
                    expression = expression.replace(variable, value)
                asked += 1
                name = f"{path.stem}: {panel['title']}"
                if name not in QUIET and not ranged(prometheus, expression, start, time.time()):
                    empty.append(name)
    return asked, sorted(set(empty))


def ranged(prometheus: Prometheus, expression: str, start: float, end: float) -> list[dict[str, Any]]:
    """A range query with a step of a second: `{"metric": ..., "values": [[time, text], ...]}` each."""
    query = {"query": expression, "start": start, "end": end, "step": 1}
    answer = httpx.get(f"{prometheus.address}/api/v1/query_range", params=query, timeout=60).json()
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def alerts(prometheus: Prometheus, start: float, end: float) -> dict[str, list[float]]:
    """When each alert was firing, in seconds since 1970."""
    found: dict[str, list[float]] = {}
    for series in ranged(prometheus, 'ALERTS{alertstate="firing"}', start, end):
        times = found.setdefault(series["metric"]["alertname"], [])
        times += [float(moment) for moment, _ in series["values"]]
    return {name: sorted(set(times)) for name, times in found.items()}


def restored(line: Line, backups: Path) -> tuple[int, int]:
    """Put a new snapshot into an empty place and serve it there -> its inspections, and those found again.

    Found is what has its row, its result and its image, byte for byte, over HTTP.
    """
    with line.postgres.database() as url:
        place = ("--data", line.folder / "restored", "--database-url", url)
        said = command("backup", backups, *line.store)
        expected = int(re.findall(r"(\d+) inspections", said)[0])
        command("restore", backups, *place)
        found = rows(url)
        words = ("serve", *place, "--bundle", line.bundle, "--port", 0, "--threads", 1)
        words += ("--log-level", "warning")
        with (
            started(line.folder / "restored.log", *words, **ONE_THREAD) as service,
            httpx.Client(base_url=service.address, headers=line.admin, timeout=30) as client,
        ):
            seen = sum(_whole(client, key, row[2]) for key, row in found.items())
    return expected, seen


def _whole(client: httpx.Client, identifier: str, digest: str) -> bool:
    answer = client.get(f"/v1/inspections/{identifier}/image")
    return answer.status_code == 200 and hashlib.sha256(answer.content).hexdigest() == digest
