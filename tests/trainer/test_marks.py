"""Marks of the audit: read with care, defective images left out, fine ones never for looking suspicious."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from models.bundle import load_bundle, sha256_file
from models.detector import Detector, DetectorConfig
from tests.conftest import part
from tests.trainer.test_fit import TINY
from trainer.cli import cli
from trainer.data import load_training_set
from trainer.marks import MarksError, read_marks
from trainer.suspects import refit_distances
from trainer.thumbnails import shrunk

HEADER = "image,mark,sha256,rank,score,who,marked_at\n"


def write(path: Path, rows: Iterable[str], header: str = HEADER) -> Path:
    path.write_text(header + "".join(f"{row}\n" for row in rows))
    return path


def test_a_fit_leaves_out_what_is_marked_as_defective(tmp_path: Path, parts_folder: Path) -> None:
    bad, fine = (parts_folder / f"part{index:02}.png" for index in (3, 7))
    marks = write(
        tmp_path / "marks.csv",
        [
            f"elsewhere/other-name.png,defective,{sha256_file(bad)},1,7.5,ada,2026-11-24T08:00:00+00:00",
            f"{fine.name},fine,,2,7.1,ada,2026-11-24T08:00:05+00:00",
            f"part09.png,defective,{'0' * 64},3,7.0,ada,2026-11-24T08:00:06+00:00",  # other content
        ],
    )
    recipe, out = tmp_path / "tiny.toml", tmp_path / "run"
    recipe.write_text(TINY)
    words = ["fit", parts_folder, "--recipe", recipe, "--out", out, "--marks", marks, "--device", "cpu"]
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert "marked      1 as defective and left out, 1 as fine" in result.output
    bundle = load_bundle(out / "bundle")
    assert (bundle.manifest.training_data.left_out, bundle.manifest.training_data.trusted) == (1, 1)
    assert bundle.manifest.training_data.images == 23
    with bundle.file("audit.csv").open() as file:
        names = {row["image"] for row in csv.DictReader(file)}
    assert names == {path.name for path in parts_folder.iterdir()} - {bad.name}
    assert (out / "left_out.csv").read_text().splitlines()[1:] == [str(bad)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,verdict\n", "no column mark"),
        ("image,mark\na.png,good\n", "line 2: the mark must be defective or fine"),
        ("image,mark,sha256\na.png,fine,12\n", "line 2: '12' is no sha256"),
        ("image,mark\na.png,fine\na.png,defective\n", "line 3: a.png is marked as defective and as fine"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "marks.csv").write_text(text)
    with pytest.raises(MarksError, match=message):
        read_marks(tmp_path / "marks.csv")


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MarksError, match="cannot be read"):
        read_marks(tmp_path / "none.csv")
    (tmp_path / "marks.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MarksError, match="cannot be read"):
        read_marks(tmp_path / "marks.csv")


def test_marks_of_other_images_are_a_mistake(tmp_path: Path, parts_folder: Path) -> None:
    marks = read_marks(write(tmp_path / "marks.csv", [f"a.png,fine,{'0' * 64},1,1,ada,"]))
    files = sorted(parts_folder.iterdir())
    with pytest.raises(MarksError, match="none of the images marked in"):
        load_training_set(files, [False] * 24, (16, 16), 1, tmp_path / "cache.npy", marks=marks)
    nothing = read_marks(write(tmp_path / "empty.csv", []))  # nobody has marked anything yet
    data = load_training_set(files, [False] * 24, (16, 16), 1, tmp_path / "cache.npy", marks=nothing)
    assert (len(data.paths), data.trusted) == (24, None)


def unlike(index: int) -> NDArray[np.uint8]:
    """A part that is unlike all others."""
    image = part(index, 64)
    cv2.circle(image, (32, 32), 14, 250, -1)
    return image


@pytest.mark.parametrize("trusting", [False, True])
def test_what_is_trusted_stays_in_the_fit_of_the_distances(trusting: bool) -> None:
    pixels = np.stack([part(index, 64) for index in range(15)] + [unlike(15)])[:, None]
    pixels = np.repeat(pixels, 3, axis=1)
    trusted = np.arange(16) == 15
    detector = Detector(DetectorConfig(width=16)).eval()
    sample = refit_distances(detector, pixels, 0, False, trusted=trusted if trusting else None)
    assert sample.kept[15] == trusting


def test_thumbnails_are_small_and_keep_their_shape() -> None:
    assert shrunk(np.zeros((3, 600, 300), np.uint8), 256).shape == (256, 128, 3)
    assert shrunk(np.zeros((1, 40, 50), np.uint8), 256).shape == (40, 50, 1)


def test_the_manifest_says_nothing_where_nothing_was_marked(tmp_path: Path, tiny_bundle: object) -> None:
    text = json.loads((tiny_bundle.path / "manifest.json").read_text())["training_data"]  # type: ignore[attr-defined]
    assert "left_out" not in text
    assert "trusted" not in text
