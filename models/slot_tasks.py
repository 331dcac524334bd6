"""Images in slots: from the reconstruction, step by step, to what is said of the image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from models import slots
from models.masks import Mask
from models.parts import LabelledNet
from models.slots import Wanted

Float = NDArray[np.float32]
Answer = TypeVar("Answer")
Conclude = Callable[[Float, Float, Float, str, Sequence[Mask | None]], Sequence[Answer]]
"""Images `[B, C, H, W]`, the same as the diffusion network sees them, their healthy estimates
`[B, K, C, h, w]`, the profile, masks -> an answer each."""


@dataclass(eq=False)
class Task(Generic[Answer]):
    """An image on its way through the engine."""

    image: Float  # [C, H, W]
    small: Float  # [C, h, w], as the diffusion network sees it
    profile: str
    ignore: Mask | None
    slot: slots.Slot
    foreseen: Wanted  # when it began
    outcome: Answer | Exception | None = None

    @property
    def wanted(self) -> Wanted:
        """What it still asks of the network; nothing once it has an outcome."""
        if self.outcome is not None:
            return Wanted(0, 0)
        at_once = min(self.slot.rows, self.foreseen.at_once)
        return Wanted(at_once, max(self.foreseen.left - self.slot.done, at_once))


def advance(
    net: LabelledNet, tasks: Sequence[Task[Answer]], max_rows: int, conclude: Conclude[Answer]
) -> None:
    """One network call for tasks without an outcome (`models.slots.advance`), which some of them end with.

    What fails for one image becomes that image's outcome.
    """
    tasks = [task for task in tasks if task.outcome is None]
    slots.advance(net, [task.slot for task in tasks], max_rows)
    for task in tasks:
        task.outcome = task.slot.error
    ended = [task for task in tasks if task.slot.result is not None]
    for profile in {task.profile: None for task in ended}:
        _conclude([task for task in ended if task.profile == profile], conclude)


def _conclude(tasks: Sequence[Task[Answer]], conclude: Conclude[Answer]) -> None:
    """Outcomes for reconstructed images of one profile; one by one if together they fail."""
    try:
        answers = conclude(
            np.stack([task.image for task in tasks]),
            np.stack([task.small for task in tasks]),
            np.concatenate([task.slot.result for task in tasks if task.slot.result is not None]),
            tasks[0].profile,
            [task.ignore for task in tasks],
        )
        for task, answer in zip(tasks, answers, strict=True):
            task.outcome = answer
    except Exception as error:
        if len(tasks) == 1:
            tasks[0].outcome = error
            return
        for task in tasks:
            _conclude([task], conclude)
