"""Fit the defect detector: a Gaussian over the training images' features, and a head on painted defects."""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.corruption import Corruption
from models.detector import GRID, SCALES, Detector, DetectorConfig, fit_gaussian, trainable
from models.preprocess import to_float
from trainer.batches import CORRUPTIONS, REFERENCE_PX, crop_size, made_ahead, random_view
from trainer.data import BatchOrder, TrainingSet
from trainer.device import Device, choose_precision
from trainer.objective import focal_loss
from trainer.pretrained import installed, load_state
from trainer.recipe import DetectorRecipe, Recipe
from trainer.suspects import Sample, refit_distances

BackboneName = Literal["pretrained", "own"]
Report = Callable[[int, int, float], None]
"""Called after each step with (steps done, total steps, smoothed loss)."""

GAUSSIAN_IMAGES = 400
GAUSSIAN_VECTORS = 120_000
_MEASURE = 5  # steps before the speed is judged, when minutes are limited


class PaintedBatches:
    """Corrupted training images `[B, C, H, W]` and where they changed `[B, H / 4, W / 4]`, by step."""

    def __init__(self, recipe: Recipe, spec: DetectorRecipe, pixels: NDArray[np.uint8]) -> None:
        corruption = spec.corruption.build("corruption", CORRUPTIONS)
        self._corrupt: Corruption = Corruption() if corruption is None else corruption
        self._pixels, self._training = pixels, recipe.training
        self._order = BatchOrder(len(pixels), spec.batch_size, recipe.training.seed + 1)
        self._unit = max(pixels.shape[2:]) / REFERENCE_PX
        self._crop = crop_size(pixels, spec.crop_px)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self._training.seed, 2, step))
        images, masks = [], []
        for index in self._order.batch(step):
            image = random_view(self._pixels[int(index)], self._crop, self._training, rng)
            lender = random_view(
                self._pixels[int(rng.integers(len(self._pixels)))], self._crop, self._training, rng
            )
            painted, where = self._corrupt(image, lender, rng, self._unit)
            images.append(painted)
            size = (where.shape[1] // GRID, where.shape[0] // GRID)
            masks.append(cv2.resize(where.astype(np.float32), size, interpolation=cv2.INTER_AREA))
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks))


def choose_backbone(recipe: Recipe, weights: Path | None) -> BackboneName | None:
    """What "auto" means here: pretrained where weights are installed or named; None without a detector.

    Raises, before hours of training, PretrainedError when pretrained weights are asked for in vain and
    RecipeError when there is no such corruption.
    """
    if recipe.detector is None:
        return None
    recipe.detector.corruption.build("corruption", CORRUPTIONS)
    if recipe.detector.backbone == "auto":
        return "pretrained" if weights is not None or installed() else "own"
    if recipe.detector.backbone == "pretrained":
        load_state(weights)
    return recipe.detector.backbone


def resumable_detector(
    folder: Path,
    recipe: Recipe,
    data: TrainingSet,
    device: Device,
    backbone: BackboneName,
    *,
    weights: Path | None,
    resume: bool,
    max_minutes: float | None,
    report: Report,
) -> tuple[Detector, Sample]:
    """The trained detector, kept in `folder`; with `resume`, the one that an earlier run finished there.

    What is kept is the first fit of its distances; what is returned has them fitted again, without suspects,
    beside the sample of images that this was done with.
    """
    assert recipe.detector is not None
    fixed = [recipe.detector.model_dump(mode="json"), recipe.training.seed, backbone, data.snapshot]
    digest = hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()
    done = folder / f"{digest[:16]}.safetensors"
    bf16 = choose_precision(recipe.training.precision, device) == "bf16"
    if not (resume and done.is_file()):
        detector, losses = fit_detector(
            recipe,
            recipe.detector,
            data.pixels,
            device,
            backbone=backbone,
            weights=weights,
            max_minutes=max_minutes,
            bf16=bf16,
            report=report,
        )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "loss.csv").write_text("\n".join(["loss", *(f"{loss:.6f}" for loss in losses)]) + "\n")
        work = done.with_suffix(".new")
        save_file({k: v.contiguous() for k, v in detector.state_dict().items()}, work)
        work.rename(done)
    detector = Detector(DetectorConfig(width=recipe.detector.width)).eval()
    detector.load_state_dict(load_file(done))  # always, so that a resumed run gets the same to the bit
    by_place = recipe.detector.places == "auto" and not data.parts
    seed, trusted = recipe.training.seed, data.trusted
    return detector, refit_distances(detector, data.pixels, seed, bf16, by_place=by_place, trusted=trusted)


def fit_detector(
    recipe: Recipe,
    spec: DetectorRecipe,
    pixels: NDArray[np.uint8],
    device: Device,
    *,
    backbone: BackboneName,
    weights: Path | None = None,
    max_minutes: float | None = None,
    bf16: bool = True,
    report: Report = lambda done, total, loss: None,
) -> tuple[Detector, list[float]]:
    """Train on images `[N, C, H, W]` -> the detector on the CPU in evaluation mode, and its loss curve.

    A pretrained backbone is read from the installed package or `weights` and stays as it is; the
    detector's own starts from fresh weights and learns with the head.
    """
    torch.manual_seed(recipe.training.seed)
    target = torch.device("cuda" if device == "gpu" else "cpu")
    detector = Detector(DetectorConfig(width=spec.width))
    frozen = backbone == "pretrained"
    if frozen:
        detector.backbone.load_state_dict(load_state(weights), strict=False)
    detector.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if frozen:
        fit_distances(detector, pixels, recipe.training.seed, bf16)
    losses = _train_head(detector, recipe, spec, pixels, frozen, max_minutes, bf16, report)
    if not frozen:  # the features have moved: the distance is fitted to where they ended
        fit_distances(detector, pixels, recipe.training.seed, bf16)
    return detector.cpu().eval(), losses


def fit_distances(detector: Detector, pixels: NDArray[np.uint8], seed: int, bf16: bool) -> None:
    """Fit the Gaussian of every scale to training images `[N, C, H, W]`."""
    for scale, vectors in enumerate(collect_features(detector, pixels, seed, bf16)):
        fit_gaussian(detector, vectors, scale)


@torch.no_grad()
def collect_features(detector: Detector, pixels: NDArray[np.uint8], seed: int, bf16: bool) -> list[Tensor]:
    """For every scale a seeded sample of feature vectors `[N, G]` over images and places."""
    rng = np.random.default_rng((seed, 3))
    device = detector.mean.device
    chosen = np.sort(rng.permutation(len(pixels))[:GAUSSIAN_IMAGES])
    per_image = max(1, GAUSSIAN_VECTORS // len(chosen))
    was_training = detector.training
    detector.eval()
    vectors: list[list[Tensor]] = [[] for _ in range(SCALES)]
    for index in chosen:
        image = torch.from_numpy(to_float(pixels[index : index + 1])).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            _, near = detector.features(image)
        for scale, features in enumerate(near):
            places = features[0].flatten(1).T.float().cpu()
            vectors[scale].append(places[torch.from_numpy(rng.permutation(len(places))[:per_image])])
    detector.train(was_training)
    return [torch.cat(of_scale) for of_scale in vectors]


def _train_head(
    detector: Detector,
    recipe: Recipe,
    spec: DetectorRecipe,
    pixels: NDArray[np.uint8],
    frozen: bool,
    max_minutes: float | None,
    bf16: bool,
    report: Report,
) -> list[float]:
    device = detector.mean.device
    parameters = trainable(detector, backbone=not frozen)
    optimizer = torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=0.01)
    averages = copy.deepcopy(detector).requires_grad_(False)
    make, total = PaintedBatches(recipe, spec, pixels), spec.steps
    losses: list[float] = []
    started = time.perf_counter()
    smoothed = 0.0
    detector.train()
    if frozen:
        detector.backbone.eval()
    with made_ahead(make, 0) as take:
        while len(losses) < total:
            step = len(losses)
            for group in optimizer.param_groups:
                group["lr"] = spec.learning_rate * annealing(step, total)
            images, masks = (part.to(device) for part in take())
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                with torch.set_grad_enabled(not frozen):
                    features, _ = detector.features(images.contiguous(memory_format=torch.channels_last))
                logit = detector.defect(features)
            loss = focal_loss(logit.float()[:, 0], masks)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, recipe.training.clip_norm)
            optimizer.step()
            _average(averages, detector, step)
            losses.append(float(loss.detach()))
            smoothed = losses[-1] if step == 0 else 0.98 * smoothed + 0.02 * losses[-1]
            if max_minutes is not None and len(losses) == _MEASURE:
                per_step = (time.perf_counter() - started) / _MEASURE
                total = max(_MEASURE, min(total, int(60 * max_minutes / per_step)))
            if max_minutes is not None and time.perf_counter() - started > 60 * max_minutes:
                total = len(losses)
            report(len(losses), total, smoothed)
    detector.load_state_dict(averages.state_dict())
    return losses


def annealing(step: int, total: int, warmup: int = 50) -> float:
    """Share of the learning rate: a short warm-up, then a cosine down to 2 %."""
    return min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / total)))


@torch.no_grad()
def _average(averages: Detector, detector: Detector, step: int, decay: float = 0.995) -> None:
    """Exponential moving average of the weights; running statistics are copied."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(averages.parameters()), list(detector.parameters()), 1.0 - decay)
    for kept, current in zip(averages.buffers(), detector.buffers(), strict=True):
        kept.copy_(current)
