"""Continuous batching: images enter and leave the engine's slots between any two network calls.

One thread holds the engine. Before each call it takes up what waits, as far as slots are free, drops what
nobody waits for any more, and then moves all occupied slots on by one step. A camera takes the slot of a
backfill image when none is free; that one keeps how far it is and goes on when there is room again.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress

import numpy as np

from models.engine import Engine, SlotTask
from models.samplers import Cancelled
from service.batching.base import Batcher, OnStart
from service.batching.job import Ticket
from service.batching.lanes import Lanes
from service.batching.rate import ServiceRate
from service.batching.stepwise import stepwise
from service.metrics import Metrics

log = logging.getLogger(__name__)
_WARM_UP_S = 5.0


class ContinuousBatcher(Batcher):
    """At most `batch_size` images share the engine's calls, whatever their profiles and steps."""

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        *,
        queue_size: int,
        batch_size: int,
        on_start: OnStart = lambda ids: None,
    ) -> None:
        super().__init__(queue_size)
        self._engine, self._slots = engine, stepwise(engine)
        self._metrics = metrics
        self._batch_size = batch_size
        self._on_start = on_start
        self._changed = threading.Condition()  # guards lanes, errands and rate
        self._lanes, self._rate = Lanes(), ServiceRate(batch_size)
        self._errands: list[tuple[Callable[[], None], Future[None]]] = []
        self._abort = threading.Event()
        # Of the engine thread alone: who holds a slot, and the tasks of all that have been begun.
        self._running: list[Ticket] = []
        self._tasks: dict[Ticket, SlotTask] = {}
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()
        metrics.queue_depth.set_function(lambda: self._reserved)
        metrics.queue_oldest.set_function(self._oldest_s)

    @property
    def healthy(self) -> bool:
        """Whether the engine thread is alive and new jobs are taken."""
        return not self._done.is_set() and not self._closing

    @property
    def _ended(self) -> bool:
        return self._done.is_set()

    def _enter(self, ticket: Ticket) -> None:
        with self._changed:
            self._lanes.add(ticket)
            self._changed.notify()

    def _leave(self, ticket: Ticket) -> None:
        with self._changed:  # one that has a slot is dropped by the engine thread: it is `gone`
            self._lanes.discard(ticket)

    def expected_wait_s(self) -> float:
        """How long what is accepted now will keep the engine busy, from the measured cost of its calls."""
        with self._changed:
            return self._rate.wait_s(self._reserved)

    async def warm_up(self, profile: str) -> None:
        """Run one image and full slots, so that no request pays for allocation and kernel choice.

        A long chain repeats one and the same network call, so it is left after a few seconds.
        """
        if self._ended:
            raise Cancelled("the service is stopping")
        ran: Future[None] = Future()
        with self._changed:
            self._errands.append((lambda: self._rehearse(profile), ran))
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

    def _oldest_s(self) -> float:
        with self._changed:
            return self._lanes.oldest_s()

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
            while not (self._errands or self._lanes or self._running or self._closing):
                self._changed.wait()
            if self._abort.is_set():
                return False
            errands, self._errands = self._errands, []
            self._drop_unwanted()
            self._fill()
        for errand, ran in errands:
            _run_errand(errand, ran)
        self._begin([ticket for ticket in self._running if ticket not in self._tasks])
        if self._running:
            self._advance()
        return bool(self._running or self._lanes or not self._closing)

    def _drop_unwanted(self) -> None:
        """Forget the images nobody waits for, in slots or displaced from one."""
        self._running = [ticket for ticket in self._running if not ticket.gone]
        self._tasks = {ticket: task for ticket, task in self._tasks.items() if not ticket.gone}

    def _fill(self) -> None:
        """Free slots to who is next, then those of displaceable backfill, newest first, to cameras."""
        while len(self._running) < self._batch_size and (ticket := self._lanes.take()) is not None:
            self._running.append(ticket)
        for ticket in reversed(self._running.copy()):
            if not self._lanes.waiting("camera"):
                break
            if ticket.job.priority == "backfill" and not ticket.turn:
                self._running.remove(ticket)
                self._lanes.add(ticket, front=True)
                following = self._lanes.take()
                assert following is not None
                self._running.append(following)

    def _begin(self, tickets: Sequence[Ticket]) -> None:
        """Open tasks for images that have a slot for the first time; one that cannot be begun fails alone."""
        now = time.monotonic()
        for ticket in tickets:
            job, ticket.started_at = ticket.job, now
            try:
                self._tasks[ticket] = self._slots.begin(job.image, job.seed, job.profile, job.ignore)
            except Exception as error:
                self._running.remove(ticket)
                self._tell(ticket.fail, error)
        begun = [ticket.job.id for ticket in tickets if ticket in self._tasks]
        if begun:
            self._tell(self._on_start, begun)

    def _advance(self) -> None:
        """One network call for all slots; those that end with it leave."""
        tickets, started = self._running, time.monotonic()
        self._metrics.batch_size.observe(len(tickets))
        try:
            self._slots.advance([self._tasks[ticket] for ticket in tickets], lambda: self._unwanted(tickets))
            outcomes = {ticket: self._tasks[ticket].outcome for ticket in tickets}
        except Cancelled:
            if not self._unwanted(tickets):
                raise
            return  # the next turn drops them
        except Exception as error:  # the engine isolates what fails for one image: this is for all
            log.exception("the engine failed on %d images", len(tickets))
            outcomes = dict.fromkeys(tickets, error)
        finished = time.monotonic()
        ended = {ticket: outcome for ticket, outcome in outcomes.items() if outcome is not None}
        self._learn(finished - started, len(tickets), len(ended))
        for ticket, outcome in ended.items():
            del self._tasks[ticket]
            if isinstance(outcome, Exception):
                self._tell(ticket.fail, outcome)
            else:
                self._tell(ticket.answer, outcome, finished)
        self._running = [ticket for ticket in tickets if ticket not in ended]

    def _unwanted(self, tickets: Sequence[Ticket]) -> bool:
        return self._abort.is_set() or all(ticket.gone for ticket in tickets)

    def _learn(self, call_s: float, occupied: int, ended: int) -> None:
        with self._changed:
            self._rate.observe(call_s, occupied, ended)

    def _rehearse(self, profile: str) -> None:
        spec = self._engine.manifest.preprocess
        image = np.zeros((spec.channels, spec.height, spec.width), dtype=np.float32)
        for count in (1, self._batch_size):
            tasks = [self._slots.begin(image, seed, profile) for seed in range(count)]
            deadline, first = time.monotonic() + _WARM_UP_S, True
            while (under_way := [task for task in tasks if task.outcome is None]) and not _over(deadline):
                started = time.monotonic()
                with suppress(Cancelled):
                    self._slots.advance(under_way, lambda deadline=deadline: _over(deadline))  # type: ignore[misc]
                    if not first:  # which also allocated
                        ended = sum(task.outcome is not None for task in under_way)
                        self._learn(time.monotonic() - started, len(under_way), ended)
                first = False
            for task in tasks:
                if isinstance(task.outcome, Exception):
                    raise task.outcome

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        """Call something on the event loop; nobody is left to be told once that is closed."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *args)

    def _finish(self) -> None:
        """On the event loop, after the engine thread's last turn: nobody waits for it from here on."""
        self._done.set()
        for ticket in {*self._lanes, *self._running, *self._tasks}:
            ticket.fail(Cancelled("the service is stopping"))
        for _, ran in self._errands:
            ran.cancel()


def _over(deadline: float) -> bool:
    return time.monotonic() > deadline


def _run_errand(errand: Callable[[], None], ran: "Future[None]") -> None:
    if not ran.set_running_or_notify_cancel():
        return
    try:
        errand()
    except Exception as error:
        ran.set_exception(error)
    else:
        ran.set_result(None)
