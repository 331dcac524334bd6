"""Runs as people and programs look at them: what became of each, and what its gate said.

A run leaves its gate's report in its folder, on the machine that ran it. A service on another machine, or one
that comes when the folder was cleared, has the row alone. Everything here blocks and is called in a thread.
"""

import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from service.db.repository import leases, model_life, runs
from service.db.session import Database
from service.db.tables import TrainingRunRow
from service.errors import InspectionError
from service.retraining.lease import lease_name

REPORT, JSON = "gate.html", "gate.json"
_MOST_BYTES = 32_000_000


class Criterion(BaseModel):
    """One question of the gate, as `inlier-trainer gate --json` writes it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    title: str
    passed: bool | None
    why: str


class Verdict(BaseModel):
    """What the gate said."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    passed: bool
    criteria: tuple[Criterion, ...]

    @property
    def failed(self) -> list[Criterion]:
        return [one for one in self.criteria if one.passed is False]


@dataclass(frozen=True)
class Run:
    """A run; `gate` and `report` where they are at hand."""

    row: TrainingRunRow
    gate: Verdict | None
    report: bool
    alone: bool
    """It says that it is running, and no process holds its lease: the one that ran it was killed."""

    @property
    def state(self) -> str:
        return "interrupted" if self.alone else self.row.state

    def seconds(self, now: datetime) -> float | None:
        """How long it took, or has been at it; None where nobody noted its end."""
        if self.row.finished_at is None and self.alone:
            return None
        return ((self.row.finished_at or now) - self.row.started_at).total_seconds()


@dataclass(frozen=True)
class Runs:
    """Some runs, and the names of the models that they mention, by hash."""

    items: Sequence[Run]
    titles: Mapping[str, str]
    at: datetime


def history(
    database: Database,
    recipe: str | None = None,
    *,
    state: str | None = None,
    before: str | None = None,
    limit: int,
) -> Runs:
    """Newest first. `state` is that of the row: a run that was killed is `running` until the next begins."""
    with database.read() as session:
        rows = runs.listed(session, recipe, state=state, before=before, limit=limit)
        wanted = {lease_name(row.recipe) for row in rows if row.state == "running"}
        held = leases.held(session, wanted) if wanted else set()
        hashes = {found for row in rows for found in (row.base_hash, row.candidate_hash) if found}
        titles = model_life.titles(session, hashes)
    return Runs([_seen(row, held) for row in rows], titles, datetime.now(UTC))


def report(database: Database, identifier: str) -> bytes:
    """The gate's report of a run; InspectionError 404 without the run, or where its folder is not at hand."""
    with database.read() as session:
        row = runs.find(session, identifier)
    if row is None:
        raise InspectionError(404, "unknown-run", f"there is no run {identifier}")
    found = _read(row, REPORT)
    if found is None:
        detail = (
            f"the gate's report of run {identifier} is not here: it was not held, its folder was cleared, "
            "or it lies on another machine"
        )
        raise InspectionError(404, "no-report", detail)
    return found


def _seen(row: TrainingRunRow, held: set[str]) -> Run:
    alone = row.state == "running" and lease_name(row.recipe) not in held
    # A run that was taken up shares its folder with the one before it, which came to no gate.
    asked = row.state in ("passed", "rejected") or (row.state == "failed" and row.step == "release")
    return Run(row, _verdict(row) if asked else None, asked and _is_there(row, REPORT), alone)


def _verdict(row: TrainingRunRow) -> Verdict | None:
    found = _read(row, JSON)
    try:
        return None if found is None else Verdict.model_validate(json.loads(found))
    except (ValueError, ValidationError):
        return None


def _is_there(row: TrainingRunRow, name: str) -> bool:
    try:
        return stat.S_ISREG((Path(row.folder) / name).lstat().st_mode)
    except (OSError, ValueError):
        return False


def _read(row: TrainingRunRow, name: str) -> bytes | None:
    """A file that the run left, and no link to another."""
    if not row.folder:
        return None
    try:
        handle = os.open(Path(row.folder) / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            known = os.fstat(file.fileno())
            return file.read() if stat.S_ISREG(known.st_mode) and known.st_size <= _MOST_BYTES else None
    except (OSError, ValueError):
        return None
