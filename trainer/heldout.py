"""Calibration on images that were not trained on: of another lot, or of another day.

What a model says of images it learned from is too low for those to come, and images of one lot or day vouch
for each other. So where there are several, whole ones are held out: by lot before day, drawn by a hash of the
name and not the newest, which the training needs most.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from models.bundle import Retrained
from models.profiles import Profile
from models.scoring import score_image
from trainer.calibrate import Calibrated, Models, to_float_rows
from trainer.carryover import Before
from trainer.data import DataError, TrainingSet, rows_in
from trainer.outer import subset

SHARE = 0.2
"""Of the images that is held out at least, and of which no more than MOST may be."""
MOST = 0.5
ENOUGH = 100
"""Images to calibrate on, if MOST allows: of some tens nobody can tell how many are defective."""
_BATCH = 8


@dataclass(frozen=True)
class Again:
    """A training that goes on from an earlier one."""

    record: Retrained
    initial: Path | None  # weights to begin with
    held_out: frozenset[Path]
    before: Before | None = None  # whose limits are carried over


@dataclass(frozen=True)
class Division:
    """The images learned from and those calibrated on: the same, or none in both."""

    learned: TrainingSet
    calibrated: TrainingSet

    @property
    def apart(self) -> bool:
        return self.calibrated is not self.learned


def choose_groups(
    images: Sequence[Mapping[str, str]], least: int
) -> tuple[Literal["lot", "day"], list[str]] | None:
    """Whole lots, or else days, with a fifth to a half of the images and at least `least`; None if there are
    none. Of few images it is rather the half. `images` are lines of a training set."""
    needed = max(least, SHARE * len(images))
    wanted = max(needed, min(ENOUGH, MOST * len(images)))
    kinds: tuple[Literal["lot", "day"], ...] = ("lot", "day")
    for by in kinds:
        sizes = Counter(image[by] for image in images if image[by])
        chosen: list[str] = []
        held = 0
        for name in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
            if held >= wanted:
                break
            if held + sizes[name] <= MOST * len(images):
                chosen.append(name)
                held += sizes[name]
        if held >= needed:
            return by, sorted(chosen)
    return None


def divide(data: TrainingSet, held_out: Collection[Path], folder: Path) -> Division:
    """Part a set by its files, its copies kept in `folder`; DataError when one side would be empty."""
    if not held_out:
        return Division(data, data)
    if data.parts:
        raise DataError("images are held out of trainings of one kind of part only")
    rows = np.array([path in held_out for path in data.paths])
    if rows.all() or not rows.any():
        raise DataError("none of the images held out for calibration, or none of the others, could be read")
    learned = subset(data, ~rows, folder / "learned.npy")
    return Division(learned, subset(data, rows, folder / "held-out.npy"))


def audited(
    data: TrainingSet, division: Division, found: Calibrated, models: Models, profile: Profile
) -> Calibrated:
    """A calibration that rests on all that was held out, with scores of all images of `data`.

    Those learned from are scored as in serving, but by `models` that look at them as if they were new.
    """
    scores = np.empty(len(data.paths))
    scores[rows_in(data, division.calibrated)[found.indices]] = found.scores
    scores[rows_in(data, division.learned)] = _scores(division.learned, found, models, profile)
    return replace(found, indices=np.arange(len(scores)), scores=scores)


def _scores(data: TrainingSet, found: Calibrated, models: Models, profile: Profile) -> list[float]:
    every = np.arange(len(data.paths))
    rows = to_float_rows(data.pixels, every)
    scores: list[float] = []
    for start in range(0, len(every), _BATCH):
        some = every[start : start + _BATCH]
        images = rows(start, start + len(some))
        levels = models.levels(profile, images, [data.seeds[row] for row in some])
        look = None if models.look is None else models.look(images, some)
        for row, residuals in enumerate(levels):
            raw = score_image(
                residuals,
                images[row],
                None if look is None else look.row(row),
                profile,
                found.calibration,
                found.positions,
                found.kinds,
                ignore=models.ignore,
            )
            scores.append(raw.score)
    return scores
