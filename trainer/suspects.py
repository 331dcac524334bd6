"""The distances fitted again without the images that look defective by their first fit.

Defects in the training set widen what the Gaussians take for usual, and hide their like. Trimming places is
not enough: a wide defect has many of them. So images are judged by their distances, each by its own kind
(`trainer.kinds`), and the most suspicious share is left out of a second fit: one step of the trimming of
robust covariance estimation (Rousseeuw & Van Driessen 1999), on images in place of vectors.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from models.anomaly import image_score
from models.detector import GRID, SCALES, Detector, fit_gaussian
from models.evidence import EvidenceName
from models.preprocess import to_float
from trainer.kinds import fit_kinds, lower_spread, usual_of_all
from trainer.places import FEWEST, fit_places, places_of, worth_it

Float = NDArray[np.float32]

LEFT_OUT = 0.3
"""Share of the images that the second fit does without; more than are defective, good ones are not missed."""
IMAGES = 1000
VECTORS = 160_000
TOP_FRACTION = 0.003
_SCALES: tuple[EvidenceName, ...] = ("distance", "wide")


@dataclass(frozen=True)
class Sample:
    """What the second fit was made from."""

    chosen: NDArray[np.int64]  # [n] of the images offered, ascending
    kept: NDArray[np.bool_]  # [n] whether it is not among the most suspicious
    vectors: list[list[Tensor]]  # by scale and image: [places, G] each
    features: Float  # [n, D] mean features
    places: Tensor | None = None  # [n, F, h, w] fine features, where parts are compared place by place
    image_px: tuple[int, int] = (0, 0)  # (height, width)


def refit_distances(
    detector: Detector,
    pixels: NDArray[np.uint8],
    seed: int,
    bf16: bool,
    batch_size: int = 8,
    by_place: bool = False,
    trusted: NDArray[np.bool_] | None = None,
) -> Sample:
    """Fit the Gaussians of a detector again to images `[N, C, H, W]`, as a seeded sample of them.

    With `by_place`, each place gets one of its own if parts turn out to share fine structure. Images that are
    `trusted [N]` are never among those left out.
    """
    rng = np.random.default_rng((seed, 6))
    chosen = np.sort(rng.permutation(len(pixels))[:IMAGES])
    per_image = max(1, VECTORS // len(chosen))
    vectors: list[list[Tensor]] = [[] for _ in range(SCALES)]
    tops: list[list[float]] = [[] for _ in range(SCALES)]
    means: list[Float] = []
    fine: list[Tensor] = []
    for start in range(0, len(chosen), batch_size):
        near, distances, here = _look(detector, pixels[chosen[start : start + batch_size]], bf16)
        if by_place:
            fine.append(here)
        means.append(_means(near))
        for scale, (features, distance) in enumerate(zip(near, distances, strict=True)):
            places = features.flatten(2).transpose(1, 2)  # [B, places, G]
            picked = torch.from_numpy(rng.permutation(places.shape[1])[:per_image])
            vectors[scale] += list(places[:, picked].half())
            tops[scale] += [image_score(amap.numpy(), TOP_FRACTION) for amap in distance]
    high = {name: np.array(top, dtype=np.float32) for name, top in zip(_SCALES, tops, strict=True)}
    of_images = np.concatenate(means)
    suspicion = suspicions(of_images, high)
    kept = np.zeros(len(chosen), dtype=np.bool_)
    kept[np.argsort(suspicion, kind="stable")[: max(1, round((1 - LEFT_OUT) * len(chosen)))]] = True
    if trusted is not None:
        kept |= trusted[chosen]
    shared = torch.cat(fine) if by_place else None
    if shared is not None and not worth_it(shared):
        shared = None
    sample = Sample(chosen, kept, vectors, of_images, shared, (pixels.shape[2], pixels.shape[3]))
    fit_sample(detector, sample, np.ones_like(kept))
    return sample


def fit_sample(detector: Detector, sample: Sample, use: NDArray[np.bool_]) -> None:
    """Set the Gaussians from the images of a sample that `use [n]` names and that are kept; from all kept if
    there are none.

    Those of places are from all that it names, or from all if these are few: `trainer.places` leaves out
    what is suspicious about each place.
    """
    kept = use & sample.kept
    rows = np.flatnonzero(kept if kept.any() else sample.kept)
    for scale, of_scale in enumerate(sample.vectors):
        fit_gaussian(detector, torch.cat([of_scale[row] for row in rows]).float(), scale)
    if sample.places is not None:
        enough = use if np.count_nonzero(use) >= FEWEST // 2 else np.ones_like(use)
        detector.set_places(fit_places(sample.places[torch.from_numpy(enough)], sample.image_px))


@torch.no_grad()
def mean_features(
    detector: Detector, pixels: NDArray[np.uint8], rows: NDArray[np.int64], batch_size: int = 8
) -> Float:
    """Mean features `[n, D]` of some of the images `[N, C, H, W]`."""
    found = []
    for start in range(0, len(rows), batch_size):
        images = torch.from_numpy(to_float(pixels[rows[start : start + batch_size]]))
        found.append(_means(detector.features(images.to(detector.mean.device))[1]))
    return np.concatenate(found)


def suspicions(features: Float, tops: dict[EvidenceName, Float]) -> Float:
    """How far evidence rises, `[N]` each, above what is usual for images of that kind -> `[N]`."""
    kinds = fit_kinds(features, tops)
    usual = {} if kinds is None else usual_of_all(kinds)
    total = np.zeros(len(features), dtype=np.float32)
    for name, values in tops.items():
        above = values - usual.get(name, np.float32(0.0))
        total += np.logaddexp(0.0, (above - np.median(above)) / lower_spread(above)).astype(np.float32)
    return total


def _means(near: list[Tensor]) -> Float:
    """Features `[B, G, h, w]` by scale -> `[B, D]`."""
    return np.asarray(torch.cat([x.mean(dim=(2, 3)) for x in near], dim=1).cpu().numpy(), dtype=np.float32)


@torch.no_grad()
def _look(
    detector: Detector, pixels: NDArray[np.uint8], bf16: bool
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Images `[B, C, H, W]` -> features `[B, G, h, w]` and distances `[B, H / 4, W / 4]`, each by scale, and
    those of places `[B, F, h, w]`."""
    device = detector.mean.device
    images = torch.from_numpy(to_float(pixels)).to(device)
    size = (images.shape[2] // GRID, images.shape[3] // GRID)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        here, near = detector.features(images)
    near = [features.float() for features in near]
    distances = [
        F.interpolate(detector.distance(features, scale), size=size, mode="bilinear")[:, 0].cpu()
        for scale, features in enumerate(near)
    ]
    fine = places_of(detector.fine(here).float())
    return [features.cpu() for features in near], distances, fine.cpu()
