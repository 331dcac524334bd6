"""`inlier-trainer gate`: the options; the work is in `trainer.gate`, loaded when it is needed."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from models.bundle import Thresholds, load_bundle
from models.snapshot import LEAST_GOLDEN

if TYPE_CHECKING:
    from trainer.gate import Gate

Folder = click.Path(path_type=Path)
File = click.Path(path_type=Path, dir_okay=False)
_MARKS = {True: "passed", False: "FAILED", None: "not asked"}


@click.command()
@click.argument("candidate", type=Folder)
@click.option("--against", type=Folder, required=True, help="Bundle of the active model.")
@click.option("--export", type=Folder, help="Training set: recent images, mask, limits in force.")
@click.option("--golden", type=Folder, help="Confirmed parts: good/ and defective/ [default: EXPORT's].")
@click.option("--escapes", type=Folder, help="Missed defects [default: EXPORT's].")
@click.option("--profile", help="Profile of both [default: EXPORT's, or the active model's default].")
@click.option(
    "--active-limits",
    type=float,
    nargs=2,
    metavar="REVIEW REJECT",
    help="What the active model decides by [default: EXPORT's, or its own suggestion].",
)
@click.option(
    "--latency-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=1.25,
    show_default=True,
    help="Longest time per image, over the active model's.",
)
@click.option(
    "--least-golden",
    type=click.IntRange(min=0),
    default=LEAST_GOLDEN,
    show_default=True,
    help="Fewer confirmed parts fail the gate; 0 takes what there is.",
)
@click.option(
    "--recent",
    type=click.IntRange(min=1),
    default=400,
    show_default=True,
    help="Recent images of EXPORT to compare scores on; of those CANDIDATE did not learn from, if known.",
)
@click.option("--json", "json_file", type=File, help="Write criteria and figures as JSON.")
@click.option("--html", "html_file", type=File, help="Write the report for a person.")
@click.option(
    "--device", type=click.Choice(["cpu", "gpu"]), default="cpu", show_default=True, help="Where both run."
)
@click.option(
    "--threads", type=click.IntRange(min=0), default=0, help="CPU threads [default: the runtime's choice]."
)
@click.pass_context
def gate(
    context: click.Context,
    candidate: Path,
    against: Path,
    export: Path | None,
    golden: Path | None,
    escapes: Path | None,
    profile: str | None,
    active_limits: tuple[float, float] | None,
    latency_limit: float,
    least_golden: int,
    recent: int,
    json_file: Path | None,
    html_file: Path | None,
    device: Literal["cpu", "gpu"],
    threads: int,
) -> None:
    """Ask whether CANDIDATE may take the active model's place: status 0 if so, 1 if not."""
    from trainer.console import stage
    from trainer.exam import GateError, read_exam
    from trainer.gate import Settings, hold, write_json
    from trainer.gate_report import write_report

    limits = None
    if active_limits is not None:
        if not active_limits[0] <= active_limits[1]:
            raise GateError(f"--active-limits {active_limits[0]:g} {active_limits[1]:g} are not in order")
        limits = Thresholds(review=active_limits[0], reject=active_limits[1])
    for file in (json_file, html_file):  # before the work, not after
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
    new, old = load_bundle(candidate), load_bundle(against)
    exam = read_exam(export, golden, escapes, recent, new.manifest.training_data.retrained)
    settings = Settings(profile, limits, latency_limit, least_golden, device, threads)
    found = hold(new, old, exam, settings, stage)
    if json_file is not None:
        write_json(json_file, found)
    if html_file is not None:
        write_report(html_file, found)
    _print(found)
    context.exit(0 if found.passed else 1)


def _print(found: "Gate") -> None:
    for one in found.criteria:
        click.echo(f"{_MARKS[one.passed]:<10} {one.name:<12} {one.why}")
    failed = ", ".join(one.title.lower() for one in found.criteria if one.passed is False)
    click.echo(f"the candidate is stopped by: {failed}" if failed else "the candidate may go on")
