"""Cameras that post as docs/integrator.md says: a key for each image, the same again until it is taken."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

STATIONS = ("A1", "A2", "B1", "B2")
_RETRY_S = 0.5
_GIVE_UP_S = 90.0


@dataclass(frozen=True)
class Posted:
    """One image that the service said it has."""

    id: str
    key: str
    sent: float  # seconds since 1970, of the first attempt
    answered: float
    attempts: int
    verdict: str | None


@dataclass
class Load:
    """What the cameras saw; `silent` are stations that send nothing, `hurry` gives images no time at all."""

    url: str
    headers: dict[str, str]
    images: Sequence[bytes]
    rate: float  # images a second, all stations together
    name: str = "ops"  # begins the keys, so that two loads post different images
    posted: list[Posted] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # answers that no retry can change
    given_up: int = 0
    silent: set[str] = field(default_factory=set)
    hurry: bool = False
    _done: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for station in STATIONS:
            self._threads.append(threading.Thread(target=self._camera, args=(station,), daemon=True))
            self._threads[-1].start()

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(_GIVE_UP_S + 30)

    def _camera(self, station: str) -> None:
        pause_s, number = len(STATIONS) / self.rate, 0
        with httpx.Client(base_url=self.url, headers=self.headers, timeout=30) as client:
            while not self._done.wait(pause_s):
                if station not in self.silent:
                    number += 1
                    self._post(client, station, number)

    def _post(self, client: httpx.Client, station: str, number: int) -> None:
        key, sent = f"{self.name}-{station}-{number}", time.time()
        query: dict[str, str] = {"line": station[0], "station": station, "serial": f"{station}-{number}"}
        if self.hurry:
            query["deadline_ms"] = "1"
        headers = {"Content-Type": "image/png", "Prefer": "wait=10", "Idempotency-Key": key}
        for attempt in range(1, 1000):
            try:
                image = self.images[(number + len(station)) % len(self.images)]
                answer = client.post("/v1/inspections", content=image, params=query, headers=headers)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code in (200, 202):
                body = answer.json()
                self.posted.append(Posted(body["id"], key, sent, time.time(), attempt, body["verdict"]))
                return
            if answer is not None and answer.status_code not in (429, 500, 503, 507):
                self.refused.append(f"{answer.status_code} {answer.text[:300]}")
                return
            if time.time() - sent > _GIVE_UP_S:
                self.given_up += 1
                return
            time.sleep(_RETRY_S)


def pictures(parts: Path) -> list[bytes]:
    """Good and defective parts, as PNG."""
    return [path.read_bytes() for path in sorted(parts.rglob("*.png"))[:32]]
