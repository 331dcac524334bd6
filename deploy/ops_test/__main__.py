"""`make ops-test`: a line on loopback under load and faults, checked, with a report and a chart.

python -m deploy.ops_test --seconds 240 --chart docs/images/ops-test.png
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from deploy.ops_test import checks
from deploy.ops_test.chart import draw
from deploy.ops_test.future import ADDS, head, newer_version, upgrade_with
from deploy.ops_test.line import FASTER, Line, line, model_and_parts
from deploy.ops_test.load import Load, pictures
from deploy.ops_test.postgres import Missing
from service.db.session import Database

SHORTEST_S = 100
MUST_FIRE = ("InlierDown", "InlierStationSilent", "InlierErrorsFast")


class Receiver(ThreadingHTTPServer):
    """Takes the messages of a webhook."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.taken, self.counting = 0, threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def wait(self, messages: int, patience_s: float = 30.0) -> None:
        """Until so many have come, or patience ends: the last ones are on their way."""
        deadline = time.monotonic() + patience_s
        while self.taken < messages and time.monotonic() < deadline:
            time.sleep(0.1)


class _Taking(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.counting:  # type: ignore[attr-defined]
            self.server.taken += 1  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None: ...


class Play:
    """The faults one after the other; `done` says what was done when, in seconds since 1970."""

    def __init__(self, line: Line, load: Load, started: float) -> None:
        self.line, self.load, self.started = line, load, started
        self.done: list[tuple[str, float, float]] = []
        self.backup = (0, 0)

    def act(self, name: str, what: Callable[[], None]) -> None:
        begun = time.time()
        print(f"{begun - self.started:6.1f} s  {name}", flush=True)
        what()
        self.done.append((name, begun, time.time()))

    def run(self, seconds: float) -> None:
        """Spread over `seconds`; each act takes what it takes."""
        acts: list[tuple[str, Callable[[], None]]] = [
            ("a worker is killed", self._kill_worker),
            ("Redis is killed, with all it holds", self._restart_redis),
            ("PostgreSQL crashes", self._restart_postgres),
            ("station B2 sends nothing", self._silence),
            ("images have no time", self._hurry),
            ("backup, and restored elsewhere", self._backup),
            ("upgrade: newer tables, processes one by one", self._upgrade),
        ]
        for number, (name, what) in enumerate(acts):
            due = self.started + seconds * (number + 1) / (len(acts) + 2)
            time.sleep(max(2.0, due - time.time()))
            self.act(name, what)
        time.sleep(max(15.0, self.started + seconds - time.time()))

    def _kill_worker(self) -> None:
        self.line.workers[1].kill()
        time.sleep(8)
        self.line.workers[1].start()

    def _restart_redis(self) -> None:
        self.line.redis.stop()
        time.sleep(3)
        self.line.redis.start()

    def _restart_postgres(self) -> None:
        self.line.postgres.stop()
        time.sleep(3)
        self.line.postgres.start()

    def _silence(self) -> None:
        self.load.silent.add("B2")
        time.sleep(22)
        self.load.silent.clear()

    def _hurry(self) -> None:
        self.load.hurry = True
        time.sleep(8)
        self.load.hurry = False

    def _backup(self) -> None:
        self.backup = checks.restored(self.line, self.line.folder / "backup")

    def _upgrade(self) -> None:
        """As docs/it.md says; the next version's tables are made up, and today's processes run on them."""
        database = Database(self.line.database_url)
        try:
            upgrade_with(newer_version(self.line.folder, ("9999", head(), ADDS)), database)
        finally:
            database.close()
        for process in (*self.line.workers, self.line.api):
            if (status := process.stop(90)) != 0:
                raise RuntimeError(f"a process ended with {status} when it was asked to stop")
            process.start()


def review(line: Line, load: Load, done: threading.Event) -> None:
    """A person who looks at every tenth inspection, and a client that asks for what there is not."""
    with httpx.Client(base_url=line.url, headers=line.admin, timeout=30) as client:
        seen = 0
        while not done.wait(0.5):
            new, seen = load.posted[seen::10], len(load.posted)
            for one in new:
                decision = {
                    "decision": "good" if one.verdict == "PASS" else "defective",
                    "expected_revision": 0,
                }
                try:
                    client.post(f"/v1/inspections/{one.id}/reviews", json=decision)
                    client.get("/v1/inspections/nothing")
                except httpx.TransportError:
                    pass


def play(
    folder: Path, bundle: Path, parts: Path, seconds: float, rate: float, chart: Path | None
) -> dict[str, Any]:
    """Run it all -> the report, with what failed under `failed`."""
    receiver, done = Receiver(), threading.Event()
    with line(folder, bundle) as up:
        with httpx.Client(base_url=up.url, headers=up.admin, timeout=30) as client:
            hook = {
                "name": "mes",
                "url": f"http://127.0.0.1:{receiver.server_port}",
                "events": ["inspection.finished"],
            }
            client.post("/v1/webhooks", json=hook).raise_for_status()
            client.patch("/v1/recipes/default", json={"audit_rate": 0.5, "revision": 1}).raise_for_status()
        load = Load(up.url, up.camera, pictures(parts), rate)
        started = time.time()
        acts = Play(up, load, started)
        load.start()
        reviewer = threading.Thread(target=review, args=(up, load, done), daemon=True)
        reviewer.start()
        try:
            acts.run(seconds)
            empty = checks.panels(up.prometheus, started)
        finally:
            done.set()
            load.stop()
        ended = checks.lost(up, load.posted)
        receiver.wait(ended.get("done", 0))
        finish = time.time()
        fired = checks.alerts(up.prometheus, started, finish)
        report = {
            "seconds": round(finish - started, 1),
            "images": ended,
            "answered within 10 s": sum(one.verdict is not None for one in load.posted),
            "repeated with the same key": sum(one.attempts > 1 for one in load.posted),
            "refused": load.refused[:5],
            "given up": load.given_up,
            "messages received": receiver.taken,
            "dashboards": {"queries": empty[0], "without data": empty[1]},
            "alerts": {
                name: [round(when[0] - started), round(when[-1] - started)] for name, when in fired.items()
            },
            "backup": {"inspections": acts.backup[0], "whole after restore": acts.backup[1]},
            "acts": [
                [name, round(begin - started, 1), round(end - started, 1)] for name, begin, end in acts.done
            ],
        }
        report["failed"] = failures(report, load, fired, finish)
        if chart is not None:
            draw(chart, up.prometheus, load.posted, acts.done, fired, (started, finish))
    receiver.shutdown()
    receiver.server_close()
    return report


def failures(report: dict[str, Any], load: Load, fired: dict[str, list[float]], finish: float) -> list[str]:
    """Everything that is not as promised, in words."""
    images, failed = report["images"], []
    failed += [f"{name}: {images[name]}" for name in ("missing", "doubled", "images missing") if images[name]]
    if images.get("failed"):
        failed.append(f"{images['failed']} inspections ended as ERROR")
    if not load.posted or load.given_up or load.refused:
        failed.append(f"{load.given_up} given up, {len(load.refused)} refused, {len(load.posted)} accepted")
    failed += [f"no data: {panel}" for panel in report["dashboards"]["without data"]]
    for name in MUST_FIRE:
        if name not in fired:
            failed.append(f"{name} did not fire")
        elif fired[name][-1] > finish - 3:
            failed.append(f"{name} was not resolved")
    expected, whole = acts = (report["backup"]["inspections"], report["backup"]["whole after restore"])
    if not expected or expected != whole:
        failed.append(f"backup and restored: {acts}")
    if report["messages received"] < images.get("done", 0):
        failed.append(f"{report['messages received']} messages came to the webhook")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=240, help=f"of load and faults, {SHORTEST_S} at least"
    )
    parser.add_argument("--rate", type=float, default=8, help="images a second, of four stations together")
    parser.add_argument(
        "--bundle", type=Path, help="model to serve [default: one trained for the test, kept in .bench]"
    )
    parser.add_argument("--parts", type=Path, help="folder of PNG to post [default: those it was trained on]")
    parser.add_argument("--chart", type=Path, help="where to draw the run, as PNG")
    parser.add_argument("--report", type=Path, help="where to write the report, as JSON")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # ends what was started, too
    bundle, parts = model_and_parts(given.bundle, given.parts)
    folder = Path(tempfile.mkdtemp(prefix="inlier-ops-"))
    print(f"a line in {folder}; the rules' time runs {FASTER} times faster", flush=True)
    try:
        report = play(folder, bundle, parts, max(given.seconds, SHORTEST_S), given.rate, given.chart)
    except Missing as error:
        print(f"ops-test: {error}", file=sys.stderr)
        return 2
    text = json.dumps(report, indent=2)
    print(text)
    if given.report is not None:
        given.report.write_text(text + "\n")
    if report["failed"]:
        print(f"ops-test FAILED; logs are in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    print("ops-test passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
