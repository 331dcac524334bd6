"""One line for all end-to-end tests, built once."""

from collections.abc import Iterator

import pytest

from tests.e2e.line import RECIPE, Line, new_key, serving, tool


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    work = tmp_path_factory.mktemp("line")
    (work / "tiny.toml").write_text(RECIPE)
    tool("inlier-trainer", "demo-data", work / "parts", "--images", 16, "--size", 48)
    tool(
        *("inlier-trainer", "fit", work / "parts/train", "--recipe", work / "tiny.toml"),
        *("--out", work / "run", "--steps", 30, "--device", "cpu"),
    )
    with serving(work / "run/bundle", work / "service") as url:
        yield Line(
            work / "parts", work / "run/bundle", work / "service", url, new_key(work / "service", "line")
        )
