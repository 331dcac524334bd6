"""Slots: whatever shares a network call, whenever it came, each image's answer is its own."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.drive import Cancelled
from models.profiles import (
    ChainProfile,
    DenoisedGradientProfile,
    InputGuidedProfile,
    NormGuidedProfile,
    OneStepProfile,
    Profile,
)
from models.reconstruct import reconstruct, reconstruction
from models.slots import Slot, advance
from models.tiles import tiled
from tests.models.toy import PROCESS, smooth_net

Float = NDArray[np.float32]
PROFILES: list[Profile] = [
    ChainProfile(t_noise=100, t_start=100, n_steps=6),  # substeps
    ChainProfile(t_noise=100, t_start=250, n_steps=7),  # overdenoise
    ChainProfile(t_noise=400, t_start=400, n_steps=5, noise="simplex"),  # respaced
    ChainProfile(t_noise=100, t_start=100, n_steps=3, sampler="ddim"),
    OneStepProfile(timesteps=(25, 100), draws=3),
    NormGuidedProfile(t_small=50, t_large=200, draws=2),
    InputGuidedProfile(t_noise=200, n_steps=4, weight=2.0, eta=0.7),
    DenoisedGradientProfile(t_noise=100, n_steps=4, denoise_every=3),
]
KINDS = get_args(get_args(Profile)[0])


def image(seed: int) -> Float:
    return np.random.default_rng(seed).uniform(-1, 1, (2, 16, 16)).astype(np.float32)


def alone(profile: Profile, seed: int) -> Float:
    """What the sequential sampler gives."""
    return reconstruct(smooth_net, PROCESS, profile, image(seed)[None], [seed])


def begin(profile: Profile, seed: int, label: int | None = None) -> Slot:
    return Slot(reconstruction(PROCESS, profile, image(seed)[None], [seed]), label)


def test_every_kind_of_profile_is_tested_here() -> None:
    assert {type(profile) for profile in PROFILES} == set(KINDS)


@pytest.mark.parametrize("max_rows", [1, 4, 64])
def test_all_kinds_together_give_what_each_gives_alone(max_rows: int) -> None:
    slots = [begin(profile, seed) for seed, profile in enumerate(PROFILES)]
    assert [slot.rows for slot in slots] == [profile.at_once for profile in PROFILES]
    for _ in range(200):
        advance(smooth_net, slots, max_rows)
    for seed, (slot, profile) in enumerate(zip(slots, PROFILES, strict=True)):
        assert slot.error is None
        assert slot.done == profile.network_calls
        np.testing.assert_array_equal(slot.result, alone(profile, seed))


arrivals = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, len(PROFILES) - 1), st.integers(0, 30)), max_size=12
)


@pytest.mark.promise(5)
@settings(max_examples=40, deadline=None)
@given(arrivals=arrivals, leaving=st.sets(st.integers(0, 11)), max_rows=st.integers(1, 20), data=st.data())
def test_comings_and_goings_change_no_answer(
    arrivals: list[tuple[int, int, int]], leaving: set[int], max_rows: int, data: st.DataObject
) -> None:
    """Images enter at any call; some leave unfinished at any call; the others are as if alone."""
    waiting = sorted(enumerate(arrivals), key=lambda item: item[1][0])
    running: dict[int, Slot] = {}
    finished: dict[int, Slot] = {}
    for call in range(300):
        while waiting and waiting[0][1][0] <= call:
            number, (_, kind, seed) = waiting.pop(0)
            running[number] = begin(PROFILES[kind], seed)
        for number in [number for number in running if number in leaving]:
            if data.draw(st.booleans(), label=f"{number} leaves"):
                del running[number]
        advance(smooth_net, list(running.values()), max_rows)
        for number in [number for number, slot in running.items() if slot.ended]:
            finished[number] = running.pop(number)
        if not waiting and not running:
            break
    assert not running, "an image never ended"
    assert set(range(len(arrivals))) - leaving <= set(finished)
    for number, slot in finished.items():
        _, kind, seed = arrivals[number]
        np.testing.assert_array_equal(slot.result, alone(PROFILES[kind], seed))


def test_one_call_moves_every_slot_and_holds_mixed_timesteps() -> None:
    calls: list[list[float]] = []

    def recording(x: Float, t: Float) -> Float:
        calls.append(t.tolist())
        return smooth_net(x, t)

    early = begin(PROFILES[0], 1)
    advance(recording, [early])
    advance(recording, [early, begin(PROFILES[1], 2), begin(PROFILES[4], 3)])
    assert calls[0] == [100.0]
    assert calls[1] == pytest.approx([100 * 5 / 6, 250.0, *[25.0] * 3, *[100.0] * 3], rel=1e-6)


def test_rows_are_bounded_and_short_rows_go_to_the_front() -> None:
    sizes: list[int] = []

    def recording(x: Float, t: Float) -> Float:
        sizes.append(len(x))
        return smooth_net(x, t)

    slots = [begin(OneStepProfile(timesteps=(50,), draws=8), seed) for seed in range(3)]
    ended = []
    while not all(slot.ended for slot in slots):
        advance(recording, slots, 10)
        ended.append([slot.ended for slot in slots])
    assert max(sizes) == 10
    assert sum(sizes) == 24
    assert ended[0] == [True, False, False]  # 8 rows of the first, one each of the others


def test_more_slots_than_rows_all_move_on() -> None:
    slots = [begin(PROFILES[3], seed) for seed in range(5)]
    for _ in range(3):
        advance(smooth_net, slots, 2)
    assert all(slot.ended for slot in slots)


def poisonous(x: Float, t: Float) -> Float:
    """Fails when an image of only ones is among those it is given."""
    if (np.abs(x).max(axis=(1, 2, 3)) > 50).any():
        raise RuntimeError("poisonous")
    return smooth_net(x, t)


@pytest.mark.promise(6)
def test_a_slot_that_cannot_be_evaluated_fails_alone_and_the_others_lose_nothing() -> None:
    bad = Slot(reconstruction(PROCESS, PROFILES[0], np.full((1, 2, 16, 16), 99, np.float32), [0]))
    slots = [begin(PROFILES[0], 1), bad, begin(PROFILES[4], 2)]
    for _ in range(10):
        advance(poisonous, slots)
    assert isinstance(bad.error, RuntimeError)
    assert bad.ended
    assert bad.result is None
    np.testing.assert_array_equal(slots[0].result, alone(PROFILES[0], 1))
    np.testing.assert_array_equal(slots[2].result, alone(PROFILES[4], 2))


def test_an_image_of_another_size_fails_alone() -> None:
    other = Slot(reconstruction(PROCESS, PROFILES[3], np.zeros((1, 1, 8, 8), np.float32), [0]))

    def one_size(x: Float, t: Float) -> Float:
        if x.shape[1:] != (2, 16, 16):
            raise ValueError(f"cannot take {x.shape}")
        return smooth_net(x, t)

    slots = [begin(PROFILES[3], 1), other]
    for _ in range(3):
        advance(one_size, slots)
    assert isinstance(other.error, ValueError)
    np.testing.assert_array_equal(slots[0].result, alone(PROFILES[3], 1))


def test_a_network_that_loses_rows_fails_them() -> None:
    slots = [begin(PROFILES[0], 1), begin(PROFILES[0], 2)]
    advance(lambda x, t: smooth_net(x, t)[1:], slots)
    assert all(isinstance(slot.error, RuntimeError) for slot in slots)


def test_a_profile_that_cannot_run_fails_when_it_begins() -> None:
    slot = begin(DenoisedGradientProfile(t_noise=1, n_steps=2, rate=0.9), 1)
    assert isinstance(slot.error, ValueError)
    advance(smooth_net, [slot])  # nothing to do


def test_cancelling_the_network_is_nobody_s_fault() -> None:
    def stopping(x: Float, t: Float) -> Float:
        raise Cancelled("stopped")

    slot = begin(PROFILES[0], 1)
    with pytest.raises(Cancelled):
        advance(stopping, [slot, begin(PROFILES[0], 2)])
    assert slot.error is None


def labelled_net(x: Float, t: Float, label: NDArray[np.int64]) -> Float:
    return smooth_net(x, t) * (1.0 + label[:, None, None, None]).astype(np.float32)


def test_parts_share_a_call_and_each_row_has_its_own_label() -> None:
    labels = [0, 2, 1, 0]
    kinds = [PROFILES[0], PROFILES[4], PROFILES[1], PROFILES[5]]
    slots = [begin(kind, seed, label) for seed, (kind, label) in enumerate(zip(kinds, labels, strict=True))]
    calls = 0

    def counting(x: Float, t: Float, label: NDArray[np.int64]) -> Float:
        nonlocal calls
        calls += 1
        return labelled_net(x, t, label)

    while not all(slot.ended for slot in slots):
        advance(counting, slots)
    assert calls == 7  # the longest chain's
    for seed, (slot, kind, label) in enumerate(zip(slots, kinds, labels, strict=True)):

        def own(x: Float, t: Float, label: int = label) -> Float:
            return labelled_net(x, t, np.full(len(x), label))

        expected = reconstruct(own, PROCESS, kind, image(seed)[None], [seed])
        np.testing.assert_array_equal(slot.result, expected)


def test_tiles_of_images_with_different_labels_and_steps() -> None:
    net = tiled(labelled_net, 8, 4)
    slots = [begin(PROFILES[0], 0, 1), begin(PROFILES[1], 1, 3)]
    while not all(slot.ended for slot in slots):
        advance(net, slots)
    for seed, label in enumerate((1, 3)):

        def own(x: Float, t: Float, label: int = label) -> Float:
            return net(x, t, np.full(len(x), label))

        expected = reconstruct(own, PROCESS, PROFILES[seed], image(seed)[None], [seed])
        np.testing.assert_allclose(slots[seed].result, expected, atol=1e-6)
