"""A bundle to measure with: made-up parts and a recipe, trained once by the trainer's own commands."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from deploy.processes import BIN

FOLDER = Path(__file__).parents[2] / ".bench"


def small_bundle(recipe: Path, name: str, side_px: int = 128) -> Path:
    """The bundle `.bench/<name>/bundle` of a recipe, and its images in `.bench/<name>-parts`."""
    run, parts = FOLDER / name, FOLDER / f"{name}-parts"
    if not (run / "bundle").exists():
        if not parts.exists():
            tool("demo-data", parts, "--images", 48, "--size", side_px)
        shutil.rmtree(run, ignore_errors=True)  # what an interrupted training left
        tool("fit", parts / "train", "--recipe", recipe, "--out", run, "--device", "cpu")
    return run / "bundle"


def tool(*words: object) -> None:
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # a tiny network: threads would wait for each other
    command = [str(BIN / "inlier-trainer"), *map(str, words)]
    subprocess.run(command, check=True, stdout=sys.stderr, env=one_thread)
