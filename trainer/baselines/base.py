"""What every baseline shares: the interface, its settings, and two small pieces of arithmetic."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.errors import TrainerError
from trainer.features import Depth, Features

Float = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Real = TypeVar("Real", np.float32, np.float64)
Progress = Callable[[int, int], None]
LoadFeatures = Callable[[Depth], Features]


class BaselineError(TrainerError):
    """The baseline cannot be run as asked; the message says what to change."""


class BaselineSettings(BaseModel):
    """A method's own parameters, as `--set` gives them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: int = Field(default=0, ge=0, description="of everything random")


Chosen = TypeVar("Chosen", bound=BaselineSettings)


def nothing(done: int, total: int) -> None:
    """A progress display that shows nothing."""


@dataclass(frozen=True)
class Inspected:
    """What a baseline says of a batch."""

    maps: Float  # [B, H, W], not negative, higher where it is stranger
    restored: Float | None  # [B, C, H, W] in [-1, 1], for methods that reconstruct


class Baseline(ABC):
    """Learns from unlabeled images, then gives every pixel of an image a score. `fit` comes first."""

    Settings: ClassVar[type[BaselineSettings]]
    runtime: ClassVar[str]
    """What does the arithmetic, for the protocol of a result."""
    network_calls: ClassVar[int] = 0
    """Network evaluations per image."""

    @abstractmethod
    def __init__(self, settings: Any, load_features: LoadFeatures) -> None:
        """`load_features` is called only by methods that look at pretrained features."""

    @abstractmethod
    def fit(self, images: Pixels, progress: Progress = nothing) -> None:
        """Learn from training images `[N, C, H, W]`, some of which may be defective."""

    @abstractmethod
    def inspect(self, images: Pixels) -> Inspected:
        """Maps, and restored images where there are any, of `[B, C, H, W]`."""

    def score(self, images: Pixels) -> Float:
        """Anomaly maps `[B, H, W]` of images `[B, C, H, W]`."""
        return self.inspect(images).maps

    def score_training(self, images: Pixels, rows: NDArray[np.int64]) -> Float:
        """Maps `[B, H, W]` of training images, `rows` of what `fit` saw.

        Methods that remember single images leave an image's own memory out, or each would look perfect.
        """
        return self.score(images)

    def learned(self) -> dict[str, float]:
        """What `fit` found out about the data that a reader of the figures wants to know."""
        return {}


def parse_settings(kind: type[Chosen], name: str, values: dict[str, Any]) -> Chosen:
    """A method's settings from names and values; BaselineError names the first mistake."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "settings"
        known = ", ".join(kind.model_fields)
        raise BaselineError(f"{name}: {key}: {first['msg']}; it has the settings {known}") from None


def batches(count: int, size: int) -> list[slice]:
    """Consecutive slices of `range(count)`, `size` long but for the last."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def soft_threshold(x: NDArray[Real], limit: float | NDArray[Real]) -> NDArray[Real]:
    """sign(x) max(|x| - limit, 0), elementwise: the proximal operator of `limit * |x|_1`."""
    return np.asarray(np.sign(x) * np.maximum(np.abs(x) - limit, 0), dtype=x.dtype)
