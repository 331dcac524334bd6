"""What the engine thread does between and in network calls: choose, begin, advance, and learn the cost."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import numpy as np

from models.engine import RawMap, Slots, SlotTask
from models.preprocess import Preprocess
from models.samplers import Cancelled
from models.slots import Wanted
from service.batching.cost import CallCost
from service.batching.job import Ticket
from service.batching.turns import Turns, Work
from service.metrics import Metrics

log = logging.getLogger(__name__)
_WARM_UP_S = 5.0
Outcomes = dict[Ticket, RawMap | Exception]


class Stepper:
    """The tasks of all tickets that have been begun; one that is passed over keeps how far it is."""

    def __init__(
        self, slots: Slots, metrics: Metrics, places: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """At most `places` images share a call."""
        self._slots, self._metrics, self._places, self._clock = slots, metrics, places, clock
        self._turns, self._cost = Turns(places), CallCost()
        self._tasks: dict[Ticket, SlotTask] = {}

    def step(self, tickets: Sequence[Ticket], unwanted: Callable[[Sequence[Ticket]], bool]) -> Outcomes:
        """One network call for some of the tickets, which are all that wait, in order of arrival; those that
        end with it. `unwanted` says whether a call for these would be for nobody.
        """
        started = self._clock()
        for ticket in self._tasks.keys() - set(tickets):
            del self._tasks[ticket]
        works = self._works(tickets)
        seconds = self._cost.seconds if self._cost.known else None
        chosen = [tickets[index] for index in self._turns.choose(works, seconds)]
        outcomes = self._begin([ticket for ticket in chosen if ticket not in self._tasks])
        if chosen := [ticket for ticket in chosen if ticket not in outcomes]:
            # To choose and to begin is part of what a call costs.
            outcomes |= self._advance(chosen, lambda: unwanted(chosen), started)
        for ticket in outcomes:
            self._tasks.pop(ticket, None)
        return outcomes

    def rehearse(self, profile: str, spec: Preprocess) -> None:
        """Run one image and a full call, so that no request pays for allocation and kernel choice.

        A long chain repeats one and the same network call, so it is left after a few seconds.
        """
        image = np.zeros((spec.channels, spec.height, spec.width), dtype=np.float32)
        for count in (1, self._places):
            tasks = [self._slots.begin(image, seed, profile) for seed in range(count)]
            deadline, first = time.monotonic() + _WARM_UP_S, True
            while (under_way := [task for task in tasks if task.outcome is None]) and not _over(deadline):
                with suppress(Cancelled):
                    # The first call also allocates: nothing is learned from it.
                    self._call(under_way, partial(_over, deadline), self._clock(), learn=not first)
                first = False
            for task in tasks:
                if isinstance(task.outcome, Exception):
                    raise task.outcome

    def _works(self, tickets: Sequence[Ticket]) -> list[Work]:
        foreseen: dict[str, Wanted] = {}  # by profile
        works = []
        for ticket in tickets:
            if (task := self._tasks.get(ticket)) is not None:
                wanted = task.wanted
            elif (profile := ticket.job.profile) in foreseen:
                wanted = foreseen[profile]
            else:
                wanted = foreseen[profile] = self._foresee(profile)
            works.append(Work(*wanted, ticket.job.priority == "backfill"))
        return works

    def _foresee(self, profile: str) -> Wanted:
        try:
            return self._slots.foresee(profile)
        except KeyError:  # it cannot be begun: let it fail soon
            return Wanted(1, 1)

    def _begin(self, tickets: Sequence[Ticket]) -> Outcomes:
        """Tasks for images that advance for the first time; the errors of those that cannot be begun."""
        now, failed = self._clock(), Outcomes()
        for ticket in tickets:
            job, ticket.started_at = ticket.job, now
            try:
                self._tasks[ticket] = self._slots.begin(job.image, job.seed, job.profile, job.ignore, job.see)
            except Exception as error:
                failed[ticket] = error
        return failed

    def _advance(
        self, tickets: Sequence[Ticket], should_stop: Callable[[], bool], started: float
    ) -> Outcomes:
        tasks = [self._tasks[ticket] for ticket in tickets]
        self._metrics.batch_size.observe(len(tickets))
        try:
            self._call(tasks, should_stop, started)
        except Cancelled:
            if not should_stop():
                raise
            return {}  # at the next step they are gone
        except Exception as error:  # the engine isolates what fails for one image: this is for all
            log.exception("the engine failed on %d images", len(tickets))
            return dict.fromkeys(tickets, error)
        outcomes = {ticket: task.outcome for ticket, task in zip(tickets, tasks, strict=True)}
        return {ticket: outcome for ticket, outcome in outcomes.items() if outcome is not None}

    def _call(
        self,
        tasks: Sequence[SlotTask],
        should_stop: Callable[[], bool],
        started: float,
        *,
        learn: bool = True,
    ) -> None:
        left = sum(task.wanted.left for task in tasks)
        self._slots.advance(tasks, should_stop)
        spent_s = self._clock() - started
        rows = left - sum(task.wanted.left for task in tasks)
        if learn and rows > 0 and not any(isinstance(task.outcome, Exception) for task in tasks):
            self._cost.observe(rows, spent_s)


def _over(deadline: float) -> bool:
    return time.monotonic() > deadline
