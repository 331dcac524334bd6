"""What can go wrong with a line, each with how it begins and how it is mended."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import NullPool, create_engine, text

from deploy.ops_test.line import Line
from deploy.ops_test.load import Load

BURST = 10
"""A burst posts this many times as much as the cameras do."""


@dataclass(frozen=True)
class Fault:
    """It begins, lasts `shortest_s` to `longest_s`, and is mended. No two on one `target` at once."""

    name: str
    target: str
    begin: Callable[[], None]
    mend: Callable[[], None]
    shortest_s: float = 1.0
    longest_s: float = 8.0


def faults(line: Line, load: Load, bursts: list[Load]) -> list[Fault]:
    """Everything there is to choose from; a burst adds its load to `bursts`."""
    one, other = line.workers
    return [
        Fault("a worker is killed", "workers", other.kill, other.start),
        Fault(
            "both workers are killed",
            "workers",
            lambda: _each(one.kill, other.kill),
            lambda: _each(one.start, other.start),
        ),
        Fault(
            "a worker hangs, longer than its lease",
            "workers",
            lambda: os.kill(one.pid, signal.SIGSTOP),
            lambda: os.kill(one.pid, signal.SIGCONT),
            7,
            12,
        ),
        Fault("the API is killed", "api", line.api.kill, line.api.start, 1, 4),
        Fault("Redis is killed, with all it holds", "redis", line.redis.stop, line.redis.start),
        Fault("PostgreSQL crashes", "postgres", line.postgres.stop, line.postgres.start, 1, 6),
        Fault("PostgreSQL cuts every connection", "postgres", lambda: cut(line), _each, 0, 1),
        Fault(
            "images have no time at all", "cameras", lambda: _hurry(load, True), lambda: _hurry(load, False)
        ),
        Fault(
            f"{BURST} times as many images",
            "cameras",
            lambda: bursts.append(_burst(load, len(bursts))),
            lambda: bursts[-1].stop(),
            4,
            8,
        ),
    ]


def cut(line: Line) -> None:
    """As a failover does: transactions end in the middle, and the server answers again at once."""
    engine = create_engine(line.database_url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            others = "datname = current_database() AND pid <> pg_backend_pid()"
            connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))
    finally:
        engine.dispose()


def _hurry(load: Load, now: bool) -> None:
    load.hurry = now


def _burst(load: Load, number: int) -> Load:
    more = Load(load.url, load.headers, load.images, load.rate * BURST, name=f"burst-{number}")
    more.start()
    return more


def _each(*some: Callable[[], None]) -> None:
    for one in some:
        one()
