"""Training images: found in any tree, decoded once through the shared path, kept as uint8 on disk."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.decode import DecodeError, Image, decode
from models.preprocess import Preprocess, to_uint8
from models.samplers import image_seed
from trainer.errors import TrainerError
from trainer.marks import Marks, MarksError

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
    hashes: list[str] = field(default_factory=list)  # sha256 of each file
    trusted: NDArray[np.bool_] | None = None  # [N] whether a person marked it as fine; None: none of them
    left_out: list[Path] = field(default_factory=list)  # files that a person marked as defective

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
    marks: Marks | None = None,
) -> TrainingSet:
    """Decode `files` into one memory-mapped array at `cache`.

    `parts` names the kind of part of each file; files of a kind follow each other. Files that cannot be
    read are skipped and listed; DataError only when none is left, of all or of a part. With
    `channels="auto"` the set is gray if every image is. What `marks` call defective is left out; MarksError
    if they are of other images.
    """
    if channels == "auto":
        channels = 1 if all(_is_gray(path) for path in files) else 3
    spec = Preprocess(height=size[0], width=size[1], channels=3 if channels == 3 else 1)
    cache.parent.mkdir(parents=True, exist_ok=True)
    shape = (len(files), spec.channels, spec.height, spec.width)
    array = np.lib.format.open_memmap(cache, mode="w+", dtype=np.uint8, shape=shape)
    kept: list[int] = []
    hashes: list[str] = []
    seeds: list[int] = []
    skipped: list[tuple[Path, str]] = []
    trusted: list[bool] = []
    left_out: list[Path] = []
    names = relative_names(files)
    for index, path in enumerate(files):
        progress(index, len(files))
        try:
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            mark = None if marks is None else marks.of(digest, names[index])
            if mark == "defective":
                left_out.append(path)
                continue
            array[len(kept)] = to_uint8(decode(data), spec)
        except (DecodeError, OSError) as error:
            skipped.append((path, str(error)))
            continue
        kept.append(index)
        hashes.append(digest)
        seeds.append(image_seed(data))
        trusted.append(mark == "fine")
    progress(len(files), len(files))
    if marks is not None and marks and not left_out and not any(trusted):
        raise MarksError(f"none of the images marked in {marks.path} is in the training folder")
    if not kept:
        reasons = "; ".join(f"{path.name}: {why}" for path, why in skipped[:3])
        marked = f", or they are marked as defective ({len(left_out)})" if left_out else ""
        raise DataError(f"none of the {len(files)} images could be read ({reasons}){marked}")
    return TrainingSet(
        pixels=array[: len(kept)],
        paths=[files[i] for i in kept],
        mixed=[mixed[i] for i in kept],
        seeds=seeds,
        skipped=skipped,
        snapshot=_snapshot(hashes, None if parts is None else [parts[i] for i in kept]),
        preprocess=spec,
        hashes=hashes,
        trusted=np.array(trusted) if any(trusted) else None,
        left_out=left_out,
        parts=tuple(dict.fromkeys(parts or ())),
        labels=None if parts is None else _labels(parts, kept),
    )


def _labels(parts: Sequence[str], kept: Sequence[int]) -> NDArray[np.int64]:
    """The number of the part of each image that was kept; DataError if a part has none."""
    names = list(dict.fromkeys(parts))
    lost = sorted(set(names) - {parts[i] for i in kept})
    if lost:
        raise DataError(f"none of the images of the parts {lost} could be read, or all are marked")
    return np.array([names.index(parts[i]) for i in kept], dtype=np.int64)


def _snapshot(hashes: Sequence[str], parts: Sequence[str] | None) -> str:
    """sha256 over the sorted hashes of the images, each with its part where there are several."""
    found = [
        bytes.fromhex(digest) + part.encode()
        for digest, part in zip(hashes, parts or [""] * len(hashes), strict=True)
    ]
    return hashlib.sha256(b"".join(sorted(found))).hexdigest()


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
