"""Our commands as processes of their own, as a person or an init system runs them."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
START_S, STOP_S = 90.0, 60.0


class ProcessError(RuntimeError):
    """One of our commands did not do what it should; what it said is in the message."""


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def tool(
    name: str, *words: object, may_end: Sequence[int] = (0,), stdin: str = "", timeout_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of our commands to its end; ProcessError for an exit status that is not among `may_end`."""
    command = [str(BIN / name), *map(str, words)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, input=stdin, timeout=timeout_s)
    if run.returncode not in may_end:
        said = f"{run.stdout}\n{run.stderr}"
        raise ProcessError(f"`{' '.join(command)}` ended with status {run.returncode}\n{said}")
    return run


def new_key(name: str, scope: str, *store: object) -> dict[str, str]:
    """The header of a new API key of the service whose rows are where the options `store` say."""
    made = tool("inlier-service", "keys", "create", name, "--scope", scope, *store)
    return {"Authorization": f"Bearer {made.stdout.splitlines()[-1]}"}


class Process:
    """A long-running `inlier-service` command with its log; it can be started again with the same words."""

    def __init__(self, log: Path, *words: object, **environment: str) -> None:
        self._log, self._words, self._environment = log, list(map(str, words)), environment
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""  # what it said it is ready at

    def begin(self) -> None:
        """Start it, without waiting for anything; its log goes on."""
        command = [str(BIN / "inlier-service"), *self._words]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=output,
                stderr=output,
                env={**os.environ, **self._environment},
                start_new_session=True,  # Ctrl-C is ours: the process is ended in its turn
            )

    def start(self) -> None:
        """Return when it says that it is ready; ProcessError when it ends before, or takes too long."""
        said = self._log.stat().st_size if self._log.exists() else 0
        self.begin()
        deadline = time.monotonic() + START_S
        while not (found := re.search(r"ready.* at (http://\S+)", self.log[said:])):
            if not self.runs or time.monotonic() > deadline:
                self.kill()
                raise ProcessError(f"{self._words[0]} does not start\n{self.log[said:][-2000:]}")
            time.sleep(0.05)
        self.address = found[1]

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def pid(self) -> int:
        return self._begun().pid

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        self._begun().kill()
        self._begun().wait()

    def stop(self, patience_s: float = STOP_S) -> int:
        """As an orchestrator does, who kills what does not end -> the exit status."""
        process = self._begun()
        process.terminate()
        try:
            return process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return process.returncode

    def _begun(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self._words[0]} was not started"
        return self._process


@contextmanager
def started(log: Path, *words: object, **environment: str) -> Iterator[Process]:
    """A process that is ready; afterwards it is stopped."""
    process = Process(log, *words, **environment)
    process.start()
    try:
        yield process
    finally:
        if process.runs:
            process.stop()
