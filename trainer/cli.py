"""`inlier-trainer`: the trainer's command line. Each verb's work lives in the module of its name."""

import sys

import click

from models.bundle import BundleError
from models.engine import EngineError
from models.snapshot import SnapshotError
from trainer.attack_command import attack
from trainer.baseline_command import baseline
from trainer.demo_data import demo_data
from trainer.errors import TrainerError
from trainer.evaluate_command import evaluate
from trainer.extend_command import extend
from trainer.fit_command import fit
from trainer.gate_command import gate
from trainer.memorisation_command import memorisation
from trainer.retrain_command import retrain
from trainer.show_corruption_command import show_corruption
from trainer.sweep_command import sweep


@click.group(context_settings={"max_content_width": 110, "help_option_names": ["-h", "--help"]})
@click.version_option(package_name="inlier")
def cli() -> None:
    """Learn what a good part looks like from unlabeled images, and measure how well that went."""


for command in (
    fit,
    retrain,
    extend,
    gate,
    evaluate,
    demo_data,
    sweep,
    baseline,
    attack,
    memorisation,
    show_corruption,
):
    cli.add_command(command)


def main() -> None:
    """Entry point: an expected failure is one line on standard error and status 2."""
    try:
        cli()
    except (TrainerError, BundleError, EngineError, SnapshotError, OSError) as error:
        click.echo(f"inlier-trainer: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
