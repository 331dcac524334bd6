"""A page of the documentation as a program: its fenced blocks in order, in one shell, as a reader does.

```bash            runs in the shell; the first command that fails ends it
```bash terminal   runs in the background until the end: "in a terminal of its own"
```python NAME     is saved as NAME
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.M | re.S)
_MARK = "=== block"


@dataclass(frozen=True)
class Block:
    language: str
    word: str  # after the language
    text: str


def blocks(page: str, replaced: Mapping[str, str]) -> list[Block]:
    """The fenced blocks of a page, with some of their words replaced; each of these must be there."""
    found = [Block(*(part or "" for part in match)) for match in _BLOCK.findall(page)]
    for old in replaced:
        assert any(old in block.text for block in found), f"the page does not say {old!r} any more"

    def changed(text: str) -> str:
        for old, new in replaced.items():
            text = text.replace(old, new)
        return text

    return [Block(block.language, block.word, changed(block.text)) for block in found]


def run(found: list[Block], folder: Path, path: str, timeout_s: float) -> list[str]:
    """Run them in `folder` -> what each block in the shell printed, by its index; '' for the others."""
    script = ["set -euo pipefail"]
    for number, block in enumerate(found):
        if block.language == "python":
            (folder / block.word).write_text(block.text)
        elif block.language == "bash" and block.word == "terminal":
            script.append(f"(\n{block.text}) > terminal-{number}.log 2>&1 &")
        elif block.language == "bash":
            script.append(f"echo '{_MARK} {number}'\n{block.text}")
    (folder / "page.sh").write_text("\n".join(script) + "\n")
    output, errors = folder / "output.txt", folder / "terminal-errors.log"
    with output.open("wb") as printed_to, errors.open("wb") as complained_to:
        shell = subprocess.Popen(
            ["bash", "page.sh"],
            cwd=folder,
            env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=printed_to,
            stderr=complained_to,
            start_new_session=True,
        )
        status: int | None = None
        try:
            status = shell.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pass  # what it printed so far is in the assertion below
        finally:
            _end(shell)
    text = output.read_text(errors="replace")
    logs = "".join(f"\n--- {log.name}\n{log.read_text()}" for log in sorted(folder.glob("terminal-*.log")))
    assert status == 0, f"ended with {status}:\n{text}{logs}"
    printed = [""] * len(found)
    for part in text.split(f"{_MARK} ")[1:]:
        number, _, said = part.partition("\n")
        printed[int(number)] = said
    return printed


def _end(shell: subprocess.Popen[bytes]) -> None:
    """The shell with everything it left in terminals, in order if it can."""
    with suppress(ProcessLookupError):
        os.killpg(shell.pid, signal.SIGTERM)
        shell.wait()
        for _ in range(300):
            os.killpg(shell.pid, 0)
            time.sleep(0.1)
        os.killpg(shell.pid, signal.SIGKILL)
    shell.wait()
