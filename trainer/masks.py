"""The ignore mask of a training: read, and brought to the network's input."""

from pathlib import Path

from models.decode import DecodeError, decode
from models.masks import Mask, MaskError, check, from_pixels, resize
from models.preprocess import Preprocess
from trainer.data import DataError


def read_mask(path: Path) -> Mask:
    """A PNG, white where parts are not inspected; DataError for anything else."""
    try:
        image = decode(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise DataError(f"--mask {path} cannot be read: {error}") from None
    if image.media_type != "image/png":
        raise DataError(f"--mask {path} is {image.media_type}; a lossless PNG is needed")
    return from_pixels(image.pixels)


def fit_mask(mask: Mask, spec: Preprocess, reduce: int) -> Mask:
    """At the size of the network's input; DataError when nothing would be inspected."""
    try:
        check(mask, (spec.height // reduce, spec.width // reduce))
    except MaskError as error:
        raise DataError(f"--mask: {error}") from None
    return resize(mask, (spec.height, spec.width))
