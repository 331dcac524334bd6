"""What good parts score is recovered from sets in which many parts are not good."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import truncnorm

from models import empirical_null
from models.empirical_null import CUT, fit_null, fit_truncated

LOCATION, SCALE = 0.4, 0.2


def mixture(share: float, seed: int, count: int = 600) -> NDArray[np.float64]:
    """Log scores of which `share` come from defective parts, six deviations higher."""
    rng = np.random.default_rng(seed)
    bad = round(share * count)
    return np.concatenate(
        [rng.normal(LOCATION, SCALE, count - bad), rng.normal(LOCATION + 6 * SCALE, 1.5 * SCALE, bad)]
    )


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(empirical_null, "_RESAMPLES", 20)


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize(("share", "tolerance"), [(0.0, 0.08), (0.1, 0.08), (0.2, 0.08)])
def test_a_clear_minority_is_measured(share: float, tolerance: float) -> None:
    found = [fit_null(mixture(share, seed)) for seed in range(5)]
    assert np.median([null.location for null in found]) == pytest.approx(LOCATION, abs=0.4 * SCALE)
    assert np.median([null.scale for null in found]) == pytest.approx(SCALE, rel=0.25)
    assert np.median([null.contamination for null in found]) == pytest.approx(share, abs=tolerance)


@pytest.mark.usefixtures("few_resamples")
def test_even_at_40_percent_it_is_nearer_the_truth_than_mean_and_deviation() -> None:
    """The cut lies among the defects there, so the estimate is biased, but not ruined."""
    scores = mixture(0.4, 0)
    found = fit_null(scores)
    assert abs(found.location - LOCATION) < 0.5 * abs(scores.mean() - LOCATION)
    assert abs(found.scale - SCALE) < abs(scores.std() - SCALE)
    assert 0 <= found.contamination <= 0.9


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize("share", [0.0, 0.1, 0.2])
def test_the_interval_mostly_contains_the_truth(share: float) -> None:
    found = [fit_null(mixture(share, seed)) for seed in range(6)]
    assert sum(null.interval[0] <= share <= null.interval[1] for null in found) >= 4
    for null in found:
        assert 0 <= null.interval[0] <= null.contamination <= null.interval[1] <= 0.9


@pytest.mark.usefixtures("few_resamples")
def test_the_same_scores_in_any_order_give_the_same_answer() -> None:
    scores = mixture(0.2, 1)
    assert fit_null(scores) == fit_null(scores[::-1])


def test_few_scores_fall_back_to_median_and_lower_half() -> None:
    scores = np.array([0.0, 1.0, 2.0, 3.0, 100.0])
    found = fit_null(scores)
    assert (found.location, found.contamination, found.interval) == (2.0, 0.0, (0.0, 0.0))
    assert found.scale == pytest.approx(1.4826)  # below the median: 2, 1 and 0 away


def test_equal_scores_still_have_a_scale() -> None:
    found = fit_null(np.full(50, 1.5))
    assert found.location == 1.5
    assert found.scale > 0


def test_no_scores_are_an_error() -> None:
    with pytest.raises(ValueError, match="no scores"):
        fit_null(np.array([]))


@pytest.mark.parametrize("seed", range(6))
def test_the_fit_is_the_maximum_of_scipys_likelihood(seed: int) -> None:
    scores = np.sort(mixture(0.1, seed))
    cut = float(np.quantile(scores, CUT))
    kept = scores[scores <= cut]

    def cost(parameters: NDArray[np.float64]) -> float:
        location, scale = parameters[0], np.exp(parameters[1])
        above = (cut - location) / scale
        return -float(truncnorm.logpdf(kept, -np.inf, above, loc=location, scale=scale).mean())

    found = minimize(cost, np.array([LOCATION, np.log(SCALE)]), method="Nelder-Mead", options={"xatol": 1e-7})
    assert fit_truncated(kept, cut) == pytest.approx((found.x[0], np.exp(found.x[1])), rel=1e-3)


def test_a_rising_density_has_no_location_below_its_cut() -> None:
    assert fit_truncated(1.0 - np.random.default_rng(0).exponential(1.0, 4000), 1.0) is None
