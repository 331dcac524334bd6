import pytest
import torch
import torch.nn.functional as F

from models.losses import PENALTIES, REDUCTIONS, huber, mse

T = torch.tensor([1, 50])


@pytest.fixture
def residual() -> torch.Tensor:
    return torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2


@pytest.mark.parametrize("delta", [0.01, 0.5, 3.0])
def test_huber_is_torchs(residual: torch.Tensor, delta: float) -> None:
    expected = F.huber_loss(residual, torch.zeros_like(residual), delta=delta, reduction="none")
    torch.testing.assert_close(huber(delta, scaled=False)(residual, T), expected)
    torch.testing.assert_close(huber(delta)(residual, T), expected / delta)


def test_huber_is_the_definition_of_the_source() -> None:
    r = torch.tensor([-3.0, -0.5, 0.0, 0.2, 0.5, 4.0])
    by_hand = torch.tensor([0.5 * (3 - 0.25), 0.125, 0.0, 0.02, 0.125, 0.5 * (4 - 0.25)])
    torch.testing.assert_close(huber(0.5, scaled=False)(r, T), by_hand)


def test_large_delta_is_half_the_squared_error(residual: torch.Tensor) -> None:
    torch.testing.assert_close(huber(1e6, scaled=False)(residual, T), mse()(residual, T) / 2)


def test_small_delta_tends_to_the_absolute_error(residual: torch.Tensor) -> None:
    torch.testing.assert_close(huber(1e-6)(residual, T), residual.abs(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("scaled", "bound"), [(False, 0.3), (True, 1.0)])
def test_gradient_is_bounded(residual: torch.Tensor, scaled: bool, bound: float) -> None:
    residual = (residual * 100).requires_grad_()
    huber(0.3, scaled)(residual, T).sum().backward()
    assert residual.grad is not None
    assert residual.grad.abs().max() == pytest.approx(bound)


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_every_penalty_keeps_the_shape_and_is_zero_at_zero(name: str, residual: torch.Tensor) -> None:
    penalty = PENALTIES[name]()
    assert penalty(residual, T).shape == residual.shape
    assert penalty(torch.zeros_like(residual), T).abs().max() == 0
    assert (penalty(residual, T) >= 0).all()


@pytest.mark.parametrize("name", sorted(REDUCTIONS))
def test_every_reduction_gives_one_number_between_least_and_most(name: str, residual: torch.Tensor) -> None:
    losses = residual.square()
    reduced = REDUCTIONS[name]()(losses, T)
    assert reduced.shape == ()
    assert losses.min() <= reduced <= losses.max()


def test_delta_must_be_positive() -> None:
    with pytest.raises(ValueError, match="delta must be positive"):
        huber(0.0)
