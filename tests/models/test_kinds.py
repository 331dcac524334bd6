"""An image is judged by the training images of its own kind, and never by itself."""

import numpy as np
import pytest
from numpy.typing import NDArray

from models.kinds import NEIGHBOURS, Kinds, read_kinds

Arrays = dict[str, NDArray[np.generic]]


def two_kinds(images: int = 100) -> Kinds:
    """Smooth images around -5 whose evidence rises to 1, rough ones around 5 where it rises to 3."""
    rng = np.random.default_rng(0)
    rough = np.arange(images) % 2
    points = (10.0 * rough - 5.0)[:, None] + rng.normal(0, 0.5, (images, 1))
    return Kinds(
        centre=np.array([1.0, 0.0], np.float32),
        spread=np.array([0.5, 1.0], np.float32),
        axes=np.array([[2.0, 0.0]], np.float32),
        points=points.astype(np.float32),
        tops={"distance": (1.0 + 2.0 * rough).astype(np.float32)},
    )


def test_an_image_is_placed_by_hand() -> None:
    kinds = two_kinds()
    np.testing.assert_allclose(kinds.place(np.array([2.0, 77.0], np.float32)), [4.0])
    np.testing.assert_allclose(kinds.place(np.array([100.0, 0.0], np.float32)), [8.0])  # clipped at 4 sigmas


@pytest.mark.parametrize(("feature", "usual"), [(-0.25, 1.0), (2.25, 3.0)])
def test_it_is_compared_with_its_own_kind(feature: float, usual: float) -> None:
    assert two_kinds().usual(np.array([feature, 0.0], np.float32)) == {"distance": usual}


def test_a_minority_of_contaminants_has_no_say() -> None:
    kinds = two_kinds()
    tops = kinds.tops["distance"].copy()
    tops[::6] = 30.0
    dirty = Kinds(kinds.centre, kinds.spread, kinds.axes, kinds.points, {"distance": tops})
    assert dirty.usual_at(np.array([-5.0], np.float32)) == {"distance": 1.0}


def test_a_picture_does_not_vouch_for_itself() -> None:
    points = np.zeros((NEIGHBOURS + 1, 1), np.float32)
    points[1:, 0] = 3.0
    tops = np.full(NEIGHBOURS + 1, 2.0, np.float32)
    tops[0] = -50.0
    kinds = Kinds(*(np.ones(1, np.float32),) * 2, np.ones((1, 1), np.float32), points, {"defect": tops})
    assert kinds.usual_at(points[0]) == {"defect": 2.0}
    same = Kinds(kinds.centre, kinds.spread, kinds.axes, np.zeros_like(points), {"defect": tops})
    assert same.usual_at(points[0]) == {"defect": 2.0}  # all one picture: the quantile of all


def test_arrays_there_and_back() -> None:
    kinds = two_kinds()
    found = read_kinds(dict(kinds.arrays()), ["residual", "distance"])
    assert found is not None
    features = np.array([0.3, 0.0], np.float32)
    assert found.usual(features) == kinds.usual(features)
    assert read_kinds({"scores": np.zeros(3)}, ["distance"]) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind/points", np.zeros((0, 1))),
        ("kind/points", np.zeros((100, 2))),
        ("kind/spread", np.zeros(2)),
        ("kind/centre", np.array([np.nan, 0.0])),
        ("kind/top/distance", np.zeros(7)),
    ],
)
def test_kinds_that_do_not_fit_are_refused(name: str, value: NDArray[np.float64]) -> None:
    arrays: Arrays = {**two_kinds().arrays(), name: value}
    with pytest.raises(ValueError, match="kinds"):
        read_kinds(arrays, ["distance"])
