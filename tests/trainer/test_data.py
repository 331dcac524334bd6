from pathlib import Path

import cv2
import numpy as np
import pytest

from trainer.data import BatchOrder, DataError, Mix, choose_files, find_images, load_training_set


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A mixed tree: every format, gray and colour, 8 and 16 bit, sizes, and files that are no images."""
    rng = np.random.default_rng(0)
    (tmp_path / "lot 1" / "a").mkdir(parents=True)
    (tmp_path / ".thumbnails").mkdir()
    colour = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    for name in ("one.png", "two.JPG", "lot 1/three.bmp", "lot 1/a/four.tiff", "five.webp"):
        assert cv2.imwrite(str(tmp_path / name), colour)
    assert cv2.imwrite(str(tmp_path / "six.png"), rng.integers(0, 65536, (20, 30), dtype=np.uint16))
    (tmp_path / "broken.png").write_bytes((tmp_path / "one.png").read_bytes()[:60])
    (tmp_path / "liar.jpg").write_text("not an image")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / ".thumbnails" / "one.png").write_bytes((tmp_path / "one.png").read_bytes())
    return tmp_path


def test_all_formats_are_read_and_the_broken_listed(tree: Path, tmp_path: Path) -> None:
    files = find_images(tree)
    data = load_training_set(files, [False] * len(files), (32, 48), "auto", tmp_path / "cache.npy")
    assert sorted(path.name for path, _ in data.skipped) == ["broken.png", "liar.jpg"]
    assert data.pixels.shape == (6, 3, 32, 48)
    assert "Thumbs.db" not in {path.name for path in data.paths}
    assert all(reason for _, reason in data.skipped)


def test_gray_is_detected_even_in_colour_files(tmp_path: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), gray)
    cv2.imwrite(str(tmp_path / "b.png"), np.dstack([gray] * 3))
    files = find_images(tmp_path)
    data = load_training_set(files, [False] * 2, (32, 32), "auto", tmp_path / "cache.npy")
    assert data.pixels.shape[1] == 1
    np.testing.assert_array_equal(data.pixels[0], data.pixels[1])


def test_only_no_readable_image_at_all_is_fatal(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    with pytest.raises(DataError, match=r"none of the 1 images could be read \(a\.png: "):
        load_training_set(find_images(tmp_path), [False], (32, 32), "auto", tmp_path / "cache.npy")
    with pytest.raises(DataError, match="not a folder"):
        find_images(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in"):
        find_images(tmp_path / "empty")


def fake_pool(folder: Path, count: int) -> Path:
    folder.mkdir()
    for index in range(count):
        (folder / f"{index:03}.png").touch()
    return folder


@pytest.mark.parametrize(("fraction", "added"), [(0.0, 0), (0.2, 20), (0.5, 80)])
def test_mix_makes_the_asked_share_of_the_whole(tmp_path: Path, fraction: float, added: int) -> None:
    good, bad = fake_pool(tmp_path / "good", 80), fake_pool(tmp_path / "bad", 100)
    files, mixed = choose_files(good, Mix(bad, fraction, seed=3))
    assert (len(files), sum(mixed)) == (80 + added, added)
    assert {path.parent.name for path, is_mixed in zip(files, mixed, strict=True) if is_mixed} <= {"bad"}
    assert choose_files(good, Mix(bad, fraction, seed=3))[0] == files


def test_mix_inside_the_data_or_too_small_is_refused(tmp_path: Path) -> None:
    good = fake_pool(tmp_path / "good", 8)
    inside = fake_pool(good / "bad", 8)
    with pytest.raises(DataError, match="share images"):
        choose_files(good, Mix(inside, 0.2, seed=0))
    outside = fake_pool(tmp_path / "bad", 8)
    with pytest.raises(DataError, match="less than one"):
        choose_files(outside, Mix(inside, 0.01, seed=0))


def test_test_images_are_not_trained_on_by_mistake(tmp_path: Path) -> None:
    for name in ("train", "test", "ground_truth"):
        fake_pool(tmp_path / name, 1)
    with pytest.raises(DataError, match=r"train on .*train"):
        choose_files(tmp_path, None)


def test_mix_seed_chooses_other_defects(tmp_path: Path) -> None:
    good, bad = fake_pool(tmp_path / "good", 80), fake_pool(tmp_path / "bad", 100)
    first, second = (choose_files(good, Mix(bad, 0.2, seed))[0] for seed in (0, 1))
    assert first != second


def test_small_pool_uses_fewer_good_images_instead(tmp_path: Path) -> None:
    good, bad = fake_pool(tmp_path / "good", 523), fake_pool(tmp_path / "bad", 154)
    files, mixed = choose_files(good, Mix(bad, 0.4, seed=0))
    assert sum(mixed) == 154
    assert len(files) - sum(mixed) == 231


def test_snapshot_depends_on_content_not_on_names(tmp_path: Path, parts_folder: Path) -> None:
    one, two = sorted(parts_folder.iterdir())[:2]
    hashes = [
        load_training_set(files, [False] * 2, (32, 32), 1, tmp_path / "cache.npy").snapshot
        for files in ([one, two], [two, one], [one, one])
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_batches_cover_every_image_once_per_epoch_from_any_step() -> None:
    order = BatchOrder(images=10, batch_size=4, seed=1)
    seen = np.concatenate([order.batch(step) for step in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert not np.array_equal(seen[:10], seen[10:])
    np.testing.assert_array_equal(BatchOrder(10, 4, 1).batch(3), seen[12:16])
