"""Processes to kill, a private PostgreSQL and a private Redis."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.faults.line import Children, Line, client
from tests.service.queue.conftest import PrivateRedis, redis_server

__all__ = ["redis_server"]
Lines = Callable[..., Line]


@pytest.fixture(scope="session")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    made = Children(tmp_path_factory.mktemp("logs"))
    yield made
    made.close()


@pytest.fixture
def new_line(children: Children, tmp_path: Path) -> Iterator[Lines]:
    """`new_line(**settings)`: a line of which nothing runs yet; afterwards nothing does any more."""
    made: list[Line] = []

    def make(**settings: Any) -> Line:
        made.append(Line(children, tmp_path / secrets.token_hex(4), **settings))
        return made[-1]

    yield make
    for line in made:
        line.end()


@pytest.fixture
def postgres_url(postgres: Any) -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture
def redis_url(redis_server: PrivateRedis) -> str:
    """An empty one."""
    client(redis_server.url).flushall()
    return redis_server.url


@pytest.fixture
def shared(postgres_url: str, redis_url: str) -> dict[str, Any]:
    """The settings of an API that runs nothing, and of its workers."""
    return {"database_url": postgres_url, "redis_url": redis_url, "workers_inside": 0, "sweep_s": 1}
