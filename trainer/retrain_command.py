"""`inlier-trainer retrain`: the options; the work is in `trainer.retrain`, loaded when it is needed."""

from pathlib import Path
from typing import Literal

import click

from models.bundle import load_bundle
from trainer import options
from trainer.fit_command import print_summary


@click.command()
@click.argument("export", type=options.FOLDER)
@click.option(
    "--base", type=options.FOLDER, required=True, help="Bundle whose recipe is used, and whose weights."
)
@options.out
@click.option(
    "--warm/--fresh", default=True, show_default=True, help="Begin with the base's weights, or anew."
)
@options.name_as_base
@options.model_version
@options.steps_as_base
@options.max_minutes
@options.device
@options.resume
@options.weights
@options.marks("CSV of images that people marked as defective or fine on the training-set audit.")
def retrain(
    export: Path,
    base: Path,
    out: Path,
    warm: bool,
    name: str | None,
    model_version: str | None,
    steps: int | None,
    max_minutes: float | None,
    device: Literal["auto", "cpu", "gpu"],
    resume: bool,
    weights: Path | None,
    marks: Path | None,
) -> None:
    """Train again on EXPORT, a training set that `inlier-service export-training` wrote."""
    from trainer.console import stage
    from trainer.device import choose_device
    from trainer.marks import read_marks
    from trainer.retrain import retrain as run
    from trainer.team import together

    with together() as leads:
        if not leads:
            return
        result = run(
            export,
            load_bundle(base),
            out,
            choose_device(device),
            stage,
            start="warm" if warm else "fresh",
            name=name,
            version=model_version,
            steps=steps,
            max_minutes=max_minutes,
            resume=resume,
            weights=weights,
            marks=None if marks is None else read_marks(marks),
        )
    record = result.bundle.manifest.training_data.retrained
    assert record is not None
    calibrated = "the images it was trained on: there are not two lots or days"
    if record.held_out_by is not None:
        groups = f"{len(record.held_out)} {record.held_out_by}(s)"
        calibrated = f"{record.held_out_images} images of {groups} that were not trained on"
    click.echo(f"calibrated  on {calibrated}")
    print_summary(result, out)
