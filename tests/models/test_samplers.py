"""Samplers against diffusers step by step, and against a toy problem solved in closed form."""

import hashlib
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from numpy.typing import NDArray

from models.process import predict_x0
from models.profiles import OneStepProfile
from models.samplers import (
    Cancelled,
    column,
    ddim_step,
    ddim_with_noise,
    ddpm_step,
    digest_seed,
    draw_noise,
    generators,
    image_seed,
    reconstruct_chain,
    reconstruct_one_step,
)
from tests.models.toy import MU, PROCESS, SIGMA, optimal_net, posterior_weight, smooth_net

Float = NDArray[np.float32]
LINEAR = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


@pytest.mark.parametrize("stride", [1, 4])
def test_ddpm_steps_equal_diffusers(stride: int) -> None:
    theirs = DDPMScheduler(**LINEAR, clip_sample=True)
    theirs.set_timesteps(1000 // stride)
    x = np.random.default_rng(0).standard_normal((2, 1, 4, 4), dtype=np.float32)
    for index in [int(i) for i in theirs.timesteps if i <= 400]:
        t = np.full(2, index + 1.0)
        s = np.maximum(t - stride, 0.0) if index else np.zeros(2)
        eps = smooth_net(x, t.astype(np.float32))
        expected = theirs.step(
            torch.from_numpy(eps), index, torch.from_numpy(x), generator=torch.Generator().manual_seed(index)
        ).prev_sample.numpy()
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(index)).numpy()
        clean = np.clip(predict_x0(x, eps, column(PROCESS.abar(t))), -1, 1)
        x = ddpm_step(x, clean, PROCESS.abar(t), PROCESS.abar(s), lambda noise=noise: noise)
        np.testing.assert_allclose(x, expected, rtol=1e-3, atol=2e-4)


def test_ddim_chain_equals_diffusers() -> None:
    """A whole unit-step chain from t = 100, with clipping, ends on the same image."""
    theirs = DDIMScheduler(**LINEAR, clip_sample=True, set_alpha_to_one=True)
    theirs.set_timesteps(1000)
    x0 = np.random.default_rng(1).uniform(-0.9, 0.9, (2, 1, 4, 4)).astype(np.float32)
    ours = reconstruct_chain(
        smooth_net, PROCESS, x0, [7, 8], t_noise=100, t_start=100, n_steps=100, sampler="ddim"
    )
    noise = torch.from_numpy(draw_noise(generators([7, 8]), (1, 4, 4)))
    x = theirs.add_noise(torch.from_numpy(x0), noise, torch.tensor([99, 99]))
    for index in range(99, -1, -1):
        eps = torch.from_numpy(smooth_net(x.numpy(), np.full(2, index + 1, dtype=np.float32)))
        # diffusers recomputes eps from the clipped x0 only when asked to
        x = theirs.step(eps, index, x, use_clipped_model_output=True).prev_sample
    np.testing.assert_allclose(ours, x.numpy(), atol=2e-3)


@pytest.mark.parametrize(
    ("t_noise", "n_steps", "sampler"),
    [(1000, 1000, "ddpm"), (100, 250, "ddpm"), (400, 400, "ddpm"), (1000, 250, "ddim"), (100, 50, "ddim")],
)
def test_gaussian_toy_problem_is_sampled_to_its_mean_and_variance(
    t_noise: int, n_steps: int, sampler: str
) -> None:
    """Partial noising of true samples, reversed with the optimal denoiser, must give true samples again."""
    x0 = np.random.default_rng(3).normal(MU, SIGMA, (4, 1, 64, 64)).astype(np.float32)
    out = reconstruct_chain(
        optimal_net,
        PROCESS,
        x0,
        range(4),
        t_noise=t_noise,
        t_start=t_noise,
        n_steps=n_steps,
        sampler=sampler,
        clip=False,
    )
    assert out.mean() == pytest.approx(MU, abs=0.01)
    assert out.std() == pytest.approx(SIGMA, rel=0.05)
    if t_noise == 1000:  # everything was noise: nothing of the input may be left
        assert abs(np.corrcoef(x0.ravel(), out.ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_noisy_ddim_steps_equal_diffusers(eta: float) -> None:
    theirs = DDIMScheduler(**LINEAR, clip_sample=True, set_alpha_to_one=True)
    theirs.set_timesteps(250)
    x = np.random.default_rng(0).standard_normal((2, 1, 4, 4), dtype=np.float32)
    for index in [int(i) for i in theirs.timesteps if i <= 400]:
        t = np.full(2, index + 1.0)
        s = np.maximum(t - 4, 0.0) if index else np.zeros(2)
        eps = smooth_net(x, t.astype(np.float32))
        noise = np.random.default_rng(index).standard_normal(x.shape, dtype=np.float32)
        expected = theirs.step(
            torch.from_numpy(eps),
            index,
            torch.from_numpy(x),
            eta=eta,
            use_clipped_model_output=True,
            variance_noise=torch.from_numpy(noise),
        ).prev_sample.numpy()
        clean = np.clip(predict_x0(x, eps, column(PROCESS.abar(t))), -1, 1)
        x = ddim_with_noise(eta)(x, clean, PROCESS.abar(t), PROCESS.abar(s), lambda noise=noise: noise)
        np.testing.assert_allclose(x, expected, rtol=1e-3, atol=5e-4)


def test_ddim_with_all_its_noise_is_ancestral_sampling() -> None:
    rng = np.random.default_rng(0)
    x, clean, noise = rng.standard_normal((3, 2, 1, 4, 4), dtype=np.float32)
    levels = PROCESS.abar([200.0, 30.0]), PROCESS.abar([150.0, 10.0])
    np.testing.assert_allclose(
        ddim_with_noise(1.0)(x, clean, *levels, lambda: noise),
        ddpm_step(x, clean, *levels, lambda: noise),
        atol=1e-5,
    )


def exact_moments(t_noise: float, t_start: float, n_steps: int) -> tuple[float, float]:
    """Mean and deviation that ancestral sampling must give: every step is linear."""
    noised = float(PROCESS.abar(t_noise))
    mean, variance = np.sqrt(noised) * MU, noised * SIGMA**2 + 1 - noised
    levels = PROCESS.abar(np.linspace(t_start, 0, n_steps + 1))
    for a_t, a_s in pairwise(levels):
        gain = (
            np.sqrt(a_t) * SIGMA**2 / (a_t * SIGMA**2 + 1 - a_t)
        )  # of E[x0 | x_t] = MU + gain (x_t - sqrt(a_t) MU)
        alpha = a_t / a_s
        on_x0 = np.sqrt(a_s) * (1 - alpha) / (1 - a_t)
        on_xt = np.sqrt(alpha) * (1 - a_s) / (1 - a_t)
        mean = on_x0 * (MU + gain * (mean - np.sqrt(a_t) * MU)) + on_xt * mean
        variance = (on_x0 * gain + on_xt) ** 2 * variance + (1 - alpha) * (1 - a_s) / (1 - a_t)
    return float(mean), float(np.sqrt(variance))


@pytest.mark.parametrize(
    ("t_noise", "t_start", "n_steps"), [(100, 100, 250), (100, 250, 250), (400, 400, 100)]
)
def test_the_three_readings_give_the_moments_worked_out_by_hand(
    t_noise: int, t_start: int, n_steps: int
) -> None:
    x0 = np.random.default_rng(3).normal(MU, SIGMA, (4, 1, 64, 64)).astype(np.float32)
    out = reconstruct_chain(
        optimal_net, PROCESS, x0, range(4), t_noise=t_noise, t_start=t_start, n_steps=n_steps, clip=False
    )
    mean, deviation = exact_moments(t_noise, t_start, n_steps)
    assert out.mean() == pytest.approx(mean, abs=0.006)
    assert out.std() == pytest.approx(deviation, rel=0.02)


def test_one_step_estimate_is_the_posterior_mean() -> None:
    x0 = np.full((1, 1, 64, 64), 0.8, dtype=np.float32)
    estimates = reconstruct_one_step(optimal_net, PROCESS, x0, [5], timesteps=(50, 200), draws=8)
    for level, t in enumerate((50, 200)):
        weight = posterior_weight(float(PROCESS.abar(t)))
        assert estimates[0, level].mean() == pytest.approx(MU + weight * (0.8 - MU), abs=0.01)


def test_the_errors_of_paired_draws_cancel() -> None:
    x0 = np.full((1, 1, 16, 16), 0.3, dtype=np.float32)
    weight = posterior_weight(float(PROCESS.abar(100)))
    exact = MU + weight * (0.3 - MU)  # the toy's network is linear, so nothing is left
    run = partial(reconstruct_one_step, optimal_net, PROCESS, x0, [5], timesteps=(25, 100), draws=4)
    alone, paired = (np.abs(run(pairs=on)[0, 1] - exact) for on in (False, True))
    assert paired.max() < 1e-4 < 1e-2 < alone.max()


@pytest.mark.parametrize("draws", [1, 3])
def test_pairs_need_two(draws: int) -> None:
    with pytest.raises(ValueError, match="even number of draws"):
        OneStepProfile(timesteps=(50,), draws=draws, pairs=True)


def test_a_profile_without_pairs_is_written_as_before_there_were_any() -> None:
    assert "pairs" not in OneStepProfile(timesteps=(50,)).model_dump()


@pytest.mark.parametrize("max_rows", [1, 5, 64])
def test_rows_depend_on_their_own_image_and_seed_alone(max_rows: int) -> None:
    x0 = np.random.default_rng(4).uniform(-1, 1, (3, 1, 8, 8)).astype(np.float32)
    seeds = [11, 22, 33]
    one_step = {"timesteps": (25, 100), "draws": 2, "max_rows": max_rows}
    chain = {"t_noise": 100, "t_start": 100, "n_steps": 7}
    together = reconstruct_one_step(smooth_net, PROCESS, x0, seeds, **one_step)
    chained = reconstruct_chain(smooth_net, PROCESS, x0, seeds, **chain)
    for i in (2, 0, 1):
        row, seed = x0[i : i + 1], seeds[i : i + 1]
        np.testing.assert_array_equal(
            reconstruct_one_step(smooth_net, PROCESS, row, seed, **one_step)[0], together[i]
        )
        np.testing.assert_array_equal(
            reconstruct_chain(smooth_net, PROCESS, row, seed, **chain)[0], chained[i]
        )


def test_seed_decides_the_result() -> None:
    x0 = np.zeros((1, 1, 8, 8), dtype=np.float32)
    runs = [
        reconstruct_chain(smooth_net, PROCESS, x0, [seed], t_noise=50, t_start=50, n_steps=3)
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 1e-3


def test_network_calls_are_what_the_profile_says() -> None:
    seen: list[tuple[int, float]] = []

    def counting(x: Float, t: Float) -> Float:
        seen.append((len(x), float(t[0])))
        return np.zeros_like(x)

    x0 = np.zeros((2, 1, 8, 8), dtype=np.float32)
    reconstruct_chain(counting, PROCESS, x0, [1, 2], t_noise=100, t_start=250, n_steps=250)
    assert [t for _, t in seen] == [float(t) for t in range(250, 0, -1)]
    seen.clear()
    reconstruct_one_step(counting, PROCESS, x0, [1, 2], timesteps=(25, 50, 100, 200), draws=2)
    assert seen == [(16, 25.0)]


def test_a_chain_stops_between_two_steps() -> None:
    calls = 0

    def counting(x: Float, t: Float) -> Float:
        nonlocal calls
        calls += 1
        return np.zeros_like(x)

    x0 = np.zeros((1, 1, 8, 8), dtype=np.float32)
    with pytest.raises(Cancelled):
        reconstruct_chain(
            counting, PROCESS, x0, [1], t_noise=9, t_start=9, n_steps=9, should_stop=lambda: calls >= 3
        )
    assert calls == 3


def test_gaussian_noise_is_the_generator_s_own() -> None:
    """Verdicts that were given must stay reproducible: same seed, same numbers, to the bit."""
    drawn = draw_noise(generators([7, 8]), (1, 4, 4), "gaussian")
    for row, seed in zip(drawn, (7, 8), strict=True):
        own = np.random.Generator(np.random.Philox(seed))
        np.testing.assert_array_equal(row, own.standard_normal((1, 4, 4), dtype=np.float32))


def test_a_chain_and_one_step_estimates_run_on_the_noise_they_are_told() -> None:
    """A network that always answers 0 leaves the noise in: it must be the named one, and nothing else."""

    def blind(x: Float, t: Float) -> Float:
        return np.zeros_like(x)

    x0, abar = np.zeros((1, 1, 32, 32), dtype=np.float32), PROCESS.abar(100)
    drawn = draw_noise(generators([5]), (1, 32, 32), "simplex")
    assert np.abs(drawn - draw_noise(generators([5]), (1, 32, 32))).max() > 0.5
    assert drawn.std() == pytest.approx(1.0, abs=1e-4)
    expected = drawn * np.sqrt((1 - abar) / abar)
    estimate = reconstruct_one_step(blind, PROCESS, x0, [5], timesteps=(100,), noise="simplex")
    np.testing.assert_allclose(estimate[:, 0], np.clip(expected, -1, 1), atol=1e-5)
    chain = {"t_noise": 100, "t_start": 100, "noise": "simplex", "clip": False}
    ddim = reconstruct_chain(blind, PROCESS, x0, [5], n_steps=3, sampler="ddim", **chain)
    np.testing.assert_allclose(ddim, expected, atol=1e-4)
    ddpm = reconstruct_chain(blind, PROCESS, x0, [5], n_steps=3, **chain)  # a sum of this and two more draws
    streams = generators([5])
    noises = [draw_noise(streams, (1, 32, 32), "simplex").ravel() for _ in range(3)]
    shares, remainder, *_ = np.linalg.lstsq(np.stack(noises, axis=1), ddpm.ravel())
    assert shares.min() > 0.05
    assert remainder < 1e-6
    with pytest.raises(KeyError):
        reconstruct_chain(blind, PROCESS, x0, [5], t_noise=9, t_start=9, n_steps=1, noise="pink")


def test_ddim_draws_no_noise_and_seed_comes_from_content() -> None:
    def forbidden() -> Float:
        raise AssertionError("deterministic sampling must not draw noise")

    x = np.zeros((1, 1, 2, 2), dtype=np.float32)
    ddim_step(x, x, PROCESS.abar([10.0]), PROCESS.abar([5.0]), forbidden)
    ddim_with_noise(0.0)(x, x, PROCESS.abar([10.0]), PROCESS.abar([5.0]), forbidden)
    assert image_seed(b"a") == image_seed(b"a") != image_seed(b"b")
    assert image_seed(b"a") == digest_seed(hashlib.sha256(b"a").hexdigest())
