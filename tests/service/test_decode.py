"""Decoding in processes that may die: every end of one is an answer, and the next image gets another."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from models.decode import Image
from service import decode
from service.decode import Decoder
from service.errors import InspectionError
from tests.service.conftest import png, texture

GOOD = png(texture(0))


@pytest.fixture
def new_decoder() -> Iterator[Callable[..., Decoder]]:
    made: list[Decoder] = []

    def make(max_pixels: int = 10**6, **options: float) -> Decoder:
        made.append(Decoder(max_pixels, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for decoder in made:
        decoder.close()


def run(decoder: Decoder, data: bytes = GOOD) -> Image:
    return asyncio.run(decoder.decode(data))


def problem(decoder: Decoder, data: bytes) -> tuple[int, str]:
    with pytest.raises(InspectionError) as caught:
        run(decoder, data)
    return caught.value.status, caught.value.code


def only(decoder: Decoder) -> int:
    """The process id of the one decoding process."""
    (process,) = decoder._free
    return process._process.pid


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_process_decodes_what_a_thread_does(new_decoder: Callable[..., Decoder], depth: type) -> None:
    data = png((texture(3, (40, 56)).astype(depth) * (1 if depth is np.uint8 else 257)).astype(depth))
    apart, here = run(new_decoder(processes=1), data), run(new_decoder(processes=0), data)
    assert apart.media_type == here.media_type
    assert apart.pixels.dtype == depth
    np.testing.assert_array_equal(apart.pixels, here.pixels)


def test_a_process_serves_many_images(new_decoder: Callable[..., Decoder]) -> None:
    decoder = new_decoder(processes=1)
    run(decoder)
    first = only(decoder)
    assert problem(decoder, GOOD[:100]) == (422, "damaged-image")  # a damaged file is no reason to die
    assert problem(decoder, png(texture(0, (4, 40)))) == (422, "image-too-small")
    run(decoder)
    assert only(decoder) == first


@pytest.mark.promise(15)
def test_after_a_warm_up_no_image_waits_for_a_process(new_decoder: Callable[..., Decoder]) -> None:
    decoder = new_decoder(processes=2)
    asyncio.run(decoder.warm_up())
    started = {process._process.pid for process in decoder._free}
    assert len(started) == 2
    assert run(decoder).media_type == "image/png"
    assert {process._process.pid for process in decoder._free} == started


def test_images_are_decoded_side_by_side_but_not_more_than_allowed(
    new_decoder: Callable[..., Decoder],
) -> None:
    async def main() -> None:
        await asyncio.gather(*(decoder.decode(GOOD) for _ in range(8)))

    decoder = new_decoder(processes=2)
    asyncio.run(main())
    assert len(decoder._free) == 2


def test_a_process_that_died_idle_is_replaced_unnoticed(new_decoder: Callable[..., Decoder]) -> None:
    decoder = new_decoder(processes=1)
    run(decoder)
    os.kill(only(decoder), signal.SIGKILL)
    time.sleep(0.1)
    assert run(decoder).media_type == "image/png"


@pytest.mark.promise(18)
def test_one_that_hangs_is_given_up_after_its_time(new_decoder: Callable[..., Decoder]) -> None:
    decoder = new_decoder(processes=1, timeout_s=5.0)
    run(decoder)
    stuck, decoder._timeout_s = only(decoder), 0.3
    os.kill(stuck, signal.SIGSTOP)
    assert problem(decoder, GOOD) == (422, "damaged-image")
    assert not Path(f"/proc/{stuck}").exists()
    decoder._timeout_s = 5.0
    assert run(decoder).media_type == "image/png"


@pytest.mark.promise(18)
def test_one_that_crashes_takes_nobody_along(
    new_decoder: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = new_decoder(processes=1)
    run(decoder)
    (process,) = decoder._free
    sent = process._write

    def write_and_kill(data: bytes, deadline: float) -> None:
        sent(data, deadline)
        os.kill(process._process.pid, signal.SIGSEGV)

    monkeypatch.setattr(process, "_write", write_and_kill)
    assert problem(decoder, GOOD) == (422, "damaged-image")
    assert run(decoder).media_type == "image/png"


LIMITED = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory limits need Linux")


def takes_too_much_memory(decoder: Decoder) -> None:
    """36 MB of pixels are refused by a decoder that may grow by 20 MB."""
    large = png(np.zeros((6000, 6000), dtype=np.uint8))
    assert problem(decoder, large) == (413, "too-much-memory")
    assert run(decoder).media_type == "image/png"


@pytest.mark.promise(18)
@LIMITED
def test_an_image_that_takes_too_much_memory_is_refused(
    new_decoder: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "_BASE_BYTES", 20 * 1024**2)
    monkeypatch.setattr(decode, "_BYTES_PER_PIXEL", 0)
    takes_too_much_memory(new_decoder(max_pixels=64 * 10**6, processes=1))


@pytest.mark.promise(18, control=True)
@LIMITED
@pytest.mark.parametrize("processes", [0, 1])
def test_a_decoder_without_a_memory_limit_would_be_found(
    new_decoder: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr(decode, "_BASE_BYTES", 1 << 50)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        takes_too_much_memory(new_decoder(max_pixels=64 * 10**6, processes=processes))


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_a_decoder_is_told_no_secrets(
    new_decoder: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INLIER_DATABASE_URL", "postgresql://user:pa55word@host/db")
    decoder = new_decoder(processes=1)
    run(decoder)
    told = Path(f"/proc/{only(decoder)}/environ").read_bytes()
    assert b"pa55word" not in told
    assert b"INLIER_MAX_PIXELS=1000000" in told


def test_no_process_outlives_the_service(new_decoder: Callable[..., Decoder]) -> None:
    decoder = new_decoder(processes=1)
    run(decoder)
    left = only(decoder)
    decoder.close()
    with pytest.raises(ProcessLookupError):
        os.kill(left, 0)
