"""The system's time as the service sees it in this process, put forwards or back by a test."""

import sys
import time
from datetime import UTC, datetime, timedelta, tzinfo

import pytest


class _Kind(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime)


class WallClock:
    """`jump` moves the system's time alone; `passes` also what `monotonic` shows."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._shift_s = self._passed_s = 0.0
        clock, time_s, time_ns = self, time.time, time.time_ns

        class Shifted(datetime, metaclass=_Kind):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
                return datetime.now(tz) + timedelta(seconds=clock._shift_s)

        for name, module in list(sys.modules.items()):
            if name.startswith("service.") and getattr(module, "datetime", None) is datetime:
                patch.setattr(module, "datetime", Shifted)
        patch.setattr(time, "time", lambda: time_s() + self._shift_s)
        patch.setattr(time, "time_ns", lambda: time_ns() + round(self._shift_s * 1e9))

    def jump(self, seconds: float) -> None:
        self._shift_s += seconds

    def passes(self, seconds: float) -> None:
        self._shift_s += seconds
        self._passed_s += seconds

    def monotonic(self) -> float:
        return time.monotonic() + self._passed_s

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._shift_s)
