"""Reviews, claims and the queue in both databases."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from service.db.repository.filters import Filter
from service.db.session import Database
from service.db.tables import InspectionRow, ReviewRow
from service.errors import InspectionError
from service.recipes.book import RecipeBook
from service.review.decisions import Reviews
from tests.service.recipes.conftest import ENGINEER, OPERATOR, OTHER, Insert
from tests.service.recipes.test_book import actions, refused


def say(
    database: Database, identifier: str, decision: str, revision: int, reason: str | None = None
) -> tuple[ReviewRow, InspectionRow]:
    return Reviews(database).add(
        OPERATOR, identifier, decision, reason=reason, comment=None, expected_revision=revision
    )


def state(database: Database, identifier: str) -> tuple[str, int, bool]:
    with database.read() as session:
        row = session.get_one(InspectionRow, identifier)
        return row.review_state, row.review_revision, row.disagreement


@pytest.mark.parametrize(
    ("score", "decision", "disagreement"),
    [
        (0.0, "good", False),
        (0.0, "defective", True),
        (9.0, "good", True),
        (9.0, "defective", False),
        (3.0, "good", False),
        (3.0, "defective", False),
        (9.0, "unsure", False),
        (None, "good", False),
    ],
)
def test_a_review_is_a_row_and_the_inspection_follows(
    line: Database, insert: Insert, score: float | None, decision: str, disagreement: bool
) -> None:
    identifier = insert(score)
    review, _ = say(line, identifier, decision, 0)
    assert (review.revision, review.who) == (1, "bob")
    assert state(line, identifier) == (decision, 1, disagreement)
    assert actions(line)[-1] == ("bob", f"reviews.{decision}", f"inspection/{identifier}")


def test_an_undo_is_a_row_that_restores_what_stood_before(line: Database, insert: Insert) -> None:
    identifier = insert(9.0)
    for revision, (decision, expected) in enumerate(
        [
            ("good", "good"),
            ("defective", "defective"),
            ("withdrawn", "good"),
            ("unsure", "unsure"),
            ("withdrawn", "good"),
            ("withdrawn", "none"),
        ]
    ):
        say(line, identifier, decision, revision)
        assert state(line, identifier)[:2] == (expected, revision + 1)
    assert state(line, identifier)[2] is False
    with refused("nothing-to-withdraw"):
        say(line, identifier, "withdrawn", 6)
    assert [row.decision for row in Reviews(line).of(identifier)] == [
        "good", "defective", "withdrawn", "unsure", "withdrawn", "withdrawn",
    ]  # fmt: skip


def test_of_racing_reviews_one_is_stored(line: Database, insert: Insert) -> None:
    identifier, outcomes, start = insert(3.0), [], threading.Barrier(8)

    def review() -> None:
        start.wait()
        try:
            say(line, identifier, "good", 0)
            outcomes.append("done")
        except InspectionError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=review) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["done"] + ["revision-conflict"] * 7
    assert len(Reviews(line).of(identifier)) == 1


def test_reasons_are_the_recipes_where_it_has_any(line: Database, insert: Insert) -> None:
    first, second = insert(9.0), insert(9.0)
    say(line, first, "defective", 0, reason="anything")
    RecipeBook(line).change(ENGINEER, "bolt", {"reasons": ["scratch"]}, 1)
    with refused("unknown-reason"):
        say(line, second, "defective", 0, reason="anything")
    assert say(line, second, "defective", 0, reason="scratch")[0].reason == "scratch"


def test_what_has_not_ended_or_does_not_exist_is_not_reviewed(line: Database, insert: Insert) -> None:
    with refused("not-ended"):
        say(line, insert(0.0, status="queued", verdict=None), "good", 0)
    with refused("unknown-inspection"):
        say(line, "none", "good", 0)
    with refused("unknown-inspection"):
        Reviews(line).of("none")


def test_claims_are_one_persons_until_they_expire_or_are_taken(line: Database, insert: Insert) -> None:
    identifier, reviews = insert(3.0), Reviews(line)
    assert reviews.claim(OPERATOR, identifier, force=False).claimed_by == "bob"
    assert reviews.claim(OPERATOR, identifier, force=False).claimed_by == "bob"
    with refused("claimed") as caught:
        reviews.claim(OTHER, identifier, force=False)
    assert caught.value.extra["claimed_by"] == "bob"
    with refused("claimed"):
        reviews.release(OTHER, identifier, force=False)
    assert reviews.claim(OTHER, identifier, force=True).claimed_by == "eve"
    assert actions(line)[-1][:2] == ("eve", "claims.take")
    with line.write() as session:
        session.execute(update(InspectionRow).values(claimed_until=datetime.now(UTC) - timedelta(seconds=1)))
    assert reviews.claim(OPERATOR, identifier, force=False).claimed_by == "bob"
    assert reviews.release(OPERATOR, identifier, force=False).claimed_by is None
    assert reviews.release(OTHER, identifier, force=False).claimed_by is None


def test_a_review_ends_its_writers_claim(line: Database, insert: Insert) -> None:
    identifier = insert(3.0)
    Reviews(line).claim(OPERATOR, identifier, force=False)
    assert say(line, identifier, "good", 0)[1].claimed_by is None


def test_the_queue_is_nearest_first_with_audits_mixed_in(line: Database, insert: Insert) -> None:
    asked = {score: insert(score) for score in (2.1, 3.0, 3.9, 2.5, 3.7, 2.9)}
    audits = [insert(score, wanted=True, audit=True) for score in (-3.0, 1.9)]
    insert(0.0)
    insert(9.0)
    reviewed, claimed = insert(2.0001), insert(2.0002)
    say(line, reviewed, "good", 0)
    Reviews(line).claim(OTHER, claimed, force=False)
    reviews = Reviews(line)
    found = [row.id for row in reviews.queue(OPERATOR, Filter(equal={"recipe": "bolt"}), 50)]
    by_margin = sorted(asked, key=lambda score: (round(min(score - 2, 4 - score), 6), score != 2.1))
    near = [asked[score] for score in by_margin]
    assert found == [*near[:4], audits[0], *near[4:], audits[1]]
    assert reviews.queue(OTHER, Filter(), 1)[0].id == claimed
    assert [row.id for row in reviews.queue(OPERATOR, Filter(), 3)] == near[:3]
    assert reviews.queue(OPERATOR, Filter(equal={"recipe": "bolt", "line": "none"}), 5) == []
    assert reviews.open_count(Filter(equal={"recipe": "bolt"})) == (9, 2)
