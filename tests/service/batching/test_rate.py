"""The expected wait follows what calls cost, whether that grows with their size or not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.rate import GUESSED_IMAGE_S, ServiceRate


def test_a_guess_until_an_image_was_measured() -> None:
    rate = ServiceRate(8)
    assert rate.wait_s(3) == 3 * GUESSED_IMAGE_S
    rate.observe(0.1, 1, 0)  # the first step of a chain
    assert rate.wait_s(3) == 3 * GUESSED_IMAGE_S
    assert rate.wait_s(0) == 0


def test_lone_images_are_taken_to_cost_in_proportion() -> None:
    rate = ServiceRate(8)
    for _ in range(10):
        for step in range(5):
            rate.observe(0.01, 1, int(step == 4))
    assert rate.wait_s(1) == pytest.approx(0.05, rel=0.01)
    assert rate.wait_s(16) == pytest.approx(0.8, rel=0.01)


@given(fixed_s=st.floats(0, 0.1), each_s=st.floats(0.0001, 0.1), steps=st.integers(1, 20))
def test_the_cost_of_a_full_call_is_learned_from_any_two_sizes(
    fixed_s: float, each_s: float, steps: int
) -> None:
    rate = ServiceRate(8)
    for images in (1, 3, 1, 3):
        for step in range(steps):
            rate.observe(fixed_s + each_s * images, images, images * int(step == steps - 1))
    full_s = fixed_s + 8 * each_s
    assert rate.wait_s(16) == pytest.approx(2 * steps * full_s, rel=0.02)
    assert rate.wait_s(1) == pytest.approx(steps * (fixed_s + each_s), rel=0.02)


def test_a_change_of_the_engine_s_speed_is_followed() -> None:
    rate = ServiceRate(4)
    for cost_s in (0.1, 0.01):
        for _ in range(10_000):
            rate.observe(cost_s, 4, 4)
    assert rate.wait_s(4) == pytest.approx(0.01, rel=0.1)
