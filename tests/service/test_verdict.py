"""A verdict and its regions come from one map, so they agree."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from models.anomaly import image_score
from models.bundle import ProfileCalibration, Thresholds
from models.engine import RawMap
from service.verdict import EngineOutputError, judge

CALIBRATION = ProfileCalibration(
    residual_scales=(1.0,),
    score_location=0.37,
    score_scale=0.113,
    suggested=Thresholds(review=3, reject=5),
    median_location=0.0,
    median_scale=0.1,
    map_max=4,
    images=9,
)


def raw(amap: np.ndarray) -> RawMap:
    return RawMap(amap, np.zeros((3, *amap.shape), np.float32), image_score(amap, 0.003))


@hypothesis_settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10_000), peak=st.floats(0, 8), exact=st.booleans())
def test_regions_exactly_when_not_pass(seed: int, peak: float, exact: bool) -> None:
    rng = np.random.default_rng(seed)
    amap = rng.random((40, 48), dtype=np.float32)
    amap[10 : 10 + seed % 7 + 1, 20:24] += np.float32(peak)
    answer = raw(amap)
    score = CALIBRATION.score.calibrate(answer.score)
    review = score if exact else 3.0  # exactly on the limit is where rounding would bite
    judged = judge(answer, CALIBRATION, Thresholds(review=review, reject=review + 2), (400, 480))
    assert bool(judged.regions) == (judged.verdict != "PASS")
    assert judged.verdict == ("PASS" if score < review else "REVIEW" if score < review + 2 else "REJECT")


def test_specks_are_left_out_unless_they_are_all_there_is() -> None:
    amap = np.ones((300, 300), np.float32)
    amap[200, 200] = 90.0
    limits = Thresholds(review=3, reject=5)
    alone = RawMap(amap, np.zeros((3, 300, 300), np.float32), 90.0)
    assert [region["area_px"] for region in judge(alone, CALIBRATION, limits, (300, 300)).regions] == [1]
    amap[10:30, 50:80] = 20.0
    (region,) = judge(alone, CALIBRATION, limits, (600, 300)).regions
    assert (region["x"], region["y"], region["width"], region["height"]) == (50, 20, 30, 40)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_no_verdict_from_what_is_not_a_number(score: float) -> None:
    broken = RawMap(np.ones((8, 8), np.float32), np.zeros((3, 8, 8), np.float32), score)
    with pytest.raises(EngineOutputError):
        judge(broken, CALIBRATION, Thresholds(review=3, reject=5), (8, 8))


def test_a_score_exactly_on_the_limit_still_has_its_region() -> None:
    """The limit's way to map units and back rounds; on a flat top nothing lies above to hide it."""
    for value in np.random.default_rng(0).uniform(1, 8, 2000).astype(np.float32):
        answer = raw(np.full((8, 8), value, np.float32))
        review = CALIBRATION.score.calibrate(answer.score)
        judged = judge(answer, CALIBRATION, Thresholds(review=review, reject=review + 1), (8, 8))
        assert (judged.verdict, len(judged.regions)) == ("REVIEW", 1)
