"""Real receivers of messages: an HTTP server that does as told, and a private MQTT broker."""

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service.db.repository import outbox
from service.db.session import Database
from service.db.tables import SinkRow
from service.ids import id_time, new_id
from service.outbox.message import EVENTS, new_secret
from service.settings import Settings

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


HANG_UP = 0  # among a receiver's answers: close the connection instead


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Notes what is posted to it; `answers` are used up first, then `status` is answered."""

    port: int = 0
    status: int = 204
    answers: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    answer_body: bytes = b""
    delay_s: float = 0.0
    received: list[Received] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    tls: ssl.SSLContext | None = None
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [one.headers["webhook-id"] for one in self.received]

    def start(self) -> None:
        receiver, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    receiver.at_once += 1
                    receiver.most_at_once = max(receiver.most_at_once, receiver.at_once)
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    receiver.received.append(Received(self.path, headers, body))
                    status = receiver.answers.pop(0) if receiver.answers else receiver.status
                time.sleep(receiver.delay_s)
                with lock:
                    receiver.at_once -= 1
                if status == HANG_UP:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(receiver.answer_body)))
                self.end_headers()
                self.wfile.write(receiver.answer_body)

            def log_message(self, *arguments: object) -> None:
                """Quiet: what matters is in `received`."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Clients that hang up are part of the tests."""

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data=tmp_path / "data",
        log_level="warning",
        decode_processes=0,
        shutdown_grace_s=5,
        sink_allow="127.0.0.1,localhost",
        sink_retry_s=0.05,
        sink_timeout_s=2,
        sink_attempts=3,
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    settings.data.mkdir()
    made = Database(settings.url)
    made.migrate()
    yield made
    made.close()


def add_sink(database: Database, url: str, **values: object) -> SinkRow:
    identifier = new_id()
    row = SinkRow(
        **{
            "id": identifier,
            "kind": "webhook",
            "name": identifier,
            "address": url,
            "secret": new_secret(),
            "events": list(EVENTS),
            "created_by": "test",
            "created_at": id_time(identifier),
            **values,
        }
    )
    with database.write() as session:
        session.add(row)
    return row


def announce(database: Database, count: int = 1, event: str = "inspection.finished") -> None:
    for number in range(count):
        with database.write() as session:
            outbox.announce(session, event, "bolt", {"number": number, "station": "cam/1"})


def statuses(database: Database, sink: SinkRow) -> list[str]:
    """Of all messages to the sink, in the order of creation."""
    with database.read() as session:
        rows = outbox.deliveries(session, sink.id, status=None, limit=1000, before=None)
    return [row.status for row in reversed(rows)]


async def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.02)


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine function to its end."""

    async def main() -> None:
        await work()

    asyncio.run(main())


def missing(what: str) -> None:
    """Skip, or fail where nothing may be skipped."""
    if os.environ.get("CI") or os.environ.get("REQUIRE_SERVERS"):
        pytest.fail(what)
    pytest.skip(what)


class Broker:
    """A mosquitto of our own that can be stopped and started again."""

    def __init__(self, folder: Path, *lines: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._config = folder / f"mosquitto-{self.port}.conf"
        # Root would become the user mosquitto, who cannot read a test's files.
        user = ["user root"] if os.geteuid() == 0 else []
        text = [f"listener {self.port} 127.0.0.1", "persistence false", "log_dest stderr", *user, *lines]
        self._config.write_text("\n".join(text) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO is not None
        with self._config.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", str(self._config)], stdout=log, stderr=log)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError(self._config.with_suffix(".log").read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    if MOSQUITTO is None:
        missing("mosquitto is not installed (Debian: apt-get install mosquitto)")
    made = Broker(tmp_path, "allow_anonymous true")
    made.start()
    yield made
    made.stop()


@dataclass(frozen=True)
class Certificates:
    """An authority, and a certificate of it for one name."""

    authority: Path
    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def certificates(folder: Path, name: str) -> Certificates:
    """Made by openssl; the certificate is for the name alone, not for an address."""
    if shutil.which("openssl") is None:
        missing("openssl is not installed (Debian: apt-get install openssl)")
    folder.mkdir(exist_ok=True)

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test")
    openssl("req", *new, "-keyout", "server.key", "-out", "server.csr", "-subj", f"/CN={name}")
    (folder / "ext").write_text(f"subjectAltName=DNS:{name}\n")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
    openssl("x509", "-req", "-in", "server.csr", "-out", "server.pem", *signed)
    return Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
