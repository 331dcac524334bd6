"""Signed bundles: by us or by openssl, checked by both; unsigned, changed and foreign ones are refused."""

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from models.bundle import SIGNATURE_FILE, Bundle, BundleError, load_bundle
from service.app import create_app
from service.cli import cli
from service.errors import StartupError
from service.settings import Settings
from service.signatures import load_trusted, sign
from tests.service.conftest import connected
from tests.service.outbox.conftest import missing
from tests.service.test_engines import variant


def openssl(*arguments: object) -> None:
    if shutil.which("openssl") is None:
        missing("openssl is not installed (Debian: apt-get install openssl)")
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def key_pair(folder: Path, name: str, algorithm: str = "ed25519") -> tuple[Path, Path]:
    """As docs/security.md makes them -> private, public."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    openssl("genpkey", "-algorithm", algorithm, "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return key_pair(tmp_path, "ours")


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle that may be changed."""
    shutil.copytree(bundle.path, tmp_path / "bundles/tiny")
    return tmp_path / "bundles/tiny"


def test_a_signed_bundle_is_the_same_bundle(bundle: Bundle, copy: Path, keys: tuple[Path, Path]) -> None:
    assert sign(copy, keys[0]).hash == bundle.hash
    sign(copy, keys[0])  # again is no harm
    assert load_trusted(copy, keys[1]).hash == load_trusted(copy, None).hash == bundle.hash
    assert {file.name for file in copy.parent.iterdir()} == {"tiny"}
    signature = copy / SIGNATURE_FILE
    checks = ("-rawin", "-in", copy / "manifest.json", "-sigfile", signature)
    openssl("pkeyutl", "-verify", "-pubin", "-inkey", keys[1], *checks)


def test_openssl_signs_as_well(copy: Path, keys: tuple[Path, Path]) -> None:
    made = ("-rawin", "-in", copy / "manifest.json", "-out", copy / SIGNATURE_FILE)
    openssl("pkeyutl", "-sign", "-inkey", keys[0], *made)
    load_trusted(copy, keys[1])


def test_one_of_several_keys_is_enough(copy: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    other = key_pair(tmp_path, "other")
    both = tmp_path / "both.pem"
    both.write_bytes(other[1].read_bytes() + keys[1].read_bytes())
    sign(copy, keys[0])
    load_trusted(copy, both)
    with pytest.raises(BundleError, match="not one of a trusted key"):
        load_trusted(copy, other[1])


def unsigned(folder: Path) -> None:
    (folder / SIGNATURE_FILE).unlink()


def manifest_changed(folder: Path) -> None:
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": "1"', '"version": "2"'))
    load_bundle(folder)  # by its hashes alone it is one


def file_changed(folder: Path) -> None:
    (folder / "audit.csv").write_text("changed")


def signature_cut(folder: Path) -> None:
    (folder / SIGNATURE_FILE).write_bytes((folder / SIGNATURE_FILE).read_bytes()[:63])


def signature_linked(folder: Path) -> None:
    (folder / SIGNATURE_FILE).rename(folder.parent / "elsewhere")
    (folder / SIGNATURE_FILE).symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (unsigned, "is not signed"),
        (manifest_changed, "not one of a trusted key"),
        (file_changed, "does not match its sha256"),
        (signature_cut, "not one of a trusted key"),
        (signature_linked, "does not hold a plain manifest"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_not_as_it_was_signed_is_refused(
    copy: Path, keys: tuple[Path, Path], spoil, complaint
) -> None:
    sign(copy, keys[0])
    spoil(copy)
    with pytest.raises(BundleError, match=complaint):
        load_trusted(copy, keys[1])


def test_the_signature_comes_first(copy: Path, keys: tuple[Path, Path]) -> None:
    (copy / "manifest.json").write_text("not even JSON")
    with pytest.raises(BundleError, match="is not signed"):
        load_trusted(copy, keys[1])


def test_a_service_starts_with_and_registers_signed_bundles_only(
    settings: Settings, bundle: Bundle, copy: Path, keys: tuple[Path, Path]
) -> None:
    wary = settings.model_copy(
        update={"bundle": copy, "bundles": copy.parent, "threads": 1, "trusted_keys": keys[1]}
    )
    with pytest.raises(StartupError, match="is not signed"), TestClient(create_app(wary)):
        pass
    sign(copy, keys[0])
    second = variant(bundle, copy.parent / "second", "2")
    with connected(wary) as client:
        refused = client.post("/v1/models", json={"path": "second"})
        assert (refused.status_code, refused.json()["type"]) == (422, "urn:inlier:problem:invalid-bundle")
        assert "is not signed" in refused.json()["detail"]
        sign(second.path, keys[0])
        assert client.post("/v1/models", json={"path": "second"}).status_code == 201
        (second.path / SIGNATURE_FILE).unlink()  # it may be swapped after it was registered
        body = {"recipe": "default", "why": "newer"}
        answer = client.post(f"/v1/models/{second.hash}/activate", json=body)
        assert (answer.status_code, "is not signed" in answer.text) == (422, True)
        sign(second.path, keys[0])
        assert client.post(f"/v1/models/{second.hash}/activate", json=body).status_code == 200
        keys[1].unlink()  # nothing is taken on trust because the keys are gone
        gone = client.post("/v1/models", json={"path": "second"})
        assert (gone.status_code, "cannot be read" in gone.text) == (422, True)


def test_on_the_command_line(copy: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    def run(*arguments: object) -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["models", *map(str, arguments)])
        return done.exit_code, done.output

    register = ("register", copy, "--data", tmp_path / "data", "--trusted-keys", keys[1])
    status, said = run(*register)
    assert (status, "is not signed" in said) == (2, True)
    assert run("sign", copy, "--key", keys[0])[0] == 0
    assert run(*register)[0] == 0
    for wrong in (keys[1], tmp_path / "none.pem", key_pair(tmp_path, "x", "x25519")[0]):
        status, said = run("sign", copy, "--key", wrong)
        assert (status, "Traceback" in said) == (2, False)
    assert run("sign", tmp_path, "--key", keys[0])[0] == 2
    for wrong in (
        copy / "manifest.json",
        keys[0],
        tmp_path / "none.pem",
        key_pair(tmp_path, "y", "x25519")[1],
    ):
        status, said = run(*register[:-1], wrong)
        assert (status, "--trusted-keys" in said) == (2, True)
