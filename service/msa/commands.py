"""`inlier-service msa`: plan a study, run it, report it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from service.camera.options import api_key, common, metadata
from service.commands import guarded
from service.errors import StartupError
from service.msa.study import Result, Study, load, plan, read_parts, results

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FOLDER = click.Path(path_type=Path, file_okay=False)
_RETRY_FOR_S = 30.0


@click.group()
def msa() -> None:
    """Measurement system analysis: known parts, shown again and again, against what is said of them."""


@msa.command("plan")
@click.argument("parts", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", type=_FOLDER, required=True, help="folder of the study, made by this command")
@click.option("--trials", type=int, default=3, show_default=True, help="how often each part is shown")
@click.option("--seed", type=int, default=0, show_default=True, help="seed of the order")
@click.option("--name", help="name of the study, in the attribute `msa` [default: the folder's]")
def plan_command(parts: Path, out: Path, trials: int, seed: int, name: str | None) -> None:
    """Plan a study of the PARTS of a CSV file (part,reference: good or defective)."""

    def run() -> None:
        named = name or out.resolve().name
        if not _NAME.fullmatch(named):
            raise StartupError(f"--name {named!r}: letters, digits, '.', '_' and '-', at most 64")
        study = plan(out, read_parts(parts), trials, seed, named)
        click.echo(f"{len(study.runs)} runs in {out / 'plan.csv'}; show the parts in that order")

    guarded(run)


@msa.command("run")
@click.argument("study", type=_FOLDER)
@click.option("--images", type=_FOLDER, help="post pictures: PART/TRIAL.png, or RUN.png as in the plan")
@common
def run_command(study: Path, images: Path | None, **flags: Any) -> None:
    """Post the pictures of a study, or (without --images) collect what cameras posted for it.

    Cameras say `serial` PART and the attributes `msa` STUDY and `msa_trial` TRIAL.
    """
    guarded(lambda: _run(load(study), images, flags))


def _run(study: Study, images: Path | None, flags: dict[str, Any]) -> None:
    from service.client import Client, InlierError
    from service.msa.collect import collect, pictures, post

    with Client(flags["url"], api_key(flags), retry_for_s=_RETRY_FOR_S) as client:
        if images is None:
            found, missing = collect(study, client, flags["recipe"])
            click.echo(f"{len(found)} of {len(study.runs)} runs have a result")
            if missing:
                first = missing[0]
                raise StartupError(
                    f"{len(missing)} runs are still missing; the first is {first.part}, trial {first.trial}"
                )
            return
        shown = pictures(study, images)
        total = len(study.runs)

        def told(run: Any, seen: Any) -> None:
            click.echo(f"{run.run}/{total}  {run.part}  trial {run.trial}  {seen.verdict}")

        try:
            post(study, client, shown, metadata(flags), told)
        except InlierError as error:
            raise StartupError(f"{error}; what was posted is kept, run the command again") from None


@msa.command("report")
@click.argument("study", type=_FOLDER)
def report_command(study: Path) -> None:
    """Write report.html (print it for a PDF), report.json and parts.csv, and show the figures."""

    from service.msa import report as reports
    from service.msa.agreement import agreement

    def run() -> None:
        planned = load(study)
        done = _complete(planned, results(planned))
        found = agreement(done)
        written = reports.write(planned, done, found)
        click.echo("\n".join(reports.lines(planned, found)))
        click.echo("written        " + ", ".join(str(path) for path in written))

    guarded(run)


def _complete(study: Study, found: Sequence[Result]) -> Sequence[Result]:
    missing = {run.run for run in study.runs} - {each.run for each in found}
    if missing:
        raise StartupError(
            f"{len(missing)} of {len(study.runs)} runs have no result; "
            f"first: inlier-service msa run {study.folder}"
        )
    return found
