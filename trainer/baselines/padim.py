"""PaDiM: one Gaussian of pretrained features per position (Defard et al. 2021, arXiv 2011.08785)."""

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from models.preprocess import to_float
from trainer.baselines.base import (
    Baseline,
    BaselineError,
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


class PadimSettings(BaselineSettings):
    depth: Depth = Field(default="middle", description="stages compared: at strides 8 and 16, or 16 and 32")
    dims: int = Field(default=100, ge=1, description="feature dimensions kept, chosen at random")
    ridge: float = Field(default=0.01, gt=0, description="added to the diagonal of every covariance")
    trim: float = Field(
        default=0.0, ge=0, lt=0.5, description="share of the images left out per position and fitted again"
    )


class Padim(Baseline):
    """Mahalanobis distance of a patch from the Gaussian of its position (paper, section III).

    Parts must be framed alike. With `trim`, the fit is repeated twice without each position's most distant
    images: concentration steps as in FAST-MCD (Rousseeuw & Van Driessen 1999), from the plain fit on.
    The paper has no such step, and the default is the paper's.
    """

    Settings = PadimSettings
    runtime = "torch"
    network_calls = 1

    def __init__(self, settings: PadimSettings, load_features: LoadFeatures) -> None:
        self._settings = settings
        self._net = load_features(settings.depth)

    def fit(self, images: Pixels, progress: Progress = nothing) -> None:
        probe = self._net.features(torch.from_numpy(to_float(images[:1])))
        channels, self._grid = probe.shape[1], (probe.shape[2], probe.shape[3])
        dims = min(self._settings.dims, channels)
        chosen = np.sort(np.random.default_rng(self._settings.seed).permutation(channels)[:dims])
        self._chosen = torch.from_numpy(chosen)
        if self._settings.trim == 0:
            self._learn(images, None, progress)
            return
        rounds = 3
        kept = max(2, round(len(images) * (1 - self._settings.trim)))
        weights: Tensor | None = None
        for done in range(rounds):
            self._learn(images, weights, lambda i, n, done=done: progress(done * n + i, rounds * n))  # type: ignore[misc]
            if done < rounds - 1:
                distances = torch.cat([self._distances(images[s]) for s in batches(len(images), _BATCH)])
                limit = distances.kthvalue(kept, dim=0).values
                weights = (distances <= limit).double()

    def inspect(self, images: Pixels) -> Inspected:
        return Inspected(self._maps(self._distances(images), images.shape), None)

    def score_training(self, images: Pixels, rows: NDArray[np.int64]) -> Float:
        """Each image against Gaussians fitted without it, from the full fit by the Sherman-Morrison formula.

        Exact but for the ridge's share of 1 / N. Without this no distance could exceed sqrt(N).
        """
        distances = self._distances(images)
        count = self._count  # [P]
        q = distances.square() / (count - 1)
        left_out = (count / (count - 1)).square() * (count - 2) * q / (1 - count / (count - 1) * q)
        inside = 1.0 if self._weights is None else self._weights[torch.from_numpy(rows)]
        left_out = torch.where(torch.as_tensor(inside) > 0, left_out.clamp(min=0).sqrt(), distances)
        return self._maps(left_out, images.shape)

    def gaussians(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """The feature dimensions kept `[d]`, and means `[P, d]` and covariances `[P, d, d]` per position."""
        factors = self._factors
        return self._chosen.numpy(), self._means.numpy(), (factors @ factors.transpose(1, 2)).numpy()

    def _maps(self, distances: Tensor, shape: tuple[int, ...]) -> Float:
        """Distances `[B, P]` -> maps `[B, H, W]` for images of that shape."""
        grid = distances.reshape(len(distances), 1, *self._grid)
        maps = functional.interpolate(grid, tuple(shape[-2:]), mode="bilinear", align_corners=False)
        return np.asarray(maps[:, 0].numpy(), dtype=np.float32)

    def _vectors(self, images: Pixels) -> Tensor:
        """The kept feature dimensions of every position `[B, P, d]`."""
        found = self._net.features(torch.from_numpy(to_float(images)))
        return found[:, self._chosen].flatten(2).transpose(1, 2).double()

    def _learn(self, images: Pixels, weights: Tensor | None, progress: Progress) -> None:
        """Means and covariances from sums over batches, so that features need not fit into memory.

        `weights [N, P]` are 1 for images that count at a position. Raises BaselineError for one image.
        """
        if len(images) < 2:
            raise BaselineError("a covariance needs at least two training images")
        shift = self._vectors(images[:1])[0]  # [P, d] keeps the sums of squares from cancelling
        positions, dims = shift.shape
        count = torch.zeros(positions, dtype=torch.float64)
        total, squares = torch.zeros_like(shift), shift.new_zeros(positions, dims, dims)
        for chosen in batches(len(images), _BATCH):
            x = (self._vectors(images[chosen]) - shift).transpose(0, 1)  # [P, B, d]
            w = x.new_ones(x.shape[:2]) if weights is None else weights[chosen].T
            weighted = x * w[:, :, None]
            count += w.sum(dim=1)
            total += weighted.sum(dim=1)
            squares.baddbmm_(x.transpose(1, 2), weighted)
            progress(chosen.stop, len(images))
        mean = total / count[:, None]
        centered = squares - count[:, None, None] * mean[:, :, None] * mean[:, None, :]
        covariance = centered / (count - 1)[:, None, None]
        covariance += self._settings.ridge * torch.eye(dims, dtype=torch.float64)
        self._means, self._count, self._weights = mean + shift, count, weights
        self._factors = torch.linalg.cholesky(covariance)

    def _distances(self, images: Pixels) -> Tensor:
        """Mahalanobis distances `[B, P]` (paper, equation 2)."""
        x = (self._vectors(images) - self._means).permute(1, 2, 0)  # [P, d, B]
        whitened = torch.linalg.solve_triangular(self._factors, x, upper=False)
        distances: Tensor = whitened.square().sum(dim=1).sqrt().T
        return distances
