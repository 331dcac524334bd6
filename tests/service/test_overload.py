"""Ten times more images than the engine can inspect, in an open loop against a server process.

Posts leave when they are due, whatever became of those before; a refusal is timed from then on. Two keys
may fill half of the queue each. One of them posts three times as often, so that it meets its own bound while
the other has still room, and both meet the queue's once it is full.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.settings import Settings
from tests.long import LONG
from tests.service.conftest import flat, make_key
from tests.service.test_soak import MB, memory_bytes, sleeping_server
from tests.service.test_waits import samples

SECONDS = 90 if LONG else 3
BATCH, CALL_S = 2, 0.5
TIMES_TOO_MUCH = 10
PLACES = 8
IMAGE_BYTES = 50_000
REFUSED = (429, 503)
OFTEN = 4  # of so many posts all but one are the first key's
pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")


@dataclass
class Seen:
    """What clients and a look at the process saw of an overload."""

    statuses: Counter[int] = field(default_factory=Counter)
    refusals_s: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    deepest: float = 0.0
    memory: list[int] = field(default_factory=list)
    at_once: float = 0.0  # share of refusals within 50 ms, as the server's histogram says

    @property
    def p99_ms(self) -> float:
        return 1000 * float(np.percentile(self.refusals_s, 99))

    @property
    def grown_mb(self) -> float:
        """From the first to the last third, as medians."""
        third = max(1, len(self.memory) // 3)
        return float(np.median(self.memory[-third:]) - np.median(self.memory[third : 2 * third])) / MB

    def problems(self) -> list[str]:
        """What is not as a bounded queue is."""
        found = {
            f"{self.deepest:.0f} images were in a queue of {PLACES}": self.deepest > PLACES,
            f"answers were {dict(self.statuses)}": not set(self.statuses) <= {202, *REFUSED},
            "nothing was refused": not any(self.statuses[status] for status in REFUSED),
            f"{self.without_retry_after} refusals without Retry-After": self.without_retry_after > 0,
        }
        return [problem for problem, there in found.items() if there]


async def overload(pid: int, url: str, keys: list[dict[str, str]], seconds: float) -> Seen:
    seen, rate = Seen(), TIMES_TOO_MUCH * BATCH / CALL_S
    started = time.monotonic()

    async def post(client: httpx.AsyncClient, number: int) -> None:
        due = started + number / rate
        await asyncio.sleep(due - time.monotonic())
        content = (
            flat(number % 250) + number.to_bytes(8, "big") + bytes(IMAGE_BYTES)
        )  # the tail is not looked at
        headers = {"Content-Type": "image/png", **keys[number % OFTEN == 0]}
        answer = await client.post("/v1/inspections", content=content, headers=headers)
        seen.statuses[answer.status_code] += 1
        if answer.status_code in REFUSED:
            seen.refusals_s.append(time.monotonic() - due)
            seen.without_retry_after += int(answer.headers.get("retry-after", 0)) < 1

    async def look(client: httpx.AsyncClient) -> None:
        while True:
            shown = (await client.get("/metrics", headers=keys[0])).text
            depth = next(line for line in shown.splitlines() if line.startswith("inlier_queue_depth "))
            seen.deepest = max(seen.deepest, float(depth.split()[1]))
            seen.memory.append(memory_bytes(pid))
            await asyncio.sleep(0.5)

    limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        looking = asyncio.create_task(look(client))
        await asyncio.gather(*(post(client, number) for number in range(round(rate * seconds))))
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    refusals = [
        (name, labels.get("le"), count)
        for name, labels, count in await asyncio.to_thread(lambda: list(samples(url)))
        if labels.get("route") == "/v1/inspections" and labels.get("status") in map(str, REFUSED)
    ]
    within = sum(count for name, le, count in refusals if name.endswith("_bucket") and le == "0.05")
    seen.at_once = within / max(1, sum(count for name, _, count in refusals if name.endswith("_count")))
    return seen


def overloaded(data: Path, seconds: float, **settings: object) -> Seen:
    keys = [make_key(Settings(data=data), "camera", f"camera{number}") for number in range(2)]
    with sleeping_server(
        data, delay_s=CALL_S, batch_size=BATCH, auth="required", public_metrics=True, **settings
    ) as (pid, url):
        return asyncio.run(overload(pid, url, keys, seconds))


@pytest.mark.promise(10)
@pytest.mark.timeout(600 if LONG else 120)
def test_ten_times_too_much_is_refused_at_once(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    seen = overloaded(tmp_path / "data", SECONDS, queue_size=PLACES, queue_share=0.5)
    refused = {status: seen.statuses[status] for status in REFUSED}
    record_property(f"posts in {SECONDS} s", seen.statuses.total())
    record_property("refused", ", ".join(f"{count} with {status}" for status, count in refused.items()))
    record_property("refusals within 50 ms, as the server says", f"{seen.at_once:.1%}")
    record_property("p99 at clients on the same cores", f"{seen.p99_ms:.0f} ms")
    assert seen.problems() == []
    assert all(refused.values())
    assert sum(refused.values()) > 0.7 * seen.statuses.total()
    if LONG:  # alone on the machine
        assert seen.at_once >= 0.99
        assert seen.p99_ms < 1000
        record_property("MB more in the last third than in the second", f"{seen.grown_mb:.1f}")
        assert seen.grown_mb < 10


@pytest.mark.promise(10, control=True)
@pytest.mark.timeout(120)
def test_a_queue_without_its_bound_is_noticed(tmp_path: Path) -> None:
    unbounded = {"queue_size": 100_000, "max_queue_s": 1e6}
    problems = overloaded(tmp_path / "data", 1.5, **unbounded).problems()
    assert any("in a queue of" in problem for problem in problems)
    assert "nothing was refused" in problems
