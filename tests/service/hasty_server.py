"""`python -m tests.service.hasty_server serve ...`: the service, but at SIGTERM it drops what it accepted."""

from service.cli import main
from service.worker import Worker


async def drop(self: Worker, deadline: float, *, drain: bool) -> None:
    self._draining = self._stopping = True
    self._queue.wake()
    for job in self._jobs.values():
        job.task.cancel()


if __name__ == "__main__":
    Worker.stop = drop  # type: ignore[method-assign]
    main()
