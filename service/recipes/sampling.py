"""Which PASSes a person looks at although nothing is wrong: the only way to learn how much escapes."""

import hashlib


def drawn_for_audit(identifier: str, rate: float) -> bool:
    """Whether a PASS of this id belongs to the random sample of `rate` (0 to 1).

    It depends on nothing but the id, so it is the same on every machine and favours no part; what is drawn
    at a rate is also drawn at every higher one.
    """
    digest = hashlib.sha256(identifier.encode()).digest()
    return int.from_bytes(digest[:8], "big") < rate * 2**64
