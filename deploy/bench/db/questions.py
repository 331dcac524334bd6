"""What is asked: every filter alone, every two of them, and some three and four, in every order."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

from deploy.bench.db.plant import Plant, model_hash
from service.db.repository.filters import Filter
from service.db.repository.search import Order, Position

# One value: what it is called, and the arguments of Filter that it sets.
Value = tuple[str, Mapping[str, Any]]
DEEP_MARGIN = 3.0  # about the median: a PASS in the middle of the good parts


@dataclass(frozen=True)
class Question:
    """A page: of what, in which order, from where."""

    name: str
    wanted: Filter
    order: Order
    after: Position | None


def values(plant: Plant) -> dict[str, list[Value]]:
    """For each property a frequent value and a rare one, or more where the kinds differ."""
    middle, newest = plant.count // 2, int(plant.created_ms[-1])
    half = int(plant.created_ms[middle])

    def equal(name: str, *wanted: str | bool) -> list[Value]:
        return [(f"{name}={_short(value)}", {"equal": {name: value}}) for value in wanted]

    def attribute(name: str, *wanted: str) -> list[Value]:
        return [(f"attr.{name}={value}", {"attributes": {name: value}}) for value in wanted]

    def span(name: str, low: int, high: int, low_name: str, high_name: str) -> Value:
        return name, {low_name: _moment(low), high_name: _moment(high)}

    day = 86_400_000
    return {
        "status": equal("status", "done", "failed", "queued"),
        "verdict": equal("verdict", "PASS", "REVIEW", "REJECT", "EXPIRED"),
        "recipe": equal("recipe", "shaft", "valve"),
        "line": equal("line", "A", "D"),
        "station": equal("station", "A1", "D3"),
        "lot": equal("lot", plant.labels(middle)["lot"]),
        "serial": equal("serial", f"S{middle:07d}"),
        "part_id": equal("part_id", "shaft-0", "seal-4"),
        "model_hash": equal("model_hash", model_hash("shaft", 0), model_hash("gear", 6)),
        "profile": equal("profile", "fast", "paper"),
        "review_state": equal("review_state", "none", "good", "unsure"),
        "disagreement": equal("disagreement", True, False),
        "wanted": equal("wanted", True, False),
        "score": [
            ("score>=5", {"score_min": 5.0}),
            ("score<=-1", {"score_max": -1.0}),
            ("score in 2.9 to 3.1", {"score_min": 2.9, "score_max": 3.1}),
        ],
        "created": [
            span("created on the last day", newest - day, newest, "since", "until"),
            span("created in a month", half - 15 * day, half + 15 * day, "since", "until"),
        ],
        "captured": [
            span("captured on one day", half, half + day, "captured_since", "captured_until"),
            span("captured in a month", half, half + 30 * day, "captured_since", "captured_until"),
        ],
        "shift": attribute("shift", "night"),
        "operator": attribute("operator", "op07"),
        "tool": attribute("tool", "3"),
        "wet": attribute("wet", "true"),
    }


def questions(plant: Plant, seed: int = 0) -> list[Question]:
    """Singles in every order from both places, pairs in three of the six ways, larger ones in two."""
    properties = values(plant)
    rng = random.Random(seed)
    middle = plant.identifier(plant.count // 2)
    ways: list[tuple[Order, Position | None]] = [
        ("newest", None),
        ("margin", None),
        ("oldest", None),
        ("newest", Position(middle)),
        ("margin", Position(middle, DEEP_MARGIN)),
        ("oldest", Position(middle)),
    ]
    found = [_ask([], *way) for way in ways]
    for number, chosen in enumerate(_sets(properties, rng)):
        if len(chosen) == 1:
            picked = ways
        elif len(chosen) == 2:
            picked = [*ways[:2], ways[2 + number % 4]]
        else:
            picked = rng.sample(ways, 2)
        found += [_ask(chosen, *way) for way in picked]
    return found


def _sets(properties: Mapping[str, list[Value]], rng: random.Random) -> Iterator[list[Value]]:
    for values_ in properties.values():
        yield from ([value] for value in values_)
    for one, other in combinations(properties.values(), 2):
        yield from ([first, second] for first in one for second in other)
    for size, count in ((3, 150), (4, 50)):
        for _ in range(count):
            yield [rng.choice(properties[name]) for name in rng.sample(sorted(properties), size)]


def _ask(chosen: list[Value], order: Order, after: Position | None) -> Question:
    merged: dict[str, Any] = {"equal": {}, "attributes": {}}
    for _, arguments in chosen:
        for name, value in arguments.items():
            merged[name] = {**merged[name], **value} if name in ("equal", "attributes") else value
    place = "first page" if after is None else "deep page"
    words = " and ".join(name for name, _ in chosen) or "everything"
    return Question(f"{words}; {order}, {place}", Filter(**merged), order, after)


def _short(value: str | bool) -> str:
    return value[:8] if isinstance(value, str) and len(value) == 64 else str(value)


def _moment(at_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
