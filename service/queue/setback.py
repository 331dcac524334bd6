"""Redis's clock put back: leases count from then on, and not from when it has caught up.

Redis notes by its own clock when an entry was delivered; one of the future is idle for 0 ms until then, so
nobody would claim it, and neither what was given back.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

_LOOK_S = 1.0
_SLACK_S = 0.5

# KEYS = stream; ARGV = group, the consumer that nobody is, how long what it holds is idle
_RESTART = """
local start, count = '-', 0
while true do
  local found = redis.call('XPENDING', KEYS[1], ARGV[1], start, '+', 1000)
  if #found == 0 then return count end
  for _, one in ipairs(found) do
    if one[3] == 0 then
      local idle = one[2] == ARGV[2] and ARGV[3] or 0
      redis.call('XCLAIM', KEYS[1], ARGV[1], one[2], 0, one[1], 'IDLE', idle, 'RETRYCOUNT', one[4], 'JUSTID')
      count = count + 1
    end
  end
  start = '(' .. found[#found][1]
end
"""


class Setback:
    """Looks once a second whether Redis's clock was put back, and the first time in any case."""

    def __init__(self, redis: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis, self._clock = redis, clock
        self._last: tuple[float, float] | None = None  # our time, Redis's

    async def mend(self, streams: Sequence[str], group: str, nobody: str, idle_ms: int) -> int:
        """Start the leases of the future anew; how many there were. What `nobody` holds is overdue."""
        if self._last is not None and self._clock() < self._last[0] + _LOOK_S:
            return 0
        seconds, micros = await self._redis.time()
        here, there, last = self._clock(), seconds + micros / 1e6, self._last
        if last is not None and there - last[1] > here - last[0] - _SLACK_S:
            self._last = here, there
            return 0
        count = 0
        for stream in streams:
            count += int(await self._redis.eval(_RESTART, 1, stream, group, nobody, idle_ms))
        self._last = here, there
        return count
