"""When which recipe is retrained: a TOML file, and the process that follows it on a single box.

Any number of schedulers may run. What is due follows from the runs in the database, so a time that nobody was
there for is made up for at the next start, once, and of two schedulers the second finds nothing to do.
"""

import logging
import tomllib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Annotated

from apscheduler.executors.pool import ThreadPoolExecutor  # type: ignore[import-untyped]
from apscheduler.schedulers.background import BackgroundScheduler  # type: ignore[import-untyped]
from apscheduler.triggers.cron import CronTrigger  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from service.access.cli import duration
from service.db.repository import runs
from service.db.session import Database
from service.errors import StartupError
from service.metadata import Name
from service.retraining.drifted import DriftCause, OnDrift
from service.retraining.job import Outcome
from service.retraining.promote import Policy, Promotion
from service.retraining.span import Span

log = logging.getLogger(__name__)
_LOOK_S = 30
BY_TIME = "the schedule"


class Entry(BaseModel):
    """One recipe's schedule."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Name
    cron: str = Field(description="minute hour day month weekday, in the machine's zone or `zone`")
    zone: str | None = None
    since: Span = "30d"
    limit: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    options: tuple[str, ...] = ()
    gate_options: tuple[str, ...] = ()
    promote: Policy | None = None
    drift: OnDrift | None = None

    @property
    def span(self) -> timedelta:
        return duration(self.since)

    @property
    def trigger(self) -> CronTrigger:
        """Raises ValueError for what is no time."""
        return CronTrigger.from_crontab(self.cron, self.zone)


class Schedule(BaseModel):
    """The file: a table `[[job]]` for each recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: tuple[Entry, ...] = Field(min_length=1)


def read(path: Path) -> Schedule:
    """StartupError with what is wrong where."""
    try:
        found = Schedule.model_validate(tomllib.loads(path.read_text()))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise StartupError(f"the schedule {path} cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise StartupError(f"the schedule {path}: {place}: {first['msg']}") from None
    names = [entry.recipe for entry in found.job]
    for entry in found.job:
        if names.count(entry.recipe) > 1:
            raise StartupError(f"the schedule {path}: recipe {entry.recipe} has more than one job")
        try:
            _ = entry.trigger
        except Exception as error:  # each kind of wrong has its own in that library
            raise StartupError(f"the schedule {path}: recipe {entry.recipe}: {error}") from None
    return found


def due(database: Database, entry: Entry, since: datetime, now: datetime) -> datetime | None:
    """Since when a recipe is to be retrained, or None: by the last run, or by `since` where there was none.

    A run that never ended is due at once.
    """
    with database.read() as session:
        row = runs.latest(session, entry.recipe)
    if row is not None and runs.to_be_taken_up(row):
        return now
    anchor = since if row is None else row.started_at
    # The trigger rounds up to the second; a run that began within it would count as before it.
    following: datetime | None = entry.trigger.get_next_fire_time(None, anchor + timedelta(seconds=1))
    return following if following is not None and following <= now else None


class Scheduler:
    """Looks every half minute, and at the times of the file, what is due; one training at a time."""

    def __init__(
        self,
        database: Database,
        entries: Sequence[Entry],
        retrain: Callable[[Entry, datetime, str], Outcome],
        promotion: Promotion,
    ) -> None:
        self._database, self._entries, self._retrain, self._promotion = database, entries, retrain, promotion
        self._drift = DriftCause(database)
        self._began = datetime.now(UTC)
        pools = {"default": ThreadPoolExecutor(1), "promote": ThreadPoolExecutor(1)}
        once = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        self._scheduler = BackgroundScheduler(executors=pools, job_defaults=once, timezone=UTC)

    def run(self, stop: Event) -> None:
        """Until `stop` is set; a training that runs then is waited for (it has its own stop)."""
        for entry in self._entries:
            self._scheduler.add_job(
                self.look, "interval", [entry], seconds=_LOOK_S, next_run_time=datetime.now(UTC)
            )
            if entry.promote is not None:
                self._scheduler.add_job(
                    self._promote, "interval", [entry, entry.promote], seconds=_LOOK_S, executor="promote"
                )
            following = entry.trigger.get_next_fire_time(None, datetime.now(UTC))
            log.info("recipe %s is retrained next at %s", entry.recipe, following)
        self._scheduler.start()
        stop.wait()
        self._scheduler.shutdown(wait=True)

    def look(self, entry: Entry) -> Outcome | None:
        """Retrain if it is due, or if the line has drifted where that is a cause."""
        now = datetime.now(UTC)
        try:
            if (at := due(self._database, entry, self._began, now)) is not None:
                return self._retrain(entry, at, BY_TIME)
            if entry.drift is None or (found := self._drift.find(entry.recipe, entry.drift, now)) is None:
                return None
            return self._retrain(entry, *found)
        except (SQLAlchemyError, StartupError) as error:
            log.warning("recipe %s cannot be retrained for now: %s", entry.recipe, error)
        except Exception:
            log.exception("recipe %s could not be retrained", entry.recipe)
        return None

    def _promote(self, entry: Entry, policy: Policy) -> None:
        try:
            self._promotion.look(entry.recipe, policy)
        except SQLAlchemyError as error:
            log.warning("shadows cannot be looked at for now: %s", error)
        except Exception:
            log.exception("the shadow of recipe %s could not be judged", entry.recipe)
