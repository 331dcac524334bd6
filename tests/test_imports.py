"""Imports go one way: trainer -> models <- service. See docs/decisions/0001-import-direction.md."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("models", "service", "trainer")

# What a package may not reach for, and why: the three meet only in files, and models is plain arithmetic.
FORBIDDEN = {
    "models": {
        "service", "trainer",
        "fastapi", "starlette", "uvicorn", "httpx", "requests",
        "sqlalchemy", "alembic", "sqlite3", "redis",
        "click", "argparse", "rich", "pydantic_settings", "prometheus_client",
        "pickle", "accelerate",
    },
    "trainer": {"service", "fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "redis", "pickle"},
    "service": {"trainer", "torch", "accelerate", "pickle"},
}  # fmt: skip
ENVIRONMENT = {"environ", "environb", "getenv"}
MAY_READ_THE_ENVIRONMENT = {"service/settings.py"}


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import anywhere in a module, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value)


def reads_environment(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT:
            yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            if any(alias.name in ENVIRONMENT for alias in node.names):
                yield node.lineno


def violations(root: Path) -> list[str]:
    """Every wrong import or reading of the environment under `root`, as `file:line: what`."""
    found = []
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            tree = ast.parse(path.read_text(), name)
            for line, module in imported(tree):
                if module.split(".")[0] in FORBIDDEN[package]:
                    found.append(f"{name}:{line}: imports {module}")
            if name not in MAY_READ_THE_ENVIRONMENT and package != "trainer":
                found.extend(f"{name}:{line}: reads the environment" for line in reads_environment(tree))
    return found


def test_imports_go_one_way() -> None:
    for package in PACKAGES:
        assert list((ROOT / package).rglob("*.py")), (
            f"{package} has no modules; is the test looking elsewhere?"
        )
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("models/bad.py", "import trainer.fit", "imports trainer.fit"),
        ("models/bad.py", "from service.app import create_app", "imports service.app"),
        ("models/bad.py", "def f():\n    import fastapi", "imports fastapi"),
        ("models/bad.py", "import os\nos.environ['X']", "reads the environment"),
        ("models/bad.py", "from os import getenv", "reads the environment"),
        ("models/bad.py", "import importlib\nimportlib.import_module('trainer')", "imports trainer"),
        ("trainer/bad.py", "from service import db", "imports service"),
        ("service/bad.py", "import trainer", "imports trainer"),
        ("service/review/bad.py", "import torch.nn as nn", "imports torch.nn"),
        ("service/bad.py", "import os\nos.getenv('X')", "reads the environment"),
    ],
)
def test_a_wrong_import_is_caught(tmp_path: Path, module: str, source: str, complaint: str) -> None:
    path = tmp_path / module
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert any(line.startswith(module) and line.endswith(complaint) for line in violations(tmp_path))


def test_what_is_allowed_is_not_caught(tmp_path: Path) -> None:
    for package in PACKAGES:
        (tmp_path / package).mkdir()
    (tmp_path / "models/good.py").write_text(
        "import os\nimport torch\nfrom models.process import q_sample\nos.fsync"
    )
    (tmp_path / "trainer/good.py").write_text("import models.bundle\nimport torch")
    (tmp_path / "service/good.py").write_text("from service import app\nfrom models import bundle")
    (tmp_path / "service/settings.py").write_text("import os\nos.environ")
    assert violations(tmp_path) == []


@pytest.mark.parametrize("module", ["service.app", "service.cli", "models.engine", "models.bundle"])
def test_serving_does_not_import_torch(module: str) -> None:
    unwanted = {"torch", "trainer", "accelerate", "openvino", "opentelemetry.exporter", "redis"}
    script = f"import {module}, sys; print(sorted({unwanted} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"


# Parts of a declared package that come under a name of their own.
COMES_WITH = {"starlette": "fastapi", "markupsafe": "jinja2", "referencing": "jsonschema"}


def declared() -> dict[str, set[str]]:
    """Distributions named in pyproject.toml, by extra; "" for the base."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {name: {re.split(r"[\s<>=~\[]", line)[0] for line in lines} for name, lines in groups.items()}


@pytest.mark.parametrize(
    ("package", "extras"),
    [
        ("service", ("", "otel")),
        ("models", ("", "openvino", "trainer")),
        ("trainer", ("", "trainer")),
        ("deploy", ("", "trainer", "dev")),
        ("tests", ("", "trainer", "dev")),
    ],
)
def test_everything_imported_is_a_declared_dependency(package: str, extras: tuple[str, ...]) -> None:
    """What happens to be installed here, as a dependency of a dependency, may be gone tomorrow."""
    allowed = set().union(*(declared()[extra] for extra in extras))
    own = {*PACKAGES, "tests", *({"deploy"} if package in ("deploy", "tests") else ())}
    distributions = importlib.metadata.packages_distributions()
    undeclared = set()
    for path in (ROOT / package).rglob("*.py"):
        # A script that is run by its path finds the ones beside it.
        beside = {file.stem for file in path.parent.glob("*.py")} if package == "deploy" else set()
        for _, module in imported(ast.parse(path.read_text())):
            top = module.split(".")[0]
            if top in sys.stdlib_module_names or top in own | beside:
                continue
            owners = {name.lower().replace("_", "-") for name in distributions.get(top, [])}
            if not owners & allowed and COMES_WITH.get(top) not in allowed:
                undeclared.add(f"{path.relative_to(ROOT)}: {top}")
    assert undeclared == set()


def test_constraints_pin_every_dependency_exactly() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {name.lower().replace("_", "-") for name in pins}
    assert set().union(*declared().values()) <= pinned
    assert pins["torch"] == "2.13.0"
    assert all(re.fullmatch(r"[\w.]+", version) for version in pins.values())
