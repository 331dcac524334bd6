"""Maps as browsers read them: packing loses nothing, and outlines stand where the map crosses the value."""

import re

import cv2
import numpy as np

from service import render


def test_packed_counts_are_the_stored_ones() -> None:
    amap = np.random.default_rng(0).gamma(2, 2, (20, 30)).astype(np.float32)
    png, scale = render.encode_map(amap)
    bgr = cv2.imdecode(np.frombuffer(render.packed(png), np.uint8), cv2.IMREAD_UNCHANGED).astype(np.uint32)
    values = (256 * bgr[:, :, 2] + bgr[:, :, 1]) * scale
    assert np.abs(values - amap).max() <= scale


def test_an_outline_encloses_what_is_above_the_value_in_pixels_of_the_image() -> None:
    amap = np.zeros((32, 32), dtype=np.float32)
    amap[8:16, 4:12] = 10
    path = render.outlines(amap, 5.0, (320, 640))
    points = np.array(re.findall(r"([\d.]+) ([\d.]+)", path), dtype=float)
    # 10 pixels of the image a row of the map, 20 a column; the border itself is blurred over one of them
    np.testing.assert_allclose(points.min(axis=0), (80, 80), atol=10)
    np.testing.assert_allclose(points.max(axis=0), (240, 160), atol=10)
    assert render.outlines(amap, 11.0, (320, 640)) == ""


def test_an_overlay_is_clear_where_nothing_is_and_opaque_where_much_is() -> None:
    amap = np.array([[0.0, 1.0, 4.0, 9.0]], dtype=np.float32)
    alpha = cv2.imdecode(np.frombuffer(render.overlay(amap, 4.0), np.uint8), cv2.IMREAD_UNCHANGED)[0, :, 3]
    assert alpha.tolist() == [0, 128, 255, 255]
