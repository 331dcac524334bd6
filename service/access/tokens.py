"""Random secrets and what is kept of them: the plain text is told once, the database holds its sha256."""

import hashlib
import hmac
import secrets

KEY_PREFIX = "inl_"
_BYTES = 32  # 256 bits: no slow hash is needed, nobody guesses them


def new_key() -> str:
    """A key for a machine; the prefix lets secret scanners find one that was leaked."""
    return KEY_PREFIX + secrets.token_urlsafe(_BYTES)


def new_session() -> str:
    return secrets.token_urlsafe(_BYTES)


def digest(secret: str) -> str:
    """The sha256 that stands for a secret in the database."""
    return hashlib.sha256(secret.encode()).hexdigest()


def link_digest(secret: str) -> str:
    """As `digest`, for sign-in links: a link is no session, and a session is no link."""
    return digest(f"link:{secret}")


def csrf_token(session: str) -> str:
    """What a page of this session must send back to change something; nobody gets it without the cookie."""
    return hmac.new(session.encode(), b"csrf", hashlib.sha256).hexdigest()


def same(given: str, expected: str) -> bool:
    """Equality in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())
