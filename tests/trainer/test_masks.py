"""A mask at training: what it covers changes nothing, and the bundle ignores it ever after."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from models.masks import outside
from models.preprocess import Preprocess, to_float
from models.profiles import OneStepProfile
from tests.conftest import part
from tests.models.toy import PROCESS, smooth_net
from trainer.calibrate import Calibrated, Models, calibrate_profile
from trainer.calibrate_all import write_calibration
from trainer.data import DataError
from trainer.masks import fit_mask, read_mask
from trainer.recipe import Calibration

SPEC = Preprocess(height=32, width=32, channels=1)


def left() -> NDArray[np.bool_]:
    mask = np.zeros((32, 32), dtype=np.bool_)
    mask[:, :16] = True
    return mask


def images(noisy_left: bool) -> NDArray[np.uint8]:
    found = np.stack([part(index, 32)[None] for index in range(24)])
    if noisy_left:  # labels, hands, whatever: different on each image
        rng = np.random.default_rng(0)
        found[:, :, :, :14] = rng.integers(0, 255, (24, 1, 32, 14))
    return found


def calibrated(pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None) -> Calibrated:
    models = Models(smooth_net, PROCESS, ignore=mask)
    profile = OneStepProfile(timesteps=(25.0, 100.0))
    seeds = list(range(len(pixels)))
    return calibrate_profile(models, "fast", profile, pixels, seeds, Calibration(), subset_seed=0)


def test_what_the_mask_covers_changes_nothing() -> None:
    clean, noisy = (calibrated(images(flag), left()) for flag in (False, True))
    np.testing.assert_allclose(noisy.scores, clean.scores, rtol=1e-4)
    assert noisy.calibration.score_location == pytest.approx(clean.calibration.score_location, abs=1e-3)
    assert noisy.calibration.residual_scales == pytest.approx(clean.calibration.residual_scales, rel=1e-3)
    # The guard: without the mask it does.
    seen = calibrated(images(True), None).calibration
    assert abs(seen.score_location - clean.calibration.score_location) > 0.05


def test_the_masks_place_goes_into_the_bundles_files(tmp_path: Path) -> None:
    found = {"fast": calibrated(images(False), left())}
    write_calibration(found, tmp_path / "calibration.safetensors", left())
    np.testing.assert_array_equal(load_file(tmp_path / "calibration.safetensors")["ignore"], left())
    write_calibration(found, tmp_path / "calibration.safetensors")
    assert "ignore" not in load_file(tmp_path / "calibration.safetensors")


def test_reading(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    cv2.imwrite(str(path), np.kron(left(), np.full((3, 3), 255)).astype(np.uint8))
    mask = read_mask(path)
    assert mask.shape == (96, 96)
    np.testing.assert_array_equal(fit_mask(mask, SPEC, 1), left())
    assert outside(to_float(images(False))[0, 0], mask).size == 512


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("mask.png", b"no image", "cannot be read"),
        ("mask.jpg", cv2.imencode(".jpg", np.zeros((32, 32), np.uint8))[1].tobytes(), "lossless PNG"),
        ("none.png", None, "cannot be read"),
    ],
)
def test_files_that_are_no_mask(tmp_path: Path, name: str, content: bytes | None, complaint: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        read_mask(tmp_path / name)


def test_a_mask_of_everything_is_refused_before_the_training() -> None:
    with pytest.raises(DataError, match="covers everything"):
        fit_mask(np.ones((5, 5), dtype=np.bool_), SPEC, 2)
