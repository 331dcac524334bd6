"""`inlier-service backup` and `restore`."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from service.commands import STORE, existing, guarded, make_folder, options, settings_from
from service.errors import StartupError

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("folder", type=_FOLDER)
@click.option("--keep", type=click.IntRange(min=1), help="remove all but so many of the newest snapshots")
@options(*STORE, "log_level", "log_format")
def backup(folder: Path, keep: int | None, **flags: Any) -> None:
    """Copy the database and the images it names to FOLDER, while the service runs.

    Each run adds a snapshot; images that FOLDER has are not copied again.
    """

    def run() -> None:
        # Imported late: only commands that need it wait for SQLAlchemy.
        from service.backup.store import Backups
        from service.blobs import BlobsUnavailable
        from service.blobs.open import open_blobs

        settings, backups = existing(flags), Backups(folder)
        try:
            snapshot = backups.take(settings.url, open_blobs(settings, alone=False), _shown)
        except (OSError, BlobsUnavailable) as error:
            raise StartupError(f"stopped half-way, run it again: {error}") from None
        click.echo(f"{snapshot.name}: {snapshot.inspections} inspections, {snapshot.blobs} images and maps")
        for path in snapshot.bundles:
            click.echo(f"not part of it, keep it yourself: bundle {path}")
        if snapshot.missing:
            raise StartupError(
                f"{len(snapshot.missing)} images or maps that the database names are not stored any more; if "
                "`prune` ran meanwhile, run the backup again"
            )
        if keep is not None and (removed := backups.keep(keep)):
            click.echo(f"removed {removed} older snapshots")

    guarded(run)


@click.command()
@click.argument("folder", type=_FOLDER)
@click.option("--snapshot", help="which one to restore [default: the newest]")
@click.option("--list", "listing", is_flag=True, help="only list the snapshots of FOLDER")
@options(*STORE, "log_level", "log_format")
def restore(folder: Path, snapshot: str | None, listing: bool, **flags: Any) -> None:
    """Put a snapshot of FOLDER back, to where nothing is yet: an empty data folder, an empty database."""

    def run() -> None:
        # Imported late: only commands that need it wait for SQLAlchemy.
        from service.backup.store import Backups
        from service.blobs import BlobsUnavailable
        from service.blobs.open import open_blobs
        from service.folder import DataFolder

        settings, backups = settings_from(flags), Backups(folder)
        if listing:
            for one in backups.listed():
                click.echo(f"{one.name}: {one.inspections} inspections, {one.blobs} images and maps")
            return
        found = backups.find(snapshot)
        make_folder(settings.data)
        data = DataFolder(settings.data, shared=False)  # nobody else is using it
        try:
            lost = backups.restore(found, settings.url, open_blobs(settings, alone=True), _shown)
        except (OSError, BlobsUnavailable) as error:
            raise StartupError(f"stopped half-way, run it again: {error}") from None
        finally:
            data.close()
        click.echo(f"restored {found.name}: {found.inspections} inspections, {found.blobs} images and maps")
        for path in found.bundles:
            click.echo(f"put back yourself, if it is not there: bundle {path}")
        if lost:
            raise StartupError(f"{len(lost)} images or maps are damaged or missing in the backup: {lost[:3]}")

    guarded(run)


def _shown(names: Iterable[str], count: int) -> Iterator[str]:
    with click.progressbar(names, length=count, label="images and maps", file=sys.stderr) as bar:
        yield from bar
