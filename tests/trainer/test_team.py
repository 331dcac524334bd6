"""Two processes that train together equal one: through the real `torchrun`, over loopback."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from models.bundle import load_bundle
from models.losses import REDUCTIONS
from trainer.recipe import RecipeError
from trainer.team import Team

TINY = """
[data]
size = 32
[network]
widths = [16, 24]
[training]
steps = 40
batch_size = 4
checkpoint_every = 2
warmup_steps = 2
precision = "fp32"
reduction = { name = "lts" }
corruption = "structured"
outer = { name = "em" }
[calibration]
max_calls = 20
min_images = 4
[profiles]
paper = { kind = "chain", t_noise = 50, t_start = 50, n_steps = 3 }
fast = { kind = "one_step", timesteps = [25, 50] }
"""
LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(launcher: tuple[str, ...], data: Path, recipe: Path, out: Path, *more: str) -> list[str]:
    head = [*launcher, "--standalone"] if launcher else [sys.executable]
    return [*head, "-m", "trainer", "fit", str(data), "--recipe", str(recipe), "--out", str(out), *more]


def fit(launcher: tuple[str, ...], data: Path, recipe: Path, out: Path, *more: str) -> str:
    run = subprocess.run(
        command(launcher, data, recipe, out, *more), capture_output=True, text=True, timeout=300, env=ALONE
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def losses(out: Path) -> list[float]:
    with (out / "loss.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def recipe_file(folder: Path) -> Path:
    path = folder / "tiny.toml"
    path.write_text(TINY)
    return path


def same(one: Path, two: Path, names: tuple[str, ...]) -> None:
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-4)
    for name in names:
        ours, theirs = load_file(two / name), load_file(one / name)
        assert ours.keys() == theirs.keys()
        for key, tensor in theirs.items():
            np.testing.assert_allclose(ours[key], tensor, rtol=1e-3, atol=1e-5, err_msg=f"{name} {key}")


WEIGHTS = ("bundle/model.safetensors", "checkpoint/tensors.safetensors")


# Four starts of Python with torch and two exports: a minute on a busy machine.
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_equal_one_even_if_killed_on_the_way(tmp_path: Path, parts_folder: Path) -> None:
    recipe, one, two = recipe_file(tmp_path), tmp_path / "one", tmp_path / "two"
    fit((), parts_folder, recipe, one)
    started = subprocess.Popen(
        command(LAUNCHER, parts_folder, recipe, two), stderr=subprocess.DEVNULL, env=ALONE
    )
    try:
        until = time.monotonic() + 120
        while not (two / "checkpoint" / "progress.json").exists():
            assert started.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        started.send_signal(signal.SIGTERM)
        assert started.wait(60) != 0
    finally:
        started.kill()
        started.wait()
    assert not (two / "bundle").exists()
    told = fit(LAUNCHER, parts_folder, recipe, two, "--resume")
    assert told.count("bundle      ") == 1, "only the first process reports"
    assert load_bundle(two / "bundle").manifest.metrics["steps"] == 40
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-3)
    for name in ("bundle/model.safetensors", "checkpoint/tensors.safetensors"):
        ours, theirs = load_file(two / name), load_file(one / name)
        assert ours.keys() == theirs.keys()
        for key, tensor in theirs.items():
            np.testing.assert_allclose(ours[key], tensor, rtol=1e-2, atol=1e-4, err_msg=f"{name} {key}")


def test_rows_are_shared_out_evenly() -> None:
    assert [Team(rank, 3).rows(12) for rank in range(3)] == [slice(0, 4), slice(4, 8), slice(8, 12)]
    with pytest.raises(RecipeError, match="10 must be divisible by the 3 processes"):
        Team(0, 3).rows(10)


@pytest.mark.parametrize("options", [{}, {"keep": 0.5, "normalised": False}, {"keep": 0.5}])
def test_reductions_begin_with_the_means_of_the_samples(options: dict[str, float]) -> None:
    """What a team relies on when it shares one number a sample."""
    losses, t = torch.rand(6, 1, 4, 4), torch.linspace(1, 900, 6)
    make = REDUCTIONS["lts" if options else "mean"]
    torch.testing.assert_close(
        make(**options)(losses, t), make(**options)(losses.flatten(1).mean(1)[:, None], t)
    )


def test_a_process_alone_shares_nothing() -> None:
    alone, values = Team(), torch.rand(3)
    assert alone.gather(values) is values
    assert (alone.mean(0.3), alone.first(7.0), alone.leads) == (0.3, 7.0, True)
