import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.anomaly import (
    MedianCalibration,
    ScoreCalibration,
    Verdict,
    anomaly_map,
    contamination_estimate,
    fit_median_calibration,
    fit_score_calibration,
    image_score,
    lift_unfamiliar,
    regions,
    residual,
    smoothed_residual,
    verdict,
    verdict_codes,
)

ONE = np.ones(1, dtype=np.float32)


def test_residual_is_the_mean_over_channels() -> None:
    x = np.zeros((2, 3, 4, 4), dtype=np.float32)
    y = x.copy()
    y[:, 0], y[:, 1] = 0.3, -0.6
    np.testing.assert_allclose(residual(x, y), np.full((2, 4, 4), 0.3), rtol=1e-6)


def test_map_weighs_noise_levels_by_their_usual_residual() -> None:
    levels = np.stack([np.full((8, 8), 0.1), np.full((8, 8), 0.4)]).astype(np.float32)
    smoothed = smoothed_residual(levels, np.array([0.1, 0.2], np.float32), sigma_px=0)
    np.testing.assert_allclose(anomaly_map(smoothed, image_median=False), 1.5, rtol=1e-6)


def test_image_median_makes_the_map_independent_of_overall_residual() -> None:
    levels = np.random.default_rng(0).uniform(0.5, 1, (1, 32, 32)).astype(np.float32)
    quiet, loud = (
        anomaly_map(smoothed_residual(k * levels, ONE, 2.0), image_median=True) for k in (1.0, 7.0)
    )
    np.testing.assert_allclose(quiet, loud, rtol=1e-5)
    assert np.median(quiet) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("median", "lifted"), [(1, False), (1.45, False), (0.7, False), (1.6, True), (0.6, True)]
)
def test_a_picture_unlike_all_training_images_is_itself_the_anomaly(median: float, lifted: bool) -> None:
    """Noise or a covered lens has a flat map; its own median would make it look perfect."""
    medians, scores = MedianCalibration(0.0, 0.1), ScoreCalibration(1.0, 0.3)
    flat = np.ones((8, 8), dtype=np.float32)
    amap, score = lift_unfamiliar(flat, 1.0, median, medians, scores)
    assert amap.max() == pytest.approx(score)
    assert (score > 1.0) is lifted
    if lifted:
        assert scores.calibrate(score) == pytest.approx(medians.deviation(median), rel=1e-4)


@pytest.mark.parametrize("median", [0.0, 1e9])
def test_lifting_never_overflows_and_never_lowers(median: float) -> None:
    medians, scores = MedianCalibration(0.0, 0.1), ScoreCalibration(1.0, 0.3)
    amap, score = lift_unfamiliar(np.full((2, 2), 1e6, np.float32), 1e6, median, medians, scores)
    assert np.isfinite(amap).all()
    assert score >= 1e6


def test_median_calibration_ignores_a_few_strays() -> None:
    medians = np.exp(np.random.default_rng(0).normal(0, 0.1, 500))
    medians[:50] = 40.0
    found = fit_median_calibration(medians)
    assert found.location == pytest.approx(0, abs=0.03)
    assert found.scale == pytest.approx(0.1, rel=0.3)
    assert fit_median_calibration(np.ones(5)).deviation(1.4) < 4  # equal images still leave room


def test_smoothing_keeps_the_sum_of_a_spot() -> None:
    levels = np.zeros((1, 33, 33), dtype=np.float32)
    levels[0, 16, 16] = 1
    smoothed = smoothed_residual(levels, ONE, sigma_px=2.0)
    assert smoothed.sum() == pytest.approx(1.0, abs=1e-3)
    assert smoothed.argmax() == 16 * 33 + 16


def test_score_is_the_mean_of_the_highest_pixels() -> None:
    amap = np.arange(100, dtype=np.float32).reshape(10, 10)
    assert image_score(amap, 0.05) == pytest.approx(np.mean([95, 96, 97, 98, 99]))
    assert image_score(amap, 1e-9) == 99


def test_regions_are_boxes_in_the_original_image() -> None:
    amap = np.zeros((16, 32), dtype=np.float32)
    amap[2:4, 5:9] = 3
    amap[10, 20] = 9
    found = regions(amap, 1.0, original_size=(32, 64))
    assert [(r.x, r.y, r.width, r.height, r.area_px) for r in found] == [(40, 20, 2, 2, 4), (10, 4, 8, 4, 32)]
    assert [(r.peak, r.mean) for r in found] == [(9, 9), (3, 3)]
    assert len(regions(amap, 1.0, (32, 64), min_area_px=2)) == 1


@given(st.integers(0, 10_000), st.floats(1.0, 3.0), st.floats(0.001, 0.3))
def test_a_part_over_the_threshold_always_has_a_region(seed: int, threshold: float, top: float) -> None:
    amap = np.random.default_rng(seed).gamma(2, 0.6, (24, 24)).astype(np.float32)
    if image_score(amap, top) >= threshold:
        assert regions(amap, threshold, (24, 24))


@pytest.mark.parametrize(
    ("score", "expected"),
    [(-3, "PASS"), (1.99, "PASS"), (2, "REVIEW"), (2.99, "REVIEW"), (3, "REJECT"), (math.inf, "REJECT")],
)
def test_verdict_from_two_thresholds(score: float, expected: str) -> None:
    assert verdict(score, 2, 3) is Verdict(expected)


def test_not_a_number_is_never_a_pass() -> None:
    assert verdict(math.nan, 2, 3) is Verdict.REJECT


def test_many_scores_are_decided_as_each_of_them() -> None:
    scores = np.array([-3, 1.99, 2, 2.99, 3, math.inf, -math.inf, math.nan])
    each = [verdict(float(score), 2, 3) for score in scores]
    assert [list(Verdict)[code] for code in verdict_codes(scores, 2, 3)] == each


def test_calibration_ignores_a_fifth_of_contaminants() -> None:
    rng = np.random.default_rng(0)
    good = np.exp(rng.normal(0.5, 0.2, 4000))
    mixed = np.concatenate([good, np.exp(rng.normal(2.5, 0.5, 1000))])
    clean, contaminated = fit_score_calibration(good), fit_score_calibration(mixed)
    assert clean.location == pytest.approx(0.5, abs=0.02)
    assert clean.scale == pytest.approx(0.2, rel=0.1)
    assert contaminated.location == pytest.approx(0.5, abs=0.1)
    assert contaminated.scale == pytest.approx(0.2, rel=0.4)
    assert np.log(mixed).std() > 4 * clean.scale  # what a plain mean and deviation would have said


def test_contamination_is_estimated_from_the_excess_above() -> None:
    rng = np.random.default_rng(1)
    assert contamination_estimate(rng.normal(0, 1, 5000)) < 0.005
    mixed = np.concatenate([rng.normal(0, 1, 4000), rng.normal(8, 1, 1000)])
    assert contamination_estimate(mixed) == pytest.approx(0.2, abs=0.01)


@given(st.floats(0, 1e4), st.floats(0, 1e4))
def test_calibration_is_monotone_and_invertible(a: float, b: float) -> None:
    calibration = ScoreCalibration(0.3, 0.25)
    if a < b:
        assert calibration.calibrate(a) <= calibration.calibrate(b)
    assert calibration.raw(calibration.calibrate(a)) == pytest.approx(a, rel=1e-6, abs=1e-6)


def test_equal_scores_and_single_images_still_calibrate() -> None:
    assert fit_score_calibration(np.full(7, 1.3)).scale > 0
    with pytest.raises(ValueError, match="no scores"):
        fit_score_calibration(np.array([]))
