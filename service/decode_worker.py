"""A process of its own that turns untrusted bytes into pixels, within limits; see `service.decode`.

Reads requests from standard input and answers on standard output until the input ends, which it also does
when the service dies. Request: 8 bytes length, image bytes. Answer: 4 bytes length of a JSON head, the head
(`{"shape", "dtype", "media_type"}` or `{"error", "detail"}`), then the pixels. With `"last": true` it ends.
"""

import json
import resource
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

LENGTH, HEAD = struct.Struct("!Q"), struct.Struct("!I")
OUT_OF_MEMORY = "OutOfMemory"
_STATM = Path("/proc/self/statm")


def main(max_pixels: int, memory_bytes: int) -> None:
    """Serve requests; memory may grow by `memory_bytes` beyond what the program itself takes (Linux)."""
    import cv2  # before the limit: libraries map more than they use

    from models.decode import DecodeError, decode
    from service.overheard import Overheard

    cv2.setNumThreads(1)
    limit_memory(memory_bytes)
    overheard = Overheard()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while header := source.read(LENGTH.size):
        try:
            data = source.read(LENGTH.unpack(header)[0])
            with overheard.listening():
                image = decode(data, max_pixels=max_pixels)
            if (damage := overheard.damage()) is not None:
                raise DecodeError(f"the {image.media_type} data is damaged: {damage}")
        except DecodeError as error:
            last = overheard.overflowed
            _answer(sink, {"error": type(error).__name__, "detail": str(error), "last": last})
            if last:
                return
            continue
        except MemoryError as error:
            # The next image gets a process whose memory is not in pieces.
            _answer(sink, {"error": OUT_OF_MEMORY, "detail": str(error), "last": True})
            return
        head = {"shape": image.pixels.shape, "dtype": image.pixels.dtype.name, "media_type": image.media_type}
        _answer(sink, {**head, "last": overheard.overflowed}, image.pixels.data.cast("B"))
        if overheard.overflowed:
            return
        del image


def limit_memory(growth_bytes: int) -> None:
    """From here on the address space may grow by no more than this; no core files."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if _STATM.exists():
        now = int(_STATM.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + growth_bytes, now + growth_bytes))


def _answer(sink: BinaryIO, head: dict[str, Any], body: memoryview | bytes = b"") -> None:
    text = json.dumps(head).encode()
    sink.write(HEAD.pack(len(text)) + text)
    sink.write(body)
    sink.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
