"""Several kinds of parts in one training: which image shows which, and what must be said when measuring."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from models.bundle import Manifest
from models.parts import LONGEST_NAME, per_part
from models.profiles import PART_NAME
from trainer.data import DataError, Mix
from trainer.errors import TrainerError
from trainer.recipe import Recipe, RecipeError


class PartError(TrainerError):
    """It is not clear which kind of part is meant; the message says how to name it."""


def find_parts(recipe: Recipe, folder: Path, files: Sequence[Path], mix: Mix | None) -> list[str] | None:
    """The part that each file shows, or None when the recipe is for one kind of part.

    Raises DataError as `folder_parts` does and for images mixed in, RecipeError for profile names that get
    too long with a part's name behind.
    """
    if recipe.data.parts == "one":
        return None
    if mix is not None:
        raise DataError("--mix is for studies of one kind of part; it excludes data.parts = folders")
    parts = folder_parts(folder, files)
    long = [name for name in per_part(recipe.profiles, sorted(set(parts))) if len(name) > LONGEST_NAME]
    if long:
        raise RecipeError(f"profile names {long} are too long; {LONGEST_NAME} characters at most")
    return parts


def folder_parts(folder: Path, files: Sequence[Path]) -> list[str]:
    """The part that each of the `files` below `folder` shows: its first-level folder, in lower case.

    DataError for images beside the folders, fewer than two folders, and names that no profile can have.
    """
    below = [path.relative_to(folder).parts for path in files]
    loose = [parts[0] for parts in below if len(parts) == 1]
    if loose:
        raise DataError(
            f"{len(loose)} images lie in {folder} itself, such as {loose[0]}; with data.parts = folders "
            "every image must lie in a folder named after its part"
        )
    names = {parts[0]: parts[0].lower() for parts in below}
    bad = [name for name, part in names.items() if not re.fullmatch(PART_NAME, part)]
    if bad:
        raise DataError(
            f"folders {bad} of {folder} cannot name parts; use up to 32 letters, digits, '-' and '_'"
        )
    twice = [part for part, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise DataError(f"{folder} has several folders for the parts {twice}; put their images together")
    if len(names) < 2:
        raise DataError(
            f"{folder} has images in one folder only, {below[0][0]}; data.parts = folders needs two"
        )
    for name in names:
        if (folder / name / "test").is_dir() and (folder / name / "ground_truth").is_dir():
            raise DataError(
                f"{folder / name} holds test images and masks, too; it must hold training images only"
            )
    return [names[parts[0]] for parts in below]


def require_profile(manifest: Manifest, asked: Sequence[str | None]) -> None:
    """PartError when a bundle of several parts is measured without saying which of them the images show."""
    if manifest.parts and (not asked or None in asked or "all" in asked):
        raise PartError(
            f"the bundle knows the parts {', '.join(manifest.parts)}; say which one the images show by its "
            f"profile, for example --profile {manifest.default_profile['cpu']}"
        )
