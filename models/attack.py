"""A white-box attack on the reverse chain: small moves of `x_t`, chosen by gradient, on a share of its steps.

Source: "What is adversarial training for diffusion models?", algorithm 2 and appendix A.1. What moves the
answer of a healthy chain far shows how smooth the network is; random moves of the same size are the control.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from models.bundle import Bundle
from models.process import DiffusionProcess, noise_estimate, posterior, predict_x0, q_sample
from models.profiles import ChainProfile
from models.regularizers import Predictor
from models.samplers import SAMPLERS, Denoiser, draw_noise, generators, reverse_chain
from models.unet import UNet, UNetConfig

Float = NDArray[np.float32]
Perturbation = Callable[[Float, float, float], Float]
"""A step's `x_t [B, C, H, W]`, its timestep and the next one -> what to add to `x_t`."""
PerturbationMaker = Callable[[Predictor, DiffusionProcess, Sequence[int], float], Perturbation]
"""(predict_eps, process, seeds, strength) -> a perturbation; row i depends on image i and seed i alone."""


def eps_predictor(
    bundle: Bundle, device: Literal["cpu", "gpu"] = "cpu", label: int | None = None
) -> Predictor:
    """A bundle's network as a differentiable noise prediction, weights frozen, arguments from anywhere.

    `label` is that of the part (`Manifest.label`), where the bundle knows several.
    """
    where = torch.device("cuda" if device == "gpu" else "cpu")
    net = UNet(UNetConfig.from_dict(bundle.manifest.network.shape()))
    net.load_state_dict(load_file(bundle.file("model.safetensors")))
    net.to(where).eval().requires_grad_(False)
    process, config = bundle.manifest.diffusion, net.config

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        labels = () if label is None else (torch.full((len(x_t),), label, device=where),)
        output: Tensor = net(x_t.to(where), t.to(where), *labels)
        abar = torch.from_numpy(process.abar(t.cpu().numpy())).to(output)[:, None, None, None]
        return noise_estimate(output, abar, config.clean_scale)

    return predict


def as_denoiser(predict: Predictor) -> Denoiser:
    """A prediction on tensors as one on arrays, for the samplers."""

    @torch.inference_mode()
    def denoiser(x: Float, t: Float) -> Float:
        eps = predict(torch.from_numpy(x), torch.from_numpy(t))
        return np.ascontiguousarray(eps.float().cpu().numpy())

    return denoiser


def step_sigma(process: DiffusionProcess, t: float, s: float) -> float:
    """Standard deviation of the noise that the forward process adds from `s` to `t`.

    The source writes sigma(t) for a variance in its eq. 1 and for a standard deviation in its eq. 5; its
    appendix asks for moves as large as the noise of that step of the chain, so it is the deviation here.
    """
    abar_t, abar_s = process.abar([t, s])
    return float(np.sqrt(1.0 - abar_t / abar_s))


def adversarial(
    predict: Predictor, process: DiffusionProcess, seeds: Sequence[int], strength: float = 1.0
) -> Perturbation:
    """`sigma(t)` along the sign of the gradient of the change of the step's posterior mean.

    The gradient is taken at a random start nearby, of deviation `strength * sigma(t)` (algorithm 2, line 6),
    as at `x_t` itself the change is zero. `strength` also scales the move; 1 is the source's size.
    """
    streams = _streams(seeds)

    def perturb(x: Float, t: float, s: float) -> Float:
        abar_t, abar_s = (float(value) for value in process.abar([t, s]))
        size, rows = strength * step_sigma(process, t, s), torch.full((len(x),), t)

        def mean(x_t: Tensor) -> Tensor:
            eps = predict(x_t, rows).float().to(x_t.device)
            return posterior(x_t, predict_x0(x_t, eps, abar_t), abar_t, abar_s)[0]

        with torch.enable_grad():
            start = x + np.float32(size) * draw_noise(streams, x.shape[1:])
            moved = torch.from_numpy(start).requires_grad_()
            change = mean(moved) - mean(torch.from_numpy(x)).detach()
            (gradient,) = torch.autograd.grad(change.square().sum(), moved)
        return np.asarray(np.float32(size) * np.sign(gradient.numpy()))

    return perturb


def random_signs(
    predict: Predictor, process: DiffusionProcess, seeds: Sequence[int], strength: float = 1.0
) -> Perturbation:
    """The control: the attack's move with random signs, of exactly its size in every norm."""
    streams = _streams(seeds)

    def perturb(x: Float, t: float, s: float) -> Float:
        signs = np.stack([stream.integers(0, 2, x.shape[1:]) for stream in streams]) * 2 - 1
        return np.asarray(signs * strength * step_sigma(process, t, s), dtype=np.float32)

    return perturb


PERTURBATIONS: dict[str, PerturbationMaker] = {"random": random_signs, "adversarial": adversarial}


def attacked_steps(n_steps: int, share: float) -> list[bool]:
    """Which of the chain's steps are attacked: `share` of them, spread evenly (fig. 7 of the source)."""
    if not 0 <= share <= 1:
        raise ValueError(f"the share of attacked steps must lie in 0..1, got {share}")
    count = round(share * n_steps)
    return [(k + 1) * count // n_steps > k * count // n_steps for k in range(n_steps)]


def attacked_chain(
    net: Denoiser,
    process: DiffusionProcess,
    profile: ChainProfile,
    images: Float,
    seeds: Sequence[int],
    share: float,
    perturb: Perturbation,
) -> Float:
    """Reconstruct `images [B, C, H, W]` by a chain profile, `x_t` perturbed before a share of the steps.

    With a share of 0 this is `models.samplers.reconstruct_chain`, to the bit: the perturbation has random
    streams of its own.
    """
    streams, shape = generators(seeds), images.shape[1:]
    grid = np.linspace(profile.t_start, 0.0, profile.n_steps + 1)

    def noise() -> Float:
        return draw_noise(streams, shape, profile.noise)

    x = q_sample(images, noise(), np.float32(process.abar(profile.t_noise)))
    for k, attacked in enumerate(attacked_steps(profile.n_steps, share)):
        if attacked:
            x = x + perturb(x, float(grid[k]), float(grid[k + 1]))
        x = reverse_chain(net, process, x, grid[k : k + 2], SAMPLERS[profile.sampler], noise)
    return x


def _streams(seeds: Sequence[int]) -> list[np.random.Generator]:
    """Streams of the perturbation, apart from those of the chain's noise with the same seeds."""
    return [np.random.default_rng((seed, 1)) for seed in seeds]
