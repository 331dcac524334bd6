import pytest
import torch

from models.unet import UNet, UNetConfig, timestep_embedding


def make_net(**changes: object) -> UNet:
    """A small network whose zero-initialised layers are randomised, so that every path matters."""
    torch.manual_seed(0)
    net = UNet(UNetConfig(**{"channels": 1, "widths": (16, 32), "groups": 8, **changes})).eval()
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return net


@pytest.mark.parametrize(
    ("channels", "patch", "size"),
    [(1, 2, (16, 16)), (3, 2, (20, 36)), (1, 1, (10, 14)), (3, 4, (32, 8)), (1, 2, (4, 4))],
)
def test_any_size_divisible_by_the_stride(channels: int, patch: int, size: tuple[int, int]) -> None:
    net = make_net(channels=channels, patch=patch)
    assert size[0] % net.config.stride == size[1] % net.config.stride == 0
    x = torch.randn(2, channels, *size)
    assert net(x, torch.tensor([1.0, 99.5])).shape == x.shape


def test_batch_equals_singles() -> None:
    net = make_net()
    x, t = torch.randn(5, 1, 16, 16), torch.tensor([1.0, 7.5, 100.0, 250.0, 400.0])
    with torch.inference_mode():
        together = net(x, t)
        single = torch.cat([net(x[i : i + 1], t[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, single, atol=1e-5, rtol=1e-4)


def test_timestep_matters_and_fractions_are_continuous() -> None:
    net = make_net()
    x = torch.randn(1, 1, 16, 16)
    with torch.inference_mode():
        at = {t: net(x, torch.tensor([t])) for t in (50.0, 50.01, 51.0, 300.0)}
    assert (at[50.0] - at[300.0]).abs().max() > 1e-2
    assert (at[50.0] - at[50.01]).abs().max() < 0.1 * (at[50.0] - at[51.0]).abs().max()


def test_every_parameter_learns() -> None:
    net = make_net(blocks=2)
    net(torch.randn(2, 1, 16, 16), torch.tensor([3.0, 30.0])).square().mean().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_attention_only_when_asked() -> None:
    names = [name for name, _ in make_net(attention=False).named_parameters()]
    assert not any("qkv" in name for name in names)
    assert sum("qkv.weight" in name for name, _ in make_net().named_parameters()) == 1


def test_embedding_tells_timesteps_apart() -> None:
    rows = timestep_embedding(torch.arange(0, 1001).float(), 32)
    assert torch.unique(rows, dim=0).shape[0] == 1001


def test_config_survives_json() -> None:
    config = UNetConfig(channels=3, widths=(16, 24), groups=8)
    assert UNetConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("bad", [{"channels": 2}, {"widths": ()}, {"widths": (20,)}, {"blocks": 0}])
def test_impossible_configs_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message differs per field
        UNetConfig(**bad)
