"""What a training step sees, made from (seed, step) alone: nothing is carried from step to step.

A resumed run therefore sees exactly the batches it would have seen, and a thread can make them ahead.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.corruption import Corruption
from models.noise import NOISES
from models.preprocess import shrink, to_float
from models.process import DiffusionProcess, q_sample
from trainer.data import BatchOrder
from trainer.recipe import Recipe, Training

Float = NDArray[np.float32]
Rng = np.random.Generator
Made = TypeVar("Made")
Timesteps = Callable[[Rng, int, float], Float]
"""(rng, batch size, largest timestep) -> timesteps `[B]`."""

REFERENCE_PX = 256.0  # lengths of the corruptions are given for images of this side
AHEAD = 4  # batches made in advance


def uniform(rng: Rng, count: int, largest: float) -> Float:
    """Whole timesteps 1..largest, all as likely (Ho et al. 2020)."""
    return rng.integers(1, int(largest) + 1, count).astype(np.float32)


def quadratic(rng: Rng, count: int, largest: float) -> Float:
    """`largest u^2` with u uniform: the low noise that small defects need is seen most."""
    return np.asarray(np.maximum(largest * rng.random(count) ** 2, 0.1), dtype=np.float32)


TIMESTEPS: Mapping[str, Callable[[], Timesteps]] = {
    "uniform": lambda: uniform,
    "quadratic": lambda: quadratic,
}
CORRUPTIONS: Mapping[str, Callable[..., Corruption | None]] = {
    "none": lambda: None,
    "structured": Corruption,
}


@dataclass(frozen=True)
class Batch:
    """One step's input and truth, channels first, float32."""

    x_t: Tensor  # [B, C, H, W] noised, perhaps corrupted before
    t: Tensor  # [B]
    abar: Tensor  # [B, 1, 1, 1]
    x0: Tensor  # [B, C, H, W] the clean target
    label: Tensor | None = None  # [B] which kind of part, where there are several

    def rows(self, rows: slice) -> "Batch":
        label = None if self.label is None else self.label[rows]
        return Batch(self.x_t[rows], self.t[rows], self.abar[rows], self.x0[rows], label)

    def to(self, device: torch.device) -> "Batch":
        x_t = self.x_t.to(device).contiguous(memory_format=torch.channels_last)
        label = None if self.label is None else self.label.to(device)
        return Batch(x_t, self.t.to(device), self.abar.to(device), self.x0.to(device), label)


class BatchMaker:
    """Images, crops, flips, corruption, timesteps and noise of any step.

    `labels [N]` say which kind of part each of `pixels [N, C, H, W]` shows; what is painted onto one may come
    from any other.
    """

    def __init__(
        self,
        recipe: Recipe,
        pixels: NDArray[np.uint8],
        process: DiffusionProcess,
        labels: NDArray[np.int64] | None = None,
    ) -> None:
        training = recipe.training
        self._labels = labels
        self._pixels, self._training, self._process = pixels, training, process
        self._order = BatchOrder(len(pixels), training.batch_size, training.seed)
        self._timesteps = training.timesteps.build("timesteps", TIMESTEPS)
        self._noise = training.noise.build("noise", NOISES)
        self._corrupt: Corruption | None = training.corruption.build("corruption", CORRUPTIONS)
        self._largest = float(recipe.largest_timestep)
        self._reduce = recipe.network.reduce
        self._unit = max(pixels.shape[2:]) / self._reduce / REFERENCE_PX
        self._crop = crop_size(pixels, training.crop_px)

    def __call__(self, step: int) -> Batch:
        rng = np.random.default_rng((self._training.seed, step))
        clean, dirty = [], []
        chosen = self._order.batch(step)
        for index in chosen:
            image = self._view(int(index), rng)
            painted = image
            if self._corrupt is not None:
                lender = self._view(int(rng.integers(len(self._pixels))), rng)
                painted, _ = self._corrupt(image, lender, rng, self._unit)
            clean.append(image)
            dirty.append(painted)
        t = self._timesteps(rng, len(clean), self._largest)
        abar = self._process.abar(t).astype(np.float32)[:, None, None, None]
        eps = np.stack([self._noise(image.shape, rng) for image in clean])
        x_t = q_sample(np.stack(dirty), eps, abar)
        label = None if self._labels is None else _tensor(self._labels[chosen])
        return Batch(_tensor(x_t), _tensor(t), _tensor(abar), _tensor(np.stack(clean)), label)

    def _view(self, index: int, rng: Rng) -> Float:
        return shrink(random_view(self._pixels[index], self._crop, self._training, rng), self._reduce)


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def crop_size(pixels: NDArray[np.uint8], crop_px: int | None) -> tuple[int, int]:
    """(height, width) of a training view of images `[N, C, H, W]`."""
    height, width = pixels.shape[2:]
    return min(height, crop_px or height), min(width, crop_px or width)


def random_view(pixels: NDArray[np.uint8], crop: tuple[int, int], training: Training, rng: Rng) -> Float:
    """An image `[C, H, W]` as a step sees it, `[C, h, w]` in [-1, 1]: cropped at random, flipped, turned."""
    height, width = crop
    top = int(rng.integers(pixels.shape[1] - height + 1))
    left = int(rng.integers(pixels.shape[2] - width + 1))
    view = pixels[:, top : top + height, left : left + width]
    if training.flips:
        view = view[:, :: int(rng.choice((-1, 1))), :: int(rng.choice((-1, 1)))]
    if training.turns and height == width and rng.random() < 0.5:
        view = view.transpose(0, 2, 1)
    return to_float(np.ascontiguousarray(view))


@contextmanager
def made_ahead(make: Callable[[int], Made], first: int) -> Iterator[Callable[[], Made]]:
    """Batches `first`, `first + 1`, ... from a thread that stays `AHEAD` of their use."""
    ready: queue.Queue[Made | BaseException] = queue.Queue(AHEAD)
    stop = threading.Event()

    def put(item: Made | BaseException) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        step = first
        while not stop.is_set():
            try:
                put(make(step))
            except BaseException as error:  # handed to the thread that waits for the batch
                return put(error)
            step += 1

    def take() -> Made:
        item = ready.get()
        if isinstance(item, BaseException):
            raise item
        return item

    worker = threading.Thread(target=work, name="batches", daemon=True)
    worker.start()
    try:
        yield take
    finally:
        stop.set()
        worker.join()
