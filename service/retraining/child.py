"""A long computation beside a line: lowest priority, few threads, and it stands still while images wait."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from service.errors import StartupError
from service.settings import child_environment

_LOOK_S = 1.0
_NICE = 19
_GRACE_S = 60.0
_TAIL_BYTES = 4000


class Interrupted(Exception):
    """We were asked to stop; what the computation has stored can be taken up again."""


@dataclass
class Ended:
    """Exit status, the last line it wrote, and for how long it stood still."""

    status: int
    said: str
    paused_s: float


@dataclass(frozen=True)
class Quiet:
    """When to stand still: while `busy` says so, and `calm_s` longer."""

    busy: Callable[[], bool]
    calm_s: float = 5.0
    look_s: float = _LOOK_S


def run(command: Sequence[str], log: Path, *, threads: int, quiet: Quiet, stop: Event) -> Ended:
    """Run to the end, output to `log`; StartupError if it cannot begin, Interrupted once `stop` is set."""
    if shutil.which(command[0]) is None:
        raise StartupError(f"{command[0]} cannot be run: there is no such program")
    with log.open("ab") as output:
        child = subprocess.Popen(
            ["nice", "-n", str(_NICE), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=child_environment(threads),
            start_new_session=True,  # with all processes it starts it can be stopped and continued
        )
        try:
            paused_s = _watch(child, quiet, stop)
        finally:
            _end(child)
    return Ended(child.returncode, last_line(log), paused_s)


def _watch(child: "subprocess.Popen[bytes]", quiet: Quiet, stop: Event) -> float:
    paused_s, calm_since, stopped_at = 0.0, 0.0, 0.0
    while child.poll() is None:
        if stop.is_set():
            raise Interrupted
        now = time.monotonic()
        if quiet.busy():
            calm_since = 0.0
            if not stopped_at:
                _signal(child, signal.SIGSTOP)
                stopped_at = now
        elif stopped_at:
            calm_since = calm_since or now
            if now - calm_since >= quiet.calm_s:
                _signal(child, signal.SIGCONT)
                paused_s, stopped_at = paused_s + now - stopped_at, 0.0
        if stopped_at:
            stop.wait(quiet.look_s)
        else:
            with suppress(subprocess.TimeoutExpired):
                child.wait(quiet.look_s)
    return paused_s


def _end(child: "subprocess.Popen[bytes]") -> None:
    """See that nothing of it is left."""
    if child.poll() is None:
        _signal(child, signal.SIGTERM)
        _signal(child, signal.SIGCONT)  # one that stands still hears nothing
        with suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_S)
    _signal(child, signal.SIGKILL)
    child.wait()


def _signal(child: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:500]
