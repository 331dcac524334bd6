"""By policy: a shadow that agreed long enough becomes the active model."""

import logging
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from service import model_life as life
from service.access.cli import me
from service.db.repository import model_life, models, recipes, runs
from service.db.session import Database
from service.shadow.comparison import compare

log = logging.getLogger(__name__)


class Policy(BaseModel):
    """What a shadow must have shown. The gate it has passed: only what a run released is promoted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    inspections: Annotated[int, Field(ge=1, le=10_000)] = 500
    agreement: Annotated[float, Field(gt=0, le=1)] = 0.98
    """Lower end of the 95 % interval of the share of equal verdicts."""


class Promotion:
    """Judges shadows against policies."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def look(self, recipe: str, policy: Policy) -> str | None:
        """Activate the recipe's shadow if it may be; its hash, or None. Services follow within a second."""
        with self._database.read() as session:
            row = recipes.get(session, recipe)
            shadow = None if row is None else row.shadow_hash
            if shadow is None or not runs.passed(session, recipe, shadow):
                return None
        found = compare(self._database, shadow, recipe, since=None, disagreements=False, before=None, limit=1)
        enough = found.scored >= policy.inspections and not found.failures
        if not enough or found.agreement is None or found.agreement.low < policy.agreement:
            return None
        why = (
            f"by policy: passed the gate, and agreed on {found.agreement.value:.1%} of "
            f"{found.scored} inspections (at least {found.agreement.low:.1%})"
        )
        with self._database.write() as session:
            if not self._activate(session, recipe, shadow, why):
                return None
        log.info("recipe %s: shadow %s is activated %s", recipe, shadow[:12], why)
        return shadow

    def _activate(self, session: Session, recipe: str, shadow: str, why: str) -> bool:
        row = recipes.need(session, recipe, lock=True)
        if row.shadow_hash != shadow:  # somebody decided meanwhile
            return False
        previous = model_life.active(session, recipe) or shadow
        life.activate(session, me(), recipe, shadow, previous=previous, why=why, action=models.ACTIVATED)
        return True
