"""`make bench`: the engine against the plain loop, diffusers and feature baselines, and against the machine.

What is compared runs in turn in one process, several rounds, each in another order. `--clock cpu` counts the
process's own time: with one thread that is what an idle core would need, also on a machine that is busy.
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from deploy.bench.bundle import FOLDER, small_bundle
from deploy.bench.commit import commit
from deploy.bench.db.__main__ import machine
from deploy.bench.speed import arms as engine
from deploy.bench.speed import start, tiles, training
from deploy.bench.speed.limit import copy_gbyte_s
from deploy.bench.speed.timing import CLOCKS, Arm, Rates, alternate, rates_told
from models.bundle import Bundle, load_bundle
from trainer.data import load_training_set
from trainer.recipe import load_recipe

console = Console(highlight=False, soft_wrap=True, stderr=True)
RECIPE = Path(__file__).with_name("speed.toml")
PARTS = ("engine", "tiles", "training", "start")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="what to measure")
    parser.add_argument("--steps", type=int, default=25, help="steps of a chain; times are scaled to 250")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="of everything [default: one per core]")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--json", type=Path, default=FOLDER / "speed.json", help="where all figures go")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads or os.cpu_count() or 1)
    bundle = load_bundle(small_bundle(RECIPE, "speed"))
    found = {}
    for part in asked.only:
        compared, table = opened(part, bundle, asked)
        load = os.getloadavg()[0]
        rates = alternate(compared, asked.rounds, asked.clock, partial(console.print, f"{part},"))
        said = f"{part}: load average {load:.1f} to {os.getloadavg()[0]:.1f}"
        matrices = rates_told({precision: float(np.median(rate)) for precision, rate in rates.items()})
        print(f"{said}, matrices {matrices}\n\n{table(compared, rates)}\n")
        found[part] = {
            "gmac_s": {name: rate.tolist() for name, rate in rates.items()},
            "arms": [written(arm) for arm in compared],
        }
    context = {
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "clock": asked.clock,
        "commit": commit(),
        "steps": asked.steps,
        "versions": {name: version(name) for name in ("torch", "onnxruntime", "diffusers", "numpy")},
        "copy_gbyte_s": copy_gbyte_s(CLOCKS[asked.clock]),
    }
    print(", ".join(f"{name} {value}" for name, value in context.items() if name != "versions"))
    asked.json.write_text(json.dumps({**context, **found}, indent=1) + "\n")


Table = Callable[[Sequence[Arm], Rates], str]


def opened(part: str, bundle: Bundle, asked: argparse.Namespace) -> tuple[list[Arm], Table]:
    """What a part compares, and how its figures are shown."""
    if part == "tiles":
        return tiles.tile_arms(bundle, asked.threads), lambda compared, rates: tiles.table(compared)
    if part == "start":
        return start.start_arms(bundle.path), lambda compared, rates: start.table(compared)
    files = sorted((FOLDER / "speed-parts" / "train").rglob("*.png"))
    data = load_training_set(files, [False] * len(files), (128, 128), "auto", FOLDER / "speed.npy")
    if part == "training":
        made = training.training_arms(load_recipe(str(RECIPE)), data)
        return made, lambda compared, rates: training.table(compared)
    compared = engine.diffusion_arms(bundle, data.pixels, asked.steps, asked.threads)
    return compared + engine.feature_arms(data.pixels), partial(engine.table, steps=asked.steps)


def written(arm: Arm) -> dict[str, Any]:
    """An arm's figures for the file."""
    need = None if arm.need is None else asdict(arm.need)
    counted = {"batch": arm.images, "calls": arm.calls, "chain": arm.chain}
    return {"name": arm.name, **counted, "need": need, "precision": arm.precision, "s": arm.spent_s}


if __name__ == "__main__":
    main()
