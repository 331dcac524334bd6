"""Intervals against formulas, scipy and simulated truth."""

import numpy as np
import pytest
from scipy.stats import binomtest

from service.recipes.intervals import Stratum, plain_share, stratified_share, wilson


@pytest.mark.parametrize(("hits", "base"), [(0, 10), (1, 10), (5, 10), (10, 10), (3, 4000), (1, 1)])
def test_wilson_is_scipys(hits: int, base: int) -> None:
    reference = binomtest(hits, base).proportion_ci(0.95, method="wilson")
    assert wilson(hits, base) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_a_plain_share_of_nothing_is_none() -> None:
    assert plain_share(0, 0) is None
    found = plain_share(1, 4)
    assert found is not None
    assert (found.value, found.sample, found.method) == (0.25, 4, "wilson")


def test_each_sampled_part_counts_for_its_share_of_its_stratum() -> None:
    # 10 000 PASS, 100 audited, 1 defective; 50 REJECT, all reviewed, 30 defective.
    found = stratified_share([Stratum(10_000, 100, 1, 1), Stratum(50, 50, 30, 0)])
    assert found is not None
    assert found.value == pytest.approx(100 / 130)
    assert found.method == "bootstrap"
    assert found.low < 0.2  # one audited part more or less would change all
    assert found.high > 0.85
    assert found.sample == 31


def test_where_all_have_one_weight_it_is_wilson() -> None:
    found = stratified_share([Stratum(100, 10, 4, 1), Stratum(50, 5, 3, 2), Stratum(7, 0, 0, 0)])
    assert found is not None
    assert found.method == "wilson"
    assert (found.low, found.high) == pytest.approx(wilson(3, 7))


def test_nothing_found_is_not_certainty() -> None:
    found = stratified_share([Stratum(10_000, 100, 0, 0), Stratum(100, 100, 60, 0), Stratum(60, 20, 20, 0)])
    assert found is not None
    assert (found.value, found.low, found.method) == (0.0, 0.0, "wilson-effective")
    assert 0.03 < found.high < 0.1
    assert stratified_share([Stratum(10, 5, 0, 0)]) is None


def test_the_interval_covers_a_known_escape_rate() -> None:
    """Parts whose truth is known: 100 000 good, 1000 defective of which 30 % pass; 2 % of PASS is audited."""
    rng, covered, estimates = np.random.default_rng(0), 0, []
    for seed in range(200):
        missed, caught = 300, 700
        good = 100_000
        audited = rng.hypergeometric(missed, good, round(0.05 * (good + missed)))
        sampled = round(0.05 * (good + missed))
        found = stratified_share(
            [
                Stratum(good + missed, sampled, audited, audited),
                Stratum(caught + 500, caught + 500, caught, 0),
            ],
            seed,
        )
        assert found is not None
        estimates.append(found.value)
        covered += found.low <= 0.3 <= found.high
    assert np.mean(estimates) == pytest.approx(0.3, abs=0.02)
    assert covered >= 180
