"""Before hours of training: whether the gate can let anything pass at all."""

from collections.abc import Mapping, Sequence

from models.snapshot import LEAST_GOLDEN, proves_something

_LEAST = "--least-golden"
_OWN = ("--golden", "--escapes")  # parts from elsewhere


def lacking(images: Mapping[str, int], gate_options: Sequence[str]) -> str | None:
    """Why the gate would refuse any candidate, and what to do: the export has too few confirmed parts.

    `images` are its counts by use. None where they are enough, or the gate is told to take others.
    """
    least = _least(gate_options)
    if least is None or any(word.partition("=")[0] in _OWN for word in gate_options):
        return None
    good, bad, missed = (images.get(use, 0) for use in ("golden/good", "golden/defective", "escapes"))
    if proves_something(good, bad, missed, least):
        return None
    return (
        f"nothing was trained, because the gate would let nothing pass: it asks for {least} confirmed parts, "
        f"good and defective, and has {good} good and {bad + missed} defective ones (of the good parts that "
        "people confirm, half are for the gate). Review random audits; or, for a first model, take what "
        f"there is: --gate-option '{_LEAST} 0'"
    )


def _least(words: Sequence[str]) -> int | None:
    """What the gate is told, or its default; None for what the gate itself will refuse."""
    found: str | int = LEAST_GOLDEN
    for place, word in enumerate(words):
        name, given, value = word.partition("=")
        if name == _LEAST:
            found = value if given else " ".join(words[place + 1 : place + 2])
    try:
        return int(found)
    except ValueError:
        return None
