"""The film of a reconstruction: its own frames, bounded, and nobody's result is changed by looking on."""

import numpy as np
import pytest
from numpy.typing import NDArray

from models.drive import drive, watched
from models.film import MOST_FRAMES, Filming, Frame
from models.process import q_sample
from models.profiles import ChainProfile, InputGuidedProfile, NormGuidedProfile, OneStepProfile, Profile
from models.reconstruct import reconstruct, reconstruction
from models.samplers import draw_noise, generators
from tests.models.test_reconstruct import PROFILES
from tests.models.toy import PROCESS, smooth_net

Float = NDArray[np.float32]
SEED = 11


def image(side: int = 8) -> Float:
    return np.random.default_rng(4).uniform(-1, 1, (2, side, side)).astype(np.float32)


def film(profile: Profile, most: int = MOST_FRAMES, side: int = 8) -> tuple[list[Frame], Float]:
    frames: list[Frame] = []
    filming = Filming(PROCESS, profile, image(side), frames.append, most)
    steps = watched(reconstruction(PROCESS, profile, image(side)[None], [SEED]), filming)
    found = drive(smooth_net, steps)
    assert filming.done == filming.total == profile.network_calls
    return frames, found[0]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.kind)
def test_looking_on_changes_nothing(profile: Profile) -> None:
    _, found = film(profile)
    assert np.array_equal(found, reconstruct(smooth_net, PROCESS, profile, image()[None], [SEED])[0])


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_a_chain_is_noised_step_by_step_and_comes_back_to_its_reconstruction(sampler: str) -> None:
    profile = ChainProfile(t_noise=100, t_start=150, n_steps=6, sampler=sampler)  # type: ignore[arg-type]
    frames, found = film(profile)
    noising = [frame for frame in frames if frame.phase == "noising"]
    denoising = [frame for frame in frames if frame.phase == "denoising"]
    assert [frame.t for frame in noising] == pytest.approx(np.linspace(0, 100, len(noising)))
    np.testing.assert_allclose(noising[0].noisy, image())
    eps = draw_noise(generators([SEED]), (2, 8, 8))[0]
    for frame in noising:  # each with the noise that the sampler draws
        np.testing.assert_allclose(
            frame.noisy, q_sample(image(), eps, np.float32(PROCESS.abar(frame.t))), atol=1e-4
        )
    assert [frame.t for frame in denoising] == [150, 125, 100, 75, 50, 25]
    np.testing.assert_allclose(denoising[0].noisy, noising[-1].noisy, atol=1e-6)
    # The last step of a chain is its clean estimate.
    assert denoising[-1].clean is not None
    np.testing.assert_allclose(denoising[-1].clean, found[0], atol=1e-5)


def test_of_a_long_chain_some_frames_are_chosen_evenly_and_the_last_is_among_them() -> None:
    frames, found = film(ChainProfile(t_noise=100, t_start=100, n_steps=250))
    denoising = [frame for frame in frames if frame.phase == "denoising"]
    assert len(denoising) == MOST_FRAMES
    gaps = np.diff([frame.number for frame in denoising])
    assert (denoising[0].number, denoising[-1].number) == (1, 250)
    assert gaps.max() - gaps.min() <= 1
    assert denoising[-1].clean is not None
    np.testing.assert_allclose(denoising[-1].clean, found[0], atol=1e-5)


def test_large_images_have_fewer_frames() -> None:
    frames, _ = film(ChainProfile(t_noise=100, t_start=100, n_steps=24), side=1024)
    assert len([frame for frame in frames if frame.phase == "denoising"]) < MOST_FRAMES / 2


def test_one_step_estimates_are_one_frame_for_each_timestep() -> None:
    frames, found = film(OneStepProfile(timesteps=(25, 100, 200), draws=3))
    assert [(frame.phase, frame.t) for frame in frames] == [("denoising", t) for t in (25, 100, 200)]
    # Each frame's clean image is that level's estimate, the mean over its draws.
    np.testing.assert_allclose(np.stack([frame.clean for frame in frames]), found, atol=1e-6)


def test_guided_profiles_show_what_the_network_is_asked() -> None:
    assert [frame.t for frame in film(NormGuidedProfile(t_small=50, t_large=200, draws=2))[0]] == [50, 200]
    frames, _ = film(InputGuidedProfile(t_noise=200, n_steps=4, weight=2.0))
    assert [frame.t for frame in frames if frame.phase == "denoising"] == [200, 150, 100, 50]
