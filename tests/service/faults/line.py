"""Processes of the service that can be killed and started at once, callers who note what they were told."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
from redis import Redis
from sqlalchemy import Row, create_engine, text

from deploy.processes import free_port
from service.blobs import DiskBlobs
from tests.service.conftest import png, texture

ROOT = Path(__file__).parents[3]
START_S = 30.0


@dataclass
class Member:
    """A process of the service, and where it answers."""

    pid: int
    kind: str
    log: Path
    address: str = ""

    @property
    def runs(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL; it is gone when this returns."""
        os.kill(self.pid, signal.SIGKILL)
        while self.runs:
            time.sleep(0.001)

    def wait(self) -> "Member":
        """Until it says that it is ready."""
        deadline = time.monotonic() + START_S
        while not self.ready():
            assert self.runs, self.log.read_text()[-2000:]
            assert time.monotonic() < deadline, self.log.read_text()[-2000:]
            time.sleep(0.01)
        return self

    def ready(self) -> bool:
        if not self.address:
            found = re.search(rf"{self.kind} ready, monitored at (\S+)", self.log.read_text())
            self.address = found[1] if found else ""
        try:
            return bool(self.address) and httpx.get(f"{self.address}/healthz/ready").status_code == 200
        except httpx.TransportError:
            return False


class Children:
    """Starts processes of the service; `close` kills those that are left."""

    def __init__(self, logs: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("INLIER_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.service.faults.children"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**kept, "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        self._logs, self._count = logs, 0

    def start(
        self, kind: Literal["api", "worker"], data: Path, delay_s: float, broken: str, **settings: Any
    ) -> Member:
        """Begin one; on one data folder they are one service."""
        self._count += 1
        log = self._logs / f"{self._count}-{kind}.log"
        log.touch()
        given = {
            "data": str(data), "log_level": "warning", "auth": "off", "decode_processes": 0,
            "queue_share": 1.0, "rate_limit_per_s": 0, "failures_per_minute": 0, "metrics_port": 0,
            **settings,
        }  # fmt: skip
        order = {"kind": kind, "settings": given, "delay_s": delay_s, "broken": broken, "log": str(log)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        address = f"http://127.0.0.1:{settings['port']}" if kind == "api" else ""
        return Member(int(self._process.stdout.readline()), kind, log, address)

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(30)


class Line:
    """An API and workers on one folder, database and queue; `broken` are its processes, if anything is."""

    def __init__(
        self, children: Children, data: Path, *, delay_s: float = 0.002, broken: str = "", **settings: Any
    ) -> None:
        self._children, self._delay_s, self._broken = children, delay_s, broken
        self.settings = {"port": free_port(), **settings}
        self._members: list[Member] = []
        self.url = f"http://127.0.0.1:{self.settings['port']}"
        self.data = data
        self.blobs = Path(settings.get("blobs") or data / "blobs")

    @property
    def database_url(self) -> str:
        return self.settings.get("database_url") or f"sqlite:///{self.data / 'inlier.sqlite3'}"

    def api(self) -> Member:
        return self._start("api")

    def worker(self, delay_s: float | None = None) -> Member:
        return self._start("worker", delay_s)

    def _start(self, kind: Literal["api", "worker"], delay_s: float | None = None) -> Member:
        delay_s = self._delay_s if delay_s is None else delay_s
        member = self._children.start(kind, self.data, delay_s, self._broken, **self.settings)
        self._members.append(member)
        return member

    def end(self) -> None:
        for member in self._members:
            if member.runs:
                member.kill()


def client(url: str) -> Any:
    """A Redis to look at; its annotations know less than it answers, hence Any."""
    return Redis.from_url(url, decode_responses=True)


def rows(url: str) -> Sequence[Row[Any]]:
    """All inspections, looked at from outside."""
    engine = create_engine(url)
    query = text("SELECT id, status, attempts, worker, image_sha256, error_code FROM inspections ORDER BY id")
    try:
        with engine.connect() as connection:
            return connection.execute(query).all()
    finally:
        engine.dispose()


def unfinished(url: str) -> int:
    return sum(row.status in ("queued", "running") for row in rows(url))


def until(holds: Callable[[], bool], seconds: float) -> float:
    """How long it took until this was so; it has to be within `seconds`."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() < began + seconds, "it did not happen"
        time.sleep(0.02)
    return time.monotonic() - began


@dataclass
class Answers:
    """What callers were told: the images that were accepted, by id, and every other status with its count."""

    accepted: dict[str, str] = field(default_factory=dict)  # id -> the image's sha256
    refused: list[httpx.Response] = field(default_factory=list)
    broken_off: int = 0  # no answer

    def lost(self, url: str, blobs: Path) -> list[str]:
        """Accepted inspections without a row, or without their whole image on disk."""
        found, store = {row.id: row for row in rows(url)}, DiskBlobs(blobs)
        return [
            identifier
            for identifier, digest in self.accepted.items()
            if identifier not in found
            or found[identifier].image_sha256 != digest
            or not _whole(store, digest)
        ]


def half_written(url: str, blobs: Path) -> list[str]:
    """Rows that name an image which is not there whole."""
    store = DiskBlobs(blobs)
    return [row.id for row in rows(url) if not _whole(store, row.image_sha256)]


def _whole(store: DiskBlobs, digest: str) -> bool:
    try:
        return hashlib.sha256(store.get(digest)).hexdigest() == digest
    except LookupError:
        return False


def post(url: str, number: int, answers: Answers, client: httpx.Client | None = None) -> None:
    """Post an image that no other number has, and note the answer."""
    data = png(texture(number))
    given: Any = client or httpx
    try:
        answer = given.post(
            f"{url}/v1/inspections", content=data, headers={"Content-Type": "image/png"}, timeout=30
        )
    except httpx.TransportError:
        answers.broken_off += 1
        return
    if answer.status_code in (200, 202):
        answers.accepted[answer.json()["id"]] = hashlib.sha256(data).hexdigest()
    else:
        answers.refused.append(answer)


@contextmanager
def calling(url: str, callers: int = 4, most: int = 10**9) -> Iterator[Answers]:
    """Callers who post one image after the other until the block ends, or until they have posted `most`."""
    answers, stop, left = Answers(), threading.Event(), iter(range(most))
    lock = threading.Lock()

    def call() -> None:
        with httpx.Client() as client:
            while not stop.is_set():
                with lock:
                    number = next(left, None)
                if number is None:
                    return
                before = len(answers.accepted)
                post(url, number, answers, client)
                if len(answers.accepted) == before:
                    stop.wait(0.02)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()
