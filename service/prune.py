"""Retention: rows first, each portion in a transaction; then the blobs that no row refers to.

Killed at any point it leaves at most blobs without a row, and the next run removes those: it looks at all
blobs, not only at those of the rows that it removed. Blobs younger than a grace period are left alone: their
row may be about to be committed. Everything here blocks.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice

from service.access.principal import Principal
from service.blobs import BlobStore
from service.db.repository import audit, retention
from service.db.repository.retention import Limit
from service.db.session import Database

log = logging.getLogger(__name__)
_ROWS = 200
_BLOBS = 500
_PAUSE_S = 0.01  # between portions, so that a service beside us gets its turn
_SETTLE_S = 30.0  # longer than it takes from a blob to the row that names it
_MOST_SETTLING = 50_000


@dataclass
class Pruned:
    """What was removed, or would be: inspections by recipe, and blobs."""

    inspections: dict[str, int] = field(default_factory=dict)
    blobs: int = 0


def prune(
    database: Database, blobs: BlobStore, who: Principal, *, grace_s: float, dry_run: bool = False
) -> Pruned:
    """Remove what recipes' retention says; a dry run counts, blobs as if no row had been removed."""
    now, done = datetime.now(UTC), Pruned()
    with database.read() as session:
        limits = retention.limits(session, now)
    for limit in limits:
        done.inspections[limit.recipe] = (
            _count(database, limit, now) if dry_run else _prune_rows(database, who, limit, now)
        )
    done.blobs = _prune_blobs(database, blobs, time.time() - grace_s, dry_run=dry_run)
    if not dry_run:
        blobs.sweep(max(grace_s, 60.0))
        if done.blobs:
            with database.write() as session:
                audit.record(session, who, "blobs.prune", "blobs", {"count": done.blobs})
    return done


def _count(database: Database, limit: Limit, now: datetime) -> int:
    with database.read() as session:
        return retention.count(session, limit, now)


def _prune_rows(database: Database, who: Principal, limit: Limit, now: datetime) -> int:
    total, after = 0, ""
    while True:
        with database.read() as session:
            identifiers = retention.portion(session, limit, now, after=after, most=_ROWS)
        if not identifiers:
            return total
        after = identifiers[-1]
        with database.write() as session:
            count = retention.remove(session, limit, now, identifiers)
            if count:
                detail = {"count": count, "before": limit.before.isoformat()}
                detail |= {"first": identifiers[0], "last": after}
                audit.record(session, who, "inspections.prune", f"recipe/{limit.recipe}", detail)
        total += count
        log.info("removed %d inspections of %s", total, limit.recipe)
        time.sleep(_PAUSE_S)


def _prune_blobs(database: Database, blobs: BlobStore, put_before: float, *, dry_run: bool) -> int:
    old = (blob.name for blob in blobs.stored() if blob.put_at < put_before)
    orphans = (name for names in _portions(old, _BLOBS) for name in _orphans(database, names))
    if dry_run:
        return sum(1 for _ in orphans)
    removed = 0
    for settling in _portions(orphans, _MOST_SETTLING):
        # Age goes by the clock, which may have jumped: what nobody refers to is looked at again later.
        _settle()
        for names in _portions(iter(settling), _BLOBS):
            for name in _orphans(database, names):
                # A put since we looked has made the blob young again, and it stays.
                removed += blobs.remove(name, put_before=put_before)
    return removed


def _settle() -> None:
    time.sleep(_SETTLE_S)


def _orphans(database: Database, names: set[str]) -> list[str]:
    with database.read() as session:
        return sorted(names - retention.referenced(session, names))


def _portions(names: Iterator[str], size: int) -> Iterator[set[str]]:
    while portion := set(islice(names, size)):
        yield portion
