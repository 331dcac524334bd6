"""Limits at target rates: from the bundle's calibration, stored scores, and what people reviewed."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.bundle import Thresholds
from models.empirical_null import fit_once
from service.recipes.whatif import VERDICTS, Stored, sampled_rows

Float64 = NDArray[np.float64]
LEAST_STORED = 200
"""Stored scores below which a fit to them is not offered."""
_LEAST_ABOVE = 5.0  # good parts that must be expected above a limit taken from reviewed ones
_RESAMPLES = 200
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Suggestion:
    """Limits from one source, with the 95 % interval of each."""

    source: Literal["bundle", "stored", "reviewed"]
    review: float
    reject: float
    review_interval: tuple[float, float] | None
    reject_interval: tuple[float, float] | None
    sample: int
    contamination: float | None = None

    @property
    def limits(self) -> Thresholds:
        return Thresholds(review=self.review, reject=self.reject)


def from_bundle(reject_rate: float, review_rate: float, images: int) -> Suggestion:
    """Calibrated scores of good parts are standard normal by construction: the limits are its quantiles."""
    review, reject = (-_NORMAL.inv_cdf(rate) for rate in (review_rate, reject_rate))
    return Suggestion("bundle", review, reject, None, None, images)


def from_stored(stored: Stored, reject_rate: float, review_rate: float) -> Suggestion | None:
    """The same after what good parts scored since: the robust null fitted to stored, contaminated scores.

    A calibrated score is linear in the log of the raw one, so the null is fitted to it as it stands.
    """
    if len(stored) < LEAST_STORED:
        return None
    values, rng = np.sort(stored.scores), np.random.default_rng(7)
    deviations = np.array([-_NORMAL.inv_cdf(rate) for rate in (review_rate, reject_rate)])
    location, scale, share = fit_once(values)
    limits = location + scale * deviations
    again = np.array([fit_once(np.sort(rng.choice(values, values.size)))[:2] for _ in range(_RESAMPLES)])
    resampled = again[:, :1] + again[:, 1:] * deviations
    return _with_interval("stored", limits, resampled, values.size, share)


def from_reviewed(stored: Stored, reject_rate: float, review_rate: float) -> Suggestion | None:
    """Quantiles of what good parts scored that people have seen, each standing for its share of its stratum.

    None while fewer than five good parts are expected above the reject limit: an empirical quantile further
    out is the accident of a single part.
    """
    chosen = sampled_rows(stored) & (stored.state == "good")
    weights = np.zeros(len(stored))
    for code in range(len(VERDICTS)):
        own = stored.decided == code
        some = own & sampled_rows(stored)
        if some.any():
            weights[some] = own.sum() / some.sum()
    scores, weights = stored.scores[chosen], weights[chosen]
    if not weights.size or reject_rate * weights.sum() ** 2 / (weights**2).sum() < _LEAST_ABOVE:
        return None
    rates, rng = np.array([review_rate, reject_rate]), np.random.default_rng(8)
    again = []
    for _ in range(_RESAMPLES):
        rows = rng.integers(0, scores.size, scores.size)
        again.append(weighted_upper(scores[rows], weights[rows], rates))
    return _with_interval(
        "reviewed", weighted_upper(scores, weights, rates), np.array(again), scores.size, None
    )


def weighted_upper(scores: Float64, weights: Float64, rates: Float64) -> Float64:
    """Per rate the lowest score such that at most that share of the weight lies at or above it."""
    order = np.argsort(-scores)
    above = np.cumsum(weights[order]) / weights.sum()
    # At a limit, a score equal to it is already rejected: the limit lies just over the first one too many.
    first = np.minimum(np.searchsorted(above, rates, side="right"), scores.size - 1)
    return np.asarray(np.nextafter(scores[order][first], np.inf))


def _with_interval(
    source: Literal["stored", "reviewed"],
    limits: Float64,
    resampled: Float64,
    sample: int,
    contamination: float | None,
) -> Suggestion:
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    return Suggestion(
        source,
        float(limits[0]),
        float(limits[1]),
        (float(low[0]), float(high[0])),
        (float(low[1]), float(high[1])),
        sample,
        contamination,
    )
