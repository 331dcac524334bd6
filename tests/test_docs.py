"""The documentation tells the truth: commands exist, options and settings are described, links resolve."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest
from pydantic import BaseModel

import service.cli
import trainer.cli
from models.profiles import MapRecipe, Profile
from service.settings import Settings
from trainer.recipe import Recipe, available_recipes

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROGRAMS: dict[str, click.Command] = {
    "inlier-trainer": trainer.cli.cli,
    "inlier-service": service.cli.cli,
}
OTHER_PROGRAMS = {"cd", "curl", "git", "kill", "openssl", "pip", "python3", "source", "unzip"}
OTHER_PROGRAMS |= {"cp", "docker", "install", "kubectl", "systemctl"}
HOSTS = {"127.0.0.1:4318", "127.0.0.1:8000", "127.0.0.1:9000", "arxiv.org", "doi.org"}  # what a page may name


# --- reading ----------------------------------------------------------------------------------------


def shell_commands(page: str) -> list[list[str]]:
    """The commands in a page's fenced `sh` blocks, continued lines joined, comments gone."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&")
            lexer.whitespace_split = True
            words: list[str] = []
            for word in [*lexer, ";"]:
                if set(word) <= set("|;&"):
                    found.append(words)
                    words = []
                elif words or not re.match(r"^[A-Z_]+=", word):
                    words.append(word)
    return [words for words in found if words]


def commands(program: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Every command below a program, with its full name."""
    yield program, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(f"{program} {name}", inner)


def options(command: click.Command) -> set[str]:
    return {
        flag
        for parameter in command.params
        for flag in (*parameter.opts, *parameter.secondary_opts)
        if flag.startswith("--")
    } - {"--help"}


def section(page: str, title: str) -> str:
    """The text under a heading, up to the next heading of its level."""
    match = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^\1 |\Z)", page, re.M | re.S)
    assert match, f"there is no section {title!r}"
    return match[2]


def table(text: str) -> list[list[str]]:
    """The cells of every table row, code marks removed, header and ruler left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]
    rulers = [number for number, row in enumerate(rows) if set("".join(row)) <= set("-: ")]
    return [row for number, row in enumerate(rows) if number not in rulers and number + 1 not in rulers]


def anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def explain(words: list[str]) -> str | None:
    """Why a command cannot be run, or None."""
    program, *rest = words
    if program == "torchrun" and "trainer" in rest:  # torchrun OPTIONS -m trainer VERB ...
        return explain(["inlier-trainer", *rest[rest.index("trainer") + 1 :]])
    if program == "make":
        goals = [word for word in rest if "=" not in word]
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
        unknown = set(goals) - targets
        return f"make has no {unknown}" if unknown else None
    if program not in PROGRAMS:
        return None if program in OTHER_PROGRAMS else f"{program} is not a known program"
    command = PROGRAMS[program]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            return f"{program} has no command {rest[0]!r}"
        command = command.commands[rest.pop(0)]
    given = {word.split("=")[0] for word in rest if word.startswith("--")}
    unknown = given - options(command) - {"--help"}
    return f"{' '.join(words)}: no option {unknown}" if unknown else None


# --- the tests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_in_pages_exist(path: Path) -> None:
    problems = [explain(words) for words in shell_commands(path.read_text())]
    assert [problem for problem in problems if problem] == []


def test_readme_shows_the_commands_that_matter() -> None:
    shown = [" ".join(words[:2]) for words in shell_commands((ROOT / "README.md").read_text())]
    for needed in (
        "make demo",
        "make test",
        "inlier-trainer fit",
        "inlier-trainer evaluate",
        "inlier-service serve",
    ):
        assert needed in shown


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("make nonsense", "nonsense"),
        ("inlier-trainer fly", "fly"),
        ("inlier-trainer fit data --no-such", "--no-such"),
        ("X=1 inlier-service serve \\\n  --bundel b", "--bundel"),
        ("rm -rf /", "rm"),
    ],
)
def test_a_wrong_command_is_caught(line: str, complaint: str) -> None:
    problems = [explain(words) for words in shell_commands(f"```sh\n{line}\n```\n")]
    assert complaint in str(problems)


@pytest.mark.parametrize(
    ("name", "command"),
    [pair for program in PROGRAMS.items() for pair in commands(*program) if options(pair[1])],
    ids=str,
)
def test_every_option_is_documented_and_exists(name: str, command: click.Command) -> None:
    page = (ROOT / "docs/cli.md").read_text()
    documented = {row[0] for row in table(section(page, name)) if row[0].startswith("--")}
    assert documented == options(command)


def test_every_setting_is_documented_with_its_default() -> None:
    rows = {row[1]: row for row in table(section((ROOT / "docs/cli.md").read_text(), "inlier-service serve"))}
    assert set(rows) == {f"INLIER_{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        flag, _, default, meaning = rows[f"INLIER_{name.upper()}"]
        assert flag == f"--{name.replace('_', '-')}"
        assert meaning
        if field.default is not None:
            assert default == str(field.default), name


def recipe_settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        section_of = [k for k in get_args(kind) if isinstance(k, type) and issubclass(k, BaseModel)]
        if section_of and type(None) in get_args(kind):  # a section that may be left out
            yield f"{prefix}{name}", field.default
            yield from recipe_settings(section_of[0], f"{prefix}{name}.")
            continue
        if (
            isinstance(kind, type)
            and issubclass(kind, BaseModel)
            and not kind.model_config.get("extra") == "allow"
        ):
            yield from recipe_settings(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.default


def test_every_recipe_setting_is_documented_with_its_default() -> None:
    rows = {row[0]: row for row in table(section((ROOT / "docs/cli.md").read_text(), "Recipes"))}
    settings = dict(recipe_settings(Recipe))
    assert {name for name in rows if name in settings or "." in name} == set(settings)
    for name, default in settings.items():
        if isinstance(default, bool | int | float | tuple):
            shown = rows[name][1].strip("[]").split(", ")
            expected = default if isinstance(default, tuple) else (default,)
            assert [float(_number(word)) for word in shown] == [float(value) for value in expected], name


def test_every_shipped_recipe_is_documented() -> None:
    rows = {row[0] for row in table(section((ROOT / "docs/cli.md").read_text(), "Recipes"))}
    assert set(available_recipes()) <= rows


def test_every_profile_kind_is_documented_with_its_settings() -> None:
    text = section((ROOT / "docs/cli.md").read_text(), "Profiles")
    rows = {row[0]: row[1] for row in table(text)}
    kinds = {kind.model_fields["kind"].default: kind for kind in get_args(get_args(Profile)[0])}
    assert set(rows) >= set(kinds)
    for name, kind in kinds.items():
        settings = {
            key: field for key, field in kind.model_fields.items() if key not in ("kind", "map", "part")
        }
        written = re.findall(r"(?:^|, )(\w+)(?: = \"?([\w.]+)\"?)?", rows[name])
        assert [key for key, _ in written] == list(settings), name
        assert [shown for _, shown in written] == [
            "" if field.is_required() else _written(field.default) for field in settings.values()
        ], name
    for key, field in MapRecipe.model_fields.items():
        shown = str(field.default).lower()
        assert f"{key} = {shown}" in text or rows[key] in (shown, f'"{shown}"'), key


def _written(value: object) -> str:
    """As TOML has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(word: str) -> str:
    return {"true": "1", "false": "0"}.get(word, word)


def test_tests_of_the_threat_model_exist() -> None:
    named = 0
    for line in (ROOT / "docs" / "threat-model.md").read_text().splitlines():
        source = ""
        for word in re.findall(r"`([\w/]+\.py|test_\w+)`", line):
            if word.endswith(".py"):
                source = (ROOT / "tests" / word).read_text()
            else:
                assert f"def {word}(" in source, word
                named += 1
    assert named > 20


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_resolve(path: Path) -> None:
    page = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", page):
        if re.match(r"^[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        other = (path.parent / file).resolve() if file else path
        assert other.exists(), f"{path.name}: {target}"
        assert other.is_relative_to(ROOT), f"{path.name}: {target} is outside the repository"
        if anchor:
            assert anchor in anchors(other.read_text()), f"{path.name}: {target}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pages_name_no_foreign_host_and_nobody_s_folders(path: Path) -> None:
    page = path.read_text()
    assert set(re.findall(r"https?://([^/\s)\"'`]+)", page)) <= HOSTS
    assert not re.search(r"(?<![\w.])/(home|root|tmp|Users|work)/", page)


def test_every_page_is_reachable_from_the_readme() -> None:
    seen, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in seen or path.suffix != ".md":
            continue
        seen.add(path)
        for target in re.findall(r"\]\(([^)#\s]+\.md)", path.read_text()):
            waiting.append((path.parent / target).resolve())
    assert set(PAGES) <= seen
