"""The promises, and the tests that bear their marks; read without importing any test."""

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).with_name("promises.toml")


@dataclass(frozen=True)
class Promise:
    """As in promises.toml; an empty `missing` says that nothing is."""

    number: int
    says: str
    load: str
    faults: str
    missing: str


@dataclass(frozen=True)
class Mark:
    number: int
    control: bool
    file: str  # below the repository's root
    test: str


def promises() -> list[Promise]:
    return [Promise(**entry) for entry in tomllib.loads(SOURCE.read_text())["promise"]]


def marks(root: Path = ROOT) -> list[Mark]:
    """Every `@pytest.mark.promise(...)` below tests/."""
    found = []
    for path in sorted((root / "tests").rglob("test_*.py")):
        if "mark.promise(" in (text := path.read_text()):
            found += list(_marks(ast.parse(text), path.relative_to(root).as_posix()))
    return found


def _marks(tree: ast.Module, file: str) -> Iterator[Mark]:
    for node in ast.walk(tree):
        for call in getattr(node, "decorator_list", []):
            if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.promise"):
                continue
            assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef), f"{file}: {node}"
            named = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
            assert set(named) <= {"control"}, f"{file}: {node.name}"
            (number,) = (ast.literal_eval(value) for value in call.args)
            yield Mark(number, named.get("control", False), file, node.name)
