"""HTTP/1.1 as uvicorn speaks it, with an end to connections whose request never arrives."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


def patient(seconds: float) -> type[asyncio.Protocol]:
    """A protocol that closes connections on which, so long after they could, no whole request head has come.

    uvicorn waits for ever for the first head, and after the first byte of each further one.
    """

    class Patient(H11Protocol):
        _waits: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._arrived()
            super().connection_lost(exc)

        def handle_events(self) -> None:
            super().handle_events()
            if self._busy():
                self._arrived()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self._busy():
                self._wait()

        def _busy(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _wait(self) -> None:
            self._arrived()
            self._waits = self.loop.call_later(seconds, self._give_up)

        def _arrived(self) -> None:
            if self._waits is not None:
                self._waits.cancel()
                self._waits = None

        def _give_up(self) -> None:
            if not self._busy():
                self.timeout_keep_alive_handler()

    return Patient
