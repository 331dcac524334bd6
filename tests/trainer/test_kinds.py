"""Kinds matter where they explain what good parts score, and calibration and inference agree on them."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from models.bundle import Bundle, MapRecipe, OneStepProfile
from models.evidence import Look
from models.preprocess import to_float
from models.process import DiffusionProcess
from models.scoring import score_image
from trainer.calibrate import Calibrated, Models, calibrate_profile
from trainer.calibrate_all import write_calibration
from trainer.kinds import LEAST_IMAGES, fit_kinds, lower_spread, usual_of_all
from trainer.recipe import Calibration

Float = NDArray[np.float32]
IMAGES, FEATURES = 120, 12
PROFILE = OneStepProfile(timesteps=(20.0,), map=MapRecipe(top_fraction=0.02))


def features_and_kind(seed: int, images: int = IMAGES) -> tuple[Float, Float]:
    rng = np.random.default_rng(seed)
    kind = rng.uniform(-2, 2, images)
    mixing = rng.normal(size=FEATURES)
    found = kind[:, None] * mixing + rng.normal(0, 0.1, (images, FEATURES))
    return found.astype(np.float32), kind.astype(np.float32)


def test_the_kind_takes_away_what_it_explains() -> None:
    features, kind = features_and_kind(0)
    noise = np.random.default_rng(1).normal(0, 0.2, IMAGES).astype(np.float32)
    kinds = fit_kinds(features, {"distance": 2 * kind + noise, "defect": noise})
    assert kinds is not None
    assert set(kinds.tops) == {"distance"}  # the other does not depend on the kind
    left = kinds.tops["distance"] - usual_of_all(kinds)["distance"]
    assert lower_spread(left) < 0.5 * lower_spread(kinds.tops["distance"])


@pytest.mark.parametrize("seed", range(5))
def test_what_does_not_depend_on_the_kind_is_left_alone(seed: int) -> None:
    features, _ = features_and_kind(seed)
    noise = np.random.default_rng(100 + seed).normal(size=IMAGES).astype(np.float32)
    assert fit_kinds(features, {"distance": noise}) is None


def test_too_few_images_have_no_kinds() -> None:
    features, kind = features_and_kind(2, LEAST_IMAGES - 1)
    assert fit_kinds(features, {"distance": kind}) is None


def test_contaminants_do_not_become_usual() -> None:
    features, kind = features_and_kind(3)
    tops = 2 * kind
    bad = np.arange(IMAGES) % 5 == 0
    kinds = fit_kinds(features, {"distance": tops + 6.0 * bad})
    assert kinds is not None
    above = kinds.tops["distance"] - usual_of_all(kinds)["distance"]
    assert above[bad].min() > above[~bad].max()


class _Setting:
    """Images whose brightness says their kind, and a detector whose evidence rises with it."""

    def __init__(self) -> None:
        rng = np.random.default_rng(4)
        pixels = rng.integers(0, 40, (IMAGES, 1, 16, 16)) + rng.integers(0, 200, (IMAGES, 1, 1, 1))
        self.pixels = pixels.astype(np.uint8)
        self.models = Models(
            lambda x, t: np.zeros_like(x),
            DiffusionProcess(),
            look=lambda images, indices: self.detect(images),
        )

    def detect(self, images: Float) -> Look:
        brightness = images.mean(axis=(1, 2, 3), keepdims=True)
        evidence = np.repeat(images[:, :, ::2, ::2] - brightness + 3 * brightness, 3, axis=1)
        features = np.concatenate([brightness[:, :, 0, 0], images[:, 0, 0, :6]], axis=1)
        return Look(evidence.astype(np.float32), features.astype(np.float32))

    def calibrate(self) -> Calibrated:
        return calibrate_profile(
            self.models,
            "fast",
            PROFILE,
            self.pixels,
            list(range(IMAGES)),
            Calibration(max_calls=10_000),
            subset_seed=0,
        )


@pytest.fixture(scope="module")
def setting() -> _Setting:
    return _Setting()


@pytest.fixture(scope="module")
def calibrated(setting: _Setting) -> Calibrated:
    return setting.calibrate()


def test_inference_scores_the_training_images_as_calibration_did(
    setting: _Setting, calibrated: Calibrated, tmp_path: Path
) -> None:
    assert calibrated.kinds is not None
    write_calibration({"fast": calibrated}, tmp_path / "calibration.safetensors")
    manifest = SimpleNamespace(calibration={"fast": calibrated.calibration})
    kinds = Bundle(tmp_path, cast("object", manifest), "0").kinds("fast")  # type: ignore[arg-type]
    assert kinds is not None
    found, without = [], []
    for row in calibrated.indices[:20]:
        image = to_float(setting.pixels[row : row + 1])
        levels = setting.models.levels(PROFILE, image, [int(row)])[0]
        known = image[0], setting.detect(image).row(0), PROFILE, calibrated.calibration, calibrated.positions
        found.append(score_image(levels, *known, kinds).score)
        without.append(score_image(levels, *known).score)
    np.testing.assert_allclose(found, calibrated.scores[:20], rtol=1e-3)
    assert not np.allclose(without, calibrated.scores[:20], rtol=0.1)


def test_calibration_is_repeatable(setting: _Setting, calibrated: Calibrated) -> None:
    np.testing.assert_array_equal(setting.calibrate().scores, calibrated.scores)
