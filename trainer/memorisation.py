"""Does the network repeat its training images? Similarity of what it makes to their nearest neighbours.

The measure follows section 3.2 of "What is adversarial training for diffusion models?" (after Somepalli et
al. 2023), with two changes that parts under a fixed camera need. Images are compared by their pixels, at
a small size, as a pretrained embedding tells such parts hardly apart. And what all training images share is
taken away first: the cosine is 1 for a copy and near 0 for just another part of its kind.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from models.attack import as_denoiser, eps_predictor
from models.bundle import Bundle
from models.engine import open_engine
from models.preprocess import shrink
from models.process import DiffusionProcess
from models.samplers import Denoiser, reconstruct_chain
from trainer.console import Stages, quiet
from trainer.errors import TrainerError
from trainer.parts import require_profile
from trainer.probe import Probe, describe_run

Float = NDArray[np.float32]
LEVELS = (0.90, 0.94)
"""The source's marks: the same image with some variation, and a nearly identical one."""


class MemorisationError(TrainerError):
    """The measurement cannot be made as asked; the message says what to change."""


@dataclass(frozen=True)
class MemorisationSettings:
    """`steps` denoising steps for each of `samples` samples; features of `feature_px` pixels a side."""

    samples: int = 64
    steps: int = 50
    seed: int = 0
    profile: str | None = None  # of the held-out images' reconstructions, and which part is sampled
    feature_px: int = 32
    batch_size: int = 8
    device: Literal["cpu", "gpu"] = "cpu"


@dataclass(frozen=True)
class MemorisationRow:
    """Cosine similarities of a set of images to their nearest training images."""

    images: str
    count: int
    median: float
    p95: float
    largest: float
    at_least: dict[str, float]  # share of the images, by level
    similarities: list[float]  # sorted


@dataclass(frozen=True)
class MemorisationResult:
    protocol: dict[str, Any]
    rows: list[MemorisationRow]

    def dicts(self) -> list[dict[str, Any]]:
        return [asdict(row) for row in self.rows]


class TrainingFeatures:
    """The training images as unit vectors around their mean, and the mean image itself."""

    def __init__(self, images: Iterable[Float], feature_px: int) -> None:
        self._feature_px = feature_px
        features, total = [], np.zeros(())
        for image in images:
            features.append(small(image, feature_px))
            total = total + image
        if len(features) < 2:
            raise MemorisationError("at least two training images are needed")
        stacked = np.stack(features)
        self.mean_image: Float = np.asarray(total / len(features), dtype=np.float32)
        self._centre = stacked.mean(axis=0)
        self._vectors = _unit(stacked - self._centre)

    def nearest(self, images: Iterable[Float]) -> Float:
        """Cosine of each image to the training image most like it."""
        found = [_unit(small(image, self._feature_px) - self._centre) for image in images]
        return np.asarray((np.stack(found) @ self._vectors.T).max(axis=1))

    def among_themselves(self) -> Float:
        """Cosine of each training image to the most similar other one: what is ordinary for these parts."""
        cosines = self._vectors @ self._vectors.T
        np.fill_diagonal(cosines, -1.0)
        return np.asarray(cosines.max(axis=1))


def small(image: Float, feature_px: int) -> Float:
    """`[C, H, W]` -> a vector: shrunk to `feature_px` at most, each channel's brightness taken away."""
    _, height, width = image.shape
    size = (min(width, feature_px), min(height, feature_px))
    channels = [cv2.resize(channel, size, interpolation=cv2.INTER_AREA) for channel in image]
    return np.concatenate([(channel - channel.mean()).ravel() for channel in channels])


def _unit(vectors: Float) -> Float:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12))


def draw_samples(
    net: Denoiser,
    process: DiffusionProcess,
    start: Float,
    seeds: range,
    t_start: float,
    n_steps: int,
    noise: str = "gaussian",
) -> Float:
    """Samples `[B, C, H, W]` of the network, one for each seed, by the ancestral chain.

    `start [C, H, W]` noised to `t_start` stands for pure noise, which a network that was trained only on
    the timesteps used at inspection has never seen. With the mean training image no sample starts nearer to
    one training image than to another.
    """
    images = np.repeat(start[None], len(seeds), axis=0)
    return reconstruct_chain(
        net, process, images, seeds, t_noise=t_start, t_start=t_start, n_steps=n_steps, noise=noise
    )


def memorisation(
    bundle: Bundle,
    train: Probe,
    held_out: Probe | None,
    settings: MemorisationSettings,
    stages: Stages = quiet,
) -> MemorisationResult:
    """Compare samples, and held-out images and their reconstructions, to the training images.

    Of a bundle of several parts, the one that the profile is for is measured. Raises MemorisationError for an
    unknown profile or fewer than two training images, PartError where a part is not named.
    """
    manifest = bundle.manifest
    require_profile(manifest, [settings.profile])
    profile = settings.profile or manifest.default_profile[settings.device]
    if profile not in manifest.profiles:
        raise MemorisationError(
            f"the bundle has no profile {profile!r}; it has {', '.join(manifest.profiles)}"
        )
    widest = max(manifest.profiles.values(), key=lambda spec: spec.largest_timestep)  # of any part: all alike
    with stages("reading images", len(train.files)) as advance:
        seen = (shrink(image, manifest.network.reduce) for image, _ in train)
        features = TrainingFeatures(seen, settings.feature_px)
        advance(len(train.files), "")
    rows = [_row("training, among themselves", features.among_themselves())]

    net = as_denoiser(eps_predictor(bundle, settings.device, manifest.label(profile)))
    found: list[Float] = []
    with stages("sampling", settings.samples) as advance:
        for first in range(0, settings.samples, settings.batch_size):
            last = min(first + settings.batch_size, settings.samples)
            seeds = range(settings.seed + first, settings.seed + last)
            samples = draw_samples(
                net,
                manifest.diffusion,
                features.mean_image,
                seeds,
                widest.largest_timestep,
                settings.steps,
                getattr(widest, "noise", "gaussian"),
            )
            found.append(features.nearest(samples))
            advance(last, "")
    rows.append(_row("samples", np.concatenate(found)))
    if held_out is not None:
        rows += _held_out(bundle, features, held_out, profile, settings, stages)
    protocol = _protocol(bundle, train, held_out, settings, profile, widest.largest_timestep)
    return MemorisationResult(protocol, rows)


def _held_out(
    bundle: Bundle,
    features: TrainingFeatures,
    probe: Probe,
    profile: str,
    settings: MemorisationSettings,
    stages: Stages,
) -> list[MemorisationRow]:
    """Images that were not trained on, and whether reconstructing them pulls them to ones that were."""
    engine = open_engine(bundle, "torch", settings.device)
    before, after = [], []
    with stages("reconstructing", len(probe.files)) as advance:
        for images, seeds in probe.batches(settings.batch_size):
            before.append(features.nearest(shrink(images, bundle.manifest.network.reduce)))
            after.append(features.nearest(raw.reconstruction for raw in engine.run(images, seeds, profile)))
            advance(sum(map(len, before)), "")
    return [
        _row("held out", np.concatenate(before)),
        _row("held out, reconstructed", np.concatenate(after)),
    ]


def _row(name: str, similarities: Float) -> MemorisationRow:
    return MemorisationRow(
        images=name,
        count=len(similarities),
        median=float(np.median(similarities)),
        p95=float(np.quantile(similarities, 0.95)),
        largest=float(similarities.max()),
        at_least={f"{level:.2f}": float(np.mean(similarities >= level)) for level in LEVELS},
        similarities=[round(float(value), 4) for value in np.sort(similarities)],
    )


def _protocol(
    bundle: Bundle,
    train: Probe,
    held_out: Probe | None,
    settings: MemorisationSettings,
    profile: str,
    t_start: float,
) -> dict[str, Any]:
    return {
        **describe_run(bundle, settings.device),
        "data": train.describe(),
        "held_out": None if held_out is None else {**held_out.describe(), "profile": profile},
        "samples": {"count": settings.samples, "t_start": t_start, "n_steps": settings.steps},
        "seed": settings.seed,
        "feature_px": settings.feature_px,
        "rules": {
            "similarity": "largest cosine to a training image, each image's mean and the mean image removed",
            "features": "pixels, shrunk by area to feature_px a side, not to be compared across sizes",
            "samples": "ancestral chain from the mean training image noised to t_start",
            "training, among themselves": "each image to the nearest other one",
        },
    }


def print_memorisation(result: MemorisationResult, console: Console) -> None:
    """A line per set of images."""
    table = Table(title="similarity to the nearest training image", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("images")
    heads = ("count", "median", "95 %", "largest", *(f"at least {level:.2f}" for level in LEVELS))
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row in result.rows:
        figures = [f"{value:.3f}" for value in (row.median, row.p95, row.largest)]
        table.add_row(row.images, str(row.count), *figures, *(f"{s:.1%}" for s in row.at_least.values()))
    console.print(table)
    data = result.protocol["data"]
    console.print(f"  {data['images']} training images of {data['folder']}; 1 is a copy, near 0 another part")
