"""The service on a real bundle, an engine whose answers are known for the plumbing, and images to post."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from models.bundle import FILES, Bundle, Manifest
from models.engine import Engine, RawMap
from models.masks import resize
from service.access.principal import SYSTEM, Scope
from service.app import create_app
from service.db.repository import keys
from service.db.session import Database
from service.ids import new_id
from service.settings import Settings
from tests.service.postgres import PrivatePostgres, private_postgres

SIZE = 32


def png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """RGB or gray pixels -> PNG."""
    if pixels.ndim == 3:
        pixels = pixels[:, :, ::-1]
    return cv2.imencode(".png", pixels)[1].tobytes()


def texture(seed: int = 0, size: tuple[int, int] = (SIZE, SIZE)) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return cv2.GaussianBlur(rng.integers(0, 255, (*size, 3), dtype=np.uint8), (0, 0), 1.5)


def flat(value: int) -> bytes:
    """An image whose every pixel is `value`: an id that survives resizing."""
    return png(np.full((SIZE, SIZE, 3), value, dtype=np.uint8))


def manifest_values() -> dict[str, object]:
    calibration = {
        "residual_scales": (0.2,),
        "score_location": 0.5,
        "score_scale": 0.3,
        "median_location": 0.0,
        "median_scale": 0.1,
        "suggested": {"review": 3.0, "reject": 5.0},
        "map_max": 4.0,
        "images": 10,
    }
    return {
        "name": "tiny",
        "version": "1",
        "created_at": "2026-01-01T00:00:00Z",
        "files": dict.fromkeys(FILES, "0" * 64),
        "recipe": {},
        "preprocess": {"height": SIZE, "width": SIZE, "channels": 3},
        "process": {"steps": 1000, "beta_start": 1e-4, "beta_end": 0.02},
        "profiles": {
            "fast": {"kind": "one_step", "timesteps": (50.0, 100.0)},
            "paper": {"kind": "chain", "t_noise": 100.0, "t_start": 100.0, "n_steps": 3},
        },
        "default_profile": {"cpu": "fast", "gpu": "paper"},
        "calibration": {"fast": {**calibration, "residual_scales": (0.2, 0.2)}, "paper": calibration},
        "metrics": {},
        "training_data": {"snapshot": "0" * 64, "images": 10, "estimated_contamination": 0.1},
        "libraries": {},
        "network": {
            "channels": 3,
            "widths": (16,),
            "blocks": 1,
            "patch": 2,
            "groups": 8,
            "attention": False,
        },
    }


@pytest.fixture(scope="session")
def bundle(tiny_bundle: Bundle) -> Bundle:
    """A real bundle, as the trainer writes it."""
    return tiny_bundle


def _without(image: NDArray[np.float32], mask: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """The image with what is ignored painted as the first pixel that is not."""
    if mask is None:
        return image
    inside = resize(mask, (image.shape[1], image.shape[2]))
    return np.where(inside, image[:, ~inside][:, :1, None], image)


class PixelEngine:
    """A stand-in for the model: the score is the image's mean gray value, so rows cannot be mixed up unseen.

    It sleeps `delay_s` a batch, waits while `hold` is set, and fails when a batch holds `poison`.
    """

    device: Literal["cpu", "gpu"] = "cpu"
    model_hash = "f" * 64

    def __init__(self, delay_s: float = 0.0, poison: int | None = None) -> None:
        self.manifest = Manifest.model_validate(manifest_values())
        self.delay_s = delay_s
        self.poison = poison
        self.go = threading.Event()
        self.go.set()
        self.batches: list[tuple[str, list[int]]] = []

    def run(
        self,
        images: NDArray[np.float32],
        seeds: Sequence[int],
        profile: str,
        should_stop: Callable[[], bool] | None = None,
        ignore: Sequence[NDArray[np.bool_] | None] | None = None,
    ) -> list[RawMap]:
        images = np.stack(list(map(_without, images, ignore or [None] * len(images))))
        values = [round(float((image.mean() + 1) * 127.5)) for image in images]
        time.sleep(self.delay_s)
        while not self.go.wait(0.01):
            if should_stop is not None and should_stop():
                break
        self.batches.append((profile, values))
        if self.poison in values:
            raise RuntimeError("poisonous")
        return [self._answer(image, value) for image, value in zip(images, values, strict=True)]

    def _answer(self, image: NDArray[np.float32], value: int) -> RawMap:
        amap = np.full(image.shape[1:], value, dtype=np.float32)
        return RawMap(amap, image, float("nan") if value == 254 else float(value))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """What tests run on; `client` and `real` ask for keys, a test client of your own gets on without."""
    return Settings(
        data=tmp_path / "data",
        log_level="warning",
        shutdown_grace_s=5,
        decode_processes=0,
        auth="off",
        allowed_hosts="testserver,test,127.0.0.1",
    )


def make_key(settings: Settings, scope: Scope = "admin", name: str = "") -> dict[str, str]:
    """The header of a new key, made as the command line makes it, also while the service runs."""
    settings.data.mkdir(parents=True, exist_ok=True)
    database = Database(settings.url)
    try:
        database.migrate()
        with database.write() as session:
            _, key = keys.create(session, SYSTEM, name or f"test-{new_id()}", scope)
            return {"Authorization": f"Bearer {key}"}
    finally:
        database.close()


@contextmanager
def connected(settings: Settings, engine: Engine | None = None) -> Iterator[TestClient]:
    """The service with `auth` required, and a client with an admin's key."""
    locked = settings.model_copy(update={"auth": "required"})
    headers = make_key(locked)
    with TestClient(create_app(locked, engine), headers=headers) as client:
        yield client


@pytest.fixture
def engine() -> PixelEngine:
    return PixelEngine()


@pytest.fixture
def client(settings: Settings, engine: PixelEngine) -> Iterator[TestClient]:
    with connected(settings, engine) as client:
        yield client


@pytest.fixture
def real(settings: Settings, bundle: Bundle) -> Iterator[TestClient]:
    """The service on the real bundle under ONNX Runtime."""
    served = settings.model_copy(update={"bundle": bundle.path, "threads": 1})
    with connected(served) as client:
        yield client


@pytest.fixture(scope="session")
def postgres() -> Iterator[PrivatePostgres]:
    """A PostgreSQL server for the whole run."""
    with private_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, once of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'inlier.sqlite3'}"
        return
    with request.getfixturevalue("postgres").database() as url:
        yield url


@pytest.fixture
def empty_database(database_url: str) -> Iterator[Database]:
    """Without tables."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def database(empty_database: Database) -> Database:
    """With the newest tables."""
    empty_database.migrate()
    return empty_database
