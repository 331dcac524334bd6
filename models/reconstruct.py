"""Running a profile: an image in, its healthy estimates out, whatever kind of reconstruction it is."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from models.drive import Denoiser, Steps, drive
from models.guided import denoised_gradient, input_guided, norm_guided
from models.process import DiffusionProcess
from models.profiles import Profile
from models.samplers import chain, one_step

Float = NDArray[np.float32]
RECONSTRUCTIONS: dict[str, Callable[..., Steps]] = {
    "chain": chain,
    "one_step": one_step,
    "norm_guided": norm_guided,
    "input_guided": input_guided,
    "denoised_gradient": denoised_gradient,
}
"""By profile kind: `(process, x0, seeds, **fields of the profile)`."""


def reconstruction(process: DiffusionProcess, profile: Profile, images: Float, seeds: Sequence[int]) -> Steps:
    """A profile, to be run by whoever has the network: `images [B, C, H, W]` in [-1, 1] -> healthy estimates
    `[B, K, C, H, W]`, K = `levels`. Row i depends on image i and seed i alone.
    """
    fields = profile.model_dump(exclude={"kind", "map", "part"})
    estimates = yield from RECONSTRUCTIONS[profile.kind](process, images, seeds, **fields)
    return estimates.reshape(len(images), profile.levels, *images.shape[1:])


def reconstruct(
    net: Denoiser,
    process: DiffusionProcess,
    profile: Profile,
    images: Float,
    seeds: Sequence[int],
    should_stop: Callable[[], bool] | None = None,
) -> Float:
    """Run a profile to its end: `images [B, C, H, W]` -> healthy estimates `[B, K, C, H, W]`.

    Raises Cancelled when `should_stop` answers true between two network calls.
    """
    return drive(net, reconstruction(process, profile, images, seeds), should_stop)
