"""Which images the next network call advances: as many together as is worth it, the shortest first.

Sharing a call saves its fixed cost and delays everybody in it by the others' rows. Where a call costs hardly
more for eight images than for one, all advance together; where it costs in proportion to them, one after
the other is run to its end, and short ones overtake. Between the two it depends on how many there are.
"""

import heapq
from collections.abc import Callable, Sequence
from typing import NamedTuple

from service.batching.job import BACKFILL_SHARE

OLDEST_EVERY = 4
"""Of so many calls in a row at least one has the oldest image, so that short ones cannot starve it."""
LOOK_EVERY = 64
"""One call of so many takes all it may, or one image alone, to see whether that still costs what it did."""
_DEBT = BACKFILL_SHARE - 1
_MOST = 16  # images whose ends are reckoned with one by one; the others come after all of these
_COUNTS = (1, 2, 3, 4, 6, 8, 12)

Seconds = Callable[[int], float]
"""Rows in a call -> what it costs."""


class Work(NamedTuple):
    """What an image still wants of the network."""

    rows: int  # in its next call
    left: int  # until it ends, those included
    backfill: bool = False

    @property
    def calls(self) -> int:
        return max(1, -(-self.left // self.rows))

    @property
    def weight(self) -> float:
        """How much its time counts."""
        return 1 / BACKFILL_SHARE if self.backfill else 1.0

    def alone_s(self, seconds: Seconds) -> float:
        """How long it would take with the network to itself."""
        return self.calls * seconds(self.rows)


class Turns:
    """Chooses call by call; remembers only who has been passed over."""

    def __init__(self, places: int) -> None:
        """At most `places` images share a call."""
        self._places = places
        self._calls = 0
        self._passed_over = 0  # calls since one had the oldest image
        self._owed = 0  # places that cameras had beyond their share, in (BACKFILL_SHARE - 1)ths of one

    def choose(self, waiting: Sequence[Work], seconds: Seconds | None) -> list[int]:
        """Indices into `waiting`, which is in order of arrival; never none of some.

        `seconds` is None while the cost of calls is not known: then as many as there are places.
        """
        self._calls += 1
        order = self._order(waiting, seconds)
        count = self._places
        if seconds is not None:
            looks, rest = divmod(self._calls, LOOK_EVERY)
            if rest:
                count = together([waiting[index] for index in order], seconds, self._places)
            elif looks % 2 == 0:
                count = 1
        chosen = order[:count]
        self._remember(waiting, chosen)
        return chosen

    def _order(self, waiting: Sequence[Work], seconds: Seconds | None) -> list[int]:
        """All, cameras first and the shortest of each first, but for whose turn it is."""

        def key(index: int) -> tuple[bool, float, int]:
            work = waiting[index]
            return work.backfill, work.left if seconds is None else work.alone_s(seconds), index

        order = sorted(range(len(waiting)), key=key)
        backfill = [index for index, work in enumerate(waiting) if work.backfill]
        due = backfill[: self._owed // _DEBT]
        oldest = _oldest(waiting)
        if self._passed_over >= OLDEST_EVERY - 1 and oldest is not None and oldest not in due:
            due.append(oldest)
        return [*due, *(index for index in order if index not in due)]

    def _remember(self, waiting: Sequence[Work], chosen: Sequence[int]) -> None:
        self._passed_over = 0 if _oldest(waiting) in chosen else self._passed_over + 1
        backfill = sum(waiting[index].backfill for index in chosen)
        owed = self._owed + len(chosen) - backfill - _DEBT * backfill
        waits = any(work.backfill for work in waiting)
        self._owed = min(max(owed, 0), _DEBT * self._places) if waits else 0


def together(ordered: Sequence[Work], seconds: Seconds, places: int) -> int:
    """How many of these to advance in one call so that, if nothing else came, the sum of the times at which
    they end were least; a backfill image's time counts for its share.

    Supposes what continuous batching does: the first so many advance, and when one ends the next one enters.
    """
    most = min(places, len(ordered), _MOST)
    counts = [count for count in _COUNTS if count < most] + [most]
    if most <= 1:
        return most
    best = min(counts, key=lambda count: _sum_of_ends_s(ordered, seconds, count))
    return places if best == _MOST else best


def _sum_of_ends_s(ordered: Sequence[Work], seconds: Seconds, count: int) -> float:
    running: list[tuple[int, int, float]] = []  # (number of the call that it ends with, rows, weight)
    calls, rows, now_s, sum_s = 0, 0, 0.0, 0.0
    for work in [*ordered[:_MOST], *[None] * count]:
        if len(running) == count or work is None:
            if not running:
                break
            end, its_rows, weight = heapq.heappop(running)
            now_s += (end - calls) * seconds(rows)
            sum_s += weight * now_s
            calls, rows = end, rows - its_rows
        if work is not None:
            heapq.heappush(running, (calls + work.calls, work.rows, work.weight))
            rows += work.rows
    return sum_s + now_s * sum(work.weight for work in ordered[_MOST:])


def _oldest(waiting: Sequence[Work]) -> int | None:
    """The oldest image of a camera, or the oldest of backfill alone; None of nothing."""
    cameras = (index for index, work in enumerate(waiting) if not work.backfill)
    return next(cameras, 0 if waiting else None)
