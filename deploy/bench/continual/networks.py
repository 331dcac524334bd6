"""The same question of the networks alone, in a fraction of the time: how the training loss on good test
images of the old parts grows. Nothing is exported, calibrated or scored. Options as of
`deploy.bench.continual`.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import torch
from safetensors.torch import load_file

from deploy.bench.continual.__main__ import ARMS, RECIPE, linked, named
from models.bundle import Bundle
from models.unet import UNet
from trainer.batches import BatchMaker
from trainer.console import quiet
from trainer.continual.plan import Continual
from trainer.data import TrainingSet, find_images, load_training_set
from trainer.export import write_weights
from trainer.objective import Objective
from trainer.outer import Run
from trainer.recipe import Recipe, load_recipe

_BATCHES = 24


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.bench.continual.networks", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--old", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--new", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--train-limit", type=int, default=40)
    parser.add_argument("--test-limit", type=int, default=40)
    parser.add_argument("--only", nargs="+", default=["before", *(name for name, _, _ in ARMS)])
    options = parser.parse_args()
    torch.set_num_threads(1)
    old = dict(named(text) for text in options.old)
    parts = {**old, **dict([named(options.new)])}
    recipe = load_recipe(str(RECIPE), {"training.seed": options.seed, "training.steps": options.steps})
    out = options.out / f"networks-{options.seed}"
    weights = out / "before.safetensors"
    if "before" in options.only:
        data = _load(linked(out / "old", old, options.train_limit), recipe, sorted(old), out / "old.npy")
        run = Run(recipe, data, out, "cpu", quiet)
        net = run.train(recipe, data, out / "before").net
        write_weights(net, weights)
    if weights.exists():
        net = UNet(recipe.network.config(1, len(old)))
        net.load_state_dict(load_file(weights))
        _say(out, options, "before", net, recipe, {part: old[part] for part in sorted(old)})
    base = cast(Bundle, SimpleNamespace(file=lambda name: weights, hash=""))
    order = [*sorted(old), options.new.partition("=")[0]]
    for name, strategy, how in ARMS:
        if name in options.only:
            data = _load(linked(out / "all", parts, options.train_limit), recipe, order, out / "all.npy")
            plan = Continual(base, tuple(sorted(old)), strategy, **how)
            run = plan.run(Run(recipe, data, out / name, "cpu", quiet))
            net = run.train(recipe, run.data, out / name / "checkpoint").net
            _say(out, options, name, net, recipe, {part: parts[part] for part in order})


def _load(folder: Path, recipe: Recipe, order: Sequence[str], cache: Path) -> TrainingSet:
    files = sorted(find_images(folder), key=lambda path: order.index(path.parent.name))
    names = [path.parent.name for path in files]
    return load_training_set(files, [False] * len(files), recipe.data.height_width, 1, cache, parts=names)


def _say(
    out: Path, options: argparse.Namespace, name: str, net: UNet, recipe: Recipe, parts: Mapping[str, Path]
) -> None:
    """The training loss on good test images of every part, the same draws for all; also to networks.jsonl."""
    found = {}
    objective = Objective(recipe)
    for label, (part, folder) in enumerate(parts.items()):
        files = find_images(folder / "test" / "good")[: options.test_limit]
        size = recipe.data.height_width
        data = load_training_set(
            files, [False] * len(files), size, 1, out / "test.npy", parts=[part] * len(files)
        )
        make = BatchMaker(recipe, data.pixels, recipe.process.build(), np.full(len(files), label))
        with torch.no_grad():
            losses = [float(objective(net, make(step), torch.Generator())) for step in range(_BATCHES)]
        found[part] = round(float(np.mean(losses)), 5)
    with (options.out / "networks.jsonl").open("a") as file:
        file.write(json.dumps({"seed": options.seed, "name": name, "loss": found}) + "\n")
    print(name, found, flush=True)


if __name__ == "__main__":
    main()
