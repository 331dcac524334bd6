"""Enough of Dockerfiles to follow a stage to its base, and to copy what a build would be sent."""

import fnmatch
import json
import re
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATH = ROOT / "docker/Dockerfile"


@dataclass
class Stage:
    """One FROM with what follows; `base` is another stage or an image."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)  # (INSTRUCTION, the rest)


def stages(text: str) -> dict[str, Stage]:
    """By name; arguments are put in their places with their defaults."""
    found: dict[str, Stage] = {}
    values: dict[str, str] = {}
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.M)
    for line in re.sub(r"\\\n", " ", lines).splitlines():
        if not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        rest = re.sub(r"\$\{(\w+)\}", lambda match: values.get(match[1], match[0]), rest.strip())
        if word == "ARG":
            name, _, value = rest.partition("=")
            values[name] = value
        elif word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = Stage(name, base)
        else:
            found[list(found)[-1]].steps.append((word, rest))
    return found


@dataclass
class Image:
    """What a target ships: the steps of its stage and of those it is built on, the oldest first."""

    base: str  # the image from a registry
    steps: list[tuple[str, str]]

    def last(self, word: str) -> str:
        """What the last instruction of a kind says."""
        return [rest for name, rest in self.steps if name == word][-1]

    def command(self, word: str) -> list[str]:
        """An instruction in exec form."""
        found: list[str] = json.loads(self.last(word))
        return found

    @property
    def environment(self) -> dict[str, str]:
        pairs = [pair for name, rest in self.steps if name == "ENV" for pair in shlex.split(rest)]
        return dict(pair.split("=", 1) for pair in pairs)

    @property
    def labels(self) -> dict[str, str]:
        pairs = [pair for name, rest in self.steps if name == "LABEL" for pair in shlex.split(rest)]
        return dict(pair.split("=", 1) for pair in pairs)

    @property
    def copies(self) -> list[tuple[str | None, list[str], str]]:
        """(stage or None, sources, destination) of every COPY."""
        found = []
        for name, rest in self.steps:
            if name == "COPY":
                stage = re.match(r"--from=(\S+) ", rest)
                *sources, to = re.sub(r"^--from=\S+ ", "", rest).split()
                found.append((stage[1] if stage else None, sources, to))
        return found


def image(target: str) -> Image:
    known, steps = stages(PATH.read_text()), list[tuple[str, str]]()
    while target in known:
        steps = known[target].steps + steps
        target = known[target].base
    return Image(target, steps)


def context(to: Path) -> Path:
    """A copy of what .dockerignore lets through, of the files that are here."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("", "#")]
    for top in sorted({rule[1:].split("/")[0] for rule in rules if rule.startswith("!")}):
        here = ROOT / top
        for path in [here, *here.rglob("*")]:
            if path.is_file() and not _ignored(path.relative_to(ROOT).as_posix(), rules):
                copied = to / path.relative_to(ROOT)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copied)
    return to


def _ignored(name: str, rules: list[str]) -> bool:
    """The last rule that matches a file or a folder above it decides."""
    parts = name.split("/")
    above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    ignored = False
    for rule in rules:
        pattern = rule.removeprefix("!")
        loose = pattern.removeprefix("**/")
        if any(
            _matches(one, pattern) or (loose != pattern and fnmatch.fnmatchcase(one.split("/")[-1], loose))
            for one in above
        ):
            ignored = not rule.startswith("!")
    return ignored


def _matches(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern)
