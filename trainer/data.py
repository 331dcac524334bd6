"""Training images: found in any tree, decoded once through the shared path, kept as uint8 on disk."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.decode import DecodeError, Image, decode
from models.preprocess import Preprocess, to_uint8
from models.samplers import image_seed
from trainer.errors import TrainerError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
Progress = Callable[[int, int], None]


class DataError(TrainerError):
    """The training data cannot be used; the message says what to change."""


@dataclass(frozen=True)
class Mix:
    """A known contamination for studies: `fraction` of the training set is drawn from `folder`."""

    folder: Path
    fraction: float
    seed: int


@dataclass(frozen=True)
class TrainingSet:
    """Decoded training images and where they came from."""

    pixels: NDArray[np.uint8]  # [N, C, H, W]
    paths: list[Path]
    mixed: list[bool]  # True for images that `Mix` added
    seeds: list[int]  # of each image's noise, as in serving
    skipped: list[tuple[Path, str]]  # unreadable files and why
    snapshot: str  # sha256 over the sorted content hashes, each with its part where there are several
    preprocess: Preprocess
    parts: tuple[str, ...] = ()  # kinds of parts in the order of their labels; empty for one kind
    labels: NDArray[np.int64] | None = None  # [N] into `parts`, ascending; None for one kind

    @property
    def groups(self) -> list[tuple[str | None, slice]]:
        """Every kind of part and its rows; for one kind, None and all rows."""
        if self.labels is None:
            return [(None, slice(0, len(self.paths)))]
        ends = np.searchsorted(self.labels, np.arange(len(self.parts) + 1))
        return [(part, slice(int(a), int(b))) for part, a, b in zip(self.parts, ends, ends[1:], strict=False)]


def rows_in(data: TrainingSet, kept: TrainingSet) -> NDArray[np.int64]:
    """Where the images of a part of a training set stand in the whole."""
    row = {path: index for index, path in enumerate(data.paths)}
    return np.array([row[path] for path in kept.paths], dtype=np.int64)


def find_images(folder: Path) -> list[Path]:
    """Every image file below `folder` (hidden ones left out), sorted; DataError when there is none."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name the folder that holds your images")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not found:
        raise DataError(f"no images in {folder}; PNG, JPEG, BMP, TIFF and WebP files are looked for")
    return found


def choose_files(folder: Path, mix: Mix | None) -> tuple[list[Path], list[bool]]:
    """The training files and which of them were mixed in.

    With a pool too small for the asked fraction, fewer of the folder's own images are used instead.
    """
    own = find_images(folder)
    if (folder / "test").is_dir() and (folder / "ground_truth").is_dir():
        raise DataError(
            f"{folder} holds test images and masks, too; train on {folder / 'train'} or a part of it"
        )
    if mix is None:
        return own, [False] * len(own)
    if not 0 <= mix.fraction < 1:
        raise DataError(f"--mix-fraction must be at least 0 and below 1, got {mix.fraction}")
    pool = find_images(mix.folder)
    if {path.resolve() for path in own} & {path.resolve() for path in pool}:
        raise DataError(f"--mix {mix.folder} and {folder} share images; keep the defects outside of DATA")
    rng = np.random.default_rng(mix.seed)
    wanted = round(len(own) * mix.fraction / (1 - mix.fraction))
    if mix.fraction > 0 and wanted == 0:
        raise DataError(f"{mix.fraction:g} of {len(own)} images is less than one; raise --mix-fraction")
    if wanted > len(pool):
        wanted = len(pool)
        kept = max(1, round(wanted * (1 - mix.fraction) / mix.fraction))
        own = [own[i] for i in np.sort(rng.permutation(len(own))[:kept])]
    added = [pool[i] for i in np.sort(rng.permutation(len(pool))[:wanted])]
    return own + added, [False] * len(own) + [True] * len(added)


def load_training_set(
    files: Sequence[Path],
    mixed: Sequence[bool],
    size: tuple[int, int],
    channels: int | str,
    cache: Path,
    progress: Progress = lambda done, total: None,
    parts: Sequence[str] | None = None,
) -> TrainingSet:
    """Decode `files` into one memory-mapped array at `cache`.

    `parts` names the kind of part of each file; files of a kind follow each other. Files that cannot be
    read are skipped and listed; DataError only when none is left, of all or of a part. With
    `channels="auto"` the set is gray if every image is.
    """
    if channels == "auto":
        channels = 1 if all(_is_gray(path) for path in files) else 3
    spec = Preprocess(height=size[0], width=size[1], channels=3 if channels == 3 else 1)
    cache.parent.mkdir(parents=True, exist_ok=True)
    shape = (len(files), spec.channels, spec.height, spec.width)
    array = np.lib.format.open_memmap(cache, mode="w+", dtype=np.uint8, shape=shape)
    kept: list[int] = []
    hashes: list[bytes] = []
    seeds: list[int] = []
    skipped: list[tuple[Path, str]] = []
    for index, path in enumerate(files):
        progress(index, len(files))
        try:
            data = path.read_bytes()
            array[len(kept)] = to_uint8(decode(data), spec)
        except (DecodeError, OSError) as error:
            skipped.append((path, str(error)))
            continue
        kept.append(index)
        hashes.append(hashlib.sha256(data).digest())
        seeds.append(image_seed(data))
    progress(len(files), len(files))
    if not kept:
        reasons = "; ".join(f"{path.name}: {why}" for path, why in skipped[:3])
        raise DataError(f"none of the {len(files)} images could be read ({reasons})")
    labels, names = None, tuple(dict.fromkeys(parts or ()))
    if parts is not None:
        lost = sorted(set(names) - {parts[i] for i in kept})
        if lost:
            raise DataError(f"none of the images of the parts {lost} could be read")
        labels = np.array([names.index(parts[i]) for i in kept], dtype=np.int64)
        hashes = [found + parts[i].encode() for found, i in zip(hashes, kept, strict=True)]
    return TrainingSet(
        pixels=array[: len(kept)],
        paths=[files[i] for i in kept],
        mixed=[mixed[i] for i in kept],
        seeds=seeds,
        skipped=skipped,
        snapshot=hashlib.sha256(b"".join(sorted(hashes))).hexdigest(),
        preprocess=spec,
        parts=names,
        labels=labels,
    )


def _is_gray(path: Path) -> bool:
    """True for a gray image, or a colour file whose channels agree; unreadable files do not decide."""
    try:
        image: Image = decode(path.read_bytes())
    except (DecodeError, OSError):
        return True
    pixels = image.pixels
    return pixels.shape[2] == 1 or bool(
        np.array_equal(pixels[:, :, 0], pixels[:, :, 1]) and np.array_equal(pixels[:, :, 0], pixels[:, :, 2])
    )


class BatchOrder:
    """Which images a step sees: epoch after epoch of seeded permutations, computable for any step.

    Nothing is carried from step to step, so a resumed run sees exactly the batches it would have seen.
    """

    def __init__(self, images: int, batch_size: int, seed: int) -> None:
        self._images, self._batch, self._seed = images, batch_size, seed
        self._cached: tuple[int, NDArray[np.int64]] | None = None

    def batch(self, step: int) -> NDArray[np.int64]:
        """Indices `[batch_size]` of step `step` (from 0)."""
        positions = np.arange(step * self._batch, (step + 1) * self._batch)
        return np.array([self._epoch(int(p) // self._images)[p % self._images] for p in positions])

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        if self._cached is None or self._cached[0] != epoch:
            self._cached = (epoch, np.random.default_rng((self._seed, epoch)).permutation(self._images))
        return self._cached[1]


def relative_names(paths: Sequence[Path]) -> list[str]:
    """Short, unambiguous names: paths relative to what they all share."""
    if not paths:
        return []
    root = os.path.commonpath([path.resolve().parent for path in paths])
    return [os.path.relpath(path.resolve(), root) for path in paths]
