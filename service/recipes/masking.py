"""Ignore masks of recipes: versions among the blobs, and the one an inspection is scored with.

Everything here blocks and is called in a thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from models.anomaly import ScoreCalibration
from models.decode import decode
from models.masks import Mask, MaskError, check, from_pixels, to_png
from service.access.principal import Principal
from service.blobs import BlobMissing, BlobStore
from service.db.repository import audit, masks, recipes
from service.db.session import Database
from service.db.tables import MaskRow
from service.errors import InspectionError
from service.recipes.limits import Limits, Place
from service.recipes.maskeffect import Effect, effects, uncovers

_KEPT = 64  # decoded masks; one of 4 megapixels is 4 MB
_ASPECT_TOLERANCE = 0.01
MAX_PIXELS = 16_000_000


@dataclass(frozen=True)
class MaskPreview:
    """A mask against stored inspections."""

    based_on: int  # version in force; 0: none
    share: float
    uncovers: bool  # what is inspected again was hidden in the stored maps, so nothing is known of it
    effects: Sequence[Effect]  # newest first


class Masks:
    """All masks of a database."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database, self._blobs = database, blobs
        self._decoded = lru_cache(maxsize=_KEPT)(self._decode)

    def for_scoring(self, mask_id: str | None) -> Mask | None:
        """What an inspection with this mask is not inspected on; BlobMissing when it is gone."""
        if mask_id is None:
            return None
        with self._database.read() as session:
            row = masks.get(session, mask_id)
        return None if row is None or row.share == 0 else self._decoded(row.sha256)

    def newest(self, recipe: str) -> MaskRow:
        """The version in force, which may be empty; 404 if there never was one."""
        with self._database.read() as session:
            recipes.need(session, recipe)
            row = masks.newest(session, recipe)
        if row is None:
            raise InspectionError(404, "no-mask", f"recipe {recipe} has no mask; all of a part is inspected")
        return row

    def version(self, recipe: str, number: int) -> MaskRow:
        with self._database.read() as session:
            row = masks.version(session, recipe, number)
        if row is None:
            raise InspectionError(404, "unknown-version", f"recipe {recipe} has no mask version {number}")
        return row

    def history(self, recipe: str, limit: int) -> Sequence[MaskRow]:
        with self._database.read() as session:
            recipes.need(session, recipe)
            return masks.history(session, recipe, limit)

    def png(self, row: MaskRow) -> bytes:
        try:
            return self._blobs.get(row.sha256)
        except BlobMissing:
            raise InspectionError(404, "mask-missing", "the mask's image is no longer stored") from None

    def set(
        self,
        who: Principal,
        recipe: str,
        mask: Mask,
        *,
        map_size: tuple[int, int],
        why: str,
        based_on: int | None = None,
    ) -> MaskRow:
        """A new version, in force for what is accepted from now on.

        InspectionError 422 when it leaves nothing to inspect in a map of `map_size` or has another aspect
        than the recipe's images, 409 unless `based_on` (if given) is the version in force; 0 stands for none.
        """
        try:
            check(mask, map_size)
        except MaskError as error:
            raise InspectionError(422, "invalid-mask", str(error)) from None
        with self._database.read() as session:
            recipes.need(session, recipe)
            _check_aspect(mask, masks.newest_image_size(session, recipe))
        size = (mask.shape[0], mask.shape[1])
        sha256, share = self._blobs.put(to_png(mask)), float(mask.mean())
        return self._add(who, recipe, sha256, size, share, why, based_on)

    def clear(self, who: Principal, recipe: str, *, why: str, based_on: int | None = None) -> MaskRow:
        """An empty version: everything is inspected again."""
        row = self.newest(recipe)
        size = (row.height_px, row.width_px)
        empty = self._blobs.put(to_png(np.zeros(size, dtype=np.bool_)))
        return self._add(who, recipe, empty, size, 0.0, why, based_on)

    def preview(
        self,
        place: Place,
        calibration: ScoreCalibration,
        top_fraction: float,
        mask: Mask,
        *,
        map_size: tuple[int, int],
        limit: int,
    ) -> MaskPreview:
        """What `mask` would make of the newest `limit` stored inspections; nothing is changed."""
        try:
            check(mask, map_size)
        except MaskError as error:
            raise InspectionError(422, "invalid-mask", str(error)) from None
        limits = Limits(self._database)
        span, base = limits.span(place, None, None), limits.in_force(place)
        with self._database.read() as session:
            _check_aspect(mask, masks.newest_image_size(session, place.recipe))
            row = masks.newest(session, place.recipe)
            stored = masks.stored_maps(session, span, limit)
        present = None if row is None or row.share == 0 else self._decoded(row.sha256)
        found = effects(stored, self._blobs, mask, present, base.limits, calibration, top_fraction)
        version = 0 if row is None else row.version
        return MaskPreview(version, float(mask.mean()), uncovers(mask, present), found)

    def _add(
        self,
        who: Principal,
        recipe: str,
        sha256: str,
        size: tuple[int, int],
        share: float,
        why: str,
        based_on: int | None,
    ) -> MaskRow:
        with self._database.write() as session:
            owner = recipes.need(session, recipe, lock=True)
            now = masks.newest(session, recipe)
            version = 0 if now is None else now.version
            if based_on is not None and based_on != version:
                detail = f"mask version {version} is in force, not {based_on}; look at it and try again"
                raise InspectionError(409, "version-conflict", detail, extra={"version": version})
            row = masks.add(session, recipe, sha256=sha256, size=size, share=share, who=who.name, why=why)
            recipes.change(session, owner, {"mask_id": row.id if share else None})
            told = {"version": row.version, "share": round(share, 6), "sha256": sha256, "why": why}
            audit.record(session, who, "masks.set", f"recipe/{recipe}", told)
            return row

    def _decode(self, sha256: str) -> Mask:
        return from_pixels(decode(self._blobs.get(sha256), max_pixels=MAX_PIXELS).pixels)


def _check_aspect(mask: Mask, image: tuple[int, int] | None) -> None:
    if image is None:
        return
    height, width = mask.shape[0], mask.shape[1]
    ratio = (width / height) / (image[1] / image[0])
    # A row or column more or less is rounding.
    slack = _ASPECT_TOLERANCE + 1 / min(height, width)
    if abs(ratio - 1) > slack:
        detail = (
            f"the mask is {width} x {height} pixels and the recipe's newest image {image[1]} x {image[0]}: "
            "their aspect differs; draw the mask on an image of the recipe"
        )
        raise InspectionError(422, "invalid-mask", detail)
