"""`inlier-service prune`: for cron, or a Kubernetes CronJob, beside a service that runs."""

from typing import Any

import click

from service.commands import STORE, existing, guarded, opened, options


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
        from service.access.cli import me
        from service.prune import prune as carry_out

        with opened(existing(flags), "stopped half-way, run it again") as (database, blobs):
            done = carry_out(database, blobs, me(), grace_s=grace_s, dry_run=dry_run)
        verb = "would remove" if dry_run else "removed"
        for recipe, count in done.inspections.items():
            click.echo(f"{recipe}: {verb} {count} inspections")
        if not done.inspections:
            click.echo("no recipe has a retention")
        click.echo(f"{verb} {done.blobs} blobs that no inspection refers to{' now' if dry_run else ''}")

    guarded(run)
