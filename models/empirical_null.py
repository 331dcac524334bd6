"""What good parts score, estimated from a set in which some are defective (Efron 2004, "empirical null").

Log scores of good parts are taken as normal. Defects raise a score, so below a cut the set is nearly clean:
a normal distribution cut off on the right is fitted to that part alone, by maximum likelihood, and what the
whole set has beyond it is the contamination. The fit has one unknown (Cohen 1959, "Simplified estimators for
the normal distribution when samples are singly censored or truncated"): with a = (cut - location) / scale and
the hazard h = pdf(a) / cdf(a), variance / (cut - mean)^2 = (1 - a h - h^2) / (a + h)^2, which falls with a.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

CUT = 0.65
"""Quantile of all scores up to which they are taken for good parts'."""
_RESAMPLES = 200
_LEAST = 20  # scores below which a fit of the cut part says nothing
_NORMAL = NormalDist()
_FARTHEST = 30.0  # deviations from location to cut; there the cut changes nothing


@dataclass(frozen=True)
class Null:
    """Location and scale of good parts' log scores, and the share of parts that are not good."""

    location: float
    scale: float
    contamination: float
    interval: tuple[float, float]  # 90 %, bootstrap

    def upper(self, share: float) -> float:
        """The log score that `share` of good parts exceed."""
        return self.location + self.scale * _NORMAL.inv_cdf(1 - share)


def fit_null(log_scores: Float64, seed: int = 0) -> Null:
    """Fit to log scores `[N]`; ValueError for none.

    With few scores, or none that differ, it is their median and the spread of the lower half.
    """
    values = np.sort(np.asarray(log_scores, dtype=np.float64))
    if values.size == 0:
        raise ValueError("cannot calibrate on no scores")
    location, scale, share = fit_once(values)
    rng = np.random.default_rng((seed, 4))
    shares = [fit_once(np.sort(rng.choice(values, values.size)))[2] for _ in range(_RESAMPLES)]
    low, high = np.quantile(shares, [0.05, 0.95])
    return Null(location, scale, share, (float(min(low, share)), float(max(high, share))))


def fit_once(values: Float64) -> tuple[float, float, float]:
    """Ascending values -> location, scale, share of contamination."""
    middle = float(np.median(values))
    below = middle - values[values <= middle]
    spread = max(1.4826 * float(np.median(below)), 1e-3)
    cut = float(np.quantile(values, CUT))
    kept = values[values <= cut]
    if kept.size < _LEAST or kept[0] == kept[-1]:
        return middle, spread, 0.0
    found = fit_truncated(kept, cut)
    # Too flat a cut part lets the location run off to the right; it is never beyond the cut itself.
    if found is None or not 0.2 * spread <= found[1] <= 5 * spread:
        return middle, spread, 0.0
    location, scale = found
    good = CUT / _NORMAL.cdf((cut - location) / scale)
    return location, max(scale, 1e-3), float(np.clip(1.0 - good, 0.0, 0.9))


def fit_truncated(kept: Float64, cut: float) -> tuple[float, float] | None:
    """Location and scale of a normal distribution of which only values up to `cut` were seen.

    The maximum of the likelihood; None where its location lies beyond the cut.
    """
    distance = cut - float(kept.mean())
    ratio = float(kept.var()) / (distance * distance)
    low, high = 0.0, _FARTHEST
    if ratio > _ratio(low):
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _ratio(middle) > ratio else (low, middle)
    scale = distance / (low + _hazard(low))
    return cut - low * scale, scale


def _hazard(a: float) -> float:
    return _NORMAL.pdf(a) / _NORMAL.cdf(a)


def _ratio(a: float) -> float:
    hazard = _hazard(a)
    return (1 - a * hazard - hazard * hazard) / (a + hazard) ** 2
