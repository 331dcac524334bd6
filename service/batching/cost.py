"""What a network call costs by how many images enter it, learned from the calls that were made."""

from collections import deque
from statistics import median

_SAMPLES = 9
"""Of each size; the median of so many passes over calls that something else held up."""
_MEMORY = 512
"""Calls after which a sample is forgotten, as the machine may have other things to do by then; but never the
last sample of the last two sizes, or lone images would make it forget what company costs."""
_TINY_S = 1e-9


class CallCost:
    """Fits `seconds of a call = fixed + each * rows` to the usual duration of calls of each size.

    On a GPU a call costs hardly more for many rows than for one (`fixed` large), on a CPU in proportion
    (`each` large). Not locked.
    """

    def __init__(self) -> None:
        self._calls = 0
        self._samples: dict[int, deque[tuple[int, float]]] = {}  # by rows: (number of the call, seconds)
        self._usual_s: dict[int, float] = {}
        self._fixed_s = self._each_s = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """One call with so many images in it."""
        self._calls += 1
        self._samples.setdefault(rows, deque(maxlen=_SAMPLES)).append((self._calls, seconds))
        for size, samples in list(self._samples.items()):
            stale = samples[0][0] <= self._calls - _MEMORY and (len(samples) > 1 or len(self._samples) > 2)
            if stale:
                samples.popleft()
            if not samples:
                del self._samples[size], self._usual_s[size]
            elif stale or size == rows:
                self._usual_s[size] = max(median(s for _, s in samples), _TINY_S)
        self._fit()

    @property
    def known(self) -> bool:
        """Whether calls of different sizes have been seen."""
        return len(self._usual_s) > 1

    def seconds(self, rows: int) -> float:
        """The cost of a call with so many images; in proportion to them while only one size was seen."""
        return self._fixed_s + self._each_s * rows

    def _fit(self) -> None:
        """The line of least squares of relative errors, as many samples as a size has its weight."""
        sizes = [(rows, s, len(self._samples[rows]) / s**2) for rows, s in self._usual_s.items()]
        total = sum(w for _, _, w in sizes)
        mean_rows = sum(w * rows for rows, _, w in sizes) / total
        mean_s = sum(w * s for _, s, w in sizes) / total
        each = mean_s / mean_rows  # a line through the origin: no call is cheaper than nothing
        spread = sum(w * (rows - mean_rows) ** 2 for rows, _, w in sizes)
        if self.known:
            slope = sum(w * (rows - mean_rows) * (s - mean_s) for rows, s, w in sizes) / spread
            each = min(max(slope, 0.0), each)
        self._each_s, self._fixed_s = each, mean_s - each * mean_rows
