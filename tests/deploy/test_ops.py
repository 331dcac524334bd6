"""The test of operations in its short form, and its parts; the arithmetic of docs/sizing.md."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.ops_test.__main__ import MUST_FIRE, failures
from deploy.ops_test.line import hurried
from deploy.ops_test.load import Load, Posted
from deploy.sizing import plan
from models.bundle import Bundle
from tests.deploy.prometheus import program
from tests.deploy.test_rules import ALERTS
from tests.service.postgres import private_postgres

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_line_under_faults_loses_nothing(tiny_bundle: Bundle, parts_folder: Path, tmp_path: Path) -> None:
    """PostgreSQL, Redis, API, two workers, Prometheus: killed, backed up, upgraded, and accounted for."""
    program("prometheus")
    with private_postgres():
        pass  # skips where there is none
    chart, report = tmp_path / "chart.png", tmp_path / "report.json"
    command = [
        sys.executable,
        "-m",
        "deploy.ops_test",
        "--seconds",
        "100",
        "--rate",
        "4",
        "--chart",
        str(chart),
    ]
    command += ["--bundle", str(tiny_bundle.path), "--parts", str(parts_folder), "--report", str(report)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=880)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(report.read_text())
    assert said["images"]["accepted"] > 100
    assert said["images"]["missing"] == said["images"]["doubled"] == 0
    assert chart.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_chaos_loses_nothing(tiny_bundle: Bundle, parts_folder: Path) -> None:
    program("prometheus")
    with private_postgres():
        pass  # skips where there is none
    command = [sys.executable, "-m", "deploy.chaos", "--minutes", "0.7", "--seed", "3"]
    command += ["--bundle", str(tiny_bundle.path), "--parts", str(parts_folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.findall(r"(\d+) faults", done.stdout)[0]) >= 2
    assert re.search(r"missing +0\n", done.stdout)


def test_what_the_test_waits_for_exists() -> None:
    assert set(MUST_FIRE) <= set(ALERTS)


@pytest.mark.parametrize(
    ("expression", "faster"),
    [
        ("rate(x[5m])", "rate(x[5000ms])"),
        ("x[1h] offset 15m", "x[60000ms] offset 15000ms"),
        (
            "min_over_time((a > bool b)[119m59s:10m]) == 1",
            "min_over_time((a > bool b)[119983ms:10000ms]) == 1",
        ),
        ("inlier:failed:ratio_rate1h > 14.4 * 0.005", "inlier:failed:ratio_rate1h > 14.4 * 0.005"),
    ],
)
def test_rules_in_a_hurry_are_the_same_rules(expression: str, faster: str) -> None:
    assert hurried(expression) == faster


def test_losses_are_told() -> None:
    fine = {
        "images": {"accepted": 2, "done": 2, "missing": 0, "doubled": 0, "images missing": 0},
        "dashboards": {"without data": []},
        "backup": {"inspections": 2, "whole after restore": 2},
        "messages received": 2,
    }
    load = Load("", {}, [], 1.0, posted=[Posted("a", "k", 0.0, 1.0, 1, "PASS")])
    fired = {name: [10.0, 20.0] for name in MUST_FIRE}
    assert failures(fine, load, fired, 100.0) == []
    wrong = {**fine, "images": {**fine["images"], "missing": 1}}
    assert failures(wrong, load, fired, 100.0) == ["missing: 1"]
    assert failures({**fine, "backup": {"inspections": 2, "whole after restore": 1}}, load, fired, 100.0)
    assert failures({**fine, "messages received": 1}, load, fired, 100.0) == [
        "1 messages came to the webhook"
    ]
    still = {**fired, "InlierDown": [10.0, 99.0]}
    assert failures(fine, load, still, 100.0) == ["InlierDown was not resolved"]
    assert failures(fine, load, {}, 100.0) == [f"{name} did not fire" for name in MUST_FIRE]
    load.refused.append("422")
    assert failures(fine, load, fired, 100.0) == ["0 given up, 1 refused, 1 accepted"]


def test_the_tables_of_the_sizing_page_are_what_the_formula_gives() -> None:
    page = (ROOT / "docs/sizing.md").read_text()
    assert plan.table() in page, f"put this there:\n{plan.table()}"
    assert f"{plan.ROW_BYTES:,}" in page
    assert f"{plan.FILE_BYTES:,}" in page


def test_sizing_is_linear_in_lines_and_pixels() -> None:
    one, ten = plan.plan(1, 30, 16, 30), plan.plan(10, 30, 16, 30)
    assert ten.files_gb == pytest.approx(10 * one.files_gb)
    assert one.millions_a_year == pytest.approx(30 * 60 * 16 * 365 / 1e6)
    # 0.5 images/s of a core that makes 4.01 at 128 px and a quarter of that at 256 px, used to 60 %.
    assert (one.cores, ten.cores) == (1, 9)
    assert plan.plan(1, 30, 16, 30, side_px=512).files_gb == pytest.approx(4 * one.files_gb)
