"""A private PostgreSQL for the tests, or the one that INLIER_TEST_POSTGRES names."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deploy.ops_test.postgres import Missing, PrivatePostgres
from deploy.ops_test.postgres import private_postgres as own

__all__ = ["PrivatePostgres", "private_postgres"]
VARIABLE = "INLIER_TEST_POSTGRES"


@contextmanager
def private_postgres() -> Iterator[PrivatePostgres]:
    """A server of our own, or the one that INLIER_TEST_POSTGRES names; skips where there is neither."""
    if given := os.environ.get(VARIABLE):
        yield PrivatePostgres(given)
        return
    server = own()
    try:
        found = server.__enter__()
    except Missing as error:
        why = f"{error} and {VARIABLE} is not set"
        if os.environ.get("CI") or os.environ.get("REQUIRE_SERVERS"):
            pytest.fail(why)
        pytest.skip(why)
    try:
        yield found
    finally:
        server.__exit__(None, None, None)
