"""The engine on a bundle with a detector: the same promises as without one."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.bundle import Bundle
from models.decode import decode
from models.engine import BundleEngine, NoisePredictor, OnnxDenoiser, as_denoiser, open_engine
from models.evidence import DETECTOR_EVIDENCE, Look
from models.preprocess import preprocess
from models.process import DiffusionProcess, noise_estimate
from models.samplers import image_seed
from tests.models.toy import smooth_net

Batch = tuple[NDArray[np.float32], list[int]]
PROFILES = ["paper", "fast"]


@pytest.fixture(scope="module")
def engine(tiny_detector_bundle: Bundle) -> BundleEngine:
    return open_engine(tiny_detector_bundle, threads=1)


@pytest.fixture(scope="module")
def batch(tiny_detector_bundle: Bundle, parts_folder: Path) -> Batch:
    files = [path.read_bytes() for path in sorted(parts_folder.iterdir())[:4]]
    images = [preprocess(decode(data), tiny_detector_bundle.manifest.preprocess) for data in files]
    return np.stack(images), [image_seed(data) for data in files]


@pytest.mark.parametrize("profile", PROFILES)
def test_torch_and_onnx_give_the_same_maps(
    tiny_detector_bundle: Bundle, engine: BundleEngine, batch: Batch, profile: str
) -> None:
    reference = open_engine(tiny_detector_bundle, runtime="torch")
    for ours, theirs in zip(engine.run(*batch, profile), reference.run(*batch, profile), strict=True):
        np.testing.assert_allclose(ours.map, theirs.map, rtol=2e-2, atol=1e-2)
        np.testing.assert_allclose(ours.reconstruction, theirs.reconstruction, atol=1e-3)
        # So small a detector's evidence hardly differs from place to place, so rounding counts for much.
        assert ours.score == pytest.approx(theirs.score, rel=2e-2)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_batch_equals_its_singles(engine: BundleEngine, batch: Batch, profile: str) -> None:
    images, seeds = batch
    together = engine.run(images, seeds, profile)
    for i in (3, 0, 2, 1):
        (alone,) = engine.run(images[i : i + 1], seeds[i : i + 1], profile)
        np.testing.assert_allclose(alone.map, together[i].map, rtol=1e-3, atol=1e-4)
        assert alone.score == pytest.approx(together[i].score, rel=1e-3)


def test_the_same_image_gives_the_same_answer_to_the_bit(engine: BundleEngine, batch: Batch) -> None:
    for first, second in zip(engine.run(*batch, "fast"), engine.run(*batch, "fast"), strict=True):
        np.testing.assert_array_equal(first.map, second.map)
        assert first.score == second.score


def test_maps_have_the_size_that_the_network_sees(engine: BundleEngine, batch: Batch) -> None:
    for result in engine.run(*batch, "fast"):
        assert result.map.shape == engine.manifest.map_size == (32, 32)
        assert result.reconstruction.shape == (1, 32, 32)
        assert (result.map > 0).all()


def test_the_detector_decides_with_its_weight(tiny_detector_bundle: Bundle, batch: Batch) -> None:
    """A detector that shouts at one image raises that image's score and no other's."""

    def quiet(images: NDArray[np.float32]) -> Look:
        return Look(np.zeros((len(images), len(DETECTOR_EVIDENCE), 16, 16), dtype=np.float32))

    def shouting(images: NDArray[np.float32]) -> Look:
        look = quiet(images)
        look.evidence[1, :, 4:8, 4:8] = 1000.0
        return look

    net = OnnxDenoiser(tiny_detector_bundle.file("model.onnx"), threads=1)
    before, after = (
        BundleEngine(tiny_detector_bundle, net, detector=detect).run(*batch, "fast")
        for detect in (quiet, shouting)
    )
    weighed = tiny_detector_bundle.manifest.calibration["fast"].evidence
    raised = [b.score > a.score for a, b in zip(before, after, strict=True)]
    expected = any(weighed[kind].weight > 0 for kind in DETECTOR_EVIDENCE)
    assert raised == [False, expected, False, False]


def test_a_scaled_output_becomes_a_noise_prediction() -> None:
    process = DiffusionProcess()
    x = np.random.default_rng(0).standard_normal((2, 1, 4, 4)).astype(np.float32)
    t = np.array([5.0, 80.0], dtype=np.float32)
    assert as_denoiser(smooth_net, process, 0.0) is smooth_net
    scaled = as_denoiser(smooth_net, process, 0.3)
    assert isinstance(scaled, NoisePredictor)
    abar = process.abar(t)[:, None, None, None]
    np.testing.assert_allclose(scaled(x, t), noise_estimate(smooth_net(x, t), abar, 0.3), rtol=1e-4)
    assert not np.allclose(scaled(x, t), smooth_net(x, t))
