"""The engine on a real exported bundle: torch and ONNX Runtime agree, and nothing leaks between rows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.anomaly import image_score
from models.bundle import Bundle
from models.decode import decode
from models.engine import BundleEngine, EngineError, Runtime, open_engine
from models.preprocess import preprocess
from models.samplers import image_seed

PROFILES = ["paper", "fast"]


@pytest.fixture(scope="module")
def engine(tiny_bundle: Bundle) -> BundleEngine:
    return open_engine(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def batch(tiny_bundle: Bundle, parts_folder: Path) -> tuple[np.ndarray, list[int]]:
    files = [path.read_bytes() for path in sorted(parts_folder.iterdir())[:5]]
    images = [preprocess(decode(data), tiny_bundle.manifest.preprocess) for data in files]
    return np.stack(images), [image_seed(data) for data in files]


@pytest.mark.parametrize("profile", PROFILES)
def test_torch_and_onnx_give_the_same_maps(
    tiny_bundle: Bundle, engine: BundleEngine, batch: tuple[np.ndarray, list[int]], profile: str
) -> None:
    reference = open_engine(tiny_bundle, runtime="torch")
    for ours, theirs in zip(engine.run(*batch, profile), reference.run(*batch, profile), strict=True):
        np.testing.assert_allclose(ours.map, theirs.map, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(ours.reconstruction, theirs.reconstruction, atol=1e-3)
        assert ours.score == pytest.approx(theirs.score, rel=1e-3)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_batch_equals_its_singles(
    engine: BundleEngine, batch: tuple[np.ndarray, list[int]], profile: str
) -> None:
    images, seeds = batch
    together = engine.run(images, seeds, profile)
    for i in (4, 0, 2, 1, 3):
        (alone,) = engine.run(images[i : i + 1], seeds[i : i + 1], profile)
        np.testing.assert_allclose(alone.map, together[i].map, rtol=1e-4, atol=1e-5)
        assert alone.score == pytest.approx(together[i].score, rel=1e-5)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_same_image_gives_the_same_answer_to_the_bit(
    engine: BundleEngine, batch: tuple[np.ndarray, list[int]], profile: str
) -> None:
    first, second = engine.run(*batch, profile), engine.run(*batch, profile)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.map, b.map)
        assert a.score == b.score


@pytest.mark.parametrize("profile", PROFILES)
def test_score_is_read_off_the_map(
    engine: BundleEngine, batch: tuple[np.ndarray, list[int]], profile: str
) -> None:
    recipe = engine.manifest.profiles[profile].map
    for result in engine.run(*batch, profile):
        assert result.score == pytest.approx(image_score(result.map, recipe.top_fraction), rel=1e-6)
        assert np.isfinite(result.map).all()
        assert np.abs(result.reconstruction).max() <= 1.0


def test_training_images_are_unsuspicious(engine: BundleEngine, batch: tuple[np.ndarray, list[int]]) -> None:
    """The scores that calibration saw are the scores that serving gives."""
    stored = engine.manifest.calibration["fast"].score
    calibrated = [stored.calibrate(result.score) for result in engine.run(*batch, "fast")]
    assert abs(float(np.median(calibrated))) < 4


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_a_gpu_that_is_not_there_is_said_and_not_replaced(tiny_bundle: Bundle, runtime: Runtime) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(EngineError, match="use --device cpu"):
        open_engine(tiny_bundle, runtime=runtime, device="gpu")


def test_unknown_profile(engine: BundleEngine, batch: tuple[np.ndarray, list[int]]) -> None:
    with pytest.raises(KeyError, match="nope"):
        engine.run(*batch, "nope")
