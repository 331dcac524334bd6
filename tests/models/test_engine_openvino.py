"""OpenVINO beside ONNX Runtime: the same verdicts, and a network that it would distort is refused."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from models.bundle import Bundle
from models.decode import decode
from models.engine import EngineError, open_engine
from models.engine_onnx import OnnxDenoiser
from models.preprocess import preprocess
from models.samplers import image_seed
from models.unet import UNet, UNetConfig
from trainer.export import write_onnx

pytest.importorskip("openvino")
import openvino as ov
import openvino.opset13 as op

from models.engine_openvino import SIZES, TOLERANCE, OpenVinoDenoiser, ParityError, native_precision
from models.engine_openvino_norm import fold_normalisations

SHAPE = (1, 32, 32)


@pytest.mark.parametrize("bundle", ["tiny_bundle", "tiny_detector_bundle"])
@pytest.mark.parametrize("profile", ["paper", "fast"])
def test_scores_and_maps_equal_those_of_onnx_runtime(
    bundle: str, profile: str, parts_folder: Path, request: pytest.FixtureRequest
) -> None:
    made: Bundle = request.getfixturevalue(bundle)
    files = [path.read_bytes() for path in sorted(parts_folder.iterdir())[:3]]
    images = np.stack([preprocess(decode(data), made.manifest.preprocess) for data in files])
    seeds = [image_seed(data) for data in files]
    tolerance = 1e-3 if native_precision() == "f32" else 3e-2
    found, expected = (
        open_engine(made, runtime, threads=1).run(images, seeds, profile) for runtime in ("openvino", "onnx")
    )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.reconstruction, theirs.reconstruction, atol=tolerance)
        np.testing.assert_allclose(ours.map, theirs.map, rtol=tolerance, atol=tolerance)
        assert ours.score == pytest.approx(theirs.score, rel=tolerance)


def test_batches_of_any_size_and_singles_agree(tiny_bundle: Bundle) -> None:
    net = OpenVinoDenoiser(tiny_bundle.file("model.onnx"), threads=1, precision="f32")
    reference = OnnxDenoiser(tiny_bundle.file("model.onnx"), threads=1)
    rng = np.random.default_rng(0)
    for rows, height, width in ((3, 32, 32), (1, 32, 32), (5, 32, 48), (2, 32, 32)):
        x = rng.standard_normal((rows, 1, height, width), dtype=np.float32)
        t = rng.uniform(1, 200, rows).astype(np.float32)
        kept, together = net(x, t), net(x, t)
        np.testing.assert_array_equal(kept, together)  # an answer is not overwritten by the next
        np.testing.assert_allclose(together, reference(x, t), atol=TOLERANCE["f32"])
        alone = np.concatenate([net(x[row : row + 1], t[row : row + 1]) for row in range(rows)])
        np.testing.assert_allclose(alone, together, atol=1e-4)


@pytest.fixture(scope="module")
def wild_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every weight matters, also those that are zero before training; two classes."""
    torch.manual_seed(0)
    net = UNet(UNetConfig(channels=1, widths=(16, 24), classes=2)).eval()
    for weights in net.parameters():
        torch.nn.init.normal_(weights, std=0.1)
    path = tmp_path_factory.mktemp("wild") / "model.onnx"
    write_onnx(net, path, 1, net.config.stride, classes=2)
    return path


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_calls_of_the_known_shape_agree_in_any_number(
    wild_network: Path, precision: Literal["f32", "bf16"]
) -> None:
    if precision == "bf16" and native_precision() != "bf16":
        pytest.skip("this CPU does not multiply bfloat16")
    net = OpenVinoDenoiser(wild_network, threads=1, precision=precision, shape=SHAPE)
    reference = OnnxDenoiser(wild_network, threads=1)
    rng = np.random.default_rng(0)
    for rows in (1, 3, sum(SIZES), 2 * max(SIZES) + 3):
        x = rng.standard_normal((rows, *SHAPE), dtype=np.float32)
        t, label = rng.uniform(1, 200, rows).astype(np.float32), rng.integers(0, 2, rows)
        expected = reference(x, t, label)
        assert np.abs(net(x, t, label) - expected).max() < TOLERANCE[precision] * np.abs(expected).max()
    assert net(x[:, :, :16], t, label).shape == (rows, 1, 16, 32)  # another shape is not refused


def test_every_normalisation_is_folded_into_factors_and_offsets(wild_network: Path) -> None:
    network = ov.Core().read_model(wild_network)
    kinds = [node.get_type_name() for node in network.get_ordered_ops()]
    assert fold_normalisations(network) == kinds.count("MVN") > 0
    left = [node.get_type_name() for node in network.get_ordered_ops()]
    assert "MVN" not in left
    assert fold_normalisations(network) == 0


def test_a_normalisation_of_another_kind_is_left_alone() -> None:
    x = op.parameter([1, 4, 8, 8], np.float32)
    norm = op.mvn(x, np.array([2, 3]), True, 1e-5, "INSIDE_SQRT")
    network = ov.Model([op.relu(norm)], [x])
    assert fold_normalisations(network) == 0
    assert "MVN" in [node.get_type_name() for node in network.get_ordered_ops()]


def test_another_network_is_not_taken_for_this_one(tiny_bundle: Bundle) -> None:
    net = OpenVinoDenoiser(tiny_bundle.file("model.onnx"), threads=1)
    reference = OnnxDenoiser(tiny_bundle.file("model.onnx"), threads=1)
    assert net.check(reference, SHAPE) <= TOLERANCE[net.precision]
    with pytest.raises(ParityError, match="use --runtime onnx"):
        net.check(lambda x, t: reference(x, t) + np.float32(0.2), SHAPE)
    with pytest.raises(ParityError):
        net.check(lambda x, t: reference(x, t) * np.float32("nan"), SHAPE)


@pytest.mark.parametrize("shape", [None, SHAPE])
def test_labels_reach_the_network(wild_network: Path, shape: tuple[int, int, int] | None) -> None:
    ours = OpenVinoDenoiser(wild_network, threads=1, shape=shape)
    assert ours.check(OnnxDenoiser(wild_network, threads=1), SHAPE, classes=2) < TOLERANCE["bf16"]
    x, t = np.ones((1, *SHAPE), dtype=np.float32), np.array([50], dtype=np.float32)
    first, second = (ours(x, t, np.array([label])) for label in (0, 1))
    assert np.abs(first - second).max() > 1e-3


def test_a_gpu_is_not_asked_of_it(tiny_bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="use --device cpu"):
        open_engine(tiny_bundle, "openvino", "gpu")
