"""Checkpoints without pickles: tensors as safetensors, the rest as JSON, published by atomic rename."""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainer.errors import TrainerError

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class CheckpointError(TrainerError):
    """The checkpoint cannot be resumed; the message says why."""


@dataclass
class Progress:
    """How far a run is. `losses[i]` is the training loss of step i."""

    recipe_digest: str
    snapshot: str
    total_steps: int
    precision: str
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)


def save_checkpoint(
    folder: Path,
    net: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    reduction: nn.Module | None = None,
) -> None:
    """Replace the checkpoint in `folder`; a crash at any moment leaves the old or the new one whole.

    `reduction` is a loss reduction with a state of its own.
    """
    work, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    tensors = {f"net.{k}": v for k, v in net.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    if reduction is not None:
        tensors |= {f"reduction.{k}": v for k, v in reduction.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"opt.{index}.{name}": state[name] for name in _MOMENTS}
    save_file({k: _plain(v) for k, v in tensors.items()}, work / "tensors.safetensors")
    (work / "progress.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    work.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def find_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint, also after a crash between the two renames."""
    for candidate in (folder, folder.with_name(folder.name + ".old")):
        if (candidate / "progress.json").is_file() and (candidate / "tensors.safetensors").is_file():
            return candidate
    return None


def read_progress(folder: Path) -> Progress:
    try:
        return Progress(**json.loads((folder / "progress.json").read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{folder}/progress.json cannot be read: {error}") from None


def restore(
    folder: Path,
    net: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    reduction: nn.Module | None = None,
) -> None:
    """Load weights, averaged weights, optimizer moments and the reduction's state in place."""
    tensors = load_file(folder / "tensors.safetensors")
    try:
        net.load_state_dict(_part(tensors, "net."))
        ema.load_state_dict(_part(tensors, "ema."))
        if reduction is not None:
            reduction.load_state_dict(_part(tensors, "reduction."))
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint in {folder} belongs to another network: {error}") from None
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _part(tensors, "opt.").items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = _laid_out_like(weights[int(index)], value)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _laid_out_like(weight: Tensor, value: Tensor) -> Tensor:
    """A moment in the memory layout of its weight: the fused optimizer walks through both as flat memory."""
    if value.shape != weight.shape:
        return value
    return torch.empty_like(weight, requires_grad=False).copy_(value)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()
