"""Parts that share fine structure are found out, and compared place by place, whatever contaminates them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.detector import FINE, Detector, DetectorConfig
from models.engine_onnx import OnnxDetector
from models.engine_torch import TorchDetector
from models.places import Places
from models.preprocess import to_float
from trainer.detector_fit import fit_distances
from trainer.export import check_detector, write_detector
from trainer.places import FEWEST, MOST_PLACES, SHARED, fit_places, places_of, shared_structure, worth_it
from trainer.suspects import refit_distances
from trainer.unseen import cross_fit

IMAGES = 100


def structured(images: int, shared: bool, seed: int = 0) -> Tensor:
    """Features `[N, 6, 12, 12]` of parts with the same fine structure, or each with its own."""
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(6, 12, 12)) if shared else rng.normal(size=(images, 6, 12, 12))
    return torch.from_numpy((design + 0.3 * rng.normal(size=(images, 6, 12, 12))).astype(np.float32))


def test_structure_is_shared_by_parts_that_are_alike() -> None:
    assert shared_structure(structured(IMAGES, shared=True)) > 0.85
    assert shared_structure(structured(IMAGES, shared=False)) < 0.1
    assert worth_it(structured(FEWEST, shared=True))
    assert not worth_it(structured(FEWEST - 1, shared=True))
    assert not worth_it(structured(FEWEST, shared=False))


def test_a_slope_over_all_images_is_no_fine_structure() -> None:
    slope = torch.linspace(-3, 3, 12).expand(6, 12, 12)
    assert shared_structure(slope + 0.3 * structured(IMAGES, shared=False)) < SHARED


def test_the_distance_is_the_mahalanobis_distance_of_each_place() -> None:
    rng = np.random.default_rng(1)
    places = Places((2, 3), 8, 5, stride=8)
    factors = rng.normal(size=(6, 5, 5)) + 2 * np.eye(5)
    places.mean.copy_(torch.from_numpy(rng.normal(size=(5, 2, 3))))
    places.whiten.copy_(torch.from_numpy(factors))
    features = torch.from_numpy(rng.normal(size=(4, 5, 2, 3)).astype(np.float32))
    near = torch.nn.functional.avg_pool2d(features, 3, stride=1, padding=1, count_include_pad=False)
    away = (near - places.mean).flatten(2).numpy().astype(np.float64)
    expected = np.einsum("bip,pij,pkj,bkp->bp", away, factors, factors, away) / 5
    np.testing.assert_allclose(places(features).flatten(1).numpy(), np.log(expected), rtol=1e-4, atol=1e-4)


def test_defects_at_a_place_do_not_widen_what_is_usual_there() -> None:
    clean = structured(200, shared=True)
    dirty = clean.clone()
    dirty[:6, :, 3, 4] += 20.0  # six images are defective there, 40 somewhere
    for image in range(6, 40):
        dirty[image, :, image % 12, 7] += 20.0
    before, after = fit_places(clean, (96, 96)), fit_places(dirty, (96, 96))
    place = 3 * 12 + 4
    change = (after.whiten[place] @ after.whiten[place].T) / (before.whiten[place] @ before.whiten[place].T)
    assert 0.7 < float(change.diagonal().min()) <= float(change.diagonal().max()) < 1.5
    assert float((after.mean - before.mean).abs().max()) < 0.1


def test_large_images_have_larger_places() -> None:
    many = places_of(torch.rand(1, 3, 96, 64))
    assert many.shape == (1, 3, 48, 32)
    assert many.shape[2] * many.shape[3] <= MOST_PLACES
    assert fit_places(torch.rand(90, 3, 12, 8), (192, 128)).place_px == 16


@pytest.fixture(scope="module")
def boards() -> NDArray[np.uint8]:
    """The same fine pattern in every image, `[N, 1, 64, 64]`."""
    rng = np.random.default_rng(2)
    design = np.kron(rng.integers(40, 215, (16, 16)), np.ones((4, 4)))
    return np.clip(design + rng.normal(0, 8, (IMAGES, 1, 64, 64)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def detector(boards: NDArray[np.uint8]) -> Detector:
    torch.manual_seed(0)
    found = Detector(DetectorConfig(width=16)).eval()
    fit_distances(found, boards, 0, bf16=False)
    refit_distances(found, boards, 0, bf16=False, by_place=True)
    return found


def test_boards_are_compared_place_by_place_and_noise_is_not(
    detector: Detector, boards: NDArray[np.uint8]
) -> None:
    assert detector.config == DetectorConfig(width=16, places=(8, 8))
    noise = np.random.default_rng(3).integers(0, 255, boards.shape).astype(np.uint8)
    torch.manual_seed(0)
    other = Detector(DetectorConfig(width=16)).eval()
    refit_distances(other, noise, 0, bf16=False, by_place=True)
    assert other.places is None
    refit_distances(other, boards, 0, bf16=False, by_place=False)
    assert other.places is None


def test_calibration_looks_with_places_that_have_not_seen_the_image(boards: NDArray[np.uint8]) -> None:
    torch.manual_seed(0)
    found = Detector(DetectorConfig(width=16)).eval()
    sample = refit_distances(found, boards, 0, bf16=False, by_place=True)
    unseen = cross_fit(found, sample, np.arange(IMAGES), boards, 0)
    seen = TorchDetector(found)(to_float(boards)).evidence[:, 1]
    new = unseen(to_float(boards), np.arange(IMAGES)).evidence[:, 1]
    assert float(np.mean(new - seen)) > 0.1
    assert all(fold.places is not None for fold in unseen.detectors)


@torch.no_grad()
def test_what_belongs_elsewhere_is_far_from_usual_here(detector: Detector, boards: NDArray[np.uint8]) -> None:
    """A piece of the board copied to another place, where every such piece is usual somewhere."""
    image = to_float(boards[:1]).copy()
    image[:, :, 8:24, 8:24] = image[:, :, 40:56, 36:52]
    evidence = detector(torch.from_numpy(np.concatenate([to_float(boards[:1]), image])))[0]
    raised = (evidence[1] - evidence[0])[1]
    assert float(raised[3:5, 3:5].min()) > 1.0
    assert float(raised[12:, 12:].abs().max()) < 0.3


def test_it_is_exported_as_it_is(detector: Detector, boards: NDArray[np.uint8], tmp_path: Path) -> None:
    write_detector(detector, tmp_path / "detector.onnx", channels=1)
    golden = to_float(boards[:3])
    assert check_detector(detector, tmp_path / "detector.onnx", golden) < 1e-3
    seven = to_float(boards[:7])
    exported = OnnxDetector(tmp_path / "detector.onnx", threads=1)(seven).evidence
    np.testing.assert_allclose(exported, TorchDetector(detector)(seven).evidence, atol=1e-3)
    again = Detector(detector.config).eval()
    again.load_state_dict(detector.state_dict())
    np.testing.assert_array_equal(
        TorchDetector(again)(seven).evidence, TorchDetector(detector)(seven).evidence
    )
    assert detector.places is not None
    assert detector.places.mean.shape[0] == FINE
