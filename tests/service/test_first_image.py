"""The first image after a server says that it is ready, timed by its client against the ones that follow."""

import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median

import httpx
import pytest

from models.bundle import Bundle
from tests.long import LONG
from tests.service.conftest import png, texture
from tests.service.test_engines import variant
from tests.service.test_server import server
from tests.undisturbed import least

STARTS = 9 if LONG else 1
FOLLOWING = 25
MOST = 1.5 if LONG else 3.0  # one start on a busy machine says little


@pytest.fixture
def chain(bundle: Bundle, tmp_path: Path) -> Bundle:
    """A small real model that takes as many steps as a large one."""
    paper = bundle.manifest.profiles["paper"].model_copy(update={"n_steps": 50})
    return variant(bundle, tmp_path / "chain", "50", profiles={**bundle.manifest.profiles, "paper": paper})


def first_against_others(bundle: Bundle, folder: Path, starts: int, module: str = "service.cli") -> float:
    """The median over so many starts of the first image's time, divided by the median of the others'."""
    return median(_ratio(bundle, folder / f"data{number}", module) for number in range(starts))


def _ratio(bundle: Bundle, data: Path, module: str) -> float:
    data.parent.mkdir(exist_ok=True)
    spent = []
    with (
        server(bundle, data, "--profile", "paper", module=module) as (_, url),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        assert client.get("/healthz/ready").status_code == 200
        for number in range(1 + FOLLOWING):
            image = png(texture(number, (256, 256)))
            headers = {"Content-Type": "image/png", "Prefer": "wait=30"}
            started = time.monotonic()
            assert client.post("/v1/inspections", content=image, headers=headers).status_code == 200
            spent.append(time.monotonic() - started)
    return spent[0] / median(spent[1:])


@pytest.mark.promise(15)
@pytest.mark.timeout(300 if LONG else 120)
def test_the_first_image_is_not_slower_than_the_others(
    chain: Bundle, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    turns = count()
    ratio = least(lambda: first_against_others(chain, tmp_path / f"{next(turns)}", STARTS), MOST, tries=3)
    record_property(f"first image against the others (median of {STARTS} starts)", f"{ratio:.2f}")
    assert ratio <= MOST


@pytest.mark.promise(15, control=True)
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_server_that_is_ready_before_it_is_warm_is_noticed(bundle: Bundle, tmp_path: Path) -> None:
    assert first_against_others(bundle, tmp_path, 1, "tests.service.cold_server") > 3
