"""Passwords: argon2id with the parameters of RFC 9106 (second choice, 64 MiB), checked off the event loop."""

import functools
import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from service.errors import InspectionError

MIN_LENGTH = 12
MAX_LENGTH = 1024
_hasher = PasswordHasher()
# Each check takes 64 MiB for some tens of milliseconds; a flood of sign-ins must not take all memory.
_slots = threading.BoundedSemaphore(2)


def check_new(password: str) -> None:
    """422 for a password that is too short to be one."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        detail = f"a password has {MIN_LENGTH} to {MAX_LENGTH} characters; several words make a good one"
        raise InspectionError(422, "bad-password", detail)


def hashed(password: str) -> str:
    """The argon2id hash to store; slow on purpose."""
    with _slots:
        return _hasher.hash(password)


@functools.cache
def of_nobody() -> str:
    """A hash to check against when there is no user; made beforehand, so that both take the same time."""
    return hashed("nobody signs in with this")


def matches(stored: str | None, password: str) -> bool:
    """Whether the password is the stored one; takes as long when nothing is stored."""
    with _slots:
        try:
            _hasher.verify(stored or of_nobody(), password[:MAX_LENGTH])
        except (VerificationError, InvalidHashError):
            return False
    return stored is not None


def outdated(stored: str) -> bool:
    """Whether the hash was made with weaker parameters than today's."""
    return _hasher.check_needs_rehash(stored)
