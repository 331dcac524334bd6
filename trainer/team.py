"""Processes that train together, as `torchrun` starts them: the first does all the work, the others join in
its trainings of the diffusion model.

What they do together equals one process with the same batches: each makes its own rows of every batch, losses
are reduced over all rows, and gradients are averaged by DistributedDataParallel.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from models.preprocess import Preprocess
from trainer.data import TrainingSet
from trainer.errors import TrainerError
from trainer.recipe import Recipe, RecipeError, parse_recipe

WAIT = timedelta(days=30)
"""How long the others may have to wait for the first, which also reads images, calibrates and exports."""


@dataclass(frozen=True)
class Team:
    """The processes of a training, seen from one of them; a single process is a team of one."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def rows(self, batch_size: int) -> slice:
        """This process's rows of every batch; RecipeError when they cannot be shared out evenly."""
        if batch_size % self.size:
            raise RecipeError(
                f"training.batch_size {batch_size} must be divisible by the {self.size} processes"
            )
        own = batch_size // self.size
        return slice(self.rank * own, (self.rank + 1) * own)

    def gather(self, own: Tensor) -> Tensor:
        """Values `[b]` of this process's rows -> those of all rows `[B]`.

        The graph is that of the own rows, and so that the mean over all processes is the gradient of the
        whole, theirs is multiplied by the number of processes.
        """
        if self.size == 1:
            return own
        every = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(every, own.detach().contiguous())
        every[self.rank] = own.detach() + self.size * (own - own.detach())
        return torch.cat(every)

    def mean(self, value: float) -> float:
        """The mean of every process's value."""
        return self._sum(value) / self.size

    def first(self, value: float) -> float:
        """The value of the process that leads, on all."""
        return self._sum(value if self.leads else 0.0)

    def _sum(self, value: float) -> float:
        if self.size == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(shared)
        return shared.item()

    def call(self, recipe: Recipe, data: TrainingSet, checkpoint: Path, device: str, **options: Any) -> None:
        """Let the others begin the same training; they find images and checkpoint in the same files."""
        if self.size > 1 and self.leads:
            _say(_written(recipe, data, checkpoint, device, options))


ALONE = Team()


def current() -> Team:
    """The team this process is in."""
    return Team(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else ALONE


def processes() -> int:
    """How many `torchrun` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def together() -> Iterator[bool]:
    """Whether this process leads, and if so, does the work; else it has joined in all trainings by then."""
    if processes() == 1:
        yield True
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=WAIT)
    if dist.get_rank() == 0:
        yield True
        _say("")  # not after an error: the others may be in the midst of a step, and torchrun ends them
    else:
        _help()
        yield False
    dist.destroy_process_group()


def _help() -> None:
    from trainer.loop import train  # which needs what is above

    while asked := _hear():
        try:
            train(**_read(asked))
        except TrainerError:
            sys.exit(2)  # the first process meets it, too, and says it


def _say(text: str) -> None:
    said = torch.frombuffer(bytearray(text.encode() + b"\0"), dtype=torch.uint8)
    dist.broadcast(torch.tensor(len(said)), 0)
    dist.broadcast(said, 0)


def _hear() -> str:
    length = torch.tensor(0)
    dist.broadcast(length, 0)
    said = torch.empty(int(length), dtype=torch.uint8)
    dist.broadcast(said, 0)
    return said.numpy().tobytes()[:-1].decode()


def _written(
    recipe: Recipe, data: TrainingSet, checkpoint: Path, device: str, options: dict[str, Any]
) -> str:
    pixels = getattr(data.pixels, "filename", None)
    if pixels is None:
        raise ValueError("images that several processes train on must be in a file")
    return json.dumps(
        {
            "recipe": recipe.model_dump(mode="json"),
            "pixels": str(pixels),
            "images": len(data.pixels),
            "snapshot": data.snapshot,
            "preprocess": data.preprocess.model_dump(mode="json"),
            "parts": data.parts,
            "labels": None if data.labels is None else data.labels.tolist(),
            "checkpoint": str(checkpoint.resolve()),
            "device": device,
            "options": options,
        },
        default=lambda path: str(path.resolve()),
    )


def _read(text: str) -> dict[str, Any]:
    said = json.loads(text)
    pixels = np.load(said["pixels"], mmap_mode="r", allow_pickle=False)[: said["images"]]
    options, labels = said["options"], said["labels"]
    if options.get("initial") is not None:
        options["initial"] = Path(options["initial"])
    data = TrainingSet(
        pixels=pixels,
        paths=[],
        mixed=[],
        seeds=[],
        skipped=[],
        snapshot=said["snapshot"],
        preprocess=Preprocess.model_validate(said["preprocess"]),
        parts=tuple(said["parts"]),
        labels=None if labels is None else np.array(labels, dtype=np.int64),
    )
    recipe, checkpoint = parse_recipe(said["recipe"]), Path(said["checkpoint"])
    return {"recipe": recipe, "data": data, "checkpoint": checkpoint, "device": said["device"], **options}
