"""What people say of inspections, and who is looking at which: each method is one transaction.

Everything here blocks and is called in a thread.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from service.access.principal import Principal
from service.db.repository import audit, outbox, recipes, reviews
from service.db.repository.filters import Filter
from service.db.session import Database
from service.db.tables import InspectionRow, ReviewRow
from service.errors import InspectionError

ENDED = ("done", "failed", "expired")
_OTHERS_PER_AUDIT = 4
"""In the queue, inspections the model asked about between two random audits."""


class Reviews:
    """All reviews and claims of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, identifier: str) -> Sequence[ReviewRow]:
        """Reviews of an inspection, oldest first; 404 for an unknown one."""
        with self._database.read() as session:
            if session.get(InspectionRow, identifier) is None:
                detail = f"there is no inspection {identifier[:64]!r}"
                raise InspectionError(404, "unknown-inspection", detail)
            return reviews.of(session, identifier)

    def add(
        self,
        who: Principal,
        identifier: str,
        decision: str,
        *,
        reason: str | None,
        comment: str | None,
        expected_revision: int,
    ) -> tuple[ReviewRow, InspectionRow]:
        """Decide on an inspection that is at `expected_revision`; 409 if it is not, or has not ended."""
        with self._database.write() as session:
            row = reviews.lock(session, identifier)
            _check_open(row, expected_revision)
            if decision == reviews.WITHDRAWN and row.review_state == "none":
                raise InspectionError(409, "nothing-to-withdraw", "no review of this inspection stands")
            recipe = recipes.get(session, row.recipe)
            if recipe is not None and recipe.reasons and reason is not None and reason not in recipe.reasons:
                detail = f"recipe {row.recipe} has no reason {reason!r}; it has {', '.join(recipe.reasons)}"
                raise InspectionError(422, "unknown-reason", detail, extra={"reasons": recipe.reasons})
            review = reviews.add(session, row, decision, reason=reason, comment=comment, who=who.name)
            if row.claimed_by == who.name:
                row.claimed_by = row.claimed_until = None
            told = {
                "inspection_id": row.id,
                "recipe": row.recipe,
                "serial": row.serial,
                "lot": row.lot,
                "line": row.line,
                "station": row.station,
                "verdict": row.verdict,
                "score": row.score,
                "revision": review.revision,
                "decision": decision,
                "review_state": row.review_state,
                "disagreement": row.disagreement,
                "reason": reason,
                "comment": comment,
                "who": who.name,
            }
            audit.record(session, who, f"reviews.{decision}", f"inspection/{row.id}", told)
            outbox.announce(session, "review.created", row.recipe, told)
            return review, row

    def claim(self, who: Principal, identifier: str, *, force: bool) -> InspectionRow:
        """Say that one is looking at an inspection, for minutes; 409 while another is, unless `force`."""
        now = datetime.now(UTC)
        with self._database.write() as session:
            row = reviews.lock(session, identifier)
            held = _holder(row, now)
            if held is not None and held != who.name:
                if not force:
                    raise _claimed(row, held)
                audit.record(session, who, "claims.take", f"inspection/{row.id}", {"from": held})
            row.claimed_by, row.claimed_until = who.name, now + reviews.CLAIM
            return row

    def release(self, who: Principal, identifier: str, *, force: bool) -> InspectionRow:
        """End one's claim, or with `force` anybody's; nothing happens when there is none."""
        with self._database.write() as session:
            row = reviews.lock(session, identifier)
            held = _holder(row, datetime.now(UTC))
            if held is not None and held != who.name:
                if not force:
                    raise _claimed(row, held)
                audit.record(session, who, "claims.release", f"inspection/{row.id}", {"from": held})
            row.claimed_by = row.claimed_until = None
            return row

    def queue(self, who: Principal, wanted: Filter, limit: int) -> Sequence[InspectionRow]:
        """What is to be looked at next: nearest to a limit first, a random audit after every fourth."""
        with self._database.read() as session:
            asked, audits = (
                list(reviews.queue(session, wanted, audits=a, me=who.name, limit=limit))
                for a in (False, True)
            )
        mixed: list[InspectionRow] = []
        while asked or audits:
            mixed += asked[:_OTHERS_PER_AUDIT] + audits[:1]
            del asked[:_OTHERS_PER_AUDIT], audits[:1]
        return mixed[:limit]

    def open_count(self, wanted: Filter) -> tuple[int, int]:
        """How many wait for a person, and how many of these are random audits."""
        with self._database.read() as session:
            return reviews.open_count(session, wanted)


def _check_open(row: InspectionRow, expected_revision: int) -> None:
    if row.status not in ENDED:
        detail = "this inspection has not ended; review it when it has"
        raise InspectionError(409, "not-ended", detail)
    if row.review_revision != expected_revision:
        detail = (
            f"this inspection is at review revision {row.review_revision} ({row.review_state}), "
            f"not {expected_revision}: somebody reviewed it meanwhile; look at it again"
        )
        extra = {"revision": row.review_revision, "review_state": row.review_state}
        raise InspectionError(409, "revision-conflict", detail, extra=extra)


def _holder(row: InspectionRow, now: datetime) -> str | None:
    stands = row.claimed_until is not None and now < row.claimed_until <= now + reviews.CLAIM
    return row.claimed_by if stands else None


def _claimed(row: InspectionRow, held: str) -> InspectionError:
    until = row.claimed_until.isoformat(timespec="seconds") if row.claimed_until is not None else ""
    detail = f"{held} is looking at this inspection until {until}; take another, or use force=true"
    return InspectionError(409, "claimed", detail, extra={"claimed_by": held, "claimed_until": until})
