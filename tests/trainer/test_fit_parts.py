"""`fit` on a folder of several parts, and every verb that measures its bundle."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from models.bundle import Bundle, BundleError, load_bundle
from models.engine import OnnxDenoiser, open_engine
from models.evidence import DETECTOR_EVIDENCE
from models.parts import of_part
from models.preprocess import to_float
from tests.conftest import part, silent
from trainer.attack import AttackSettings, attack
from trainer.calibrate import Models
from trainer.evaluate import evaluate
from trainer.evaluate_command import evaluate as evaluate_command
from trainer.export import ExportError, check_parity
from trainer.fit import FitResult, fit
from trainer.memorisation import MemorisationSettings, memorisation
from trainer.parts import PartError
from trainer.probe import Probe
from trainer.protocol import Settings
from trainer.recipe import Recipe, parse_recipe
from trainer.show_corruption import write_corruptions
from trainer.sweep.spec import SweepError, parse_spec, resolve_variants
from trainer.testset import Sources


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 rings lit from the right, and 10 lit from the left."""
    root = tmp_path_factory.mktemp("parts")
    for name, count in (("ring", 14), ("Hole", 10)):
        (root / name).mkdir()
        for index in range(count):
            image = part(index)
            cv2.imwrite(str(root / name / f"{index:02}.png"), image if name == "ring" else image[:, ::-1])
    return root


@pytest.fixture(scope="module")
def recipe(tiny_detector_recipe: Recipe) -> Recipe:
    values = tiny_detector_recipe.model_dump(mode="json")
    return parse_recipe({**values, "name": "tiny-parts", "data": {"size": 64, "parts": "folders"}})


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, folder: Path, recipe: Recipe) -> FitResult:
    return fit(folder, recipe, tmp_path_factory.mktemp("run"), "cpu", silent, name="parts", version="1")


@pytest.fixture(scope="module")
def bundle(result: FitResult) -> Bundle:
    return result.bundle


def test_the_bundle_has_every_profile_for_every_part(bundle: Bundle) -> None:
    manifest = load_bundle(bundle.path).manifest
    assert manifest.parts == ("hole", "ring")
    assert manifest.network.classes == 2
    assert list(manifest.profiles) == ["paper.hole", "fast.hole", "paper.ring", "fast.ring"]
    assert [manifest.label(name) for name in manifest.profiles] == [0, 0, 1, 1]
    assert manifest.default_profile == {"cpu": "fast.hole", "gpu": "paper.hole"}
    assert set(manifest.metrics["trust"]) == {
        f"{kind}.{name}" for kind in ("residual", *DETECTOR_EVIDENCE) for name in manifest.parts
    }
    assert manifest.training_data.images == 24
    assert manifest.recipe["data"]["parts"] == "folders"
    assert "images of ring" in bundle.file("report.html").read_text()


def test_the_bundle_of_one_part_is_written_as_before(tiny_bundle: Bundle) -> None:
    manifest = json.loads((tiny_bundle.path / "manifest.json").read_text())
    assert "parts" not in manifest
    assert "classes" not in manifest["network"]
    assert not any("part" in profile for profile in manifest["profiles"].values())


@pytest.mark.parametrize("name", ["fast.hole", "fast.ring"])
def test_a_profile_is_calibrated_on_its_own_parts_images(result: FitResult, name: str) -> None:
    """As many scores as the part has images, and in the mean about what serving says of them.

    Not just that: calibration looks with Gaussians that leave an image out, and ten images feel each one.
    """
    data, bundle = result.data, result.bundle
    rows = dict(data.groups)[bundle.manifest.profiles[name].part]
    assert bundle.manifest.calibration[name].images == rows.stop - rows.start
    answers = open_engine(bundle, threads=1).run(to_float(data.pixels[rows]), data.seeds[rows], name)
    served = [answer.score for answer in answers]
    seen = bundle.training_scores(name)
    assert seen.shape == (len(served),)
    assert 0.5 < np.median(served) / np.median(seen) < 2


@pytest.mark.parametrize(("name", "label"), [("fast.hole", 0), ("fast.ring", 1)])
def test_calibration_tells_the_network_the_part(result: FitResult, name: str, label: int) -> None:
    data, manifest = result.data, result.bundle.manifest
    rows = data.groups[label][1]
    scales = []
    for told in (label, 1 - label):
        net = of_part(OnnxDenoiser(result.bundle.file("model.onnx"), threads=1), told)
        models = Models(net, manifest.diffusion, manifest.network.clean_scale, manifest.network.reduce)
        levels = models.levels(manifest.profiles[name], to_float(data.pixels[rows]), data.seeds[rows])
        scales.append(np.median(levels, axis=(0, 2, 3)))
    right, wrong = (np.abs(s / manifest.calibration[name].residual_scales - 1).max() for s in scales)
    assert right < 1e-6
    assert wrong > 1e-5


def test_every_image_is_audited_by_its_own_part(result: FitResult) -> None:
    with result.bundle.file("audit.csv").open() as file:
        lines = list(csv.DictReader(file))
    found = {line["image"]: float(line["calibrated_score"]) for line in lines}
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert len(found) == 24
    for name, folder in (("hole", "Hole"), ("ring", "ring")):
        score = result.bundle.manifest.calibration[f"fast.{name}"].score
        raw = result.bundle.training_scores(f"fast.{name}")
        own = sorted(value for image, value in found.items() if image.startswith(f"{folder}/"))
        assert own == pytest.approx([score.calibrate(value) for value in raw], abs=1e-3)


def test_runtimes_agree_and_the_profile_chooses_the_condition(result: FitResult) -> None:
    images, seeds = to_float(result.data.pixels[8:12]), result.data.seeds[8:12]
    onnx, torch = (open_engine(result.bundle, runtime, threads=1) for runtime in ("onnx", "torch"))
    seen = {}
    for name in ("fast.hole", "fast.ring", "paper.ring"):
        ours, theirs = onnx.run(images, seeds, name), torch.run(images, seeds, name)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a.reconstruction, b.reconstruction, atol=1e-3)
        seen[name] = np.stack([answer.reconstruction for answer in ours])
    assert np.abs(seen["fast.hole"] - seen["fast.ring"]).max() > 1e-4
    with pytest.raises(KeyError):
        onnx.run(images, seeds, "fast")


def test_every_class_is_compared_before_publishing(result: FitResult) -> None:
    net, onnx = result.trained.net, result.bundle.file("model.onnx")
    golden, process = np.zeros((2, 1, 32, 32), np.float32), result.bundle.manifest.diffusion
    check_parity(net, onnx, golden, process, [50.0])
    healthy = net.class_embedding.weight.data.clone()
    net.class_embedding.weight.data[1] += 5
    try:
        with pytest.raises(ExportError, match="nothing published"):
            check_parity(net, onnx, golden, process, [50.0])
    finally:
        net.class_embedding.weight.data = healthy


def change(bundle: Path, **changes: Any) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"parts": ["hole", "ring", "bolt"]},
        {"parts": ["hole", "Ring"]},
        {"parts": []},
        {"default_profile": {"cpu": "fast", "gpu": "paper"}},
    ],
)
def test_a_contradictory_manifest_is_refused(bundle: Bundle, tmp_path: Path, changes: dict[str, Any]) -> None:
    copy = Path(shutil.copytree(bundle.path, tmp_path / "bundle"))
    change(copy, **changes)
    with pytest.raises(BundleError, match="not valid"):
        load_bundle(copy)


def test_evaluate_wants_to_know_the_part(
    bundle: Bundle, labelled_folder: Callable[..., Path], tmp_path: Path
) -> None:
    data, out = labelled_folder(), tmp_path / "r.json"
    arguments = [str(bundle.path), str(data)]
    answer = CliRunner().invoke(evaluate_command, [*arguments, "--profile", "fast.ring", "--json", str(out)])
    assert answer.exit_code == 0, answer.output
    assert list(json.loads(out.read_text())["profiles"]) == ["fast.ring"]
    for options in ([], ["--profile", "all"]):
        answer = CliRunner().invoke(evaluate_command, [*arguments, *options])
        assert isinstance(answer.exception, PartError)
        assert "for example --profile fast.hole" in str(answer.exception)
    with pytest.raises(PartError, match="hole, ring"):
        evaluate(bundle, Sources(data), ["all"], Settings())


def test_attack_and_memorisation_are_of_a_part(bundle: Bundle, folder: Path) -> None:
    probe = Probe(folder / "ring", bundle.manifest.preprocess, limit=2)
    with pytest.raises(PartError, match="--profile"):
        attack(bundle, probe, AttackSettings(shares=(1.0,)))
    with pytest.raises(PartError, match="--profile"):
        memorisation(bundle, probe, None, MemorisationSettings(samples=2))
    errors = [
        attack(bundle, probe, AttackSettings(f"paper.{name}", shares=(1.0,))).rows[0].error
        for name in ("hole", "ring")
    ]
    assert errors[0] != errors[1]  # the gradient's network is told the part, too
    settings = MemorisationSettings(samples=2, steps=3, profile="fast.ring")
    rows = memorisation(bundle, probe, probe, settings).rows
    assert [row.count for row in rows] == [2, 2, 2, 2]


def test_painted_defects_of_all_parts_are_shown(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    assert write_corruptions(folder, recipe, tmp_path / "sheet.png", seed=0, count=2) == 24


def test_a_sweep_is_for_one_part() -> None:
    spec = parse_spec({"overrides": {"data.parts": "folders"}})
    with pytest.raises(SweepError, match="one kind of part"):
        resolve_variants(spec)
