"""Shares with 95 % intervals: of a plain sample, and of one whose strata were sampled at different rates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

_Z = 1.959963984540054
_RESAMPLES = 2000

Method = Literal["wilson", "bootstrap", "wilson-effective"]


@dataclass(frozen=True)
class Share:
    """An estimated share and its 95 % interval; `sample` counts what it rests on."""

    value: float
    low: float
    high: float
    sample: int
    method: Method


@dataclass(frozen=True)
class Stratum:
    """A part of the population and what a random sample of it found; all four are counts."""

    population: int
    sampled: int
    base: int  # of the sampled: those the share is of
    hits: int  # of the base: those with the property

    @property
    def weight(self) -> float:
        """Inspections that one sampled inspection stands for."""
        return self.population / self.sampled if self.sampled else 0.0


def wilson(hits: float, base: float) -> tuple[float, float]:
    """Wilson's 95 % score interval (Wilson 1927) of `hits` in `base` > 0."""
    share, z2 = hits / base, _Z * _Z
    middle = (share + z2 / (2 * base)) / (1 + z2 / base)
    half = _Z / (1 + z2 / base) * math.sqrt(share * (1 - share) / base + z2 / (4 * base * base))
    return max(0.0, middle - half), min(1.0, middle + half)


def plain_share(hits: int, base: int) -> Share | None:
    """Of a plain sample; None for an empty one."""
    if base == 0:
        return None
    return Share(hits / base, *wilson(hits, base), base, "wilson")


def stratified_share(strata: Sequence[Stratum], seed: int = 0) -> Share | None:
    """The share over the whole population: each stratum's sample counts for all of the stratum.

    sum(w h) / sum(w b), the ratio estimator of Horvitz and Thompson (1952) after stratification. Where all
    that counts has one weight this is binomial: Wilson. Otherwise a bootstrap within strata; and where the
    estimate is 0 or 1, which a bootstrap takes for certain, Wilson at Kish's effective sample size. None if
    nothing is in the base.
    """
    used = [stratum for stratum in strata if stratum.base]
    if not used:
        return None
    weights = np.array([stratum.weight for stratum in used])
    base = np.array([stratum.base for stratum in used])
    hits = np.array([stratum.hits for stratum in used])
    value, sample = float(weights @ hits / (weights @ base)), int(base.sum())
    if np.allclose(weights, weights[0]):
        return Share(value, *wilson(int(hits.sum()), sample), sample, "wilson")
    if value in (0.0, 1.0):
        effective = float((weights @ base) ** 2 / (weights**2 @ base))
        return Share(value, *wilson(value * effective, effective), sample, "wilson-effective")
    low, high = np.quantile(_resampled(used, weights, seed), [0.025, 0.975])
    return Share(value, min(float(low), value), max(float(high), value), sample, "bootstrap")


def _resampled(strata: Sequence[Stratum], weights: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng((seed, 6))
    hits, base = np.zeros(_RESAMPLES), np.zeros(_RESAMPLES)
    for stratum, weight in zip(strata, weights, strict=True):
        neither = stratum.sampled - stratum.base
        counts = np.array([stratum.hits, stratum.base - stratum.hits, neither]) / stratum.sampled
        drawn = rng.multinomial(stratum.sampled, counts, size=_RESAMPLES)
        hits += weight * drawn[:, 0]
        base += weight * (drawn[:, 0] + drawn[:, 1])
    ratios: NDArray[np.float64] = hits[base > 0] / base[base > 0]
    return ratios
