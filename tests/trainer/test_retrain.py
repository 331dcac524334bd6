"""Training again on what a line has seen: real exports, real fits, and what must be refused."""

import csv
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from models.bundle import Bundle, load_bundle
from models.engine import open_engine
from models.snapshot import SnapshotError, read_reviews
from models.unet import UNet, UNetConfig
from service.blobs import DiskBlobs
from service.db.repository import masks
from service.db.session import Database
from tests.conftest import part, silent
from tests.service.training.line import Line
from tests.trainer.pictures import defective, png
from trainer import carryover
from trainer.cli import cli, main
from trainer.exam import ask_both, open_side, read_exam
from trainer.fit import FitResult
from trainer.heldout import choose_groups
from trainer.loop import TrainingError, train
from trainer.recipe import Recipe
from trainer.retrain import RetrainError, recipe_of, retrain

LEAST = 12  # images to calibrate on, as `tiny_recipe` has it


@pytest.fixture(scope="session")
def training_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four lots of 15 images each, a few of them defective; some were reviewed, and some defects missed."""
    root = tmp_path_factory.mktemp("line")
    database, blobs = Database(f"sqlite:///{root / 'inlier.sqlite3'}"), DiskBlobs(root / "blobs")
    database.migrate()
    line = Line(database, blobs)
    for index in range(60):
        day = index % 4
        if index % 10 == 9:
            said = ["defective"] if index < 40 else []
            line.inspect(png(defective(index)), said, day=day, verdict="PASS" if index == 9 else "REJECT")
        else:
            line.inspect(png(part(index)), ["good"] if index % 3 == 0 else [], day=day)
    mask = np.zeros((40, 40), dtype=np.uint8)
    mask[:8, :8] = 255
    with database.write() as session:
        named = {"size": (40, 40), "share": 0.04, "who": "ann", "why": ""}
        masks.add(session, "bolt", sha256=blobs.put(png(mask)), **named)
    line.export(root / "export")
    database.close()
    return root / "export"


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory, training_set: Path, tiny_bundle: Bundle) -> FitResult:
    out = tmp_path_factory.mktemp("again")
    return retrain(training_set, tiny_bundle, out, "cpu", silent, version="2")


def of_use(folder: Path, use: str) -> list[dict[str, str]]:
    return [line for line in read_reviews(folder) if line["use"] == use]


def test_a_candidate_of_the_same_kind_that_says_where_it_came_from(
    again: FitResult, tiny_bundle: Bundle, training_set: Path
) -> None:
    manifest, record = again.bundle.manifest, again.bundle.manifest.training_data.retrained
    assert (manifest.name, manifest.version, manifest.network) == ("tiny", "2", tiny_bundle.manifest.network)
    assert manifest.profiles == tiny_bundle.manifest.profiles
    assert record is not None
    assert (record.base, record.start, record.recipe) == (tiny_bundle.hash, "warm", "bolt")
    assert record.training_set == json.loads((training_set / "manifest.json").read_text())["snapshot"]
    assert manifest.training_data.images == len(of_use(training_set, "train"))
    assert load_bundle(again.bundle.path).hash == again.bundle.hash


def test_what_people_marked_is_left_out_or_kept(
    training_set: Path, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    first, second, *_ = of_use(training_set, "train")
    lines = [f"a,defective,{first['image_sha256']}", f"b,fine,{second['image_sha256']}"]
    (tmp_path / "marks.csv").write_text("\n".join(["image,mark,sha256", *lines]))
    words = ["retrain", training_set, "--base", tiny_bundle.path, "--out", tmp_path / "out", "--steps", "2"]
    assert CliRunner().invoke(cli, [*map(str, words), "--marks", str(tmp_path / "marks.csv")]).exit_code == 0
    data = load_bundle(tmp_path / "out/bundle").manifest.training_data
    assert (data.images, data.left_out, data.trusted) == (len(of_use(training_set, "train")) - 1, 1, 1)
    assert Path(first["image"]).name in (tmp_path / "out/left_out.csv").read_text()


def test_whole_lots_are_calibrated_on_and_not_trained_on(again: FitResult, training_set: Path) -> None:
    manifest, record = again.bundle.manifest, again.bundle.manifest.training_data.retrained
    assert record is not None
    assert record.held_out_by == "lot"
    lots = {Path(line["image"]).name: line["lot"] for line in of_use(training_set, "train")}
    held_out = {name for name, lot in lots.items() if lot in record.held_out}
    assert 0 < len(record.held_out) < 4
    assert record.held_out_images == len(held_out) == manifest.calibration["fast"].images
    out = again.bundle.path.parent
    learned = np.load(out / "cache" / "learned.npy", mmap_mode="r")
    assert len(learned) == len(lots) - len(held_out)
    rows = [row for row, path in enumerate(again.data.paths) if path.name not in held_out]
    np.testing.assert_array_equal(learned, again.data.pixels[rows])


def test_the_limits_in_force_are_carried_over_by_images_that_neither_learned_from(
    again: FitResult, training_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "limits_carried" not in again.bundle.manifest.training_data.model_dump()["retrained"]  # too few
    monkeypatch.setattr(carryover, "LEAST", 5)
    new = retrain(training_set, again.bundle, tmp_path / "out", "cpu", silent, steps=2).bundle
    record = new.manifest.training_data.retrained
    assert record is not None
    assert record.limits_carried == ("fast",)
    exam = read_exam(training_set, None, None, 400, record)
    sides = [open_side(bundle, "fast", None, threads=1) for bundle in (new, again.bundle)]
    found = ask_both(*sides, exam.recent, exam.mask, lambda done, total: None)
    stopped = [np.bincount(said.verdicts, minlength=3)[1:].sum() for said in (found.candidate, found.active)]
    assert len(exam.recent) == record.held_out_images
    assert stopped[0] == pytest.approx(stopped[1], abs=1)  # a score may lie on a limit to its last digit


def test_every_training_image_is_in_the_audit_held_out_or_not(again: FitResult, training_set: Path) -> None:
    with again.bundle.file("audit.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["image"] for row in rows} == {Path(i["image"]).name for i in of_use(training_set, "train")}
    scores = [float(row["calibrated_score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    # It says of an image what the service will: they were all scored by the finished calibration.
    engine = open_engine(again.bundle, threads=1)
    calibration = again.bundle.manifest.calibration["fast"].score
    for row in rows[:6]:
        index = next(i for i, path in enumerate(again.data.paths) if path.name == row["image"])
        image = again.data.pixels[index : index + 1].astype(np.float32) * np.float32(2 / 255) - np.float32(1)
        (found,) = engine.run(image, [again.data.seeds[index]], "fast")
        assert calibration.calibrate(found.score) == pytest.approx(float(row["calibrated_score"]), abs=0.02)


def test_the_recipes_mask_is_in_the_bundle(again: FitResult) -> None:
    ignore = again.bundle.ignore()
    assert ignore is not None
    assert ignore[:6, :6].all()
    assert ignore.mean() == pytest.approx(0.04, abs=0.02)


def test_warm_begins_with_the_bases_weights_and_fresh_does_not(
    tmp_path: Path, tiny_recipe: Recipe, again: FitResult
) -> None:
    settings = tiny_recipe.training.model_copy(update={"steps": 1})
    recipe = tiny_recipe.model_copy(update={"training": settings})
    torch.manual_seed(99)
    other = UNet(recipe.network.config(1))
    save_file(other.state_dict(), tmp_path / "other.safetensors")

    def distance(initial: Path | None) -> float:
        net = train(
            recipe, again.data, tmp_path / f"checkpoint-{initial is None}", "cpu", initial=initial
        ).net
        new = net.state_dict()
        return max(float((new[key] - value).abs().max()) for key, value in other.state_dict().items())

    assert distance(tmp_path / "other.safetensors") < 2e-3  # one step of the optimizer
    assert distance(None) > 0.1
    narrow = UNet(UNetConfig(channels=1, widths=(8, 16)))
    save_file(narrow.state_dict(), tmp_path / "narrow.safetensors")
    with pytest.raises(TrainingError, match="not of this network"):
        distance(tmp_path / "narrow.safetensors")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_with_a_detector_calibration_looks_through_the_exported_one(
    tmp_path: Path, training_set: Path, tiny_detector_bundle: Bundle
) -> None:
    result = retrain(training_set, tiny_detector_bundle, tmp_path / "out", "cpu", silent, steps=2)
    manifest = result.bundle.manifest
    assert manifest.detector is not None
    assert manifest.training_data.retrained is not None
    assert manifest.training_data.retrained.held_out_by == "lot"
    with result.bundle.file("audit.csv").open() as file:
        assert len(list(csv.DictReader(file))) == manifest.training_data.images


def test_hyper_parameters_are_the_bases_and_nothing_is_guessed_again(tiny_detector_bundle: Bundle) -> None:
    recipe, base = recipe_of(tiny_detector_bundle), tiny_detector_bundle.manifest
    assert recipe.training.model_dump() == {**base.recipe["training"], **recipe.training.model_dump()}
    assert recipe.data.height_width == (base.preprocess.height, base.preprocess.width)
    assert recipe.data.channels == base.preprocess.channels
    assert recipe.detector is not None
    assert base.detector is not None
    assert recipe.detector.backbone == base.detector.backbone == "own"


def lines(*groups: tuple[str, str, int]) -> list[dict[str, str]]:
    return [{"lot": lot, "day": day} for lot, day, count in groups for _ in range(count)]


def test_lots_before_days_and_never_too_few_or_too_many() -> None:
    for lots, held_out in ((100, 20), (40, 8), (20, 5), (10, 5), (6, 3)):  # of 20 images each
        found = choose_groups(lines(*((f"lot{n}", "d", 20) for n in range(lots))), LEAST)
        assert found is not None
        assert (found[0], len(found[1])) == ("lot", held_out)
    found = choose_groups(lines(*((f"lot{n}", "d", 20) for n in range(10))), LEAST)
    assert found == choose_groups(lines(*((f"lot{n}", "d", 20) for n in reversed(range(10)))), LEAST)
    assert choose_groups(lines(("", "mon", 50), ("", "tue", 20)), LEAST) == ("day", ["tue"])
    assert choose_groups(lines(("a", "mon", 50), ("a", "tue", 50)), LEAST) in [
        ("day", ["mon"]),
        ("day", ["tue"]),
    ]
    assert choose_groups(lines(("a", "mon", 100)), LEAST) is None
    assert choose_groups(lines(("a", "mon", 95), ("b", "mon", 5)), LEAST) is None  # too few to calibrate on
    assert choose_groups([], LEAST) is None


def test_an_export_that_was_tampered_with_is_refused_before_anything_is_written(
    tmp_path: Path, training_set: Path, tiny_bundle: Bundle
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(training_set, copy)
    image = copy / of_use(copy, "train")[0]["image"]
    image.write_bytes(png(defective(0)))  # a defect smuggled in under a good part's name
    with pytest.raises(SnapshotError, match="does not match its sha256"):
        retrain(copy, tiny_bundle, tmp_path / "out", "cpu", silent)
    assert not (tmp_path / "out").exists()


def test_a_run_goes_on_only_as_what_it_was_begun(
    tmp_path: Path, training_set: Path, tiny_bundle: Bundle, again: FitResult
) -> None:
    class Stopped(Exception):
        pass

    @contextmanager
    def stopping(name: str, total: int) -> Iterator[Callable[[int, str], None]]:
        def advance(done: int, note: str) -> None:
            if name == "training" and done == 7:  # the checkpoint is of step 5
                raise Stopped

        yield advance

    out = tmp_path / "out"
    with pytest.raises(Stopped):
        retrain(training_set, tiny_bundle, out, "cpu", stopping, version="2")
    with pytest.raises(FileExistsError, match="add --resume"):
        retrain(training_set, tiny_bundle, out, "cpu", silent, version="2")
    with pytest.raises(RetrainError, match="another base, training set or start"):
        retrain(training_set, tiny_bundle, out, "cpu", silent, resume=True, start="fresh")
    result = retrain(training_set, tiny_bundle, out, "cpu", silent, resume=True, version="2")
    curve = (out / "loss.csv").read_text()
    assert curve == (again.bundle.path.parent / "loss.csv").read_text()
    for name in ("model.safetensors", "calibration.safetensors", "audit.csv"):
        assert result.bundle.file(name).read_bytes() == again.bundle.file(name).read_bytes()


def test_the_command_on_a_line_that_had_one_lot_in_one_day(
    tmp_path: Path,
    tiny_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def trainer(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["inlier-trainer", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    database, blobs = Database(f"sqlite:///{tmp_path / 'inlier.sqlite3'}"), DiskBlobs(tmp_path / "blobs")
    database.migrate()
    line = Line(database, blobs)
    for index in range(16):
        line.inspect(png(part(index)))
    line.export(tmp_path / "export")
    database.close()
    words = ["retrain", tmp_path / "export", "--base", tiny_bundle.path, "--out", tmp_path / "out", "--fresh"]
    code, out, err = trainer(*words, "--steps", 2, "--device", "cpu", "--model-version", "3")
    assert code == 0, err
    assert "calibrated  on the images it was trained on: there are not two lots or days" in out
    assert out.splitlines()[-1] == f"bundle      {tmp_path / 'out' / 'bundle'}"
    manifest = load_bundle(tmp_path / "out/bundle").manifest
    record = manifest.training_data.retrained
    assert record is not None
    assert (record.start, record.held_out_by, record.held_out) == ("fresh", None, ())
    assert (manifest.version, manifest.metrics["steps"], manifest.calibration["fast"].images) == ("3", 2, 16)
    code, _, err = trainer(*words)
    assert (code, "a bundle is never changed" in err) == (2, True)
    code, _, err = trainer("retrain", tmp_path, "--base", tiny_bundle.path, "--out", tmp_path / "x")
    assert (code, "holds no manifest.json" in err) == (2, True)
    assert "Traceback" not in err
