"""The made-up parts: deterministic, truly contaminated, and with masks that say exactly what was changed."""

import csv
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from trainer.demo_data import DEFECTS, TRUTH_LEVELS, demo_data, draw_part, write_demo_data


def contents(folder: Path) -> dict[str, bytes]:
    files: Iterable[Path] = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_demo_data(tmp_path / name, images=6, contamination=0.5, size=48, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    other = contents(tmp_path / "c")
    differing = [name for name, data in contents(tmp_path / "a").items() if data != other.get(name)]
    assert sum(name.startswith("train/") for name in differing) == 6


def test_layout_and_contamination(tmp_path: Path) -> None:
    counts = write_demo_data(tmp_path, images=48, contamination=0.25, size=32, seed=0)
    truth = list(csv.DictReader((tmp_path / "train_truth.csv").read_text().splitlines()))
    assert len(truth) == len(list((tmp_path / "train").glob("*.png"))) == 48
    assert sum(row["truth"] != "good" for row in truth) == counts["train defective"] == 12
    assert {path.name for path in (tmp_path / "test").iterdir()} == {"good", *DEFECTS}
    for kind in DEFECTS:
        images = {path.stem for path in (tmp_path / "test" / kind).iterdir()}
        masks = {path.stem.removesuffix("_mask") for path in (tmp_path / "ground_truth" / kind).iterdir()}
        assert images == masks
        assert len(images) == counts[f"test {kind}"]


@pytest.mark.parametrize("kind", DEFECTS)
def test_the_mask_is_what_the_defect_changed(kind: str) -> None:
    for index in range(12):
        good, none = draw_part((7, index), 96, None)
        bad, mask = draw_part((7, index), 96, kind)
        changed = cv2.absdiff(good, bad) > TRUTH_LEVELS
        assert not none.any()
        assert set(np.unique(mask)) == {0, 255}, "a defect nobody can see is not a defect"
        assert not changed[mask == 0].any()
        assert changed[mask > 0].mean() > 0.5
        assert mask.mean() / 255 < 0.15


def test_good_parts_differ_among_themselves() -> None:
    first, second = (draw_part((0, index), 64, None)[0].astype(float) for index in (0, 1))
    assert np.abs(first - second).mean() > 3


def test_command_refuses_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    result = CliRunner().invoke(demo_data, [str(tmp_path), "--images", "2"])
    assert isinstance(result.exception, FileExistsError)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_command_writes_images_of_the_asked_size(tmp_path: Path) -> None:
    result = CliRunner().invoke(demo_data, [str(tmp_path / "d"), "--images", "3", "--size", "40"])
    assert result.exit_code == 0, result.output
    image = cv2.imread(str(tmp_path / "d/train/0000.png"), cv2.IMREAD_UNCHANGED)
    assert image.shape == (40, 40)
    assert image.dtype == np.uint8
