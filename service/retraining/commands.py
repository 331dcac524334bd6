"""`inlier-service retrain`, for cron, systemd and Kubernetes; `schedule`, for the single box; `runs`."""

import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import click

from service.access.cli import database_options, duration, on_database, shown
from service.commands import STORE, existing, guarded, opened, options
from service.errors import StartupError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from service.retraining.job import Job, Outcome, Plan

REJECTED, FAILED, INTERRUPTED = 1, 2, 3


def _how(command: Any) -> Any:
    """Where and how hard a run works."""
    for option in (
        click.option(
            "--trainer",
            default="inlier-trainer",
            show_default=True,
            help="command that trains; a wrapper of yours may run it on another machine",
        ),
        click.option(
            "--work",
            type=click.Path(path_type=Path, file_okay=False),
            help="folder for exports, logs and checkpoints [default: retraining in the data folder]",
        ),
        click.option(
            "--training-threads",
            type=click.IntRange(min=0),
            default=1,
            show_default=True,
            help="threads of the training; 0: as many as it likes",
        ),
        click.option(
            "--most-waiting",
            type=click.IntRange(min=0, max=10_000),
            default=4,
            show_default=True,
            help="camera images that may wait before the training stands still",
        ),
        options(*STORE, "bundles", "trusted_keys", "log_level", "log_format"),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("recipe")
@click.option("--since", default="30d", show_default=True, help="train on what arrived since: 30d, 12h")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=20_000, show_default=True, help="images")
@click.option(
    "--option", "extra", multiple=True, help="further words for `inlier-trainer retrain`; repeatable"
)
@click.option(
    "--gate-option", "gate", multiple=True, help="further words for `inlier-trainer gate`; repeatable"
)
@click.option("--cause", default="a person", show_default=True, help="noted with the run")
@_how
def retrain(
    recipe: str,
    since: str,
    limit: int,
    extra: tuple[str, ...],
    gate: tuple[str, ...],
    cause: str,
    **flags: Any,
) -> None:
    """Retrain RECIPE on its recent images; a candidate that passes the gate becomes its shadow.

    Status 0: it did, or another process is at it; 1: the gate refused it; 2: it failed; 3: it was stopped.
    """

    def run() -> None:
        with _job(flags) as (job, plan):
            _on_signals(job.stop)
            outcome = job.run(
                plan(
                    recipe=recipe,
                    since=duration(since),
                    limit=limit,
                    options=_words(extra),
                    gate_options=_words(gate),
                    cause=cause,
                )
            )
        _tell(recipe, outcome)

    guarded(run)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_how
def schedule(file: Path, **flags: Any) -> None:
    """Retrain recipes at the times of a TOML FILE until stopped; several schedulers do not collide."""

    def run() -> None:
        from service.retraining.promote import Promotion
        from service.retraining.schedule import Entry, Scheduler, read

        found = read(file)
        with _job(flags) as (job, plan):

            def once(entry: Entry, at: datetime, cause: str) -> "Outcome":
                return job.run(
                    plan(
                        recipe=entry.recipe,
                        since=entry.span,
                        limit=entry.limit,
                        options=entry.options,
                        gate_options=entry.gate_options,
                        cause=cause,
                        due=at,
                    )
                )

            _on_signals(job.stop)
            Scheduler(job.database, found.job, once, Promotion(job.database)).run(job.stop)

    guarded(run)


@click.command("runs")
@click.argument("recipe", required=False)
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="most runs shown")
@database_options
def list_runs(recipe: str | None, limit: int, **flags: Any) -> None:
    """Runs of the job that retrains, newest first: recipe, when, what became of it, and why."""

    def run(session: "Session") -> Iterable[str]:
        from service.db.repository import runs

        return [
            "  ".join(
                (
                    shown(row.started_at),
                    row.recipe,
                    row.state if row.state != "running" else f"running: {row.step}",
                    row.cause,
                    *([row.candidate_hash[:12]] if row.candidate_hash else []),
                    *([row.detail] if row.detail else []),
                )
            )
            for row in runs.listed(session, recipe, limit=limit)
        ] or ["nothing was retrained yet"]

    on_database(flags, run)


@contextmanager
def _job(flags: dict[str, Any]) -> "Iterator[tuple[Job, Callable[..., Plan]]]":
    """A job on the database, and plans that lack only what is to be trained."""
    trainer, work, threads, most = (
        flags.pop(name) for name in ("trainer", "work", "training_threads", "most_waiting")
    )
    settings = existing(flags)
    if settings.bundles is None:
        raise StartupError("where candidates are published must be said: --bundles DIR or INLIER_BUNDLES")
    if not (command := tuple(shlex.split(trainer))):
        raise StartupError("--trainer is empty")
    # Imported late: only commands that need it wait for SQLAlchemy.
    from service.retraining.job import Job, Plan

    plan = partial(
        Plan,
        work=work or settings.data / "retraining",
        bundles=settings.bundles,
        trainer=command,
        threads=threads,
        most_waiting=most,
    )
    with opened(settings, "stopped half-way, run it again") as (database, blobs):
        yield Job(database, blobs, settings.trusted_keys), plan


def _words(options: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for each in options for word in shlex.split(each))


def _on_signals(stop: Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


def _tell(recipe: str, outcome: "Outcome") -> None:
    if outcome.state == "passed":
        click.echo(f"recipe {recipe}: {outcome.candidate} passed the gate and is its shadow now")
        return
    click.echo(f"recipe {recipe}: {outcome.state}: {outcome.detail}", err=outcome.state != "elsewhere")
    status = {"rejected": REJECTED, "failed": FAILED, "interrupted": INTERRUPTED}.get(outcome.state, 0)
    sys.exit(status)
