"""Shared by all tests: a small real bundle, fitted once by the real trainer on generated images."""

import os
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import cv2
import numpy as np
import pytest
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import nn

import trainer.export
from models.bundle import Bundle
from service.db.session import Database
from tests import stencils
from tests.service.receiver import Receiver
from trainer.fit import FitResult, fit
from trainer.recipe import Recipe, parse_recipe

Made = TypeVar("Made")


class Shared(Protocol):
    def __call__(self, name: str, make: Callable[[Path], Made], /) -> Made: ...


torch.set_num_threads(1)  # tiny networks: threads would only wait for each other


@contextmanager
def silent(name: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A progress display that shows nothing."""
    yield lambda done, note: None


def part(index: int, side: int = 40) -> NDArray[np.uint8]:
    """A gray part with a gradient, a ring and grain, slightly different for each index."""
    rng = np.random.default_rng(index)
    y, x = np.mgrid[:side, :side] / side - 0.5
    ring = np.exp(-(((np.hypot(x, y) - 0.3 - 0.01 * rng.standard_normal()) / 0.05) ** 2))
    values = 110 + 40 * x + 60 * ring + rng.normal(0, 4, (side, side))
    return np.clip(values, 0, 255).astype(np.uint8)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def parts_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training images as PNG."""
    folder = tmp_path_factory.mktemp("parts")
    for index in range(24):
        cv2.imwrite(str(folder / f"part{index:02}.png"), part(index))
    return folder


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """32 px, a few thousand parameters, chains of a few steps: seconds instead of minutes."""
    profiles = {
        "paper": {"kind": "chain", "t_noise": 100, "t_start": 100, "n_steps": 6},
        "fast": {"kind": "one_step", "timesteps": [25, 100], "draws": 2},
    }
    return parse_recipe(
        {
            "name": "tiny",
            "data": {"size": 32},
            "network": {"widths": [16, 24], "blocks": 1, "patch": 2, "attention": True},
            "training": {"steps": 12, "batch_size": 4, "checkpoint_every": 5, "precision": "fp32"},
            "calibration": {"max_calls": 72, "min_images": 12},
            "profiles": profiles,
        }
    )


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """`shared(name, make)`: what `make` made in a folder, which of several test processes one did."""
    return sharing(tmp_path_factory)


def sharing(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    root = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        root = root.parent  # of all of this run's processes

    def share(name: str, make: Callable[[Path], Made]) -> Made:
        folder, kept = root / f"shared-{name}", root / f"shared-{name}.pickle"
        with FileLock(root / f"shared-{name}.lock"):
            if not kept.exists():
                made = make(folder)
                kept.write_bytes(pickle.dumps(made))
        return cast(Made, pickle.loads(kept.read_bytes()))

    return share


@pytest.fixture(scope="session", autouse=True)
def export_really(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stencils.Export]:
    """Each architecture is traced once for all test processes; what is written is checked as ever.

    Gives the method that was replaced, for tests that are about it.
    """
    really, shared = trainer.export._export, sharing(tmp_path_factory)

    def export(net: nn.Module, path: Path, *arguments: Any) -> None:
        def make(folder: Path) -> stencils.Stencil:
            folder.mkdir()
            return stencils.make(really, net, folder / "model.onnx", *arguments)

        shared(f"onnx-{stencils.key(net, *arguments)}", make).write(net, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.export, "_export", export)
        yield really


@pytest.fixture(scope="session")
def tiny_fit(shared: Shared, parts_folder: Path, tiny_recipe: Recipe) -> FitResult:
    def make(out: Path) -> FitResult:
        return fit(parts_folder, tiny_recipe, out, "cpu", silent, name="tiny", version="1")

    return shared("tiny", make)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_fit: FitResult) -> Bundle:
    return tiny_fit.bundle


@pytest.fixture(scope="session")
def tiny_detector_recipe(tiny_recipe: Recipe) -> Recipe:
    """As in the default recipe: diffusion at half size with painted defects, and a detector at full size."""
    values = tiny_recipe.model_dump(mode="json")
    return parse_recipe(
        {
            **values,
            "name": "tiny-detector",
            "data": {"size": 64},
            "network": {**values["network"], "reduce": 2, "clean_scale": 0.3},
            "training": {
                **values["training"],
                "steps": 6,
                "target": "clean",
                "timesteps": "quadratic",
                "corruption": {"name": "structured", "probability": 0.6},
            },
            "detector": {"backbone": "own", "width": 16, "steps": 4, "batch_size": 4},
        }
    )


@pytest.fixture(scope="session")
def tiny_detector_fit(shared: Shared, parts_folder: Path, tiny_detector_recipe: Recipe) -> FitResult:
    def make(out: Path) -> FitResult:
        return fit(parts_folder, tiny_detector_recipe, out, "cpu", silent, name="tiny-detector", version="1")

    return shared("tiny-detector", make)


@pytest.fixture(scope="session")
def tiny_detector_bundle(tiny_detector_fit: FitResult) -> Bundle:
    return tiny_detector_fit.bundle


@pytest.fixture(scope="session", autouse=True)
def migrate_really(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Database], None]]:
    """Only the first SQLite database of this process is migrated from nothing; the others begin as its copy.

    Gives the method that was replaced, for tests that are about it.
    """
    really = Database.migrate
    template = tmp_path_factory.mktemp("tables") / "migrated.sqlite3"

    def migrate(self: Database) -> None:
        url = self.engine.url
        if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
            _lay(template, Path(url.database))
        really(self)

    made = Database(f"sqlite:///{template}")
    really(made)
    made.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "migrate", migrate)
        yield really


def _lay(template: Path, path: Path) -> None:
    """A copy, at once whole; who comes second finds it there."""
    copy = path.with_name(f"{path.name}.{threading.get_ident()}")
    with suppress(FileNotFoundError, FileExistsError):  # no folder: the real method says so
        shutil.copyfile(template, copy)
        os.link(copy, path)
    copy.unlink(missing_ok=True)
