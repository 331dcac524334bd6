"""What is known of the model that learns a further part, and what each way of not forgetting trains on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from models.bundle import Bundle, Extended, Manifest
from models.unet import UNet
from trainer.batches import BatchMaker
from trainer.continual.projection import Guard, Subspaces
from trainer.data import DataError, TrainingSet
from trainer.loop import Protect
from trainer.outer import Run, subset
from trainer.recipe import Recipe

Strategy = Literal["finetune", "replay", "projection"]
STRATEGIES: tuple[Strategy, ...] = ("replay", "projection", "finetune")
_BATCHES = 16  # of old images, whose layer inputs are looked at


@dataclass(frozen=True)
class Continual:
    """A training that adds parts to those of `base`.

    `finetune` trains on the new parts alone. `replay` mixes old images in, until a `share` of those trained
    on is old. `projection` trains on the new parts alone, with steps that leave a share `energy` of the old
    layer inputs as they are.
    """

    base: Bundle
    old: tuple[str, ...]
    strategy: Strategy
    share: float = 0.25
    energy: float = 0.99

    def ordered(self, files: Sequence[Path], parts: Sequence[str]) -> tuple[list[Path], list[str]]:
        """Files and their parts with the old parts first, in the order of their labels; DataError without
        images of an old part, or of a new one."""
        if missing := set(self.old) - set(parts):
            raise DataError(
                f"the base knows {', '.join(self.old)}, and there are no images of "
                f"{', '.join(sorted(missing))}; the model is calibrated anew on images of every part"
            )
        if not (new := sorted(set(parts) - set(self.old))):
            raise DataError(f"all images are of parts that the base knows: {', '.join(self.old)}")
        rank = {part: number for number, part in enumerate((*self.old, *new))}
        order = sorted(range(len(files)), key=lambda index: rank[parts[index]])
        return [files[index] for index in order], [parts[index] for index in order]

    def run(self, run: Run) -> Run:
        """The network's training: on fewer images, from the base's weights, with what protects old parts."""
        cache = run.out / "cache"
        data = self.narrowed(run.data, run.recipe.training.seed, cache / "narrowed.npy")
        return replace(
            run,
            data=data,
            initial=self.initial(len(data.parts), cache / "initial.safetensors"),
            protect=self.protect(run.recipe, run.data, cache / "old.npy"),
        )

    def narrowed(self, data: TrainingSet, seed: int, cache: Path) -> TrainingSet:
        """The images that the network is trained on; the old ones are drawn part by part."""
        assert data.labels is not None
        chosen: NDArray[np.bool_] = data.labels >= len(self.old)
        if self.strategy == "replay":
            wanted = self.share / (1 - self.share) * np.count_nonzero(chosen) / len(self.old)
            rng = np.random.default_rng(seed)
            for label in range(len(self.old)):
                rows = np.flatnonzero(data.labels == label)
                chosen[rng.permutation(rows)[: max(1, round(wanted))]] = True
        return subset(data, chosen, cache)

    def widened(
        self, data: TrainingSet, narrowed: TrainingSet, kept: TrainingSet, cache: Path
    ) -> TrainingSet:
        """`data` without what an outer loop dropped: the detector learns from all old images, too."""
        dropped = set(narrowed.paths) - set(kept.paths)
        if not dropped:
            return data
        return subset(data, np.array([path not in dropped for path in data.paths]), cache)

    def noted(self, manifest: Manifest, narrowed: TrainingSet) -> Manifest:
        """The manifest of the bundle, with what it was made from."""
        assert narrowed.labels is not None
        record = Extended(
            base=self.base.hash,
            old_parts=self.old,
            strategy=self.strategy,
            old_images_trained_on=int((narrowed.labels < len(self.old)).sum()),
        )
        data = manifest.training_data.model_copy(update={"extended": record})
        return manifest.model_copy(update={"training_data": data})

    def initial(self, parts: int, path: Path) -> Path:
        """The base's weights with an embedding for each of `parts` labels, written to `path`.

        A new part begins as the mean of the old ones. A network of one part knows no labels: all begin as
        zeros, which is what it does without.
        """
        weights = load_file(self.base.file("model.safetensors"))
        name, new = "class_embedding.weight", parts - len(self.old)
        if name in weights:
            rows = weights[name]
            weights[name] = torch.cat([rows, rows.mean(0, keepdim=True).expand(new, -1)]).contiguous()
        else:
            weights[name] = torch.zeros(parts, weights["time_mlp.2.bias"].shape[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(weights, path)
        return path

    def protect(self, recipe: Recipe, data: TrainingSet, cache: Path) -> Protect | None:
        """What keeps the steps of a training from old inputs; made from the network it begins with."""
        if self.strategy != "projection":
            return None
        assert data.labels is not None
        old = subset(data, data.labels < len(self.old), cache)
        return partial(_guard, recipe, old, self.energy, len(self.old))


def _guard(recipe: Recipe, old: TrainingSet, energy: float, labels: int, net: UNet) -> Guard:
    make = BatchMaker(recipe, old.pixels, recipe.process.build(), old.labels)
    device = next(net.parameters()).device

    batches = (make(step).to(device) for step in range(_BATCHES))
    return Guard(net, Subspaces(net, batches, energy), labels)
