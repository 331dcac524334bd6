"""`inlier-trainer fit`: the options; the work is in `trainer.fit`, loaded when it is needed."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from trainer import options
from trainer.data import Mix
from trainer.recipe import load_recipe, parse_override

if TYPE_CHECKING:
    from trainer.fit import FitResult

FLAGS = {
    "size": "data.size",
    "penalty": "training.penalty",
    "steps": "training.steps",
    "batch_size": "training.batch_size",
    "seed": "training.seed",
}
"""Options that override one recipe setting each."""


@click.command()
@click.argument("data", type=options.FOLDER)
@click.option("--recipe", "recipe_name", default="default", show_default=True, help="Name or .toml file.")
@options.out
@click.option("--name", default=None, help="Model name in the bundle [default: the recipe's name].")
@options.model_version
@click.option("--size", type=int, default=None, help="Network input, pixels a side.")
@click.option("--penalty", default=None, help="Penalty of the regression, for example huber or mse.")
@click.option("--steps", type=int, default=None, help="Training steps.")
@click.option("--batch-size", type=int, default=None, help="Images per training step.")
@click.option("--seed", type=int, default=None, help="Seed of training and of --mix.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any recipe setting, for example training.penalty.delta=0.05; repeatable.",
)
@options.max_minutes
@options.device
@click.option(
    "--mix",
    type=options.FOLDER,
    default=None,
    help="Study: folder of defective images to mix in.",
)
@click.option(
    "--mix-fraction",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.2,
    show_default=True,
    help="Share of the training set drawn from --mix.",
)
@options.resume
@options.weights
@click.option(
    "--mask",
    type=options.FILE,
    default=None,
    help="PNG of the images' aspect; what is white is not inspected, nor calibrated.",
)
@options.marks("CSV of the audit page: images marked defective are left out, those marked fine never are.")
def fit(
    data: Path,
    recipe_name: str,
    out: Path,
    name: str | None,
    model_version: str | None,
    max_minutes: float | None,
    device: Literal["auto", "cpu", "gpu"],
    mix: Path | None,
    mix_fraction: float,
    resume: bool,
    weights: Path | None,
    mask: Path | None,
    marks: Path | None,
    overrides: tuple[str, ...],
    **flags: Any,
) -> None:
    """Train on every image below DATA, unlabeled and possibly contaminated, and export a bundle."""
    from trainer.console import stage
    from trainer.device import choose_device
    from trainer.fit import fit as run
    from trainer.marks import read_marks
    from trainer.masks import read_mask
    from trainer.team import together

    given = {FLAGS[flag]: value for flag, value in flags.items() if value is not None}
    chosen = dict(parse_override(text) for text in overrides)
    recipe = load_recipe(recipe_name, given | chosen)
    with together() as leads:
        if not leads:
            return
        result = run(
            data,
            recipe,
            out,
            choose_device(device),
            stage,
            name=name or recipe.name,
            version=model_version,
            mix=None if mix is None else Mix(mix, mix_fraction, recipe.training.seed),
            max_minutes=max_minutes,
            resume=resume,
            weights=weights,
            fixed=given.keys() | chosen.keys(),
            mask=None if mask is None else read_mask(mask),
            marks=None if marks is None else read_marks(marks),
        )
    print_summary(result, out)


def print_summary(result: "FitResult", out: Path) -> None:
    """What a run came to, in a few lines; the bundle's place is the last."""
    manifest = result.bundle.manifest
    if result.data.skipped:
        click.echo(
            f"skipped     {len(result.data.skipped)} unreadable files, listed in {out / 'skipped.csv'}"
        )
    for part, rows in result.data.groups:
        if part is not None:
            click.echo(f"part        {part}: {rows.stop - rows.start} images")
    mixed_in = sum(result.data.mixed)
    click.echo(
        f"images      {len(result.data.paths)}" + (f", {mixed_in} of them mixed in" if mixed_in else "")
    )
    if manifest.training_data.left_out or manifest.training_data.trusted:
        click.echo(
            f"marked      {manifest.training_data.left_out} as defective and left out, "
            f"{manifest.training_data.trusted} as fine"
        )
    click.echo(
        f"training    {manifest.metrics['steps']} steps in {manifest.metrics['training_seconds']:.0f} s"
    )
    click.echo(
        f"suspicious  about {manifest.training_data.estimated_contamination:.0%} of the images; see audit.csv"
    )
    click.echo(f"bundle      {result.bundle.path}")
