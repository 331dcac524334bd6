"""Stored scores: what limits are previewed on, suggested from, and applied to in hindsight."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from sqlalchemy import ColumnElement, case, select
from sqlalchemy.orm import Session

from models.bundle import Thresholds
from service.db.tables import InspectionRow
from service.ids import first_id_at
from service.recipes.whatif import VERDICTS, Stored


@dataclass(frozen=True)
class Span:
    """Finished inspections of a recipe under a model, profile and mask, in a half-open span of arrival."""

    recipe: str
    model_hash: str
    profile: str
    mask_id: str | None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        found = [
            InspectionRow.recipe == self.recipe,
            InspectionRow.model_hash == self.model_hash,
            InspectionRow.profile == self.profile,
            InspectionRow.status == "done",
            InspectionRow.score.is_not(None),
            InspectionRow.mask_id.is_(None)
            if self.mask_id is None
            else InspectionRow.mask_id == self.mask_id,
        ]
        if self.since is not None:
            found.append(InspectionRow.id >= first_id_at(self.since))
        if self.until is not None:
            found.append(InspectionRow.id < first_id_at(self.until))
        return found


def stored(session: Session, span: Span, limit: int) -> Stored:
    """The newest `limit` of the span as columns."""
    row = InspectionRow
    rows = session.execute(
        select(row.id, row.score, row.verdict, row.audit, row.review_state)
        .where(*span.conditions())
        .order_by(row.id.desc())
        .limit(limit)
    ).all()
    return Stored(
        ids=[row[0] for row in rows],
        scores=np.array([row[1] for row in rows], dtype=np.float64),
        decided=np.array([VERDICTS.index(row[2]) for row in rows], dtype=np.int64),
        audit=np.array([row[3] for row in rows], dtype=np.bool_),
        state=np.array([row[4] for row in rows], dtype=np.str_),
    )


@dataclass(frozen=True)
class Reevaluated:
    """What was decided, and what other limits would have decided."""

    id: str
    created_at: datetime
    score: float
    decided: str
    reevaluated: str
    review_state: str


def reevaluated(
    session: Session, span: Span, limits: Thresholds, *, changed: bool, before: str | None, limit: int
) -> list[Reevaluated]:
    """Up to `limit` inspections older than `before`, newest first; a view, nothing is written."""
    row = InspectionRow
    again = case((row.score < limits.review, "PASS"), (row.score < limits.reject, "REVIEW"), else_="REJECT")
    query = select(row.id, row.created_at, row.score, row.verdict, again, row.review_state)
    query = query.where(*span.conditions()).order_by(row.id.desc()).limit(limit)
    if changed:
        query = query.where(row.verdict != again)
    if before is not None:
        query = query.where(row.id < before)
    return [Reevaluated(*found) for found in session.execute(query)]
