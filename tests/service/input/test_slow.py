"""Many clients that send slowly, or no end: they are held to their limits, and a normal client is served."""

import os
import re
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from models.bundle import Bundle
from service.settings import Settings
from tests.service.conftest import make_key, png, texture
from tests.service.test_server import command, environment

CLIENTS = int(os.environ.get("INLIER_SLOW_CLIENTS", "30"))
TIMEOUT_S = 3.0
IMAGE = png(texture(1))
Note = Callable[[str, object], None]


@contextmanager
def serving(bundle: Bundle, data: Path, *flags: str) -> Iterator[str]:
    arguments = ["serve", "--bundle", str(bundle.path), "--data", str(data), "--port", "0", "--threads", "1"]
    log = data / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command(*arguments, *flags), stderr=output, env=environment())
    try:
        while (ready := re.search(r"ready at (http://\S+)", log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield ready[1]
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


class Slow:
    """Connections that send their request a byte at a time, and note when the server had enough of them."""

    def __init__(self, url: str, requests: list[bytes]) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.ended: list[float] = []
        self.answers: list[bytes] = []
        self._left = [(socket.create_connection((host, int(port)), timeout=10), text) for text in requests]
        self._began, self._over = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with selectors.DefaultSelector() as reading:
            for connection, text in self._left:
                connection.sendall(text[:-1000])
                connection.setblocking(False)
                reading.register(connection, selectors.EVENT_READ, bytearray(text[-1000:]))
            while reading.get_map() and not self._over.wait(0.2):
                heard = {key.fd for key, _ in reading.select(0)}
                for key in list(reading.get_map().values()):
                    connection, rest = key.fileobj, key.data
                    assert isinstance(connection, socket.socket)
                    try:
                        if key.fd in heard:
                            self.answers.append(connection.recv(4096))
                            raise ConnectionError
                        connection.send(bytes([rest.pop(0)]))
                    except (ConnectionError, IndexError):
                        self.ended.append(time.monotonic() - self._began)
                        reading.unregister(connection)
                        connection.close()

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)

    def close(self) -> None:
        self._over.set()
        self._thread.join(10)
        for connection, _ in self._left:
            connection.close()


def requests(count: int, key: str) -> list[bytes]:
    """In turn: a head without end, an image, a chunked image, and a sign-in, all with 200 s to go."""
    head = f"POST /v1/inspections HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\n"
    head += "Content-Type: image/png\r\n"
    sign_in = "POST /v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    kinds = [
        head.encode() + b"X-Padding: " + b"x" * 1000,
        head.encode() + b"Content-Length: 100000\r\n\r\n" + IMAGE[:8] + b"\0" * 1000,
        head.encode() + b"Transfer-Encoding: chunked\r\n\r\n186a0\r\n" + b"\0" * 1000,
        sign_in.encode() + b"Content-Length: 5000\r\n\r\n" + b'{"name": "' + b"x" * 1000,
    ]
    return [kinds[number % len(kinds)] for number in range(count)]


def normal(url: str, headers: dict[str, str], count: int) -> list[float]:
    """Seconds of each post of a client that does nothing wrong."""
    spent = []
    with httpx.Client(base_url=url, timeout=30, headers=headers) as client:
        for _ in range(count):
            started = time.monotonic()
            answer = client.post(
                "/v1/inspections",
                content=IMAGE,
                headers={"Content-Type": "image/png", "Prefer": "wait=20"},
            )
            assert answer.status_code == 200, answer.text
            spent.append(time.monotonic() - started)
    return sorted(spent)


def harm(bundle: Bundle, data: Path, note: Note, count: int, **changed: float) -> None:
    """A normal client is served as without the slow ones, and these are shown out in their time."""
    data.mkdir()
    settings = Settings(data=data)
    slow_key = make_key(settings, "camera", "slow")["Authorization"].removeprefix("Bearer ")
    own = make_key(settings, "camera", "own")
    timeout_s = changed.get("timeout_s", TIMEOUT_S)
    with serving(bundle, data, "--body-timeout-s", str(timeout_s), "--queue-size", "32") as url:
        alone = normal(url, own, 8)
        slow = Slow(url, requests(count, slow_key))
        try:
            served = normal(url, own, 8)
            slow.wait(changed.get("patience_s", 10 * TIMEOUT_S))
            assert len(slow.ended) == count, "slow clients are borne for ever"
        finally:
            slow.close()
        again = normal(url, own, 4)
    note("slow clients at once", count)
    note("a normal post beside them, median ms", f"{1000 * served[4]:.0f} (alone {1000 * alone[4]:.0f})")
    assert served[4] < 5 * alone[4] + 0.5
    assert again[2] < 5 * alone[4] + 0.5
    assert {answer.split(b" ")[1] for answer in slow.answers if answer} <= {b"408", b"429", b"503"}
    assert sum(answer.startswith(b"HTTP/1.1 408 ") for answer in slow.answers) >= min(count // 4, 16)


@pytest.mark.promise(17)
@pytest.mark.timeout(120)
def test_slow_clients_harm_nobody(bundle: Bundle, tmp_path: Path, record_property: Note) -> None:
    harm(bundle, tmp_path / "data", record_property, CLIENTS)


@pytest.mark.slow
@pytest.mark.promise(17)
@pytest.mark.timeout(240)
def test_hundreds_of_slow_clients_harm_nobody(bundle: Bundle, tmp_path: Path, record_property: Note) -> None:
    harm(bundle, tmp_path / "data", record_property, 400)


@pytest.mark.promise(17, control=True)
@pytest.mark.timeout(120)
def test_a_server_that_bears_them_for_ever_would_be_found(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="for ever"):
        harm(bundle, tmp_path / "data", lambda name, value: None, 8, timeout_s=3600, patience_s=5)
