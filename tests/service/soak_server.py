"""`python -m tests.service.soak_server DATA OPTIONS`: the service as a process; its engine only sleeps.

OPTIONS is a JSON object: `delay_s` of a call of the engine; `leak_bytes` > 0 lets it keep that much, and an
open file, of every image (the control of the soak); `block_s` > 0 keeps the event loop busy so long for every
image (the control of the overhead); the rest are settings of the service.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn

from deploy.processes import free_port
from models.engine import RawMap
from service import accept, ledger
from service.app import create_app
from service.pace import settle
from service.settings import Settings
from tests.service.conftest import PixelEngine


class Sleeping(PixelEngine):
    def __init__(self, delay_s: float, leak_bytes: int) -> None:
        super().__init__(delay_s=delay_s)
        self._leak_bytes = leak_bytes
        self._kept: list[object] = []

    def run(self, images: Any, *more: Any, **named: Any) -> list[RawMap]:
        answers = super().run(images, *more, **named)
        self.batches.clear()  # of use to other tests, and growing
        if self._leak_bytes:
            self._kept += [(b"x" * self._leak_bytes, Path("/dev/null").open("rb")) for _ in answers]
        return answers


def blocking(block_s: float) -> None:
    """From now on accepting an image takes so much longer, and nothing else happens meanwhile."""
    plain = ledger.new_row

    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(block_s)
        return plain(*arguments, **named)

    vars(accept)["new_row"] = slow


def main() -> None:
    data, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    engine = Sleeping(options.pop("delay_s"), options.pop("leak_bytes"))
    if block_s := options.pop("block_s", 0.0):
        blocking(block_s)
    usual = {"log_level": "warning", "auth": "off", "decode_processes": 1, "queue_share": 1.0}
    settings = Settings(data=data, rate_limit_per_s=0, **{**usual, **options})
    port = free_port()
    print(f"starting at http://127.0.0.1:{port}", flush=True)
    config = uvicorn.Config(create_app(settings, engine), port=port, log_config=None, access_log=False)
    settle()
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
