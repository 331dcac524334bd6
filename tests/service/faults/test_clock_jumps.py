"""The system's time jumps by an hour under a service, its workers and Redis, while images run."""

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from service.db.session import Database
from tests.service.faults.line import Answers, Children, Line, Member, post, rows, unfinished, until
from tests.service.faults.test_told_once import heard
from tests.service.outbox.conftest import add_sink
from tests.service.queue.conftest import PrivateRedis
from tests.service.receiver import Receiver

HOUR_S = 3600
LEASE_S = 2.0
SOURCE = Path(__file__).with_name("clock.c")
Record = Callable[[str, object], None]


@dataclass(frozen=True)
class Clock:
    """The system's time as the processes see it that were started with it."""

    path: Path

    def jump(self, seconds: int) -> None:
        with self.path.open("r+b") as file:
            file.write(struct.pack("l", seconds))


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What is started from now on has it."""
    if sys.platform != "linux" or shutil.which("cc") is None:
        pytest.skip("this takes Linux and a C compiler")
    library, made = tmp_path / "clock.so", Clock(tmp_path / "shift")
    made.path.write_bytes(struct.pack("l", 0))
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl"], check=True)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("CLOCK_SHIFT", str(made.path))
    return made


@pytest.fixture
def new_line(
    clock: Clock, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Line]]:
    (tmp_path / "redis").mkdir()
    (tmp_path / "logs").mkdir()
    redis, children = PrivateRedis(tmp_path / "redis"), Children(tmp_path / "logs")
    redis.start()
    monkeypatch.delenv("LD_PRELOAD")
    made: list[Line] = []

    def make(broken: str = "") -> Line:
        line = Line(
            children, tmp_path / "data", broken=broken, database_url=postgres_url, redis_url=redis.url,
            workers_inside=0, sweep_s=1, lease_s=LEASE_S, sink_allow="127.0.0.1",
        )  # fmt: skip
        made.append(line)
        return line

    yield make
    for line in made:
        line.end()
    children.close()
    redis.stop()


@dataclass(frozen=True)
class Outcome:
    unfinished: int  # of what a worker had in hand that was killed after the jump
    untold: int  # of which the receiver had not heard
    order: bool  # whether what came last leads the list, also after a restart
    spent_s: float


def with_images_in_hand(line: Line, crew: tuple[Member, Member], answers: Answers) -> None:
    """Three that one worker runs and will not end, while the other one has nothing to do."""
    for number in range(3):
        post(line.url, number, answers)
    until(lambda: {row.status for row in rows(line.database_url)} == {"running"}, 30)
    os.kill(crew[1].pid, signal.SIGCONT)


def after(line: Line, clock: Clock, receiver: Receiver, seconds: int, patience_s: float) -> Outcome:
    """A jump, and then a worker is killed, and the API is killed and started again."""
    api, answers = line.api().wait(), Answers()
    database = Database(line.database_url)
    add_sink(database, receiver.url)
    database.close()
    victim, survivor = line.worker(delay_s=1000).wait(), line.worker().wait()
    os.kill(survivor.pid, signal.SIGSTOP)
    with_images_in_hand(line, (victim, survivor), answers)
    clock.jump(seconds)
    victim.kill()
    began = time.monotonic()
    try:
        until(lambda: unfinished(line.database_url) == 0, patience_s)
        until(lambda: heard(receiver).keys() == answers.accepted.keys(), patience_s)
    except AssertionError:
        pass
    spent_s = time.monotonic() - began
    left = unfinished(line.database_url)
    untold = len(answers.accepted.keys() - heard(receiver).keys())
    api.kill()
    line.api().wait()
    post(line.url, 100, answers)
    newest = list(answers.accepted)[-1]
    listed = [item["id"] for item in httpx.get(f"{line.url}/v1/inspections").json()["items"]]
    assert set(listed) == set(answers.accepted)
    return Outcome(left, untold, listed[0] == newest, spent_s)


@pytest.mark.promise(2)
@pytest.mark.promise(7)
@pytest.mark.parametrize("seconds", [HOUR_S, -HOUR_S], ids=["forwards", "back"])
def test_a_jump_of_the_clock_loses_and_delays_nothing(
    new_line: Callable[[str], Line], clock: Clock, receiver: Receiver, seconds: int, record_property: Record
) -> None:
    line = new_line("")
    found = after(line, clock, receiver, seconds, patience_s=60)
    record_property(f"ended and told after a jump of {seconds} s", f"{found.spent_s:.1f} s")
    assert (found.unfinished, found.untold, found.order) == (0, 0, True)
    until(lambda: unfinished(line.database_url) == 0, 60)
    assert {row.status for row in rows(line.database_url)} == {"done"}


@pytest.mark.promise(7, control=True)
def test_believing_the_clock_would_be_noticed(
    new_line: Callable[[str], Line], clock: Clock, receiver: Receiver
) -> None:
    found = after(new_line("believes_the_clock"), clock, receiver, -HOUR_S, patience_s=LEASE_S + 5)
    assert (found.unfinished, found.untold, found.order) == (3, 3, False)
