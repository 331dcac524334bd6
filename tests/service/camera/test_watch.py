"""Files in a folder become inspections: each once, complete, through outages and crashes."""

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from deploy.processes import free_port
from service.camera.memory import Memory
from service.camera.watch import STATE, Options, Watcher
from service.client import Client
from service.errors import StartupError
from service.settings import Settings
from tests.service.camera.conftest import posted_files
from tests.service.conftest import PixelEngine, flat
from tests.service.live import live

ROOT = Path(__file__).parents[3]


@contextmanager
def watcher(url: str, options: Options, existing: str = "post") -> Iterator[Watcher]:
    with Client(url, retry_for_s=0.2) as client, Memory(options.folder / STATE) as memory:
        made = Watcher(client, options, memory)
        made.begin(existing)  # type: ignore[arg-type]
        yield made


def quick(folder: Path, **more: object) -> Options:
    return Options(folder, settle_s=0.0, poll_s=0.01, **more)  # type: ignore[arg-type]


def drop(folder: Path, *values: int) -> None:
    for value in values:
        (folder / f"part{value:03}.png").write_bytes(flat(value))


def rounds(made: Watcher, count: int = 2) -> int:
    return sum(made.round() for _ in range(count))


def wait_for(holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_each_file_is_posted_once_and_remembered(url: str, folder: Path) -> None:
    drop(folder, 1, 2)
    (folder / "notes.txt").write_text("no image")
    (folder / ".part003.png").write_bytes(flat(3))
    with watcher(url, quick(folder)) as made:
        assert rounds(made, 4) == 2
    drop(folder, 4)
    with watcher(url, quick(folder)) as made:
        assert rounds(made, 3) == 1
    assert posted_files(url) == ["part001.png", "part002.png", "part004.png"]


def test_a_file_that_still_grows_is_left_alone(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, data = [0.0], flat(5)
    monkeypatch.setattr("service.camera.watch.time", SimpleNamespace(monotonic=lambda: now[0]))
    path = folder / "slow.png"
    path.touch()
    options = Options(folder, settle_s=0.3)
    with watcher(url, options) as made, path.open("wb", buffering=0) as file:
        assert made.round() == 0
        for part in (data[:40], data[40:60], data[60:]):
            file.write(part)
            now[0] += 0.25
            assert made.round() == 0
        now[0] += 0.25
        assert made.round() == 0
        now[0] += 0.1
        assert made.round() == 1
    assert posted_files(url) == ["slow.png"]


def test_equal_pictures_of_two_files_are_two_parts(url: str, folder: Path) -> None:
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(flat(1))
    with watcher(url, quick(folder)) as made:
        rounds(made)
    assert sorted(posted_files(url)) == ["a.png", "b.png"]


def test_a_name_used_again_is_a_new_file(url: str, folder: Path) -> None:
    path = folder / "current.png"
    with watcher(url, quick(folder)) as made:
        for value in (1, 2):
            path.write_bytes(flat(value))
            os.utime(path, (value, value))
            rounds(made)
        os.utime(path, (9, 9))  # touched, not written: the service knows it
        rounds(made)
    assert posted_files(url) == ["current.png"] * 2


def test_files_are_moved_and_refused_ones_apart(url: str, folder: Path, tmp_path: Path) -> None:
    done, failed = tmp_path / "done", tmp_path / "failed"
    drop(folder, 1)
    (folder / "bad.png").write_bytes(b"this is no image")
    with watcher(url, quick(folder, done=done, failed=failed)) as made:
        rounds(made)
        drop(folder, 1)  # the camera counts from the start again, with the same picture
        rounds(made)
    assert sorted(path.name for path in done.iterdir()) == ["part001-2.png", "part001.png"]
    assert [path.name for path in failed.iterdir()] == ["bad.png"]
    assert [path.name for path in folder.iterdir() if path.suffix == ".png"] == []
    assert posted_files(url) == ["part001.png"]


def test_folders_within_and_fields_from_the_name(url: str, folder: Path) -> None:
    (folder / "lot7").mkdir()
    (folder / "lot7" / "SN42_top.png").write_bytes(flat(1))
    with watcher(url, quick(folder)) as made:
        assert rounds(made) == 0
    fields = re.compile(r"(?P<lot>\w+)/(?P<serial>\w+)_(?P<station>\w+)\.")
    options = quick(folder, recursive=True, fields=fields, metadata={"recipe": "bolt", "line": "L1"})
    with watcher(url, options) as made:
        assert rounds(made) == 1
    item = httpx.get(f"{url}/v1/inspections").json()["items"][0]
    said = {name: item[name] for name in ("recipe", "line", "lot", "serial", "station")}
    assert said == {"recipe": "bolt", "line": "L1", "lot": "lot7", "serial": "SN42", "station": "top"}
    assert item["attributes"] == {"file": "lot7/SN42_top.png"}
    assert item["captured_at"]


def test_what_was_there_before_can_be_skipped(url: str, folder: Path) -> None:
    drop(folder, 1, 2)
    with watcher(url, quick(folder), existing="skip") as made:
        drop(folder, 3)
        rounds(made)
    with watcher(url, quick(folder), existing="skip") as made:  # not the first start: nothing more is skipped
        drop(folder, 4)
        rounds(made)
    drop(folder, 5)
    with watcher(url, quick(folder), existing="skip") as made:
        rounds(made)
    assert posted_files(url) == ["part003.png", "part004.png", "part005.png"]


def test_an_outage_is_waited_for(settings: Settings, engine: PixelEngine, folder: Path) -> None:
    port = free_port()
    drop(folder, 1, 2, 3)
    with watcher(f"http://127.0.0.1:{port}", quick(folder, outage_s=0.05)) as made:
        thread = threading.Thread(target=made.run)
        thread.start()
        time.sleep(0.5)
        with live(settings, engine, port) as url:
            try:
                wait_for(lambda: len(posted_files(url)) == 3)
            finally:
                made.stop.set()
                thread.join(20)


def test_a_refused_key_stops_the_watch(folder: Path) -> None:
    from tests.service.receiver import Receiver

    receiver = Receiver(status=401)
    receiver.start()
    drop(folder, 1)
    try:
        with watcher(f"http://127.0.0.1:{receiver.port}", quick(folder)) as made:
            with pytest.raises(StartupError, match="401"):
                rounds(made)
    finally:
        receiver.stop()
    assert (folder / "part001.png").exists()


@pytest.mark.promise(1)
@pytest.mark.timeout(240)
@pytest.mark.parametrize("moved", [False, True])
def test_killed_again_and_again_every_file_is_inspected_once(
    url: str, folder: Path, tmp_path: Path, moved: bool
) -> None:
    rng, total = random.Random(3), 60
    command = [sys.executable, "-m", "service.cli", "watch", str(folder), "--url", url]
    command += ["--settle-s", "0.02", "--poll-s", "0.01"]
    command += ["--done", str(tmp_path / "done")] if moved else []

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert b"watching" in process.stdout.readline()
        return process

    def end(process: subprocess.Popen[bytes], how: signal.Signals) -> int:
        process.send_signal(how)
        status = process.wait(20)
        assert process.stdout is not None
        process.stdout.close()
        return status

    for number in range(6):
        process = start()
        drop(folder, *range(number * 10, number * 10 + 10))
        time.sleep(rng.uniform(0.03, 0.25))
        assert end(process, signal.SIGKILL) == -signal.SIGKILL
    process = start()
    wait_for(lambda: len(set(posted_files(url))) == total)
    assert end(process, signal.SIGTERM) == 0
    assert len(posted_files(url)) == total
    left = [path.name for path in folder.glob("*.png")]
    assert len(left) == (0 if moved else total)
