"""The drawn kinds of parts: repeatable, and their masks mark what the defect changed and nothing else."""

import numpy as np
import pytest

from tests.drawn.__main__ import FEWEST_PX, KINDS, defective, picture
from tests.drawn.draw import SIDE


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_defect_is_all_that_differs_and_the_mask_says_where(kind: str) -> None:
    defect = KINDS[kind][1][0]
    bad, mask = defective(kind, (0, 7), defect)
    again, _ = defective(kind, (0, 7), defect)
    np.testing.assert_array_equal(bad, again)
    attempts = (picture(kind, (0, 7, attempt), None)[0] for attempt in range(100))
    good = next(g for g in attempts if np.abs(g.astype(int) - bad).mean() < 5.0)
    changed = np.abs(good.astype(int) - bad).max(axis=2) > 6
    assert mask.shape == (SIDE, SIDE)
    assert np.count_nonzero(mask) >= FEWEST_PX
    assert not changed[mask == 0].any()
    assert changed[mask > 0].mean() > 0.5


def test_parts_differ_from_one_another() -> None:
    first, second = (picture("gear", (0, index), None)[0].astype(int) for index in range(2))
    assert np.abs(first - second).mean() > 2.0
