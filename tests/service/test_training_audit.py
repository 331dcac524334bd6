"""The training-set audit over HTTP: ranked images, their pictures, marks that the trainer reads."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from models.bundle import THUMBNAILS_FILE, Bundle
from service.settings import Settings
from tests.service.conftest import connected, make_key
from tests.service.test_api import assert_problem
from trainer.marks import read_marks


@pytest.fixture
def at(real: TestClient, bundle: Bundle) -> str:
    return f"/v1/models/{bundle.hash}/audit"


def mark(client: TestClient, at: str, image: str, mark: str | None) -> dict[str, object]:
    answer = client.post(f"{at}/marks", json={"image": image, "mark": mark})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_images_come_ranked_with_a_picture(real: TestClient, at: str) -> None:
    page = real.get(f"{at}?offset=4&limit=3").json()
    assert (page["total"], page["counts"]) == (24, {"defective": 0, "fine": 0})
    assert [item["rank"] for item in page["items"]] == [5, 6, 7]
    first = page["items"][0]
    assert (first["mark"], len(first["sha256"])) == (None, 64)
    picture = real.get(first["picture"])
    assert (picture.headers["content-type"], "immutable" in picture.headers["cache-control"]) == (
        "image/webp", True,
    )  # fmt: skip
    shown = cv2.imdecode(np.frombuffer(picture.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown.shape[:2] == (32, 32)
    assert (
        "the first 24 have one" in assert_problem(real.get(f"{at}/pictures/25"), 404, "no-picture")["detail"]
    )


def test_marks_stand_change_and_go(real: TestClient, at: str) -> None:
    images = [item["image"] for item in real.get(at).json()["items"]]
    assert mark(real, at, images[2], "defective")["mark"] == "defective"
    mark(real, at, images[0], "defective")
    assert mark(real, at, images[0], "fine")["rank"] == 1  # the last one stands
    mark(real, at, images[5], "fine")
    gone = mark(real, at, images[5], None)
    assert (gone["rank"], gone["mark"], gone["who"]) == (6, None, None)
    mark(real, at, images[5], None)  # nothing stands any more, and nothing happens
    found = real.get(f"{at}/marks?limit=1").json()
    assert (found["counts"], found["next"]) == ({"defective": 1, "fine": 1}, 1)
    assert [(each["image"], each["mark"]) for each in found["items"]] == [(images[0], "fine")]
    rest = real.get(f"{at}/marks?after=1").json()
    assert ([each["rank"] for each in rest["items"]], rest["next"]) == ([3], None)
    listed = real.get(at).json()
    assert [item["mark"] for item in listed["items"][:3]] == ["fine", None, "defective"]
    log = [
        row for row in real.get("/v1/audit?limit=50").json()["items"] if row["action"].startswith("marks.")
    ]
    actions = [row["action"] for row in reversed(log)]
    assert actions == [f"marks.{mark}" for mark in ("defective", "defective", "fine", "fine", "withdrawn")]
    assert log[2]["detail"] == {"image": images[0], "rank": 1, "before": "defective"}


def test_the_trainer_reads_what_is_exported(real: TestClient, at: str, tmp_path: Path) -> None:
    items = real.get(at).json()["items"]
    assert real.get(f"{at}/marks.csv").text.splitlines() == ["image,mark,sha256,rank,score,who,marked_at"]
    mark(real, at, items[0]["image"], "defective")
    mark(real, at, items[1]["image"], "fine")
    answer = real.get(f"{at}/marks.csv")
    assert answer.headers["content-disposition"].startswith('attachment; filename="marks-')
    (tmp_path / "marks.csv").write_bytes(answer.content)
    found = read_marks(tmp_path / "marks.csv")
    assert found.by_hash == {items[0]["sha256"]: "defective", items[1]["sha256"]: "fine"}
    assert found.by_name == {}


def test_what_cannot_be_marked(real: TestClient, at: str, settings: Settings) -> None:
    unknown = real.post(f"{at}/marks", json={"image": "none.png", "mark": "fine"})
    assert "its audit lists all" in assert_problem(unknown, 404, "unknown-training-image")["detail"]
    assert_problem(
        real.post(f"{at}/marks", json={"image": "a.png", "mark": "good"}), 422, "invalid-parameters"
    )
    nowhere = at.replace(at.split("/")[3], "0" * 64)
    for path in (nowhere, f"{nowhere}/marks", f"{nowhere}/marks.csv", f"{nowhere}/pictures/1"):
        assert_problem(real.get(path), 404, "unknown-model")
    camera = make_key(settings, "camera")
    answer = real.post(f"{at}/marks", json={"image": "a.png", "mark": "fine"}, headers=camera)
    assert_problem(answer, 403, "not-allowed")


def without_pictures(bundle: Bundle, folder: Path) -> Path:
    """The bundle as an older trainer would have written it."""
    shutil.copytree(bundle.path, folder)
    (folder / THUMBNAILS_FILE).unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"][THUMBNAILS_FILE]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_an_older_bundle_has_its_list_and_says_why_there_are_no_pictures(
    settings: Settings, bundle: Bundle, tmp_path: Path
) -> None:
    older = without_pictures(bundle, tmp_path / "older")
    with connected(settings.model_copy(update={"bundle": older, "threads": 1})) as client:
        model = client.get("/v1/models").json()["items"][0]["hash"]
        page = client.get(f"/v1/models/{model}/audit").json()
        assert (page["total"], {item["picture"] for item in page["items"]}) == (24, {None})
        missing = client.get(f"/v1/models/{model}/audit/pictures/1")
        assert "made without pictures" in assert_problem(missing, 404, "no-picture")["detail"]
        html = client.get(f"/models/{model}/audit", headers={"Accept": "text/html"}).text
        assert "made before bundles carried pictures" in html
        assert "<img" not in html


def test_changed_pictures_are_not_shown(settings: Settings, bundle: Bundle, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(bundle.path, tmp_path / "changed"))
    with connected(settings.model_copy(update={"bundle": changed, "threads": 1})) as client:
        (changed / THUMBNAILS_FILE).write_bytes(b"something else")
        answer = client.get(f"/v1/models/{bundle.hash}/audit/pictures/1")
        assert_problem(answer, 404, "bundle-file-missing")
