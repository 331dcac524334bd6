"""Whether parts share fine structure at the same places - measured, not assumed - and what is usual at each.

A defect lies in different places of different parts, so at any one place few images are defective even
where a fifth of all are. That leaves a robust fit more to work with than leaving out whole images does.
"""

import torch
from torch import Tensor

from models.detector import FINE_STRIDE
from models.places import Places, per_place

SHARED = 0.6
"""Share of the variation of fine features that the place must explain; see `docs/LOG.md`, 2026-11-25."""
FEWEST = 80
"""Images below which a place's covariance would be of chance."""
MOST_PLACES = 2048
TRIM = 0.05  # of the images at each place, the most distant ones
POOLED = 0.1  # of each covariance is that of all places: what few images do not show
_AROUND = 5  # places a side; what differs from these is fine
_ROUNDS = 3
_TINY = 1e-12


def places_of(features: Tensor) -> Tensor:
    """Fine features of images `[B, F, H / 8, W / 8]` -> those of `MOST_PLACES` at most, `[B, F, h, w]`."""
    width = 1
    while (features.shape[2] // width) * (features.shape[3] // width) > MOST_PLACES:
        width *= 2
    return per_place(features, width)


def shared_structure(places: Tensor) -> float:
    """Features of images `[N, F, h, w]` -> the share of the variation from place to place, within short
    distances, that all images have in common; mean over features, 0 to 1.

    What is common is the covariance of the means of two halves of the images, as in `trainer.detail`.
    """
    edge = _AROUND // 2
    inner = places[:, :, edge:-edge, edge:-edge]  # every image has its border at the same places
    fine = (inner - torch.nn.functional.avg_pool2d(places, _AROUND, stride=1)).flatten(2)  # [N, F, P]
    halves = [fine[start::2].mean(dim=0) for start in (0, 1)]
    first, second = (half - half.mean(dim=1, keepdim=True) for half in halves)
    common = (first * second).mean(dim=1)
    return float((common / fine.var(dim=(0, 2)).clamp_min(_TINY)).mean().clamp(0, 1))


def worth_it(places: Tensor) -> bool:
    """Whether to compare images `[N, F, h, w]` place by place."""
    return len(places) >= FEWEST and shared_structure(places.float()) >= SHARED


def fit_places(places: Tensor, image_px: tuple[int, int]) -> Places:
    """A Gaussian for each place from features of contaminated images `[N, F, h, w]`, of `image_px` (height,
    width).

    At each place the `TRIM` most distant images are left out of the next estimate, twice: concentration steps
    as in FAST-MCD (Rousseeuw & Van Driessen 1999).
    """
    count, channels, rows, columns = places.shape
    x = places.float().flatten(2).permute(2, 0, 1)  # [P, N, F]
    kept = max(2, round((1 - TRIM) * count))
    use = torch.ones(x.shape[:2])
    for step in range(_ROUNDS):
        number = use.sum(dim=1)[:, None]
        mean = (x * use[:, :, None]).sum(dim=1) / number
        away = x - mean[:, None]
        covariance = away.transpose(1, 2) @ (away * use[:, :, None]) / (number[:, :, None] - 1)
        pooled = covariance.mean(dim=0)
        floor = torch.eye(channels) * (1e-4 * pooled.diagonal().mean() + _TINY)
        covariance = (1 - POOLED) * covariance + POOLED * pooled + floor
        precision = torch.cholesky_inverse(torch.linalg.cholesky(covariance.double()))
        whiten = torch.linalg.cholesky(precision).float()
        if step < _ROUNDS - 1:
            distance = (away @ whiten).square().sum(dim=2)
            use = (distance <= distance.kthvalue(kept, dim=1, keepdim=True).values).float()
    found = Places((rows, columns), image_px[0] // rows, channels, FINE_STRIDE)
    found.mean.copy_(mean.T.reshape(channels, rows, columns))
    found.whiten.copy_(whiten)
    return found
