"""Our group normalisation is PyTorch's, results and gradients, wherever it takes its own way."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models import group_norm
from models.group_norm import GroupNorm

GROUPS = 8


def case(channels: int, side_px: int, dtype: torch.dtype, layout: torch.memory_format) -> tuple[Tensor, ...]:
    """Maps whose groups are far from mean 0 and deviation 1, and a gradient for them."""
    torch.manual_seed(channels)
    offsets, scales = torch.randn(2, 3, channels, 1, 1).unbind()
    x = torch.randn(3, channels, side_px, side_px + 4) * scales.exp() + offsets
    return tuple(values.to(dtype).to(memory_format=layout) for values in (x, torch.randn_like(x)))


def gradients(norm: torch.nn.GroupNorm, x: Tensor, g: Tensor, *, plainly: bool = False) -> list[Tensor]:
    x = x.detach().requires_grad_()
    if plainly:
        y = F.group_norm(x, norm.num_groups, norm.weight.to(x.dtype), norm.bias.to(x.dtype), norm.eps)
    else:
        y = norm(x)
    return [y.detach(), *torch.autograd.grad(y, (x, *norm.parameters()), g)]


@pytest.mark.parametrize("channels", [16, 32, 96, 128])
@pytest.mark.parametrize("side_px", [4, 24])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_gradients_in_bfloat16_are_those_in_double_precision(
    channels: int, side_px: int, layout: torch.memory_format
) -> None:
    x, g = case(channels, side_px, torch.bfloat16, layout)
    norm = GroupNorm(GROUPS, channels)
    torch.nn.init.normal_(norm.weight)
    expected = gradients(norm.double(), x.double(), g.double(), plainly=True)
    for ours, theirs in zip(gradients(norm.float(), x, g), expected, strict=True):
        assert (ours - theirs).abs().max() < 0.02 * theirs.abs().max()  # bfloat16 has 8 bits
        assert (ours - theirs).square().mean() < 0.005**2 * theirs.square().mean()


def test_its_own_way_is_taken_where_it_is_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def apply(x: Tensor, *rest: object) -> Tensor:
        taken.append(x.dtype)
        return x

    monkeypatch.setattr(group_norm._Quick, "apply", apply)

    def takes(channels: int, dtype: torch.dtype, layout: torch.memory_format, grad: bool = True) -> bool:
        taken.clear()
        x, _ = case(channels, 8, dtype, layout)
        GroupNorm(GROUPS, channels).to(dtype)(x.requires_grad_(grad))
        return bool(taken)

    assert takes(32, torch.bfloat16, torch.channels_last)
    assert not takes(128, torch.bfloat16, torch.channels_last)
    assert not takes(32, torch.float32, torch.channels_last)
    assert not takes(32, torch.bfloat16, torch.contiguous_format)
    assert not takes(32, torch.bfloat16, torch.channels_last, grad=False)


def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    x, g = case(32, 8, torch.bfloat16, torch.channels_last)
    x.requires_grad_()
    (first,) = torch.autograd.grad(GroupNorm(GROUPS, 32)(x), x, g.requires_grad_(), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.backward(first.sum())
