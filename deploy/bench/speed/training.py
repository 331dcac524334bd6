"""Training: the trainer's loop against the plain one, on the same batches."""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from deploy.bench.speed.limit import native
from deploy.bench.speed.timing import Arm
from models.unet import UNet
from trainer.batches import BatchMaker
from trainer.data import TrainingSet
from trainer.loop import train
from trainer.recipe import Recipe

STEPS = 6


def training_arms(recipe: Recipe, data: TrainingSet) -> list[Arm]:
    """The plain loop; ours in float32, and in bfloat16 where the CPU multiplies it; the batches alone."""
    images = STEPS * recipe.training.batch_size
    arms = [Arm("plain loop, float32", partial(plain, recipe, data), images)]
    arms += [
        Arm(
            f"the trainer's loop, {precision}",
            partial(ours, recipe, data, precision),
            images,
            precision=precision,
        )
        for precision in native()
    ]
    return [
        *arms,
        Arm("making the batches, in a thread beside the loop", partial(batches, recipe, data), images),
    ]


def plain(recipe: Recipe, data: TrainingSet) -> None:
    """Noise prediction with a squared error as everyone writes it."""
    net = UNet(recipe.network.config(data.preprocess.channels))
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.training.learning_rate)
    process = recipe.process.build()
    make = BatchMaker(recipe, data.pixels, process)
    for step in range(STEPS):
        batch = make(step)
        eps = (batch.x_t - batch.abar.sqrt() * batch.x0) / (1 - batch.abar).sqrt()
        loss = nn.functional.mse_loss(net(batch.x_t, batch.t), eps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()


def ours(recipe: Recipe, data: TrainingSet, precision: str) -> None:
    changed = recipe.training.model_copy(update={"steps": STEPS, "precision": precision})
    with tempfile.TemporaryDirectory() as folder:
        train(recipe.model_copy(update={"training": changed}), data, Path(folder) / "checkpoint", "cpu")


def batches(recipe: Recipe, data: TrainingSet) -> None:
    make = BatchMaker(recipe, data.pixels, recipe.process.build())
    for step in range(STEPS):
        make(step)


def table(arms: Sequence[Arm]) -> str:
    lines = ["| training | ms an image | x plain loop |", "|---|---|---|"]
    for arm in arms:
        ratio = np.quantile(arms[0].image_ms / arm.image_ms, (0.5, 0.1, 0.9))
        spent = np.quantile(arm.image_ms, (0.5, 0.1, 0.9))
        lines.append(
            f"| {arm.name} | {spent[0]:.1f} ({spent[1]:.1f} to {spent[2]:.1f}) "
            f"| {ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f}) |"
        )
    return "\n".join(lines)
