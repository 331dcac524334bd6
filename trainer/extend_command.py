"""`inlier-trainer extend`: the options; the work is in `trainer.extend`, loaded when it is needed."""

from pathlib import Path
from typing import Any, Literal

import click

from models.bundle import load_bundle
from trainer import options
from trainer.fit_command import print_summary


@click.command()
@click.argument("data", type=options.FOLDER)
@click.option("--base", type=options.FOLDER, required=True, help="Bundle that knows the other parts.")
@options.out
@click.option(
    "--strategy",
    type=click.Choice(["replay", "projection", "finetune"]),
    default="replay",
    show_default=True,
    help="How the network keeps what it knows.",
)
@click.option(
    "--share",
    type=click.FloatRange(0, 0.95, min_open=True),
    default=0.25,
    show_default=True,
    help="Of the images trained on, old ones: for replay.",
)
@click.option(
    "--energy",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.99,
    show_default=True,
    help="Share of old layer inputs whose answers stay: for projection.",
)
@options.name_as_base
@options.model_version
@options.steps_as_base
@options.max_minutes
@options.device
@options.resume
@options.weights
@options.marks("CSV of images that people marked as defective or fine.")
def extend(
    data: Path,
    base: Path,
    out: Path,
    model_version: str | None,
    device: Literal["auto", "cpu", "gpu"],
    marks: Path | None,
    **chosen: Any,
) -> None:
    """Teach BASE the kinds of parts in DATA that it does not know; DATA has a folder for every kind."""
    from trainer.console import stage
    from trainer.device import choose_device
    from trainer.extend import ExtendError
    from trainer.extend import extend as run
    from trainer.marks import read_marks
    from trainer.team import processes

    if processes() > 1:
        raise ExtendError("a further part is learned by one process; start it without torchrun")
    result = run(
        data,
        load_bundle(base),
        out,
        choose_device(device),
        stage,
        version=model_version,
        marks=None if marks is None else read_marks(marks),
        **chosen,
    )
    record = result.bundle.manifest.training_data.extended
    assert record is not None
    click.echo(f"kept        {', '.join(record.old_parts)}, by {record.strategy}")
    click.echo(f"trained on  {record.old_images_trained_on} of their images, and all of the new parts")
    print_summary(result, out)
