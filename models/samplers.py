"""Partial-noise reconstruction: noise an image part of the way, bring it back, keep what was healthy.

"Noise for 100 steps, denoise for 250" (RDDPM, Moradi & Paynabar 2025) has three readings; all are
chains over the grid `t_start -> 0` in `n_steps` equal steps from an image noised to `t_noise`:

    substeps     t_noise 100, t_start 100, n_steps 250   a consistent noise level, fractional steps
    overdenoise  t_noise 100, t_start 250, n_steps 250   the chain believes there is more noise than there is
    respaced     t_noise 400, t_start 400, n_steps 100   the 100th point of a 250-point grid on T = 1000

Each is a generator that asks for network evaluations (`models.drive`): `chain` is a profile's kind, and
`reconstruct_chain` the same run to its end on a network.

Randomness comes from one numpy generator per image, so a result depends on the image and its seed
alone and never on what shared its batch or on which runtime ran the network.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from models.drive import Ask, Steps, sequential
from models.drive import Cancelled as Cancelled  # also reached through here
from models.drive import Denoiser as Denoiser
from models.drive import check as check
from models.noise import NOISES
from models.process import DiffusionProcess, posterior, predict_x0, q_sample

Float = NDArray[np.float32]
Step = Callable[[Float, Float, NDArray[np.float64], NDArray[np.float64], Callable[[], Float]], Float]
"""One reverse step: x_t, x0 estimate, abar_t, abar_s, source of noise -> x_s."""
Correction = Callable[[Float, Float, np.float32], Float]
"""A change of the noise estimate: x_t, eps, abar_t -> eps."""


def image_seed(data: bytes) -> int:
    """The seed of an inspection, from the image's encoded bytes: same image, same noise, same verdict."""
    return digest_seed(hashlib.sha256(data).hexdigest())


def digest_seed(sha256: str) -> int:
    """The same seed, from the hexadecimal sha256 of those bytes."""
    return int(sha256[:16], 16)


def generators(seeds: Sequence[int]) -> list[np.random.Generator]:
    """One counter-based random stream per image."""
    return [np.random.Generator(np.random.Philox(seed)) for seed in seeds]


def draw_noise(
    streams: Sequence[np.random.Generator], shape: tuple[int, ...], noise: str = "gaussian"
) -> Float:
    """Noise of zero mean and unit variance `[B, *shape]`, row i from stream i alone.

    `noise` is a name in `models.noise.NOISES`; KeyError for an unknown one.
    """
    draw = NOISES[noise]()
    return np.stack([draw(shape, stream) for stream in streams])


def column(values: NDArray[np.float64]) -> Float:
    """`[B]` -> `[B, 1, 1, 1]` float32, to broadcast over images."""
    return np.asarray(values, dtype=np.float32)[:, None, None, None]


def ddpm_step(
    x_t: Float,
    x0: Float,
    abar_t: NDArray[np.float64],
    abar_s: NDArray[np.float64],
    noise: Callable[[], Float],
) -> Float:
    """Ancestral sampling step (Ho et al. 2020, algorithm 2) between any two noise levels."""
    mean, variance = posterior(x_t, x0, column(abar_t), column(abar_s))
    if np.all(abar_s >= 1.0):
        return mean
    return np.asarray(mean + np.sqrt(variance) * noise())


def ddim_step(
    x_t: Float,
    x0: Float,
    abar_t: NDArray[np.float64],
    abar_s: NDArray[np.float64],
    noise: Callable[[], Float],
) -> Float:
    """Deterministic step (Song et al. 2021, eq. 12 with sigma = 0); the noise is never drawn."""
    a_t, a_s = column(abar_t), column(abar_s)
    eps = (x_t - np.sqrt(a_t) * x0) / np.sqrt(1.0 - a_t)
    return np.asarray(np.sqrt(a_s) * x0 + np.sqrt(1.0 - a_s) * eps)


def ddim_with_noise(eta: float) -> Step:
    """DDIM step between deterministic (`eta` 0) and ancestral (`eta` 1): Song et al. 2021, eq. 12 and 16."""

    def step(
        x_t: Float,
        x0: Float,
        abar_t: NDArray[np.float64],
        abar_s: NDArray[np.float64],
        noise: Callable[[], Float],
    ) -> Float:
        if eta == 0.0 or np.all(abar_s >= 1.0):
            return ddim_step(x_t, x0, abar_t, abar_s, noise)
        variance = eta**2 * (1.0 - abar_s) / (1.0 - abar_t) * (1.0 - abar_t / abar_s)
        a_t, a_s = column(abar_t), column(abar_s)
        eps = (x_t - np.sqrt(a_t) * x0) / np.sqrt(1.0 - a_t)
        kept = np.maximum(1.0 - abar_s - variance, 0.0)  # in float64: little is left of it near t = 0
        mean = np.sqrt(a_s) * x0 + np.sqrt(column(kept)) * eps
        return np.asarray(mean + np.sqrt(column(variance)) * noise())

    return step


SAMPLERS: dict[str, Step] = {"ddpm": ddpm_step, "ddim": ddim_step}


def chain_down(
    process: DiffusionProcess,
    x: Float,
    grid: NDArray[np.float64],
    step: Step,
    noise: Callable[[], Float],
    *,
    correct: Correction | None = None,
    clip: bool = True,
) -> Steps:
    """Walk `x` `[B, C, H, W]` down the timesteps of `grid` `[n + 1]`, asking once for each of n steps.

    `correct` may change each noise estimate before it is used; `clip` keeps the clean estimates in [-1, 1].
    """
    abar, rows = process.abar(grid), np.ones(len(x))
    for k in range(len(grid) - 1):
        eps = yield Ask(x, np.full(len(x), grid[k], dtype=np.float32))
        if correct is not None:
            eps = correct(x, eps, np.float32(abar[k]))
        clean = predict_x0(x, eps, np.float32(abar[k]))
        if clip:
            clean = np.clip(clean, -1.0, 1.0)
        x = step(x, clean, rows * abar[k], rows * abar[k + 1], noise)
    return x


def chain(
    process: DiffusionProcess,
    x0: Float,
    seeds: Sequence[int],
    *,
    t_noise: float,
    t_start: float,
    n_steps: int,
    sampler: str = "ddpm",
    noise: str = "gaussian",
    clip: bool = True,
) -> Steps:
    """Noise `x0` to `t_noise`, run the reverse chain from `t_start` to 0, asking `n_steps` times.

    `x0` and the result are `[B, C, H, W]` in [-1, 1]. `noise` names the noise of both directions (see
    `draw_noise`). `clip` keeps each step's clean estimate in that range. Raises KeyError for an unknown
    sampler or noise.
    """
    streams, shape, step = generators(seeds), x0.shape[1:], SAMPLERS[sampler]
    x = q_sample(x0, draw_noise(streams, shape, noise), np.float32(process.abar(t_noise)))
    grid = np.linspace(t_start, 0.0, n_steps + 1)
    return (
        yield from chain_down(process, x, grid, step, lambda: draw_noise(streams, shape, noise), clip=clip)
    )


def one_step_draws(
    process: DiffusionProcess,
    x0: Float,
    seeds: Sequence[int],
    *,
    timesteps: Sequence[float],
    draws: int = 1,
    pairs: bool = False,
    noise: str = "gaussian",
) -> Steps:
    """One-step clean estimates, one for each noise draw and not clipped: `[B, K, draws, C, H, W]`.

    An image's draws come in the order of `timesteps`, so the first timestep's do not depend on the others.
    With `pairs` every second one is the one before it, negated: antithetic variates (Hammersley & Morton
    1956), whose errors, odd in the noise to first order, cancel in the mean.
    """
    streams, shape = generators(seeds), x0.shape[1:]
    b, k = len(x0), len(timesteps)
    t = np.tile(np.repeat(np.asarray(timesteps, dtype=np.float32), draws), b)  # [B * K * draws]
    abar = column(process.abar(t))
    drawn = k * draws // 2 if pairs else k * draws
    eps = np.concatenate([draw_noise([s] * drawn, shape, noise) for s in streams])
    if pairs:
        eps = np.stack([eps, -eps], axis=1).reshape(-1, *shape)
    x_t = q_sample(np.repeat(x0, k * draws, axis=0), eps, abar)
    predicted = yield Ask(x_t, t)
    return predict_x0(x_t, predicted, abar).reshape(b, k, draws, *shape)


def one_step(
    process: DiffusionProcess,
    x0: Float,
    seeds: Sequence[int],
    *,
    timesteps: Sequence[float],
    draws: int = 1,
    pairs: bool = False,
    noise: str = "gaussian",
) -> Steps:
    """One-step clean estimates at several noise levels, all asked for at once with mixed timesteps.

    Returns `[B, K, C, H, W]` in [-1, 1], the mean over `draws` noise draws for each of the K timesteps.
    Raises KeyError for an unknown noise.
    """
    clean = yield from one_step_draws(
        process, x0, seeds, timesteps=timesteps, draws=draws, pairs=pairs, noise=noise
    )
    return np.asarray(np.clip(clean, -1.0, 1.0).mean(axis=2))


reverse_chain = sequential(chain_down)
reconstruct_chain = sequential(chain)
reconstruct_one_step = sequential(one_step)
