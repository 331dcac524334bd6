"""`fit` from the command line: the whole verb, and its mistakes as one clear line."""

import csv
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file

from models.bundle import THUMBNAILS_FILE, load_bundle, sha256_file
from models.engine import OnnxDenoiser
from trainer.calibrate import Models, calibrate_profile, calibration_subset, suggest_thresholds
from trainer.cli import main
from trainer.export import ExportError, check_parity, write_onnx
from trainer.fit import FitResult
from trainer.recipe import Calibration, Recipe

TINY = """
[data]
size = 32
[network]
widths = [16, 24]
[training]
steps = 4
batch_size = 4
precision = "fp32"
[calibration]
max_calls = 20
min_images = 4
[profiles]
paper = { kind = "chain", t_noise = 50, t_start = 50, n_steps = 3 }
fast = { kind = "one_step", timesteps = [25, 50] }
"""


def trainer(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainer.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_fit_writes_everything_a_user_needs(tmp_path: Path, parts_folder: Path) -> None:
    data, bad = tmp_path / "data", tmp_path / "bad"
    shutil.copytree(parts_folder, data)
    (data / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    bad.mkdir()
    for index in range(10):
        cv2.imwrite(str(bad / f"{index}.png"), np.full((40, 40), 255, np.uint8))
    recipe, out = tmp_path / "tiny.toml", tmp_path / "run"
    recipe.write_text(TINY)
    result = trainer(
        "fit", data, "--recipe", recipe, "--out", out, "--steps", 3, "--penalty", "mse",
        "--mix", bad, "--mix-fraction", 0.2, "--seed", 5, "--name", "washer", "--model-version", "7",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert f"bundle      {out / 'bundle'}" in result.stdout
    assert "30, 6 of them mixed in" in result.stdout
    manifest = load_bundle(out / "bundle").manifest
    assert (manifest.name, manifest.version, manifest.metrics["steps"]) == ("washer", "7", 3)
    resolved = json.loads((out / "recipe.json").read_text())
    assert resolved == manifest.recipe
    assert (resolved["training"]["penalty"]["name"], resolved["training"]["seed"]) == ("mse", 5)
    with (out / "skipped.csv").open() as file:
        assert [Path(row["path"]).name for row in csv.DictReader(file)] == ["torn.png"]
    with (out / "loss.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3
    assert "<html" in (out / "bundle" / "report.html").read_text()

    again = trainer("fit", data, "--recipe", recipe, "--out", out)
    assert again.returncode == 2
    assert "a bundle is never changed" in again.stderr


def loss_curve(out: Path) -> list[str]:
    with (out / "loss.csv").open() as file:
        return [row["loss"] for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_outright_resumes_to_the_same_curve(tmp_path: Path, parts_folder: Path) -> None:
    recipe, killed, whole = tmp_path / "tiny.toml", tmp_path / "killed", tmp_path / "whole"
    recipe.write_text(TINY)
    arguments = [
        "fit",
        parts_folder,
        "--recipe",
        recipe,
        "--steps",
        400,
        "--set",
        "training.checkpoint_every=20",
    ]
    command = [sys.executable, "-m", "trainer.cli", *map(str, [*arguments, "--out", killed])]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (killed / "checkpoint" / "progress.json").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not (killed / "bundle").exists()
    forgotten = trainer(*arguments, "--out", killed)
    assert forgotten.returncode == 2
    assert "add --resume to go on" in forgotten.stderr
    for out, options in ((killed, ["--resume"]), (whole, [])):
        result = trainer(*arguments, "--out", out, *options)
        assert result.returncode == 0, result.stderr
    assert loss_curve(killed) == loss_curve(whole)
    assert len(loss_curve(whole)) == 400


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--out", "x"], "nowhere is not a folder"),
        ([".", "--out", "x", "--recipe", "nope"], "choose one of"),
        ([".", "--out", "x", "--set", "training.steps=0"], "training.steps"),
        ([".", "--out", "x", "--set", "nonsense"], "must look like"),
        ([".", "--out", "x", "--name", "Line A"], "name 'Line A' must be"),
        ([".", "--out", "x", "--model-version", "v 1"], "--model-version 'v 1' must be"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["inlier-trainer", "fit", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_audit_ranks_every_scored_image(tiny_fit: FitResult) -> None:
    with tiny_fit.bundle.file("audit.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["calibrated_score"]) for row in rows]
    assert len(rows) == len(tiny_fit.data.paths) == tiny_fit.bundle.manifest.calibration["fast"].images
    assert scores == sorted(scores, reverse=True)
    assert {row["image"] for row in rows} <= {path.name for path in tiny_fit.data.paths}
    files = {path.name: sha256_file(path) for path in tiny_fit.data.paths}
    assert all(files[row["image"]] == row["sha256"] for row in rows)


def test_the_most_suspicious_images_are_in_the_bundle(tiny_fit: FitResult) -> None:
    found = load_file(tiny_fit.bundle.file(THUMBNAILS_FILE))
    assert set(found) == {str(rank) for rank in range(1, 25)}  # there are no more
    with tiny_fit.bundle.file("audit.csv").open() as file:
        first = next(iter(csv.DictReader(file)))["image"]
    row = [path.name for path in tiny_fit.data.paths].index(first)
    shown = cv2.imdecode(found["1"], cv2.IMREAD_GRAYSCALE)
    np.testing.assert_allclose(shown, tiny_fit.data.pixels[row, 0], atol=12)  # lossy, but this image


def test_parity_is_measured_and_a_wrong_network_is_not_published(tiny_fit: FitResult, tmp_path: Path) -> None:
    assert 0 <= tiny_fit.parity < 1e-3
    net = tiny_fit.trained.net
    golden = np.zeros((2, 1, 32, 32), np.float32)
    process = tiny_fit.bundle.manifest.diffusion
    write_onnx(net, tmp_path / "model.onnx", 1, net.config.stride)
    check_parity(net, tmp_path / "model.onnx", golden, process, [50.0])
    next(net.conv_out.parameters()).data += 0.05
    try:
        with pytest.raises(ExportError, match="nothing published"):
            check_parity(net, tmp_path / "model.onnx", golden, process, [50.0])
    finally:
        next(net.conv_out.parameters()).data -= 0.05


def test_calibration_budget_fixes_the_sample() -> None:
    spec = Calibration(max_calls=1000, min_images=10)
    assert len(calibration_subset(500, 8, spec, 0)) == 125
    assert len(calibration_subset(500, 250, spec, 0)) == 10
    assert len(calibration_subset(6, 250, spec, 0)) == 6
    assert len(calibration_subset(500, 0, spec, 0)) == 500
    np.testing.assert_array_equal(calibration_subset(500, 8, spec, 0), calibration_subset(500, 8, spec, 0))


def test_suggested_thresholds_are_normal_quantiles_of_the_target_rates() -> None:
    suggested = suggest_thresholds(Calibration(review_rate=0.05, reject_rate=0.002))
    assert suggested.review == pytest.approx(1.6449, abs=1e-3)
    assert suggested.reject == pytest.approx(2.8782, abs=1e-3)


def test_calibration_makes_the_typical_map_one(tiny_fit: FitResult, tiny_recipe: Recipe) -> None:
    bundle = tiny_fit.bundle
    found = calibrate_profile(
        Models(OnnxDenoiser(bundle.file("model.onnx"), threads=1), bundle.manifest.diffusion),
        "fast",
        bundle.manifest.profiles["fast"],
        tiny_fit.data.pixels,
        list(range(24)),
        Calibration(max_calls=10_000),
        subset_seed=0,
    )
    assert len(found.scores) == 24
    calibrated = [found.calibration.score.calibrate(score) for score in found.scores]
    assert np.median(calibrated) == pytest.approx(0, abs=1)


def test_without_torch_one_line_says_how_to_get_it() -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom trainer.__main__ import main\nmain()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "torch is not installed; pip install" in result.stderr
    assert "Traceback" not in result.stderr
