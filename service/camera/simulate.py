"""An open-loop load generator: images leave when their time has come, whatever became of earlier ones.

Latency counts from the moment an image should have left: a slow service cannot hide behind a waiting client.
"""

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from service.camera.watch import IMAGES
from service.client import AsyncClient, InlierError, Problem

GOOD = "good"
Arrivals = Literal["poisson", "uniform"]


@dataclass(frozen=True)
class Load:
    """How many images, when, and what is said about them."""

    rate: float  # images a second
    duration_s: float
    arrivals: Arrivals = "poisson"
    concurrency: int = 256
    wait_s: float = 30.0
    seed: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class Report:
    """What came back."""

    sent: int = 0
    left_out: int = 0  # as many as allowed were under way already
    spent_s: float = 0.0
    latest_start_s: float = 0.0  # how late this client was itself
    latencies_s: list[float] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    by_truth: dict[str, Counter[str]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return {
            "sent": self.sent,
            "answered": len(self.latencies_s),
            "left_out": self.left_out,
            "seconds": round(self.spent_s, 3),
            "latest_start_ms": round(1000 * self.latest_start_s, 1),
            "latency_ms": {
                name: round(1000 * value, 1) for name, value in percentiles(self.latencies_s).items()
            },
            "verdicts": dict(self.verdicts),
            "errors": dict(self.errors),
            "by_truth": {truth: dict(counts) for truth, counts in self.by_truth.items()},
        }


def find_images(folder: Path) -> tuple[list[Path], bool]:
    """The images below a folder, and whether their folders tell the truth (MVTec-AD: `good` and defects)."""
    root = folder / "test" if (folder / "test" / GOOD).is_dir() else folder
    found = sorted({path for pattern in IMAGES for path in root.rglob(pattern) if path.is_file()})
    return found, (root / GOOD).is_dir()


def departures(load: Load) -> Iterator[float]:
    """Seconds from the start at which images leave."""
    rng, at, number = random.Random(load.seed), 0.0, 0
    while True:
        number += 1
        at = at + rng.expovariate(load.rate) if load.arrivals == "poisson" else number / load.rate
        if at > load.duration_s:
            return
        yield at


def percentiles(values: list[float]) -> dict[str, float]:
    """p50 to p99 and the maximum, each a value that occurred (nearest rank)."""
    if not values:
        return {}
    ordered = sorted(values)
    named = {f"p{p}": ordered[max(0, -(-p * len(ordered) // 100) - 1)] for p in (50, 90, 95, 99)}
    return {**named, "max": ordered[-1]}


async def simulate(client: AsyncClient, images: list[Path], labelled: bool, load: Load) -> Report:
    """Post images at the wanted rate until the time is over and everything under way has ended."""
    report, rng = Report(), random.Random(load.seed + 1)
    tasks: set[asyncio.Task[None]] = set()
    started = time.monotonic()
    for number, at in enumerate(departures(load)):
        await asyncio.sleep(max(0.0, started + at - time.monotonic()))
        if len(tasks) >= load.concurrency:
            report.left_out += 1
            continue
        report.latest_start_s = max(report.latest_start_s, time.monotonic() - started - at)
        report.sent += 1
        path = rng.choice(images)
        truth = (GOOD if path.parent.name == GOOD else "defective") if labelled else None
        task = asyncio.create_task(_post(client, path, truth, number, started + at, load, report))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    if tasks:
        await asyncio.gather(*tasks)
    report.spent_s = time.monotonic() - started
    return report


async def _post(
    client: AsyncClient, path: Path, truth: str | None, number: int, due: float, load: Load, report: Report
) -> None:
    said = {"serial": f"sim-{number:06}", "attributes": {"file": path.name}, **load.metadata}
    try:
        # A key of its own: the same picture sent twice stands for two parts.
        answer = await client.inspect(path, wait_s=load.wait_s, idempotency_key=uuid.uuid4().hex, **said)
    except Problem as problem:
        report.errors[f"{problem.status} {problem.code}"] += 1
        return
    except InlierError as error:
        cause = error.__cause__
        report.errors["unavailable" if cause is None else type(cause).__name__] += 1
        return
    report.latencies_s.append(time.monotonic() - due)
    verdict = answer.verdict or "no verdict in time"
    report.verdicts[verdict] += 1
    if truth is not None:
        report.by_truth.setdefault(truth, Counter())[verdict] += 1


def table(report: Report, load: Load) -> str:
    """For people."""
    said = report.document()
    lines = [
        f"{said['sent']} images in {report.spent_s:.1f} s ({load.arrivals}, {load.rate:g} a second), "
        f"{said['answered']} answered",
    ]
    if report.left_out:
        lines.append(f"{report.left_out} left out: {load.concurrency} were under way (--concurrency)")
    if report.latest_start_s > 0.1:
        lines.append(f"this client was up to {1000 * report.latest_start_s:.0f} ms late itself")
    rows = [("latency", [f"{name} {value:.0f} ms" for name, value in said["latency_ms"].items()])]
    rows.append(("verdicts", [f"{name} {count}" for name, count in sorted(report.verdicts.items())]))
    for truth, counts in sorted(report.by_truth.items(), reverse=True):
        rows.append((f"{truth} parts", [f"{name} {count}" for name, count in sorted(counts.items())]))
    rows.append(("errors", [f"{name}: {count}" for name, count in sorted(report.errors.items())] or ["none"]))
    lines += [f"{name:<16}{'   '.join(cells) or 'none'}" for name, cells in rows]
    return "\n".join(lines)
