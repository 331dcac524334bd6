"""Versions of masks in both databases, and what is scored with them."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.blobs import DiskBlobs
from service.db.session import Database
from service.recipes.book import RecipeBook
from service.recipes.masking import Masks
from tests.service.recipes.conftest import ENGINEER, Insert
from tests.service.recipes.test_book import actions, refused

SIZE = (32, 32)


@pytest.fixture
def masks(line: Database, tmp_path: Path) -> Masks:
    return Masks(line, DiskBlobs(tmp_path / "blobs"))


def left(height: int = 30, width: int = 40) -> NDArray[np.bool_]:
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[:, : width // 2] = True
    return mask


def test_versions_are_added_and_the_newest_is_in_force(line: Database, masks: Masks) -> None:
    first = masks.set(ENGINEER, "bolt", left(), map_size=SIZE, why="clamp", based_on=0)
    assert (first.version, first.share, first.who) == (1, 0.5, "ann")
    terms = RecipeBook(line).terms("bolt", {}, strict=False)
    assert terms.mask_id == first.id
    found = masks.for_scoring(terms.mask_id)
    assert found is not None
    np.testing.assert_array_equal(found, left())
    cleared = masks.clear(ENGINEER, "bolt", why="clamp moved", based_on=1)
    assert (cleared.version, cleared.share, cleared.width_px) == (2, 0.0, 40)
    assert RecipeBook(line).terms("bolt", {}, strict=False).mask_id is None
    assert masks.for_scoring(cleared.id) is None
    assert masks.for_scoring(None) is None
    # What was accepted under the first version is still scored with it.
    np.testing.assert_array_equal(masks.for_scoring(first.id), left())
    assert [row.version for row in masks.history("bolt", 10)] == [2, 1]
    assert [action for _, action, _ in actions(line)][1:] == ["masks.set", "masks.set"]


def test_what_cannot_be_a_mask_is_refused(masks: Masks, insert: Insert) -> None:
    with refused("invalid-mask"):
        masks.set(ENGINEER, "bolt", np.ones((30, 40), dtype=np.bool_), map_size=SIZE, why="x")
    insert(0.0)  # an image of 40 x 30
    with refused("invalid-mask") as caught:
        masks.set(ENGINEER, "bolt", left(40, 30), map_size=SIZE, why="x")
    assert "30 x 40" in caught.value.detail
    assert masks.set(ENGINEER, "bolt", left(301, 400), map_size=SIZE, why="any size").version == 1
    with refused("version-conflict"):
        masks.set(ENGINEER, "bolt", left(), map_size=SIZE, why="x", based_on=0)
    with refused("unknown-recipe"):
        masks.set(ENGINEER, "nut", left(), map_size=SIZE, why="x")


def test_no_mask_yet(masks: Masks) -> None:
    with refused("no-mask"):
        masks.newest("bolt")
    with refused("no-mask"):
        masks.clear(ENGINEER, "bolt", why="x")
    with refused("unknown-version"):
        masks.version("bolt", 1)
