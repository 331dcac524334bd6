"""Blobs and ids."""

import hashlib
from datetime import timedelta
from pathlib import Path

import pytest

from service.blobs import BlobMissing, DiskBlobs
from service.ids import first_id_at, id_time, new_id


@pytest.mark.promise(9)
def test_blobs_are_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DiskBlobs(tmp_path / "blobs")
    name = store.put(b"picture")
    assert name == hashlib.sha256(b"picture").hexdigest()
    assert store.get(name) == b"picture"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError("power cut")))
        with pytest.raises(OSError, match="power cut"):
            store.put(b"other")
    with pytest.raises(BlobMissing):
        store.get(hashlib.sha256(b"other").hexdigest())
    assert list((tmp_path / "blobs" / "incoming").iterdir()) == []
    (tmp_path / "blobs" / "incoming" / "half").write_bytes(b"ha")
    assert store.sweep() == 1


def test_ids_sort_by_time_and_never_repeat() -> None:
    ids = [new_id() for _ in range(20_000)]
    assert ids == sorted(set(ids))
    moment = id_time(ids[0])
    assert first_id_at(moment) <= ids[0] < first_id_at(moment + timedelta(milliseconds=1))
    assert ids[0] < first_id_at(moment + timedelta(microseconds=1))
    assert ids[0][14] == "7"
