"""Steps that leave alone what a network does with inputs it has learned before.

A layer `y = W x + b` does the same with old inputs `x` after any step that is orthogonal to all of them. So
the directions that old inputs span are found once, layer by layer, and taken out of every step (gradient
projection: Saha, Garg & Roy 2021, arXiv 2103.09762; for diffusion models that inspect: Li et al. 2025,
"One-for-More", arXiv 2502.19848). Two things are done otherwise than there:

- What is projected is the step that the optimiser made, not the gradient: Adam divides by a running size and
  decays weights, both of which lead out of the subspace that the gradient was in.
- One-for-More merges the SVDs of successive batches, because it cannot hold all inputs. Here a layer's sum of
  `x x^T` is kept, `[d, d]` for any number of inputs. Its eigenvectors are the left singular vectors of them
  all.

Biases, the scales of norms and embeddings act on what every input has in common; they stand still, except for
the embeddings of new labels.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.unet import UNet
from trainer.batches import Batch


def inputs_of(layer: nn.Module, x: Tensor) -> Tensor:
    """What a layer multiplies its weights with, one column for each product -> `[d, n]`."""
    if isinstance(layer, nn.Conv2d):
        kernel, padding, stride = layer.kernel_size, layer.padding, layer.stride
        columns = F.unfold(x, kernel, padding=padding, stride=stride)  # type: ignore[arg-type]
        return columns.transpose(0, 1).flatten(1)
    return x.reshape(-1, x.shape[-1]).T


def basis(gram: Tensor, energy: float) -> Tensor:
    """The fewest orthonormal directions `[d, r]` that hold a share `energy` of the inputs' sum of squares.

    `gram [d, d]` is the sum of `x x^T`.
    """
    values, vectors = torch.linalg.eigh(gram.double())
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    total = values.sum()
    if total <= 0:
        return cast(Tensor, vectors[:, :0].float())
    short = values.cumsum(0) < energy * total
    return cast(Tensor, vectors[:, : int(short.sum()) + 1].float())


class Subspaces:
    """The directions of every layer of a network that old inputs use."""

    def __init__(self, net: UNet, batches: Iterable[Batch], energy: float) -> None:
        grams: dict[str, Tensor] = {}
        with torch.no_grad(), _listening(net, grams):
            for batch in batches:
                net(batch.x_t, batch.t, *(() if batch.label is None else (batch.label,)))
        self.bases = {name: basis(gram, energy) for name, gram in grams.items()}

    @property
    def free(self) -> float:
        """The share of directions, over all layers, that new parts may use."""
        used = sum(found.shape[1] for found in self.bases.values())
        return 1.0 - used / sum(found.shape[0] for found in self.bases.values())


class Guard:
    """Takes out of each step what would change the answers to old inputs."""

    def __init__(self, net: UNet, subspaces: Subspaces, old_labels: int) -> None:
        self._old_labels = old_labels
        layers = {f"{name}.weight": found for name, found in subspaces.bases.items()}
        self._known = [(name, parameter, layers.get(name)) for name, parameter in net.named_parameters()]
        self._before: list[Tensor] = []

    def before(self) -> None:
        """Before the optimiser's step."""
        self._before = [parameter.detach().clone() for _, parameter, _ in self._known]

    @torch.no_grad()
    def after(self) -> None:
        """After it."""
        for (name, parameter, found), old in zip(self._known, self._before, strict=True):
            if found is not None:
                found = found.to(old.device)
                step = (parameter - old).flatten(1)
                step = step - (step @ found) @ found.T
                parameter.copy_(old + step.reshape(old.shape))
            elif name == "class_embedding.weight":
                parameter[: self._old_labels] = old[: self._old_labels]
            else:
                parameter.copy_(old)


@contextmanager
def _listening(net: UNet, grams: dict[str, Tensor]) -> Iterator[None]:
    def listen(name: str) -> "object":
        def heard(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
            x = inputs_of(layer, given[0].float())
            gram = x @ x.T
            grams[name] = grams[name] + gram if name in grams else gram

        return heard

    hooks = [
        layer.register_forward_pre_hook(listen(name))  # type: ignore[arg-type]
        for name, layer in net.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
