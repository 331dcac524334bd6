"""The tables of docs/reliability.md: what is promised, and what a run has shown."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.promises.plugin import Seen
from tests.promises.source import ROOT, Mark, Promise

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- promises: made by `make promises` -->", "<!-- end of promises -->"


@dataclass(frozen=True)
class Result:
    """The three last cells of a row."""

    says: str = "not run"
    date: str = ""
    commit: str = ""


def result_of(seen: Seen, marks: Sequence[Mark], date: str, commit: str) -> Result:
    """What to write of a promise's run; only a run of all its tests is called whole."""
    if seen.failed:
        names = ", ".join(sorted(test.rpartition("::")[2] for test in seen.failed))
        return Result(f"FAILED: {names}", date, commit)
    passed = {
        test.partition("::")[0] + "::" + test.rpartition("::")[2] for test in seen.passed - seen.skipped
    }
    here = [mark for mark in marks if f"{mark.file}::{mark.test}" in passed]
    if not here:
        return Result()
    proofs, controls = (sum(mark.control is kind for mark in here) for kind in (False, True))
    said = f"{_many(proofs, 'test')}, {_many(controls, 'control')} passed"
    if len(here) < len(marks):
        said += f"; {len(marks) - len(here)} not run"
    said += f"; {seen.spent_s:.0f} s"
    return Result(
        "; ".join([said, *(f"{name} {value}" for name, value in seen.figures.items())]), date, commit
    )


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def missing(promise: Promise, marks: Sequence[Mark]) -> str:
    """What is not proven, in words; empty if nothing."""
    if not marks or any(mark.control for mark in marks):
        return promise.missing
    return "; ".join([promise.missing.rstrip("."), "a control."]).lstrip("; ")


def state(promise: Promise, marks: Sequence[Mark]) -> str:
    """How much of the proof there is, whether or not it has been run."""
    if not any(not mark.control for mark in marks):
        return "none"
    return "partly" if missing(promise, marks) else "whole"


def render(promises: Sequence[Promise], marks: Sequence[Mark], results: Mapping[int, Result]) -> str:
    """Both tables, without the lines around them."""
    lines = [
        "| # | promise | load | faults injected | result | date | commit |",
        "|--:|---|---|---|---|---|---|",
    ]
    for one in promises:
        told = results.get(one.number, Result())
        cells = [one.number, one.says, one.load, one.faults, told.says, told.date, told.commit]
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "| # | proof | tests | what it lacks |", "|--:|---|---|---|"]
    for one in promises:
        mine = [mark for mark in marks if mark.number == one.number]
        cells = [one.number, state(one, mine), _tests(mine), missing(one, mine)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _tests(marks: Sequence[Mark]) -> str:
    """Files, with how many tests and controls each has."""
    files: dict[str, list[bool]] = {}
    for mark in marks:
        files.setdefault(mark.file.removeprefix("tests/"), []).append(mark.control)
    said = []
    for file, controls in files.items():
        counts = [_many(controls.count(False), "test")] if False in controls else []
        counts += [_many(controls.count(True), "control")] if True in controls else []
        said.append(f"[{file}](../tests/{file}): {', '.join(counts)}")
    return "; ".join(said)


def between(page: str) -> str:
    """The tables on the page."""
    return page.partition(BEGIN)[2].partition(END)[0].strip()


def read_results(page: str) -> dict[int, Result]:
    """What the page says was seen."""
    found = {}
    for line in between(page).splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 7 and cells[0].isdigit():
            found[int(cells[0])] = Result(*(cell.replace("\\|", "|") for cell in cells[4:]))
    return found


def replaced(page: str, tables: str) -> str:
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}\n{tables}\n{END}{rest.partition(END)[2]}"
