"""What "auto" means for these images: input size, length of training and batch size, settled before a run."""

import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.backbone import STRIDE as BACKBONE_STRIDE
from models.decode import DecodeError, decode
from models.detector import STRIDE as DETECTOR_STRIDE
from trainer.detail import Detail
from trainer.device import Device
from trainer.recipe import AUTO_PX, Recipe, parse_recipe

LARGEST_PX: dict[Device, int] = {"cpu": 256, "gpu": 512}
GRID_PX = 64
KEPT = 7 / 8
"""At most an eighth of the images' resolution is given up for a rounder side."""
STEPS_PER_IMAGE, FEWEST_STEPS = 50, 300
GPU_BATCH = 32
SAMPLE = 32
KEEPS_DETAIL = frozenset({"network.reduce", "training.crop_px"})
"""A person who chose one of these chose how much detail the diffusion model sees."""


def sample_sizes(files: Sequence[Path]) -> list[tuple[int, int]]:
    """(height, width) in pixels of up to `SAMPLE` of the images, spread evenly; unreadable ones left out."""
    sizes = []
    for index in np.unique(np.linspace(0, len(files) - 1, min(SAMPLE, len(files))).round().astype(int)):
        try:
            sizes.append(decode(files[index].read_bytes()).size)
        except (DecodeError, OSError):
            continue
    return sizes


def fitting_side(sizes: Sequence[tuple[int, int]], largest_px: int, step_px: int) -> int:
    """The multiple of `step_px` nearest to the median longer side, or the next where that loses too much."""
    if not sizes:
        return max(step_px, AUTO_PX // step_px * step_px)
    longer = max(np.median(np.asarray(sizes), axis=0))
    side = step_px * max(1, math.ceil(KEPT * longer / step_px))
    return int(max(step_px, min(side, largest_px // step_px * step_px)))


def adapt(
    recipe: Recipe,
    sizes: Sequence[tuple[int, int]],
    images: int,
    device: Device,
    fixed: Collection[str] = (),
    detail: Callable[[int], Detail] | None = None,
) -> Recipe:
    """Resolve `data.size = "auto"` for `images` images with a sample of `sizes` (height, width) in pixels.

    With `data.detail = "auto"`, `detail` measures the images at the side that was found.

    The side suits the strides of network and detector. Smoothing of the profiles, given for 256 px, goes
    with it; very small sets train shorter, so that no image is seen thousands of times, and a GPU takes
    larger batches, but for settings in `fixed`, which a person chose. Other recipes stay as they are.
    """
    if recipe.data.size != "auto":
        return recipe
    stride = recipe.network.config(1).stride * recipe.network.reduce
    step_px = math.lcm(GRID_PX, stride, 1 if recipe.detector is None else DETECTOR_STRIDE)
    if "backbone" in recipe.feature_sources:
        step_px = math.lcm(step_px, recipe.network.reduce * BACKBONE_STRIDE)
    side = fitting_side(sizes, LARGEST_PX[device], step_px)
    values = recipe.model_dump(mode="json")
    values["data"]["size"] = side
    for profile in values["profiles"].values():
        profile["map"]["sigma_px"] *= side / AUTO_PX
    if recipe.data.detail == "auto":
        values["data"]["detail"] = "ignore"  # settled
        if detail is not None and KEEPS_DETAIL.isdisjoint(fixed) and detail(side).matters:
            _keep_detail(values, side, fixed)
    for section in ("training", "detector"):
        part = values[section]
        if part is not None and f"{section}.steps" not in fixed:
            part["steps"] = min(part["steps"], max(FEWEST_STEPS, STEPS_PER_IMAGE * images))
        if part is not None and device == "gpu" and f"{section}.batch_size" not in fixed:
            part["batch_size"] = max(part["batch_size"], GPU_BATCH)
    return parse_recipe(values)


def _keep_detail(values: dict[str, Any], side: int, fixed: Collection[str]) -> None:
    """The diffusion model sees parts at full size: in training, for the same price, half as wide crops.

    Parts that share their details are framed alike, so a mirrored one is a wrong one.
    """
    reduce = values["network"]["reduce"]
    values["network"]["reduce"] = 1
    values["training"]["crop_px"] = side // reduce
    if "training.flips" not in fixed:
        values["training"]["flips"] = False
    for profile in values["profiles"].values():
        profile["map"]["sigma_px"] *= reduce
