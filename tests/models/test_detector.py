"""The detector: its shapes, its distance against numpy, and a Gaussian that contaminants do not widen."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from models.backbone import TAP_CHANNELS
from models.bundle import Bundle
from models.detector import EVIDENCE, GRID, SCALES, Detector, DetectorConfig, fit_gaussian, trainable
from models.engine import OnnxDetector
from models.engine_torch import TorchDetector
from models.evidence import DETECTOR_EVIDENCE

FEATURES = sum(TAP_CHANNELS[2:])


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return Detector(DetectorConfig(width=16)).eval()


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 64, 64), (3, 64, 128)])
def test_evidence_is_a_quarter_of_the_image(
    detector: Detector, channels: int, height: int, width: int
) -> None:
    with torch.inference_mode():
        found, means = detector(torch.zeros(2, channels, height, width))
    assert means.shape == (2, SCALES * FEATURES)
    assert found.shape == (2, len(EVIDENCE), height // GRID, width // GRID)
    assert EVIDENCE == DETECTOR_EVIDENCE


def test_gray_is_seen_as_its_own_copy_in_colour(detector: Detector) -> None:
    gray = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(detector(gray), detector(gray.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("scale", range(SCALES))
def test_distance_is_the_mahalanobis_distance(scale: int) -> None:
    rng = np.random.default_rng(0)
    factor = rng.normal(0, 0.1, (FEATURES, FEATURES)) + np.eye(FEATURES)
    precision = factor @ factor.T
    mean, features = rng.normal(size=FEATURES), rng.normal(size=(2, FEATURES, 3, 5))
    detector = Detector(DetectorConfig(width=16)).double()
    detector.mean[scale].copy_(torch.from_numpy(mean))
    detector.whiten[scale].copy_(torch.linalg.cholesky(torch.from_numpy(precision)))
    away = features - mean[None, :, None, None]
    squared = np.einsum("bihw,ij,bjhw->bhw", away, precision, away)
    found = detector.distance(torch.from_numpy(features), scale)[:, 0]
    np.testing.assert_allclose(found.numpy(), np.log(squared / FEATURES), rtol=1e-9)


def test_outliers_do_not_widen_the_gaussian() -> None:
    rng = np.random.default_rng(1)
    factor = rng.normal(size=(5, 5))
    truth = factor @ factor.T + np.eye(5)
    clean = rng.multivariate_normal(np.ones(5), truth, 9800)
    strange = rng.multivariate_normal(np.ones(5) + 12 * np.sqrt(truth.diagonal()), truth, 200)
    both = np.concatenate([clean, strange])
    found: Any = SimpleNamespace(mean=torch.zeros(2, 5), whiten=torch.eye(5).repeat(2, 1, 1))
    fit_gaussian(cast(Detector, found), torch.from_numpy(both), 1)
    whiten = found.whiten[1].double().numpy()
    covariance = np.linalg.inv(whiten @ whiten.T)
    shrunk = truth + 0.03 * np.diag(truth.diagonal())
    assert np.linalg.norm(covariance - shrunk) < 0.15 * np.linalg.norm(shrunk)
    assert np.linalg.norm(np.cov(both.T) - shrunk) > 0.5 * np.linalg.norm(shrunk)
    off = (found.mean[1].double().numpy() - 1) / np.sqrt(truth.diagonal())
    assert np.abs(off).max() < 0.1
    assert torch.equal(found.whiten[0], torch.eye(5))


def test_what_is_wide_is_the_distance_of_the_half_sized_image(detector: Detector) -> None:
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.inference_mode():
        _, (full, half) = detector.features(images)
        _, (small, _) = detector.features(torch.nn.functional.avg_pool2d(images, 2))
    torch.testing.assert_close(half, small)
    assert full.shape[2:] == (8, 8)


def test_a_pretrained_backbone_is_not_trained() -> None:
    detector = Detector(DetectorConfig(width=16))
    backbone = set(map(id, detector.backbone.parameters()))
    assert backbone <= set(map(id, trainable(detector, backbone=True)))
    head = trainable(detector, backbone=False)
    assert head
    assert not backbone & set(map(id, head))


@pytest.mark.parametrize("size", [(64, 64), (64, 192)])
def test_onnx_equals_torch(tiny_detector_bundle: Bundle, size: tuple[int, int]) -> None:
    images = np.random.default_rng(2).uniform(-1, 1, (3, 1, *size)).astype(np.float32)
    exported = OnnxDetector(tiny_detector_bundle.file("detector.onnx"), threads=1)
    reference = TorchDetector.from_bundle(tiny_detector_bundle)
    ours, theirs = exported(images), reference(images)
    np.testing.assert_allclose(ours.evidence, theirs.evidence, rtol=1e-3, atol=1e-3)
    assert ours.features is not None
    assert theirs.features is not None
    np.testing.assert_allclose(ours.features, theirs.features, rtol=1e-3, atol=1e-3)
