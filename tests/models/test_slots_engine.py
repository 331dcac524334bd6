"""Slots on real exported bundles: the sequential engine's answers, whatever shares the calls."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.anomaly import verdict
from models.bundle import Bundle
from models.decode import decode
from models.drive import Cancelled
from models.engine import BundleEngine, RawMap, SlotTask, open_engine
from models.preprocess import preprocess
from models.samplers import image_seed

Batch = tuple[NDArray[np.float32], list[int]]
PROFILES = ["paper", "fast"]


@pytest.fixture(scope="module", params=["plain", "detector"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    found: Bundle = request.getfixturevalue(
        "tiny_bundle" if request.param == "plain" else "tiny_detector_bundle"
    )
    return found


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> BundleEngine:
    return open_engine(bundle, threads=1)


@pytest.fixture(scope="module")
def batch(bundle: Bundle, parts_folder: Path) -> Batch:
    files = [path.read_bytes() for path in sorted(parts_folder.iterdir())[:6]]
    images = [preprocess(decode(data), bundle.manifest.preprocess) for data in files]
    return np.stack(images), [image_seed(data) for data in files]


@pytest.fixture(scope="module")
def sequential(engine: BundleEngine, batch: Batch) -> dict[str, list[RawMap]]:
    images, seeds = batch
    return {
        profile: [
            engine.run(images[i : i + 1], seeds[i : i + 1], profile)[0] for i in range(len(images))
        ]
        for profile in PROFILES
    }  # fmt: skip


def finish(engine: BundleEngine, tasks: list[SlotTask]) -> None:
    for _ in range(1000):
        if all(task.outcome is not None for task in tasks):
            return
        engine.advance(tasks)
    raise AssertionError("an image never ended")


def assert_alike(engine: BundleEngine, profile: str, ours: object, theirs: RawMap) -> None:
    """Equal but for the last bits, which a network call for another number of images may change."""
    assert isinstance(ours, RawMap)
    np.testing.assert_allclose(ours.map, theirs.map, rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(ours.reconstruction, theirs.reconstruction, atol=1e-4)
    assert ours.score == pytest.approx(theirs.score, rel=1e-3)
    calibration = engine.manifest.calibration[profile]
    limits = calibration.suggested
    decided = [
        verdict(calibration.score.calibrate(raw.score), limits.review, limits.reject)
        for raw in (ours, theirs)
    ]
    assert decided[0] is decided[1]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_lone_image_is_answered_to_the_bit_as_by_the_sequential_engine(
    engine: BundleEngine, batch: Batch, sequential: dict[str, list[RawMap]], profile: str
) -> None:
    images, seeds = batch
    task = engine.begin(images[0], seeds[0], profile)
    finish(engine, [task])
    assert isinstance(task.outcome, RawMap)
    np.testing.assert_array_equal(task.outcome.map, sequential[profile][0].map)
    assert task.outcome.score == sequential[profile][0].score


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_company_changes_no_answer(
    engine: BundleEngine, batch: Batch, sequential: dict[str, list[RawMap]], data: st.DataObject
) -> None:
    """Images of both profiles enter and leave at random calls."""
    images, seeds = batch
    entry = st.tuples(st.integers(0, 4), st.integers(0, 5), st.sampled_from(PROFILES))
    entering = data.draw(st.lists(entry, min_size=1, max_size=9))
    entering.sort()
    running: list[tuple[int, str, SlotTask]] = []
    for call in range(1000):
        while entering and entering[0][0] <= call:
            _, i, profile = entering.pop(0)
            running.append((i, profile, engine.begin(images[i], seeds[i], profile)))
        if len(running) > 1 and data.draw(st.integers(0, 9), label="one leaves") == 0:
            running.pop(data.draw(st.integers(0, len(running) - 1)))
        engine.advance([task for _, _, task in running])
        for i, profile, task in running:
            if task.outcome is not None:
                assert_alike(engine, profile, task.outcome, sequential[profile][i])
        running = [one for one in running if one[2].outcome is None]
        if not entering and not running:
            return
    raise AssertionError("an image never ended")


def test_an_ignored_region_is_ignored_in_slots_as_in_batches(engine: BundleEngine, batch: Batch) -> None:
    images, seeds = batch
    ignore = np.zeros((8, 8), dtype=np.bool_)
    ignore[:, :4] = True
    masks = [ignore, None]
    tasks = [engine.begin(images[i], seeds[i], "fast", masks[i]) for i in range(2)]
    finish(engine, tasks)
    for task, expected in zip(tasks, engine.run(images[:2], seeds[:2], "fast", ignore=masks), strict=True):
        assert_alike(engine, "fast", task.outcome, expected)
    assert isinstance(tasks[0].outcome, RawMap)
    width = tasks[0].outcome.map.shape[1]
    assert (tasks[0].outcome.map[:, : width // 2] == 0).all()
    assert (tasks[0].outcome.map[:, width // 2 :] > 0).any()


def test_what_fails_in_scoring_fails_alone(
    engine: BundleEngine, batch: Batch, sequential: dict[str, list[RawMap]]
) -> None:
    images, seeds = batch
    everything = np.ones((8, 8), dtype=np.bool_)
    tasks = [engine.begin(images[i], seeds[i], "fast", everything if i == 1 else None) for i in range(3)]
    finish(engine, tasks)
    assert isinstance(tasks[1].outcome, ValueError)
    for i in (0, 2):
        assert_alike(engine, "fast", tasks[i].outcome, sequential["fast"][i])


def test_an_image_of_the_wrong_size_fails_alone(
    engine: BundleEngine, batch: Batch, sequential: dict[str, list[RawMap]]
) -> None:
    images, seeds = batch
    tasks = [engine.begin(images[i], seeds[i], "paper") for i in range(2)]
    tasks.append(engine.begin(images[2][:, :7, :], seeds[2], "paper") if engine.manifest.network.reduce == 1
                 else engine.begin(images[2][:1, :30, :30], seeds[2], "paper"))  # fmt: skip
    finish(engine, tasks)
    assert isinstance(tasks[2].outcome, Exception)
    for i in (0, 1):
        assert_alike(engine, "paper", tasks[i].outcome, sequential["paper"][i])


def test_unknown_profile_and_a_stop(engine: BundleEngine, batch: Batch) -> None:
    images, seeds = batch
    with pytest.raises(KeyError, match="nope"):
        engine.begin(images[0], seeds[0], "nope")
    task = engine.begin(images[0], seeds[0], "paper")
    with pytest.raises(Cancelled):
        engine.advance([task], lambda: True)
    assert task.outcome is None


@pytest.mark.parametrize("profile", PROFILES)
def test_what_an_image_still_wants_is_foreseen_exactly(
    engine: BundleEngine, batch: Batch, profile: str
) -> None:
    images, seeds = batch
    tasks = [engine.begin(images[i], seeds[i], profile) for i in range(2)]
    assert tasks[0].wanted == engine.foresee(profile)
    for _ in range(1000):
        if all(task.outcome is not None for task in tasks):
            break
        before = [task.wanted for task in tasks]
        engine.advance(tasks)
        for (at_once, left), task in zip(before, tasks, strict=True):
            assert task.wanted.left == left - at_once  # both have all that they ask for
            assert (task.wanted.left == 0) == (task.outcome is not None)
    assert engine.foresee(profile).left == engine.manifest.profiles[profile].network_calls
