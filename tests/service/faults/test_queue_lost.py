"""What Redis forgets is queued again in time."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.long import LONG, WHY
from tests.service.faults.conftest import Lines
from tests.service.faults.line import Line, calling, client, unfinished, until
from tests.service.queue.conftest import PrivateRedis

PROMISED_S = 30.0
KNOWN = "{inlier}:known"


def queued_again_after(line: Line, server: PrivateRedis, images: int, *, restarted: bool) -> float:
    """Seconds from a flush, or an empty Redis that is back, until it has every unfinished image again.

    Who looks for lost images is killed with it: another process has to take that over.
    """
    api = line.api().wait()
    redis = client(server.url)
    with calling(line.url, most=images) as answers:
        until(lambda: len(answers.accepted) + len(answers.refused) == images, 600)
    assert answers.refused == []
    assert redis.hlen(KNOWN) == images
    line.worker(delay_s=1000).wait()  # runs nothing to its end, but sweeps
    if restarted:
        server.stop()
        api.kill()
        time.sleep(1)
        server.start()
    else:
        api.kill()
        redis.flushall()
    spent_s = until(lambda: redis.hlen(KNOWN) == images, 120)
    assert unfinished(line.database_url) == images
    return spent_s


@pytest.mark.promise(8)
@pytest.mark.parametrize("restarted", [False, True])
def test_what_redis_forgot_is_queued_again_in_time(
    new_line: Lines,
    shared: dict[str, Any],
    redis_server: PrivateRedis,
    restarted: bool,
    record_property: Callable[[str, object], None],
) -> None:
    line = new_line(**{**shared, "sweep_s": 0.5})
    spent_s = queued_again_after(line, redis_server, 20, restarted=restarted)
    record_property(f"20 images {_after(restarted)} (looked for every 0.5 s)", f"{spent_s:.1f} s")
    assert spent_s <= PROMISED_S


@pytest.mark.promise(8)
@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason=WHY)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("restarted", [False, True])
def test_a_thousand_images_are_queued_again_in_time(
    new_line: Lines,
    shared: dict[str, Any],
    redis_server: PrivateRedis,
    restarted: bool,
    record_property: Callable[[str, object], None],
) -> None:
    given = {**shared, "queue_size": 2000, "max_queue_s": 1e6}
    del given["sweep_s"]  # as it is when nobody says anything
    spent_s = queued_again_after(new_line(**given), redis_server, 1000, restarted=restarted)
    record_property(f"1000 images {_after(restarted)}", f"{spent_s:.1f} s")
    assert spent_s <= PROMISED_S


def _after(restarted: bool) -> str:
    return f"queued again after {'a restart of Redis' if restarted else 'a flush'}"
