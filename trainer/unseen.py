"""What the detector says of training images as if it had never seen them (cross-fitting).

The Gaussians fit the images they were estimated from better than new ones, so what is usual among training
images is too low for those to come, and thresholds from it are too strict. So the images are dealt into
folds, and each is looked at with Gaussians of the other folds; these are used for calibration alone.
Images that look alike - another exposure of the same part, the next part of a series - would vouch for each
other from fold to fold, so whole clusters of them share a fold (k-means on their mean features).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans  # type: ignore[import-untyped]

from models.detector import Detector
from models.evidence import Look
from trainer.suspects import Sample, fit_sample, mean_features

Float = NDArray[np.float32]
FOLDS = 4
CLUSTERS = 24
LEAST_IMAGES = 4 * CLUSTERS
"""Below this many images clusters are of chance, and images are dealt one by one."""


@dataclass(frozen=True)
class Unseen:
    """For each training image a detector whose distances were fitted without its fold."""

    detectors: Sequence[Detector]  # [FOLDS], on the CPU
    fold: NDArray[np.int64]  # [N] of each training image

    def rows(self, rows: slice) -> "Unseen":
        """The same for some of the training images."""
        return Unseen(self.detectors, self.fold[rows])

    @torch.no_grad()
    def __call__(self, images: Float, indices: NDArray[np.int64]) -> Look:
        """Images `[B, C, H, W]` in [-1, 1] that are, or were painted onto, the training images
        `indices [B]`."""
        folds = self.fold[indices]
        evidence: list[Float] = [np.empty(0, np.float32)] * len(images)
        features = evidence.copy()
        for fold in np.unique(folds):
            rows = np.flatnonzero(folds == fold)
            seen, means = self.detectors[fold](torch.from_numpy(images[rows]))
            for row, of_one, mean in zip(rows, seen.numpy(), means.numpy(), strict=True):
                evidence[row], features[row] = of_one, mean
        return Look(np.stack(evidence), np.stack(features))


def cross_fit(
    detector: Detector, sample: Sample, rows: NDArray[np.int64], pixels: NDArray[np.uint8], seed: int
) -> Unseen:
    """A fit without each fold of the training images `pixels [N, C, H, W]`.

    `rows` are those of the images that the detector's own fit was offered; `sample` counts within them.
    """
    sampled = rows[sample.chosen]
    features = np.empty((len(pixels), sample.features.shape[1]), dtype=np.float32)
    features[sampled] = sample.features
    others = np.setdiff1d(np.arange(len(pixels)), sampled)
    if others.size:
        features[others] = mean_features(detector, pixels, others)
    fold = deal(features, seed)
    detectors = []
    for left_out in range(FOLDS):
        found = copy.deepcopy(detector).cpu().eval()
        fit_sample(found, sample, fold[sampled] != left_out)
        detectors.append(found)
    return Unseen(detectors, fold)


def deal(features: Float, seed: int, folds: int = FOLDS) -> NDArray[np.int64]:
    """Mean features `[N, D]` -> the fold of each image, `[N]`: whole clusters together, folds about as large.

    Few images are dealt one by one.
    """
    count = len(features)
    rng = np.random.default_rng((seed, 7))
    if count < LEAST_IMAGES:
        return np.asarray(rng.permutation(count) % folds, dtype=np.int64)
    spread = np.maximum(features.std(axis=0, dtype=np.float64), 1e-6)
    standard = (features - features.mean(axis=0)) / spread
    cluster = KMeans(CLUSTERS, n_init=4, random_state=int(rng.integers(2**31))).fit_predict(standard)
    found = np.zeros(count, dtype=np.int64)
    sizes = np.zeros(folds, dtype=np.int64)
    for index in np.argsort(-np.bincount(cluster, minlength=CLUSTERS), kind="stable"):
        fold = int(sizes.argmin())
        found[cluster == index] = fold
        sizes[fold] += int((cluster == index).sum())
    return found
