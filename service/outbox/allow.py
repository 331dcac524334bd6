"""Where messages may go: `public` addresses, networks, and names, from a setting."""

import ipaddress
from dataclasses import dataclass
from fnmatch import fnmatchcase

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PUBLIC = "public"


@dataclass(frozen=True)
class AllowList:
    """Parsed `sink_allow`: `public`, networks, and host names with `*`; something in it must match.

    A name in the list may resolve to any unicast address: whoever listed it vouches for it.
    """

    public: bool
    networks: tuple[_Network, ...]
    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "AllowList":
        """From a comma-separated list; ValueError says which entry is neither network nor name."""
        networks: list[_Network] = []
        names: list[str] = []
        entries = [entry.strip().lower() for entry in text.split(",") if entry.strip()]
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                if "/" in entry or ":" in entry:
                    raise ValueError(f"{entry!r} is neither a network nor a host name") from None
                names.append(entry)
        return cls(_PUBLIC in names, tuple(networks), tuple(name for name in names if name != _PUBLIC))

    def allows(self, host: str, address: _Address) -> bool:
        address = _embedded(address)
        if address.is_multicast or address.is_unspecified or address == ipaddress.IPv4Address(2**32 - 1):
            return False
        return (
            any(fnmatchcase(host.lower().rstrip("."), name) for name in self.names)
            or any(address in network for network in self.networks if network.version == address.version)
            or (self.public and address.is_global)
        )

    def refuses_literal(self, host: str) -> bool:
        """Whether `host` is an address that may not be used; names are looked at when they are resolved."""
        try:
            return not self.allows(host, ipaddress.ip_address(host))
        except ValueError:
            return False


def _embedded(address: _Address) -> _Address:
    """The IPv4 address that an IPv6 one stands for, if it does: it decides where packets end."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return inner or address
    return address
