"""What a projected step leaves alone, and what it does not; each with the step as it would have been."""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from models.unet import UNet, UNetConfig
from trainer.batches import Batch
from trainer.continual.projection import Guard, Subspaces, basis, inputs_of

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "strided": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "pointwise": lambda: nn.Conv2d(4, 6, 1),
    "linear": lambda: nn.Linear(40, 6),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", LAYERS)
def test_columns_are_what_a_layer_multiplies(name: str) -> None:
    layer = LAYERS[name]()
    x = torch.randn(3, 40) if name == "linear" else torch.randn(3, 4, 8, 8)
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    by_hand = weight.flatten(1) @ inputs_of(layer, x) + bias[:, None]
    answer = layer(x)
    answer = answer.T if name == "linear" else answer.transpose(0, 1).flatten(1)
    assert torch.allclose(by_hand, answer, atol=1e-5)


def test_the_basis_holds_the_energy_it_is_asked_for_and_no_direction_more() -> None:
    directions = torch.linalg.qr(torch.randn(30, 30))[0][:, :5]
    x = directions @ torch.diag(torch.tensor([10.0, 5.0, 2.0, 1.0, 0.1])) @ torch.randn(5, 4000)
    for energy in (0.5, 0.9, 0.99, 0.9999):
        found = basis(x @ x.T, energy)
        assert torch.allclose(found.T @ found, torch.eye(found.shape[1]), atol=1e-5)
        held = [(part.T @ x).square().sum() / x.square().sum() for part in (found, found[:, :-1])]
        assert held[0] >= energy - 1e-5
        assert held[1] < energy
    assert basis(x @ x.T, 1 - 1e-6).shape == (30, 5)
    assert basis(torch.zeros(4, 4), 0.9).shape == (4, 0)


def old_batches() -> Iterator[Batch]:
    """Two images of label 0, of few patterns, so that coarse levels have directions left."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(2, 1, 16, 1, generator=generator).expand(2, 1, 16, 16).contiguous()
    t = torch.tensor([20.0, 60.0])
    yield Batch(rows, t, torch.full((2, 1, 1, 1), 0.9), rows, torch.zeros(2, dtype=torch.int64))


def network() -> UNet:
    net = UNet(UNetConfig(channels=1, widths=(16, 24), classes=2))
    with torch.no_grad():
        for parameter in net.parameters():  # the last layers begin with zeros, which would hide what changes
            parameter += 0.05 * torch.randn_like(parameter)
    return net


def trained(net: UNet, guard: Guard | None, steps: int = 10) -> UNet:
    """A copy that AdamW moved towards nonsense on other images, of label 1."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.1)
    label = torch.ones(4, dtype=torch.int64)
    for _ in range(steps):
        x = torch.randn(4, 1, 16, 16)
        loss = (net(x, torch.rand(4) * 100, label) - x.roll(1, 3)).square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if guard is not None:
            guard.before()
        optimizer.step()
        if guard is not None:
            guard.after()
    return net


def change(before: UNet, after: UNet, batch: Batch) -> float:
    """Largest difference of the answers, over their size."""
    with torch.no_grad():
        old, new = (net(batch.x_t, batch.t, batch.label) for net in (before, after))
    return float((new - old).abs().max() / old.abs().max())


def test_answers_to_old_inputs_stay_and_those_to_new_ones_change() -> None:
    before = network()
    (batch,) = old_batches()
    subspaces = Subspaces(before, [batch], 1 - 1e-7)
    assert 0.2 < subspaces.free < 0.9
    guarded = copy.deepcopy(before)
    guarded = trained(guarded, Guard(guarded, subspaces, old_labels=1))
    free = trained(copy.deepcopy(before), None)
    assert change(before, guarded, batch) < 1e-3
    assert change(before, free, batch) > 0.1  # the same steps as they would have been
    noise = Batch(torch.randn(2, 1, 16, 16), batch.t, batch.abar, batch.x0, batch.label + 1)  # type: ignore[operator]
    assert change(before, guarded, noise) > 0.01  # it learns


def test_projecting_the_gradient_alone_would_not_do() -> None:
    """Adam and weight decay lead out of the subspace: why the step is projected."""
    layer = nn.Linear(40, 6, bias=False)
    x = torch.randn(3, 40) @ torch.randn(40, 40)
    directions = basis(x.T @ x, 1 - 1e-7)
    weight = layer.weight.detach().clone()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(10):
        optimizer.zero_grad()
        layer(torch.randn(8, 40)).square().sum().backward()
        assert layer.weight.grad is not None
        layer.weight.grad -= layer.weight.grad @ directions @ directions.T
        optimizer.step()
    assert float(((layer.weight.detach() - weight) @ x.T).abs().max()) > 0.1


def test_old_embeddings_norms_and_biases_stand_still() -> None:
    before = network()
    guarded = copy.deepcopy(before)
    trained(guarded, Guard(guarded, Subspaces(guarded, old_batches(), 0.9), old_labels=1), steps=2)
    moved = {
        name
        for (name, old), (_, new) in zip(before.named_parameters(), guarded.named_parameters(), strict=True)
        if not torch.equal(old, new)
    }
    assert not any(name.endswith(".bias") or "norm" in name for name in moved)
    assert torch.equal(before.class_embedding.weight[0], guarded.class_embedding.weight[0])
    assert not torch.equal(before.class_embedding.weight[1], guarded.class_embedding.weight[1])
    assert {"up.1.0.conv1.weight", "middle1.conv1.weight"} <= moved
