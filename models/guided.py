"""Guided reconstructions: by a noisier estimate, by the input itself, and by gradients on the input.

Two of them steer a noise estimate toward the noised image of a guide y, with one formula:

    y_t     = sqrt(abar_t) y + sqrt(1 - abar_t) eps
    eps_hat = eps - w sqrt(1 - abar_t) (y_t - x_t)

Because `x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps` for the clean estimate x0 that eps implies, this is
`x0_hat = x0 + w (1 - abar_t) (y - x0)`: w = 0 changes nothing, w = 1 / (1 - abar_t) gives y itself.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.drive import Ask, Steps, sequential
from models.process import DiffusionProcess, predict_x0, q_sample
from models.samplers import chain_down, ddim_with_noise, draw_noise, generators, one_step_draws

Float = NDArray[np.float32]


def guided_eps(x_t: Float, eps: Float, abar: Any, guide: Float, weight: float) -> Float:
    """`eps_hat` of the formula above; the guide is a clean image, all arrays `[..., C, H, W]`."""
    y_t = q_sample(guide, eps, abar)
    return np.asarray(eps - np.float32(weight) * np.sqrt(1.0 - abar) * (y_t - x_t))


def norm_guided(
    process: DiffusionProcess,
    x0: Float,
    seeds: Sequence[int],
    *,
    t_small: float,
    t_large: float,
    weight: float = 1.0,
    draws: int = 1,
) -> Steps:
    """Norm-guided one-step denoising (DiffusionAD, Zhang et al. 2023): the noisier estimate guides the other.

    The one-step estimate at `t_large` has forgotten the defect and the detail, the one at `t_small` keeps
    both; the first, clipped, is the guide of the second. Returns `[B, 1, C, H, W]` in [-1, 1], the mean
    over `draws` pairs of noise draws.
    """
    both = yield from one_step_draws(process, x0, seeds, timesteps=(t_small, t_large), draws=draws)
    small, large = np.moveaxis(both, 1, 0)  # [B, draws, C, H, W] each
    # With x0_hat written out, no x_t and no eps are needed.
    pull = np.float32(weight * (1.0 - process.abar(t_small)))
    guided = small + pull * (np.clip(large, -1.0, 1.0) - small)
    return np.asarray(np.clip(guided, -1.0, 1.0).mean(axis=1, keepdims=True))


def input_guided(
    process: DiffusionProcess,
    x0: Float,
    seeds: Sequence[int],
    *,
    t_noise: float,
    n_steps: int,
    weight: float,
    eta: float = 0.0,
    clip: bool = True,
) -> Steps:
    """Denoising conditioned on the input (DDAD, Mousakhan et al. 2023): DDIM whose guide is the input.

    The chain runs from `t_noise` to 0, asking `n_steps` times, and returns `[B, C, H, W]` in [-1, 1].
    `eta` is the noise of its steps (Song et al. 2021, eq. 16): 0 none, 1 as much as ancestral sampling.
    """
    streams, shape = generators(seeds), x0.shape[1:]
    noise = partial(draw_noise, streams, shape)

    def correct(x_t: Float, eps: Float, abar: np.float32) -> Float:
        return guided_eps(x_t, eps, abar, x0, weight)

    x = q_sample(x0, noise(), np.float32(process.abar(t_noise)))
    grid = np.linspace(t_noise, 0.0, n_steps + 1)
    steps = chain_down(process, x, grid, ddim_with_noise(eta), noise, correct=correct, clip=clip)
    return (yield from steps)


def timestep_of(process: DiffusionProcess, abar: float) -> float:
    """The fractional timestep with this signal power, inverse of `process.abar`; ValueError beyond T."""
    t = np.arange(process.steps + 1)
    log_abar = np.log(process.abar(t))
    if not log_abar[-1] <= np.log(abar) <= 0.0:
        raise ValueError(f"no timestep of {process} has abar {abar}")
    return float(np.interp(-np.log(abar), -log_abar, t))


def denoised_gradient(
    process: DiffusionProcess,
    x0: Float,
    seeds: Sequence[int],
    *,
    t_noise: float,
    n_steps: int,
    rate: float = 0.02,
    denoise_every: int = 5,
    clip: bool = True,
) -> Steps:
    """Move the input down denoised gradients until it is normal (Lu et al. 2023, "Removing Anomalies as
    Noises", algorithm 1); returns `[B, C, H, W]` in [-1, 1].

    The paper's step is `x <- omega x - s grad L`, with omega = sqrt(1 - s^2) and gradient noise of variance
    beta, which makes it a diffusion step with noise of variance `s^2 beta`; every `denoise_every` steps the
    diffusion model takes that noise away. What the text leaves open is read like this:

    - L is the noise-prediction loss at `t_noise`, `|eps_theta(x_t, t) - eps|^2 / 2`, with a fresh eps for
      every step. Its gradient is taken without the network's Jacobian, as in score distillation (Poole et
      al. 2023): `g = eps_theta(x_t, t) - eps`, which is large where the model sees what it never learned.
    - In these units a network that knows nothing has beta = 1, the only value for which the paper's omega
      keeps the variance. The noise of k steps is then that of the timestep with `abar = (1 - s^2)^k`, about
      t = 10 for the paper's s = 0.02 and k = 5, and a one-step estimate from there denoises.
    - "Until it is normal" is a number of steps, so that the cost is known; the last steps are denoised too.

    Raises ValueError when the noise of `denoise_every` steps is beyond `t_noise`, up to which the network is
    expected to be trained.
    """
    streams, shape, abar = generators(seeds), x0.shape[1:], np.float32(process.abar(t_noise))
    if (1.0 - rate**2) ** denoise_every < process.abar(t_noise):
        raise ValueError(f"{denoise_every} steps of rate {rate} make more noise than t = {t_noise:g} has")
    x, omega = x0, np.float32(np.sqrt(1.0 - rate**2))
    for done in range(1, n_steps + 1):
        eps = draw_noise(streams, shape)
        estimate = yield Ask(q_sample(x, eps, abar), np.full(len(x), t_noise, dtype=np.float32))
        x = np.asarray(omega * x - np.float32(rate) * (estimate - eps))
        if done % denoise_every == 0 or done == n_steps:
            x = yield from _denoise(process, x, (1.0 - rate**2) ** ((done - 1) % denoise_every + 1))
            x = np.clip(x, -1.0, 1.0) if clip else x
    return x


def _denoise(process: DiffusionProcess, x: Float, abar: float) -> Steps:
    """One-step clean estimate of images `[B, C, H, W]` that hold noise of the level `abar`."""
    t = np.full(len(x), timestep_of(process, abar), dtype=np.float32)
    eps = yield Ask(x, t)
    return np.asarray(predict_x0(x, eps, np.float32(abar)), dtype=np.float32)


reconstruct_norm_guided = sequential(norm_guided)
reconstruct_input_guided = sequential(input_guided)
reconstruct_denoised_gradient = sequential(denoised_gradient)
