"""Bundles over HTTP and on the command line: refused, registered, activated, rolled back; nothing is run."""

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from models.bundle import Bundle, sha256_file
from service.app import create_app
from service.cli import cli
from service.settings import Settings
from tests.service.test_api import WAIT, assert_problem, flat


@pytest.fixture
def bundles(bundle: Bundle, tmp_path: Path) -> Path:
    """A folder with two bundles that differ in their version alone."""
    folder = tmp_path / "bundles"
    for version in ("1", "2"):
        target = folder / "tiny" / version
        shutil.copytree(bundle.path, target)
        manifest = json.loads((target / "manifest.json").read_text())
        (target / "manifest.json").write_text(json.dumps({**manifest, "version": version}))
    return folder


@pytest.fixture
def served(settings: Settings, bundles: Path) -> Settings:
    return settings.model_copy(update={"bundle": bundles / "tiny/1", "bundles": bundles, "threads": 1})


@pytest.fixture
def line(served: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(served)) as client:
        yield client


def register(client: TestClient, path: str) -> str:
    answer = client.post("/v1/models", json={"path": path})
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["hash"]
    return found


def test_a_bundles_life(line: TestClient) -> None:
    (own,) = line.get("/v1/models").json()["items"]
    assert (own["version"], own["own"], own["state"]) == ("1", True, "active")
    second = register(line, "tiny/2")
    assert line.post("/v1/models", json={"path": "tiny/2"}).status_code == 200
    shadow = line.post(f"/v1/models/{second}/shadow", json={"recipe": "default", "why": "compare"})
    assert (shadow.json()["state"], shadow.json()["shadowed_recipes"]) == ("shadow", ["default"])
    assert_problem(line.post(f"/v1/models/{second}/retire", json={"why": "x"}), 409, "model-in-use")
    active = line.post(f"/v1/models/{second}/activate", json={"why": "better"})
    assert active.json() == {"model_hash": second, "recipes": ["default"]}
    assert line.post("/v1/inspections", content=flat(9), headers=WAIT).json()["model"]["hash"] == second
    back = line.post("/v1/models/rollback", json={"recipe": "default", "why": "worse"})
    assert back.json()["model_hash"] == own["hash"]
    assert line.post("/v1/inspections", content=flat(9), headers=WAIT).json()["model"]["hash"] == own["hash"]
    retired = line.post(f"/v1/models/{second}/retire", json={"why": "done"})
    assert retired.json()["state"] == "retired"
    assert_problem(line.post(f"/v1/models/{own['hash']}/retire", json={"why": "x"}), 409, "model-in-use")
    events = line.get("/v1/models/events").json()["items"]
    assert [event["action"] for event in events] == [
        "retired", "rolled-back", "activated", "shadowed", "registered",
    ]  # fmt: skip
    own_events = line.get(f"/v1/models/{own['hash']}/events").json()["items"]
    assert [event["action"] for event in own_events] == ["rolled-back"]


def test_what_a_bundle_says_of_itself(line: TestClient) -> None:
    (model,) = line.get("/v1/models?name=tiny").json()["items"]
    detail = line.get(model["links"]["self"]).json()
    assert detail["manifest"]["name"] == "tiny"
    assert 0 <= detail["estimated_contamination"] <= 1
    audit = line.get(f"{model['links']['audit']}?limit=3").json()
    assert (audit["total"], [row["rank"] for row in audit["items"]]) == (24, [1, 2, 3])
    report = line.get(model["links"]["report"])
    assert report.headers["content-type"].startswith("text/html")
    policy = report.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "script-src" not in policy
    assert line.get("/v1/models?state=retired").json()["items"] == []
    assert_problem(line.get(f"/v1/models/{'0' * 64}"), 404, "unknown-model")


def test_a_changed_report_is_not_shown(line: TestClient, bundles: Path) -> None:
    (model,) = line.get("/v1/models").json()["items"]
    (bundles / "tiny/1/report.html").write_text("<script>alert(1)</script>")
    assert_problem(line.get(model["links"]["report"]), 404, "bundle-file-missing")


class Canary:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def _hash_again(folder: Path, name: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = sha256_file(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("rehash", [False, True])
@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors", "report.html", "extra.pkl"])
def test_a_pickle_is_refused_and_runs_nothing(
    line: TestClient, bundles: Path, tmp_path: Path, name: str, rehash: bool
) -> None:
    folder, canary = bundles / "tiny/2", tmp_path / "canary"
    (folder / name).write_bytes(pickle.dumps(Canary(canary)))
    if rehash:
        _hash_again(folder, name)
    assert_problem(line.post("/v1/models", json={"path": "tiny/2"}), 422, "invalid-bundle")
    assert not canary.exists()
    assert len(line.get("/v1/models").json()["items"]) == 1
    pickle.loads((folder / name).read_bytes())  # the guard of this test: it would have sung
    assert canary.exists()


def test_wrong_places_are_refused(line: TestClient, bundles: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(bundles / "tiny/2", outside)
    (bundles / "link").symlink_to(outside)
    (bundles / "tiny" / "deep").symlink_to(bundles)
    for path in (
        str(outside),
        "../outside",
        "tiny/../../outside",
        "link",
        "tiny/deep/tiny/2",
        "none",
        "a\\b",
        ".",
    ):
        assert_problem(line.post("/v1/models", json={"path": path}), 422, "invalid-bundle")
    (bundles / "tiny/2/audit.csv").write_text("changed")
    assert_problem(line.post("/v1/models", json={"path": "tiny/2"}), 422, "invalid-bundle")
    archive = line.post("/v1/models", content=b"PK", headers={"Content-Type": "application/zip"})
    assert "unpack" in assert_problem(archive, 415, "unsupported-media-type")["detail"]


def test_without_a_folder_of_bundles(client: TestClient) -> None:
    answer = client.post("/v1/models", json={"path": "tiny/2"})
    assert_problem(answer, 422, "bundles-not-configured")


def run(settings: Settings, *arguments: str) -> str:
    result = CliRunner().invoke(cli, ["models", *arguments, "--data", str(settings.data)])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_same_on_the_command_line(served: Settings, line: TestClient, bundles: Path) -> None:
    (own,) = line.get("/v1/models").json()["items"]
    second = run(served, "register", str(bundles / "tiny/2")).split()[-1]
    assert second[:12] in run(served, "list")
    run(served, "activate", second[:12], "--recipe", "default", "--why", "better")
    assert line.get(f"/v1/models/{second}").json()["recipes"] == ["default"]
    assert own["hash"] in run(served, "rollback", "default", "--why", "worse")
    bad = CliRunner().invoke(cli, ["models", "register", str(bundles), "--data", str(served.data)])
    assert (bad.exit_code, "is not a bundle" in bad.output) == (2, True)
