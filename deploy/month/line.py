"""The line as real processes: the service, the scheduler that promotes, and the commands users have."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from deploy.processes import Process, new_key, started

LEARNING, KEPT = "tile", "tile-kept"
"""The recipe that is retrained, and the one that keeps its first model: the two arms."""

# The runs are begun by the month itself, as its days are shorter than real ones: the scheduler only promotes.
SCHEDULE = """
[[job]]
recipe = "{recipe}"
cron = "0 3 29 2 *"
promote = {{ inspections = {inspections}, agreement = {agreement} }}
"""


class MonthError(RuntimeError):
    """Something of the line did not do what it should."""


@dataclass(frozen=True)
class Line:
    """A running service, and the keys of those that use it."""

    url: str
    data: Path
    bundles: Path
    camera: dict[str, str]
    operator: dict[str, str]
    admin: dict[str, str]

    @property
    def database(self) -> Path:
        return self.data / "inlier.sqlite3"

    def get(self, path: str, **query: Any) -> Any:
        answer = httpx.get(f"{self.url}{path}", params=query, headers=self.admin, timeout=60)
        if not answer.is_success:
            raise MonthError(f"GET {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def change(self, path: str, body: dict[str, Any], who: dict[str, str] | None = None) -> Any:
        answer = httpx.post(f"{self.url}{path}", json=body, headers=who or self.admin, timeout=120)
        if not answer.is_success:
            raise MonthError(f"POST {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def end_shadow(self, model: str, why: str) -> None:
        said = {"recipe": LEARNING, "why": why}
        answer = httpx.delete(
            f"{self.url}/v1/models/{model}/shadow", params=said, headers=self.admin, timeout=60
        )
        if not answer.is_success:
            raise MonthError(f"DELETE shadow: {answer.status_code} {answer.text}")

    def active(self, recipe: str) -> str | None:
        """The hash that was activated for a recipe; None while the service's own inspects it."""
        found = self.get(f"/v1/recipes/{recipe}")["model_hash"]
        return None if found is None else str(found)

    def shadow(self) -> str | None:
        found = self.get(f"/v1/recipes/{LEARNING}")["shadow_hash"]
        return None if found is None else str(found)


@contextmanager
def serving(bundle: Path, folder: Path, audit_rate: float) -> Iterator[Line]:
    """A service on an empty SQLite database below `folder`, with both recipes made."""
    data, bundles = folder / "data", folder / "bundles"
    bundles.mkdir(parents=True)
    data.mkdir()
    keys = [new_key(f"month-{scope}", scope, "--data", data) for scope in ("camera", "operator", "admin")]
    words = ("serve", "--bundle", bundle, "--bundles", bundles, "--data", data, "--port", 0)
    options = ("--threads", 1, "--shadow-backlog", 256, "--rate-limit-per-s", 0)
    with started(folder / "service.log", *words, *options) as process:
        line = Line(process.address, data, bundles, *keys)
        for recipe in (LEARNING, KEPT):
            line.change("/v1/recipes", {"name": recipe, "audit_rate": audit_rate})
        yield line
        if status := process.stop():
            raise MonthError(f"the service ended with status {status}")


@contextmanager
def scheduling(line: Line, folder: Path, inspections: int, agreement: float) -> Iterator[None]:
    """The scheduler process, which promotes a shadow by policy; it looks every half minute."""
    file = folder / "schedule.toml"
    file.write_text(SCHEDULE.format(recipe=LEARNING, inspections=inspections, agreement=agreement))
    words = ("schedule", file, "--data", line.data, "--bundles", line.bundles)
    process = Process(folder / "scheduler.log", *words)
    process.begin()
    try:
        yield
        if not process.runs:
            raise MonthError(f"the scheduler ended\n{process.log}")
    finally:
        if process.runs:
            process.stop()
