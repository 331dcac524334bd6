"""A made-up plant: inspections of some months with the skew and the dependencies that real ones have.

Lines make some products and not others, lots and model versions have their time, serials are nearly unique,
few parts are rejected, what the model asked about is reviewed within days. The same seed gives the same rows.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.db.repository.inspections import attribute_text

START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
EVERY_MS = 10_000
LINES = ("A", "B", "C", "D")
MAKES = (("housing", "shaft"), ("shaft", "gear"), ("gear", "valve", "plate"), ("seal", "plate"))
RECIPES = ("housing", "shaft", "gear", "valve", "plate", "seal")
SHIFTS = ("early", "late", "night")
LOT = 500  # parts
VERSIONS = 8
REVIEW, REJECT = 3.0, 5.0
CHUNK = 20_000
LATENCY = '{"decode": 11.2, "queue": 3.1, "inference": 151.7, "store": 9.4}'
REGION = '[{"x": 40, "y": 61, "width": 12, "height": 9, "area_px": 71, "peak": 5.2, "mean": 4.1}]'


@cache
def model_hash(recipe: str, version: int) -> str:
    """Gears have a model of their own, all else shares one; each has a new version every few weeks."""
    return hashlib.sha256(f"{'gear' if recipe == 'gear' else 'all'} {version}".encode()).hexdigest()


@dataclass(frozen=True)
class Portion:
    """Some consecutive inspections: values by column, and (inspection, name, value) of their attributes."""

    columns: dict[str, list[Any]]
    attributes: list[tuple[str, str, str]]


class Plant:
    """`count` inspections in the order of their arrival, the last one open at the end."""

    def __init__(self, count: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.count = count
        number = np.arange(count)
        self.created_ms = START_MS + number * EVERY_MS + rng.integers(0, EVERY_MS, count)
        self.bits = rng.integers(0, 1 << 62, count)
        self.line = rng.choice(len(LINES), count, p=[0.4, 0.3, 0.2, 0.1])
        self.lot = np.zeros(count, dtype=np.int64)
        self.recipe = np.zeros(count, dtype=np.int64)
        for line, makes in enumerate(MAKES):
            here = np.flatnonzero(self.line == line)
            self.lot[here] = np.arange(len(here)) // LOT
            choice = rng.choice([RECIPES.index(name) for name in makes], len(here) // LOT + 1)
            self.recipe[here] = choice[self.lot[here]]
        self.station = rng.choice(3, count, p=[0.6, 0.3, 0.1])
        self.version = number * VERSIONS // count
        self.paper = (self.line == 3) & (rng.random(count) < 0.3)
        self.rework = rng.random(count)
        self.lag_ms = rng.integers(200, 30_000, count)
        self.uncaptured = rng.random(count) < 0.05
        self._judge(rng)
        self._review(rng)
        self.operator = rng.integers(0, 20, count)
        self.tool = rng.integers(0, 12, count)
        self.wet = rng.random(count) < 0.02

    def _judge(self, rng: np.random.Generator) -> None:
        count = self.count
        self.score = rng.normal(0, 0.9, count) + (rng.random(count) < 0.08) * rng.exponential(2.2, count)
        self.score = np.round(self.score, 6)
        fate = rng.random(count)
        self.failed, self.expired = fate < 0.004, (fate >= 0.004) & (fate < 0.006)
        self.queued = np.arange(count) >= count - 40
        self.done = ~(self.failed | self.expired | self.queued)
        self.verdict = np.digitize(self.score, (REVIEW, REJECT))
        self.audit = self.done & (self.verdict == 0) & (rng.random(count) < 0.01)
        self.wanted = self.audit | (self.done & (self.verdict == 1)) | (self.failed & ~self.queued)

    def _review(self, rng: np.random.Generator) -> None:
        """None, good, defective, unsure, as 0 to 3; the newest days are open."""
        old = self.created_ms < self.created_ms[-1] - 2 * 86_400_000
        looked = self.done & old & (rng.random(self.count) < np.where(self.wanted, 0.97, 0.002))
        bad = rng.random(self.count) < np.select([self.verdict == 0, self.verdict == 1], [0.02, 0.5], 0.9)
        self.state = looked * np.where(rng.random(self.count) < 0.05, 3, 1 + bad)
        overruled = ((self.verdict == 0) & (self.state == 2)) | ((self.verdict == 2) & (self.state == 1))
        self.disagreement = self.done & overruled

    def portions(self) -> Iterator[Portion]:
        for low in range(0, self.count, CHUNK):
            yield self._portion(low, min(low + CHUNK, self.count))

    def identifier(self, number: int) -> str:
        """A UUIDv7 of the moment of arrival."""
        return _ids(self.created_ms[number : number + 1], self.bits[number : number + 1])[0]

    def labels(self, number: int) -> dict[str, str]:
        """What an inspection is found by, by column."""
        line, recipe = LINES[self.line[number]], RECIPES[self.recipe[number]]
        return {
            "line": line,
            "recipe": recipe,
            "station": f"{line}{self.station[number] + 1}",
            "lot": f"{line}-{self.lot[number]:05d}",
            "part_id": f"{recipe}-{self.lot[number] % 5}",
            "model_hash": model_hash(recipe, int(self.version[number])),
        }

    def _portion(self, low: int, high: int) -> Portion:
        part = slice(low, high)
        numbers = range(low, high)
        ids = _ids(self.created_ms[part], self.bits[part])
        created = moments(self.created_ms[part])
        finished = moments(self.created_ms[part] + 180)
        captured = moments(self.created_ms[part] - self.lag_ms[part])
        done, queued = self.done[part].tolist(), self.queued[part].tolist()
        hashes = [hashlib.sha256(identifier.encode()).hexdigest() for identifier in ids]
        labels = [self.labels(number) for number in numbers]
        recipe = [given["recipe"] for given in labels]
        shift = (self.created_ms[part] // 28_800_000 % 3).tolist()
        drawn = (shift, *(column[part].tolist() for column in (self.operator, self.tool, self.wet)))
        attributes = [_attributes(*values) for values in zip(*drawn, strict=True)]
        score = [s if d else None for s, d in zip(self.score[part].tolist(), done, strict=True)]
        margins = np.minimum(np.abs(self.score[part] - REVIEW), np.abs(self.score[part] - REJECT)).tolist()
        version = (self.version[part] + 1).tolist()
        columns: dict[str, list[Any]] = {
            "id": ids,
            "created_at": created,
            "finished_at": [None if q else f for q, f in zip(queued, finished, strict=True)],
            "started_at": [None if q else c for q, c in zip(queued, created, strict=True)],
            "status": _names(self, part, ("queued", "failed", "expired"), ["done"] * len(ids)),
            "verdict": self._verdicts(part),
            "score": score,
            "score_raw": score,
            "threshold_id": [f"limits-{name}" if d else None for name, d in zip(recipe, done, strict=True)],
            "review": [REVIEW if d else None for d in done],
            "reject": [REJECT if d else None for d in done],
            "margin": [m if d else None for m, d in zip(margins, done, strict=True)],
            "wanted": self.wanted[part].tolist(),
            "audit": self.audit[part].tolist(),
            "review_state": [("none", "good", "defective", "unsure")[s] for s in self.state[part].tolist()],
            "review_revision": (self.state[part] > 0).astype(int).tolist(),
            "disagreement": self.disagreement[part].tolist(),
            "recipe": recipe,
            "serial": [self.serial(number) for number in numbers],
            "captured_at": [
                None if u else c for u, c in zip(self.uncaptured[part].tolist(), captured, strict=True)
            ],
            "attributes": [text for text, _ in attributes],
            "profile": ["paper" if p else "fast" for p in self.paper[part].tolist()],
            "model_name": ["gear" if name == "gear" else "all" for name in recipe],
            "model_version": [str(v) for v in version],
            "latency_ms": [LATENCY] * len(ids),
            "regions": [
                None if not d else REGION if v else "[]"
                for v, d in zip(self.verdict[part].tolist(), done, strict=True)
            ],
            "image_sha256": hashes,
            "image_bytes": [184_320] * len(ids),
            "image_media_type": ["image/png"] * len(ids),
            "image_height_px": [480] * len(ids),
            "image_width_px": [640] * len(ids),
            "brightness": [0.41] * len(ids),
            "sharpness": [0.012] * len(ids),
            "heatmap_sha256": [h[::-1] if d else None for h, d in zip(hashes, done, strict=True)],
            "heatmap_media_type": ["image/png" if d else None for d in done],
            "heatmap_scale": [0.0002 if d else None for d in done],
            "heatmap_max": [4.0 if d else None for d in done],
            "idempotency_key": [f"camera-{identifier}" for identifier in ids],
            "request_digest": hashes,
        }
        for name in ("line", "station", "lot", "part_id", "model_hash"):
            columns[name] = [given[name] for given in labels]
        found_by = [
            (identifier, name, value)
            for identifier, (_, given) in zip(ids, attributes, strict=True)
            for name, value in given
        ]
        return Portion(columns, found_by)

    def serial(self, number: int) -> str | None:
        """Nearly every part has one of its own; reworked parts come a second time, some have none."""
        draw = self.rework[number]
        return None if draw < 0.08 else f"S{number - 1000 if draw > 0.97 else number:07d}"

    def _verdicts(self, part: slice) -> list[str | None]:
        judged = [("PASS", "REVIEW", "REJECT")[v] for v in self.verdict[part].tolist()]
        named = _names(self, part, ("queued", "failed", "expired"), judged)
        words = {"queued": None, "failed": "ERROR", "expired": "EXPIRED"}
        return [words.get(name, name) for name in named]


def _names(plant: Plant, part: slice, names: tuple[str, ...], otherwise: list[str]) -> list[str]:
    found = otherwise
    for name in reversed(names):  # the first one counts
        flags = getattr(plant, name)[part].tolist()
        found = [name if flag else word for flag, word in zip(flags, found, strict=True)]
    return found


@cache
def _attributes(shift: int, operator: int, tool: int, wet: bool) -> tuple[str, list[tuple[str, str]]]:
    """As JSON, and as the pairs they are found by."""
    given = {"shift": SHIFTS[shift], "operator": f"op{operator:02d}", "tool": tool, "wet": wet}
    pairs = [(name, attribute_text(value)) for name, value in given.items()]
    return json.dumps(given), pairs


def moments(at_ms: NDArray[np.int64]) -> list[str]:
    """Milliseconds -> text that both databases read as UTC."""
    return [f"{text.replace('T', ' ')}000" for text in np.datetime_as_string(at_ms.astype("M8[ms]")).tolist()]


def _ids(at_ms: NDArray[np.int64], bits: NDArray[np.int64]) -> list[str]:
    return [_uuid7(ms, b) for ms, b in zip(at_ms.tolist(), bits.tolist(), strict=True)]


def _uuid7(at_ms: int, bits: int) -> str:
    low = 0x8000 | bits >> 12 & 0x3FFF
    return f"{at_ms >> 16:08x}-{at_ms & 0xFFFF:04x}-7{bits & 0xFFF:03x}-{low:04x}-{bits >> 26:012x}"
