"""`python -m tests.service.cold_server serve ...`: the service, but it is ready before anything is warm."""

from service.batching import ContinuousBatcher
from service.cli import main
from service.decode import Decoder


async def nothing(*_: object) -> None: ...


if __name__ == "__main__":
    ContinuousBatcher.warm_up = Decoder.warm_up = nothing  # type: ignore[method-assign]
    main()
