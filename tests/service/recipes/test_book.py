"""Recipes in both databases: revisions, archiving, and what they say of a posted image."""

import threading

import pytest
from sqlalchemy import select

from service.db.session import Database
from service.db.tables import AuditRow
from service.errors import InspectionError
from service.recipes.book import DEFAULT, RecipeBook
from tests.service.recipes.conftest import ENGINEER


def refused(code: str) -> pytest.RaisesExc[InspectionError]:
    return pytest.RaisesExc(InspectionError, check=lambda error: error.code == code)


def actions(database: Database) -> list[tuple[str, str, str]]:
    with database.read() as session:
        rows = session.scalars(select(AuditRow).order_by(AuditRow.id)).all()
        return [(row.who, row.action, row.target) for row in rows]


def test_a_recipe_is_created_changed_and_archived_each_with_its_entry(line: Database) -> None:
    book = RecipeBook(line)
    row = book.change(ENGINEER, "bolt", {"product": "M6", "reasons": ["scratch", "dent"]}, 1)
    assert (row.revision, row.product, row.reasons) == (2, "M6", ["scratch", "dent"])
    assert book.archive(ENGINEER, "bolt", True).archived_at is not None
    assert [row.name for row in book.page(archived=False, after="", limit=10)] == []
    assert [row.name for row in book.page(archived=True, after="", limit=10)] == ["bolt"]
    with refused("recipe-archived"):
        book.terms("bolt", {}, strict=False)
    again = book.archive(ENGINEER, "bolt", False)
    assert (again.archived_at, again.revision) == (None, 4)
    assert actions(line) == [
        ("ann", f"recipes.{what}", "recipe/bolt") for what in ("create", "change", "archive", "restore")
    ]


def test_two_changes_on_the_same_revision_one_wins(line: Database) -> None:
    book, outcomes, start = RecipeBook(line), [], threading.Barrier(8)

    def change(number: int) -> None:
        start.wait()
        try:
            book.change(ENGINEER, "bolt", {"product": str(number)}, 1)
            outcomes.append("done")
        except InspectionError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["done"] + ["revision-conflict"] * 7
    assert book.get("bolt").revision == 2


def test_names_are_taken_once(line: Database) -> None:
    with refused("recipe-exists"):
        RecipeBook(line).create(ENGINEER, "bolt", {})


def test_an_unknown_recipe_is_free_text_unless_recipes_are_strict(line: Database) -> None:
    book = RecipeBook(line)
    assert book.terms("nut", {"any": 1}, strict=False).profile is None
    with refused("unknown-recipe") as caught:
        book.terms("nut", {}, strict=True)
    assert caught.value.extra == {"recipes": ["bolt"]}
    with refused("unknown-recipe"):
        book.get("nut")


def test_terms_carry_what_applies_and_check_the_metadata(line: Database) -> None:
    book = RecipeBook(line)
    schema = {"required": ["shift"]}
    book.change(
        ENGINEER, "bolt", {"profile": "fast", "latency_budget_ms": 700, "attributes_schema": schema}, 1
    )
    terms = book.terms("bolt", {"shift": 1}, strict=True)
    assert (terms.profile, terms.latency_budget_ms, terms.mask_id) == ("fast", 700, None)
    with refused("attributes-mismatch"):
        book.terms("bolt", {}, strict=False)
    with refused("invalid-schema"):
        book.change(ENGINEER, "bolt", {"attributes_schema": {"$ref": "http://127.0.0.1/x"}}, 2)
    assert book.get("bolt").revision == 2


def test_the_default_recipe_is_always_there(line: Database) -> None:
    book = RecipeBook(line)
    book.ensure_default()
    book.ensure_default()
    assert book.get(DEFAULT).revision == 1
    with refused("recipe-needed"):
        book.archive(ENGINEER, DEFAULT, True)
