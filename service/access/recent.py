"""What was looked up a moment ago, so that a busy camera does not ask the database at every image."""

import time
from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")
_MOST = 10_000


class Recent(Generic[Value]):
    """Values by key that are forgotten after `keep_s`, and the oldest when there are more than `most`."""

    def __init__(self, keep_s: float, most: int = _MOST) -> None:
        self._keep_s, self._most = keep_s, most
        self._values: OrderedDict[str, tuple[float, Value]] = OrderedDict()

    def get(self, key: str) -> Value | None:
        found = self._values.get(key)
        if found is None or found[0] < time.monotonic():
            return None
        return found[1]

    def put(self, key: str, value: Value) -> None:
        self._values[key] = (time.monotonic() + self._keep_s, value)
        self._values.move_to_end(key)
        while len(self._values) > self._most:
            self._values.popitem(last=False)

    def clear(self) -> None:
        self._values.clear()
