"""A reconstruction as a dialogue with the network, so that whoever runs it decides what shares a call.

Each kind of reconstruction is one generator: it yields the noisy images that it wants evaluated, with their
timesteps, is sent the noise estimates, and returns the healthy images. `drive` answers one such dialogue
until it ends; `models.slots` holds many at once, each at its own step, in the same network calls.
"""

from collections.abc import Callable, Generator
from functools import wraps
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.process import DiffusionProcess

Float = NDArray[np.float32]
Denoiser = Callable[[Float, Float], Float]
"""Noise prediction: `x_t [B, C, H, W]`, timesteps `[B]` -> eps `[B, C, H, W]`, all float32."""
MAX_ROWS = 64
"""Images in one network call, unless more are told to share it."""


class Ask(NamedTuple):
    """What a reconstruction wants to know; the answer is the noise estimate `[N, C, H, W]`."""

    x_t: Float  # [N, C, H, W]
    t: Float  # [N]


Steps = Generator[Ask, Float, Float]
"""A reconstruction under way: Asks out, noise estimates in, estimates of the healthy images at the end."""


See = Callable[[Ask, Float], None]
"""Told of each question of a reconstruction, with its answer."""


class Cancelled(Exception):
    """The caller asked to stop between two network calls."""


def check(should_stop: Callable[[], bool] | None, place: str) -> None:
    """Raise Cancelled, naming the place, when `should_stop` answers true."""
    if should_stop is not None and should_stop():
        raise Cancelled(f"stopped {place}")


def watched(steps: Steps, see: See) -> Steps:
    """The same reconstruction, with somebody who looks on."""
    ask = next(steps)
    while True:
        eps = yield ask
        see(ask, eps)
        try:
            ask = steps.send(eps)
        except StopIteration as end:
            result: Float = end.value
            return result


def drive(
    net: Denoiser, steps: Steps, should_stop: Callable[[], bool] | None = None, max_rows: int = MAX_ROWS
) -> Float:
    """Run a reconstruction to its end, in network calls of at most `max_rows` images.

    Raises Cancelled when `should_stop` answers true before a network call.
    """
    calls = 0
    try:
        ask = next(steps)
        while True:
            answers = []
            for start in range(0, len(ask.t), max_rows):
                check(should_stop, f"before network call {calls + 1}")
                rows = slice(start, start + max_rows)
                answers.append(net(ask.x_t[rows], ask.t[rows]))
                calls += 1
            ask = steps.send(answers[0] if len(answers) == 1 else np.concatenate(answers))
    except StopIteration as end:
        result: Float = end.value
        return result


def sequential(steps: Callable[..., Steps]) -> Callable[..., Float]:
    """`steps(process, x0, seeds, **fields)` as a function of a network too, run to its end.

    It takes `(net, process, x0, seeds, *, should_stop, max_rows, **fields)`; see `drive`.
    """

    @wraps(steps)
    def run(
        net: Denoiser,
        process: DiffusionProcess,
        *args: Any,
        should_stop: Callable[[], bool] | None = None,
        max_rows: int = MAX_ROWS,
        **fields: Any,
    ) -> Float:
        return drive(net, steps(process, *args, **fields), should_stop, max_rows)

    return run
