"""Whose turn it is: cameras first, order of arrival kept, backfill never left out for long."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.job import Job, Priority, Ticket
from service.batching.lanes import Lanes

IMAGE = np.zeros((1, 2, 2), dtype=np.float32)
PRIORITIES: st.SearchStrategy[Priority] = st.sampled_from(["camera", "backfill"])


def ticket(name: str, priority: Priority = "camera", profile: str = "fast") -> Ticket:
    loop = asyncio.new_event_loop()
    try:
        return Ticket(Job(name, IMAGE, 0, profile, priority), loop.create_future())
    finally:
        loop.close()


def drain(lanes: Lanes) -> list[str]:
    taken = []
    while (one := lanes.take()) is not None:
        taken.append(one.job.id)
    return taken


@given(priorities=st.lists(PRIORITIES, max_size=60), share=st.integers(2, 9))
def test_nothing_is_lost_and_each_priority_keeps_its_order(priorities: list[Priority], share: int) -> None:
    lanes = Lanes(share)
    for index, priority in enumerate(priorities):
        lanes.add(ticket(f"{priority} {index}", priority))
    assert len(lanes) == len(priorities)
    expected = [f"{priority} {index}" for index, priority in enumerate(priorities)]
    taken = drain(lanes)
    assert sorted(taken) == sorted(expected)
    for kind in ("camera", "backfill"):
        assert [name for name in taken if name.startswith(kind)] == [
            name for name in expected if name.startswith(kind)
        ]


@given(cameras=st.integers(0, 80), backfill=st.integers(0, 20), share=st.integers(2, 9))
def test_cameras_go_first_but_for_the_documented_share(cameras: int, backfill: int, share: int) -> None:
    lanes = Lanes(share)
    for index in range(backfill):
        lanes.add(ticket(f"backfill {index}", "backfill"))
    for index in range(cameras):
        lanes.add(ticket(f"camera {index}"))
    expected = []
    while cameras and backfill:
        turns = min(share - 1, cameras)
        expected += ["camera"] * turns + ["backfill"]
        cameras, backfill = cameras - turns, backfill - 1
    expected += ["camera"] * cameras + ["backfill"] * backfill
    assert [name.split()[0] for name in drain(lanes)] == expected


def test_peek_is_what_is_taken_and_a_discarded_ticket_never_is() -> None:
    lanes = Lanes(2)
    tickets = [ticket(str(index), "backfill" if index % 2 else "camera") for index in range(8)]
    for one in tickets:
        lanes.add(one)
    lanes.discard(tickets[2])
    lanes.discard(tickets[2])
    seen = []
    while (shown := lanes.peek()) is not None:
        assert lanes.take() is shown
        seen.append(shown.job.id)
    assert sorted(seen) == ["0", "1", "3", "4", "5", "6", "7"]
    assert lanes.take() is None


def test_a_batch_is_of_the_first_ticket_s_profile() -> None:
    lanes = Lanes()
    for name, priority, profile in (
        ("1", "backfill", "fast"), ("2", "camera", "fast"), ("3", "camera", "paper"), ("4", "camera", "fast"),
    ):  # fmt: skip
        lanes.add(ticket(name, priority, profile))
    assert [one.job.id for one in lanes.take_alike(2)] == ["2", "4"]
    assert [one.job.id for one in lanes.take_alike(9)] == ["3"]
    assert [one.job.id for one in lanes.take_alike(9)] == ["1"]
    assert lanes.take_alike(9) == []


def test_a_share_that_leaves_cameras_no_turn_is_refused() -> None:
    with pytest.raises(ValueError, match="every turn"):
        Lanes(1)
