"""Which images of a recipe a training may see, and which it is examined on.

Images are told apart by the sha256 of their bytes, and what a person said of one holds for every inspection
of it. A share of the confirmed good ones is drawn by a hash of the image, so one that was ever held out stays
held out, whichever export is made. Memory grows with what people reviewed and with the limit, not with what
arrived.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntFlag

from sqlalchemy.orm import Session

from models.snapshot import Use
from service.db.repository import training
from service.db.repository.training import Entry
from service.db.tables import ReviewRow

HELD_OUT = 0.5
"""Share of the confirmed good images that no training sees: it has good ones without review, an exam not."""
GOLDEN = 500
"""Most good and most defective images of the golden set."""


class Label(IntFlag):
    """What people said of an image; both when they disagree."""

    GOOD = 1
    DEFECTIVE = 2


@dataclass
class Chosen:
    """An image, the inspection that stands for it, and how many inspections of it there were."""

    use: Use
    entry: Entry
    label: str  # good, defective, or nothing
    inspections: int = 1
    review: ReviewRow | None = None

    def again(self, entry: Entry) -> None:
        self.inspections += 1
        if self.label and self.entry.review_state != self.label and entry.review_state == self.label:
            self.entry = entry  # the one that was reviewed says more


@dataclass
class Selection:
    """All images of an export, and what became of the span's inspections."""

    images: list[Chosen]
    inspections: Counter[str] = field(default_factory=Counter)
    conflicting: int = 0
    """Images that one person called good and another defective, ever."""
    golden_beyond: int = 0
    """Inspections of confirmed images that the golden set had no room for."""


class Lowest:
    """The images of lowest rank, at most so many; the rank is a hash of the image, labelled ones first."""

    def __init__(self, use: Use, most: int | None) -> None:
        self.use, self._most = use, most
        self.kept: dict[str, Chosen] = {}
        self.beyond = 0  # inspections of images that are not kept
        self._heap: list[tuple[int, str]] = []

    def offer(self, entry: Entry, label: str) -> None:
        sha256 = entry.image_sha256
        if sha256 in self.kept:
            self.kept[sha256].again(entry)
            return
        self.kept[sha256] = Chosen(self.use, entry, label)
        if self._most is None:
            return
        heapq.heappush(self._heap, (-_rank(sha256) - (0 if label else 1 << 256), sha256))
        if len(self._heap) > self._most:
            _, highest = heapq.heappop(self._heap)
            self.beyond += self.kept.pop(highest).inspections


def select(session: Session, recipe: str, since: datetime, until: datetime, limit: int) -> Selection:
    """Choose from one moment's state of the database; `limit` bounds what is trained on."""
    labels = _labels(session, recipe)
    escapes, golden_good, golden_bad = _examined(session, recipe, labels)
    train, defects = Lowest("train", limit), Lowest("defects", limit)
    found: Counter[str] = Counter()
    for entry in training.arrived(session, recipe, since, until):
        found["all"] += 1
        label = labels.get(_digest(entry), Label(0))
        if entry.status != "done":
            found[entry.status] += 1
        elif label == Label.GOOD | Label.DEFECTIVE:
            found["conflicting"] += 1
        elif label == Label.DEFECTIVE:
            found["defective"] += 1
            if entry.image_sha256 not in escapes.kept and entry.image_sha256 not in golden_bad.kept:
                defects.offer(entry, "defective")
        elif label == Label.GOOD and held_out(entry.image_sha256):
            found["held_out"] += 1
        else:
            train.offer(entry, "good" if label else "")
    found["beyond_limit"] = train.beyond
    found["train"] = len(train.kept)
    found["same_image"] = sum(chosen.inspections - 1 for chosen in train.kept.values())
    kept = (train, golden_good, golden_bad, escapes, defects)
    images = [chosen for some in kept for chosen in some.kept.values()]
    images.sort(key=lambda chosen: (chosen.entry.id, chosen.entry.image_sha256))
    _attach_reviews(session, images)
    both = Label.GOOD | Label.DEFECTIVE
    conflicting = sum(label == both for label in labels.values())
    return Selection(images, found, conflicting, golden_good.beyond + golden_bad.beyond)


def held_out(sha256: str) -> bool:
    """Whether an image, once confirmed good, is kept from every training."""
    drawn = hashlib.sha256(b"golden " + bytes.fromhex(sha256)).digest()
    return int.from_bytes(drawn[:8], "big") < HELD_OUT * 2**64


def _labels(session: Session, recipe: str) -> dict[bytes, Label]:
    labels: dict[bytes, Label] = {}
    for decision, label in (("good", Label.GOOD), ("defective", Label.DEFECTIVE)):
        for entry in training.reviewed(session, recipe, decision):
            labels[_digest(entry)] = labels.get(_digest(entry), Label(0)) | label
    return labels


def _examined(session: Session, recipe: str, labels: dict[bytes, Label]) -> tuple[Lowest, Lowest, Lowest]:
    """The missed defects, and the golden set's good and defective images; none is in two of them."""

    def agreed(decision: str, label: Label) -> Iterator[Entry]:
        for entry in training.reviewed(session, recipe, decision):
            if entry.status == "done" and labels[_digest(entry)] == label:
                yield entry

    escapes = Lowest("escapes", None)
    good, bad = Lowest("golden/good", GOLDEN), Lowest("golden/defective", GOLDEN)
    for entry in agreed("good", Label.GOOD):
        if held_out(entry.image_sha256):
            good.offer(entry, "good")
    for entry in agreed("defective", Label.DEFECTIVE):
        if entry.verdict == "PASS":
            escapes.offer(entry, "defective")
    for entry in agreed("defective", Label.DEFECTIVE):
        if entry.image_sha256 not in escapes.kept:
            bad.offer(entry, "defective")
    return escapes, good, bad


def _attach_reviews(session: Session, images: list[Chosen]) -> None:
    asked = [chosen.entry.id for chosen in images if chosen.entry.review_state != "none"]
    found = training.standing(session, asked)
    for chosen in images:
        chosen.review = found.get(chosen.entry.id)


def _digest(entry: Entry) -> bytes:
    return bytes.fromhex(entry.image_sha256)


def _rank(sha256: str) -> int:
    return int(sha256, 16)
