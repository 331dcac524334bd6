"""Defective training images are left out of the second fit, and stand out more after it."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.detector import SCALES, Detector, DetectorConfig
from models.preprocess import to_float
from trainer.detector_fit import fit_distances
from trainer.suspects import refit_distances, suspicions

IMAGES = 50
BAD = np.arange(IMAGES) % 5 == 0


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    """Noise; every fifth image is half covered by stripes."""
    rng = np.random.default_rng(0)
    found = rng.integers(90, 160, (IMAGES, 1, 64, 64))
    found[BAD, :, :, :32] += 60 * (np.arange(32) % 8 < 4)
    return found.astype(np.uint8)


def fresh(pixels: NDArray[np.uint8]) -> Detector:
    torch.manual_seed(0)
    detector = Detector(DetectorConfig(width=16)).eval()
    fit_distances(detector, pixels, 0, bf16=False)
    return detector


@torch.no_grad()
def contrast(detector: Detector, pixels: NDArray[np.uint8]) -> float:
    """Mean log distance of defective images above that of good ones."""
    distances = detector(torch.from_numpy(to_float(pixels)))[0][:, 1:].mean(dim=(1, 2, 3)).numpy()
    return float(distances[BAD].mean() - distances[~BAD].mean())


def test_defects_stand_out_more_after_the_second_fit(pixels: NDArray[np.uint8]) -> None:
    detector = fresh(pixels)
    before = contrast(detector, pixels)
    refit_distances(detector, pixels, 0, bf16=False)
    assert contrast(detector, pixels) > before + 0.1
    assert all(torch.isfinite(detector.whiten[scale]).all() for scale in range(SCALES))


def test_the_second_fit_is_repeatable(pixels: NDArray[np.uint8]) -> None:
    first, second = fresh(pixels), fresh(pixels)
    refit_distances(first, pixels, 0, bf16=False)
    refit_distances(second, pixels, 0, bf16=False)
    assert torch.equal(first.whiten, second.whiten)
    assert torch.equal(first.mean, second.mean)


def test_an_image_is_suspected_within_its_kind() -> None:
    rng = np.random.default_rng(1)
    rough = rng.uniform(0, 4, 200)
    features = (rough[:, None] * rng.normal(size=8) + rng.normal(0, 0.05, (200, 8))).astype(np.float32)
    tops = (rough + rng.normal(0, 0.1, 200)).astype(np.float32)
    smooth_and_defective = int(np.argmin(np.abs(rough - 0.5)))
    tops[smooth_and_defective] += 1.5  # below the median of all
    found = suspicions(features, {"distance": tops})
    assert tops[smooth_and_defective] < np.quantile(tops, 0.6)
    assert int(found.argmax()) == smooth_and_defective
