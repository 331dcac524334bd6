"""What an installation consists of: the packages that pyproject.toml names, and theirs, as installed here."""

import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
EXTRAS = ("otel", "trainer")
"""Shipped beside the base; `gpu` and `openvino` take the place of parts of it, `dev` ships nothing."""


def project() -> dict[str, object]:
    """The [project] table."""
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def wanted(extra: str | None) -> list[str]:
    """The requirements of the base, or of an extra alone."""
    table = project()
    found = table["dependencies"] if extra is None else table["optional-dependencies"][extra]  # type: ignore[index]
    return list(found)  # type: ignore[call-overload]


def closure(requirements: Sequence[str]) -> dict[str, tuple[Distribution, set[str]]]:
    """Each needed package by its canonical name, with the names of those it needs itself.

    RuntimeError if one is not installed: then the list would not be whole.
    """
    found: dict[str, tuple[Distribution, set[str]]] = {}
    waiting = [Requirement(line) for line in requirements]
    seen = set[tuple[str, frozenset[str]]]()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (key := (name, frozenset(requirement.extras))) in seen:
            continue
        seen.add(key)
        try:
            package = distribution(name)
        except PackageNotFoundError:
            raise RuntimeError(f"{name} is not installed: make venv") from None
        needs = list(_needs(package, requirement.extras))
        below = {canonicalize_name(each.name) for each in needs}
        found[name] = (package, below | (found[name][1] if name in found else set()))
        waiting += needs
    return found


def of_cuda(name: str) -> bool:
    """Whether a package comes with torch's CUDA build alone, which the default index gives Linux."""
    return name == "triton" or name.startswith(("nvidia-", "cuda-"))


def _needs(package: Distribution, extras: set[str]) -> Iterator[Requirement]:
    for line in package.requires or ():
        requirement = Requirement(line)
        environments = [{**default_environment(), "extra": extra} for extra in (extras or {""})]
        if requirement.marker is None or any(requirement.marker.evaluate(each) for each in environments):
            yield requirement
