"""Where sites reach the server."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from fedloom.errors import KitError

_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_EXAMPLES = "HOST:PORT, such as fedloom.example.org:8000, 192.0.2.7:8000 or [2001:db8::7]:8000"


@dataclass(frozen=True)
class Address:
    """host: a DNS name, or an IP address without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host as an IP address, None if it is a name."""
        return _ip(self.host)


def parse_address(text: str, where: object = "--server") -> Address:
    """The address in `host:port`. where: it was found.

    Raises: KitError if it is none, or one that no other machine can connect to.
    """
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    ip = _ip(bare)
    bracketed = bare != host
    known = (ip is not None and (ip.version == 6) == bracketed) or (ip is None and not bracketed and _is_name(bare))
    if not (colon and known and re.fullmatch(r"[0-9]{1,5}", port) and 1 <= int(port) <= 65535):
        raise KitError("this is no address of a server", where=where, expected=_EXAMPLES, found=repr(text))
    if ip is not None and ip.is_unspecified:
        do = "Give the name or the address by which the sites reach the server"
        raise KitError("no site can connect to this address", where=where, found=repr(text), do=do)
    return Address(bare if ip is None else str(ip), int(port))


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_name(host: str) -> bool:
    """A DNS name; its last label is no number, as an address with a slip in it would have."""
    labels = host.split(".")
    return len(host) <= 253 and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdecimal()
