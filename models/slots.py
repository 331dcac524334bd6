"""Continuous batching over denoising steps: many reconstructions in the same network calls, each at its own.

A slot holds one image's reconstruction (`models.drive.Steps`). One `advance` is one network call with mixed
timesteps, in which every slot is moved on by what its rows allow: a chain by one step, estimates at several
noise levels by as many of them as fit. Slots come and go between any two calls.
"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.drive import MAX_ROWS, Ask, Cancelled, Steps
from models.parts import LabelledNet

Float = NDArray[np.float32]
log = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """What an image still asks of the network, in images to evaluate."""

    at_once: int  # in its next call, if there is room
    left: int  # until it ends, those included


class Slot:
    """One reconstruction, and how far it is. It ends with a `result` or, by its own fault, an `error`."""

    def __init__(self, steps: Steps, label: int | None = None) -> None:
        """`label` is the network's condition, for a model of several kinds of parts."""
        self.label = label
        self.result: Float | None = None  # what the reconstruction returned
        self.error: Exception | None = None
        self._steps = steps
        self._ask: Ask | None = None
        self._answers: list[Float] = []
        self._answered = 0  # rows of the ask
        self.done = 0  # rows of all asks
        self._go_on(lambda: next(steps))

    @property
    def ended(self) -> bool:
        return self.result is not None or self.error is not None

    @property
    def rows(self) -> int:
        """How many images it wants evaluated before it can go on."""
        return 0 if self._ask is None else len(self._ask.t) - self._answered

    def ask(self, rows: int) -> Ask:
        """The next `rows` images that it wants evaluated."""
        assert self._ask is not None
        part = slice(self._answered, self._answered + rows)
        return Ask(self._ask.x_t[part], self._ask.t[part])

    def answer(self, eps: Float) -> None:
        """Noise estimates for the images last asked for; runs the reconstruction on to its next question."""
        self._answers.append(eps)
        self._answered += len(eps)
        self.done += len(eps)
        if self.rows == 0:
            answers = self._answers[0] if len(self._answers) == 1 else np.concatenate(self._answers)
            self._answers, self._answered = [], 0
            self._go_on(lambda: self._steps.send(answers))

    def fail(self, error: Exception) -> None:
        """End it with an error."""
        self.error, self._ask = error, None
        self._steps.close()

    def _go_on(self, step: Callable[[], Ask]) -> None:
        try:
            self._ask = step()
        except StopIteration as end:
            self.result, self._ask = end.value, None
        except Exception as error:
            self.fail(error)


def advance(net: LabelledNet, slots: Sequence[Slot], max_rows: int = MAX_ROWS) -> None:
    """One network call for the slots that have not ended, those in front first where rows are short.

    More than `max_rows` images enter the network only where that many slots share it: each gets a row.
    A call that fails is made again slot by slot, so that only those that cannot be evaluated fail. Raises
    Cancelled when the network does.
    """
    asks = _share([slot for slot in slots if not slot.ended], max_rows)
    if not asks:
        return
    try:
        answers = _call(net, asks)
    except Cancelled:
        raise
    except Exception as error:
        if len(asks) == 1:
            asks[0][0].fail(error)
            return
        log.warning("a network call for %d images failed (%r); making it one by one", len(asks), error)
        for slot, _ in asks:
            advance(net, [slot], max_rows)
        return
    for (slot, _), eps in zip(asks, answers, strict=True):
        slot.answer(eps)


def _share(slots: Sequence[Slot], max_rows: int) -> list[tuple[Slot, Ask]]:
    """What each slot may ask: one row for all, and what is left of `max_rows` in order."""
    left = max_rows - len(slots)
    asks = []
    for slot in slots:
        more = max(0, min(slot.rows - 1, left))
        left -= more
        asks.append((slot, slot.ask(1 + more)))
    return asks


def _call(net: LabelledNet, asks: Sequence[tuple[Slot, Ask]]) -> list[Float]:
    """One network call; the noise estimates of each slot."""
    x_t = np.concatenate([ask.x_t for _, ask in asks])
    t = np.concatenate([ask.t for _, ask in asks])
    counts = [len(ask.t) for _, ask in asks]
    labels = [slot.label for slot, _ in asks]
    if all(label is None for label in labels):
        eps = net(x_t, t)
    else:
        eps = net(x_t, t, np.repeat(np.asarray(labels, dtype=np.int64), counts))
    if len(eps) != len(t):
        raise RuntimeError(f"the network answered {len(eps)} of {len(t)} images")
    return np.split(eps, np.cumsum(counts)[:-1])
