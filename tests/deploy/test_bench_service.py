"""The service benchmark: its pictures are what it says they are, and it counts its own process."""

import os
import time

import pytest

from deploy.bench.service import BYTES, FORMATS, Window, distinct, picture, processor_s, table
from models.decode import decode
from models.samplers import image_seed


@pytest.mark.parametrize("suffix", FORMATS)
def test_pictures_are_as_large_as_said_and_never_seen_before(suffix: str) -> None:
    data = picture(suffix, BYTES // 2)
    assert BYTES // 2 <= len(data) < 0.7 * BYTES
    one, two = distinct(data, 1), distinct(data, 2)
    assert image_seed(one) != image_seed(two)
    assert (decode(one).pixels == decode(two).pixels).all()


def test_processor_time_is_that_of_work() -> None:
    before = processor_s(os.getpid())
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    assert processor_s(os.getpid()) - before == pytest.approx(0.2, abs=0.15)


def test_overhead_is_in_the_table() -> None:
    overhead = [float(value) for value in range(101)]
    one = Window(".png", 1_000_000, overhead, [200.0] * 101, [7.0] * 101, 12.5, {}, 2, 0.5, [3.0] * 101)
    cells = table([one]).splitlines()[-1].split(" | ")
    assert cells == [
        "| PNG",
        "1.00",
        "1",
        "101",
        "2",
        "7.0",
        "50.0",
        "95.0",
        "99.0",
        "100.0",
        "3.0",
        "12.5",
        "0.5 |",
    ]
