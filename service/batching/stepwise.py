"""Any engine as one that leaves off between network calls: one without steps runs whole images per call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from models.drive import See
from models.engine import Engine, RawMap, Slots, SlotTask
from models.samplers import Cancelled
from models.slots import Wanted

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]
_ONE_CALL = Wanted(1, 1)


@dataclass(eq=False)
class _WholeImage:
    """An image that one call of the engine takes from beginning to end."""

    image: Float  # [C, H, W]
    seed: int
    profile: str
    ignore: Mask | None
    outcome: RawMap | Exception | None = None

    @property
    def wanted(self) -> Wanted:
        return _ONE_CALL if self.outcome is None else Wanted(0, 0)


def stepwise(engine: Engine) -> Slots:
    """The engine itself where it has slots, or else its whole images as single steps."""
    return engine if _has_slots(engine) else _WholeImages(engine)


def _has_slots(engine: object) -> TypeGuard[Slots]:
    return hasattr(engine, "begin") and hasattr(engine, "advance")


class _WholeImages:
    """The steps of an engine that only has `run`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def foresee(self, profile: str) -> Wanted:
        return _ONE_CALL

    def begin(
        self, image: Float, seed: int, profile: str, ignore: Mask | None = None, see: See | None = None
    ) -> SlotTask:
        return _WholeImage(image, seed, profile, ignore)

    def advance(self, tasks: Sequence[SlotTask], should_stop: Callable[[], bool] | None = None) -> None:
        ours = [task for task in tasks if isinstance(task, _WholeImage)]
        for profile in {task.profile: None for task in ours}:
            self._run([task for task in ours if task.profile == profile], should_stop)

    def _run(self, tasks: Sequence[_WholeImage], should_stop: Callable[[], bool] | None) -> None:
        """Outcomes for images of one profile; one by one if together they fail."""
        try:
            results = run_together(self._engine, tasks, should_stop)
        except Cancelled:
            raise
        except Exception as error:
            if len(tasks) == 1:
                tasks[0].outcome = error
                return
            for task in tasks:
                self._run([task], should_stop)
        else:
            for task, result in zip(tasks, results, strict=True):
                task.outcome = result


def run_together(
    engine: Engine, images: Sequence[Any], should_stop: Callable[[], bool] | None
) -> list[RawMap]:
    """`engine.run` on jobs (or what has the same fields) of one profile; RuntimeError if it loses one."""
    masks: dict[str, Any] = {}
    if any(image.ignore is not None for image in images):
        masks["ignore"] = [image.ignore for image in images]
    pixels, seeds = np.stack([image.image for image in images]), [image.seed for image in images]
    results = engine.run(pixels, seeds, images[0].profile, should_stop, **masks)
    if len(results) != len(images):
        raise RuntimeError(f"the engine answered {len(results)} of {len(images)} images")
    return results
