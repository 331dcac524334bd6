"""From runs to results: pictures posted in the order of the plan, or what cameras posted themselves."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from service.client import Client, InlierError, Inspection
from service.errors import StartupError
from service.msa.study import Result, Run, Study, results, store

ATTRIBUTE = "msa"
TRIAL = "msa_trial"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
Told = Callable[[Run, Inspection], None]


def pictures(study: Study, folder: Path) -> dict[int, Path]:
    """The picture of each run: `PART/TRIAL.*`, or `RUN.*` with or without leading zeros.

    StartupError for runs without a picture, and where two trials of a part are one and the same picture:
    the same picture gets the same verdict, so it says nothing about the measurement.
    """
    if not folder.is_dir():
        raise StartupError(f"there is no folder {folder}")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    named = {(path.parent.name, path.stem): path for path in files}
    numbered = {int(path.stem): path for path in files if path.parent == folder and path.stem.isdecimal()}
    found, lacking = {}, []
    for run in study.runs:
        path = named.get((run.part, str(run.trial))) or numbered.get(run.run)
        if path is None:
            lacking.append(run)
        else:
            found[run.run] = path
    if lacking:
        one = lacking[0]
        raise StartupError(
            f"{len(lacking)} of {len(study.runs)} runs have no picture in {folder}; "
            f"the first is run {one.run}: {one.part}/{one.trial}.png or {one.run}.png"
        )
    _check_different(study, found)
    return found


def _check_different(study: Study, found: Mapping[int, Path]) -> None:
    seen: dict[tuple[str, str], Run] = {}
    for run in study.runs:
        key = (run.part, _sha256(found[run.run].read_bytes()))
        if (other := seen.setdefault(key, run)) is not run:
            raise StartupError(
                f"trials {other.trial} and {run.trial} of part {run.part} are the same picture; "
                "take the part out, put it in again, and take a new one"
            )


def post(
    study: Study, client: Client, images: Mapping[int, Path], said: Mapping[str, Any], told: Told
) -> list[Result]:
    """Post what has no result yet; each result is on disk before the next picture is posted."""
    found = {each.run: each for each in results(study)}
    for run in study.runs:
        if run.run in found:
            continue
        data = images[run.run].read_bytes()
        own = {"serial": run.part, "attributes": {ATTRIBUTE: study.name, TRIAL: run.trial}}
        # The run is in the key: two parts may look the same to the last pixel.
        key = f"msa-{study.name}-{run.run}-{_sha256(data)}"[:255]
        shown = client.inspect(data, wait_s=30, idempotency_key=key, **{**said, **own})
        if not shown.finished:
            shown = client.result(shown.id, timeout_s=300)
        found[run.run] = _result(study, run, shown)
        store(study, sorted(found.values(), key=lambda each: each.run))
        told(run, shown)
    return list(found.values())


def collect(study: Study, client: Client, recipe: str | None) -> tuple[list[Result], list[Run]]:
    """What cameras posted with `serial` PART and the attributes `msa` NAME and `msa_trial` TRIAL.

    -> results, and runs that nothing was posted for. The newest counts where a run was posted twice.
    """
    wanted = {(run.part, run.trial): run for run in study.runs}
    found: dict[int, Result] = {}
    for shown in _of_study(study, client, recipe):
        trial = shown.document["attributes"].get(TRIAL)
        run = wanted.get((shown.serial or "", trial if isinstance(trial, int) else -1))
        if run is None:
            raise StartupError(
                f"inspection {shown.id} says it is part {shown.serial!r}, trial {trial!r}; "
                "the study has no such run"
            )
        if shown.finished and run.run not in found:
            found[run.run] = _result(study, run, shown)
    ordered = [found[run.run] for run in study.runs if run.run in found]
    store(study, ordered)
    return ordered, [run for run in study.runs if run.run not in found]


def _of_study(study: Study, client: Client, recipe: str | None) -> Iterator[Inspection]:
    asked = {f"attr.{ATTRIBUTE}": study.name, **({} if recipe is None else {"recipe": recipe})}
    try:
        yield from client.inspections(limit=500, **asked)
    except InlierError as error:
        raise StartupError(f"the inspections of study {study.name} cannot be read: {error}") from None


def _result(study: Study, run: Run, shown: Inspection) -> Result:
    limits = shown.document["thresholds"] or {}
    return Result(
        run=run.run,
        part=run.part,
        trial=run.trial,
        reference=study.references[run.part],
        verdict=shown.verdict or "",
        score=shown.score,
        review=limits.get("review"),
        reject=limits.get("reject"),
        inspection=shown.id,
        model=(shown.document["model"] or {}).get("hash", ""),
        image_sha256=shown.document["image"]["sha256"],
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
