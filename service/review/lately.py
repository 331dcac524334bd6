"""The last hour of each line and recipe, as the overview shows it.

Everything here blocks and is called in a thread.
"""

import math
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.db.repository import lately
from service.db.session import Database
from service.ids import id_time

WINDOW = timedelta(hours=1)
_SLOTS = 12  # of five minutes
_MOST = 20_000
_BINS = 40
_VERDICTS = ("PASS", "REVIEW", "REJECT", "ERROR", "EXPIRED")
_SIGMAS = 3.0  # control limits
_LOW, _HIGH = -4.0, 10.0  # calibrated scores shown
_TOP = 2 / math.sqrt(2 * math.pi)  # density at the upper edge: twice the expected curve's peak


@dataclass(frozen=True)
class Slot:
    """Five minutes of a p-chart; shares 0 to 1."""

    count: int
    share: float | None  # REJECT of those with a verdict of the model; None without any
    upper: float  # control limit for this many
    lower: float

    @property
    def out(self) -> bool:
        return self.share is not None and not self.lower <= self.share <= self.upper


@dataclass(frozen=True)
class Station:
    name: str
    id: str
    verdict: str


@dataclass(frozen=True)
class Group:
    """One recipe on one line."""

    line: str | None
    recipe: str
    model: str
    per_minute: float
    verdicts: dict[str, int]
    reject_share: float | None
    slots: Sequence[Slot]
    bars: Sequence[tuple[float, float, float]]  # left, width, height 0 to 1 of the scores' histogram
    curve: str  # what calibration expects of good parts, points of an SVG polyline in 1000 x 100
    review: float | None  # 0 to 1000
    reject: float | None
    median: float | None  # of the scores; 0 by calibration
    spread: float | None  # robust standard deviation; 1 by calibration
    p50_ms: float | None
    p95_ms: float | None
    backlog: int
    stations: Sequence[Station]


def overview(database: Database) -> list[Group]:
    """Lines and recipes of the last hour, by name; more than 20 000 inspections are cut to the newest."""
    now = datetime.now(UTC)
    with database.read() as session:
        rows = lately.since(session, now - WINDOW, _MOST)
        waiting = lately.backlog(session)
    groups: dict[tuple[str | None, str], list[Any]] = defaultdict(list)
    for row in rows:
        groups[row.line, row.recipe].append(row)
    names = sorted({*groups, *waiting}, key=lambda name: (name[0] or "", name[1]))
    return [_group(name, groups.get(name, []), waiting.get(name, 0), now) for name in names]


class Watched:
    """The overview for all who watch it live: counted once, not once for each of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = -math.inf
        self._groups: list[Group] = []

    def groups(self, database: Database, fresh_s: float) -> list[Group]:
        """As `overview`, not older than `fresh_s`."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._groups = overview(database)
                self._until = time.monotonic() + fresh_s
            return self._groups


def _group(name: tuple[str | None, str], rows: list[Any], waiting: int, now: datetime) -> Group:
    verdicts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in _VERDICTS}
    judged = [row for row in rows if row.score is not None]
    scores = np.array([row.score for row in judged], dtype=np.float64)
    totals = np.array([row.latency_ms["total"] for row in rows if "total" in row.latency_ms])
    limits = next(((row.review, row.reject) for row in judged if row.review is not None), (None, None))
    return Group(
        line=name[0],
        recipe=name[1],
        model=f"{rows[0].model_name} {rows[0].model_version}" if rows else "",
        per_minute=_per_minute(rows, now),
        verdicts={verdict: count for verdict, count in verdicts.items() if count},
        reject_share=verdicts["REJECT"] / len(judged) if judged else None,
        slots=p_chart([(id_time(row.id), row.verdict == "REJECT") for row in judged], now),
        bars=_bars(scores),
        curve=_expected(),
        review=None if limits[0] is None else _at(limits[0]),
        reject=None if limits[1] is None else _at(limits[1]),
        median=float(np.median(scores)) if scores.size else None,
        spread=float(1.4826 * np.median(np.abs(scores - np.median(scores)))) if scores.size else None,
        p50_ms=float(np.percentile(totals, 50)) if totals.size else None,
        p95_ms=float(np.percentile(totals, 95)) if totals.size else None,
        backlog=waiting,
        stations=_stations(rows),
    )


def _per_minute(rows: list[Any], now: datetime) -> float:
    """Over the last ten minutes."""
    span = timedelta(minutes=10)
    return sum(id_time(row.id) > now - span for row in rows) / 10


def p_chart(rejects: Sequence[tuple[datetime, bool]], now: datetime) -> list[Slot]:
    """Share of REJECT in each five minutes, oldest first, with 3-sigma limits of the hour's share.

    The limits are those of a binomial share of as many parts as the slot has (Shewhart's p-chart).
    """
    counts, bad = [0] * _SLOTS, [0] * _SLOTS
    for moment, is_reject in rejects:
        slot = _SLOTS - 1 - int((now - moment) / (WINDOW / _SLOTS))
        if 0 <= slot < _SLOTS:
            counts[slot] += 1
            bad[slot] += is_reject
    mean = sum(bad) / max(1, sum(counts))
    found = []
    for count, wrong in zip(counts, bad, strict=True):
        sigma = math.sqrt(mean * (1 - mean) / count) if count else 0.0
        share = wrong / count if count else None
        found.append(Slot(count, share, min(1.0, mean + _SIGMAS * sigma), max(0.0, mean - _SIGMAS * sigma)))
    return found


def _at(score: float) -> float:
    return round(1000 * (min(max(score, _LOW), _HIGH) - _LOW) / (_HIGH - _LOW), 1)


def _bars(scores: NDArray[np.float64]) -> list[tuple[float, float, float]]:
    """Density of the scores, 1 at twice the height of the expected curve's peak."""
    if not scores.size:
        return []
    edges = np.linspace(_LOW, _HIGH, _BINS + 1)
    density = np.histogram(np.clip(scores, _LOW, _HIGH), edges)[0] / (scores.size * (edges[1] - edges[0]))
    width = 1000 / _BINS
    return [
        (round(number * width, 1), round(width - 2, 1), round(min(1.0, float(each) / _TOP), 3))
        for number, each in enumerate(density)
        if each
    ]


@cache
def _expected() -> str:
    """The standard normal density: calibration puts typical parts there."""
    grid = np.linspace(_LOW, _HIGH, 80)
    heights = np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi) / _TOP
    return " ".join(f"{_at(x)},{100 - 100 * y:.1f}" for x, y in zip(grid, heights, strict=True))


def _stations(rows: list[Any]) -> list[Station]:
    """The newest of each station."""
    newest: dict[str, Station] = {}
    for row in rows:
        name = row.station or ""
        newest.setdefault(name, Station(name, row.id, row.verdict))
    return [newest[name] for name in sorted(newest)][:8]
