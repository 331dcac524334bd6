"""`retrain`: a training set that a service exported, and the bundle it is to replace -> a candidate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from models.bundle import Bundle, Retrained, Thresholds
from models.masks import Mask, join
from models.snapshot import MASK, Manifest, read_reviews, verify
from trainer.begun import same_run
from trainer.carryover import Before
from trainer.console import Stages
from trainer.device import Device
from trainer.errors import TrainerError
from trainer.exam import open_side
from trainer.fit import FitResult, fit
from trainer.heldout import Again, choose_groups
from trainer.marks import Marks
from trainer.masks import read_mask
from trainer.recipe import Recipe, parse_recipe

START_FILE = "retrain.json"
Start = Literal["warm", "fresh"]


class RetrainError(TrainerError):
    """This training set and bundle do not go together; the message says why."""


def retrain(
    export: Path,
    base: Bundle,
    out: Path,
    device: Device,
    stages: Stages,
    *,
    start: Start = "warm",
    name: str | None = None,
    version: str | None = None,
    steps: int | None = None,
    max_minutes: float | None = None,
    resume: bool = False,
    weights: Path | None = None,
    marks: Marks | None = None,
) -> FitResult:
    """Train with the recipe of `base` on `export/train` and publish the bundle at `out/bundle`.

    Every file of the export is compared with its hash first: SnapshotError. Whole lots or days are calibrated
    on and not trained on where there are several. `start` "warm" begins with the base's weights. `marks` are
    people's, as for `fit`. Raises RetrainError, and what `fit` does.
    """
    if base.manifest.parts:
        raise RetrainError(
            f"{base.path} knows the parts {', '.join(base.manifest.parts)}; a training set is of one recipe: "
            "train such a bundle with `inlier-trainer fit`, on folders of all parts"
        )
    manifest = verify(export)
    recipe = recipe_of(base, steps)
    images = [line for line in read_reviews(export) if line["use"] == "train"]
    again = _go_on(base, manifest, export, images, recipe.calibration.min_images, start)
    _remember(out, again.record)
    return fit(
        export / "train",
        recipe,
        out,
        device,
        stages,
        name=name or base.manifest.name,
        version=version,
        max_minutes=max_minutes,
        resume=resume,
        weights=weights,
        mask=ignore_mask(base, export),
        again=again,
        marks=marks,
    )


def recipe_of(base: Bundle, steps: int | None = None) -> Recipe:
    """The base's recipe, with nothing in it left to be found out from the new images."""
    values: dict[str, Any] = parse_recipe(base.manifest.recipe).model_dump(mode="json")
    spec = base.manifest.preprocess
    values["data"] |= {"size": [spec.height, spec.width], "channels": spec.channels}
    if base.manifest.detector is not None:
        values["detector"]["backbone"] = base.manifest.detector.backbone
    if steps is not None:
        values["training"]["steps"] = steps
    return parse_recipe(values)


def ignore_mask(base: Bundle, export: Path) -> Mask | None:
    """What the recipe's mask covers, and what the base has never looked at."""
    mask = read_mask(export / MASK) if (export / MASK).exists() else None
    return join(mask, base.ignore())


def _go_on(
    base: Bundle,
    manifest: Manifest,
    export: Path,
    images: Sequence[dict[str, str]],
    least: int,
    start: Start,
) -> Again:
    groups = choose_groups(images, least)
    by, names = groups or (None, [])
    held_out = [line["image"] for line in images if by is not None and line[by] in names]
    record = Retrained(
        base=base.hash,
        start=start,
        recipe=manifest.recipe,
        training_set=manifest.snapshot,
        held_out_by=by,
        held_out=tuple(names),
        held_out_images=len(held_out),
    )
    weights = base.file("model.safetensors") if start == "warm" else None
    before = _before(base, manifest, export) if held_out else None
    return Again(record, weights, frozenset(export / name for name in held_out), before)


def _before(base: Bundle, manifest: Manifest, export: Path) -> Before:
    """The base by the limits that were in force, or by those it suggests where it was not what inspected."""
    point = manifest.operating_point
    profile, limits = base.manifest.default_profile["cpu"], None
    if point is not None and point.model_hash == base.hash:
        profile, limits = point.profile, Thresholds(review=point.review, reject=point.reject)
    mask = read_mask(export / MASK) if (export / MASK).exists() else None
    return Before(open_side(base, profile, limits, threads=1), mask)


def _remember(out: Path, record: Retrained) -> None:
    """Note what the run in `out` is; RetrainError when it is another one."""
    if not same_run(out, START_FILE, record.model_dump_json(indent=2) + "\n"):
        raise RetrainError(
            f"{out} holds a run from another base, training set or start (see {START_FILE}); "
            "choose another --out"
        )
