"""The index against its definition, and against chance."""

import math

import numpy as np
import pytest
from scipy import stats

from service.drift.psi import Reference


def test_the_index_is_its_definition() -> None:
    reference = Reference.of(np.repeat([1.0, 2.0], [600, 400]))
    assert reference.size == 1000
    found = reference.psi(np.repeat([1.0, 2.0], [300, 700]))
    # The third bin, of all other values, is empty on both sides; half a value counts in each.
    expected = (0.3 - 0.6) * math.log(0.3 / 0.6) + (0.7 - 0.4) * math.log(0.7 / 0.4)
    assert found == pytest.approx(expected, rel=5e-3)
    assert reference.psi(np.repeat([1.0, 2.0], [600, 400])) == 0.0


def test_deciles_hold_a_tenth_each() -> None:
    rng = np.random.default_rng(0)
    sample = rng.normal(size=5000)
    reference = Reference.of(sample)
    assert reference.edges == pytest.approx(np.quantile(sample, np.arange(1, 10) / 10))
    assert set(reference.counts) == {500.0}
    assert reference.psi(rng.normal(size=5000)) < 0.02
    # The symmetric divergence of two normals a sigma apart is 1, and bins can only hide some of it.
    assert 0.7 < reference.psi(rng.normal(1.0, size=5000)) < 1.0


def test_values_that_were_never_there_are_a_bin() -> None:
    sizes = Reference.of(np.full(500, 640480.0))
    assert sizes.psi(np.full(300, 640480.0)) < 0.01
    assert sizes.psi(np.full(300, 800600.0)) > 5
    assert sizes.psi(np.repeat([640480.0, 800600.0], [270, 30])) > 0.25


def test_few_values_make_few_bins() -> None:
    rng = np.random.default_rng(1)
    assert [len(Reference.of(rng.normal(size=size)).counts) for size in (11, 24, 100, 200, 999)] == [
        2, 2, 5, 10, 10,
    ]  # fmt: skip


@pytest.mark.parametrize(("reference_size", "size"), [(24, 1000), (100, 200), (500, 1000)])
def test_chance_is_exceeded_once_in_a_thousand_times(reference_size: int, size: int) -> None:
    rng = np.random.default_rng(2)
    trials, beyond, larger = 4000, 0, 0
    for _ in range(trials):
        reference = Reference.of(rng.normal(size=reference_size))
        psi = reference.psi(rng.normal(size=size))
        beyond += psi > reference.by_chance(size)
        larger += psi > 0.25
    assert beyond / trials < 0.004
    if reference_size == 24:  # what the custom of 0.25 alone would say
        assert larger / trials > 0.01


def test_the_quantile_is_that_of_chi_squared() -> None:
    rng = np.random.default_rng(3)
    for size, free in ((1000, 9), (100, 4), (24, 1)):
        reference = Reference.of(rng.normal(size=size))
        quantile = reference.by_chance(400) / (1 / 400 + 1 / size)
        assert quantile == pytest.approx(stats.chi2.ppf(0.999, free), rel=0.04)
