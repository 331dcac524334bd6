"""Time-ordered identifiers: UUID version 7 (RFC 9562), so that newer sorts after older."""

import secrets
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta

_lock = threading.Lock()
_last = (0, 0)  # milliseconds, counter; guarded by _lock
_COUNTER_BITS = 12
_MOST_AHEAD_MS = 24 * 3600 * 1000
_LATEST_MS = (1 << 48) - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def new_id() -> str:
    """A UUIDv7 as text, strictly greater than every one this process made before (RFC 9562, method 1)."""
    global _last
    with _lock:
        now_ms, (last_ms, counter) = time.time_ns() // 1_000_000, _last
        if now_ms > last_ms:
            # Start in the lower half so that a burst inside one millisecond has room to count.
            last_ms, counter = now_ms, secrets.randbits(_COUNTER_BITS - 1)
        else:  # same millisecond, or the clock went back
            counter += 1
            if counter >> _COUNTER_BITS:
                last_ms, counter = last_ms + 1, 0
        _last = (last_ms, counter)
    value = last_ms << 80 | 0x7 << 76 | counter << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))


def follow(identifier: str) -> None:
    """Let this process make only greater ones, as if it had made this one itself.

    The clock may have been put back since. One of a clock that was more than a day ahead is not followed.
    """
    global _last
    value = uuid.UUID(identifier).int
    with _lock:
        found = value >> 80, value >> 64 & (1 << _COUNTER_BITS) - 1
        if found > _last and found[0] <= time.time_ns() // 1_000_000 + _MOST_AHEAD_MS:
            _last = found


def id_time(identifier: str) -> datetime:
    """When an id was made, to the millisecond, in UTC."""
    return _EPOCH + timedelta(milliseconds=uuid.UUID(identifier).int >> 80)


def first_id_at(moment: datetime) -> str:
    """The smallest id text of a moment: ids made at or after it sort at or after this."""
    ms = -((_EPOCH - moment) // timedelta(milliseconds=1))  # rounded up, in whole numbers
    return str(uuid.UUID(int=min(max(ms, 0), _LATEST_MS) << 80))
