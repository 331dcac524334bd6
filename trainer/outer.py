"""The outer loop: what happens around a training to be less misled by the defects among its images.

An outer loop gets a `Run` and gives back the trained network and the images that the detector may learn
from; calibration and audit still see all. What it finds out is kept in `OUT/outer`, so that a resumed run
does not find it out again.
"""

import csv
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.anomaly import image_score, smoothed_residual
from models.engine import as_denoiser
from models.engine_torch import TorchDenoiser
from models.evidence import resize
from models.parts import of_part
from models.preprocess import shrink, to_float, to_pixels
from models.profiles import OneStepProfile
from models.scoring import residual_levels
from models.unet import UNet
from trainer.console import Stages
from trainer.data import DataError, TrainingSet, relative_names
from trainer.device import Device
from trainer.loop import Protect, Trained, recipe_digest, train
from trainer.recipe import Recipe

Float = NDArray[np.float32]
_TINY = 1e-6
_BATCH = 8


@dataclass(frozen=True)
class Run:
    """A training run as an outer loop sees it."""

    recipe: Recipe
    data: TrainingSet
    out: Path
    device: Device
    stages: Stages
    resume: bool = False
    max_minutes: float | None = None
    initial: Path | None = None
    """Weights to begin with."""
    protect: Protect | None = None
    """Makes what looks after every step of the optimiser."""

    @property
    def key(self) -> str:
        """Names what was found out with this recipe on these images."""
        text = recipe_digest(self.recipe) + self.data.snapshot
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def train(
        self,
        recipe: Recipe,
        data: TrainingSet,
        checkpoint: Path,
        title: str = "training",
        share: float = 1.0,
        until: float = 1.0,
        resume: bool | None = None,
        fresh: bool = False,
    ) -> Trained:
        """Train with a `share` of the minutes, shown under a title; `fresh` without the weights to begin
        with."""
        with self.stages(title, recipe.training.steps) as advance:
            return train(
                recipe,
                data,
                checkpoint,
                self.device,
                resume=self.resume if resume is None else resume,
                max_minutes=None if self.max_minutes is None else share * self.max_minutes,
                until=until,
                initial=None if fresh else self.initial,
                protect=None if fresh else self.protect,
                report=lambda done, total, loss: advance(done, f"loss {loss:.4f} · step {done} of {total}"),
            )


Outer = Callable[[Run], tuple[Trained, TrainingSet]]


def none() -> Outer:
    """Train once, on all images."""
    return lambda run: (run.train(run.recipe, run.data, run.out / "checkpoint"), run.data)


def crossfit(folds: int = 2, steps_share: float = 0.25, drop: float = 0.15) -> Outer:
    """Leave out the `drop` share of the images that short trainings on other images find most suspicious.

    Each fold is scored by a network that never saw it (cross-fitting), trained for `steps_share` of the
    steps, so that no defect is judged by a network that learned it. Every part is folded by itself, so that
    each network has seen parts of all kinds.
    """
    if folds < 2 or not 0 < steps_share <= 1 or not 0 <= drop < 1:
        raise ValueError(
            f"needs folds >= 2, 0 < steps_share <= 1, 0 <= drop < 1: {folds=}, {steps_share=}, {drop=}"
        )

    def outer(run: Run) -> tuple[Trained, TrainingSet]:
        images = len(run.data.pixels)
        rng = np.random.default_rng((run.recipe.training.seed, 6))
        fold_of = np.empty(images, dtype=np.int64)
        for part, rows in run.data.groups:
            count = rows.stop - rows.start
            if count < 2 * folds:
                of = f"images of {part}" if part else "images"
                raise DataError(f"{count} {of} are too few for {folds} folds; use training.outer = none")
            fold_of[rows] = rng.permutation(count) % folds
        whole = 1 + folds * steps_share
        scores = np.empty(images)
        for fold in range(folds):
            scores[fold_of == fold] = _fold_scores(
                run, fold_of == fold, fold, steps_share, steps_share / whole
            )
        kept = np.ones(images, dtype=np.bool_)
        kept[np.argsort(-scores, kind="stable")[: int(drop * images)]] = False
        if run.data.trusted is not None:
            kept |= run.data.trusted
        _write_scores(run.out / "outer" / "crossfit.csv", run.data, fold_of, scores, kept)
        data = subset(run.data, kept, run.out / "outer" / "kept.npy")
        return run.train(run.recipe, data, run.out / "checkpoint", share=1 / whole), data

    return outer


def _fold_scores(
    run: Run, held_out: NDArray[np.bool_], fold: int, steps_share: float, minutes_share: float
) -> NDArray[np.float64]:
    """Log scores of the held-out images, less their part's median: folds and parts then compare."""
    folder = run.out / "outer" / f"fold-{fold}"
    done = folder / f"scores-{run.key}.npy"
    if run.resume and done.is_file():
        return np.asarray(np.load(done, allow_pickle=False), dtype=np.float64)
    steps = max(1, round(steps_share * run.recipe.training.steps))
    recipe = run.recipe.model_copy(
        update={"training": run.recipe.training.model_copy(update={"steps": steps})}
    )
    others = subset(run.data, ~held_out, folder / "images.npy")
    # What the run begins with may have seen the images that this fold must not.
    trained = run.train(recipe, others, folder / "checkpoint", f"fold {fold + 1}", minutes_share, fresh=True)
    found = []
    with _on_device(trained.net, run.device) as net:
        for maps, _, _ in residual_maps(net, run, np.flatnonzero(held_out), "fast"):
            found += [image_score(amap, run.recipe.profiles["fast"].map.top_fraction) for amap in maps]
    every = np.zeros(len(held_out))
    every[held_out] = np.log(np.asarray(found) + _TINY)
    for _, rows in run.data.groups:
        every[rows] -= np.median(every[rows][held_out[rows]])
    scores = every[held_out]
    _save(done, scores)
    (folder / "images.npy").unlink()
    return np.asarray(scores, dtype=np.float64)


def em(rounds: int = 1, share: float = 0.5, threshold: float = 5.0) -> Outer:
    """Repair the training images with the half-trained network, then go on training on the repaired ones.

    E-step: reconstruct every image. M-step: where the residual lies over `threshold` robust deviations of
    what is usual, put the reconstruction in the place of the pixels, and continue the same schedule. The
    first `share` of it is trained on the images as they are.

    The source's proof is for known corruptions, not for outliers: nothing says that this converges to the
    healthy images. Never more than two rounds, because errors of the network feed on themselves.
    Source: expectation-maximisation for diffusion models on corrupted data.
    """
    if not 1 <= rounds <= 2 or not 0 < share < 1 or threshold <= 0:
        raise ValueError(
            f"needs rounds 1 or 2, 0 < share < 1, threshold > 0: {rounds=}, {share=}, {threshold=}"
        )

    def outer(run: Run) -> tuple[Trained, TrainingSet]:
        checkpoint, data, resume = run.out / "checkpoint", run.data, run.resume
        for number in range(rounds):
            until = share + (1 - share) * number / rounds
            repaired = run.out / "outer" / f"repaired-{number + 1}-{run.key}.npy"
            if not (run.resume and repaired.is_file()):
                trained = run.train(
                    run.recipe, data, checkpoint, f"training, part {number + 1}", until=until, resume=resume
                )
                repair(trained.net, replace(run, data=data), repaired, threshold)
            # the snapshot names the files, which stay the same: the schedule goes on from its checkpoint
            data, resume = replace(data, pixels=np.load(repaired, mmap_mode="r", allow_pickle=False)), True
        return run.train(run.recipe, data, checkpoint, resume=True), data

    return outer


def repair(net: UNet, run: Run, path: Path, threshold: float) -> float:
    """Write the images of `run` with what stands out replaced -> the share of pixels that was replaced."""
    pixels = run.data.pixels
    with _on_device(net, run.device) as on_device:
        limits = np.concatenate(
            [_repair_limits(on_device, run, rows, threshold) for _, rows in run.data.groups]
        )
        if run.data.trusted is not None:
            limits[run.data.trusted] = np.inf
        path.parent.mkdir(parents=True, exist_ok=True)
        work = path.with_name(path.name + ".new")
        fresh = np.lib.format.open_memmap(work, mode="w+", dtype=np.uint8, shape=pixels.shape)
        replaced, row = 0.0, 0
        for found, small, healthy in residual_maps(on_device, run, np.arange(len(pixels))):
            for amap, seen, estimate in zip(found, small, healthy, strict=True):
                strong = (np.log(amap + _TINY) > limits[row]).astype(np.float32)
                change = strong * (estimate - seen)  # at full size, only what the network sees is changed
                wide = np.stack([resize(channel, pixels.shape[2:]) for channel in change])
                fresh[row] = to_pixels(to_float(pixels[row]) + wide).transpose(2, 0, 1)
                replaced, row = replaced + float(strong.mean()), row + 1
    fresh.flush()
    work.rename(path)
    return replaced / len(pixels)


def _repair_limits(net: UNet, run: Run, rows: slice, threshold: float) -> NDArray[np.float64]:
    """The log residual from which on a pixel is replaced, for each of the images in `rows` of one part."""
    chosen = np.arange(rows.start, rows.stop)
    logs = np.log(np.stack([m for found, _, _ in residual_maps(net, run, chosen) for m in found]) + _TINY)
    sample = logs.reshape(-1)[:: max(1, logs.size // 2_000_000)]
    location = np.median(sample)
    spread = 1.4826 * max(float(np.median(np.abs(sample - location))), 1e-3)
    return np.full(len(chosen), location + threshold * spread)


def residual_maps(
    net: UNet, run: Run, rows: NDArray[np.int64], profile: str | None = None
) -> Iterator[tuple[Float, Float, Float]]:
    """Batches of residual maps `[B, h, w]`, what the network saw and its estimates, both `[B, C, h, w]`.

    One-step estimates, each level over its own median in the image: rough and smooth parts then compare.
    Without a one-step `profile`, noise levels high enough that an estimate does not just copy its input.
    """
    recipe, process = run.recipe, run.recipe.process.build()
    largest = recipe.largest_timestep
    spec = recipe.profiles[profile] if profile else OneStepProfile(timesteps=(largest / 2, largest), draws=2)
    # Features wait for the finished model: here networks are young, and there is no detector yet.
    spec = spec.model_copy(update={"map": spec.map.model_copy(update={"features": "none"})})
    labels, torch_net = run.data.labels, TorchDenoiser(net)
    sigma = recipe.profiles["fast"].map.sigma_px
    for some in _batches(rows, labels):
        label = None if labels is None else int(labels[some[0]])
        denoiser = as_denoiser(of_part(torch_net, label), process, recipe.network.clean_scale)
        images = shrink(to_float(run.data.pixels[some]), recipe.network.reduce)
        seeds = [run.data.seeds[row] for row in some]
        levels, healthy = residual_levels(denoiser, process, spec, images, seeds)
        scales = np.maximum(np.median(levels, axis=(2, 3)), _TINY).astype(np.float32)
        maps = [smoothed_residual(level, scale, sigma) for level, scale in zip(levels, scales, strict=True)]
        yield np.stack(maps), images, healthy


def _batches(rows: NDArray[np.int64], labels: NDArray[np.int64] | None) -> Iterator[NDArray[np.int64]]:
    """Rows in their order, a batch at a time, each of one part."""
    changes = np.flatnonzero(np.diff(rows * 0 if labels is None else labels[rows])) + 1
    for of_one_part in np.split(rows, changes):
        for start in range(0, len(of_one_part), _BATCH):
            yield of_one_part[start : start + _BATCH]


def subset(data: TrainingSet, kept: NDArray[np.bool_], path: Path) -> TrainingSet:
    """The images in `kept`, copied to `path` and mapped from there; its snapshot is its own."""
    rows = np.flatnonzero(kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (len(rows), *data.pixels.shape[1:])
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    for place, row in enumerate(rows):
        pixels[place] = data.pixels[row]
    return replace(
        data,
        pixels=pixels,
        paths=[data.paths[row] for row in rows],
        mixed=[data.mixed[row] for row in rows],
        seeds=[data.seeds[row] for row in rows],
        labels=None if data.labels is None else data.labels[rows],
        hashes=[data.hashes[row] for row in rows] if data.hashes else [],
        trusted=None if data.trusted is None else data.trusted[rows],
        snapshot=hashlib.sha256(data.snapshot.encode() + kept.tobytes()).hexdigest(),
    )


@contextmanager
def _on_device(net: UNet, device: Device) -> Iterator[UNet]:
    yield net.to(torch.device("cuda" if device == "gpu" else "cpu"))
    net.cpu()


def _save(path: Path, values: NDArray[np.float64]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name("new-" + path.name)
    np.save(work, values, allow_pickle=False)
    work.rename(path)


def _write_scores(
    path: Path,
    data: TrainingSet,
    fold_of: NDArray[np.int64],
    scores: NDArray[np.float64],
    kept: NDArray[np.bool_],
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = relative_names(data.paths)
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "fold", "score", "kept"))
        for row in np.argsort(-scores, kind="stable"):
            writer.writerow((names[row], int(fold_of[row]), f"{scores[row]:.4f}", int(kept[row])))


OUTERS: Mapping[str, Callable[..., Outer]] = {"none": none, "crossfit": crossfit, "em": em}
