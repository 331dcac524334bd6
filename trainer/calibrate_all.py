"""Every profile calibrated on every kind of part, the audit of the images, and what it says of them all."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from models.bundle import Retrained, TrainingData
from models.masks import Mask
from models.parts import for_part, per_part
from trainer.calibrate import Calibrated, Models, calibrate_profile
from trainer.console import Stages
from trainer.data import TrainingSet, relative_names
from trainer.recipe import Recipe
from trainer.trust import Trust

AUDIT_PROFILE = "fast"  # ranks the training images, so it sees every one of them
ModelsOf = Callable[[int | None], Models]
"""The label of a part, or None for one kind of part -> what is calibrated on it."""
Suspect = tuple[str, float, int]
"""Name, calibrated score and row of a training image."""


def calibrate_all(
    recipe: Recipe, data: TrainingSet, models_of: ModelsOf, stages: Stages
) -> dict[str, Calibrated]:
    """Every profile, on each part's own images.

    The one that ranks the training images comes first, and what it learns of trust is for the others, too.
    """
    calibrated: dict[str, Calibrated] = {}
    for number, (part, rows) in enumerate(data.groups):
        models = models_of(None if part is None else number)
        audit = for_part(AUDIT_PROFILE, part)
        for base in sorted(recipe.profiles, key=lambda base: base != AUDIT_PROFILE):
            name = for_part(base, part)
            with stages(f"calibrating {name}", rows.stop - rows.start) as advance:
                found = calibrate_profile(
                    models,
                    name,
                    recipe.profiles[base],
                    data.pixels[rows],
                    data.seeds[rows],
                    recipe.calibration,
                    subset_seed=recipe.training.seed,
                    whole_set=name == audit,
                    trust=None if name == audit else calibrated[audit].trust or None,
                    report=lambda _, done, total, advance=advance: advance(done, f"{done} of {total} images"),  # type: ignore[misc]
                )
            calibrated[name] = replace(found, indices=found.indices + rows.start)
    parts = [part for part, _ in data.groups]
    return {name: calibrated[name] for name in per_part(recipe.profiles, parts)}


def write_calibration(calibrated: dict[str, Calibrated], path: Path, ignore: Mask | None = None) -> None:
    """The arrays of `calibration.safetensors` (see `models.bundle`)."""
    arrays: dict[str, NDArray[Any]] = {} if ignore is None else {"ignore": ignore.astype(np.uint8)}
    for name, found in calibrated.items():
        arrays[f"{name}/scores"] = np.sort(found.scores)
        arrays |= {f"{name}/position/{kind}": usual for kind, usual in found.positions.items()}
        if found.kinds is not None:
            arrays |= {f"{name}/{key}": array for key, array in found.kinds.arrays().items()}
    save_file(arrays, path)


def rank_images(data: TrainingSet, calibrated: dict[str, Calibrated]) -> list[Suspect]:
    """The training images, most suspicious for their own part first."""
    names = relative_names(data.paths)
    ranked: list[Suspect] = []
    for part, _ in data.groups:
        found = calibrated[for_part(AUDIT_PROFILE, part)]
        score = found.calibration.score
        ranked += [
            (names[row], score.calibrate(raw), int(row))
            for row, raw in zip(found.indices, found.scores, strict=True)
        ]
    return sorted(ranked, key=lambda suspect: -suspect[1])


def trusts(data: TrainingSet, calibrated: dict[str, Calibrated]) -> dict[str, Trust]:
    """What each kind of evidence is worth, by its name, and on which part where there are several."""
    return {
        for_part(kind, part): trust
        for part, _ in data.groups
        for kind, trust in calibrated[for_part(AUDIT_PROFILE, part)].trust.items()
    }


def trust_metrics(found: dict[str, Trust]) -> dict[str, Any]:
    """The same for the manifest."""
    return {
        kind: {
            **asdict(trust),
            "weight": round(trust.weight, 4),
            "image_weight": round(trust.image_weight, 4),
        }
        for kind, trust in found.items()
    }


def describe_data(
    data: TrainingSet,
    calibrated: dict[str, Calibrated],
    ignore: Mask | None = None,
    retrained: Retrained | None = None,
) -> TrainingData:
    """The training images for the manifest.

    Contamination is the mean over parts, by their number of images; so are the ends of the interval, which
    is then wider than it would have to be.
    """
    nulls = [calibrated[for_part(AUDIT_PROFILE, part)].null for part, _ in data.groups]
    images = [rows.stop - rows.start for _, rows in data.groups]
    share, low, high = np.average([(n.contamination, *n.interval) for n in nulls], axis=0, weights=images)
    return TrainingData(
        snapshot=data.snapshot,
        images=len(data.paths),
        left_out=len(data.left_out),
        trusted=0 if data.trusted is None else int(data.trusted.sum()),
        estimated_contamination=float(share),
        contamination_interval=(float(low), float(high)),
        masked_share=0.0 if ignore is None else float(ignore.mean()),
        retrained=retrained,
    )
