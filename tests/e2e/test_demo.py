"""`make demo` itself: every stage, the table, a clean end, and a second run that keeps what is finished."""

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from models.bundle import load_bundle
from models.engine import open_engine

ROOT = Path(__file__).parents[2]
RUN = [sys.executable, str(ROOT / "deploy/demo/run.py")]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo has run once, in full.

    Its training is spared where INLIER_DEMO_TRAINED names a folder that a demo has trained in.
    """
    folder = tmp_path_factory.mktemp("demo")
    if trained := os.environ.get("INLIER_DEMO_TRAINED"):
        for kept in (*Path(trained).glob("data-*"), *Path(trained).glob("model-*")):
            shutil.copytree(kept, folder / kept.name)
    run = subprocess.run([*RUN, "--exit", "--work", str(folder)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    (folder / "output.txt").write_text(run.stdout)
    return folder


def test_demo_prints_verdicts_and_finds_most_defects(work: Path) -> None:
    output = (work / "output.txt").read_text()
    rows = re.findall(r"^ +(\S+)/\d+\.png +(PASS|REVIEW|REJECT) +-?[\d.]+ +\d+ +(\S+)$", output, re.M)
    assert len(rows) == 70
    assert all(folder == truth for folder, _, truth in rows)
    image, pixel = (float(re.findall(rf"{name} AUROC ([\d.]+)", output)[0]) for name in ("image", "pixel"))
    assert image > 0.8
    assert pixel > 0.8
    assert re.search(r"http://127\.0\.0\.1:\d+/\S+", output)


@pytest.mark.parametrize("what", ["noise", "stripes", "checker", "black"])
@pytest.mark.parametrize("profile", ["fast", "few"])
def test_a_picture_of_no_part_is_never_a_pass(work: Path, what: str, profile: str) -> None:
    """A dead camera or a covered lens must not score like a good part because all of it is wrong."""
    (found,) = work.glob("model-*/bundle")
    engine = open_engine(load_bundle(found), threads=1)
    spec, calibration = engine.manifest.preprocess, engine.manifest.calibration[profile]
    y, x = np.mgrid[: spec.height, : spec.width]
    pictures = {
        "noise": np.random.default_rng(0).uniform(-1, 1, (spec.height, spec.width)),
        "stripes": np.where(x % 4 < 2, 1.0, -1.0),
        "checker": np.where((x + y) % 2, 1.0, -1.0),
        "black": np.full((spec.height, spec.width), -1.0),
    }
    image = np.repeat(pictures[what].astype(np.float32)[None, None], spec.channels, axis=1)
    (result,) = engine.run(image, [1], profile)
    assert calibration.score.calibrate(result.score) >= calibration.suggested.review


def test_second_run_keeps_what_is_there_and_ends_cleanly_on_ctrl_c(work: Path) -> None:
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [*RUN, "--work", str(work)], stdout=terminal, stderr=terminal, start_new_session=True
    )
    os.close(terminal)
    seen: list[bytes] = []
    up = threading.Event()

    def read() -> None:
        while chunk := _read(main):
            seen.append(chunk)
            if b"Ctrl-C" in b"".join(seen):
                up.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert up.wait(300), b"".join(seen).decode()
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 0
    reader.join(10)
    os.close(main)
    text = b"".join(seen).decode()
    assert "Traceback" not in text
    assert text.count("kept from before") == 2


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the other end was closed
        return b""


def test_a_failing_stage_is_one_line_and_a_status(tmp_path: Path) -> None:
    command = [*RUN, "--exit", "--work", str(tmp_path), "--images", "2", "--steps", "0"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1
    assert "demo failed" in run.stdout
    assert "Traceback" not in run.stdout + run.stderr
