"""Versions of limits in both databases, and stored scores under other limits."""

import threading

import numpy as np
import pytest

from models.bundle import Thresholds
from service.db.repository.scores import Span
from service.db.session import Database
from service.errors import InspectionError
from service.recipes.limits import Limits
from tests.service.recipes.conftest import ENGINEER, HASH, OLD, PLACE, Insert
from tests.service.recipes.test_book import actions, refused

NEW = Thresholds(review=1.0, reject=3.0)
EVERYTHING = Span("bolt", HASH, "fast", None)


def test_versions_are_added_and_never_changed(line: Database) -> None:
    limits = Limits(line)
    assert (limits.in_force(PLACE).version, limits.in_force(PLACE).limits) == (0, OLD)
    first = limits.set(ENGINEER, PLACE, NEW, why="tighter", based_on=0)
    second = limits.set(ENGINEER, PLACE, OLD, why="too tight", based_on=1)
    third = limits.restore(ENGINEER, PLACE, 1, why="was right", based_on=2)
    assert [first.version, second.version, third.version] == [1, 2, 3]
    assert (third.review, third.reject, third.why) == (1.0, 3.0, "version 1 restored: was right")
    assert [row.version for row in limits.history(PLACE, None, 10)] == [3, 2, 1]
    assert [row.version for row in limits.history(PLACE, 3, 1)] == [2]
    assert limits.version(PLACE, 1).why == "tighter"
    assert [action for _, action, _ in actions(line)][1:] == ["thresholds.set"] * 3


def test_a_change_based_on_an_old_version_is_refused(line: Database) -> None:
    limits = Limits(line)
    limits.set(ENGINEER, PLACE, NEW, why="a", based_on=0)
    with refused("version-conflict") as caught:
        limits.set(ENGINEER, PLACE, OLD, why="b", based_on=0)
    assert caught.value.extra == {"version": 1}
    with refused("unknown-version"):
        limits.restore(ENGINEER, PLACE, 7, why="c", based_on=1)
    assert len(limits.history(PLACE, None, 10)) == 1


def test_of_racing_changes_one_wins(line: Database) -> None:
    limits, outcomes, start = Limits(line), [], threading.Barrier(8)

    def change() -> None:
        start.wait()
        try:
            limits.set(ENGINEER, PLACE, NEW, why="race", based_on=0)
            outcomes.append("done")
        except InspectionError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=change) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["done"] + ["version-conflict"] * 7


def test_a_preview_reads_what_is_stored_and_nothing_else(line: Database, insert: Insert) -> None:
    scores = [0.0, 1.5, 2.5, 3.5, 5.0]
    ids = [insert(score) for score in scores]
    insert(9.0, profile="paper")
    insert(9.0, recipe="nut")
    insert(None)  # an error has no score
    found = Limits(line).preview(PLACE, NEW, EVERYTHING, 100, 10)
    assert found.found.inspections == 5
    assert found.stored.ids == ids[::-1]
    assert found.found.flips == {"PASS->REVIEW": 1, "REVIEW->REJECT": 1}
    assert [found.stored.ids[row] for row in found.found.flipping] == [ids[3], ids[1]]
    assert sum(found.histogram.unreviewed) == 5
    assert Limits(line).preview(PLACE, NEW, EVERYTHING, 2, 10).stored.ids == ids[:2:-1]


def test_scores_under_another_mask_do_not_count(line: Database, insert: Insert) -> None:
    insert(0.0)
    span = Span("bolt", HASH, "fast", "another-mask")
    assert Limits(line).preview(PLACE, NEW, span, 10, 10).found.inspections == 0
    assert Limits(line).span(PLACE, None, None) == EVERYTHING


def test_the_view_of_old_verdicts_pages_and_changes_nothing(line: Database, insert: Insert) -> None:
    ids = [insert(score) for score in (0.0, 1.5, 2.5, 3.5, 5.0)]
    limits = Limits(line)
    every = limits.reevaluated(NEW, EVERYTHING, changed=False, before=None, limit=10)
    assert [(row.decided, row.reevaluated) for row in every] == [
        ("REJECT", "REJECT"),
        ("REVIEW", "REJECT"),
        ("REVIEW", "REVIEW"),
        ("PASS", "REVIEW"),
        ("PASS", "PASS"),
    ]
    changed = limits.reevaluated(NEW, EVERYTHING, changed=True, before=None, limit=1)
    assert [row.id for row in changed] == [ids[3]]
    rest = limits.reevaluated(NEW, EVERYTHING, changed=True, before=ids[3], limit=5)
    assert [row.id for row in rest] == [ids[1]]
    again = limits.reevaluated(OLD, EVERYTHING, changed=True, before=None, limit=10)
    assert again == []  # nothing was rewritten


def test_suggestions_come_best_first(line: Database, insert: Insert) -> None:
    limits = Limits(line)
    assert [s.source for s in limits.suggest(PLACE, EVERYTHING, 10_000, 0.01, 0.1)] == ["bundle"]
    rng = np.random.default_rng(0)
    for score in rng.normal(0.5, 1.0, 220):
        insert(float(score))
    found = limits.suggest(PLACE, EVERYTHING, 10_000, 0.01, 0.1)
    assert [s.source for s in found] == ["stored", "bundle"]
    assert found[0].review == pytest.approx(0.5 + 1.2816, abs=0.5)
