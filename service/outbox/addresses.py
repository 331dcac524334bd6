"""Names are resolved once, checked, and the checked address is the one connected to."""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence

from service.outbox.allow import AllowList
from service.outbox.message import DeliveryError


async def resolve(allow: AllowList, host: str, port: int) -> Sequence[str]:
    """The addresses of `host` that may be connected to; DeliveryError without any."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise DeliveryError(f"the name {host} cannot be resolved", unreachable=True) from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    allowed = [text for text in addresses if allow.allows(host, ipaddress.ip_address(text))]
    if not allowed:
        detail = f"{host} is at {', '.join(addresses[:3])}, where INLIER_SINK_ALLOW does not let messages go"
        raise DeliveryError(detail, unreachable=True)
    return allowed
