"""Bytes -> pixels for requests: the shared decode path, in processes that may die, with helpful errors.

Image files come from outside, and their decoders are a favourite way in. They run in a small pool of
processes with a memory limit and a time limit each (`service.decode_worker`); one that fails is replaced.
"""

import asyncio
import json
import logging
import math
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import cv2
import numpy as np

from models import decode as decoding
from models.decode import DecodeError, Image, TooManyPixels, TooSmall, UnsupportedFormat, sniff
from service.decode_worker import HEAD, LENGTH, OUT_OF_MEMORY
from service.errors import InspectionError
from service.settings import decoder_environment

log = logging.getLogger(__name__)
_FORMATS = "send a PNG, JPEG, BMP, TIFF or WebP image with 8 or 16 bits per channel"
_BYTES_PER_PIXEL = 3 * 2 * 4  # colour, 16 bit, and the copies that turning it into RGB takes
_BASE_BYTES = 256 * 1024**2
_HEAD_BYTES = 1 << 16
_ERRORS = {error.__name__: error for error in (DecodeError, TooManyPixels, TooSmall, UnsupportedFormat)}


class DecoderDied(RuntimeError):
    """The process ended, or did not answer in time, while it had this image."""


class Decoder:
    """A pool of decoding processes, started by `warm_up` or when needed; with `processes` 0, threads."""

    def __init__(self, max_pixels: int, processes: int = 2, timeout_s: float = 10.0) -> None:
        self._max_pixels, self._processes, self._timeout_s = max_pixels, processes, timeout_s
        self._free: list[_Process] = []
        # As many images at a time as processes: a burst of large ones cannot fill the memory.
        self._slots = asyncio.Semaphore(processes or 2)

    async def decode(self, data: bytes) -> Image:
        """Decode one image; InspectionError 415 (format), 413 (too large) or 422 (damaged, too small)."""
        async with self._slots:
            return await asyncio.to_thread(self._decode_or_explain, data)

    async def warm_up(self) -> None:
        """Start the processes and decode an image in each, so that no request waits for that."""
        data = cv2.imencode(".png", np.zeros((8, 8, 3), dtype=np.uint8))[1].tobytes()
        if not self._processes:
            await asyncio.to_thread(decoding.decode, data, max_pixels=self._max_pixels)
            return
        starts = [asyncio.to_thread(self._start_and_ask, data) for _ in range(self._processes)]
        for outcome in await asyncio.gather(*starts, return_exceptions=True):
            if isinstance(outcome, BaseException):  # it is replaced when it is needed
                log.warning("a decoding process did not start in time: %s", outcome)

    def close(self) -> None:
        while self._free:
            self._free.pop().end()

    def _decode_or_explain(self, data: bytes) -> Image:
        """`models.decode` with its errors as problems that say what to do."""
        if not data:
            raise InspectionError(422, "empty-image", f"the image has no bytes; {_FORMATS}")
        try:
            if not self._processes:
                return decoding.decode(data, max_pixels=self._max_pixels)
            sniff(data)  # what is no image at all needs no process
            return self._in_process(data)
        except UnsupportedFormat as error:
            raise InspectionError(415, "unsupported-format", f"{error}; {_FORMATS}") from None
        except TooManyPixels:
            detail = (
                f"the {sniff(data)} image has more than the {self._max_pixels} pixels allowed; "
                "crop or shrink it, or raise INLIER_MAX_PIXELS"
            )
            raise InspectionError(413, "too-many-pixels", detail) from None
        except MemoryError:
            detail = (
                f"decoding the {sniff(data)} image takes more memory than {self._max_pixels} pixels should"
            )
            raise InspectionError(413, "too-much-memory", detail) from None
        except DecoderDied as error:
            detail = f"the {sniff(data)} image could not be decoded: {error}; {_FORMATS}"
            raise InspectionError(422, "damaged-image", detail) from None
        except DecodeError as error:
            code = "image-too-small" if isinstance(error, TooSmall) else "damaged-image"
            raise InspectionError(422, code, f"{error}; {_FORMATS}") from None

    def _in_process(self, data: bytes) -> Image:
        with suppress(IndexError):
            process = self._free.pop()
            if process.alive:
                return self._ask(process, data)
            process.end()
        return self._start_and_ask(data)

    def _start_and_ask(self, data: bytes) -> Image:
        memory = _BASE_BYTES + len(data) + _BYTES_PER_PIXEL * self._max_pixels
        return self._ask(_Process(self._max_pixels, memory), data)

    def _ask(self, process: "_Process", data: bytes) -> Image:
        try:
            head, body = process.ask(data, self._timeout_s)
        except (OSError, DecoderDied) as error:
            process.end()
            log.warning("a decoding process was replaced: %s", error)
            raise DecoderDied(str(error)) from None
        if head.get("last"):
            process.end()
        else:
            self._free.append(process)
        if "error" in head:
            if head["error"] == OUT_OF_MEMORY:
                raise MemoryError(head["detail"])
            raise _ERRORS.get(head["error"], DecodeError)(head["detail"])
        pixels = np.frombuffer(body, dtype=head["dtype"]).reshape(head["shape"])
        return Image(pixels, head["media_type"])


def _checked(text: bytes | bytearray, max_pixels: int) -> dict[str, Any]:
    """The head of an answer; a decoder that was taken over may say anything. DecoderDied if it does."""
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        head: dict[str, Any] = json.loads(text)
        if {"error", "detail"} <= head.keys() and isinstance(head["error"], str):
            return {**head, "detail": str(head["detail"])}
        height, width, channels = shape = head["shape"]
        known = all(type(side) is int and side > 0 for side in shape) and channels in (1, 3)
        if known and height * width <= max_pixels and head["dtype"] in ("uint8", "uint16"):
            return {**head, "media_type": str(head["media_type"])[:64]}
    raise DecoderDied("its decoder answered with something else")


class _Process:
    """One decoding process and the pipes to it."""

    def __init__(self, max_pixels: int, memory_bytes: int) -> None:
        command = [sys.executable, "-m", "service.decode_worker", str(max_pixels), str(memory_bytes)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the service, which then ends this, too
            env=decoder_environment(max_pixels),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._into, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._max_pixels = max_pixels
        for end in (self._into, self._out):
            os.set_blocking(end, False)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, data: bytes, timeout_s: float) -> tuple[dict[str, Any], bytearray]:
        """Send an image and return head and pixels of the answer; DecoderDied or OSError when none comes."""
        deadline = time.monotonic() + timeout_s
        for part in (LENGTH.pack(len(data)), data):
            self._write(part, deadline)
        (length,) = HEAD.unpack(self._read(HEAD.size, deadline))
        if length > _HEAD_BYTES:
            raise DecoderDied("its decoder answered with something else")
        head = _checked(self._read(length, deadline), self._max_pixels)
        if "error" in head:
            return head, bytearray()
        size = math.prod(head["shape"]) * np.dtype(head["dtype"]).itemsize
        return head, self._read(size, deadline)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _write(self, data: bytes, deadline: float) -> None:
        left = memoryview(data)
        while left:
            self._await(self._into, select.POLLOUT, deadline)
            left = left[os.write(self._into, left[: 1 << 16]) :]

    def _read(self, size: int, deadline: float) -> bytearray:
        found, filled = bytearray(size), 0
        view = memoryview(found)
        while filled < size:
            self._await(self._out, select.POLLIN, deadline)
            count = os.readv(self._out, [view[filled:]])
            if count == 0:
                raise DecoderDied("its decoder ended without an answer")
            filled += count
        return found

    def _await(self, pipe: int, event: int, deadline: float) -> None:
        ready = select.poll()  # select() knows no descriptor above 1023
        ready.register(pipe, event)
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not ready.poll(1000 * left_s):
            raise DecoderDied("it took longer than allowed")
