"""A study on disk: which parts are shown in which order, and what the service said of each.

`study.json` (name, seed, the parts' references), `plan.csv` (the order; it does not say which part is good,
so that nobody handles them differently), `results.csv` (one row a finished run).
"""

import csv
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from service.errors import StartupError

Reference = Literal["good", "defective"]
REFERENCES = ("good", "defective")
_MOST_TRIALS = 20


@dataclass(frozen=True)
class Run:
    """One showing of one part."""

    run: int
    part: str
    trial: int


@dataclass(frozen=True)
class Result:
    """What the service said of one run."""

    run: int
    part: str
    trial: int
    reference: str
    verdict: str
    score: float | None
    review: float | None  # the limits it was judged by
    reject: float | None
    inspection: str
    model: str
    image_sha256: str


@dataclass(frozen=True)
class Study:
    """The parts with what they are known to be, and the order in which they are shown."""

    folder: Path
    name: str
    seed: int
    trials: int
    references: Mapping[str, str]
    runs: Sequence[Run]


def read_parts(path: Path) -> dict[str, str]:
    """`part,reference` rows -> reference by part; StartupError names the line that is wrong."""
    found: dict[str, str] = {}
    for number, row in enumerate(_rows(path, ("part", "reference")), 2):
        part, reference = row["part"].strip(), row["reference"].strip().lower()
        if not part or len(part) > 128:
            raise StartupError(f"{path} line {number}: a part needs a name of 1 to 128 characters")
        if reference not in REFERENCES:
            raise StartupError(f"{path} line {number}: reference {reference!r} is not good or defective")
        if part in found:
            raise StartupError(f"{path} line {number}: part {part} is listed twice")
        found[part] = reference
    missing = [name for name in REFERENCES if name not in found.values()]
    if missing:
        raise StartupError(f"{path}: a study needs good and defective parts; there is no {missing[0]} one")
    return found


def plan(folder: Path, references: Mapping[str, str], trials: int, seed: int, name: str) -> Study:
    """A new study: every part once a trial, each trial in an order of its own."""
    if not 2 <= trials <= _MOST_TRIALS:
        raise StartupError(f"--trials must be 2 to {_MOST_TRIALS}: agreement needs a second look")
    if (folder / "study.json").exists():
        raise StartupError(f"{folder} holds a study already; choose another folder")
    rng, runs = random.Random(seed), list[Run]()
    for trial in range(1, trials + 1):
        order = sorted(references)
        rng.shuffle(order)
        runs += [Run(len(runs) + 1 + at, part, trial) for at, part in enumerate(order)]
    folder.mkdir(parents=True, exist_ok=True)
    made = {"name": name, "seed": seed, "trials": trials, "planned_at": datetime.now(UTC).isoformat()}
    _write(folder / "plan.csv", [field.name for field in fields(Run)], [vars(run) for run in runs])
    (folder / "study.json").write_text(json.dumps({**made, "references": dict(references)}, indent=2) + "\n")
    return Study(folder, name, seed, trials, references, runs)


def load(folder: Path) -> Study:
    """A planned study; StartupError if there is none, or it was changed by hand into something else."""
    try:
        made = json.loads((folder / "study.json").read_text())
        rows = _rows(folder / "plan.csv", ("run", "part", "trial"))
        runs = [Run(int(row["run"]), row["part"], int(row["trial"])) for row in rows]
        study = Study(folder, made["name"], made["seed"], made["trials"], made["references"], runs)
    except FileNotFoundError:
        raise StartupError(f"{folder} holds no study; make one with: inlier-service msa plan") from None
    except (ValueError, KeyError, TypeError) as error:
        raise StartupError(f"the study in {folder} cannot be read ({error!r}); plan it anew") from None
    shown = sorted((run.part, run.trial) for run in runs)
    if shown != sorted((part, trial) for part in study.references for trial in range(1, study.trials + 1)):
        raise StartupError(
            f"{folder / 'plan.csv'} does not show every part once a trial; plan the study anew"
        )
    return study


def results(study: Study) -> list[Result]:
    """What is known so far, in the order of the runs."""
    path = study.folder / "results.csv"
    if not path.exists():
        return []
    number = {"score", "review", "reject"}
    found = []
    for row in _rows(path, [field.name for field in fields(Result)]):
        values = {
            name: (float(text) if text else None) if name in number else text for name, text in row.items()
        }
        found.append(Result(**{**values, "run": int(row["run"]), "trial": int(row["trial"])}))  # type: ignore[arg-type]
    return sorted(found, key=lambda result: result.run)


def store(study: Study, found: Iterable[Result]) -> None:
    """Write all results; a killed command leaves the file as it was before or after."""
    rows = [{name: "" if value is None else value for name, value in vars(each).items()} for each in found]
    _write(study.folder / "results.csv", [field.name for field in fields(Result)], rows)


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise StartupError(f"{path} has no column {missing[0]!r}; it needs {', '.join(columns)}")
        return [{name: row[name] or "" for name in columns} for row in reader]


def _write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    new = path.with_suffix(".new")
    with new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    new.replace(path)
