"""How often one caller may ask: a token bucket each, in the memory of this process."""

import time
from collections import OrderedDict
from collections.abc import Callable

_MOST = 10_000


class Rates:
    """Each caller has `burst` requests at once and `per_s` more every second; 0 per second is no limit."""

    def __init__(self, per_s: float, burst: float, now: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # left, at

    def take(self, caller: str) -> float:
        """Count one request -> 0, or the seconds until there is room for it (then nothing is counted)."""
        if not self._per_s:
            return 0.0
        now = self._now()
        left, at = self._buckets.get(caller, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_s)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._per_s
        self._buckets[caller] = (left if wait_s else left - 1, now)
        self._buckets.move_to_end(caller)
        while len(self._buckets) > _MOST:  # the one that was quiet the longest, whose bucket is fullest
            self._buckets.popitem(last=False)
        return wait_s
