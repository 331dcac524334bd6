"""The load generator: open loop, honest about itself, harmless by default."""

import asyncio
import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from service.camera.simulate import Load, Report, departures, find_images, percentiles, simulate, table
from service.cli import cli
from service.client import AsyncClient
from tests.service.conftest import PixelEngine, flat


def fill(folder: Path) -> Path:
    """MVTec-AD layout: `good` parts that pass, `spot` ones that do not."""
    for name, value in (("good", 1), ("spot", 9)):
        (folder / "test" / name).mkdir(parents=True)
        (folder / "test" / name / "000.png").write_bytes(flat(value))
    (folder / "ground_truth" / "spot").mkdir(parents=True)
    cv2.imwrite(str(folder / "ground_truth/spot/000_mask.png"), np.zeros((4, 4), np.uint8))
    return folder


def run(url: str, folder: Path, load: Load) -> Report:
    async def work() -> Report:
        async with AsyncClient(url, retry_for_s=0, connections=load.concurrency) as client:
            return await simulate(client, *find_images(folder), load)

    return asyncio.run(work())


def test_arrivals_have_the_wanted_rate() -> None:
    uniform = list(departures(Load(rate=10, duration_s=2, arrivals="uniform")))
    assert uniform == pytest.approx([n / 10 for n in range(1, 21)])
    poisson = list(departures(Load(rate=100, duration_s=100, seed=1)))
    gaps = np.diff(poisson)
    assert len(poisson) == pytest.approx(10_000, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # as of an exponential distribution
    again = departures(Load(rate=100, duration_s=100, seed=1))
    assert list(itertools.islice(again, 5)) == poisson[:5]


def test_percentiles_are_those_of_numpy() -> None:
    values = list(np.random.default_rng(0).exponential(size=137))
    found = percentiles(values)
    for name, value in found.items():
        rank = 100 if name == "max" else int(name[1:])
        assert value == np.percentile(values, rank, method="inverted_cdf")
    assert percentiles([]) == {}


def test_verdicts_are_counted_by_truth(url: str, folder: Path) -> None:
    report = run(url, fill(folder), Load(rate=40, duration_s=1, arrivals="uniform"))
    assert report.sent == len(report.latencies_s) == 40
    assert report.by_truth["good"] == {"PASS": report.by_truth["good"].total()}
    assert report.by_truth["defective"] == {"REJECT": report.by_truth["defective"].total()}
    assert report.verdicts.total() == 40
    shown = table(report, Load(rate=40, duration_s=1, arrivals="uniform"))
    for word in ("p99", "PASS", "REJECT", "good parts", "defective parts", "errors"):
        assert word in shown


def test_it_does_not_wait_for_answers_and_says_what_it_left_out(
    url: str, folder: Path, engine: PixelEngine
) -> None:
    engine.go.clear()
    load = Load(rate=20, duration_s=1, arrivals="uniform", concurrency=5)

    async def work() -> Report:
        async with AsyncClient(url, retry_for_s=0) as client:
            task = asyncio.create_task(simulate(client, *find_images(fill(folder)), load))
            await asyncio.sleep(2.5)
            engine.go.set()
            return await task

    report = asyncio.run(work())
    assert (report.sent, report.left_out) == (5, 15)
    assert max(report.latencies_s) > 1.0  # counted from when they should have left


def test_errors_are_part_of_the_figures(url: str, folder: Path) -> None:
    (folder / "bad.png").write_bytes(b"no image")
    report = run(url, folder, Load(rate=10, duration_s=0.5, arrivals="uniform"))
    assert report.errors.total() == report.sent == 5
    assert next(iter(report.errors)).startswith("415 ")


def test_other_machines_are_not_loaded_by_accident(folder: Path) -> None:
    fill(folder)
    for address in ("http://10.0.0.1:8000", "http://line.example", "http://127.0.0.1.line.example"):
        done = CliRunner().invoke(cli, ["simulate", str(folder), "--rate", "1", "--url", address])
        assert done.exit_code == 2
        assert "--allow-remote" in done.output


def test_command_prints_the_table_and_writes_the_figures(url: str, folder: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    arguments = ["simulate", str(fill(folder)), "--url", url, "--rate", "20", "--duration", "0.5"]
    done = CliRunner().invoke(cli, [*arguments, "--arrivals", "uniform", "--json", str(figures)])
    assert done.exit_code == 0, done.output
    assert "latency" in done.output
    assert json.loads(figures.read_text())["answered"] == 10
    empty = tmp_path / "empty"
    empty.mkdir()
    assert CliRunner().invoke(cli, ["simulate", str(empty), "--url", url, "--rate", "1"]).exit_code == 2
