"""One run: export -> train -> gate -> release, each step noted in the database before it begins.

A candidate that passes the gate is registered and shadows its recipe; what inspects is left alone, whatever
happens here. A run that was interrupted is taken up where its training stood.
"""

import logging
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

from models.bundle import Bundle
from models.snapshot import Query
from service.access.cli import me
from service.blobs import BlobStore
from service.bundles import examine
from service.db.repository import audit, model_life, outbox, runs
from service.db.repository import models as model_rows
from service.db.session import Database
from service.db.tables import ModelRow, TrainingRunRow
from service.errors import InspectionError, StartupError
from service.model_life import ModelBook
from service.retraining import child, confirmed
from service.retraining.lease import Held
from service.training.export import export
from service.training.marks import write_marks

log = logging.getLogger(__name__)
_GATE_FAILED = 1
_TAKEN_UP = timedelta(days=7)  # an interrupted run that is older is begun anew


@dataclass(frozen=True)
class Plan:
    """What a run is to do."""

    recipe: str
    since: timedelta
    work: Path  # exports, logs and checkpoints, a folder per run
    bundles: Path  # where candidates are published
    trainer: tuple[str, ...] = ("inlier-trainer",)
    cause: str = "a person"
    threads: int = 1
    most_waiting: int = 4  # camera images that may wait before the training stands still
    limit: int = 20_000
    options: tuple[str, ...] = ()  # for `inlier-trainer retrain`
    gate_options: tuple[str, ...] = ()  # for `inlier-trainer gate`
    due: datetime | None = None  # of a schedule: nothing is done if a run began since
    keep: int = 3  # folders of finished runs


@dataclass(frozen=True)
class Outcome:
    """How a run ended; without `run` another process is at it."""

    state: str
    detail: str = ""
    run: str | None = None
    candidate: str | None = None


class Refused(Exception):
    """The gate says no; the message is its reason."""


class Job:
    """Runs of one database."""

    def __init__(self, database: Database, blobs: BlobStore, trusted_keys: Path | None = None) -> None:
        self.database, self._blobs, self._trusted_keys = database, blobs, trusted_keys
        self.stop = Event()

    def run(self, plan: Plan) -> Outcome:
        """Do everything; never raises for what went wrong with the candidate, which the outcome says."""
        with Held(self.database, plan.recipe) as lease:
            if not lease.taken:
                return Outcome("elsewhere", f"recipe {plan.recipe} is being retrained by another process")
            if plan.due is not None and self._began_since(plan.recipe, plan.due):
                return Outcome("elsewhere", f"recipe {plan.recipe} was retrained by another process")
            base = self._base(plan.recipe)
            row, resume = self._begin(plan, base)
            try:
                return self._steps(plan, row, base, resume, lease)
            except Refused as refused:
                return self._end(plan, row, "rejected", str(refused))
            except child.Interrupted:
                return self._end(plan, row, "interrupted", "it was stopped; the next run takes it up")
            except (StartupError, InspectionError, OSError) as error:
                return self._end(plan, row, "failed", getattr(error, "detail", None) or str(error))
            except Exception as error:
                self._end(plan, row, "failed", repr(error))
                raise

    # --- steps ---

    def _steps(self, plan: Plan, row: TrainingRunRow, base: ModelRow, resume: bool, lease: Held) -> Outcome:
        folder = Path(row.folder)
        exported, fitted, marks = folder / "export", folder / "fit", folder / "marks.csv"
        if not resume:
            now = datetime.now(UTC)
            query = Query(since=now - plan.since, until=now, limit=plan.limit)
            written = export(self.database, self._blobs, plan.recipe, query, exported)
            if (lacking := confirmed.lacking(written.manifest.images, plan.gate_options)) is not None:
                raise Refused(lacking)
            write_marks(self.database, exported, marks)
        self._step(row, "train")
        self._child(
            plan,
            lease,
            folder / "train.log",
            *("retrain", str(exported), "--base", base.path, "--out", str(fitted)),
            *(["--marks", str(marks)] if marks.exists() else []),
            *(["--resume"] if resume else []),
            *plan.options,
        )
        candidate = examine(fitted / "bundle")  # our own; it is signed, if at all, when a person releases it
        self._step(row, "gate", candidate.hash)
        self._child(
            plan,
            lease,
            folder / "gate.log",
            *("gate", str(candidate.path), "--against", base.path, "--export", str(exported)),
            *("--json", str(folder / "gate.json"), "--html", str(folder / "gate.html")),
            *("--threads", str(plan.threads)),
            *plan.gate_options,
        )
        self._step(row, "release", candidate.hash)
        self._release(plan, row, base, candidate)
        return self._end(plan, row, "passed", "", candidate.hash)

    def _child(self, plan: Plan, lease: Held, log_file: Path, *arguments: str) -> None:
        ended = child.run(
            [*plan.trainer, *arguments],
            log_file,
            threads=plan.threads,
            quiet=child.Quiet(lambda: self._busy(plan, lease)),
            stop=self.stop,
        )
        if ended.paused_s:
            log.info("%s stood still for %.0f s while images waited", arguments[0], ended.paused_s)
        if ended.status == _GATE_FAILED and arguments[0] == "gate":
            raise Refused(ended.said)
        if ended.status:
            raise StartupError(f"{arguments[0]} ended with status {ended.status}: {ended.said} ({log_file})")

    def _busy(self, plan: Plan, lease: Held) -> bool:
        if lease.lost.is_set():
            raise StartupError("another process took the run over: this one could not renew its lease")
        with self.database.read() as session:
            return runs.waiting(session, most=plan.most_waiting + 1) > plan.most_waiting

    def _release(self, plan: Plan, row: TrainingRunRow, base: ModelRow, candidate: Bundle) -> None:
        """Publish the bundle by one rename, register it, and let it shadow the recipe."""
        plan.bundles.mkdir(parents=True, exist_ok=True)
        place = plan.bundles / f"{plan.recipe}-{row.started_at:%Y%m%d}-{candidate.hash[:12]}"
        if not place.exists():
            half = place.with_name(f".{place.name}.new")
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(candidate.path, half)
            half.replace(place)
        book = ModelBook(self.database)
        book.register(me(), place, self._trusted_keys)
        why = f"run {row.id} passed the gate"
        book.shadow(me(), candidate.hash, plan.recipe, serves=base.hash, on=True, why=why)

    # --- the row ---

    def _began_since(self, recipe: str, due: datetime) -> bool:
        with self.database.read() as session:
            row = runs.latest(session, recipe)
        return row is not None and row.started_at >= due and not runs.to_be_taken_up(row)

    def _base(self, recipe: str) -> ModelRow:
        with self.database.read() as session:
            found = model_life.active(session, recipe)
            row = None if found is None else model_rows.get(session, found)
        if row is None or not row.path:
            raise StartupError(f"no model inspects recipe {recipe}; serve one first, it is what is improved")
        return row

    def _begin(self, plan: Plan, base: ModelRow) -> tuple[TrainingRunRow, bool]:
        with self.database.write() as session:
            before = runs.latest(session, plan.recipe)
            resume = before is not None and _can_be_taken_up(before, base)
            row = runs.begin(
                session, plan.recipe, cause=plan.cause, who=me().name, folder="", base_hash=base.hash
            )
            folder = Path(before.folder) if before is not None and resume else plan.work / row.id
            row.folder = str(folder.absolute())
            row.step = "train" if resume else "export"
            audit.record(session, me(), "training.start", f"recipe/{plan.recipe}", {"run": row.id})
        Path(row.folder).mkdir(parents=True, exist_ok=True)
        log.info("run %s of recipe %s begins%s", row.id, plan.recipe, ", taken up" if resume else "")
        return row, resume

    def _step(self, row: TrainingRunRow, step: str, candidate: str | None = None) -> None:
        log.info("run %s: %s", row.id, step)
        with self.database.write() as session:
            found = runs.get(session, row.id)
            found.step, found.candidate_hash = step, candidate

    def _end(
        self, plan: Plan, row: TrainingRunRow, state: runs.Outcome, detail: str, candidate: str | None = None
    ) -> Outcome:
        with self.database.write() as session:
            found = runs.get(session, row.id)
            runs.end(found, state, detail=detail or None)
            if state == "passed":
                found.step = "done"
            told = {
                "run": row.id,
                "recipe": plan.recipe,
                "step": found.step,
                "detail": detail,
                "base_hash": found.base_hash,
                "candidate_hash": found.candidate_hash,
            }
            audit.record(session, me(), f"training.{state}", f"recipe/{plan.recipe}", told)
            if state != "interrupted":
                outbox.announce(session, f"training.{state}", plan.recipe, told)
            candidate = found.candidate_hash
        log.log(
            logging.INFO if state == "passed" else logging.WARNING,
            "run %s of recipe %s: %s %s",
            *(row.id, plan.recipe, state, detail),
        )
        if state in ("passed", "rejected"):
            self._tidy(plan)
        return Outcome(state, detail, row.id, candidate)

    def _tidy(self, plan: Plan) -> None:
        """Remove the folders of older runs of the recipe; their rows stay."""
        with self.database.read() as session:
            rows = runs.listed(session, plan.recipe, limit=1000)
        folders = list(dict.fromkeys(Path(row.folder) for row in rows))  # a run taken up shares its folder
        for folder in folders[plan.keep :]:
            if folder.parent == plan.work.absolute():  # only what this job made
                shutil.rmtree(folder, ignore_errors=True)


def _can_be_taken_up(row: TrainingRunRow, base: ModelRow) -> bool:
    fresh = datetime.now(UTC) - row.started_at < _TAKEN_UP
    same = runs.to_be_taken_up(row) and row.step == "train" and row.base_hash == base.hash
    return fresh and same and (Path(row.folder) / "fit").is_dir()
