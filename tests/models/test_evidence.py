"""Evidence by hand: standardised, weighed, fused, and brought from one size to another."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from models.anomaly import image_score
from models.evidence import (
    DETECTOR_EVIDENCE,
    EvidenceCalibration,
    ImageCalibration,
    detector_evidence,
    deviations,
    fuse,
    judge,
    log_residual,
    resize,
    standardise,
    weigh,
)

Float = NDArray[np.float32]


def calibration(**changes: Any) -> EvidenceCalibration:
    values = {"location": 1.0, "scale": 2.0, "image_median": False, "weight": 1.0}
    return EvidenceCalibration.model_validate({**values, **changes})


def random_map(seed: int, size: tuple[int, int] = (6, 8)) -> Float:
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def test_standardised_by_hand() -> None:
    values = np.array([[1.0, 3.0], [5.0, 11.0]], dtype=np.float32)
    place = np.array([[0.0, 1.0], [2.0, 4.0]], dtype=np.float32)
    np.testing.assert_allclose(standardise(values, calibration(), None), [[0, 1], [2, 5]])
    np.testing.assert_allclose(standardise(values, calibration(), place), [[0, 0.5], [1, 3]])
    own = calibration(image_median=True)  # the median is 4
    np.testing.assert_allclose(standardise(values, own, None), [[-2, -1], [0, 3]])


def test_a_place_is_brought_to_the_size_of_the_map() -> None:
    flat = np.full((3, 4), 2.0, dtype=np.float32)
    found = standardise(np.full((6, 8), 5.0, dtype=np.float32), calibration(), flat)
    np.testing.assert_allclose(found, 1.0)


def test_fused_by_hand() -> None:
    residual, defect, distance = (random_map(seed) for seed in range(3))
    place = np.full((2, 2), 0.5, dtype=np.float32)
    weighed = {
        "residual": calibration(weight=0.5),
        "defect": calibration(weight=0.3, location=-1.0, scale=0.5),
        "distance": calibration(weight=0.2),
    }
    by_hand = {0.5: (residual - 1) / 2, 0.3: (defect + 1) / 0.5, 0.2: (distance - 0.5 - 1) / 2}
    expected = sum(weight * np.log1p(np.exp(deviation)) for weight, deviation in by_hand.items())
    evidence = {"residual": residual, "defect": defect, "distance": distance}
    found = fuse(deviations(evidence, weighed, {"distance": place}), weighed)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_map_is_positive_and_linear_where_much_is_wrong() -> None:
    weighed = {"residual": calibration(location=0.0, scale=1.0)}
    values = np.array([[-80.0, 0.0, 30.0, 60.0]], dtype=np.float32)
    (found,) = fuse(deviations({"residual": values}, weighed, {}), weighed)
    np.testing.assert_allclose(found, [0, np.log(2), 30, 60], atol=1e-5)


def test_evidence_without_weight_says_nothing() -> None:
    weighed = {"residual": calibration(), "defect": calibration(weight=0.0)}
    residual = random_map(1)
    alone = fuse({"residual": residual}, weighed)
    np.testing.assert_array_equal(fuse({"residual": residual, "defect": random_map(2)}, weighed), alone)


def image_calibration(location: float, scale: float, weight: float) -> EvidenceCalibration:
    image = ImageCalibration(location=location, scale=scale, weight=weight)
    return calibration(weight=0.5, location=0.0, scale=1.0, image=image)


def test_an_image_is_judged_by_hand() -> None:
    weighed = {"residual": image_calibration(1.0, 2.0, 0.25), "distance": image_calibration(0.0, 0.5, 0.75)}
    tops = {"residual": 5.0, "distance": 4.0}
    usual = {"distance": 3.0}  # in images of that kind
    expected = 0.25 * np.log1p(np.exp(2.0)) + 0.75 * np.log1p(np.exp(2.0))
    assert judge(tops, weighed, usual) == pytest.approx(np.sqrt(expected))
    assert judge(tops, weighed, {}) != pytest.approx(np.sqrt(expected))


def test_the_score_of_the_map_is_the_judgement() -> None:
    weighed = {"residual": image_calibration(1.0, 2.0, 0.25), "distance": image_calibration(0.0, 0.5, 0.75)}
    deviating = {"residual": random_map(1), "distance": random_map(2)}
    amap, score = weigh(deviating, weighed, {"distance": 0.3}, 0.1)
    assert image_score(amap, 0.1) == pytest.approx(score, rel=1e-5)
    plain = fuse(deviating, weighed)
    np.testing.assert_allclose(amap / amap.max(), plain / plain.max(), rtol=1e-5)


def test_a_calibration_from_before_images_were_judged_scores_by_the_map() -> None:
    weighed = {"residual": calibration(weight=0.5), "defect": calibration(weight=0.5)}
    deviating = {"residual": random_map(1), "defect": random_map(2)}
    amap, score = weigh(deviating, weighed, {}, 0.1)
    np.testing.assert_array_equal(amap, fuse(deviating, weighed))
    assert score == image_score(amap, 0.1)


def test_the_detectors_channels_by_name() -> None:
    outputs = np.stack([np.full((4, 4), value) for value in (3.0, -2.0, 5.0)]).astype(np.float32)
    found = detector_evidence(outputs, (8, 12), 1.0)
    assert {name: values.shape for name, values in found.items()} == dict.fromkeys(DETECTOR_EVIDENCE, (8, 12))
    np.testing.assert_allclose(found["defect"], 3.0, rtol=1e-6)
    np.testing.assert_allclose(found["distance"], -2.0, rtol=1e-6)
    np.testing.assert_allclose(found["wide"], 5.0, rtol=1e-6)


def test_a_residual_of_nothing_has_a_logarithm() -> None:
    np.testing.assert_allclose(log_residual(np.array([[0.0, 1.0]], np.float32)), [[np.log(1e-6), 0]])


def test_resizing_keeps_the_mean_when_shrinking_and_the_values_when_not() -> None:
    values = random_map(4, (8, 12))
    assert resize(values, (8, 12)) is values
    blocks = values.reshape(4, 2, 6, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(values, (4, 6)), blocks, atol=1e-6)
    assert resize(values, (16, 24)).shape == (16, 24)


@pytest.mark.parametrize("change", [{"scale": 0.0}, {"weight": 1.5}, {"weight": -0.1}, {"location": np.nan}])
def test_impossible_calibrations_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        calibration(**change)
