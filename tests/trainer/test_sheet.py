"""Picture sheets: which images are chosen, and that any image can be drawn."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from trainer.sheet import (
    ALARMS,
    GROUPS,
    HIGHEST,
    MISSED,
    TYPICAL,
    Case,
    SheetScale,
    choose_cases,
    write_sheet,
)

SCALE = SheetScale(map_max=4.0, review=1.5, reject=2.0)


def case(
    group: str = HIGHEST, name: str = "test/crack/1.png", size: tuple[int, int] = (40, 64), channels: int = 1
) -> Case:
    rng = np.random.default_rng(0)
    mask = np.zeros(size, dtype=bool)
    mask[: size[0] // 2, : size[1] // 4] = True  # touches the edge
    picture = rng.integers(0, 255, (*size, channels), dtype=np.uint8)
    return Case(group, name, 1.8, 2.5, "REVIEW", picture, picture, (1 + mask).astype(np.float32), mask)


def test_best_and_worst_cases_are_chosen_once_each() -> None:
    scores = np.array([9.0, 8.0, 1.0, 0.5, 3.0, 0.6, 0.4, 0.3, 0.2, 0.1])
    defective = np.array([True, True, True, True, False, False, False, False, False, False])
    chosen = choose_cases(scores, defective, per_group=2)
    assert chosen == {HIGHEST: [0, 1], MISSED: [3, 2], ALARMS: [4, 5], TYPICAL: [6, 7]}


@pytest.mark.parametrize(("bad", "good"), [(0, 0), (1, 0), (0, 1), (1, 1), (3, 2), (40, 50)])
def test_small_sets_are_shared_out(bad: int, good: int) -> None:
    scores = np.random.default_rng(0).random(bad + good)
    chosen = choose_cases(scores, np.arange(bad + good) < bad)
    flat = [index for group in GROUPS for index in chosen[group]]
    assert len(flat) == len(set(flat))
    assert len(flat) == min(bad, 8) + min(good, 8)
    assert all(index < bad for index in chosen[HIGHEST] + chosen[MISSED])


def test_one_colour_scale_for_every_map(tmp_path: Path) -> None:
    """The same map value has the same colour whatever else is in its image."""
    cold, hot = case(size=(64, 64)), case(size=(64, 64))
    cold.map[:], hot.map[:] = 1.0, 1.0
    hot.map[-8:] = 4.0
    write_sheet(tmp_path / "sheet.png", [cold, hot], title="model", subtitle="data", scale=SCALE)
    image = cv2.imread(str(tmp_path / "sheet.png"))
    assert image is not None
    colours, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
    inferno = colours[(colours[:, 2] > 1.2 * colours[:, 1]) & (counts > 10_000)]
    assert len(inferno) == 1  # both maps' value 1.0, one colour


@pytest.mark.parametrize("size", [(8, 200), (200, 8), (33, 33)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_shape_and_any_name_is_drawn(tmp_path: Path, size: tuple[int, int], channels: int) -> None:
    cases = [case(group, r"test/$\frac{1}{$/[red]_x.png", size, channels) for group in GROUPS]
    path = tmp_path / "new" / "sheet.png"
    write_sheet(path, cases, title="tiles $1 · profile fast", subtitle="data", scale=SCALE)
    assert cv2.imread(str(path)) is not None


def test_groups_without_images_are_left_out(tmp_path: Path) -> None:
    heights = []
    for cases in ([], [case()], [case(), case(TYPICAL)]):
        write_sheet(tmp_path / "sheet.png", cases, title="", subtitle="", scale=SCALE)
        image = cv2.imread(str(tmp_path / "sheet.png"))
        assert image is not None
        heights.append(image.shape[0])
    assert heights == sorted(set(heights))
