"""What the month came to: overkill and escape from the service's database, and whether anything was lost."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from deploy.month.line import KEPT, LEARNING
from deploy.month.plan import GOOD
from service.recipes.intervals import wilson

RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """One inspection as the database has it, with what the part was in truth."""

    id: str
    recipe: str
    serial: str
    status: str
    verdict: str | None
    model: str
    brightness: float | None
    day: int
    kind: str
    tile: int


@dataclass(frozen=True)
class Measure:
    """A share of inspections: of those it is of, those that count as hits."""

    name: str
    base: Callable[[Row], bool]
    hit: Callable[[Row], bool]


def _good(row: Row) -> bool:
    return row.kind == GOOD


def _defective(row: Row) -> bool:
    return row.kind != GOOD


MEASURES = (
    Measure("overkill", _good, lambda row: row.verdict == "REJECT"),
    Measure("review_good", _good, lambda row: row.verdict == "REVIEW"),
    Measure("escape", _defective, lambda row: row.verdict == "PASS"),
)
ARMS = {LEARNING: "with", KEPT: "without"}


def read_rows(database: Path, parts: dict[str, dict[str, Any]]) -> list[Row]:
    """All inspections of the database, joined with the truth by their serial."""
    query = "SELECT id, recipe, serial, status, verdict, model_hash, brightness FROM inspections ORDER BY id"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        found = connection.execute(query).fetchall()
    names = ("day", "kind", "tile")
    return [Row(*row, *(parts[row[2]][name] for name in names)) for row in found]


def read_models(database: Path) -> set[str]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return {row[0] for row in connection.execute("SELECT hash FROM models")}


def lost(
    rows: Sequence[Row], sent: Sequence[dict[str, Any]], models: Iterable[str], changes: int
) -> list[str]:
    """Everything that contradicts "not one inspection was lost or failed"; empty when nothing does.

    `changes` is how often another model was let inspect the learning recipe.
    """
    problems = [
        f"{one['serial']} was answered {one['status']}" for one in sent if one["status"] not in (200, 201)
    ]
    stored = {row.id: row for row in rows}
    for one in sent:
        row = stored.get(one["inspection"] or "")
        if row is None:
            problems.append(f"{one['serial']} of {one['recipe']} is not in the database")
        elif (row.serial, row.recipe, row.verdict, row.model) != tuple(
            one[name] for name in ("serial", "recipe", "verdict", "model")
        ):
            problems.append(f"{one['serial']} was answered otherwise than it is stored")
    problems += [f"{row.serial} is {row.status}" for row in rows if row.status != "done"]
    problems += [f"{row.serial} names no known model" for row in rows if row.model not in set(models)]
    if len(rows) != len(sent):
        problems.append(f"{len(sent)} were sent, {len(rows)} are stored")
    for recipe, wanted in ((LEARNING, changes), (KEPT, 0)):
        hashes = [row.model for row in rows if row.recipe == recipe]
        found = sum(a != b for a, b in pairwise(hashes))
        if found != wanted:
            problems.append(
                f"the model of {recipe} changed {found} times in its rows, {wanted} in its history"
            )
    return problems


def by_day(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Counts and Wilson's 95 % intervals of each day and arm."""
    table = []
    for day in sorted({row.day for row in rows}):
        for recipe, arm in ARMS.items():
            some = [row for row in rows if row.day == day and row.recipe == recipe]
            line: dict[str, Any] = {"day": day, "retraining": arm, "parts": len(some)}
            bright = [row.brightness for row in some if row.brightness is not None]
            line["brightness"] = round(float(np.mean(bright)), 4) if bright else None
            for measure in MEASURES:
                base = [row for row in some if measure.base(row)]
                hits = sum(map(measure.hit, base))
                low, high = wilson(hits, len(base)) if base else (None, None)
                line |= {f"{measure.name}_of": len(base), f"{measure.name}": hits}
                line |= {f"{measure.name}_low": low, f"{measure.name}_high": high}
            line["models"] = "+".join(dict.fromkeys(row.model[:12] for row in some))
            table.append(line)
    return table


def by_span(rows: Sequence[Row], spans: dict[str, tuple[int, int]], seed: int) -> list[dict[str, Any]]:
    """Shares of spans of days with and without retraining and their difference, with 95 % intervals.

    Bootstrap over tiles: photographs of one tile, on whatever day, are no independent witnesses.
    """
    found = []
    for name, (first, last) in spans.items():
        some = [row for row in rows if first <= row.day <= last]
        for measure in MEASURES:
            counts = _tile_counts([row for row in some if measure.base(row)], measure)
            if not len(counts):
                continue
            rng = np.random.default_rng([seed, 2])
            draws = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), RESAMPLES)
            drawn = np.einsum("rt,tac->rac", draws, counts)
            shares = _share(counts.sum(0)[None])[0]
            spread = _share(drawn)
            line: dict[str, Any] = {"span": name, "days": [first, last], "measure": measure.name}
            line["tiles"], line["of"] = len(counts), int(counts[:, 0, 0].sum())
            for column, arm in enumerate(ARMS.values()):
                line[arm] = [float(shares[column]), *_middle(spread[:, column])]
            difference = spread[:, 0] - spread[:, 1]
            line["difference"] = [float(shares[0] - shares[1]), *_middle(difference)]
            found.append(line)
    return found


def _tile_counts(rows: Sequence[Row], measure: Measure) -> np.ndarray:
    """[tiles, arms, (of, hits)]"""
    tiles = {tile: number for number, tile in enumerate(sorted({row.tile for row in rows}))}
    counts = np.zeros((len(tiles), len(ARMS), 2), dtype=np.int64)
    columns = {recipe: number for number, recipe in enumerate(ARMS)}
    for row in rows:
        counts[tiles[row.tile], columns[row.recipe]] += (1, measure.hit(row))
    return counts


def _share(counts: np.ndarray) -> np.ndarray:
    return np.asarray(counts[..., 1] / np.maximum(counts[..., 0], 1))


def _middle(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def escapes_by_kind(rows: Sequence[Row], first: int) -> dict[str, dict[str, str]]:
    """Of every type of defect from a day on: how many passed, of how many, in each arm."""
    found: dict[str, dict[str, str]] = {}
    for recipe, arm in ARMS.items():
        some = [row for row in rows if row.recipe == recipe and row.day >= first and row.kind != GOOD]
        of, passed = Counter(row.kind for row in some), Counter(r.kind for r in some if r.verdict == "PASS")
        for kind in sorted(of):
            found.setdefault(kind, {})[arm] = f"{passed[kind]} of {of[kind]}"
    return found
