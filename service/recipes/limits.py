"""The two limits of a recipe under a model and profile: versions, what a change would do, suggestions.

Everything here blocks and is called in a thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from sqlalchemy.exc import IntegrityError

from models.bundle import Manifest, Thresholds
from service.access.principal import Principal
from service.db.repository import audit, outbox, recipes, scores, thresholds
from service.db.repository.scores import Reevaluated, Span
from service.db.session import Database
from service.db.tables import ThresholdRow
from service.errors import InspectionError
from service.recipes.memory import ScoreMemory
from service.recipes.suggest import Suggestion, from_bundle, from_reviewed, from_stored
from service.recipes.whatif import Histogram, Stored, WhatIf, histogram, what_if


@dataclass(frozen=True)
class Place:
    """Whose limits: a recipe under a model and profile; and what its bundle suggests."""

    recipe: str
    model_hash: str
    profile: str
    suggested: Thresholds
    calibrated_on: int  # training images

    @classmethod
    def of(cls, recipe: str, model_hash: str, manifest: Manifest, profile: str) -> Self:
        """The place of one of a bundle's profiles."""
        calibration = manifest.calibration[profile]
        return cls(recipe, model_hash, profile, calibration.suggested, calibration.images)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.recipe, self.model_hash, self.profile


@dataclass(frozen=True)
class InForce:
    """The limits that decide now; version 0 is the bundle's suggestion, not yet used."""

    version: int
    limits: Thresholds
    row: ThresholdRow | None


@dataclass(frozen=True)
class Preview:
    base: InForce
    stored: Stored
    found: WhatIf
    histogram: Histogram


class Limits:
    """All limits of a database."""

    def __init__(self, database: Database, memory: ScoreMemory | None = None) -> None:
        self._database, self._memory = database, memory or ScoreMemory()

    def in_force(self, place: Place) -> InForce:
        with self._database.read() as session:
            recipes.need(session, place.recipe)
            row = thresholds.newest(session, *place.key)
        return _in_force(row, place)

    def history(self, place: Place, below: int | None, limit: int) -> Sequence[ThresholdRow]:
        with self._database.read() as session:
            return thresholds.history(session, *place.key, below=below, limit=limit)

    def version(self, place: Place, number: int) -> ThresholdRow:
        """One version; 404 if there is none."""
        with self._database.read() as session:
            row = thresholds.version(session, *place.key, number)
        if row is None:
            detail = f"recipe {place.recipe} has no thresholds version {number} under this model and profile"
            raise InspectionError(404, "unknown-version", detail)
        return row

    def set(
        self, who: Principal, place: Place, wanted: Thresholds, *, why: str, based_on: int
    ) -> ThresholdRow:
        """A new version, in force at once; 409 unless `based_on` is the version in force."""
        try:
            with self._database.write() as session:
                recipes.need(session, place.recipe, lock=True)
                now = _in_force(thresholds.newest(session, *place.key), place)
                if now.version != based_on:
                    raise _conflict(now.version, based_on)
                row = thresholds.add(session, *place.key, wanted, who=who.name, why=why)
                told = {
                    "recipe": place.recipe,
                    "model_hash": place.model_hash,
                    "profile": place.profile,
                    "version": row.version,
                    "review": wanted.review,
                    "reject": wanted.reject,
                    "previous": {"version": now.version, **now.limits.model_dump()},
                    "why": why,
                    "who": who.name,
                }
                audit.record(session, who, "thresholds.set", f"recipe/{place.recipe}", told)
                outbox.announce(session, "thresholds.changed", place.recipe, told)
                return row
        except IntegrityError:  # the first inspection of a recipe stored the suggestion meanwhile
            raise _conflict(self.in_force(place).version, based_on) from None

    def restore(self, who: Principal, place: Place, number: int, *, why: str, based_on: int) -> ThresholdRow:
        """An old version as a new one."""
        old = self.version(place, number)
        wanted = Thresholds(review=old.review, reject=old.reject)
        return self.set(who, place, wanted, why=f"version {number} restored: {why}"[:2000], based_on=based_on)

    def span(self, place: Place, since: datetime | None, until: datetime | None) -> Span:
        """Inspections whose scores compare: of the same recipe, model, profile and present mask."""
        with self._database.read() as session:
            mask_id = recipes.need(session, place.recipe).mask_id
        return Span(place.recipe, place.model_hash, place.profile, mask_id, since, until)

    def preview(self, place: Place, wanted: Thresholds, span: Span, limit: int, bins: int) -> Preview:
        """What `wanted` would decide on stored inspections, against the limits in force."""
        stored, base = self.stored(span, limit), self.in_force(place)
        return Preview(base, stored, what_if(stored, base.limits, wanted), histogram(stored, bins))

    def suggest(
        self, place: Place, span: Span, limit: int, reject_rate: float, review_rate: float
    ) -> list[Suggestion]:
        """Limits at target rates, the source that says most about this line first."""
        stored = self.stored(span, limit)
        found = (
            from_reviewed(stored, reject_rate, review_rate),
            from_stored(stored, reject_rate, review_rate),
            from_bundle(reject_rate, review_rate, place.calibrated_on),
        )
        return [suggestion for suggestion in found if suggestion is not None]

    def reevaluated(
        self, limits: Thresholds, span: Span, *, changed: bool, before: str | None, limit: int
    ) -> list[Reevaluated]:
        with self._database.read() as session:
            return scores.reevaluated(session, span, limits, changed=changed, before=before, limit=limit)

    def stored(self, span: Span, limit: int) -> Stored:
        """The newest of a span, as the memory has them."""
        return self._memory.of(self._database, span, limit)


def _in_force(row: ThresholdRow | None, place: Place) -> InForce:
    if row is None:
        return InForce(0, place.suggested, None)
    return InForce(row.version, Thresholds(review=row.review, reject=row.reject), row)


def _conflict(version: int, based_on: int) -> InspectionError:
    detail = (
        f"version {version} is in force, not {based_on}: somebody changed the thresholds meanwhile; "
        "look at them and repeat the change if it is still wanted"
    )
    return InspectionError(409, "version-conflict", detail, extra={"version": version})
