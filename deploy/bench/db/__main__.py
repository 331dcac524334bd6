"""`make bench-db`: pages of a million inspections for every filter, every two and some more, in every order.

A page is timed from the opened session to the finished JSON, as `GET /v1/inspections` makes it. Every
question is asked in each of several rounds, all of them before any a second time, and its median counts, so
that what else runs on the machine weighs less. Where the search paused before the page was full, `next` is
followed until it was, or nothing was left. Ends with 1 if a page took longer than the limit.
"""

import argparse
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console

from deploy.bench.db.measure import LIMIT, Measured, explained, follow, measure
from deploy.bench.db.plant import Plant
from deploy.bench.db.questions import questions
from deploy.bench.db.seed import fill, is_filled
from service.db.session import Database
from tests.service.postgres import private_postgres

console = Console(highlight=False, soft_wrap=True, stderr=True)
FOLDER = Path(__file__).parents[3] / ".bench"


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench-db", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="inspections")
    parser.add_argument("--rounds", type=int, default=3, help="times that everything is asked")
    parser.add_argument("--every", type=int, default=1, help="ask every Nth question only")
    parser.add_argument("--limit-ms", type=float, default=50.0, help="what a page may take")
    parser.add_argument("--worst", type=int, default=3, help="slowest pages to explain")
    parser.add_argument("--follow", type=int, default=60, help="short pages to go on from, drawn at random")
    parser.add_argument("--only", choices=["sqlite", "postgresql"], help="one database")
    parser.add_argument("--database-url", help="an empty database, or one that an earlier run filled")
    asked = parser.parse_args()
    plant = Plant(asked.rows)
    slow = False
    for kind in [asked.only] if asked.only or asked.database_url else ["sqlite", "postgresql"]:
        with opened(asked.database_url, kind, asked.rows) as url:
            slow |= run(Database(url), plant, asked)
    return int(slow)


@contextmanager
def opened(given: str | None, kind: str | None, rows: int) -> Iterator[str]:
    """The database asked for; or a file that is kept for the next run; or a server of this run alone."""
    if given is not None:
        yield given
    elif kind == "sqlite":
        FOLDER.mkdir(exist_ok=True)
        yield f"sqlite:///{FOLDER / f'plant-{rows}.sqlite3'}"
    else:
        with private_postgres() as server, server.database() as url:
            yield url


def run(database: Database, plant: Plant, asked: argparse.Namespace) -> bool:
    """Fill one database, ask it, tell what came out; whether a page took too long."""
    kind = database.engine.dialect.name
    started = time.monotonic()
    if not is_filled(database, plant):
        fill(database, plant)
        console.print(f"{kind}: {plant.count} inspections stored in {time.monotonic() - started:.0f} s")
    pages = questions(plant)[:: asked.every]
    measure(database, pages[:: max(1, len(pages) // 100)], 1)  # connections, code, the first of the file
    load = os.getloadavg()[0]
    found = measure(database, pages, asked.rounds)
    print(f"## {kind}, {plant.count} inspections, {machine()}, load {load:.1f} to {os.getloadavg()[0]:.1f}\n")
    told(found, asked.limit_ms)
    rng = np.random.default_rng(0)
    short = [one for one in found if one.short]
    if short and asked.follow:
        drawn = rng.choice(len(short), min(asked.follow, len(short)), replace=False)
        needed = np.array([follow(database, short[index]) for index in drawn])
        p50, p95 = np.percentile(needed, [50, 95])
        print(
            f"- requests until {LIMIT} rows or the end, of {len(needed)} that paused: p50 {p50:.0f}, ", end=""
        )
        print(f"p95 {p95:.0f}, most {needed.max()}")
    for one in sorted(found, key=lambda one: -one.median_ms)[: asked.worst]:
        print(f"\n### {one.question.name}: {one.median_ms:.1f} ms, {one.rows} rows\n\n```")
        print("\n".join(explained(database, one.question)) + "\n```")
    print()
    database.close()
    return any(one.median_ms > asked.limit_ms for one in found)


def told(found: Sequence[Measured], limit_ms: float) -> None:
    """The figures of all pages."""
    medians = np.array([one.median_ms for one in found])
    p50, p95, p99 = np.percentile(medians, [50, 95, 99])
    single = max(max(one.spent_ms) for one in found)
    print(f"- {len(found)} pages: p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f}, max {medians.max():.1f} ms")
    print(f"- over {limit_ms:g} ms: {(medians > limit_ms).sum()}; slowest single answer {single:.0f} ms")
    print(f"- paused before the page was full: {sum(one.short for one in found)}, ", end="")
    print(f"with nothing yet: {sum(one.short and not one.rows for one in found)}")


def machine() -> str:
    """Cores and processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.processor()}"


if __name__ == "__main__":
    if shutil.disk_usage(Path(__file__).parent).free < 8e9:
        sys.exit("bench-db needs 8 GB of free disk")
    sys.exit(main())
