"""How long images wait for the engine, and how full its calls are, as a server's own histograms say."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.long import LONG
from tests.service.conftest import flat
from tests.service.test_soak import sleeping_server

DELAY_MS, MORE_MS = 30, 20  # together the bound of a bucket
LONE, MANY = (200, 400) if LONG else (20, 100)
BATCH = 8
pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")


def samples(url: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for family in text_string_to_metric_families(httpx.get(f"{url}/metrics").text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def value(url: str, name: str, **labels: str) -> float:
    """The one sample of this name with these labels."""
    (found,) = (v for n, own, v in samples(url) if n == name and labels.items() <= own.items())
    return found


def post(client: httpx.Client, number: int, wait_s: int) -> None:
    headers = {"Content-Type": "image/png", "Prefer": f"wait={wait_s}"}
    answer = client.post("/v1/inspections", content=flat(number % 250), headers=headers)
    assert answer.status_code in (200, 202), answer.text


@pytest.mark.promise(12)
@pytest.mark.parametrize(("batching", "most_ms"), [("static", DELAY_MS + MORE_MS), ("continuous", 50)])
def test_a_lone_image_waits_for_little_more_than_the_delay(
    tmp_path: Path, batching: str, most_ms: int, record_property: Callable[[str, object], None]
) -> None:
    stage = {"stage": "queue"}
    with (
        sleeping_server(tmp_path / "data", batching=batching, batch_delay_ms=DELAY_MS) as (_, url),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        for number in range(LONE):
            post(client, number, 30)
        within = value(url, "inlier_stage_seconds_bucket", le=str(most_ms / 1000), **stage)
        count = value(url, "inlier_stage_seconds_count", **stage)
        mean_ms = 1000 * value(url, "inlier_stage_seconds_sum", **stage) / count
    record_property(f"lone images, {batching}, that wait at most {most_ms} ms", f"{within / count:.0%}")
    record_property(f"their mean wait, {batching}", f"{mean_ms:.0f} ms")
    assert count == LONE
    assert within >= 0.5 * count  # all but a few on a machine that does nothing else


@pytest.mark.promise(12)
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_calls_are_full_at_saturation(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    with (
        sleeping_server(tmp_path / "data", delay_s=0.4, batch_size=BATCH, queue_size=2 * MANY) as (_, url),
        httpx.Client(base_url=url, timeout=60) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        list(pool.map(lambda number: post(client, number, 0), range(MANY)))
        deadline = time.monotonic() + 200
        while value(url, "inlier_batch_size_sum") < MANY and time.monotonic() < deadline:
            time.sleep(0.1)
        images, calls = value(url, "inlier_batch_size_sum"), value(url, "inlier_batch_size_count")
    record_property("filled at saturation in a server", f"{images / calls / BATCH:.0%}")
    assert images == MANY
    assert images / calls >= 0.8 * BATCH
