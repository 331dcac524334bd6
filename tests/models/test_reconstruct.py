"""What every kind of profile promises: costs, shapes, independence of batch mates, cancellation."""

import inspect
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from models.noise import NOISES
from models.profiles import (
    ChainProfile,
    DenoisedGradientProfile,
    InputGuidedProfile,
    NormGuidedProfile,
    OneStepProfile,
    Profile,
)
from models.reconstruct import RECONSTRUCTIONS, reconstruct
from models.samplers import Cancelled
from tests.models.toy import PROCESS, smooth_net

Float = NDArray[np.float32]
KINDS = get_args(get_args(Profile)[0])
PROFILES: list[Profile] = [
    ChainProfile(t_noise=100, t_start=150, n_steps=7),
    ChainProfile(t_noise=100, t_start=100, n_steps=5, sampler="ddim"),
    OneStepProfile(timesteps=(25, 100), draws=2),
    NormGuidedProfile(t_small=50, t_large=200, draws=2),
    InputGuidedProfile(t_noise=200, n_steps=6, weight=2.0),
    InputGuidedProfile(t_noise=200, n_steps=6, weight=2.0, eta=0.7),
    DenoisedGradientProfile(t_noise=100, n_steps=7),
    ChainProfile(t_noise=100, t_start=100, n_steps=3, noise="simplex"),
    OneStepProfile(timesteps=(50,), noise="simplex"),
]
each_profile = pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.kind)
SEEDS = [11, 22, 33]


def images() -> Float:
    return np.random.default_rng(4).uniform(-1, 1, (3, 2, 8, 8)).astype(np.float32)


def test_every_kind_is_tested_here_and_has_a_function() -> None:
    assert {type(profile) for profile in PROFILES} == set(KINDS)
    assert {kind.model_fields["kind"].default for kind in KINDS} == set(RECONSTRUCTIONS)


def test_a_profile_can_name_every_noise() -> None:
    for kind in (ChainProfile, OneStepProfile):
        assert set(get_args(kind.model_fields["noise"].annotation)) == set(NOISES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_profile_s_fields_are_its_function_s_arguments(kind: type) -> None:
    fields = set(kind.model_fields) - {"kind", "map", "part"}
    parameters = inspect.signature(RECONSTRUCTIONS[kind.model_fields["kind"].default]).parameters
    assert fields <= set(parameters)
    for name, field in kind.model_fields.items():
        default = parameters[name].default if name in parameters else inspect.Parameter.empty
        if default is not inspect.Parameter.empty:
            assert field.default == default, f"{name} has two defaults"


@each_profile
def test_a_profile_survives_its_manifest(profile: Profile) -> None:
    adapter = TypeAdapter(Profile)
    again = adapter.validate_json(adapter.dump_json(profile))
    assert again == profile
    assert type(again) is type(profile)


@each_profile
def test_estimates_have_the_promised_shape_range_and_cost(profile: Profile) -> None:
    seen: list[float] = []

    def recording(x: Float, t: Float) -> Float:
        seen.extend(t.tolist())
        return smooth_net(x, t)

    estimates = reconstruct(recording, PROCESS, profile, images(), SEEDS)
    assert estimates.shape == (3, profile.levels, 2, 8, 8)
    assert estimates.dtype == np.float32
    assert np.abs(estimates).max() <= 1.0
    assert len(seen) == 3 * profile.network_calls
    assert max(seen) == pytest.approx(profile.largest_timestep)


@each_profile
def test_rows_depend_on_their_own_image_and_seed_alone(profile: Profile) -> None:
    x0 = images()
    together = reconstruct(smooth_net, PROCESS, profile, x0, SEEDS)
    for i in (2, 0, 1):
        alone = reconstruct(smooth_net, PROCESS, profile, x0[i : i + 1], SEEDS[i : i + 1])
        np.testing.assert_array_equal(alone[0], together[i])
    other = reconstruct(smooth_net, PROCESS, profile, x0, [12, 22, 33])
    assert np.abs(other[0] - together[0]).max() > 1e-3
    np.testing.assert_array_equal(other[1:], together[1:])


@each_profile
def test_the_input_is_left_as_it_was(profile: Profile) -> None:
    x0 = images()
    reconstruct(smooth_net, PROCESS, profile, x0, SEEDS)
    np.testing.assert_array_equal(x0, images())


@each_profile
@pytest.mark.parametrize("allowed", [0, 1, 5])
def test_a_reconstruction_stops_between_two_network_calls(profile: Profile, allowed: int) -> None:
    calls = 0

    def counting(x: Float, t: Float) -> Float:
        nonlocal calls
        calls += 1
        return smooth_net(x, t)

    def stop() -> bool:
        return calls >= allowed

    if profile.kind in ("one_step", "norm_guided") and allowed:  # all in one call
        reconstruct(counting, PROCESS, profile, images(), SEEDS, stop)
        assert calls == 1
    elif profile.network_calls <= allowed:
        reconstruct(counting, PROCESS, profile, images(), SEEDS, stop)
    else:
        with pytest.raises(Cancelled):
            reconstruct(counting, PROCESS, profile, images(), SEEDS, stop)
        assert calls == allowed


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "no_such"},
        {"kind": "one_step", "timesteps": []},
        {"kind": "one_step", "timesteps": [0, 50]},
        {"kind": "chain", "t_noise": 0, "t_start": 10, "n_steps": 5},
        {"kind": "chain", "t_noise": 10, "t_start": 10, "n_steps": 5, "noise": "pink"},
        {"kind": "norm_guided", "t_small": 200, "t_large": 200},
        {"kind": "norm_guided", "t_small": 20, "t_large": 200, "weight": -1},
        {"kind": "input_guided", "t_noise": 20, "n_steps": 2},
        {"kind": "input_guided", "t_noise": 20, "n_steps": 2, "weight": 1, "eta": 1.5},
        {"kind": "denoised_gradient", "t_noise": 20, "n_steps": 2, "rate": 1},
        {"kind": "denoised_gradient", "t_noise": 20, "n_steps": 2, "denoise_every": 0},
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Profile).validate_python(wrong)
