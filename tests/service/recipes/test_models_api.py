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


@pytest.mark.promise(26)
def test_a_bundles_life(line: TestClient) -> None:
    (own,) = line.get("/v1/models").json()["items"]
    assert (own["version"], own["own"], own["state"]) == ("1", True, "active")
    second = register(line, "tiny/2")
    assert line.post("/v1/models", json={"path": "tiny/2"}).status_code == 200
    shadow = line.post(f"/v1/models/{second}/shadow", json={"recipe": "default", "why": "compare"})
    assert (shadow.json()["state"], shadow.json()["shadowed_recipes"]) == ("shadow", ["default"])
    itself = line.post(f"/v1/models/{own['hash']}/shadow", json={"recipe": "default", "why": "x"})
    assert_problem(itself, 409, "model-active")
    assert_problem(line.post(f"/v1/models/{second}/retire", json={"why": "x"}), 409, "model-in-use")
    active = line.post(f"/v1/models/{second}/activate", json={"why": "better"})
    assert active.json() == {"model_hash": second, "recipes": ["default"]}
    assert line.get(f"/v1/models/{own['hash']}").json()["state"] == "active"  # of what names no other
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
    told = [(event["action"], event["model_hash"] == own["hash"]) for event in own_events]
    assert told == [("rolled-back", True), ("activated", False)]  # the other one came into its place


def test_a_shadows_begin_and_end_are_kept_and_told(line: TestClient, served: Settings, bundles: Path) -> None:
    third = bundles / "tiny/3"
    shutil.copytree(bundles / "tiny/2", third)
    manifest = (third / "manifest.json").read_text().replace('"version": "2"', '"version": "3"')
    (third / "manifest.json").write_text(manifest)
    hook = {"name": "mes", "url": "https://example.com/hook"}
    hook_id = line.post("/v1/webhooks", json=hook).json()["id"]
    own, *hashes = (
        line.get("/v1/models").json()["items"][0]["hash"],
        *(register(line, f"tiny/{version}") for version in "23"),
    )
    second, last = hashes

    def states() -> dict[str, str]:
        return {model["hash"]: model["state"] for model in line.get("/v1/models").json()["items"]}

    def shadow(model: str, method: str = "POST") -> None:
        said = {"recipe": "default", "why": "compare"}
        given = {"json": said} if method == "POST" else {"params": said}
        assert line.request(method, f"/v1/models/{model}/shadow", **given).status_code == 200

    shadow(second)
    assert states() == {own: "active", second: "shadow", last: "candidate"}
    shadow(last)  # in the place of the other
    assert states() == {own: "active", second: "candidate", last: "shadow"}
    shadow(last, "DELETE")
    again = line.delete(f"/v1/models/{last}/shadow", params={"recipe": "default", "why": "x"})
    assert_problem(again, 409, "not-a-shadow")
    shadow(second)
    line.post(f"/v1/models/{second}/activate", json={"recipe": "default", "why": "better"})
    assert states() == {own: "active", second: "active", last: "candidate"}
    comparison = line.get(f"/v1/models/{second}/shadow?recipe=default").json()
    assert (comparison["shadowing"], comparison["until"] is None) == (False, False)
    line.post("/v1/models/rollback", json={"recipe": "default", "why": "worse"})
    assert states() == {own: "active", second: "retired", last: "candidate"}
    assert line.post(f"/v1/models/{last}/retire", json={"why": "worse"}).status_code == 200
    told = [
        *(("shadowed", second), ("unshadowed", second), ("shadowed", last), ("unshadowed", last)),
        *(("shadowed", second), ("activated", second), ("rolled-back", own), ("retired", last)),
    ]
    events = [item for item in line.get("/v1/models/events").json()["items"] if item["who"] == "anybody"]
    kept = [(item["action"], item["model_hash"]) for item in reversed(events)]
    assert [one for one in kept if one[0] != "registered"] == told
    audited = [row["action"] for row in line.get("/v1/audit?limit=100").json()["items"]]
    actions = [name.removeprefix("models.") for name in reversed(audited) if name.startswith("models.")]
    assert [name for name in actions if name != "register"] == [action for action, _ in told]
    messages = line.get(f"/v1/webhooks/{hook_id}/deliveries?limit=100").json()["items"]
    assert [message["event"] for message in reversed(messages)] == [
        "model.activated" if action == "rolled-back" else f"model.{action}" for action, _ in told
    ]


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


@pytest.mark.promise(21)
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


@pytest.mark.promise(21)
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
    shadow = ("shadow", second[:12], "--why", "compare")
    assert "is shadowed by tiny 2" in run(served, *shadow)
    assert line.get(f"/v1/models/{second}").json()["shadowed_recipes"] == ["default"]
    assert "no longer" in run(served, *shadow, "--end")
    assert line.get(f"/v1/models/{second}").json()["state"] == "candidate"
    wrong = CliRunner().invoke(cli, ["models", *shadow, "--end", "--data", str(served.data)])
    assert (wrong.exit_code, "does not shadow" in wrong.output) == (2, True)
    run(served, "activate", second[:12], "--recipe", "default", "--why", "better")
    assert line.get(f"/v1/models/{second}").json()["recipes"] == ["default"]
    assert own["hash"] in run(served, "rollback", "default", "--why", "worse")
    bad = CliRunner().invoke(cli, ["models", "register", str(bundles), "--data", str(served.data)])
    assert (bad.exit_code, "is not a bundle" in bad.output) == (2, True)
