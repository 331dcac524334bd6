"""Who is next: cameras before backfill, each in order of arrival, and backfill never left out for long."""

from collections import deque
from collections.abc import Iterator

from service.batching.job import BACKFILL_SHARE, Priority, Ticket


class Lanes:
    """The waiting tickets."""

    def __init__(self, backfill_share: int = BACKFILL_SHARE) -> None:
        if backfill_share < 2:
            raise ValueError(f"backfill cannot have every turn out of {backfill_share}")
        self._share = backfill_share
        self._lanes: dict[Priority, deque[Ticket]] = {"camera": deque(), "backfill": deque()}
        self._passed_over = 0  # cameras taken since backfill has been waiting

    def __len__(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    def __iter__(self) -> Iterator[Ticket]:
        """All tickets, cameras first."""
        for lane in self._lanes.values():
            yield from lane

    def add(self, ticket: Ticket) -> None:
        """Queue a ticket."""
        self._lanes[ticket.job.priority].append(ticket)

    def discard(self, ticket: Ticket) -> None:
        """Forget a ticket, if it is here."""
        lane = self._lanes[ticket.job.priority]
        if ticket in lane:
            lane.remove(ticket)

    @property
    def backfill_due(self) -> bool:
        """Whether the next turn is backfill's by its share, not for want of cameras."""
        return bool(self._lanes["backfill"]) and self._passed_over >= self._share - 1

    def peek(self) -> Ticket | None:
        """The ticket that `take` would return."""
        name: Priority = "backfill" if self.backfill_due or not self._lanes["camera"] else "camera"
        return next(iter(self._lanes[name]), None)

    def take(self) -> Ticket | None:
        """The next ticket, no longer waiting."""
        ticket = self.peek()
        if ticket is not None:
            self._remove(ticket)
        return ticket

    def take_alike(self, limit: int) -> list[Ticket]:
        """The next ticket and up to `limit - 1` others of its profile."""
        first = self.take()
        if first is None:
            return []
        others = [ticket for ticket in self if ticket.job.profile == first.job.profile][: limit - 1]
        for ticket in others:
            self._remove(ticket)
        return [first, *others]

    def _remove(self, ticket: Ticket) -> None:
        self._lanes[ticket.job.priority].remove(ticket)
        waits = ticket.job.priority == "camera" and self._lanes["backfill"]
        self._passed_over = self._passed_over + 1 if waits else 0
