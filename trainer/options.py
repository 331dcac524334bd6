"""Options that several commands have, which mean the same in each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)

model_version = click.option(
    "--model-version", default=None, help="Model version in the bundle [default: the time]."
)
max_minutes = click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    help="Shorten training to fit into this time.",
)
device = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "gpu"]),
    default="auto",
    show_default=True,
    help="Where to train.",
)
resume = click.option("--resume", is_flag=True, help="Continue from the last checkpoint in OUT.")
weights = click.option(
    "--weights",
    type=FILE,
    default=None,
    help="Pretrained weights of the detector's backbone [default: the installed package's].",
)


def marks(says: str) -> Callable[[Command], Command]:
    """What people marked on the page of a training-set audit."""
    return click.option("--marks", type=FILE, default=None, help=says)


# Of a bundle that follows another.
out = click.option("--out", type=FOLDER, required=True, help="Folder of this run; the bundle is OUT/bundle.")
name_as_base = click.option("--name", default=None, help="Model name in the bundle [default: the base's].")
steps_as_base = click.option(
    "--steps", type=click.IntRange(min=1), default=None, help="Training steps [default: the base's]."
)
