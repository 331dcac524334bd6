"""A private Redis for the tests."""

import os
import shutil
from collections.abc import Iterator

import pytest

from deploy.ops_test.redis import PrivateRedis

__all__ = ["PrivateRedis", "redis_server"]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedis]:
    if shutil.which("redis-server") is None:
        why = "redis-server is not installed (Debian: apt-get install redis-server)"
        if os.environ.get("CI") or os.environ.get("REQUIRE_SERVERS"):
            pytest.fail(why)
        pytest.skip(why)
    server = PrivateRedis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()
