"""One line for all end-to-end tests, built once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Shared
from tests.e2e.line import RECIPE, Line, new_key, serving, tool


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory, shared: Shared) -> Iterator[Line]:
    made, data = shared("line", trained), tmp_path_factory.mktemp("line") / "service"
    with serving(made / "run/bundle", data) as url:
        yield Line(made / "parts", made / "run/bundle", data, url, new_key(data, "line"))


def trained(work: Path) -> Path:
    work.mkdir()
    (work / "tiny.toml").write_text(RECIPE)
    tool("inlier-trainer", "demo-data", work / "parts", "--images", 16, "--size", 48)
    tool(
        *("inlier-trainer", "fit", work / "parts/train", "--recipe", work / "tiny.toml"),
        *("--out", work / "run", "--steps", 30, "--device", "cpu"),
    )
    return work
