"""A service to post to, and a folder that a camera drops files into."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.settings import Settings
from tests.service.conftest import PixelEngine
from tests.service.live import live


@pytest.fixture
def url(settings: Settings, engine: PixelEngine) -> Iterator[str]:
    with live(settings, engine) as address:
        yield address


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "camera"
    made.mkdir()
    return made


def posted_files(url: str) -> list[str]:
    """The file name of every inspection, in the order of arrival."""
    page = httpx.get(f"{url}/v1/inspections", params={"limit": 500}, timeout=60).json()
    assert page["next"] is None
    return [item["attributes"]["file"] for item in reversed(page["items"])]
