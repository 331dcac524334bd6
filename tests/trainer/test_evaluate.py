"""`evaluate` on a real bundle: figures, files, table, and its mistakes as one clear sentence."""

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from sklearn.metrics import roc_auc_score

from models.bundle import Bundle
from models.engine import open_engine
from models.preprocess import to_float
from trainer.cli import main
from trainer.evaluate import evaluate, evaluate_profile, fit_map
from trainer.evaluate_command import evaluate as command
from trainer.protocol import Settings
from trainer.results import EvaluationResult
from trainer.testset import EvaluationError, Sources, find_entries, load_entries


@pytest.fixture
def data(labelled_folder: Callable[..., Path]) -> Path:
    return labelled_folder()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def scores(result: EvaluationResult, profile: str = "fast") -> list[float]:
    return [image.raw_score for image in result.profiles[profile].images]


def test_every_profile_is_measured_overall_and_per_type(tiny_bundle: Bundle, data: Path) -> None:
    result = evaluate(tiny_bundle, Sources(data), ["all"], Settings(batch_size=4))
    assert list(result.profiles) == ["paper", "fast"]
    found = result.profiles["fast"]
    assert list(found.types) == ["crack", "hole"]
    assert found.overall.images == 8
    assert found.good.images == 6
    assert found.timing.network_calls_per_image == 4
    assert found.timing.batch_size == 4
    assert 0 < found.timing.seconds_per_image < 10
    assert sum(found.good.verdicts.values()) == 6
    for row in (found.overall, *found.types.values()):
        assert sum(row.verdicts.values()) == row.images
        assert row.escape == row.verdicts["PASS"] / row.images
        for metric in (row.image_auroc, row.image_ap, row.pixel_auroc, row.pixel_auprc, row.pixel_aupro):
            assert metric is not None
            assert 0 <= metric <= 1
        assert row.mse_masked is not None
        assert row.mse_masked > 0
    truth = [image.type != "good" for image in found.images]
    assert found.overall.image_auroc == pytest.approx(roc_auc_score(truth, scores(result)))


def test_scores_are_the_engines_own(tiny_bundle: Bundle, data: Path) -> None:
    """What is measured is what the service would answer for the same bytes."""
    images = load_entries(find_entries(Sources(data)), tiny_bundle.manifest.preprocess)
    found = evaluate_profile(open_engine(tiny_bundle), images, "fast", 5)
    engine = open_engine(tiny_bundle)
    for image, line in zip(images.images, found.images, strict=True):
        (alone,) = engine.run(to_float(image.pixels[None]), [image.seed], "fast")
        assert line.raw_score == pytest.approx(alone.score, rel=1e-5)


@pytest.mark.parametrize("honest", [True, False])
def test_pixel_metrics_follow_the_masks(tiny_bundle: Bundle, data: Path, honest: bool) -> None:
    """An engine that knows the truth gets nearly full marks, one that says the opposite nearly none."""
    images = load_entries(find_entries(Sources(data)), tiny_bundle.manifest.preprocess)
    truth = {image.seed: image.network_mask for image in images.images}
    engine = open_engine(tiny_bundle)
    real = engine.run

    def knowing(x, seeds, profile, should_stop=None):  # type: ignore[no-untyped-def]
        answers = real(x, seeds, profile, should_stop)
        maps = [truth[seed] if honest else ~truth[seed] for seed in seeds]
        return [replace(a, map=m.astype(np.float32) + 1) for a, m in zip(answers, maps, strict=True)]

    engine.run = knowing  # type: ignore[method-assign]
    hole = evaluate_profile(engine, images, "fast", 8).types["hole"]
    for metric in (hole.pixel_auroc, hole.pixel_aupro):
        assert metric is not None
        assert metric > 0.95 if honest else metric < 0.05


def test_limit_and_batch_size_change_no_score(tiny_bundle: Bundle, data: Path) -> None:
    whole = evaluate(tiny_bundle, Sources(data), ["fast"], Settings(batch_size=8))
    part = evaluate(tiny_bundle, Sources(data), ["fast"], Settings(batch_size=1, limit=7))
    assert part.protocol["images"] == 7
    assert part.protocol["images_found"] == 14
    by_path = {image.path: image.raw_score for image in whole.profiles["fast"].images}
    for image in part.profiles["fast"].images:
        assert image.raw_score == pytest.approx(by_path[image.path], rel=1e-5)


def test_torch_and_onnx_agree(tiny_bundle: Bundle, data: Path) -> None:
    onnx = evaluate(tiny_bundle, Sources(data), ["fast"], Settings(limit=4))
    torch = evaluate(tiny_bundle, Sources(data), ["fast"], Settings(limit=4, runtime="torch", threads=1))
    assert scores(torch) == pytest.approx(scores(onnx), rel=1e-3)


def test_without_masks_defects_or_good_parts_the_rest_is_still_measured(
    tiny_bundle: Bundle, data: Path
) -> None:
    row = evaluate(tiny_bundle, Sources(data, use_masks=False), ["fast"]).profiles["fast"].overall
    assert row.image_auroc is not None
    assert (row.pixel_auroc, row.pixel_aupro, row.mse_masked) == (None, None, None)
    for path in (data / "test" / "good").iterdir():
        path.unlink()
    found = evaluate(tiny_bundle, Sources(data), ["fast"]).profiles["fast"]
    assert found.overall.image_auroc is None
    assert found.overall.pixel_aupro is not None
    assert (found.good.mse, found.good.overkill) == (None, None)


def test_only_good_parts(tiny_bundle: Bundle, data: Path, tmp_path: Path) -> None:
    for path in (data / "test").rglob("*.png"):
        if path.parent.name != "good":
            path.unlink()
    out = tmp_path / "out.json"
    result = run(tiny_bundle.path, data, "--profile", "fast", "--json", out, "--sheet", tmp_path / "s.png")
    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text())["profiles"]["fast"]["overall"]["image_auroc"] is None


def test_command_writes_json_csv_sheet_and_table(tiny_bundle: Bundle, data: Path, tmp_path: Path) -> None:
    (data / "test" / "hole" / "0.png").rename(data / "test" / "hole" / "[red]$x$.png")
    (data / "ground_truth" / "hole" / "0_mask.png").rename(
        data / "ground_truth" / "hole" / "[red]$x$_mask.png"
    )
    (data / "test" / "good" / "[bold]torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    out = tmp_path / "new"
    result = run(
        tiny_bundle.path, data, "--profile", "all", "--json", out / "r.json", "--csv", out / "r.csv",
        "--sheet", out / "r.png", "--batch-size", 7, "--metric-px", 32,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for shown in (
        "profile paper",
        "profile fast",
        "all defects",
        "crack",
        "AUPRO",
        "[bold]torn.png",
        "escape",
    ):
        assert shown in result.output
    text = (out / "r.json").read_text(encoding="utf-8")
    values = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))
    assert values["schema_version"] == 1
    assert set(values["profiles"]) == {"paper", "fast"}
    assert set(values["profiles"]["paper"]["types"]) == {"crack", "hole"}
    protocol = values["protocol"]
    assert protocol["model"]["bundle_sha256"] == tiny_bundle.hash
    assert protocol["data"] == "parts"
    assert protocol["metric_px"] == 32
    assert protocol["hardware"]["processor"]
    assert str(tmp_path) not in text  # nothing tells where on the machine the files are
    rows = list(csv.DictReader((out / "r.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 2 * 14
    assert {row["verdict"] for row in rows} <= {"PASS", "REVIEW", "REJECT"}
    assert any(row["path"] == "test/hole/[red]$x$.png" for row in rows)
    for name in ("r-paper.png", "r-fast.png"):
        assert cv2.imread(str(out / name)) is not None


def test_defects_from_another_folder(
    tiny_bundle: Bundle, data: Path, labelled_folder: Callable[..., Path]
) -> None:
    other = labelled_folder("mixed")
    result = run(
        tiny_bundle.path,
        data,
        "--defects",
        other / "test",
        "--masks",
        other / "ground_truth",
        "--profile",
        "fast",
    )
    assert result.exit_code == 0, result.output


def test_mistakes_are_one_clear_line(
    tiny_bundle: Bundle,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cases: list[tuple[list[object], str]] = [
        ([tmp_path, data], "is not a bundle"),
        ([tiny_bundle.path, tmp_path / "nowhere"], "has no test folder"),
        ([tiny_bundle.path, data, "--profile", "best"], "choose among paper, fast, or all"),
        ([tiny_bundle.path, data, "--metric-px", 3], "at least 8 px"),
        ([tiny_bundle.path, data, "--device", "gpu"], "has no CUDA"),
        ([tiny_bundle.path, data, "--json", data / "test" / "good" / "0.png" / "x.json"], "0.png"),
    ]
    for arguments, said in cases:
        monkeypatch.setattr(sys, "argv", ["inlier-trainer", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2, arguments
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("inlier-trainer: ")
        assert said in line


def test_a_score_that_is_not_a_number_stops_the_run(tiny_bundle: Bundle, data: Path) -> None:
    images = load_entries(find_entries(Sources(data)), tiny_bundle.manifest.preprocess)
    engine = open_engine(tiny_bundle)
    real = engine.run

    def broken(x, seeds, profile, should_stop=None):  # type: ignore[no-untyped-def]
        return [replace(answer, score=float("nan")) for answer in real(x, seeds, profile, should_stop)]

    engine.run = broken  # type: ignore[method-assign]
    with pytest.raises(EvaluationError, match="not a number"):
        evaluate_profile(engine, images, "fast", 8)


def test_maps_are_resized_without_moving() -> None:
    amap = np.zeros((32, 32), dtype=np.float32)
    amap[8:12, 20:24] = 1.0
    for size in ((64, 96), (16, 16), (16, 64)):
        y, x = np.unravel_index(int(fit_map(amap, size).argmax()), size)
        assert (y + 0.5) / size[0] == pytest.approx(10 / 32, abs=0.07)
        assert (x + 0.5) / size[1] == pytest.approx(22 / 32, abs=0.07)


def test_every_option_has_help() -> None:
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert getattr(parameter, "help", ""), parameter.name
