"""Parts are profiles: names, what a bundle of several must hold, and the label that reaches the network."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from models.engine import OnnxDenoiser
from models.engine_torch import TorchDenoiser
from models.parts import LONGEST_NAME, check_parts, for_part, of_part, per_part
from models.profiles import OneStepProfile, Profile
from models.tiles import tiled
from models.unet import UNet, UNetConfig
from tests.models.test_unet import make_net
from trainer.export import write_onnx

FAST = OneStepProfile(timesteps=(50,))
PAPER = OneStepProfile(timesteps=(100,))
BOTH: dict[str, Profile] = {"paper": PAPER, "fast": FAST}


def test_profiles_once_per_part_the_first_parts_first() -> None:
    found = per_part(BOTH, ("nut", "bolt"))
    assert list(found) == ["paper.nut", "fast.nut", "paper.bolt", "fast.bolt"]
    assert [profile.part for profile in found.values()] == ["nut", "nut", "bolt", "bolt"]
    assert found["fast.bolt"].model_copy(update={"part": None}) == FAST
    assert per_part(BOTH, (None,)) == BOTH
    assert for_part("fast", None) == "fast"


def test_a_profile_of_no_part_is_written_as_before() -> None:
    assert "part" not in FAST.model_dump(mode="json")
    assert FAST.model_copy(update={"part": "nut"}).model_dump(mode="json")["part"] == "nut"


@pytest.mark.parametrize(
    ("parts", "classes", "profiles", "message"),
    [
        (("a", "b"), 3, per_part(BOTH, ("a", "b")), "3 classes does not fit"),
        (("a", "a"), 2, per_part(BOTH, ("a",)), "does not fit the parts"),
        (("a",), 1, per_part(BOTH, ("a",)), "does not fit the parts"),
        ((), 0, per_part(BOTH, ("a",)), "has no parts"),
        (("a", "b"), 2, per_part(BOTH, ("a",)), "for each of"),
        (("a", "b"), 2, per_part(BOTH, ("a", "b", "c")), "for each of"),
        (("a", "b"), 2, BOTH, "for each of"),
        (("a", "b"), 2, {"fast.a": FAST, "fast.b": FAST}, "for each of"),
        (("a", "b"), 2, per_part({"x" * LONGEST_NAME: FAST}, ("a", "b")), "longer than"),
    ],
)
def test_contradictions_are_refused(
    parts: tuple[str, ...], classes: int, profiles: dict[str, Profile], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_parts(parts, classes, profiles)


def test_whole_and_old_bundles_are_accepted() -> None:
    check_parts((), 0, BOTH)
    check_parts(("a", "b"), 2, per_part(BOTH, ("a", "b")))


def test_onnx_equals_torch_under_every_label_alone_mixed_and_tiled(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    net = make_net(classes=3)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(net, path, 1, net.config.stride, 3)
    torch_net, onnx = TorchDenoiser(net), OnnxDenoiser(path, threads=1)
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((3, 1, 24, 24), dtype=np.float32), np.array([5, 50, 400], np.float32)
    alone = [of_part(onnx, label)(x, t) for label in range(3)]
    for label, found in enumerate(alone):
        np.testing.assert_allclose(found, of_part(torch_net, label)(x, t), atol=1e-4)
    mixed = onnx(x, t, np.array([0, 1, 2]))
    np.testing.assert_allclose(mixed, [alone[i][i] for i in range(3)], atol=1e-5)
    assert min(np.abs(a - b).max() for a, b in pairwise(alone)) > 1e-2
    small = tiled(of_part(onnx, 2), 16, 8)(x, t)  # the label must go with tiles, whose number is not B
    np.testing.assert_allclose(small, tiled(of_part(torch_net, 2), 16, 8)(x, t), atol=1e-4)


def test_without_classes_the_exported_network_has_its_two_inputs(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(make_net(), path, 1, 4)
    assert [entry.name for entry in OnnxDenoiser(path)._session.get_inputs()] == ["x", "t"]


def test_the_class_only_adds_to_the_network() -> None:
    """Without classes the weights are those of before; with them, the same where the embedding is zero."""
    plain, several = make_net(), make_net(classes=2)
    assert {name for name in several.state_dict() if name not in plain.state_dict()} == {
        "class_embedding.weight"
    }
    assert "classes" not in repr(list(plain.state_dict()))
    several.load_state_dict(plain.state_dict(), strict=False)
    torch.nn.init.zeros_(several.class_embedding.weight)
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([3.0, 30.0])
    with torch.inference_mode():
        torch.testing.assert_close(several(x, t, torch.tensor([0, 1])), plain(x, t), rtol=0, atol=0)


def test_labels_are_neither_forgotten_nor_given_in_vain() -> None:
    x, t = torch.randn(1, 1, 16, 16), torch.tensor([3.0])
    with pytest.raises(ValueError, match="needs labels"):
        make_net(classes=2)(x, t)
    with pytest.raises(ValueError, match="takes no labels"):
        make_net()(x, t, torch.tensor([0]))
    with pytest.raises(ValueError, match="at least 2"):
        UNet(UNetConfig(classes=1))


def test_every_parameter_learns_and_every_class_on_its_own() -> None:
    net = make_net(classes=3)
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([3.0, 30.0])
    net(x, t, torch.tensor([0, 2])).square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    learned = net.class_embedding.weight.grad
    assert learned is not None
    assert [bool(row.any()) for row in learned] == [True, False, True]
