"""Bytes that are nearly right, for hypothesis, and how long to try: INLIER_FUZZ_SECONDS in all."""

import os
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

SECONDS = float(os.environ.get("INLIER_FUZZ_SECONDS", "0")) / 3  # of each: images, forms, metadata
_TURN = 250
_VALUES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
Edit = Callable[[bytes], bytes]


def _at(data: bytes, place: int) -> int:
    return place % (len(data) + 1)


def _flip(place: int, mask: int) -> Edit:
    return lambda data: (
        data[: (at := _at(data, place))] + bytes([data[at] ^ mask]) + data[at + 1 :]
        if _at(data, place) < len(data)
        else data
    )


def _cut(place: int) -> Edit:
    return lambda data: data[: _at(data, place)]


def _remove(place: int, count: int) -> Edit:
    return lambda data: data[: (at := _at(data, place))] + data[at + count :]


def _insert(place: int, more: bytes) -> Edit:
    return lambda data: data[: (at := _at(data, place))] + more + data[at:]


def _overwrite(place: int, more: bytes) -> Edit:
    return lambda data: data[: (at := _at(data, place))] + more + data[at + len(more) :]


def _repeat(place: int, count: int) -> Edit:
    return lambda data: data[: (at := _at(data, place)) + count] + data[at:]


# Headers are at the front: that is where most of it happens.
_PLACE = st.one_of(st.integers(0, 64), st.integers(0, 1024), st.integers(0, 1 << 20))
_NUMBERS = st.tuples(st.sampled_from(_VALUES), st.sampled_from(("<H", ">H", "<I", ">I"))).map(
    lambda pair: struct.pack(pair[1], pair[0] & (0xFFFF if pair[1][1] == "H" else 0xFFFFFFFF))
)
_EDITS: st.SearchStrategy[Edit] = st.one_of(
    st.builds(_flip, _PLACE, st.integers(1, 255)),
    st.builds(_overwrite, _PLACE, _NUMBERS),
    st.builds(_overwrite, _PLACE, st.binary(min_size=1, max_size=24)),
    st.builds(_insert, _PLACE, st.binary(min_size=1, max_size=24)),
    st.builds(_remove, _PLACE, st.integers(1, 200)),
    st.builds(_repeat, _PLACE, st.integers(1, 200)),
    st.builds(_cut, _PLACE),
)


def mutated(whole: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of these with a few edits, or the front of one before the rest of another."""

    def edited(data: bytes, edits: list[Edit]) -> bytes:
        for edit in edits:
            data = edit(data)
        return data

    def spliced(front: bytes, rest: bytes, place: int) -> bytes:
        return front[: _at(front, place)] + rest[_at(rest, place) :]

    one = st.sampled_from(whole)
    return st.builds(
        edited, st.one_of(one, st.builds(spliced, one, one, _PLACE)), st.lists(_EDITS, max_size=6)
    )


def fuzz(
    check: Callable[..., None], examples: int, *, shrink: bool = True, **strategies: st.SearchStrategy[Any]
) -> int:
    """Try so many examples, the same ones each time, or new ones while SECONDS last -> how many.

    What fails is made as small as it can be and printed, unless `shrink` is False.
    """
    tried, until, turn = 0, time.monotonic() + SECONDS, 0

    def counted(**values: Any) -> None:
        nonlocal tried
        tried += 1
        check(**values)

    while turn == 0 or time.monotonic() < until:
        run = settings(
            max_examples=_TURN if SECONDS else examples,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        )(given(**strategies)(counted))
        seed(f"{turn}-{time.time_ns()}" if SECONDS else 0)(run)()
        turn += 1
    return tried
