"""No damage that can be seen passes as a picture; inks come out as the colours they are."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

from service.decode import Decoder, DecoderDied, _checked
from service.errors import InspectionError
from tests.service.input.files import DAMAGED, WHOLE, cmyk, encoded, without_adobe_marker

JPEG_98 = encoded(cmyk(), "JPEG", quality=98)
INKS = {
    "jpeg": JPEG_98,
    "jpeg without a marker": without_adobe_marker(JPEG_98),
    "tiff": encoded(cmyk(), "TIFF"),
    "tiff lzw": encoded(cmyk(), "TIFF", compression="tiff_lzw"),
}


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    made = Decoder(10**6, processes=1)
    yield made
    made.close()


def swallowed(decoder: Decoder) -> list[str]:
    """Damaged files that came back as pictures; each refusal says why."""
    found, refused = [], set()
    for name, data in DAMAGED.items():
        try:
            asyncio.run(decoder.decode(data))
            found.append(name)
        except InspectionError as error:
            refused.add((error.status, error.code, len(error.detail) > 30))
    assert refused == {(422, "damaged-image", True)}
    return found


@pytest.mark.promise(18)
def test_damage_that_can_be_seen_is_refused(decoder: Decoder) -> None:
    for name, data in WHOLE.items():
        assert asyncio.run(decoder.decode(data)).size == (48, 64), name
    assert swallowed(decoder) == []
    (process,) = decoder._free
    assert process.alive


@pytest.mark.promise(18, control=True)
def test_a_decoder_that_swallows_damage_would_be_found() -> None:
    """OpenCV by itself, within this process, returns what it could read."""
    found = swallowed(Decoder(10**6, processes=0))
    assert {name.partition(",")[0] for name in found} == {"tiff lzw", "tiff gray lzw", "jpeg cmyk"}


@pytest.mark.promise(18)
@pytest.mark.parametrize("name", INKS)
def test_inks_are_the_colours_they_are(decoder: Decoder, name: str) -> None:
    expected = np.asarray(cmyk().convert("RGB")).astype(int)  # Pillow: (255 - ink) * (255 - black) / 255
    pixels = asyncio.run(decoder.decode(INKS[name])).pixels
    assert pixels.shape == (48, 64, 3)
    assert np.abs(pixels - expected).mean() < 1.5


NONSENSE = [
    b"",
    b"\xff\xfe",
    b"[1]",
    b"7",
    b'{"error": 7, "detail": ""}',
    b'{"shape": [48, 64], "dtype": "uint8", "media_type": "image/png"}',
    b'{"shape": [4000000, 4000000, 3], "dtype": "uint8", "media_type": "image/png"}',
    b'{"shape": [-1, -64, 3], "dtype": "uint8", "media_type": "image/png"}',
    b'{"shape": [48, 64, 3], "dtype": "object", "media_type": "image/png"}',
    b'{"shape": [48, 64, 3], "dtype": "uint8"}',
]


@pytest.mark.parametrize("answer", NONSENSE)
def test_a_decoder_that_was_taken_over_is_not_believed(answer: bytes) -> None:
    with pytest.raises(DecoderDied, match="something else"):
        _checked(answer, 10**6)
    good = b'{"shape": [48, 64, 3], "dtype": "uint8", "media_type": "image/png"}'
    assert _checked(good, 10**6)["shape"] == [48, 64, 3]
