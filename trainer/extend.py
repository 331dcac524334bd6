"""`extend`: a bundle that knows some kinds of parts, and images of those and of others -> a bundle of all."""

import json
import re
from pathlib import Path

from models.bundle import Bundle
from models.profiles import PART_NAME
from trainer.begun import same_run
from trainer.console import Stages
from trainer.continual.plan import Continual, Strategy
from trainer.device import Device
from trainer.errors import TrainerError
from trainer.fit import FitResult, fit
from trainer.marks import Marks
from trainer.recipe import Recipe, parse_recipe
from trainer.retrain import recipe_of

START_FILE = "extend.json"


class ExtendError(TrainerError):
    """This bundle cannot learn these parts; the message says why."""


def extend(
    folder: Path,
    base: Bundle,
    out: Path,
    device: Device,
    stages: Stages,
    *,
    strategy: Strategy = "replay",
    share: float = 0.25,
    energy: float = 0.99,
    name: str | None = None,
    version: str | None = None,
    steps: int | None = None,
    max_minutes: float | None = None,
    resume: bool = False,
    weights: Path | None = None,
    marks: Marks | None = None,
) -> FitResult:
    """Train the network of `base` on the folders of `folder` that it does not know, and publish `out/bundle`.

    Every kind of part has a folder. Those of the base are needed, too: all parts are calibrated with the new
    network, and a detector is fitted anew on all. What the network itself is trained on says `strategy`
    (`trainer.continual.plan`). Raises ExtendError, and what `fit` does.
    """
    continual = Continual(base, old_parts(base), strategy, share, energy)
    _remember(out, continual)
    return fit(
        folder,
        _recipe(base, steps),
        out,
        device,
        stages,
        name=name or base.manifest.name,
        version=version,
        max_minutes=max_minutes,
        resume=resume,
        weights=weights,
        mask=base.ignore(),
        marks=marks,
        continual=continual,
    )


def old_parts(base: Bundle) -> tuple[str, ...]:
    """The parts that a bundle knows; one of one kind is called as the bundle is."""
    if base.manifest.parts:
        return base.manifest.parts
    name = base.manifest.name.lower()
    if not re.fullmatch(PART_NAME, name):
        raise ExtendError(
            f"{base.path} is of one kind of part, which is called as the bundle is, and {name!r} cannot name "
            "a part: up to 32 letters, digits, '-' and '_'"
        )
    return (name,)


def _recipe(base: Bundle, steps: int | None) -> Recipe:
    values = recipe_of(base, steps).model_dump(mode="json")
    values["data"]["parts"] = "folders"
    return parse_recipe(values)


def _remember(out: Path, continual: Continual) -> None:
    """Note what the run in `out` is; ExtendError when it is another one."""
    said = {
        "base": continual.base.hash,
        "strategy": continual.strategy,
        "share": continual.share,
        "energy": continual.energy,
    }
    if not same_run(out, START_FILE, json.dumps(said, indent=2) + "\n"):
        raise ExtendError(
            f"{out} holds a run from another base or strategy (see {START_FILE}); choose another --out"
        )
