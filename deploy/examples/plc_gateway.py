"""A gateway between a PLC and Inlier: a trigger over TCP in, a verdict out. Python's standard library only.

    INLIER_URL=http://inspection:8000 INLIER_KEY=inl_... python3 plc_gateway.py --camera http://camera/snapshot

The PLC connects and sends a line for every part; the gateway takes a picture, has it inspected, and answers:

    INSPECT <serial> [<shot>]          ->  <serial> <output> <verdict> <why>

`output` has one bit for each verdict, for a digital output each: 1 PASS, 2 REVIEW, 4 REJECT. With `--modbus`
the same goes to two holding registers of the PLC over Modbus TCP: the output, 0 while a part is being
inspected, and a count that grows with every verdict, so that an old verdict is not taken for a new one.

Whatever goes wrong - no picture, no service, no verdict within `--budget-s`, ERROR, EXPIRED - is REVIEW. The
PLC keeps a timer of its own for the case that this gateway is gone: no answer is REVIEW, too.
A trigger that is sent again gets the verdict of the picture that was taken the first time; another shot is
another picture.
"""

import argparse
import itertools
import json
import os
import queue
import socket
import socketserver
import struct
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

OUTPUTS = {"PASS": 1, "REVIEW": 2, "REJECT": 4}
TRY_AGAIN = {429, 502, 503, 504, 507}
MAX_LINE_BYTES = 256
MAX_IMAGE_BYTES = 64 * 1024 * 1024
KEPT_PICTURES = 16
PAUSE_S = 0.1


@dataclass(frozen=True)
class Verdict:
    """What the PLC is told; `name` is one of OUTPUTS, whatever happened."""

    name: str
    why: str

    @property
    def output(self) -> int:
        return OUTPUTS[self.name]


def review(why: object) -> Verdict:
    """A person looks: the answer to everything that is not a verdict."""
    return Verdict("REVIEW", " ".join(str(why).split())[:120])


class TryAgain(Exception):
    """The service did not take the request for now."""

    def __init__(self, why: str, after_s: float = PAUSE_S) -> None:
        super().__init__(why)
        self.after_s = after_s


def left_s(until: float) -> float:
    """For one operation on a socket; there is always a little, so that the error is a timeout."""
    return max(0.01, until - time.monotonic())


@dataclass
class Station:
    """One camera, and the service that judges its pictures."""

    camera: str
    url: str
    key: str
    name: str
    recipe: str
    budget_s: float
    _pictures: OrderedDict[str, bytes] = field(default_factory=OrderedDict)

    def inspect(self, serial: str, shot: str) -> Verdict:
        """Take a picture and have it judged, within the budget and with never an exception."""
        answers: queue.SimpleQueue[Verdict] = queue.SimpleQueue()
        until = time.monotonic() + self.budget_s

        def work() -> None:
            try:
                answers.put(self._judge(serial, shot, until))
            except Exception as error:  # the line must not stand still for whatever it was
                answers.put(review(error or type(error).__name__))

        # A thread that is left behind when the time is over ends by its own timeouts.
        threading.Thread(target=work, daemon=True).start()
        try:
            return answers.get(timeout=self.budget_s)
        except queue.Empty:
            return review(f"no verdict within {self.budget_s:g} s")

    def _judge(self, serial: str, shot: str, until: float) -> Verdict:
        document = self._until(until, lambda: self._post(serial, shot, until))
        own = document["links"]["self"]
        while document["verdict"] is None:
            time.sleep(PAUSE_S)
            document = self._until(until, lambda: self._call(own, until))
        verdict = document["verdict"]
        if verdict not in OUTPUTS:  # ERROR and EXPIRED, and whatever else there may ever be
            return review(f"{verdict}: {(document['error'] or {}).get('detail', '')}")
        return Verdict(verdict, f"score {document['score']['calibrated']:.2f} {document['id']}")

    def _post(self, serial: str, shot: str, until: float) -> Any:
        said = {"recipe": self.recipe, "serial": serial, "station": self.name, "attr.shot": shot}
        headers = {
            "Content-Type": "application/octet-stream",
            "Idempotency-Key": f"{urllib.parse.quote(serial)}/{urllib.parse.quote(shot)}",
            "Prefer": f"wait={max(1, int(until - time.monotonic()))}",
        }
        image = self._picture(f"{serial} {shot}", until)
        return self._call(f"/v1/inspections?{urllib.parse.urlencode(said)}", until, image, headers)

    def _picture(self, trigger: str, until: float) -> bytes:
        """The camera's picture; for a trigger that was seen before, the one that was taken then."""
        if (known := self._pictures.get(trigger)) is not None:
            return known
        try:
            with urllib.request.urlopen(self.camera, timeout=left_s(until)) as answer:
                picture: bytes = answer.read(MAX_IMAGE_BYTES)
        except OSError as error:
            raise RuntimeError(f"no picture from the camera: {error}") from None
        self._pictures[trigger] = picture
        if len(self._pictures) > KEPT_PICTURES:
            self._pictures.popitem(last=False)
        return picture

    def _call(
        self, path: str, until: float, data: bytes | None = None, more: dict[str, str] | None = None
    ) -> Any:
        headers = {"Authorization": f"Bearer {self.key}", **(more or {})}
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=left_s(until)) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                why = f"the service answered {error.code}: {error.read(2000).decode(errors='replace')}"
            if error.code not in TRY_AGAIN:
                raise RuntimeError(why) from None
            asked = error.headers.get("Retry-After", "")
            raise TryAgain(why, float(asked) if asked.isdigit() else PAUSE_S) from None
        except OSError as error:
            raise TryAgain(f"the service does not answer: {error}") from None

    def _until(self, until: float, call: Any) -> Any:
        """Repeat a call that is refused for now; the idempotency key makes that safe."""
        while True:
            try:
                return call()
            except TryAgain as error:
                if time.monotonic() + error.after_s >= until:
                    raise
                time.sleep(error.after_s)


class Registers:
    """Two holding registers of a PLC, written over Modbus TCP (function 16): output and count."""

    def __init__(self, plc: tuple[str, int], first: int, unit: int = 1, timeout_s: float = 1.0) -> None:
        self._address, self._first, self._unit, self._timeout_s = plc, first, unit, timeout_s
        self._transactions = itertools.count(1)
        self._count = int(time.time()) % 65_536  # not where an earlier run of the gateway began

    def busy(self) -> None:
        """No verdict while a part is being inspected; OSError if the PLC does not take it."""
        self._write(0, self._count)

    def show(self, verdict: Verdict) -> None:
        self._count = (self._count + 1) % 65_536
        self._write(verdict.output, self._count)

    def _write(self, *values: int) -> None:
        transaction = next(self._transactions) % 65_536
        data = struct.pack(f">BHHB{len(values)}H", 16, self._first, len(values), 2 * len(values), *values)
        head = struct.pack(">HHHB", transaction, 0, len(data) + 1, self._unit)
        with socket.create_connection(self._address, self._timeout_s) as plc:
            plc.sendall(head + data)
            answer = plc.makefile("rb").read(12)
        said = struct.pack(">HHHBBHH", transaction, 0, 6, self._unit, 16, self._first, len(values))
        if answer != said:
            raise OSError(f"the PLC did not take the registers: {answer.hex()}")


class Gateway(socketserver.ThreadingTCPServer):
    """Answers triggers; one part at a time where there is one pair of registers."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, listen: tuple[str, int], station: Station, registers: Registers | None) -> None:
        super().__init__(listen, Trigger)
        self._station, self._registers = station, registers
        self._one = threading.Lock()

    def answer(self, line: str) -> str:
        """The answer to one line of the PLC."""
        words = line.split()
        if not 2 <= len(words) <= 3 or words[0] != "INSPECT":
            return f"- {OUTPUTS['REVIEW']} REVIEW say INSPECT <serial> [<shot>]"
        serial, shot = words[1], words[2] if len(words) == 3 else "1"
        verdict = self._inspect(serial, shot)
        print(f"{serial}/{shot}: {verdict.name} {verdict.why}", flush=True)
        return f"{serial} {verdict.output} {verdict.name} {verdict.why}"

    def _inspect(self, serial: str, shot: str) -> Verdict:
        if self._registers is None:
            return self._station.inspect(serial, shot)
        with self._one:
            try:
                self._registers.busy()
                verdict = self._station.inspect(serial, shot)
                self._registers.show(verdict)
            except OSError as error:  # the count did not grow, so the PLC's own timer makes it REVIEW
                return review(f"the registers were not written: {error}")
        return verdict


class Trigger(socketserver.StreamRequestHandler):
    """One connection of a PLC; it may send any number of lines."""

    server: Gateway

    def handle(self) -> None:
        while (line := self.rfile.readline(MAX_LINE_BYTES)).endswith(b"\n"):
            answer = self.server.answer(line.decode("utf-8", "replace"))
            self.wfile.write(f"{answer}\n".encode())


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--camera", required=True, help="where a picture comes from: http://, or file:// to try"
    )
    parser.add_argument("--listen", type=address, default=("127.0.0.1", 9100), help="HOST:PORT for the PLC")
    parser.add_argument("--station", default="plc", help="station of every picture")
    parser.add_argument("--recipe", default="default", help="recipe of every picture")
    parser.add_argument("--budget-s", type=float, default=2.0, help="no verdict by then is REVIEW [2]")
    parser.add_argument("--modbus", type=address, help="HOST:PORT of the PLC's Modbus TCP server")
    parser.add_argument("--register", type=int, default=0, help="first of the two holding registers [0]")
    options = parser.parse_args()
    url = os.environ.get("INLIER_URL", "http://127.0.0.1:8000").rstrip("/")
    station = Station(
        *(options.camera, url, os.environ.get("INLIER_KEY", "")),
        *(options.station, options.recipe, options.budget_s),
    )
    registers = None
    if options.modbus is not None:
        registers = Registers(options.modbus, options.register)
    with Gateway(options.listen, station, registers) as gateway:
        print("listening on {}:{}".format(*gateway.server_address[:2]), flush=True)
        gateway.serve_forever()


if __name__ == "__main__":
    main()
