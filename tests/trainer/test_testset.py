"""Reading labelled images: the layout, its mistakes, and masks that stay true when they shrink."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.preprocess import Preprocess, to_uint8
from models.samplers import image_seed
from trainer.testset import (
    EvaluationError,
    Sources,
    binary_mask,
    evenly,
    find_entries,
    load_entries,
    metric_size,
    shrink_mask,
)

SPEC = Preprocess(height=32, width=32, channels=1)


@pytest.fixture
def data(labelled_folder: Callable[..., Path]) -> Path:
    return labelled_folder()


def test_layout_is_read_sorted_with_masks_and_seeds(data: Path) -> None:
    entries = find_entries(Sources(data))
    assert [entry.name for entry in entries] == sorted(entry.name for entry in entries)
    images = load_entries(entries, SPEC)
    assert images.kinds == ["crack", "hole"]
    assert len(images.images) == 6 + 4 + 4
    for image in images.images:
        assert image.seed == image_seed(image.path.read_bytes())
        assert image.pixels.shape == (1, 32, 32)
        assert image.mask.any() == image.network_mask.any() == image.defective
    assert find_entries(Sources(data / "test")) == entries


def test_pixels_come_from_the_one_decode_path(data: Path) -> None:
    from models.decode import decode

    image = load_entries(find_entries(Sources(data)), SPEC).images[0]
    np.testing.assert_array_equal(image.pixels, to_uint8(decode(image.path.read_bytes()), SPEC))


def test_a_folder_without_test_says_where_to_look(data: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=f"no test folder.*{data.name}"):
        find_entries(Sources(data.parent))
    with pytest.raises(EvaluationError, match="no test folder"):
        find_entries(Sources(tmp_path / "nowhere"))
    (tmp_path / "empty" / "test").mkdir(parents=True)
    with pytest.raises(EvaluationError, match="no images"):
        find_entries(Sources(tmp_path / "empty"))
    with pytest.raises(EvaluationError, match="no folder"):
        find_entries(Sources(data, defects=tmp_path / "nowhere"))


def test_missing_masks_are_listed(data: Path) -> None:
    (data / "ground_truth" / "hole" / "1_mask.png").unlink()
    (data / "ground_truth" / "crack" / "0_mask.png").unlink()
    with pytest.raises(
        EvaluationError, match=r"2 defective images have no mask.*crack/0\.png, test/hole/1\.png.*no-masks"
    ):
        find_entries(Sources(data))
    images = load_entries(find_entries(Sources(data, use_masks=False)), SPEC)
    assert not images.has_masks
    assert images.unmarked == []


def test_unreadable_images_are_skipped_and_listed(data: Path) -> None:
    (data / "test" / "good" / "0.png").write_bytes(b"not an image")
    (data / "test" / "hole" / "1.png").write_bytes((data / "test" / "hole" / "1.png").read_bytes()[:40])
    images = load_entries(find_entries(Sources(data)), SPEC)
    assert [name for name, _ in images.skipped] == ["test/good/0.png", "test/hole/1.png"]
    assert "not a PNG" in images.skipped[0][1]
    for path in (data / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(EvaluationError, match="none of the 14"):
        load_entries(find_entries(Sources(data)), SPEC)


def test_masks_must_fit_and_be_readable(data: Path) -> None:
    mask = data / "ground_truth" / "hole" / "1_mask.png"
    cv2.imwrite(str(mask), np.zeros((10, 99), np.uint8))
    with pytest.raises(EvaluationError, match=r"test/hole/1\.png is 99 x 10 px but the image is 60 x 44 px"):
        load_entries(find_entries(Sources(data)), SPEC)
    mask.write_bytes(b"?")
    with pytest.raises(EvaluationError, match=r"mask of test/hole/1\.png cannot be read"):
        load_entries(find_entries(Sources(data)), SPEC)


def test_a_mask_with_nothing_marked_is_reported(data: Path) -> None:
    cv2.imwrite(str(data / "ground_truth" / "hole" / "1_mask.png"), np.zeros((44, 60), np.uint8))
    images = load_entries(find_entries(Sources(data)), SPEC)
    assert images.unmarked == ["test/hole/1.png"]
    assert sum(image.defective for image in images.images) == 8  # still a defective part


def test_defects_may_come_from_elsewhere(data: Path, labelled_folder: Callable[..., Path]) -> None:
    other = labelled_folder("other")
    sources = Sources(data, defects=other / "test", masks=other / "ground_truth")
    images = load_entries(find_entries(sources), SPEC)
    assert len(images.images) == 14
    assert all((other in image.path.parents) == image.defective for image in images.images)


def test_limit_is_even_exact_and_blind() -> None:
    assert evenly(10, None) == evenly(10, 10) == evenly(10, 99) == list(range(10))
    assert evenly(335, 100)[:3] == [0, 3, 6]
    assert len(set(evenly(335, 100))) == 100
    with pytest.raises(EvaluationError, match="at least 1"):
        evenly(10, 0)


def test_metric_size_keeps_proportions_and_never_grows() -> None:
    assert metric_size((200, 400), 256) == (128, 256)
    assert metric_size((200, 100), 256) == (200, 100)
    assert metric_size((2000, 4000), 0) == (2000, 4000)
    assert metric_size((10, 4000), 256) == (8, 256)
    with pytest.raises(EvaluationError, match="at least 8"):
        metric_size((200, 100), 4)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 255], [False, True]),
        ([0, 60, 127, 128, 255], [False, False, False, True, True]),  # antialiased edges
        ([0, 1], [False, True]),
        ([0, 1, 2, 3], [False, True, True, True]),  # classes of defects
        ([0, 0], [False, False]),
    ],
)
def test_mask_files_of_every_habit(values: list[int], expected: list[bool]) -> None:
    assert binary_mask(np.array([values], dtype=np.uint8))[0].tolist() == expected
    if max(values) == 255:
        assert binary_mask(np.array([values], dtype=np.uint16) * 257)[0].tolist() == expected


def test_shrinking_keeps_areas_and_loses_no_hairline() -> None:
    mask = np.zeros((600, 400), dtype=bool)
    mask[100:300, 52:152] = True
    mask[400, 20:380] = True  # one pixel thin
    mask[500, 200] = True  # one pixel
    small = shrink_mask(mask, (150, 100))
    assert small[20:80, 10:40].sum() == 50 * 25
    assert small[100, 5:95].all()
    assert small[125, 50]
    assert shrink_mask(mask, (600, 400)) is mask
    assert not shrink_mask(np.zeros((600, 400), dtype=bool), (150, 100)).any()
