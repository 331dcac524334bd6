"""The gate on real bundles and a real training set: an equal passes, who is worse at one thing fails it."""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy import stats

from models.bundle import Bundle, Manifest, Retrained, Thresholds, load_bundle, write_bundle
from models.snapshot import SnapshotError, read_manifest, read_reviews
from service.blobs import DiskBlobs
from service.db.repository import thresholds
from service.db.session import Database
from tests.conftest import part
from tests.service.db import rows
from tests.service.training.line import Line
from tests.trainer.pictures import png
from trainer import criteria
from trainer.cli import main
from trainer.exam import Both, GateError, Said, ask_both, open_side, read_exam
from trainer.gate import Gate, Settings, hold, write_json
from trainer.gate_report import write_report

LIMITS = Thresholds(review=1.0, reject=2.0)
SETTINGS = Settings(threads=1, latency_limit=3.0)  # a busy machine must not decide what else is tested


@dataclass(frozen=True)
class Parts:
    """PNGs by how the tiny network scores them, lowest first.

    It was trained for seconds and tells no defect from a good part: so people here call defective what it
    scores high, and it judges most confirmed parts right.
    """

    pictures: list[bytes]
    scores: list[float]

    @property
    def limits(self) -> dict[str, Any]:
        """Between good and defective, and between some of the latter."""
        return suggesting((self.scores[GOOD - 1] + self.scores[GOOD]) / 2, self.scores[GOOD + 6])


GOOD, BAD = 84, 14


@pytest.fixture(scope="module")
def parts(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    folder = tmp_path_factory.mktemp("parts")
    for index in range(GOOD + BAD):
        (folder / f"{index:03}.png").write_bytes(png(part(100 + index)))
    side = open_side(tiny_bundle, "fast", None, threads=1)
    scores = ask_both(side, side, sorted(folder.iterdir()), None, lambda done, total: None).active.calibrated
    order = np.argsort(scores)
    return Parts([png(part(100 + int(index))) for index in order], scores[order].tolist())


def export_with(root: Path, parts: Parts, point: Thresholds | None = None, model_hash: str = "") -> Path:
    """A training set of 84 good parts, half of them confirmed, and 14 defects, three of them missed."""
    database, blobs = Database(f"sqlite:///{root / 'inlier.sqlite3'}"), DiskBlobs(root / "blobs")
    database.migrate()
    line = Line(database, blobs)
    for index, picture in enumerate(parts.pictures):
        if index >= GOOD:
            verdict = "PASS" if index < GOOD + 3 else "REJECT"
            line.inspect(picture, ["defective"], day=index % 4, verdict=verdict)
        else:
            line.inspect(picture, ["good"] if index % 2 else [], day=index % 4)
    if point is not None:
        with database.write() as session:
            rows.add_model(session, model_hash)
            thresholds.add(session, "bolt", model_hash, "fast", point, who="ann", why="")
        line.inspect(png(part(500)), day=9, model_hash=model_hash)
    line.export(root / "export")
    database.close()
    return root / "export"


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory, parts: Parts) -> Path:
    return export_with(tmp_path_factory.mktemp("line"), parts)


class Maker:
    """Bundles like another one but for something; nothing is trained."""

    def __init__(self, base: Bundle, folder: Path) -> None:
        self.base, self._folder, self._made = base, folder, 0

    def __call__(self, change: dict[str, Any] | None = None, file: str = "", shift: float = 0.0) -> Bundle:
        """`change` to the calibration of every profile; `shift` of the weights in a file."""
        self._made += 1

        def fill(work: Path) -> Manifest:
            for name in self.base.manifest.files:
                shutil.copy(self.base.file(name), work / name)
            if file:
                arrays = load_file(work / file)
                save_file({key: values + np.float32(shift) for key, values in arrays.items()}, work / file)
            values = self.base.manifest.model_dump()
            for calibration in values["calibration"].values():
                calibration |= change or {}
            return Manifest.model_validate({**values, "version": str(self._made)})

        return write_bundle(self._folder / str(self._made), fill)


def suggesting(review: float, reject: float) -> dict[str, Any]:
    return {"suggested": {"review": review, "reject": reject}}


@pytest.fixture(scope="module")
def make(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory, parts: Parts) -> Maker:
    """Bundles whose limits lie between this line's good and defective parts."""
    maker = Maker(tiny_bundle, tmp_path_factory.mktemp("bundles"))
    maker.base = maker(parts.limits)
    return maker


def held(make: Maker, candidate: Bundle, export: Path, settings: Settings = SETTINGS) -> Gate:
    return hold(candidate, make.base, read_exam(export, None, None, 60), settings)


def failed(gate: Gate) -> set[str]:
    return {one.name for one in gate.criteria if one.passed is False}


def test_an_equal_passes_every_criterion(make: Maker, export: Path) -> None:
    gate = held(make, make(), export)
    assert gate.passed
    assert [one.name for one in gate.criteria] == [
        *("golden", "escapes", "overkill", "review_load", "drift", "parity", "latency")
    ]
    assert all(one.passed is True and one.why for one in gate.criteria)
    assert gate.worse == []
    assert gate.facts["images"]["escapes"] == 3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (suggesting(99.0, 99.0), {"golden", "escapes"}),  # passes everything
        (suggesting(-99.0, -99.0), {"golden", "overkill"}),  # rejects everything
        (suggesting(-99.0, 99.0), {"review_load"}),  # leaves everything to people
    ],
)
def test_a_worse_candidate_is_stopped_by_what_it_is_worse_at(
    make: Maker, export: Path, change: dict[str, Any], expected: set[str]
) -> None:
    gate = held(make, make(change), export)
    assert not gate.passed
    assert failed(gate) == expected


def test_one_more_missed_defect_is_one_too_many(make: Maker, export: Path) -> None:
    exam = read_exam(export, None, None, 60)
    side = open_side(make.base, "fast", None, threads=1)
    found = ask_both(side, side, exam.escapes, None, lambda done, total: None).candidate.calibrated
    least, next_ = np.sort(found)[:2]
    assert least < next_
    strict = make(suggesting(float(least), 99.0))  # none of the missed defects passes any more
    lax = make(suggesting(float((least + next_) / 2), 99.0))  # one of them does

    def verdict(candidate: Bundle, active: Bundle) -> criteria.Criterion:
        gate = hold(candidate, active, exam, SETTINGS)
        return next(one for one in gate.criteria if one.name == "escapes")

    one_more = verdict(lax, strict)
    assert (one_more.passed, one_more.value, one_more.limit) == (False, 1.0, 0.0)
    assert len(one_more.detail["newly_missed"]) == 1
    better = verdict(strict, lax)
    assert (better.passed, better.value, better.limit) == (True, 0.0, 1.0)


def test_weights_that_are_not_what_was_exported_fail_parity_and_nothing_else(
    make: Maker, export: Path
) -> None:
    gate = held(make, make(file="model.safetensors", shift=0.02), export)
    assert failed(gate) == {"parity"}


def test_a_calibration_that_is_off_fails_drift(make: Maker, export: Path) -> None:
    location = make.base.manifest.calibration["fast"].score_location
    gate = held(make, make({"score_location": location - 2.0}), export)
    assert "drift" in failed(gate)


def test_the_latency_limit_is_a_ratio_side_by_side(make: Maker, export: Path) -> None:
    tight = Settings(threads=1, latency_limit=0.01)
    gate = held(make, make(), export, tight)
    assert failed(gate) == {"latency"}
    (found,) = [one for one in gate.criteria if one.name == "latency"]
    assert found.value == pytest.approx(1.0, abs=0.7)


def test_the_limits_in_force_come_with_the_training_set(make: Maker, parts: Parts, tmp_path: Path) -> None:
    export = export_with(tmp_path, parts, LIMITS, make.base.hash)
    gate = hold(make.base, make.base, read_exam(export, None, None, 20), SETTINGS)
    assert gate.active.limits == LIMITS
    assert gate.candidate.limits == make.base.manifest.calibration["fast"].suggested
    own = Thresholds(review=0.5, reject=0.5)
    settings = Settings(threads=1, active_limits=own, latency_limit=3.0)
    assert hold(make.base, make.base, read_exam(export, None, None, 20), settings).active.limits == own
    other = hold(make.base, make(), read_exam(export, None, None, 20), SETTINGS)  # another model's limits
    assert other.active.limits == make.base.manifest.calibration["fast"].suggested


def test_too_few_confirmed_parts_prove_nothing(make: Maker, export: Path, tmp_path: Path) -> None:
    for name in ("good", "defective"):
        (tmp_path / "golden" / name).mkdir(parents=True)
    (tmp_path / "escapes").mkdir()
    image = next((export / "golden" / "good").iterdir())
    shutil.copy(image, tmp_path / "golden" / "good" / image.name)
    exam = read_exam(None, tmp_path / "golden", tmp_path / "escapes", 60)
    gate = hold(make(), make.base, exam, SETTINGS)
    assert failed(gate) == {"golden"}
    assert "at least 20 are needed" in gate.criteria[0].why
    assert [one.passed for one in gate.criteria if one.name == "drift"] == [None]
    assert hold(make(), make.base, exam, Settings(least_golden=0, threads=1, latency_limit=3.0)).passed


def test_chance_on_the_golden_set_is_the_sign_test() -> None:
    def p_value(against: int, different: int) -> float:
        return float(stats.binomtest(against, different, 0.5, alternative="greater").pvalue)

    for different in range(1, 40):
        allowed = criteria.chance_allows(different)
        assert allowed == different or p_value(allowed + 1, different) < criteria.ALPHA
        assert p_value(allowed, different) >= criteria.ALPHA
    assert [criteria.chance_allows(n) for n in (0, 1, 4, 5, 10)] == [0, 1, 4, 4, 8]


def test_psi_of_a_known_case_and_what_chance_adds() -> None:
    rng = np.random.default_rng(0)
    same = [criteria.psi(rng.normal(size=200), rng.normal(size=200)) for _ in range(200)]
    assert np.mean([found <= limit for found, limit in same]) > 0.94
    moved, limit = criteria.psi(rng.normal(size=2000), rng.normal(1.0, size=2000))
    assert moved > 2 * limit
    # Two bins at the median, all of one sample above it: (.5 - ~0) ln(.5 / ~0) + (.5 - 1) ln(.5 / 1)
    low, high = np.arange(20.0), np.arange(100.0, 120.0)
    p, q = np.array([10.5, 10.5]) / 21, np.array([0.5, 20.5]) / 21
    found, _ = criteria.psi(low, high)
    assert found == pytest.approx(float(np.sum((p - q) * np.log(p / q))))


def test_a_line_that_left_the_active_model_is_no_fault_of_the_candidate(make: Maker) -> None:
    side = open_side(make.base, "fast", None, threads=1)
    raw = side.bundle.training_scores("fast")
    usual = np.array([side.calibration.score.calibrate(float(score)) for score in raw])
    codes = np.zeros(len(raw), dtype=np.int64)
    settled, moved = Said(raw, usual, codes), Said(raw, usual + 4.0, codes)
    paths = [Path(str(index)) for index in range(len(raw))]
    excused = criteria.drift(Both(paths, candidate=settled, active=moved), side, side)
    assert excused.passed
    assert "moved away from the active model's calibration" in excused.why
    assert not criteria.drift(Both(paths, candidate=moved, active=settled), side, side).passed


def test_recent_images_are_those_the_candidate_did_not_learn_from(export: Path) -> None:
    lines = [line for line in read_reviews(export) if line["use"] == "train"]
    day = lines[0]["day"]
    retrained = Retrained(
        base="0" * 64,
        start="warm",
        recipe="bolt",
        training_set=read_manifest(export).snapshot,
        held_out_by="day",
        held_out=(day,),
    )
    recent = read_exam(export, None, None, 400, retrained).recent
    assert {path.name for path in recent} == {
        Path(line["image"]).name for line in lines if line["day"] == day
    }
    every = read_exam(export, None, None, 400).recent
    assert 0 < len(recent) < len(every)
    assert read_exam(export, None, None, 1, retrained).recent == recent[:1]
    # Of another training set nothing is known, and so it is where nothing was held out.
    for other in ({"training_set": "1" * 64}, {"held_out_by": None, "held_out": ()}):
        assert read_exam(export, None, None, 400, retrained.model_copy(update=other)).recent == every


def test_a_tampered_golden_set_is_refused(export: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(export, copy)
    easy, hard = next((copy / "golden/good").iterdir()), next((copy / "golden/defective").iterdir())
    easy.write_bytes(hard.read_bytes())
    with pytest.raises(SnapshotError, match="does not match its sha256"):
        read_exam(None, copy / "golden", copy / "escapes", 10)
    (copy / "manifest.json").write_text('{"kind": "inlier-training-set"}')
    with pytest.raises(SnapshotError, match="is not valid"):
        read_exam(None, copy / "golden", copy / "escapes", 10)


def test_an_unreadable_confirmed_part_is_not_passed_over(make: Maker, tmp_path: Path) -> None:
    (tmp_path / "golden" / "good").mkdir(parents=True)
    (tmp_path / "escapes").mkdir()
    (tmp_path / "golden" / "good" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    exam = read_exam(None, tmp_path / "golden", tmp_path / "escapes", 10)
    with pytest.raises(GateError, match=r"torn\.png cannot be read"):
        hold(make(), make.base, exam, SETTINGS)


def test_the_report_and_the_json(make: Maker, export: Path, tmp_path: Path) -> None:
    gate = held(make, make(suggesting(99.0, 99.0)), export)
    write_json(tmp_path / "gate.json", gate)
    found = json.loads((tmp_path / "gate.json").read_text())
    assert found["passed"] is False
    by_name = {one["name"]: one for one in found["criteria"]}
    assert set(by_name["golden"]) >= {"value", "limit", "passed", "why"}
    assert by_name["escapes"]["passed"] is False
    assert found["candidate"]["bundle_sha256"] == gate.candidate.bundle.hash
    assert str(tmp_path) not in json.dumps(found)

    write_report(tmp_path / "gate.html", gate)
    page = (tmp_path / "gate.html").read_text()
    assert "Stopped" in page
    assert page.count("<figure>") == min(24, len(gate.worse)) > 0
    assert "Candidate, profile fast" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page


def test_the_exit_code_says_it(
    make: Maker,
    export: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["inlier-trainer", "gate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    active = ["--against", make.base.path]
    words = [*active, "--export", export, "--latency-limit", 5, "--threads", 1, "--recent", 20]
    code, out, _ = run(make().path, *words, "--json", tmp_path / "a" / "g.json")
    assert (code, out.splitlines()[-1]) == (0, "the candidate may go on")
    assert json.loads((tmp_path / "a" / "g.json").read_text())["passed"] is True
    code, out, _ = run(make(suggesting(99.0, 99.0)).path, *words, "--html", tmp_path / "g.html")
    assert (code, out.splitlines()[-1]) == (1, "the candidate is stopped by: golden set, escape set")
    assert "FAILED     escapes" in out
    assert "<html" in (tmp_path / "g.html").read_text()
    for wrong, complaint in (
        (["--against", tmp_path, "--export", export], "is not a bundle"),
        (active, "--export"),
        ([*active, "--export", tmp_path], "not a folder"),
        ([*words, "--profile", "none"], "has no profile none"),
        ([*words, "--active-limits", 2, 1], "not in order"),
        (["--export", export], "Missing option '--against'"),
    ):
        code, _, told = run(make.base.path, *wrong)
        assert (code, complaint in told) == (2, True), told


def test_the_bundles_stay_what_they_were(make: Maker) -> None:
    assert load_bundle(make.base.path).hash == make.base.hash
