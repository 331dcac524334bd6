"""Exports to ONNX that trace each architecture once: the same graph again, with other weights.

To trace a network takes some ten seconds, however small it is, and hundreds of tests make one.
"""

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

Export = Callable[[nn.Module, Path, tuple[Any, ...], list[str], list[str], Any], None]


@dataclass(frozen=True)
class Stencil:
    """An exported network, and what its initializers are of the state dict, reshaped.

    That is an entry, or with a number that row of it.
    """

    model: bytes
    entries: Mapping[str, tuple[str, int | None]]

    def write(self, net: nn.Module, path: Path) -> None:
        """The export of a network of this architecture."""
        model, state = onnx.load_from_string(self.model), net.state_dict()
        for initializer in model.graph.initializer:
            if initializer.name in self.entries:
                name, row = self.entries[initializer.name]
                values = state[name].detach().cpu().numpy()
                values = (values if row is None else values[row]).reshape(tuple(initializer.dims))
                initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
        onnx.save(model, path)


def key(
    net: nn.Module, example: tuple[Tensor, ...], inputs: list[str], outputs: list[str], shapes: Any
) -> str:
    """The same for networks that differ in their weights alone."""
    state = net.state_dict()
    said: list[object] = [type(net), net, getattr(net, "config", None), inputs, outputs, shapes]
    said += [(name, tuple(value.shape), value.dtype) for name, value in state.items()]
    said += [(tuple(value.shape), value.dtype) for value in example]
    said += [value.tolist() for value in state.values() if not value.is_floating_point()]
    return hashlib.sha256(repr(said).encode()).hexdigest()[:32]


def make(export: Export, net: nn.Module, path: Path, *arguments: Any) -> Stencil:
    """Export a copy whose weights are told apart by their values."""
    marked, generator = copy.deepcopy(net).cpu(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in marked.state_dict().values():
            if value.is_floating_point():
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    export(marked, path, *arguments)
    known: dict[bytes, tuple[str, int | None]] = {}
    for name, value in marked.state_dict().items():
        if value.ndim > 1:
            known |= {_content(part.numpy()): (name, row) for row, part in enumerate(value)}
        known[_content(value.numpy())] = (name, None)
    found = {
        initializer.name: known.get(_content(numpy_helper.to_array(initializer)))
        for initializer in onnx.load(path).graph.initializer
    }
    return Stencil(path.read_bytes(), {name: entry for name, entry in found.items() if entry is not None})


def _content(values: Any) -> bytes:
    return np.ascontiguousarray(values).tobytes()
