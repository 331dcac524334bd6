"""A bundle is whole, unchanged and harmless, or it is refused."""

import json
import math
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from models.bundle import (
    FILES,
    THUMBNAILS_FILE,
    Bundle,
    BundleError,
    Manifest,
    load_bundle,
    sha256_file,
    write_bundle,
)


@pytest.fixture
def copy(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "bundle"))


def change_manifest(bundle: Path, **changes: Any) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_bundle_opens_with_all_it_promises(tiny_bundle: Bundle) -> None:
    again = load_bundle(tiny_bundle.path)
    assert again.manifest == tiny_bundle.manifest
    assert again.hash == sha256_file(again.file("manifest.json"))
    assert set(again.manifest.files) == {*FILES, THUMBNAILS_FILE}
    for name in again.manifest.profiles:
        scores = again.training_scores(name)
        assert len(scores) == again.manifest.calibration[name].images
        assert np.all(np.diff(scores) >= 0)


@pytest.mark.promise(21)
@pytest.mark.parametrize("name", [*FILES, THUMBNAILS_FILE])
def test_a_changed_byte_is_noticed(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} .* does not match"):
        load_bundle(copy)


def test_a_bundle_from_before_thumbnails_opens_and_one_that_lost_them_does_not(copy: Path) -> None:
    (copy / THUMBNAILS_FILE).unlink()
    with pytest.raises(BundleError, match="does not name the files that are there"):
        load_bundle(copy)
    files = json.loads((copy / "manifest.json").read_text())["files"]
    del files[THUMBNAILS_FILE]
    change_manifest(copy, files=files)
    assert set(load_bundle(copy).manifest.files) == set(FILES)


@pytest.mark.parametrize("name", ["manifest.json", *FILES])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"missing .*{name}"):
        load_bundle(copy)


@pytest.mark.promise(21)
def test_an_extra_file_is_refused_and_never_run(copy: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {canary}",)

    (copy / "weights.pkl").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BundleError, match=r"unexpected .*weights\.pkl"):
        load_bundle(copy)
    assert not canary.exists()


@pytest.mark.promise(21)
def test_a_pickle_in_place_of_weights_runs_nothing(copy: Path, tmp_path: Path) -> None:
    """Even with its hash put right, a pickle is only ever read as safetensors."""
    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {canary}",)

    target = copy / "calibration.safetensors"
    target.write_bytes(pickle.dumps(Bomb()))
    files = json.loads((copy / "manifest.json").read_text())["files"]
    change_manifest(copy, files={**files, target.name: sha256_file(target)})
    with pytest.raises(BundleError, match="cannot be used"):
        load_bundle(copy)
    assert not canary.exists()


@pytest.mark.promise(21, control=True)
def test_what_runs_a_pickle_would_be_noticed(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {canary}",)

    pickle.loads(pickle.dumps(Bomb()))
    assert canary.exists()


@pytest.mark.promise(21)
def test_links_are_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "audit.csv").rename(tmp_path / "elsewhere.csv")
    (copy / "audit.csv").symlink_to(tmp_path / "elsewhere.csv")
    with pytest.raises(BundleError, match="not a plain file"):
        load_bundle(copy)


@pytest.mark.promise(21)
@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "sub/model.onnx"])
def test_paths_in_the_manifest_are_refused(copy: Path, name: str) -> None:
    files = json.loads((copy / "manifest.json").read_text())["files"]
    change_manifest(copy, files={**files, name: "0" * 64})
    with pytest.raises(BundleError, match="files must be exactly"):
        load_bundle(copy)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": 2},
        {"unknown": 1},
        {"calibration": {}},
        {"default_profile": {"cpu": "nope", "gpu": "paper"}},
        {"name": "../x"},
        {"process": {"steps": 1000.7, "beta_start": 1e-4, "beta_end": 0.02}},
        {"process": {"steps": 1000, "beta_start": 2.0, "beta_end": 0.02}},
        {"process": {"step": 1000}},
        {"preprocess": {"height": 33, "width": 32, "channels": 1}},
    ],
)
def test_other_schemas_and_contradictions_are_refused(copy: Path, changes: dict[str, Any]) -> None:
    change_manifest(copy, **changes)
    with pytest.raises(BundleError, match="not valid"):
        load_bundle(copy)


@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize("place", ["score_location", "score_scale", "map_max"])
def test_numbers_that_are_none_are_refused(copy: Path, place: str, value: float) -> None:
    """An infinite threshold or scale would make every part a PASS."""
    calibration = json.loads((copy / "manifest.json").read_text())["calibration"]
    calibration["fast"][place] = value
    change_manifest(copy, calibration=calibration)
    with pytest.raises(BundleError, match="not valid"):
        load_bundle(copy)


def test_a_link_to_a_bundle_is_followed_once(copy: Path, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(copy)
    assert load_bundle(link).path == copy.resolve()


def test_something_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a directory"):
        load_bundle(tmp_path / "nothing")


def test_writing_is_all_or_nothing(tiny_bundle: Bundle, tmp_path: Path) -> None:
    target = tmp_path / "new" / "bundle"

    def broken(work: Path) -> Manifest:
        (work / "model.onnx").write_bytes(b"half")
        raise RuntimeError("disk gone")

    with pytest.raises(RuntimeError, match="disk gone"):
        write_bundle(target, broken)
    assert list(target.parent.iterdir()) == []

    def whole(work: Path) -> Manifest:
        for name in tiny_bundle.manifest.files:
            shutil.copy(tiny_bundle.file(name), work / name)
        return tiny_bundle.manifest

    assert write_bundle(target, whole).manifest == tiny_bundle.manifest
    assert {oct(file.stat().st_mode & 0o777) for file in target.iterdir()} == {"0o644"}
    with pytest.raises(FileExistsError, match="never changed"):
        write_bundle(target, whole)


def test_thresholds_must_be_ordered(tiny_bundle: Bundle) -> None:
    values = tiny_bundle.manifest.model_dump()
    values["calibration"]["fast"]["suggested"] = {"review": 3.0, "reject": 2.0}
    with pytest.raises(ValidationError, match="above reject"):
        Manifest.model_validate(values)
