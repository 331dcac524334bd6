"""Running a profile: an image in, its healthy estimates out, whatever kind of reconstruction it is."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from models.guided import (
    reconstruct_denoised_gradient,
    reconstruct_input_guided,
    reconstruct_norm_guided,
)
from models.process import DiffusionProcess
from models.profiles import Profile
from models.samplers import Denoiser, reconstruct_chain, reconstruct_one_step

Float = NDArray[np.float32]
RECONSTRUCTIONS: dict[str, Callable[..., Float]] = {
    "chain": reconstruct_chain,
    "one_step": reconstruct_one_step,
    "norm_guided": reconstruct_norm_guided,
    "input_guided": reconstruct_input_guided,
    "denoised_gradient": reconstruct_denoised_gradient,
}
"""By profile kind: `(net, process, x0, seeds, *, should_stop, **fields of the profile)`."""


def reconstruct(
    net: Denoiser,
    process: DiffusionProcess,
    profile: Profile,
    images: Float,
    seeds: Sequence[int],
    should_stop: Callable[[], bool] | None = None,
) -> Float:
    """Run a profile: `images [B, C, H, W]` in [-1, 1] -> healthy estimates `[B, K, C, H, W]`, K = `levels`.

    Row i depends on image i and seed i alone. Raises Cancelled when `should_stop` answers true between
    two network calls.
    """
    fields = profile.model_dump(exclude={"kind", "map", "part"})
    estimates = RECONSTRUCTIONS[profile.kind](net, process, images, seeds, should_stop=should_stop, **fields)
    return estimates.reshape(len(images), profile.levels, *images.shape[1:])
