"""What every store of blobs does, on disk and in S3, and what happens when S3 does not answer."""

import hashlib
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select
from starlette.testclient import TestClient

from service.app import create_app
from service.blobs import BlobMissing, BlobStore, BlobsUnavailable, DiskBlobs
from service.blobs.open import open_blobs
from service.db.session import Database
from service.db.tables import InspectionRow
from service.errors import StartupError
from service.settings import Settings
from tests.service.conftest import PixelEngine, flat
from tests.service.s3 import BUCKET, PrivateS3


@pytest.fixture(scope="module")
def s3() -> Iterator[PrivateS3]:
    server = PrivateS3()
    yield server
    server.stop()


@pytest.fixture
def s3_settings(settings: Settings, s3: PrivateS3) -> Settings:
    """A prefix of its own for each test."""
    given = {
        "blobs": f"s3://{BUCKET}/{secrets.token_hex(4)}",
        "s3_endpoint": s3.endpoint,
        "s3_access_key": "key",
        "s3_secret_key": SecretStr("secret"),
        "s3_timeout_s": 2.0,
    }
    return settings.model_copy(update=given)


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "disk":
        return DiskBlobs(tmp_path / "blobs")
    return open_blobs(request.getfixturevalue("s3_settings"), alone=True)


def test_what_is_put_can_be_got(store: BlobStore) -> None:
    for data in (b"", b"picture", bytes(range(256)) * 20_000):
        name = store.put(data)
        assert name == hashlib.sha256(data).hexdigest()
        assert store.get(name) == data
        assert store.put(data) == name


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64])
def test_what_is_not_there_is_missing(store: BlobStore, name: str) -> None:
    with pytest.raises(BlobMissing):
        store.get(name)


def test_what_is_staged_is_a_blob_once_it_is_kept(store: BlobStore, tmp_path: Path) -> None:
    unwanted, wanted = store.stage(b"unwanted"), store.stage(b"wanted")
    unwanted.drop()
    assert list(store.stored()) == []
    assert wanted.keep() == wanted.name == hashlib.sha256(b"wanted").hexdigest()
    for staged in (wanted, store.stage(b"wanted")):  # it is there: a drop leaves it alone
        staged.drop()
        assert store.get(wanted.name) == b"wanted"
    again = store.stage(b"wanted")
    assert store.remove(wanted.name, put_before=time.time() + 60)
    again.keep()
    again.drop()
    assert store.get(wanted.name) == b"wanted"
    slow = store.stage(b"slow")
    store.sweep()  # by a removal of old blobs: it waited for long
    slow.keep()
    assert store.get(slow.name) == b"slow"
    if isinstance(store, DiskBlobs):
        assert list((tmp_path / "blobs" / "incoming").iterdir()) == []


def test_racing_writers_of_one_blob(store: BlobStore) -> None:
    names: list[str] = []
    threads = [threading.Thread(target=lambda: names.append(store.put(b"x" * 100_000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 8
    assert len(set(names)) == 1
    assert store.get(names[0]) == b"x" * 100_000


def test_all_are_listed_with_their_age(store: BlobStore) -> None:
    before = time.time()
    names = {store.put(f"blob {number}".encode()) for number in range(30)}
    found = list(store.stored())
    assert {blob.name for blob in found} == names
    assert all(before - 2 <= blob.put_at <= time.time() + 2 for blob in found)


def test_only_old_ones_are_removed(store: BlobStore) -> None:
    name = store.put(b"picture")
    assert not store.remove(name, put_before=time.time() - 60)
    assert store.get(name) == b"picture"
    assert store.remove(name, put_before=time.time() + 60)
    with pytest.raises(BlobMissing):
        store.get(name)
    assert not store.remove(name, put_before=time.time() + 60)
    assert list(store.stored()) == []


def test_put_again_makes_young(store: BlobStore) -> None:
    name = store.put(b"picture")
    time.sleep(1.1)  # S3 counts in seconds
    between = time.time() - 0.05
    assert {blob.name for blob in store.stored() if blob.put_at < between} == {name}
    store.put(b"picture")
    assert not store.remove(name, put_before=int(between))
    assert store.get(name) == b"picture"


def test_a_put_beside_a_removal_is_kept(tmp_path: Path) -> None:
    """Whatever comes first: the blob is there after the put that came after the limit."""
    store = DiskBlobs(tmp_path / "blobs")
    for number in range(50):
        data = str(number).encode()
        name, limit = store.put(data), time.time() + 0.01
        time.sleep(0.03)  # files are dated by a clock that ticks every few milliseconds
        removing = threading.Thread(target=store.remove, args=(name,), kwargs={"put_before": limit})
        removing.start()
        store.put(data)
        removing.join()
        assert store.get(name) == data


def test_prefixes_are_apart(s3_settings: Settings) -> None:
    here = open_blobs(s3_settings, alone=True)
    there = open_blobs(s3_settings.model_copy(update={"blobs": f"s3://{BUCKET}/elsewhere"}), alone=True)
    name = here.put(b"picture")
    with pytest.raises(BlobMissing):
        there.get(name)
    assert list(there.stored()) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"blobs": "s3://no-such-bucket/x"}, "no-such-bucket"),
        ({"s3_endpoint": "http://127.0.0.1:1"}, "--blobs"),
        ({"blobs": "gs://bucket"}, "neither a folder nor s3"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_at_the_start(
    s3_settings: Settings, change: dict[str, str], complaint: str
) -> None:
    with pytest.raises(StartupError, match=complaint) as caught:
        open_blobs(s3_settings.model_copy(update=change), alone=True)
    assert "secret" not in str(caught.value)


def test_a_folder_of_ones_own(settings: Settings, tmp_path: Path) -> None:
    store = open_blobs(settings.model_copy(update={"blobs": str(tmp_path / "elsewhere")}), alone=True)
    name = store.put(b"picture")
    assert (tmp_path / "elsewhere" / name[:2] / name).read_bytes() == b"picture"


def test_inspections_with_their_pictures_in_s3(s3_settings: Settings) -> None:
    headers = {"Content-Type": "image/png", "Prefer": "wait=30"}
    with TestClient(create_app(s3_settings, PixelEngine())) as client:
        answer = client.post("/v1/inspections", content=flat(9), headers=headers)
        assert answer.status_code == 200
        assert client.get(answer.json()["links"]["image"]).content == flat(9)
        assert client.get(answer.json()["links"]["heatmap"]).status_code == 200
    assert not (s3_settings.data / "blobs").exists()


@pytest.mark.promise(9)
def test_a_silent_store_is_503_and_nothing_is_accepted(s3_settings: Settings, s3: PrivateS3) -> None:
    headers = {"Content-Type": "image/png"}
    with TestClient(create_app(s3_settings, PixelEngine())) as client:
        with s3.asleep():
            started = time.monotonic()
            answer = client.post("/v1/inspections", content=flat(9), headers=headers)
            assert time.monotonic() - started < 20  # a few timeouts of 2 s, not the client's patience
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert answer.json()["type"] == "urn:inlier:problem:storage-unavailable"
        database = Database(s3_settings.url)
        with database.read() as session:
            assert session.scalar(select(func.count()).select_from(InspectionRow)) == 0
        database.close()
        headers["Prefer"] = "wait=30"
        assert client.post("/v1/inspections", content=flat(9), headers=headers).status_code == 200


@pytest.mark.promise(9)
def test_what_was_accepted_ends_well_after_a_silence(s3_settings: Settings, s3: PrivateS3) -> None:
    """Results that cannot be stored are made again, and no attempt at an image is counted for it."""
    engine, headers = PixelEngine(), {"Content-Type": "image/png"}
    impatient = s3_settings.model_copy(update={"s3_timeout_s": 0.5, "lease_s": 2.0, "max_attempts": 1})
    with TestClient(create_app(impatient, engine)) as client:
        engine.go.clear()
        accepted = [client.post("/v1/inspections", content=flat(value), headers=headers) for value in (1, 2)]
        with s3.asleep():
            engine.go.set()
            deadline = time.monotonic() + 30
            while len([values for _, values in engine.batches if 1 in values]) < 2:  # it was made again
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert client.post("/v1/inspections", content=flat(9), headers=headers).status_code == 503
        for answer, value in zip(accepted, (1, 2), strict=True):
            while (body := client.get(answer.json()["links"]["self"]).json())["verdict"] is None:
                assert time.monotonic() < deadline + 30
                time.sleep(0.05)
            assert (body["status"], body["score"]["raw"]) == ("done", value)
        assert len(client.get("/v1/inspections").json()["items"]) == 2


def test_a_store_that_is_gone_is_unavailable(s3_settings: Settings) -> None:
    server = PrivateS3()
    store = open_blobs(s3_settings.model_copy(update={"s3_endpoint": server.endpoint}), alone=True)
    name = store.put(b"picture")
    server.stop()
    for call in (lambda: store.put(b"x"), lambda: store.get(name), lambda: list(store.stored())):
        with pytest.raises(BlobsUnavailable):
            call()
