"""A service with a shadow: the real one of another bundle, or in its place an engine of known answers."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from models.bundle import Bundle
from service import engine_loader
from service.model_life import ModelBook
from tests.service.conftest import PixelEngine
from tests.service.test_engines import WHO, variant

RECIPE = "default"


@pytest.fixture
def second(bundle: Bundle, tmp_path: Path) -> Bundle:
    return variant(bundle, tmp_path / "second", "2")


@pytest.fixture
def larger(bundle: Bundle, tmp_path: Path) -> Bundle:
    """The same network, which is given images of another size."""
    spec = bundle.manifest.preprocess.model_copy(update={"height": 48, "width": 40})
    return variant(bundle, tmp_path / "larger", "3", preprocess=spec)


@pytest.fixture
def in_its_place(second: Bundle, monkeypatch: pytest.MonkeyPatch) -> Callable[[PixelEngine], None]:
    """Let an engine run where the bundle `second` is loaded."""

    def put(engine: PixelEngine) -> None:
        engine.model_hash = second.hash
        real = engine_loader.opened
        monkeypatch.setattr(
            engine_loader,
            "opened",
            lambda bundle, settings: engine if bundle.hash == second.hash else real(bundle, settings),
        )

    return put


def wish(client: TestClient, bundle: Bundle, *, loads: bool = True) -> None:
    """Register a bundle, let it shadow the recipe, and wait until it does, or is known not to load."""
    ModelBook(client.app.state.services.database).register(WHO, bundle.path)
    said = {"recipe": RECIPE, "why": "compare"}
    assert client.post(f"/v1/models/{bundle.hash}/shadow", json=said).status_code == 200
    until(lambda: metric(client, "inlier_shadow_loaded") == float(loads), "the shadow is not loaded")


def metric(client: TestClient, name: str) -> float | None:
    """The value for the recipe; None where there is none."""
    return client.app.state.services.metrics.registry.get_sample_value(name, {"recipe": RECIPE})


def compared(client: TestClient, bundle: Bundle, **query: Any) -> dict[str, Any]:
    answer = client.get(f"/v1/models/{bundle.hash}/shadow", params={"recipe": RECIPE, **query})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
