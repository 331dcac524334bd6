"""Who is inspected when: images of a labelled folder dealt to a first training and to the days of a month.

No photograph of a tile is in two of these places: the first training, week 1, week 2 and so on. So no model
inspects a tile it has learned from, except in the week that it was met in. Within a week images come back; on
one day none does.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

GOOD = "good"
FIRST = 0
"""The place of the first training; the others are weeks, from 1."""
WEEK = 7
Places = dict[int, Counter[str]]


@dataclass(frozen=True)
class Terms:
    """What happens in the month; settled before it is played."""

    days: int = 28
    good_a_day: int = 20
    defective_a_day: int = 6
    training_good: int = 160
    training_defective: int = 40
    drift_from: int = 12
    drift_a_day: float = 0.025  # of the first brightness
    new_type: str = "blowhole"  # not one of them is seen before that day
    new_from: int = 18
    new_a_day: int = 3  # of the defective ones
    wrong_answers: float = 0.05
    audit_rate: float = 0.1
    retrain_after: tuple[int, ...] = (7, 14, 21)
    retrain_images: int = 400  # drawn from all that came, confirmed defects left out
    bad_candidate_after: int = 10
    rollback_on: int = 24
    activate_again_on: int = 25
    policy_inspections: int = 24
    policy_agreement: float = 0.6
    alike: float | None = 0.5  # correlation from which two images show one tile; None: each shows its own
    options: str = "--device cpu"  # further words for `inlier-trainer retrain`
    gate_options: str = ""
    seed: int = 0

    @property
    def weeks(self) -> int:
        return ceil(self.days / WEEK)

    def gain(self, day: int) -> float:
        """Brightness of a day, relative to the first."""
        return 1 - self.drift_a_day * max(0, day - self.drift_from + 1)

    def new(self, day: int) -> int:
        return self.new_a_day if day >= self.new_from else 0


@dataclass(frozen=True)
class Image:
    path: Path
    kind: str  # good, or the type of its defect
    tile: int
    unseen: bool  # of the test split: not for the first training


@dataclass(frozen=True)
class Post:
    """One part that passes the camera; its serial tells nothing about it."""

    serial: str
    day: int
    image: Image
    gain: float

    def body(self) -> tuple[bytes, str]:
        """The picture as the line's light makes it, and its media type."""
        if self.gain == 1:
            return (
                self.image.path.read_bytes(),
                "image/png" if self.image.path.suffix == ".png" else "image/jpeg",
            )
        pixels = cv2.imread(str(self.image.path), cv2.IMREAD_UNCHANGED)
        return cv2.imencode(".png", np.rint(pixels * self.gain).astype(np.uint8))[1].tobytes(), "image/png"


@dataclass(frozen=True)
class Month:
    training: list[Image]
    posts: dict[int, list[Post]]  # by day
    places: dict[int, Counter[str]] = field(default_factory=dict)  # images of each kind that a place has


def read_images(data: Path, alike: float | None) -> list[Image]:
    """All labelled images of a folder with `train/good`, `contamination/<type>` and `test/<type>`."""
    found = [
        (path, GOOD if folder == "train/good" else path.parent.name, folder == "test/*")
        for folder in ("train/good", "contamination/*", "test/*")
        for path in sorted(data.glob(f"{folder}/*"))
        if path.is_file() and not path.name.startswith(".")
    ]
    if not found:
        raise FileNotFoundError(f"no images in {data}/train/good, {data}/contamination and {data}/test")
    paths = [path for path, _, _ in found]
    tiles = range(len(paths)) if alike is None else same_tile(np.stack([detail(p) for p in paths]), alike)
    return [Image(*one, int(tile), test) for (*one, test), tile in zip(found, tiles, strict=True)]


def detail(path: Path, side_px: int = 96) -> NDArray[np.float32]:
    """Fine structure of an image, of unit length: what exposures of one tile have in common."""
    gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32)
    gray = cv2.resize(gray, (side_px, side_px), interpolation=cv2.INTER_AREA)
    fine = gray - cv2.GaussianBlur(gray, (0, 0), 6)
    fine = np.clip(fine / (fine.std() + 1e-6), -3, 3)
    fine -= fine.mean()
    return np.asarray(fine.ravel() / (np.linalg.norm(fine) + 1e-6), dtype=np.float32)


def same_tile(details: NDArray[np.float32], alike: float) -> NDArray[np.int64]:
    """Numbers of tiles: images whose details correlate by more than `alike` on average (average linkage)."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    apart = np.clip(1 - details @ details.T, 0, 2)
    np.fill_diagonal(apart, 0)
    joined = linkage(squareform(apart, checks=False), "average")
    return np.asarray(fcluster(joined, 1 - alike, "distance"), dtype=np.int64)


def plan(images: Sequence[Image], terms: Terms) -> Month:
    """Deal the images out and draw every day's traffic; the same seed gives the same month."""
    rng = np.random.default_rng(terms.seed)
    places = deal(images, terms, rng)
    training = _first(places[FIRST], terms)
    posts: dict[int, list[Post]] = {}
    for week in range(1, terms.weeks + 1):
        supplies = {kind: _endless(of, rng) for kind, of in _by_sort(places[week], terms).items()}
        for day in range((week - 1) * WEEK + 1, min(week * WEEK, terms.days) + 1):
            posts[day] = _day(day, supplies, terms, rng)
    counted = {place: Counter(image.kind for image in of) for place, of in places.items()}
    counted[FIRST] = Counter(image.kind for image in training)
    return Month(training, posts, counted)


def deal(images: Sequence[Image], terms: Terms, rng: np.random.Generator) -> dict[int, list[Image]]:
    """Whole tiles to places, each to the one where most of its images are still needed."""
    tiles: dict[int, list[Image]] = {}
    for image in images:
        tiles.setdefault(image.tile, []).append(image)
    wanted = _wanted(images, terms)
    places: dict[int, list[Image]] = {place: [] for place in wanted}
    missing = {place: Counter(want) for place, want in wanted.items()}
    order = rng.permutation(sorted(tiles))
    for tile in order:
        has = Counter(_sort(image, terms) for image in tiles[tile])
        unfit = {FIRST} if has["new"] or any(image.unseen for image in tiles[tile]) else set()
        place = max(
            (place for place in places if place not in unfit),
            key=lambda place: _use(has, place, missing, wanted),
        )
        places[place] += tiles[tile]
        missing[place] -= has
    return places


def _use(has: Counter[str], place: int, missing: Places, wanted: Places) -> float:
    """How much of what a place still needs a tile brings; the first training may have fewer tiles, so it is
    served first."""
    brings = sum(min(n, missing[place][sort]) / max(1, wanted[place][sort]) for sort, n in has.items())
    return brings * (2 if place == FIRST else 1)


def _wanted(images: Sequence[Image], terms: Terms) -> dict[int, Counter[str]]:
    """How many images of each sort a place is to have: what the first training leaves goes to the days."""
    there = Counter(_sort(image, terms) for image in images)
    first = Counter(good=terms.training_good, old=terms.training_defective)
    wanted = {FIRST: first}
    days = range(1, terms.days + 1)
    use = {
        sort: {day: n for day in days if (n := _quota(day, terms)[sort])} for sort in ("good", "old", "new")
    }
    for week in range(1, terms.weeks + 1):
        wanted[week] = Counter()
        for sort, quotas in use.items():
            mine = sum(n for day, n in quotas.items() if ceil(day / WEEK) == week)
            share = mine / max(1, sum(quotas.values()))
            wanted[week][sort] = round(share * max(0, there[sort] - first[sort]))
    return wanted


def _quota(day: int, terms: Terms) -> dict[str, int]:
    new = terms.new(day)
    return {"good": terms.good_a_day, "old": terms.defective_a_day - new, "new": new}


def _sort(image: Image, terms: Terms) -> str:
    return GOOD if image.kind == GOOD else "new" if image.kind == terms.new_type else "old"


def _by_sort(images: Sequence[Image], terms: Terms) -> dict[str, list[Image]]:
    return {sort: [i for i in images if _sort(i, terms) == sort] for sort in (GOOD, "old", "new")}


def _first(images: Sequence[Image], terms: Terms) -> list[Image]:
    sorts = _by_sort(images, terms)
    return [*sorts[GOOD][: terms.training_good], *sorts["old"][: terms.training_defective]]


def _endless(images: list[Image], rng: np.random.Generator) -> Iterator[Image]:
    """In one random order, over and over: fewer than all in a row are all different.

    Images of a tile follow one another, as they would on a line: what a day shows, another hardly does.
    """
    tiles = sorted({image.tile for image in images})
    turn = dict(zip(tiles, rng.permutation(len(tiles)), strict=True))
    order = sorted(rng.permutation(len(images)), key=lambda row: turn[images[row].tile])
    while len(images):
        for row in order:
            yield images[row]


def _day(
    day: int, supplies: dict[str, Iterator[Image]], terms: Terms, rng: np.random.Generator
) -> list[Post]:
    drawn: list[Image] = []
    for sort, count in _quota(day, terms).items():
        some = [image for _, image in zip(range(count), supplies[sort], strict=False)]
        if len({image.path for image in some}) < count:
            raise ValueError(
                f"day {day} needs {count} different images ({sort}), which its week does not have"
            )
        drawn += some
    gain = terms.gain(day)
    mixed = [drawn[row] for row in rng.permutation(len(drawn))]
    return [Post(f"d{day:02d}-{number:03d}", day, image, gain) for number, image in enumerate(mixed)]
