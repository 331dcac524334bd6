"""`fit` with profiles that compare features or structure: calibrated, served without torch, checked."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import FEATURES_FILE, Bundle, BundleError, load_bundle
from models.decode import decode
from models.engine import RawMap, open_engine
from models.evidence import EvidenceName
from models.preprocess import preprocess
from trainer.console import quiet
from trainer.fit import fit
from trainer.recipe import Recipe, RecipeError, parse_recipe
from trainer.trust import Trust

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # three networks to fit and export


def with_maps(recipe: Recipe, **maps: Any) -> Recipe:
    """The recipe with further profiles like `fast`, named after their maps."""
    values = recipe.model_dump(mode="json")
    fast = values["profiles"]["fast"]
    values["profiles"] |= {name: {**fast, "map": {**fast["map"], **extra}} for name, extra in maps.items()}
    return parse_recipe(values)


def equal_weights(found: Mapping[EvidenceName, Trust]) -> dict[EvidenceName, Trust]:
    """Every kind of evidence trusted alike, whatever was found."""
    return {
        name: replace(trust, weight=1 / len(found), image_weight=1 / len(found))
        for name, trust in found.items()
    }


@pytest.fixture(scope="module")
def bundle(
    tmp_path_factory: pytest.TempPathFactory, parts_folder: Path, tiny_detector_recipe: Recipe
) -> Bundle:
    recipe = with_maps(
        tiny_detector_recipe,
        structure={"residual": "structure"},
        network={"features": "network"},
        backbone={"features": "backbone"},
        pixels={"features": "network", "alpha": 0.0},
        plain={},  # `fast` itself is calibrated on more images than the others
    )
    out = tmp_path_factory.mktemp("run-features")
    with pytest.MonkeyPatch.context() as patch:
        # Six steps of training earn the residual no trust, and what weighs nothing cannot be seen in the map.
        patch.setattr("trainer.calibrate.share_weights", equal_weights)
        return fit(parts_folder, recipe, out, "cpu", quiet, name="tiny-features", version="1").bundle


def run(bundle: Bundle, parts_folder: Path, profile: str, runtime: Any = "onnx") -> list[RawMap]:
    files = sorted(parts_folder.rglob("*.png"))[:2]
    images = np.stack([preprocess(decode(file.read_bytes()), bundle.manifest.preprocess) for file in files])
    return open_engine(bundle, runtime, threads=1).run(images, [1, 2], profile)


@pytest.mark.parametrize("profile", ["structure", "network", "backbone"])
def test_both_runtimes_agree_and_the_map_is_another(bundle: Bundle, parts_folder: Path, profile: str) -> None:
    served, trained = (run(bundle, parts_folder, profile, runtime) for runtime in ("onnx", "torch"))
    for ours, theirs in zip(served, trained, strict=True):
        np.testing.assert_allclose(ours.map, theirs.map, rtol=2e-3, atol=2e-3)
    plain = run(bundle, parts_folder, "fast")[0].map
    assert np.abs(served[0].map - plain).max() > 1e-3


def test_without_a_share_features_change_nothing(bundle: Bundle, parts_folder: Path) -> None:
    pixels, plain = run(bundle, parts_folder, "pixels"), run(bundle, parts_folder, "plain")
    np.testing.assert_allclose(pixels[0].map, plain[0].map, rtol=1e-3, atol=1e-3)


def test_features_have_a_scale_of_their_own(bundle: Bundle) -> None:
    calibration = bundle.manifest.calibration
    levels = len(calibration["plain"].residual_scales)
    assert len(calibration["structure"].residual_scales) == levels
    assert len(calibration["network"].residual_scales) == levels + 1
    assert calibration["network"].residual_scales[:levels] == calibration["plain"].residual_scales


def test_the_file_is_part_of_the_bundle(bundle: Bundle, tiny_detector_bundle: Bundle, tmp_path: Path) -> None:
    assert FEATURES_FILE in bundle.manifest.files
    assert FEATURES_FILE not in tiny_detector_bundle.manifest.files
    copy = Path(shutil.copytree(bundle.path, tmp_path / "changed"))
    (copy / FEATURES_FILE).write_bytes(b"other")
    with pytest.raises(BundleError, match=FEATURES_FILE.replace(".", r"\.")):
        load_bundle(copy)
    (copy / FEATURES_FILE).unlink()
    with pytest.raises(BundleError):
        load_bundle(copy)


def test_a_recipe_as_before_is_written_as_before(tiny_recipe: Recipe) -> None:
    """Settings that came later and change nothing stay out, or earlier runs could not be resumed."""
    assert set(tiny_recipe.model_dump(mode="json")["profiles"]["fast"]["map"]) == {
        "sigma_px",
        "image_median",
        "top_fraction",
    }


def test_what_cannot_be_compared_is_refused(tiny_recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="needs a \\[detector\\] section"):
        with_maps(tiny_recipe, bad={"features": "backbone"})
    with pytest.raises(RecipeError, match="structur"):
        with_maps(tiny_recipe, bad={"residual": "structural"})
    values = tiny_recipe.model_dump(mode="json")
    values["data"]["parts"] = "folders"
    with pytest.raises(RecipeError, match="one kind of part"):
        with_maps(parse_recipe(values), bad={"features": "network"})
