"""A study from plan to report, on the real service; and what is refused."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from service.cli import cli
from service.client import Client
from service.settings import Settings
from tests.service.conftest import PixelEngine
from tests.service.live import live

PARTS = {"G1": ("good", 2), "G2": ("good", 1), "B1": ("defective", 9), "B2": ("defective", 2)}  # B2 is missed


@pytest.fixture
def url(settings: Settings, engine: PixelEngine) -> Iterator[str]:
    with live(settings, engine) as address:
        yield address


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["msa", *map(str, arguments)])


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def parts_file(folder: Path) -> Path:
    path = folder / "parts.csv"
    path.write_text("part,reference\n" + "".join(f"{name},{kind}\n" for name, (kind, _) in PARTS.items()))
    return path


def picture(value: int, trial: int) -> bytes:
    """A flat picture of a value, told from other trials by its size alone."""
    image = np.full((16 + trial, 16 + trial, 3), value, np.uint8)
    return cv2.imencode(".png", image)[1].tobytes()


def draw(folder: Path) -> Path:
    for name, (_, value) in PARTS.items():
        for trial in (1, 2):
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / f"{trial}.png").write_bytes(picture(value, trial))
    return folder


@pytest.fixture
def study(tmp_path: Path) -> Path:
    made = command("plan", parts_file(tmp_path), "--out", tmp_path / "study", "--trials", 2)
    assert made.exit_code == 0, made.output
    return tmp_path / "study"


def test_from_plan_to_report(study: Path, tmp_path: Path, url: str) -> None:
    plan = rows(study / "plan.csv")
    assert set(plan[0]) == {"run", "part", "trial"}  # blind
    assert sorted(row["part"] for row in plan[:4]) == sorted(PARTS)  # each trial shows every part
    assert [row["part"] for row in plan] != sorted(row["part"] for row in plan)
    ran = command("run", study, "--images", draw(tmp_path / "pictures"), "--url", url, "--station", "gauge")
    assert ran.exit_code == 0, ran.output
    told = command("report", study)
    assert told.exit_code == 0, told.output
    assert "misses         50.0 %" in told.output
    figures = json.loads((study / "report.json").read_text())
    assert figures["false_alarm"]["share"]["value"] == 0
    assert figures["effectiveness"]["share"]["value"] == 0.75
    page = (study / "report.html").read_text()
    assert "<td>B2</td>" in page
    assert "<td>G1</td>" not in page
    assert "<script" not in page
    assert "http://" not in page
    by_part = {row["part"]: row for row in rows(study / "parts.csv")}
    assert by_part["B2"]["verdicts"] == "PASS PASS"
    with Client(url) as client:
        stored = list(client.inspections(**{"attr.msa": "study"}))
    assert len(stored) == 8
    assert {each.document["station"] for each in stored} == {"gauge"}


def test_a_run_that_broke_off_goes_on_and_posts_nothing_twice(study: Path, tmp_path: Path, url: str) -> None:
    images = draw(tmp_path / "pictures")
    command("run", study, "--images", images, "--url", url)
    kept = (study / "results.csv").read_text().splitlines()
    (study / "results.csv").write_text("\n".join(kept[:4]) + "\n")
    assert "have no result" in command("report", study).output
    assert command("run", study, "--images", images, "--url", url).exit_code == 0
    assert (study / "results.csv").read_text().splitlines() == kept  # the same inspections
    with Client(url) as client:
        assert len(list(client.inspections())) == 8


def test_what_cameras_posted_is_collected(study: Path, url: str) -> None:
    with Client(url) as client:
        for trial in (1, 2):
            for name, (_, value) in PARTS.items():
                if (name, trial) != ("B1", 2):
                    said = {"msa": "study", "msa_trial": trial}
                    client.inspect(picture(value, trial), wait_s=10, serial=name, attributes=said)
        short = command("run", study, "--url", url)
        assert short.exit_code == 2
        assert "the first is B1, trial 2" in short.output
        said = {"msa": "study", "msa_trial": 2}
        client.inspect(picture(9, 2), wait_s=10, serial="B1", attributes=said)
    assert command("run", study, "--url", url).exit_code == 0
    assert command("report", study).exit_code == 0


def test_the_same_picture_twice_is_no_second_trial(study: Path, tmp_path: Path) -> None:
    images = draw(tmp_path / "pictures")
    (images / "G1" / "2.png").write_bytes((images / "G1" / "1.png").read_bytes())
    refused = command("run", study, "--images", images)
    assert refused.exit_code == 2
    assert "the same picture" in refused.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("part,reference\nA,good\nB,bad\n", "line 3: reference 'bad'"),
        ("part,reference\nA,good\nA,defective\n", "A is listed twice"),
        ("part,reference\nA,good\n", "no defective one"),
        ("part\nA\n", "no column 'reference'"),
        ("part,reference\n,good\n", "line 2: a part needs a name"),
    ],
)
def test_parts_that_cannot_be_studied(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "parts.csv").write_text(text)
    refused = command("plan", tmp_path / "parts.csv", "--out", tmp_path / "study")
    assert refused.exit_code == 2
    assert said in refused.output
    assert not (tmp_path / "study").exists()


def test_plans_are_not_overwritten_and_need_two_trials(study: Path, tmp_path: Path) -> None:
    again = command("plan", tmp_path / "parts.csv", "--out", study)
    assert "holds a study already" in again.output
    once = command("plan", tmp_path / "parts.csv", "--out", tmp_path / "other", "--trials", 1)
    assert "--trials must be 2" in once.output
    assert "holds no study" in command("report", tmp_path / "other").output
    assert "have no picture" in command("run", study, "--images", tmp_path).output
