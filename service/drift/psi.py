"""The population-stability index of a sample against a reference, and how much of it is chance.

PSI = sum over bins of (a - e) ln(a / e), with a and e the shares of sample and reference. Of two samples of
one distribution, of n and m values in B bins, PSI / (1/n + 1/m) is chi-squared with B - 1 degrees of freedom
(Yurdakul 2018, "Statistical properties of population stability index"): few values differ by themselves.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
_BINS = 10
_PER_BIN = 20  # values of the reference
_Z = 3.090  # 99.9 %, one-sided
_NONE = 0.5  # counted in every bin besides, so that an empty one is no infinity


@dataclass(frozen=True)
class Reference:
    """How values were distributed: quantile bins, or single values where there are few different ones."""

    edges: Values | None  # between bins
    values: Values | None  # each a bin, and one for all others
    counts: Values

    @classmethod
    def of(cls, sample: Values) -> "Reference":
        """Of at least one value."""
        distinct = np.unique(sample)
        if len(distinct) <= _BINS:
            return cls(None, distinct, np.zeros(0))._counted(sample)
        bins = min(_BINS, max(2, len(sample) // _PER_BIN))
        edges = np.unique(np.quantile(sample, np.arange(1, bins) / bins))
        return cls(edges, None, np.zeros(0))._counted(sample)

    @property
    def size(self) -> int:
        return int(self.counts.sum())

    def psi(self, sample: Values) -> float:
        """0 for the same shares; by convention 0.1 is a shift worth a look, 0.25 a large one."""
        expected, actual = _shares(self.counts), _shares(self._count(sample))
        return float(((actual - expected) * np.log(actual / expected)).sum())

    def by_chance(self, size: int) -> float:
        """What a sample of this size from the same distribution exceeds once in a thousand times."""
        free = max(1, len(self.counts) - 1)
        # The quantile of chi-squared after Wilson and Hilferty (1931).
        quantile = free * (1 - 2 / (9 * free) + _Z * math.sqrt(2 / (9 * free))) ** 3
        return quantile * (1 / size + 1 / self.size)

    def _counted(self, sample: Values) -> "Reference":
        return Reference(self.edges, self.values, self._count(sample))

    def _count(self, sample: Values) -> Values:
        if self.edges is not None:
            index, bins = np.searchsorted(self.edges, sample, side="right"), len(self.edges) + 1
        else:
            assert self.values is not None
            place = np.searchsorted(self.values, sample).clip(max=len(self.values) - 1)
            bins = len(self.values) + 1
            index = np.where(self.values[place] == sample, place, bins - 1)
        return np.bincount(index, minlength=bins).astype(np.float64)


def _shares(counts: Values) -> Values:
    shares: Values = (counts + _NONE) / (counts.sum() + _NONE * len(counts))
    return shares
