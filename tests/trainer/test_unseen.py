"""Training images looked at as if they were new: cross-fitted Gaussians, in folds of alike images."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.detector import Detector, DetectorConfig
from models.preprocess import to_float
from trainer.detector_fit import fit_distances
from trainer.suspects import Sample, refit_distances
from trainer.unseen import FOLDS, LEAST_IMAGES, Unseen, cross_fit, deal

IMAGES = 40
ROWS = np.arange(IMAGES)


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    """Noise of different coarseness: no two images are of one texture."""
    rng = np.random.default_rng(0)
    found = rng.integers(60, 190, (IMAGES, 1, 64, 64)).astype(np.float32)
    for index, image in enumerate(found[:, 0]):
        found[index, 0] = (image + np.roll(image, 1 + index % 7, index % 2)) / 2
    return found.astype(np.uint8)


@pytest.fixture(scope="module")
def fitted(pixels: NDArray[np.uint8]) -> tuple[Detector, Sample]:
    torch.manual_seed(0)
    detector = Detector(DetectorConfig(width=16)).eval()
    fit_distances(detector, pixels, 0, bf16=False)
    return detector, refit_distances(detector, pixels, 0, bf16=False)


@pytest.fixture(scope="module")
def unseen(fitted: tuple[Detector, Sample], pixels: NDArray[np.uint8]) -> Unseen:
    return cross_fit(*fitted, ROWS, pixels, 0)


def test_an_image_looks_stranger_to_a_fit_without_it(
    fitted: tuple[Detector, Sample], unseen: Unseen, pixels: NDArray[np.uint8]
) -> None:
    detector, sample = fitted
    images = to_float(pixels)
    with torch.no_grad():
        seen = detector(torch.from_numpy(images))[0].numpy()
    new = unseen(images, ROWS)
    further = (new.evidence - seen)[sample.kept, 1].mean(axis=(1, 2))
    assert (further > 0).mean() > 0.9
    np.testing.assert_allclose(new.evidence[:, 0], seen[:, 0], atol=1e-4)  # the head is one and the same


def test_each_image_gets_its_own_fold_in_any_company(unseen: Unseen, pixels: NDArray[np.uint8]) -> None:
    images = to_float(pixels)
    every = unseen(images, ROWS)
    some = np.array([7, 3, 20])
    few = unseen(images[some], some)
    assert few.features is not None
    assert every.features is not None
    np.testing.assert_allclose(few.evidence, every.evidence[some], atol=1e-4)
    np.testing.assert_allclose(few.features, every.features[some], atol=1e-5)
    part = unseen.rows(slice(10, 30))(images[10:13], np.arange(3))
    np.testing.assert_allclose(part.evidence, every.evidence[10:13], atol=1e-4)


def test_images_that_the_fit_was_not_offered_have_a_fold_too(
    fitted: tuple[Detector, Sample], pixels: NDArray[np.uint8]
) -> None:
    offered = np.arange(0, IMAGES, 2)
    detector = fitted[0]
    sample = refit_distances(detector, pixels[offered], 0, bf16=False)
    found = cross_fit(detector, sample, offered, pixels, 0)
    assert found.fold.shape == (IMAGES,)
    assert np.isfinite(found(to_float(pixels[1:2]), np.array([1])).evidence).all()


def test_images_that_are_alike_share_a_fold() -> None:
    rng = np.random.default_rng(3)
    series = np.repeat(rng.normal(0, 10, (40, 6)), 5, axis=0)  # forty parts, five pictures of each
    features = (series + rng.normal(0, 0.1, series.shape)).astype(np.float32)
    fold = deal(features, 0).reshape(40, 5)
    assert (fold == fold[:, :1]).all()
    counts = np.bincount(fold.ravel(), minlength=FOLDS)
    assert counts.min() > 0.5 * counts.max()


def test_few_images_are_dealt_evenly() -> None:
    fold = deal(np.zeros((LEAST_IMAGES - 1, 3), np.float32), 0)
    assert np.ptp(np.bincount(fold, minlength=FOLDS)) <= 1
