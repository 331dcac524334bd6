"""Bundles registered, activated, rolled back; a damaged one changes nothing."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from models.bundle import Bundle, load_bundle
from service.access.principal import Principal
from service.app import create_app
from service.db.repository import models
from service.db.session import Database
from service.errors import InspectionError, StartupError
from service.model_life import ModelBook
from service.settings import Settings
from tests.service.conftest import png, texture

WAIT = {"Content-Type": "image/png", "Prefer": "wait=30"}
WHO = Principal("vera", "admin", "user")


def variant(bundle: Bundle, folder: Path, version: str, **changes: Any) -> Bundle:
    """The same model under another version, and so with another hash."""
    shutil.copytree(bundle.path, folder)
    manifest = bundle.manifest.model_copy(update={"version": version, **changes})
    (folder / "manifest.json").write_text(manifest.model_dump_json(indent=2))
    return load_bundle(folder)


@pytest.fixture
def second(bundle: Bundle, tmp_path: Path) -> Bundle:
    return variant(bundle, tmp_path / "second", "2")


def call(client: TestClient, name: str, *arguments: Any) -> Any:
    return client.portal.call(getattr(client.app.state.services.engines, name), *arguments)


def register(client: TestClient, path: Path) -> None:
    ModelBook(client.app.state.services.database).register(WHO, path)


def post(client: TestClient, recipe: str = "default", seed: int = 1) -> dict[str, Any]:
    query = {"recipe": recipe}
    answer = client.post("/v1/inspections", params=query, content=png(texture(seed)), headers=WAIT)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.promise(14)
def test_a_damaged_bundle_leaves_the_old_model_serving(
    real: TestClient, bundle: Bundle, second: Bundle
) -> None:
    register(real, second.path)
    with (second.path / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InspectionError, match="sha256") as refused:
        call(real, "activate", "default", second.hash, WHO, "better")
    assert (refused.value.status, refused.value.code) == (422, "unusable-bundle")
    assert post(real)["model"]["hash"] == bundle.hash
    with pytest.raises(InspectionError) as unknown:
        call(real, "activate", "default", "0" * 64, WHO, "better")
    assert unknown.value.status == 404
    with pytest.raises(InspectionError) as nothing:
        call(real, "rollback", "default", WHO, "worse")
    assert nothing.value.status == 409
    with pytest.raises(InspectionError) as none:
        register(real, second.path)
    assert none.value.status == 422


@pytest.mark.promise(14)
def test_a_bundle_exchanged_on_disk_is_not_the_registered_one(
    real: TestClient, bundle: Bundle, second: Bundle, tmp_path: Path
) -> None:
    register(real, second.path)
    shutil.rmtree(second.path)
    variant(bundle, second.path, "3")
    with pytest.raises(InspectionError, match="another bundle"):
        call(real, "activate", "default", second.hash, WHO, "better")


def test_each_recipe_has_its_model_also_after_a_restart(
    settings: Settings, bundle: Bundle, second: Bundle
) -> None:
    served = settings.model_copy(update={"bundle": bundle.path, "threads": 1})
    with TestClient(create_app(served)) as client:
        register(client, second.path)
        call(client, "activate", "bolt", second.hash, WHO, "made for bolts")
        assert post(client, "bolt")["model"]["hash"] == second.hash
        assert post(client)["model"]["hash"] == bundle.hash
    with TestClient(create_app(served)) as client:
        assert post(client, "bolt")["model"]["hash"] == second.hash
        assert post(client)["model"]["hash"] == bundle.hash


def test_another_process_follows_within_seconds(real: TestClient, second: Bundle, settings: Settings) -> None:
    register(real, second.path)
    database = Database(settings.url)  # as another process changes it
    with database.write() as session:
        own = real.app.state.services.engines.own.hash
        models.activate(session, "default", second.hash, previous=own, who="vera", why="better")
    database.close()
    deadline = time.monotonic() + 15
    while post(real)["model"]["hash"] != second.hash:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_unusable_active_model_is_told_at_the_start(
    settings: Settings, bundle: Bundle, second: Bundle
) -> None:
    served = settings.model_copy(update={"bundle": bundle.path, "threads": 1})
    with TestClient(create_app(served)) as client:
        register(client, second.path)
        call(client, "activate", "bolt", second.hash, WHO, "made for bolts")
    shutil.rmtree(second.path)
    with pytest.raises(StartupError, match="recipe bolt"), TestClient(create_app(served)):
        pass
