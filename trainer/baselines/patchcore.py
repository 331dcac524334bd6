"""PatchCore: distance to the nearest remembered patch (Roth et al. 2022, arXiv 2106.08265)."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from models.preprocess import to_float
from trainer.baselines.base import (
    Baseline,
    BaselineSettings,
    Float,
    Inspected,
    LoadFeatures,
    Pixels,
    Progress,
    batches,
    nothing,
)
from trainer.features import Depth

_BATCH = 16
_QUERIES = 1024  # patches compared at once: 1024 x 20 000 distances are 80 MB


class PatchCoreSettings(BaselineSettings):
    depth: Depth = Field(default="middle", description="stages compared: at strides 8 and 16, or 16 and 32")
    patches: int = Field(default=20_000, ge=1, description="patches remembered")
    sampling: Literal["random", "coreset"] = Field(
        default="random", description="how they are chosen: at random, or greedily far from each other"
    )
    pool: int = Field(default=100_000, ge=1, description="random patches that the coreset is chosen from")
    neighbours: int = Field(default=1, ge=1, description="nearest patches whose distances are averaged")


class PatchCore(Baseline):
    """Distance of every patch to a memory of training patches (paper, section 3.3).

    The image score is the harness's, the same for all methods; the paper's weight for patches that are
    alone in memory is left out. A training image is compared with other images' patches only.
    """

    Settings = PatchCoreSettings
    runtime = "torch"
    network_calls = 1

    def __init__(self, settings: PatchCoreSettings, load_features: LoadFeatures) -> None:
        self._settings = settings
        self._net = load_features(settings.depth)

    def fit(self, images: Pixels, progress: Progress = nothing) -> None:
        """Remember a sample of all patches; a greedy one costs `patches` passes over the pool."""
        settings = self._settings
        rng = np.random.default_rng(settings.seed)
        per_image = self._vectors(images[:1]).shape[0]
        wanted = settings.patches if settings.sampling == "random" else settings.pool
        chosen = np.sort(rng.permutation(len(images) * per_image)[:wanted])
        owners, places = chosen // per_image, chosen % per_image
        found = []
        for rows in batches(len(images), _BATCH):
            inside = (owners >= rows.start) & (owners < rows.stop)
            picked = (owners[inside] - rows.start) * per_image + places[inside]
            found.append(self._vectors(images[rows])[torch.from_numpy(picked)])
            progress(rows.stop, len(images))
        self._bank = torch.cat(found)  # [M, F]
        self._owners = torch.from_numpy(owners)  # [M]
        if settings.sampling == "coreset":
            kept = greedy_coreset(self._bank, settings.patches, first=int(rng.integers(len(self._bank))))
            self._bank, self._owners = self._bank[kept], self._owners[kept]
        self._lengths = self._bank.square().sum(dim=1)

    def inspect(self, images: Pixels) -> Inspected:
        return Inspected(self._maps(images, None), None)

    def score_training(self, images: Pixels, rows: NDArray[np.int64]) -> Float:
        return self._maps(images, rows)

    @property
    def bank(self) -> Float:
        """The remembered patches `[M, F]`."""
        return np.asarray(self._bank.numpy())

    def _maps(self, images: Pixels, rows: NDArray[np.int64] | None) -> Float:
        vectors = self._vectors(images)
        vectors = vectors.reshape(len(images), -1, vectors.shape[-1])  # [B, P, F]
        own = [None] * len(images) if rows is None else [int(row) for row in rows]
        distances = torch.stack([self._distances(x, i) for x, i in zip(vectors, own, strict=True)])
        grid = distances.reshape(len(images), 1, *self._grid)
        maps = functional.interpolate(grid, tuple(images.shape[-2:]), mode="bilinear", align_corners=False)
        return np.asarray(maps[:, 0].numpy())

    def _vectors(self, images: Pixels) -> Tensor:
        """Every patch of a batch `[B * P, F]`, image after image."""
        found = self._net.features(torch.from_numpy(to_float(images)))
        self._grid = (found.shape[2], found.shape[3])
        return found.permute(0, 2, 3, 1).flatten(0, 2)

    def _distances(self, vectors: Tensor, own: int | None) -> Tensor:
        """Mean distance of vectors `[Q, F]` to their nearest remembered patches, image `own`'s left out.

        An image that owns the whole memory has nothing to be compared with and is at distance 0.
        """
        others = None if own is None else self._owners != own
        available = len(self._bank) if others is None else int(others.sum())
        count = min(self._settings.neighbours, available)
        if count == 0:
            return torch.zeros(len(vectors))
        found = []
        for some in batches(len(vectors), _QUERIES):
            x = vectors[some]
            squared = torch.addmm(self._lengths, x, self._bank.T, alpha=-2)
            if others is not None:
                squared.index_fill_(1, (~others).nonzero()[:, 0], torch.inf)
            # the smallest alone is many times faster to find than the smallest few
            nearest = (
                squared.amin(1, keepdim=True)
                if count == 1
                else squared.topk(count, dim=1, largest=False).values
            )
            lengths = x.square().sum(dim=1, keepdim=True)
            found.append((nearest + lengths).clamp_(min=0).sqrt_().mean(dim=1))
        return torch.cat(found)


def greedy_coreset(vectors: Tensor, count: int, first: int) -> Tensor:
    """Indices of `count` vectors `[M, F]`, each the farthest from those before it (paper, algorithm 1).

    The greedy 2-approximation of the k-center problem (Gonzalez 1985), from index `first` on.
    """
    count = min(count, len(vectors))
    chosen = torch.zeros(count, dtype=torch.int64)
    nearest = torch.full((len(vectors),), torch.inf, dtype=vectors.dtype)
    lengths, current = vectors.square().sum(dim=1), first
    for position in range(count):
        chosen[position] = current
        squared = lengths - 2 * (vectors @ vectors[current]) + lengths[current]
        nearest = torch.minimum(nearest, squared)
        nearest[current] = -torch.inf  # rounding must not choose a vector twice
        current = int(nearest.argmax())
    return chosen
