"""The cost of a call follows what calls have cost, whether that grows with their size or not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batching.cost import CallCost


def test_calls_of_one_size_are_taken_to_cost_in_proportion() -> None:
    cost = CallCost()
    cost.observe(2, 0.01)
    assert not cost.known
    assert cost.seconds(8) == pytest.approx(0.04)


@settings(deadline=None)
@given(
    fixed_s=st.floats(0, 0.1),
    each_s=st.floats(0, 0.1),
    sizes=st.lists(st.integers(1, 64), min_size=2, max_size=6, unique=True),
    asked=st.integers(1, 64),
)
def test_the_line_is_learned_from_any_two_sizes(
    fixed_s: float, each_s: float, sizes: list[int], asked: int
) -> None:
    cost = CallCost()
    for rows in sizes * 3:
        cost.observe(rows, fixed_s + each_s * rows)
    assert cost.known
    assert cost.seconds(asked) == pytest.approx(fixed_s + each_s * asked, rel=1e-3, abs=1e-6)


@settings(deadline=None)
@given(samples=st.lists(st.tuples(st.integers(1, 64), st.floats(0, 10)), min_size=1, max_size=40))
def test_whatever_was_measured_more_rows_never_cost_less(samples: list[tuple[int, float]]) -> None:
    cost = CallCost()
    for rows, seconds in samples:
        cost.observe(rows, seconds)
    assert 0 <= cost.seconds(1) <= cost.seconds(2) * (1 + 1e-9) <= cost.seconds(64) * (1 + 1e-6)


def test_calls_that_something_else_held_up_count_for_nothing() -> None:
    cost = CallCost()
    for call in range(60):
        for rows in (1, 8):
            cost.observe(rows, 5.0 if call % 7 == 0 else 0.01 * rows)
    assert cost.seconds(4) == pytest.approx(0.04, rel=0.01)


def test_a_change_of_speed_is_followed() -> None:
    cost = CallCost()
    for factor in (1.0, 0.1):
        for _ in range(20):
            cost.observe(1, 0.02 * factor)
            cost.observe(8, 0.09 * factor)
    assert cost.seconds(4) == pytest.approx(0.005, rel=0.01)


def test_sizes_that_are_no_longer_seen_are_forgotten_but_for_the_last_two() -> None:
    cost = CallCost()
    for rows, seconds in ((2, 0.01), (3, 0.01), (4, 0.01), (1, 0.01)):
        cost.observe(rows, seconds)
    for _ in range(1000):
        cost.observe(8, 0.08)
    assert cost.seconds(4) == pytest.approx(0.04)
    assert cost.known
    for _ in range(1000):
        cost.observe(8, 0.08)
    assert cost.seconds(1) == pytest.approx(0.01)  # as measured long ago, and the line goes through it
