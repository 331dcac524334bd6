"""Limits of a retrained model: as many held-out images above them as above those in force before."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from models.bundle import Bundle, Thresholds
from models.empirical_null import fit_null
from tests.conftest import part
from trainer.calibrate import SCALE_HEADROOM, Calibrated
from trainer.carryover import LEAST, Before, carry_over, matched
from trainer.exam import ask, open_side

OWN = Thresholds(review=1.5, reject=3.0)


def shares(scores: np.ndarray, limits: Thresholds) -> tuple[int, int]:
    return int((scores >= limits.review).sum()), int((scores >= limits.reject).sum())


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_as_many_lie_above_whatever_the_scale(scale: float) -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=400)
    scores = scale * rng.permutation(before) - 2.0
    limits = matched(scores, before, OWN, OWN)
    assert shares(scores, limits) == shares(before, OWN)
    assert min(shares(before, OWN)) > 0
    # Of the same images: the limits are those of before on the other scale, to the gap between two scores.
    assert limits.review == pytest.approx(scale * 1.5 - 2.0, abs=0.1 * scale)


def test_where_nothing_lay_above_a_limit() -> None:
    scores, before = np.linspace(0.0, 2.0, 100), np.linspace(0.0, 1.0, 100)
    limits = matched(scores, before, OWN, OWN)
    assert shares(scores, limits) == (0, 0)
    assert limits.review > 2.0  # its own, 1.5, would have stopped some
    assert limits.reject == 3.0
    every = matched(scores, before, Thresholds(review=-1.0, reject=-1.0), OWN)
    assert shares(scores, every) == (100, 100)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(LEAST + 10):
        cv2.imwrite(str(folder / f"{index:03}.png"), part(500 + index))
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def before(tiny_bundle: Bundle, pictures: list[Path]) -> Before:
    """The tiny model by limits that stop some of the pictures."""
    scores = ask(open_side(tiny_bundle, "fast", None, threads=1), pictures, None).calibrated
    limits = Thresholds(review=float(np.quantile(scores, 0.8)), reject=float(np.quantile(scores, 0.9)))
    return Before(open_side(tiny_bundle, "fast", limits, threads=1), None)


def calibrated(before: Before, raw: np.ndarray) -> Calibrated:
    """Another model's, which gives these scores and has another scale."""
    calibration = before.side.calibration.model_copy(update={"score_scale": 0.5, "suggested": OWN})
    null = fit_null(np.log(raw), 0)
    return Calibrated(calibration=calibration, indices=np.arange(len(raw)), scores=raw, null=null)


def test_limits_are_carried_over(before: Before, pictures: list[Path]) -> None:
    said = ask(before.side, pictures, None)
    found = calibrated(before, said.raw * 3.0)
    carried = carry_over(found, pictures, before)
    assert carried is not None
    limits, score = carried.calibration.suggested, carried.calibration.score
    scores = np.array([score.calibrate(float(raw)) for raw in found.scores])
    assert shares(scores, limits) == shares(said.calibrated, before.side.limits) == (12, 6)
    assert carried.calibration.map_max == pytest.approx(SCALE_HEADROOM * score.raw(limits.reject))


def test_but_not_by_few_images(before: Before, pictures: list[Path]) -> None:
    some = pictures[: LEAST - 1]
    assert carry_over(calibrated(before, ask(before.side, some, None).raw), some, before) is None


def test_nor_from_a_model_that_the_line_has_left(before: Before, pictures: list[Path]) -> None:
    """All that comes looks stranger to it than half of its training images."""
    said = ask(before.side, pictures, None)
    strange = [pictures[row] for row in np.argsort(said.calibrated)[-LEAST // 2 :]] * 2
    assert carry_over(calibrated(before, ask(before.side, strange, None).raw), strange, before) is None
