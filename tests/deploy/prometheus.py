"""Debian's Prometheus: found or skipped, run on a folder of its own, asked over its API."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.ops_test.prometheus import Prometheus
from deploy.ops_test.prometheus import running as server

__all__ = ["Prometheus", "copy", "program", "promtool", "running"]

FOLDER = Path(__file__).parents[2] / "deploy/prometheus"


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`; without one the test is skipped, but never in CI."""
    if found := shutil.which(name):
        return found
    why = f"{name} is not installed (Debian: apt-get install prometheus)"
    if os.environ.get("CI") or os.environ.get("REQUIRE_SERVERS"):
        pytest.fail(why)
    pytest.skip(why)


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [program("promtool"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


def copy(folder: Path) -> Path:
    """The configuration with an (empty) key beside it, for a test that changes it."""
    shutil.copytree(FOLDER, folder / "prometheus")
    (folder / "prometheus/inlier.key").touch()
    return folder / "prometheus"


@contextmanager
def running(config: Path, folder: Path) -> Iterator[Prometheus]:
    """A server on loopback that keeps its data in `folder`; skips where none is installed."""
    program("prometheus")
    with server(config, folder) as found:
        yield found
