"""Between the service and PostgreSQL: a cable that is cut at the one moment nobody else can hit."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import make_url

COUNTING = b"attempts=(inspections.attempts"  # an attempt is counted in this transaction


class Cable:
    """Forwards connections; of the first `cuts` commits of a counted attempt the client never hears."""

    def __init__(self, url: str, cuts: int) -> None:
        self._far, self._left, self.cut = make_url(url), cuts, 0
        self._lock, self._listening = threading.Lock(), socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        port = self._listening.getsockname()[1]
        near = self._far.set(host="127.0.0.1", port=port, query={"sslmode": "disable"})
        return near.render_as_string(hide_password=False)

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                threading.Thread(target=self._forward, args=(near, self._connect()), daemon=True).start()

    def _connect(self) -> socket.socket:
        return socket.create_connection((self._far.host or "127.0.0.1", self._far.port or 5432))

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        silent = threading.Event()
        threading.Thread(target=self._answer, args=(far, near, silent), daemon=True).start()
        counting = False
        with near, contextlib.suppress(OSError):
            while data := near.recv(65536):
                counting = counting or COUNTING in data
                if counting and b"COMMIT" in data:
                    counting = False
                    if self._take():
                        silent.set()
                far.sendall(data)
            far.shutdown(socket.SHUT_RDWR)

    def _answer(self, far: socket.socket, near: socket.socket, silent: threading.Event) -> None:
        with far, contextlib.suppress(OSError):
            while data := far.recv(65536):
                if silent.is_set():  # it is committed, and the answer is lost
                    break
                near.sendall(data)
            near.shutdown(socket.SHUT_RDWR)

    def _take(self) -> bool:
        with self._lock:
            if self.cut == self._left:
                return False
            self.cut += 1
            return True


@contextmanager
def cable(url: str, cuts: int) -> Iterator[Cable]:
    made = Cable(url, cuts)
    try:
        yield made
    finally:
        made.close()
