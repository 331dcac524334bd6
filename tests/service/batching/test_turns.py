"""Who shares the next call: as many as is worth it, short ones first, and nobody left out for long."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batching.job import BACKFILL_SHARE
from service.batching.turns import LOOK_EVERY, OLDEST_EVERY, Turns, Work, together

unhurried = settings(deadline=None, max_examples=50)
works = st.builds(
    lambda rows, calls, backfill: Work(rows, rows * calls, backfill),
    st.integers(1, 8),
    st.integers(1, 60),
    st.booleans(),
)


def cost(fixed_s: float, each_s: float) -> Callable[[int], float]:
    return lambda rows: fixed_s + each_s * rows


in_proportion, hardly_more = cost(0.0, 0.01), cost(0.01, 0.0003)


def ends(waiting: list[Work], turns: Turns, seconds: Callable[[int], float] | None) -> list[int]:
    """Indices in the order in which they end when nothing else comes."""
    left, here, ended = [work.left for work in waiting], list(range(len(waiting))), []
    while here:
        now = [Work(min(waiting[i].rows, left[i]), left[i], waiting[i].backfill) for i in here]
        chosen = [here[index] for index in turns.choose(now, seconds)]
        assert chosen
        for i in chosen:
            left[i] -= min(waiting[i].rows, left[i])
        ended += [i for i in chosen if left[i] == 0]
        here = [i for i in here if left[i] > 0]
    return ended


@unhurried
@given(
    waiting=st.lists(works, max_size=40),
    places=st.integers(1, 20),
    fixed_s=st.floats(0, 1),
    each_s=st.floats(0, 1),
    known=st.booleans(),
    calls=st.integers(0, 20),
)
def test_some_are_chosen_once_each_and_never_more_than_there_are_places(
    waiting: list[Work], places: int, fixed_s: float, each_s: float, known: bool, calls: int
) -> None:
    turns = Turns(places)
    for _ in range(calls + 1):
        chosen = turns.choose(waiting, cost(fixed_s, each_s) if known else None)
        assert len(set(chosen)) == len(chosen) <= places
        assert set(chosen) <= set(range(len(waiting)))
        assert bool(chosen) == bool(waiting)


@unhurried
@given(calls=st.lists(st.integers(1, 60), min_size=1, max_size=32), places=st.integers(1, 32))
def test_one_after_the_other_where_a_call_costs_in_proportion(calls: list[int], places: int) -> None:
    assert together([Work(1, left) for left in sorted(calls)], in_proportion, places) == 1


@unhurried
@given(count=st.integers(1, 20), left=st.integers(1, 250))
def test_all_together_where_a_call_costs_hardly_more(count: int, left: int) -> None:
    assert together([Work(1, left)] * count, hardly_more, 8) == min(count, 8)


@pytest.mark.parametrize(("fixed_s", "count", "expected"), [(1.0, 4, 2), (1.0, 16, 4), (4.0, 16, 8)])
def test_between_the_two_the_more_the_more_there_are(fixed_s: float, count: int, expected: int) -> None:
    """For N alike, (fixed + each k) (N / k + 1) is least at k = sqrt(N fixed / each)."""
    assert together([Work(1, 50)] * count, cost(fixed_s, 1.0), 16) == expected


def test_rows_count_and_not_images() -> None:
    """Four images that each fill a call gain nothing by company, although four single rows do."""
    seconds = cost(1.0, 0.25)
    assert together([Work(1, 20)] * 4, seconds, 4) == 4
    assert together([Work(16, 16)] * 4, seconds, 4) == 1


@unhurried
@given(chains=st.integers(1, 20), steps=st.integers(2, 250))
@pytest.mark.parametrize("seconds", [None, in_proportion, hardly_more])
def test_an_image_of_one_call_is_not_kept_waiting_by_chains(
    seconds: Callable[[int], float] | None, chains: int, steps: int
) -> None:
    turns, under_way = Turns(8), [Work(1, steps)] * chains
    for _ in range(50):
        turns.choose(under_way, seconds)
    waiting = [*under_way, Work(1, 1)]
    first, second = turns.choose(waiting, seconds), turns.choose(waiting, seconds)
    assert chains in first or chains in second  # the first may be the oldest's turn


@unhurried
@given(steps=st.integers(1, 60))
@pytest.mark.parametrize("places", [1, 8])
def test_short_images_that_never_cease_do_not_starve_a_chain(places: int, steps: int) -> None:
    turns, left, calls = Turns(places), steps, 0
    while left:
        chosen = turns.choose([Work(1, left), *[Work(1, 1)] * 20], in_proportion)
        left -= 0 in chosen
        calls += 1
    assert calls <= OLDEST_EVERY * steps


@pytest.mark.parametrize("places", [1, 2, 8, 16])
@pytest.mark.parametrize("seconds", [None, in_proportion, hardly_more])
def test_backfill_has_its_share_beside_cameras_and_no_more(
    seconds: Callable[[int], float] | None, places: int
) -> None:
    turns, backfill = Turns(places), 3
    waiting = [*[Work(1, 5, True)] * backfill, *[Work(1, 50)] * 20]
    calls = [turns.choose(waiting, seconds) for _ in range(LOOK_EVERY * 4)]
    places_given = sum(map(len, calls))
    to_backfill = sum(index < backfill for chosen in calls for index in chosen)
    assert abs(to_backfill - places_given / BACKFILL_SHARE) <= places


def test_backfill_takes_the_places_that_cameras_leave_where_that_costs_hardly_more() -> None:
    waiting = [*[Work(1, 50, True)] * 3, *[Work(1, 50)] * 2]
    assert sorted(Turns(4).choose(waiting, hardly_more)) == [0, 1, 3, 4]
    assert Turns(4).choose(waiting, in_proportion) == [3]


def test_chains_alike_are_run_to_their_ends_in_order_of_arrival() -> None:
    assert ends([Work(1, 30)] * 6, Turns(8), in_proportion) == list(range(6))


def test_now_and_then_all_or_one_advance_to_see_what_that_costs() -> None:
    turns = Turns(8)
    for seconds, usual in ((in_proportion, 1), (hardly_more, 8)):
        sizes = [len(turns.choose([Work(1, 50)] * 8, seconds)) for _ in range(4 * LOOK_EVERY)]
        assert sizes.count(usual) == len(sizes) - 2
        assert sizes.count(9 - usual) == 2


@unhurried
@given(waiting=st.lists(works, min_size=1, max_size=12), places=st.integers(1, 9))
@pytest.mark.parametrize("seconds", [None, in_proportion, hardly_more])
def test_all_end(seconds: Callable[[int], float] | None, waiting: list[Work], places: int) -> None:
    assert sorted(ends(waiting, Turns(places), seconds)) == list(range(len(waiting)))
