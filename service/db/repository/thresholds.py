"""Versions of the two limits of a recipe under a model and profile."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.bundle import Thresholds
from service.db.tables import ThresholdRow
from service.ids import new_id

SUGGESTED = "suggested by bundle"


def newest(session: Session, recipe: str, model_hash: str, profile: str) -> ThresholdRow | None:
    """The newest version of the limits."""
    return session.scalar(
        select(ThresholdRow)
        .where(
            ThresholdRow.recipe == recipe,
            ThresholdRow.model_hash == model_hash,
            ThresholdRow.profile == profile,
        )
        .order_by(ThresholdRow.version.desc())
        .limit(1)
    )


def history(
    session: Session, recipe: str, model_hash: str, profile: str, *, below: int | None, limit: int
) -> Sequence[ThresholdRow]:
    """Versions newest first, those below a number if one is given."""
    query = select(ThresholdRow).where(
        ThresholdRow.recipe == recipe,
        ThresholdRow.model_hash == model_hash,
        ThresholdRow.profile == profile,
    )
    if below is not None:
        query = query.where(ThresholdRow.version < below)
    return session.scalars(query.order_by(ThresholdRow.version.desc()).limit(limit)).all()


def models_of(session: Session, recipe: str, limit: int = 50) -> Sequence[str]:
    """Bundles under which a recipe has limits, those whose limits are newest first."""
    query = select(ThresholdRow.model_hash).where(ThresholdRow.recipe == recipe)
    newest = func.max(ThresholdRow.id).desc()
    return session.scalars(query.group_by(ThresholdRow.model_hash).order_by(newest).limit(limit)).all()


def version(session: Session, recipe: str, model_hash: str, profile: str, number: int) -> ThresholdRow | None:
    return session.scalar(
        select(ThresholdRow).where(
            ThresholdRow.recipe == recipe,
            ThresholdRow.model_hash == model_hash,
            ThresholdRow.profile == profile,
            ThresholdRow.version == number,
        )
    )


def add(
    session: Session,
    recipe: str,
    model_hash: str,
    profile: str,
    values: Thresholds,
    *,
    who: str,
    why: str,
) -> ThresholdRow:
    """A new version of the limits of a recipe under a model and profile."""
    last = session.scalar(
        select(func.max(ThresholdRow.version)).where(
            ThresholdRow.recipe == recipe,
            ThresholdRow.model_hash == model_hash,
            ThresholdRow.profile == profile,
        )
    )
    row = ThresholdRow(
        id=new_id(),
        recipe=recipe,
        model_hash=model_hash,
        profile=profile,
        version=(last or 0) + 1,
        review=values.review,
        reject=values.reject,
        who=who,
        created_at=datetime.now(UTC),
        why=why,
    )
    session.add(row)
    session.flush()
    return row


def ensure(
    session: Session, recipe: str, model_hash: str, profile: str, suggested: Thresholds
) -> ThresholdRow:
    """The newest limits, or the bundle's suggestion as the first version."""
    return newest(session, recipe, model_hash, profile) or add(
        session, recipe, model_hash, profile, suggested, who="inlier-service", why=SUGGESTED
    )
