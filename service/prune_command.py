"""`inlier-service prune`: for cron, or a Kubernetes CronJob, beside a service that runs."""

from typing import Any

import click

from service.commands import STORE, guarded, options, settings_from
from service.errors import StartupError


@click.command()
@click.option("--dry-run", is_flag=True, help="only say what would be removed")
@click.option(
    "--grace-s",
    type=click.FloatRange(min=60),
    default=3600.0,
    show_default=True,
    help="younger blobs stay: their inspection may be about to be stored",
)
@options(*STORE, "log_level", "log_format")
def prune(dry_run: bool, grace_s: float, **flags: Any) -> None:
    """Remove inspections past their recipe's retention, and blobs that nothing refers to.

    Reviewed inspections stay. It may run beside the service, and be killed at any time.
    """

    def run() -> None:
        # Imported late: only commands that need it wait for SQLAlchemy.
        from sqlalchemy.exc import DatabaseError

        from service.access.cli import me
        from service.blobs import BlobsUnavailable
        from service.blobs.open import open_blobs
        from service.db.session import Database
        from service.prune import prune as carry_out

        settings = settings_from(flags)
        if settings.database_url is None and not settings.data.is_dir():
            raise StartupError(f"there is no data folder {settings.data}; see --data")
        database = Database(settings.url)
        try:
            database.migrate()
            blobs = open_blobs(settings, alone=False)
            done = carry_out(database, blobs, me(), grace_s=grace_s, dry_run=dry_run)
        except (DatabaseError, BlobsUnavailable) as error:
            reason = error.orig if isinstance(error, DatabaseError) else error
            raise StartupError(f"stopped half-way, run it again: {reason}") from None
        finally:
            database.close()
        verb = "would remove" if dry_run else "removed"
        for recipe, count in done.inspections.items():
            click.echo(f"{recipe}: {verb} {count} inspections")
        if not done.inspections:
            click.echo("no recipe has a retention")
        click.echo(f"{verb} {done.blobs} blobs that no inspection refers to{' now' if dry_run else ''}")

    guarded(run)
