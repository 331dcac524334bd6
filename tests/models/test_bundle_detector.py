"""A bundle with a detector: its files, its evidence and its usual values per place must fit together."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from models.bundle import (
    DETECTOR_FILES,
    FILES,
    THUMBNAILS_FILE,
    Bundle,
    BundleError,
    Manifest,
    load_bundle,
    sha256_file,
)
from models.evidence import DETECTOR_EVIDENCE

Values = dict[str, Any]


@pytest.fixture
def copy(tiny_detector_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_detector_bundle.path, tmp_path / "bundle"))


@pytest.fixture
def values(tiny_detector_bundle: Bundle) -> Values:
    return tiny_detector_bundle.manifest.model_dump()


def test_it_names_its_detector_and_weighs_its_evidence(tiny_detector_bundle: Bundle) -> None:
    manifest = load_bundle(tiny_detector_bundle.path).manifest
    assert set(manifest.files) == {*FILES, *DETECTOR_FILES, THUMBNAILS_FILE}
    assert manifest.detector is not None
    assert manifest.detector.backbone == "own"
    assert (manifest.network.reduce, manifest.map_size) == (2, (32, 32))
    for calibration in manifest.calibration.values():
        assert set(calibration.evidence) == {"residual", *DETECTOR_EVIDENCE}
        assert sum(e.weight for e in calibration.evidence.values()) == pytest.approx(1)


@pytest.mark.parametrize("name", DETECTOR_FILES)
def test_a_missing_detector_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=r"missing|unexpected"):
        load_bundle(copy)


def test_a_bundle_stripped_of_its_detector_is_refused(copy: Path) -> None:
    for name in DETECTOR_FILES:
        (copy / name).unlink()
    with pytest.raises(BundleError, match="does not name the files that are there"):
        load_bundle(copy)


@pytest.mark.parametrize("name", DETECTOR_FILES)
def test_a_changed_byte_is_noticed(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} .* does not match"):
        load_bundle(copy)


def heavier(values: Values) -> None:
    evidence = values["calibration"]["fast"]["evidence"]["defect"]
    evidence["weight"] = 0.9 if evidence["weight"] < 0.5 else 0.1


def without_detector(values: Values) -> None:
    values["detector"] = None
    for name in DETECTOR_FILES:
        del values["files"][name]


def without_its_files(values: Values) -> None:
    del values["files"][DETECTOR_FILES[0]]


def without_evidence(values: Values) -> None:
    values["calibration"]["fast"]["evidence"] = {}


def foreign_evidence(values: Values) -> None:
    evidence = values["calibration"]["fast"]["evidence"]
    evidence["smell"] = evidence["defect"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (heavier, "must sum to 1"),
        (without_detector, "does not fit the detector"),
        (without_its_files, "files must be exactly"),
        (without_evidence, "does not fit the detector"),
        (foreign_evidence, "smell"),
    ],
)
def test_contradictions_are_refused(values: Values, change: Callable[[Values], None], message: str) -> None:
    Manifest.model_validate(values)
    change(values)
    with pytest.raises(ValidationError, match=message):
        Manifest.model_validate(values)


def place_in(bundle: Path, array: np.ndarray) -> None:
    """Put usual values per place into a bundle, its hashes set right."""
    target = bundle / "calibration.safetensors"
    save_file({**load_file(target), "fast/position/defect": array}, target)
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][target.name] = sha256_file(target)
    path.write_text(json.dumps(manifest))


def test_usual_values_per_place_are_read(copy: Path) -> None:
    place_in(copy, np.full((3, 4), 0.5, dtype=np.float32))
    np.testing.assert_array_equal(load_bundle(copy).positions("fast")["defect"], np.full((3, 4), 0.5))


@pytest.mark.parametrize("shape", [(4,), (0, 4), (2, 2, 2)])
def test_usual_values_must_be_a_map(copy: Path, shape: tuple[int, ...]) -> None:
    place_in(copy, np.zeros(shape, dtype=np.float32))
    with pytest.raises(BundleError, match="cannot be used"):
        load_bundle(copy)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_usual_values_must_be_finite(copy: Path, value: float) -> None:
    place_in(copy, np.array([[0.0, value]], dtype=np.float32))
    with pytest.raises(BundleError, match="finite"):
        load_bundle(copy)
