"""Reviews: rows are only added; an inspection's own columns follow in the same transaction."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from service.db.repository import filters
from service.db.tables import InspectionRow, ReviewRow
from service.errors import InspectionError
from service.ids import new_id

WITHDRAWN = "withdrawn"
CLAIM = timedelta(minutes=5)
"""How long somebody who looks at an inspection has it for themselves."""


def lock(session: Session, identifier: str) -> InspectionRow:
    """The inspection, held against others' changes until the transaction ends; 404 if there is none."""
    # Not through the joined threshold: PostgreSQL locks no nullable side of an outer join.
    query = select(InspectionRow).where(InspectionRow.id == identifier).with_for_update(of=InspectionRow)
    row = session.scalar(query)
    if row is None:
        raise InspectionError(404, "unknown-inspection", f"there is no inspection {identifier[:64]!r}")
    return row


def of(session: Session, identifier: str) -> Sequence[ReviewRow]:
    """All reviews of an inspection, oldest first."""
    query = select(ReviewRow).where(ReviewRow.inspection_id == identifier).order_by(ReviewRow.revision)
    return session.scalars(query).all()


def standing(rows: Sequence[ReviewRow]) -> ReviewRow | None:
    """The review that stands after all: each withdrawal takes the newest one back that still stood."""
    stack: list[ReviewRow] = []
    for row in rows:
        if row.decision != WITHDRAWN:
            stack.append(row)
        elif stack:
            stack.pop()
    return stack[-1] if stack else None


def add(
    session: Session,
    inspection: InspectionRow,
    decision: str,
    *,
    reason: str | None,
    comment: str | None,
    who: str,
) -> ReviewRow:
    """The next review of an inspection that is locked, and its columns after it."""
    earlier = of(session, inspection.id)
    row = ReviewRow(
        id=new_id(),
        inspection_id=inspection.id,
        revision=len(earlier) + 1,
        decision=decision,
        reason=reason,
        comment=comment,
        who=who,
        created_at=datetime.now(UTC),
    )
    session.add(row)
    stands = standing([*earlier, row])
    inspection.review_state = "none" if stands is None else stands.decision
    inspection.review_revision = row.revision
    inspection.disagreement = disagrees(inspection.verdict, inspection.review_state)
    session.flush()
    return row


def disagrees(verdict: str | None, state: str) -> bool:
    """Whether a person overruled the model; where the model asked (REVIEW) there is nothing to overrule."""
    return (verdict, state) in (("REJECT", "good"), ("PASS", "defective"))


def queue(
    session: Session, wanted: filters.Filter, *, audits: bool, me: str, limit: int
) -> Sequence[InspectionRow]:
    """Open inspections that a person should look at and nobody else has claimed.

    Random audits, oldest first: a PASS lies far from the limits, so among the others it would never be seen,
    and its order must not depend on its score. Or all others, nearest to a limit first; what has no score
    (an error) leads.
    """
    now = datetime.now(UTC)
    query = select(InspectionRow).where(
        InspectionRow.review_state == "none",
        InspectionRow.wanted,
        InspectionRow.audit if audits else ~InspectionRow.audit,
        or_(
            InspectionRow.claimed_until.is_(None),
            InspectionRow.claimed_until <= now,
            InspectionRow.claimed_until > now + CLAIM,  # the clock was put back since
            InspectionRow.claimed_by == me,
        ),
    )
    query = query.where(*filters.on_rows(wanted))
    order = (InspectionRow.id,) if audits else (InspectionRow.margin.nulls_first(), InspectionRow.id)
    return session.scalars(query.order_by(*order).limit(limit)).all()


def open_count(session: Session, wanted: filters.Filter) -> tuple[int, int]:
    """How many a person should look at, and how many of these are random audits."""
    query = select(
        func.count(), func.count().filter(and_(InspectionRow.audit, InspectionRow.verdict == "PASS"))
    ).where(InspectionRow.review_state == "none", InspectionRow.wanted, *filters.on_rows(wanted))
    total, audits = session.execute(query).one()
    return total, audits


def backlog(session: Session, most: int) -> tuple[int, str | None]:
    """How many a person should look at, and the oldest of them; among `most`, from the index alone."""
    first = (
        select(InspectionRow.id)
        .where(InspectionRow.review_state == "none", InspectionRow.wanted)
        .limit(most)
        .subquery()
    )
    count, oldest = session.execute(select(func.count(), func.min(first.c.id))).one()
    return count, oldest
