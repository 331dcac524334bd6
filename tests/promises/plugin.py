"""What pytest saw of each promise: outcomes, figures (record_property) and seconds."""

from collections.abc import Collection
from dataclasses import dataclass, field

import pytest


@dataclass
class Seen:
    """Of one promise. A test that is skipped was not run."""

    passed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    figures: dict[str, object] = field(default_factory=dict)
    spent_s: float = 0.0


class Collector:
    """A pytest plugin; `only` these promises, all if empty."""

    def __init__(self, only: Collection[int] = ()) -> None:
        self._only = set(only)
        self._numbers: dict[str, set[int]] = {}
        self.seen: dict[int, Seen] = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        kept, left = [], []
        for item in items:
            numbers = {mark.args[0] for mark in item.iter_markers("promise")}
            wanted = numbers & self._only if self._only else numbers
            (kept if wanted else left).append(item)
            self._numbers[item.nodeid] = wanted
        if left:
            config.hook.pytest_deselected(items=left)
            items[:] = kept

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = report.nodeid.split("[")[0]
        for number in self._numbers[report.nodeid]:
            seen = self.seen.setdefault(number, Seen())
            seen.spent_s += report.duration
            if report.failed:
                seen.failed.add(test)
            elif report.skipped:
                seen.skipped.add(test)
            elif report.when == "call":
                seen.passed.add(test)
                seen.figures.update(report.user_properties)
