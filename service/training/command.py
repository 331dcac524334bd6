"""`inlier-service export-training`: for a person, or for the job that retrains."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.commands import STORE, existing, guarded, opened, options
from service.errors import StartupError

if TYPE_CHECKING:
    from service.training.write import Written

MOST_IMAGES = 20_000


@click.command("export-training")
@click.argument("recipe")
@click.option("--since", default="30d", show_default=True, help="arrived since: 30d, 12h, or a date")
@click.option("--until", help="arrived before: 1d for a day ago, or a date [default: now]")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="folder to write [default: RECIPE-HASH in the working folder]",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000_000),
    default=MOST_IMAGES,
    show_default=True,
    help="most images to train on, drawn evenly from the span",
)
@options(*STORE, "log_level", "log_format")
def export_training(
    recipe: str, since: str, until: str | None, out: Path | None, limit: int, **flags: Any
) -> None:
    """Write a training set of RECIPE's stored inspections, for `inlier-trainer retrain` and `gate`.

    Prints what became of every inspection of the span, and the folder alone on the last line.
    """

    def run() -> None:
        # Imported late: only commands that need it wait for SQLAlchemy.
        from models.snapshot import Query
        from service.training.export import export

        now = datetime.now(UTC)
        query = Query(since=_past(since, now), until=_past(until, now) if until else now, limit=limit)
        if query.since >= query.until:
            raise StartupError(f"--since {since} is not before --until {until or 'now'}")
        failed = "nothing was written"
        try:
            with opened(existing(flags), failed) as (database, blobs):
                written = export(database, blobs, recipe, query, out, _progress)
        except OSError as error:
            raise StartupError(f"{failed}: {error}") from None
        _tell(written)

    guarded(run)


def _past(text: str, now: datetime) -> datetime:
    from service.access.cli import duration

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return now - duration(text)
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _progress(done: int, total: int) -> None:
    if done % 1000 == 0:
        click.echo(f"copied {done} of {total} images", err=True)


def _tell(written: "Written") -> None:
    manifest = written.manifest
    for name, count in sorted(manifest.inspections.items(), key=lambda item: item[0] != "all"):
        click.echo(f"inspections  {name:<14} {count}")
    for name, count in manifest.images.items():
        click.echo(f"images       {name:<14} {count}")
    if not written.new:
        click.echo("the same export was there already")
    click.echo(written.path)
