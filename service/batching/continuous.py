"""Continuous batching: images enter and leave the engine's calls between any two of them.

One thread holds the engine. Before each network call it looks at all images that are here, under way or not,
and advances those whose turn it is (`service.batching.turns`) by one step. Those passed over keep how
far they are and go on later; those that nobody waits for any more are dropped.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress

from models.engine import Engine
from models.samplers import Cancelled
from service.batching.base import Batcher
from service.batching.job import Ticket
from service.batching.stepper import Stepper
from service.batching.stepwise import stepwise
from service.metrics import Metrics

log = logging.getLogger(__name__)


class ContinuousBatcher(Batcher):
    """At most `batch_size` images share a call of the engine, whatever their profiles and steps."""

    def __init__(self, engine: Engine, metrics: Metrics, *, batch_size: int) -> None:
        super().__init__()
        self._preprocess = engine.manifest.preprocess
        self._stepper = Stepper(stepwise(engine), metrics, batch_size)  # of the engine thread alone
        self._changed = threading.Condition()  # guards what comes next
        self._tickets: dict[Ticket, None] = {}  # all that wait for an answer, in order of arrival
        self._errands: list[tuple[Callable[[], None], Future[None]]] = []
        self._abort = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """Whether the engine thread is alive and new jobs are taken."""
        return not self._done.is_set() and not self._closing

    @property
    def _ended(self) -> bool:
        return self._done.is_set()

    def _enter(self, ticket: Ticket) -> None:
        with self._changed:
            self._tickets[ticket] = None
            self._changed.notify()

    def _leave(self, ticket: Ticket) -> None:
        with self._changed:
            self._tickets.pop(ticket, None)

    async def warm_up(self, profile: str) -> None:
        """Run one image and a full call; see `Stepper.rehearse`."""
        if self._ended:
            raise Cancelled("the service is stopping")
        ran: Future[None] = Future()
        with self._changed:
            self._errands.append((lambda: self._stepper.rehearse(profile, self._preprocess), ran))
            self._changed.notify()
        await asyncio.wrap_future(ran)

    async def close(self, grace_s: float = 0.0) -> None:
        """Finish what is queued, but stop before the next network call once `grace_s` is over."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._done.wait(), max(grace_s, 0.0))
        self._abort.set()
        await self._done.wait()
        await asyncio.to_thread(self._thread.join)

    # What follows runs in the engine thread.

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except Exception:
            log.exception("the engine thread has ended")  # a bug: `healthy` says so
        finally:
            self._tell(self._finish)

    def _turn(self) -> bool:
        """One network call, when there is something to do; False when there never will be again."""
        with self._changed:
            while not (self._errands or self._tickets or self._closing):
                self._changed.wait()
            if self._abort.is_set():
                return False
            errands, self._errands = self._errands, []
            tickets = list(self._tickets)
        for errand, ran in errands:
            _run_errand(errand, ran)
        outcomes = self._stepper.step(tickets, self._unwanted)
        finished = time.monotonic()
        with self._changed:
            for ticket in outcomes:
                self._tickets.pop(ticket, None)
            more = bool(self._tickets) or not self._closing
        for ticket, outcome in outcomes.items():
            if isinstance(outcome, Exception):
                self._tell(ticket.fail, outcome)
            else:
                self._tell(ticket.answer, outcome, finished)
        return more

    def _unwanted(self, tickets: Sequence[Ticket]) -> bool:
        return self._abort.is_set() or all(ticket.gone for ticket in tickets)

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        """Call something on the event loop; nobody is left to be told once that is closed."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *args)

    def _finish(self) -> None:
        """On the event loop, after the engine thread's last turn: nobody waits for it from here on."""
        self._done.set()
        for ticket in self._tickets:
            ticket.fail(Cancelled("the service is stopping"))
        for _, ran in self._errands:
            ran.cancel()


def _run_errand(errand: Callable[[], None], ran: "Future[None]") -> None:
    if not ran.set_running_or_notify_cancel():
        return
    try:
        errand()
    except Exception as error:
        ran.set_exception(error)
    else:
        ran.set_result(None)
