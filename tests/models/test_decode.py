import struct

import cv2
import numpy as np
import pytest

from models.decode import DecodeError, TooManyPixels, TooSmall, UnsupportedFormat, decode, sniff
from models.preprocess import Preprocess, preprocess, to_float, to_pixels, to_uint8

RGB = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)


def encode(pixels: np.ndarray, suffix: str = ".png", *options: int) -> bytes:
    """Encode RGB, RGBA or gray pixels as a camera would."""
    if pixels.ndim == 3:
        order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}[pixels.shape[2]]
        pixels = cv2.cvtColor(pixels, order)
    ok, data = cv2.imencode(suffix, pixels, list(options))
    assert ok
    return data.tobytes()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
def test_lossless_formats_come_back_as_rgb(suffix: str) -> None:
    image = decode(encode(RGB, suffix))
    assert image.media_type == f"image/{suffix[1:]}"
    np.testing.assert_array_equal(image.pixels, RGB)


@pytest.mark.parametrize(("suffix", "media"), [(".jpg", "image/jpeg"), (".webp", "image/webp")])
def test_lossy_formats_keep_their_colours_in_place(suffix: str, media: str) -> None:
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 200
    image = decode(encode(red, suffix))
    assert image.media_type == media
    assert np.abs(image.pixels.astype(int) - red).max() < 12


@pytest.mark.promise(18)
def test_gray_and_sixteen_bits() -> None:
    gray = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 60
    image = decode(encode(gray))
    assert image.pixels.dtype == np.uint16
    np.testing.assert_array_equal(image.pixels[:, :, 0], gray)
    assert decode(encode(RGB[:, :, 0])).pixels.shape == (24, 40, 1)


@pytest.mark.promise(18)
def test_alpha_is_dropped() -> None:
    rgba = np.dstack([RGB, np.full(RGB.shape[:2], 7, np.uint8)])
    np.testing.assert_array_equal(decode(encode(rgba)).pixels, RGB)


@pytest.mark.promise(18)
def test_exif_orientation_is_honoured() -> None:
    """Orientation 6: the camera was turned, the viewer must rotate by 90 degrees clockwise."""
    jpeg = encode(RGB, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 100)
    ifd = struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + ifd
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    assert decode(jpeg).size == (24, 40)
    assert decode(turned).size == (40, 24)


@pytest.mark.parametrize("data", [b"", b"GIF89a" + bytes(40), b"<svg/>", b"%PDF-1.7", bytes(64)])
def test_other_content_is_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="PNG, JPEG, BMP, TIFF or WebP"):
        sniff(data)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp"])
def test_headers_without_an_image_are_damaged(suffix: str) -> None:
    with pytest.raises(DecodeError):
        decode(encode(RGB, suffix)[:20])


@pytest.mark.promise(18)
def test_sizes_out_of_bounds() -> None:
    with pytest.raises(TooSmall, match="too small"):
        decode(encode(RGB[:1, :1]))
    with pytest.raises(TooManyPixels, match="more than the 500 px"):
        decode(encode(RGB), max_pixels=500)


def test_float_tiff_is_refused() -> None:
    ok, data = cv2.imencode(".tiff", np.ones((16, 16), np.float32))
    assert ok
    with pytest.raises(DecodeError, match="float32"):
        decode(data.tobytes())


SPEC = Preprocess(height=16, width=16, channels=1)


def test_preprocess_is_the_same_from_every_lossless_container() -> None:
    """Byte-equal whichever way the pixels arrive: one path for training and serving."""
    results = {to_uint8(decode(encode(RGB, s)), SPEC).tobytes() for s in (".png", ".bmp", ".tiff")}
    assert len(results) == 1


def test_sixteen_bit_scales_to_eight() -> None:
    gray8 = RGB[:16, :16, 0]
    wide = decode(encode(gray8.astype(np.uint16) << 8))
    np.testing.assert_array_equal(to_uint8(wide, SPEC)[0], gray8)


@pytest.mark.parametrize(("height", "width"), [(64, 4096), (4096, 64)])
def test_a_thin_line_survives_when_one_axis_shrinks_and_the_other_grows(height: int, width: int) -> None:
    pixels = np.zeros((height, width), np.uint8)
    if width > height:
        pixels[:, 2001:2004] = 255
    else:
        pixels[2001:2004] = 255
    small = to_uint8(decode(encode(pixels)), Preprocess(height=128, width=128, channels=1))
    assert small.max() == pytest.approx(255 * 3 / 32, abs=2)  # 3 of 32 pixels, averaged


def test_channels_are_matched() -> None:
    colour = Preprocess(height=24, width=40, channels=3)
    gray = decode(encode(RGB[:, :, 0]))
    assert (to_uint8(gray, colour) == RGB[:, :, 0]).all()
    np.testing.assert_array_equal(to_uint8(decode(encode(RGB)), colour), RGB.transpose(2, 0, 1))


def test_values_span_minus_one_to_one_and_return() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    values = to_float(every)
    assert values.dtype == np.float32
    assert (values.min(), values.max()) == (-1.0, 1.0)
    np.testing.assert_array_equal(to_pixels(values).transpose(2, 0, 1), every)
    assert preprocess(decode(encode(RGB)), SPEC).shape == (1, 16, 16)
