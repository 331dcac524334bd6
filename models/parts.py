"""Several kinds of parts in one model: the kind is a condition of the network, and a profile chooses it.

A bundle of several parts has every profile once per part, named `PROFILE.PART`. Whoever runs a profile
therefore need not know of parts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.drive import Denoiser
from models.profiles import Profile

Float = NDArray[np.float32]
LabelledNet = Callable[..., Float]
"""A Denoiser; if it was trained on several parts, with a third argument, the labels `[B]` int64."""

LONGEST_NAME = 64
"""Of a profile, in characters: a verdict is stored with it."""


def for_part(name: str, part: str | None) -> str:
    """`fast` -> `fast.bolt`; the name as it is where there are no parts."""
    return name if part is None else f"{name}.{part}"


def per_part(profiles: Mapping[str, Profile], parts: Iterable[str | None]) -> dict[str, Profile]:
    """Every profile once per part, the first part's profiles first; `(None,)` changes nothing."""
    return {
        for_part(name, part): profile.model_copy(update={"part": part})
        for part in parts
        for name, profile in profiles.items()
    }


def check_parts(parts: Sequence[str], classes: int, profiles: Mapping[str, Profile]) -> None:
    """ValueError unless the network has a class, and `profiles` the same ones, for every part."""
    if len(set(parts)) < len(parts) or len(parts) == 1 or classes != len(parts):
        raise ValueError(f"a network of {classes} classes does not fit the parts {list(parts)}")
    if not parts and any(profile.part is not None for profile in profiles.values()):
        raise ValueError("a profile is for a part, but the model has no parts")
    names = {name.removesuffix(f".{profile.part}") for name, profile in profiles.items()}
    found = {(name, profile.part) for name, profile in profiles.items()}
    if parts and found != {(for_part(name, part), part) for name in names for part in parts}:
        raise ValueError(f"profiles {sorted(profiles)} must be PROFILE.PART for each of {list(parts)}")
    long = [name for name in profiles if len(name) > LONGEST_NAME]
    if parts and long:
        raise ValueError(f"profile names {long} are longer than {LONGEST_NAME} characters")


def of_part(net: LabelledNet, label: int | None) -> Denoiser:
    """The network with its condition fixed to one part's label, or as it is without one."""
    if label is None:
        return net

    def denoiser(x: Float, t: Float) -> Float:
        return net(x, t, np.full(len(x), label, dtype=np.int64))

    return denoiser
